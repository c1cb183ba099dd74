//! `hashpact quarantine`: what is held back of what members publish.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use hashpact_api::wire;
use hashpact_api::wire::decide_quarantine_request::Decision;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::{CliError, Exit};
use super::output::{count, counted, note, stamp, table, time};
use super::values::SetReference;

/// List what is held back of what members publish, release it or drop it
///
/// What lies in quarantine is stored, proved and relayed, and matches nothing.
#[derive(Debug, Args)]
pub struct QuarantineArgs {
    /// What to do
    #[command(subcommand)]
    pub command: QuarantineCommand,
}

/// What to do with the quarantine.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List what waits, by set, reason and kind of signal
    List(ListArgs),
    /// List what peers say that they hold back of this node's own sets
    ///
    /// Each node's word about itself, told again whenever it connects;
    /// with --json also whom to ask there.
    Reported(ReportedArgs),
    /// Let entries count
    Release(DecideArgs),
    /// Keep entries from ever counting, and list them no longer as waiting
    Drop(DecideArgs),
}

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this set: SET of this member, or MEMBER/SET
    #[arg(value_name = "SET")]
    pub set: Option<SetReference>,
    /// Only what waits for this reason, such as `over_growth`
    #[arg(long, value_name = "REASON", default_value = "")]
    pub reason: String,
    /// Also the entries one by one, at most so many of up to 10,000
    #[arg(long, value_name = "COUNT", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub entries: u32,
    /// With --entries: those that were dropped in place of those that wait
    #[arg(long)]
    pub dropped: bool,
}

/// Of which sets, and why.
#[derive(Debug, Args)]
pub struct ReportedArgs {
    /// Only this set of this member
    #[arg(value_name = "SET")]
    pub set: Option<SetReference>,
    /// Only what is held back for this reason, such as `low_quality`
    #[arg(long, value_name = "REASON", default_value = "")]
    pub reason: String,
    /// Also the entries one by one, at most so many of up to 10,000
    #[arg(long, value_name = "COUNT", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub entries: u32,
}

/// What to decide on.
#[derive(Debug, Args)]
pub struct DecideArgs {
    /// The set: SET of this member, or MEMBER/SET
    #[arg(value_name = "SET")]
    pub set: SetReference,
    /// Entries of it: MEMBER/SET#INDEX or #INDEX
    #[arg(
        value_name = "ENTRY",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub entries: Vec<String>,
    /// All entries of the set that wait
    #[arg(long)]
    pub all: bool,
    /// Only what waits for this reason, such as `over_growth`
    #[arg(long, value_name = "REASON", default_value = "")]
    pub reason: String,
}

#[derive(Serialize)]
struct Listed {
    lots: Vec<LotObject>,
    entries: Vec<EntryObject>,
}

#[derive(Serialize)]
struct LotObject {
    set: String,
    reason: String,
    kind: String,
    held: u64,
    released: u64,
    dropped: u64,
    conflicts_with: Vec<String>,
}

#[derive(Serialize)]
struct EntryObject {
    set: String,
    entry: String,
    index: u64,
    reasons: Vec<String>,
    kinds: Vec<String>,
    published: Option<String>,
    conflicts_with: Option<String>,
}

#[derive(Serialize)]
struct ReportedList {
    reported: Vec<ReportedObject>,
    entries: Vec<ReportedEntryObject>,
}

#[derive(Serialize)]
struct ReportedEntryObject {
    set: String,
    entry: String,
    index: u64,
    published: Option<String>,
    by: Vec<ByObject>,
}

#[derive(Serialize)]
struct ByObject {
    member: String,
    node: String,
    reason: String,
    kind: String,
}

#[derive(Serialize)]
struct ReportedObject {
    set: String,
    member: String,
    node: String,
    reason: String,
    kind: String,
    held: u64,
    ranges: Vec<RangeObject>,
    heard: Option<String>,
    contact_name: String,
    contact_email: String,
}

