//! `hashpact opinions`: what members think of entries.

use clap::Args;
use hashpact_api::wire;
use hashpact_core::signal::{Signal, SignalKind};
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::CliError;
use super::output::{note, stamp, table, time};
use super::values::SetReference;

/// List what members think of entries: who, which way, why and when
#[derive(Debug, Args)]
pub struct OpinionsArgs {
    /// Only of this entry or set: MEMBER/SET#INDEX, MEMBER/SET or SET of this member
    #[arg(value_name = "ENTRY|SET")]
    pub about: Option<String>,
    /// Only what this member thinks itself
    #[arg(long, conflicts_with = "about")]
    pub mine: bool,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    pub limit: usize,
}

#[derive(Serialize)]
struct Listed {
    opinions: Vec<OpinionObject>,
    /// Whether there are more than were asked for.
    more: bool,
}

#[derive(Serialize)]
struct OpinionObject {
    /// Absent where it is about a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    entry_held: bool,
    /// One kind of the entry's signals; absent for the whole entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    /// An own signal of the member's.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    member: String,
    set: String,
    index: u64,
    stance: String,
    confidence: u32,
    reason_id: u32,
    reason: String,
    note: String,
    said: Option<String>,
    in_doubt: bool,
    counts: bool,
}

/// Runs the command.
///
/// # Errors
/// When neither a node nor its store can be reached, or the set is not held.
pub fn run(args: &OpinionsArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let own = &client.config().member.slug;
    let mut request = wire::ListOpinionsRequest {
        own: args.mine,
        ..wire::ListOpinionsRequest::default()
    };
    match args.about.as_deref() {
        Some(entry) if entry.contains('#') => entry.clone_into(&mut request.entry),
        Some(set) => {
            let set: SetReference = set.parse().map_err(CliError::usage)?;
            request.set = set.resolve(own).to_string();
        }
        None => {}
    }
    let (mut opinions, mut more) = (Vec::new(), true);
    while more && opinions.len() < args.limit {
        let left = args.limit.saturating_sub(opinions.len());
        request.limit = u32::try_from(left).unwrap_or(u32::MAX);
        let answer = client.call(client.node().list_opinions(request.clone()))?;
        more = !answer.next.is_empty();
        request.after = answer.next;
        opinions.extend(answer.opinions);
    }
    more |= opinions.len() > args.limit;
    opinions.truncate(args.limit);
    print(&opinions, context)?;
    if more {
        note("and more; --limit says how many are listed");
    }
    let opinions = opinions.into_iter().map(object).collect();
    context.output.json(&Listed { opinions, more })
}

fn print(opinions: &[wire::Opinion], context: &Context) -> Result<(), CliError> {
    if opinions.is_empty() {
        return context.output.line("nobody has said anything");
    }
    let mut shown = table(&["ENTRY", "MEMBER", "STANCE", "REASON", "SAID"], &[]);
    for opinion in opinions {
        let mut stance = format!("{} {} %", opinion.stance, opinion.confidence);
        if opinion.in_doubt {
            stance.push_str(", in doubt");
        }
        if !opinion.counts {
            stance.push_str(", does not count");
        }
        let mut reason = reason(opinion);
        if !opinion.note.is_empty() {
            reason = format!("{reason}: {}", opinion.note.replace('\n', " "));
        }
        shown.add_row([
            subject(opinion),
            opinion.member.clone(),
            stance,
            reason,
            time(opinion.said_ms),
        ]);
    }
    context.output.table(&shown)
}

/// What it is about; of a signal only the kind, for terminals are looked at.
fn subject(opinion: &wire::Opinion) -> String {
    match (&opinion.signal, kind_name(opinion.kind)) {
        (Some(signal), _) => {
            let kind = kind_name(signal.kind).unwrap_or_default();
            format!("a {kind} signal of its own")
        }
        (None, Some(kind)) => format!("{} ({kind})", opinion.entry),
        (None, None) => opinion.entry.clone(),
    }
}

fn kind_name(number: u32) -> Option<String> {
    if number == 0 {
        return None;
    }
    let kind = SignalKind::from_number(number);
    Some(kind.map_or_else(|| format!("kind {number}"), |kind| kind.to_string()))
}

fn reason(opinion: &wire::Opinion) -> String {
    match (opinion.reason.as_str(), opinion.reason_id) {
        ("", 0) => "-".to_owned(),
        ("", id) => format!("reason {id}"),
        (name, _) => name.to_owned(),
    }
}

fn object(opinion: wire::Opinion) -> OpinionObject {
    let signal = opinion.signal.and_then(|signal| {
        let kind = SignalKind::from_number(signal.kind)?;
        let signal = Signal::new(kind, signal.value, None).ok()?;
        Some(format!("{kind}:{}", signal.to_text()))
    });
    OpinionObject {
        entry: (!opinion.entry.is_empty()).then_some(opinion.entry),
        entry_held: opinion.entry_held,
        kind: kind_name(opinion.kind),
        signal,
        member: opinion.member,
        set: opinion.set,
        index: opinion.index,
        stance: opinion.stance,
        confidence: opinion.confidence,
        reason_id: opinion.reason_id,
        reason: opinion.reason,
        note: opinion.note,
        said: stamp(opinion.said_ms),
        in_doubt: opinion.in_doubt,
        counts: opinion.counts,
    }
}
