//! `hashpact receipts`: who acts on an own set, an entry of it, or a retraction.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use hashpact_api::wire;
use serde::Serialize;

use super::client::{Client, connect_or_embed};
use super::error::CliError;
use super::output::{count, duration, stamp, table, time};
use super::values::SetReference;
use super::{Context, recheck};

/// Between looks with `--wait`.
const LOOK: Duration = Duration::from_millis(200);

/// Show which members act on an entry, a retraction or a whole set of this node
///
/// A member is done when every node of it has signed that all that matches there acts
/// on the set up to and with that leaf. SET#INDEX names an entry or the leaf of a
/// retraction; for an entry that was withdrawn it shows who acts on its withdrawal,
/// and with --published who acted on the entry. SET alone stands for all of the set.
///
/// Times of members are by their own clocks, that of publication by this node's.
///
/// With --recheck the other way round, at whoever reads a set: what this node answered,
/// by its match journal, because of entries that were withdrawn since, and which
/// publishers ask to look. SET and SET#INDEX are another member's then, MEMBER/SET, and
/// may be left out for all. The configuration turns the journal on.
#[derive(Debug, Args)]
pub struct ReceiptsArgs {
    /// SET, or SET#INDEX: an entry, or the leaf of a retraction
    #[arg(
        value_name = "ENTRY|RETRACTION|SET",
        required_unless_present = "recheck"
    )]
    pub subject: Option<Subject>,
    /// Of an entry that was withdrawn: who acts on the entry, not on its withdrawal
    #[arg(long)]
    pub published: bool,
    /// Wait until every member is done, at most so long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub wait: Option<u64>,
    /// List answers of this node that rest on entries withdrawn since
    #[arg(long, conflicts_with_all = ["published", "wait"])]
    pub recheck: bool,
    /// Only answers to this signal, KIND:VALUE; may be repeated
    #[arg(long, value_name = "KIND:VALUE", requires = "recheck")]
    pub signal: Vec<String>,
    /// Only answers to what these files hash to
    #[arg(long, value_name = "FILE", requires = "recheck", num_args = 1..)]
    pub value_of: Vec<PathBuf>,
    /// Say that the requests to recheck were followed: they are no alarm any more
    #[arg(long, requires = "recheck", conflicts_with_all = ["signal", "value_of"])]
    pub ack: bool,
}

/// A set, or one leaf of it.
#[derive(Debug, Clone)]
pub struct Subject {
    pub(super) set: SetReference,
    pub(super) index: Option<u64>,
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (set, index) = match text.split_once('#') {
            Some((set, index)) => (set, Some(index)),
            None => (text, None),
        };
        let index = index.map(str::parse).transpose();
        Ok(Self {
            set: set.parse().map_err(|error| format!("{error}"))?,
            index: index.map_err(|_| "write SET#INDEX, such as confirmed#12".to_owned())?,
        })
    }
}

#[derive(Serialize)]
struct Shown {
    set: String,
    index: u64,
    kind: String,
    withdrew: Option<u64>,
    published: Option<String>,
    published_after: Option<String>,
    overdue_after_ms: u64,
    done: u32,
    late: u32,
    unreachable: u32,
    silent: u32,
    p50_ms: Option<u64>,
    p99_ms: Option<u64>,
    members: Vec<MemberObject>,
}

#[derive(Serialize)]
struct MemberObject {
    member: String,
    state: String,
    size: u64,
    since: Option<String>,
    since_ms: Option<u64>,
    at_latest: bool,
    took_ms: Option<u64>,
    overdue: bool,
    nodes: Vec<NodeObject>,
}