#[derive(Serialize)]
struct RangeObject {
    first: u64,
    count: u64,
}

#[derive(Serialize)]
struct Decided {
    set: String,
    decision: &'static str,
    changed: u64,
    not_found: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When neither a node nor its store can be reached, or there is no such set.
pub fn run(args: &QuarantineArgs, context: &Context) -> Result<(), CliError> {
    match &args.command {
        QuarantineCommand::List(args) => list(args, context),
        QuarantineCommand::Reported(args) => reported(args, context),
        QuarantineCommand::Release(args) => decide(args, Decision::Release, context),
        QuarantineCommand::Drop(args) => decide(args, Decision::Drop, context),
    }
}

fn list(args: &ListArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let own = &client.config().member.slug;
    let set = args.set.as_ref().map(|set| set.resolve(own).to_string());
    let request = wire::QuarantineRequest {
        set: set.unwrap_or_default(),
        reason: args.reason.clone(),
        dropped: args.dropped,
        entries: args.entries,
        reported: false,
    };
    let answer = client.call(client.node().quarantine(request))?;
    print(&answer, context)?;
    context.output.json(&object(answer))
}

fn print(answer: &wire::QuarantineResponse, context: &Context) -> Result<(), CliError> {
    if answer.lots.is_empty() {
        return context.output.line("nothing is in quarantine");
    }
    let mut shown = table(
        &[
            "SET",
            "REASON",
            "HELD BACK",
            "WAITING",
            "RELEASED",
            "DROPPED",
        ],
        &[3, 4, 5],
    );
    for lot in &answer.lots {
        shown.add_row([
            lot.set.clone(),
            lot.reason.clone(),
            what(&lot.kind).to_owned(),
            count(lot.held),
            count(lot.released),
            count(lot.dropped),
        ]);
    }
    context.output.table(&shown)?;
    if answer.entries.is_empty() {
        return print_conflicts(&answer.lots, context);
    }
    let mut shown = table(&["ENTRY", "LEAF", "REASON", "PUBLISHED"], &[1]);
    for entry in &answer.entries {
        let mut reason = entry.reasons.join(", ");
        if !entry.conflicts_with.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(reason, " with {}", entry.conflicts_with);
        }
        shown.add_row([
            entry.entry.clone(),
            entry.index.to_string(),
            reason,
            time(entry.published_ms),
        ]);
    }
    context.output.line("")?;
    context.output.table(&shown)
}

/// Whom to ask beside the set's publisher.
fn print_conflicts(lots: &[wire::QuarantineLot], context: &Context) -> Result<(), CliError> {
    for lot in lots.iter().filter(|lot| !lot.conflicts_with.is_empty()) {
        let with = lot.conflicts_with.join(", ");
        let (set, kind) = (&lot.set, what(&lot.kind));
        context
            .output
            .line(format_args!("{set}, {kind}: in conflict with {with}"))?;
    }
    Ok(())
}

fn reported(args: &ReportedArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    if client.is_embedded() {
        let why = "no node runs: peers tell one that does";
        return Err(CliError::failed(why).next("hashpact run starts it"));
    }
    let own = &client.config().member.slug;
    let set = args.set.as_ref().map(|set| set.resolve(own).to_string());
    let request = wire::QuarantineRequest {
        set: set.unwrap_or_default(),
        reason: args.reason.clone(),
        entries: args.entries,
        reported: true,
        ..wire::QuarantineRequest::default()
    };
    let answer = client.call(client.node().quarantine(request))?;
    let list = ReportedList {
        reported: answer.reported.into_iter().map(of_peer).collect(),
        entries: answer.reported_entries.into_iter().map(entry_of).collect(),
    };
    print_reported(&list, context)?;
    context.output.json(&list)
}

