//! `hashpact audit`: who did what on this node, and whether the record is sound.

use std::collections::{BTreeMap, VecDeque};

use clap::{Args, Subcommand};
use hashpact_api::wire;
use hashpact_api::wire::audit_leaf::Said;
use hashpact_core::id::Slug;
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::Context;
use super::client::{Client, connect_or_embed, failed};
use super::error::{CliError, Exit};
use super::output::{counted, note, stamp, time};
use super::values::slug;

/// Columns that lines are broken at where no terminal says how many it has.
const WIDTH: usize = 80;
/// The acts that this program records, as `docs/AUDIT.md` lists them; those that begin
/// with "command." are a command's own words.
const ACTS: [&str; 44] = [
    "audit.remove",
    "bundle.export",
    "bundle.import",
    "card.publish",
    "changes.follow",
    "coalition.publish",
    "coalition.suspend",
    "command",
    "config.reload",
    "consumer.remove",
    "enrol.accept",
    "erase",
    "evidence.export",
    "export",
    "import",
    "keys.replace",
    "keys.use",
    "lookup",
    "lookup.past",
    "mute",
    "mute.over",
    "node.start",
    "node.stop",
    "opine",
    "policy.explain",
    "policy.load",
    "preview",
    "prove",
    "quarantine.drop",
    "quarantine.release",
    "recheck",
    "recheck.acknowledge",
    "refused",
    "retention.drop",
    "retract",
    "roster.file",
    "roster.import",
    "roster.re-anchor",
    "set.confirm-head",
    "set.create",
    "set.grant",
    "set.lost",
    "set.revoke",
    "unmute",
];

/// Show who did what on this node: commands, look-ups, refused calls
///
/// One line an act, oldest first, with a second one that says who did it. With
/// --json, one object a line. A time is 2026-11-22, 2026-11-22T06:40:00Z, or so long
/// ago: 90m, 24h, 7d. Every act is signed; `hashpact audit verify` checks all.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    /// What to do instead of showing it
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    /// Acts that began at this time or later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<u64>,
    /// Acts that began before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<u64>,
    /// Acts about this member or its sets, or by one of its nodes
    #[arg(long, value_name = "MEMBER", value_parser = slug)]
    pub member: Option<Slug>,
    /// Acts of this code, such as set.create, or of a group, such as set
    #[arg(long, value_name = "ACT")]
    pub act: Option<String>,
    /// Only the newest so many of them
    #[arg(long, value_name = "COUNT")]
    pub last: Option<usize>,
    /// Go on with what is done from here on, until it is stopped
    #[arg(short, long)]
    pub follow: bool,
}

/// What to do with the audit feed.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum AuditCommand {
    /// Recompute the record from its leaves, and check every signature
    ///
    /// `hashpact verify` does so, too. Exit code 1 when anything differs.
    Verify,
}