#[derive(Serialize)]
struct NodeObject {
    node: String,
    state: String,
    size: u64,
    since: Option<String>,
    signed: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A set of another member, a leaf that there is not; with `--wait` members that are not
/// done in time.
pub fn run(args: &ReceiptsArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let subject = match &args.subject {
        Some(subject) if !args.recheck => subject,
        subject => {
            let what = recheck::What {
                subject: subject.as_ref(),
                signals: &args.signal,
                files: &args.value_of,
            };
            return recheck::run(&client, &what, args.ack, context);
        }
    };
    if args.wait.is_some() && client.is_embedded() {
        return Err(
            CliError::failed("no node runs: no receipt will come").next("hashpact run starts it")
        );
    }
    let receipts = match args.wait {
        None => ask(&client, subject, args.published)?,
        Some(seconds) => {
            let at_most = Duration::from_secs(seconds);
            waited(&client, subject, args.published, at_most)?
        }
    };
    print(&receipts, subject, context)?;
    let missing = receipts.late.saturating_add(receipts.unreachable);
    context.output.json(&shown(receipts))?;
    if args.wait.is_some() && missing > 0 {
        return Err(CliError::failed(format!("{missing} members are not done"))
            .next("hashpact peers shows who is connected"));
    }
    Ok(())
}

fn waited(
    client: &Client,
    subject: &Subject,
    published: bool,
    at_most: Duration,
) -> Result<wire::ReceiptsResponse, CliError> {
    let began = std::time::Instant::now();
    let mut told = false;
    loop {
        let receipts = ask(client, subject, published)?;
        let missing = receipts.late.saturating_add(receipts.unreachable);
        if missing == 0 || began.elapsed() >= at_most {
            return Ok(receipts);
        }
        if !told && began.elapsed() >= Duration::from_secs(1) {
            super::output::note(format_args!("waiting for {missing} members"));
            told = true;
        }
        std::thread::sleep(LOOK);
    }
}

fn ask(
    client: &Client,
    subject: &Subject,
    published: bool,
) -> Result<wire::ReceiptsResponse, CliError> {
    let set = subject.set.resolve(&client.config().member.slug);
    client.call(client.node().receipts(wire::ReceiptsRequest {
        set: set.to_string(),
        index: subject.index,
        published,
    }))
}

fn print(
    receipts: &wire::ReceiptsResponse,
    subject: &Subject,
    context: &Context,
) -> Result<(), CliError> {
    let output = &context.output;
    let (set, index) = (&receipts.set, receipts.index);
    match (subject.index, receipts.withdrew) {
        (None, _) => output.line(format_args!(
            "{set}: all of it, {} leaves",
            count(index.saturating_add(1))
        ))?,
        (Some(_), Some(entry)) => {
            output.line(format_args!(
                "{set}#{entry} was withdrawn by leaf {index} ({}): who acts on that",
                receipts.kind
            ))?;
        }
        (Some(_), None) => output.line(format_args!("{set}#{index}: {}", receipts.kind))?,
    }
    output.line(format_args!(
        "published {} here; members' times are by their own clocks",
        time(receipts.published_ms)
    ))?;
    if receipts.members.is_empty() {
        return output.line("nobody else may read the set");
    }
    output.line("")?;
    let mut rows = table(&["MEMBER", "STATE", "SIZE", "SINCE", "TOOK"], &[2, 4]);
    for member in &receipts.members {
        let latest = if member.at_latest { "≤ " } else { "" };
        let late = if member.overdue { ", overdue" } else { "" };
        rows.add_row([
            member.member.clone(),
            format!("{}{late}", member.state),
            count(member.size),
            match member.since_ms {
                0 => "-".to_owned(),
                since => format!("{latest}{}", time(since)),
            },
            member.took_ms.map_or_else(|| "-".to_owned(), took),
        ]);
    }
    output.table(&rows)?;
    output.line("")?;
    let silent = match receipts.silent {
        0 => String::new(),
        silent => format!(", {silent} make no receipts"),
    };
    output.line(format_args!(
        "{} done, {} late, {} unreachable{silent}",
        receipts.done, receipts.late, receipts.unreachable
    ))?;
    if let (Some(p50), Some(p99)) = (receipts.p50_ms, receipts.p99_ms) {
        let (p50, p99) = (took(p50), took(p99));
        output.line(format_args!(
            "from publication until they act on it: p50 {p50}, p99 {p99}"
        ))?;
    }
    Ok(())
}

fn took(millis: u64) -> String {
    duration(Duration::from_millis(millis))
}

fn shown(receipts: wire::ReceiptsResponse) -> Shown {
    Shown {
        set: receipts.set,
        index: receipts.index,
        kind: receipts.kind,
        withdrew: receipts.withdrew,
        published: stamp(receipts.published_ms),
        published_after: stamp(receipts.published_after_ms),
        overdue_after_ms: receipts.overdue_after_ms,
        done: receipts.done,
        late: receipts.late,
        unreachable: receipts.unreachable,
        silent: receipts.silent,
        p50_ms: receipts.p50_ms,
        p99_ms: receipts.p99_ms,
        members: receipts.members.into_iter().map(object).collect(),
    }
}

fn object(member: wire::MemberReceipts) -> MemberObject {
    let nodes = member.nodes.into_iter().map(|node| NodeObject {
        node: node.node,
        state: node.state,
        size: node.size,
        since: stamp(node.since_ms),
        signed: stamp(node.signed_ms),
    });
    MemberObject {
        member: member.member,
        state: member.state,
        size: member.size,
        since: stamp(member.since_ms),
        since_ms: (member.since_ms > 0).then_some(member.since_ms),
        at_latest: member.at_latest,
        took_ms: member.took_ms,
        overdue: member.overdue,
        nodes: nodes.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_a_set_or_a_leaf_of_one() {
        let of = |text: &str| {
            text.parse::<Subject>()
                .map(|s| (s.set.to_string(), s.index))
        };
        assert_eq!(of("confirmed"), Ok(("confirmed".to_owned(), None)));
        let leaf = Ok(("north/confirmed".to_owned(), Some(12)));
        assert_eq!(of("north/confirmed#12"), leaf);
        for bad in ["confirmed#", "confirmed#x", "#1", "a/b/c", "confirmed#-1"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