fn print_reported(list: &ReportedList, context: &Context) -> Result<(), CliError> {
    if list.reported.is_empty() {
        let none = "no peer says that it holds anything back";
        return context.output.line(none);
    }
    let columns = ["SET", "MEMBER", "NODE", "REASON", "HELD BACK", "LEAVES"];
    let mut shown = table(&columns, &[5]);
    for lot in &list.reported {
        shown.add_row([
            lot.set.clone(),
            lot.member.clone(),
            lot.node.clone(),
            lot.reason.clone(),
            what(&lot.kind).to_owned(),
            count(lot.held),
        ]);
    }
    context.output.table(&shown)?;
    if list.entries.is_empty() {
        return Ok(());
    }
    let mut shown = table(&["ENTRY", "LEAF", "HELD BACK BY"], &[1]);
    for entry in &list.entries {
        let by = entry.by.iter();
        let by = by.map(|by| format!("{}: {}", by.member, by.reason));
        let by: std::collections::BTreeSet<String> = by.collect();
        let by: Vec<String> = by.into_iter().collect();
        shown.add_row([entry.entry.clone(), entry.index.to_string(), by.join(", ")]);
    }
    context.output.line("")?;
    context.output.table(&shown)
}

fn entry_of(entry: wire::ReportedEntry) -> ReportedEntryObject {
    let by = |by: wire::ReportedBy| ByObject {
        member: by.member,
        node: by.node,
        reason: by.reason,
        kind: by.kind,
    };
    ReportedEntryObject {
        set: entry.set,
        entry: entry.entry,
        index: entry.index,
        published: stamp(entry.published_ms),
        by: entry.by.into_iter().map(by).collect(),
    }
}

fn of_peer(lot: wire::ReportedQuarantine) -> ReportedObject {
    let range = |pair: &[u64]| match pair {
        [first, count] => Some(RangeObject {
            first: *first,
            count: *count,
        }),
        _ => None,
    };
    ReportedObject {
        ranges: lot.ranges.chunks(2).filter_map(range).collect(),
        set: lot.set,
        member: lot.member,
        node: lot.node,
        reason: lot.reason,
        kind: lot.kind,
        held: lot.held,
        heard: stamp(lot.heard_ms),
        contact_name: lot.contact_name,
        contact_email: lot.contact_email,
    }
}

fn what(kind: &str) -> &str {
    if kind.is_empty() { "entries" } else { kind }
}

fn object(answer: wire::QuarantineResponse) -> Listed {
    Listed {
        lots: answer
            .lots
            .into_iter()
            .map(|lot| LotObject {
                set: lot.set,
                reason: lot.reason,
                kind: lot.kind,
                held: lot.held,
                released: lot.released,
                dropped: lot.dropped,
                conflicts_with: lot.conflicts_with,
            })
            .collect(),
        entries: answer
            .entries
            .into_iter()
            .map(|entry| EntryObject {
                set: entry.set,
                entry: entry.entry,
                index: entry.index,
                reasons: entry.reasons,
                kinds: entry.kinds,
                published: stamp(entry.published_ms),
                conflicts_with: (!entry.conflicts_with.is_empty()).then_some(entry.conflicts_with),
            })
            .collect(),
    }
}

fn decide(args: &DecideArgs, decision: Decision, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    let set = args.set.resolve(&client.config().member.slug).to_string();
    let request = wire::DecideQuarantineRequest {
        set: set.clone(),
        decision: decision.into(),
        reason: args.reason.clone(),
        all: args.all,
        entries: args.entries.clone(),
    };
    let answer = client.call(client.node().decide_quarantine(request))?;
    let word = match decision {
        Decision::Drop => "dropped",
        Decision::Release | Decision::Unspecified => "released",
    };
    let entries = counted(answer.changed, "entry", "entries");
    context
        .output
        .line(format_args!("{set}: {entries} {word}"))?;
    for entry in &answer.not_found {
        note(format_args!("{entry} is not in quarantine"));
    }
    let missing = !answer.not_found.is_empty();
    context.output.json(&Decided {
        set,
        decision: word,
        changed: answer.changed,
        not_found: answer.not_found,
    })?;
    if missing {
        return Err(CliError::Quiet(Exit::Partial));
    }
    Ok(())
}