/// A leaf, as `--json` shows it.
#[derive(Serialize)]
struct LeafObject {
    segment: u64,
    index: u64,
    #[serde(flatten)]
    said: SaidObject,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SaidObject {
    Act(Box<ActObject>),
    Segment {
        segment_began: Option<String>,
        node: String,
        predecessor: Option<PredecessorObject>,
    },
    Unread {
        unread: bool,
    },
}

#[derive(Serialize)]
struct ActObject {
    began: Option<String>,
    ended: Option<String>,
    act: String,
    outcome: String,
    set: Option<String>,
    member: Option<String>,
    role: String,
    via: String,
    name: Option<String>,
    uid: Option<u32>,
    command: Option<String>,
    counts: BTreeMap<String, u64>,
    details: Vec<DetailObject>,
}

#[derive(Serialize)]
struct DetailObject {
    name: String,
    text: String,
}

#[derive(Serialize)]
struct PredecessorObject {
    id: String,
    size: u64,
    root: String,
    broken: Option<String>,
}

#[derive(Serialize)]
struct Checked {
    sound: bool,
    segments: u64,
    leaves: u64,
    heads: u64,
    unsigned: u64,
    under_way: u64,
    /// The newest head, a C2SP note.
    head: String,
    problems: Vec<String>,
    notices: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When neither a node nor its store can be reached; when the record is not sound.
pub fn run(args: &AuditArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    if matches!(args.command, Some(AuditCommand::Verify)) {
        return verify(&client, context);
    }
    if args.follow && client.is_embedded() {
        return Err(CliError::failed("no node runs: nothing can be followed")
            .next("start it with hashpact run, or leave --follow away"));
    }
    client.note_at_rest();
    let shown = client.wait(show(args, &client, context))?;
    match args
        .act
        .as_deref()
        .filter(|act| shown == 0 && !is_known(act))
    {
        Some(act) => Err(unknown(act)),
        None => Ok(()),
    }
}

/// Whether an act is one that this program records, or a group of such.
fn is_known(code: &str) -> bool {
    let begins = |act: &str, with: &str| {
        let rest = act.strip_prefix(with);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    begins(code, "command") || ACTS.iter().any(|act| begins(act, code))
}

/// Nothing is to be found by a code that nothing is recorded under.
fn unknown(code: &str) -> CliError {
    CliError::usage(format!("there is no act {code:?}, and none is recorded"))
        .next(format!("the acts are {}", ACTS.join(", ")))
}

/// Answers how many leaves it printed.
async fn show(args: &AuditArgs, client: &Client, context: &Context) -> Result<u64, CliError> {
    let request = wire::AuditRequest {
        since_ms: args.since.unwrap_or_default(),
        until_ms: args.until.unwrap_or_default(),
        member: args
            .member
            .as_ref()
            .map(Slug::to_string)
            .unwrap_or_default(),
        act: args.act.clone().unwrap_or_default(),
        follow: args.follow,
    };
    let answers = client.node().audit(request).await;
    let mut answers = answers.map_err(|status| failed(&status))?.into_inner();
    let mut held = VecDeque::new();
    let mut caught_up = false;
    let mut shown = 0_u64;
    while let Some(page) = answers.message().await.map_err(|status| failed(&status))? {
        for leaf in page.leaves {
            match args.last {
                Some(last) if !caught_up => {
                    held.push_back(leaf);
                    if held.len() > last {
                        held.pop_front();
                    }
                }
                Some(_) | None => {
                    shown = shown.saturating_add(1);
                    print(leaf, context)?;
                }
            }
        }
        caught_up |= page.caught_up;
        if caught_up {
            for leaf in held.drain(..) {
                shown = shown.saturating_add(1);
                print(leaf, context)?;
            }
        }
    }
    Ok(shown)
}

fn print(leaf: wire::AuditLeaf, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    match &leaf.said {
        Some(Said::Act(act)) => {
            let began = time(act.began_ms);
            let subject = [act.set.as_str(), act.member.as_str()];
            let mut line = format!("{began}  {:<18} {}", act.act, act.outcome);
            for subject in subject.into_iter().filter(|subject| !subject.is_empty()) {
                line.push_str("  ");
                line.push_str(subject);
            }
            output.line(clip(&line, output.columns()))?;
            for line in wrapped(&who_and_what(act), output.columns()) {
                output.line(format_args!("    {line}"))?;
            }
        }
        Some(Said::SegmentBegan(segment)) => {
            let why = match segment.broken.as_str() {
                "" => String::new(),
                broken => format!(", anew: {broken}"),
            };
            let began = time(segment.created_ms);
            output.line(format_args!(
                "{began}  segment {} begins{why}",
                leaf.segment
            ))?;
        }
        None => output.line(format_args!(
            "segment {}, leaf {}: this program cannot read it",
            leaf.segment, leaf.index
        ))?,
    }
    output.json(&object(leaf))
}

/// Who did it, and what was counted and said of it.
fn who_and_what(act: &wire::AuditAct) -> Vec<String> {
    let mut words = vec![format!("{} via {}", act.role, act.via)];
    if !act.name.is_empty() {
        words.push(act.name.clone());
    }
    if let Some(uid) = act.uid {
        words.push(format!("uid {uid}"));
    }
    if !act.command.is_empty() {
        words.push(format!("hashpact {}", act.command.replace('-', " ")));
    }
    let counts = act.counts.iter();
    words.extend(counts.map(|count| format!("{}: {}", count.name, count.count)));
    let details = act.details.iter();
    words.extend(details.map(|detail| format!("{}: {}", detail.name, detail.text)));
    words
}

/// Lines of these, with commas, that fit beside the indent. What is longer than a line
/// is cut for a terminal, and says so; a file or a pipe gets all of it.
fn wrapped(words: &[String], columns: Option<usize>) -> Vec<String> {
    let room = columns.unwrap_or(WIDTH).saturating_sub(4).max(20);
    let cut = columns.map(|_| room);
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        let word = clip(word, cut);
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + word.chars().count() < room => {
                line.push_str(", ");
                line.push_str(&word);
            }
            Some(line) => {
                line.push(',');
                lines.push(word);
            }
            None => lines.push(word),
        }
    }
    // A comma at the end of a full line may be one too many.
    let full = |line: &String| cut.is_some_and(|room| line.chars().count() > room);
    for line in lines.iter_mut().filter(|line| full(line)) {
        line.pop();
    }
    lines
}

/// A line of at most so many columns, where there is such a limit.
fn clip(line: &str, columns: Option<usize>) -> String {
    match columns {
        Some(columns) if line.chars().count() > columns => {
            let kept = line.chars().take(columns.saturating_sub(1));
            kept.chain(['…']).collect()
        }
        Some(_) | None => line.to_owned(),
    }
}

fn object(leaf: wire::AuditLeaf) -> LeafObject {
    let text = |text: String| (!text.is_empty()).then_some(text);
    let said = match leaf.said {
        Some(Said::Act(act)) => SaidObject::Act(Box::new(ActObject {
            began: stamp(act.began_ms),
            ended: stamp(act.ended_ms),
            act: act.act,
            outcome: act.outcome,
            set: text(act.set),
            member: text(act.member),
            role: act.role,
            via: act.via,
            name: text(act.name),
            uid: act.uid,
            command: text(act.command),
            counts: act.counts.into_iter().map(|c| (c.name, c.count)).collect(),
            details: act
                .details
                .into_iter()
                .map(|detail| DetailObject {
                    name: detail.name,
                    text: detail.text,
                })
                .collect(),
        })),
        Some(Said::SegmentBegan(segment)) => SaidObject::Segment {
            segment_began: stamp(segment.created_ms),
            node: segment.node,
            predecessor: text(segment.predecessor_id).map(|id| PredecessorObject {
                id,
                size: segment.predecessor_size,
                root: segment.predecessor_root,
                broken: text(segment.broken),
            }),
        },
        None => SaidObject::Unread { unread: true },
    };
    LeafObject {
        segment: leaf.segment,
        index: leaf.index,
        said,
    }
}

fn verify(client: &Client, context: &Context) -> Result<(), CliError> {
    let request = wire::VerifyAuditRequest {};
    let report = client.call(client.node().verify_audit(request))?;
    let output = &context.output;
    for problem in &report.problems {
        output.line(format_args!("! {problem}"))?;
    }
    let sound = report.problems.is_empty();
    let verdict = match u64::try_from(report.problems.len()).unwrap_or(u64::MAX) {
        0 => "sound".to_owned(),
        problems => counted(problems, "problem", "problems"),
    };
    output.line(format_args!(
        "{verdict}: {}, {}, {}",
        counted(report.segments, "segment", "segments"),
        counted(report.leaves, "leaf", "leaves"),
        counted(report.heads, "head", "heads")
    ))?;
    if !output.is_json() {
        for notice in &report.notices {
            note(notice);
        }
        if report.unsigned > 0 {
            let leaves = counted(report.unsigned, "leaf is", "leaves are");
            note(format_args!("{leaves} not signed yet"));
        }
    }
    output.json(&Checked {
        sound,
        segments: report.segments,
        leaves: report.leaves,
        heads: report.heads,
        unsigned: report.unsigned,
        under_way: report.under_way,
        head: String::from_utf8_lossy(&report.head).into_owned(),
        problems: report.problems,
        notices: report.notices,
    })?;
    match (sound, output.is_json()) {
        (true, _) => Ok(()),
        (false, true) => Err(CliError::Quiet(Exit::Failed)),
        (false, false) => Err(CliError::failed("the audit feed is not what was signed")
            .next("keep the store as it is for inquiry, and the sign-state folder with it")),
    }
}

/// Reads a time: a day, an instant, or so long ago. In milliseconds since 1970.
fn moment(text: &str) -> Result<u64, String> {
    let ago = |number: &str, ms: u64| {
        let number: u64 = number.parse().map_err(|_| "this is no time".to_owned())?;
        let ago = number.saturating_mul(ms);
        Ok(Clock::system().now().0.saturating_sub(ago))
    };
    for (unit, ms) in [("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)] {
        if let Some(number) = text.strip_suffix(unit) {
            return ago(number, ms);
        }
    }
    let instant = text.parse::<jiff::Timestamp>().or_else(|error| {
        let day = text.parse::<jiff::civil::Date>().map_err(|_| error)?;
        day.to_zoned(jiff::tz::TimeZone::UTC)
            .map(|zoned| zoned.timestamp())
    });
    let instant = instant.map_err(|_| {
        "write 2026-11-22, 2026-11-22T06:40:00Z, or so long ago: 90m, 24h, 7d".to_owned()
    })?;
    u64::try_from(instant.as_millisecond()).map_err(|_| "a time before 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_days_instants_or_so_long_ago() {
        assert_eq!(moment("1970-01-02"), Ok(86_400_000));
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(1_000));
        let now = Clock::system().now().0;
        let day = moment("1d").unwrap();
        assert!((now - 86_400_000..=now - 86_400_000 + 60_000).contains(&day));
        for bad in ["", "d", "yesterday", "1969-12-31", "-1h", "2026-13-01"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_act_is_told_from_what_has_not_happened() {
        let documented = include_str!("../../docs/AUDIT.md");
        for act in ACTS {
            let named = documented.contains(&format!("`{act}`"));
            assert!(named || act == "command", "{act}");
        }
        // And the other way: the rows of the table of acts, up to that of the fields.
        let rows = documented
            .lines()
            .take_while(|line| !line.starts_with("| `segment`"));
        let cells = rows.filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
        let codes = cells.flat_map(|(cell, _)| cell.split(", "));
        // Which commands there are is said there in words.
        let codes = codes.filter(|code| *code != "`command.…`");
        let mut seen = 0;
        for code in codes.filter_map(|code| code.strip_prefix('`')?.strip_suffix('`')) {
            assert!(ACTS.contains(&code), "{code} is documented and not listed");
            seen += 1;
        }
        assert!(seen > 30, "{seen}");
        for known in [
            "set",
            "set.lost",
            "command",
            "command.keys.rotate",
            "retention.drop",
            "retract",
        ] {
            assert!(is_known(known), "{known}");
        }
        for unknown in ["nosuch", "se", "set.", "set.lost.x", ""] {
            assert!(!is_known(unknown), "{unknown:?}");
        }
    }

    #[test]
    fn a_terminal_sees_where_a_line_was_cut_and_a_file_gets_all_of_it() {
        let long = format!("config_digest: {}", "0".repeat(64));
        let words = ["node via node".to_owned(), long.clone(), "x".to_owned()];
        assert!(
            wrapped(&words, None)
                .iter()
                .any(|line| line.starts_with(&long))
        );
        let lines = wrapped(&words, Some(80));
        assert!(lines.iter().all(|line| line.chars().count() <= 76));
        assert!(lines.iter().any(|line| line.ends_with('…')), "{lines:?}");
        assert!(
            wrapped(&words, Some(120))
                .iter()
                .any(|line| line.contains(&long))
        );
    }

    #[test]
    fn lines_keep_to_the_terminal_whatever_an_act_says() {
        let (mut context, printed) = Context::for_test(false);
        context.output = context.output.with_columns(WIDTH);
        let act = wire::AuditAct {
            act: "command.coalition.revoke-feed-key".to_owned(),
            outcome: "interrupted".to_owned(),
            set: format!("{}/{}", "m".repeat(32), "s".repeat(32)),
            member: "m".repeat(32),
            role: "administrator".to_owned(),
            via: "socket".to_owned(),
            uid: Some(u32::MAX),
            details: vec![
                wire::AuditDetail {
                    name: "reason".to_owned(),
                    text: "x".repeat(500),
                };
                9
            ],
            ..Default::default()
        };
        let leaf = wire::AuditLeaf {
            segment: 1,
            index: 2,
            said: Some(Said::Act(act)),
        };
        print(leaf, &context).unwrap();
        let text = printed.text();
        assert!(text.lines().count() > 3);
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
    }
}
