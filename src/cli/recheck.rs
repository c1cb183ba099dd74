//! `hashpact receipts --recheck`: what this node answered because of entries that were
//! withdrawn since, by its match journal.

use std::path::PathBuf;

use hashpact_api::wire;
use hashpact_core::signal::Signal;
use serde::Serialize;

use super::Context;
use super::client::Client;
use super::error::CliError;
use super::media::{Hasher, MediaArgs};
use super::output::{counted, note, plain, stamp, time};
use super::receipts::Subject;

/// What is meant.
pub(super) struct What<'a> {
    pub(super) subject: Option<&'a Subject>,
    pub(super) signals: &'a [String],
    pub(super) files: &'a [PathBuf],
}

#[derive(Serialize)]
struct Shown {
    journal_on: bool,
    journal_entries: u64,
    journal_since: Option<String>,
    asked: Vec<AskedObject>,
    rechecked: Vec<RecheckedObject>,
}

#[derive(Serialize)]
struct Acknowledged {
    acknowledged: Vec<AskedObject>,
}

#[derive(Serialize)]
struct AskedObject {
    set: String,
    index: u64,
    reason: String,
    note: String,
    leaves: u64,
    at: Option<String>,
}

#[derive(Serialize)]
struct RecheckedObject {
    at: Option<String>,
    entry: String,
    index: u64,
    kind: String,
    verdict: String,
    reference: String,
    digest: String,
    matched: u64,
    withdrawn_by: u64,
    reason: String,
    note: String,
    asked: bool,
}

/// Lists, or acknowledges.
///
/// # Errors
/// A set or leaf that is not held, a file that cannot be hashed.
pub(super) fn run(
    client: &Client,
    what: &What<'_>,
    acknowledge: bool,
    context: &Context,
) -> Result<(), CliError> {
    let own = &client.config().member.slug;
    let set = what.subject.map(|subject| subject.set.resolve(own));
    let set = set.map(|set| set.to_string()).unwrap_or_default();
    let index = what.subject.and_then(|subject| subject.index);
    if acknowledge {
        let request = wire::AcknowledgeRechecksRequest { set, index };
        return acknowledged(client, request, context);
    }
    let signals = signals(what)?;
    let mut request = wire::RecheckRequest {
        set,
        index,
        signals,
        from: 0,
    };
    let first = client.call(client.node().recheck(request.clone()))?;
    let (mut rows, mut next) = (first.rechecked.clone(), first.next);
    while let Some(from) = next {
        request.from = from;
        let page = client.call(client.node().recheck(request.clone()))?;
        rows.extend(page.rechecked);
        next = page.next;
    }
    print(&first, &rows, context)?;
    context.output.json(&Shown {
        journal_on: first.journal_on,
        journal_entries: first.journal_entries,
        journal_since: stamp(first.journal_since_ms),
        asked: first.asked.into_iter().map(asked).collect(),
        rechecked: rows.into_iter().map(rechecked).collect(),
    })
}

/// What the answers are to be of; a value is not repeated.
fn signals(what: &What<'_>) -> Result<Vec<wire::Signal>, CliError> {
    let mut signals = Vec::new();
    for (at, text) in (1..).zip(what.signals) {
        let signal = Signal::parse_spec(text).map_err(|error| {
            CliError::usage(format!("signal number {at}: {error}"))
                .next("write KIND:VALUE, such as MD5:HEX")
        })?;
        signals.push(signal);
    }
    let hasher = Hasher::new(&MediaArgs::usual().map_err(CliError::failed)?);
    for path in what.files {
        let failed = |error: String| CliError::failed(format!("{}: {error}", path.display()));
        let hashed = hasher
            .named(path, |_| ())
            .map_err(|error| failed(error.to_string()))?;
        let of = hashed
            .signals()
            .map_err(|error| failed(error.to_string()))?;
        signals.extend(of);
    }
    let wire = signals.into_iter().map(|signal| wire::Signal {
        kind: signal.kind().number(),
        value: signal.value().clone(),
        quality: None,
    });
    Ok(wire.collect())
}

fn acknowledged(
    client: &Client,
    request: wire::AcknowledgeRechecksRequest,
    context: &Context,
) -> Result<(), CliError> {
    let answer = client.call(client.node().acknowledge_rechecks(request))?;
    for one in &answer.acknowledged {
        context
            .output
            .line(format_args!("{}#{}: rechecked", one.set, one.index))?;
    }
    if answer.acknowledged.is_empty() {
        context.output.line("nobody asks to recheck")?;
    }
    context.output.json(&Acknowledged {
        acknowledged: answer.acknowledged.into_iter().map(asked).collect(),
    })
}

fn print(
    first: &wire::RecheckResponse,
    rows: &[wire::Rechecked],
    context: &Context,
) -> Result<(), CliError> {
    let output = &context.output;
    for one in &first.asked {
        let leaves = counted(one.leaves, "leaf", "leaves");
        output.line(format_args!("{}#{} asks to recheck:", one.set, one.index))?;
        output.line(format_args!(
            "  {leaves}, {}, here since {}",
            one.reason,
            time(one.at_ms)
        ))?;
        said(&one.note, context)?;
    }
    if !first.asked.is_empty() {
        output.line("")?;
    }
    for row in rows {
        output.line(format_args!(
            "{}  {}  {}",
            time(row.at_ms),
            row.verdict,
            row.kind
        ))?;
        output.line(format_args!("  by {}", row.entry))?;
        let wish = if row.asked { ", asks to recheck" } else { "" };
        output.line(format_args!(
            "  withdrawn by leaf {}: {}{wish}",
            row.withdrawn_by, row.reason
        ))?;
        said(&row.note, context)?;
        if row.matched > 1 {
            let others = counted(row.matched.saturating_sub(1), "entry", "entries");
            output.line(format_args!("  {others} matched beside it"))?;
        }
        let name = if row.reference.is_empty() {
            format!("digest {}", row.digest)
        } else {
            format!("reference {}", plain(&row.reference))
        };
        output.line(format_args!("  {name}"))?;
    }
    let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let answers = counted(count, "answer rests", "answers rest");
    output.line(format_args!("{answers} on entries withdrawn since"))?;
    let kept = counted(first.journal_entries, "answer", "answers");
    if first.journal_entries > 0 {
        let since = time(first.journal_since_ms);
        output.line(format_args!("the match journal has {kept}, since {since}"))?;
    } else if !first.journal_on {
        note("the match journal has nothing: match_journal.max_entries turns it on");
    }
    if !first.asked.is_empty() {
        note("next: once all is looked at, the same with --ack");
    }
    Ok(())
}

fn said(note: &str, context: &Context) -> Result<(), CliError> {
    if note.is_empty() {
        return Ok(());
    }
    context.output.line(format_args!("  \"{}\"", plain(note)))
}

fn asked(one: wire::RecheckAsked) -> AskedObject {
    AskedObject {
        set: one.set,
        index: one.index,
        reason: one.reason,
        note: one.note,
        leaves: one.leaves,
        at: stamp(one.at_ms),
    }
}

fn rechecked(row: wire::Rechecked) -> RecheckedObject {
    RecheckedObject {
        at: stamp(row.at_ms),
        entry: row.entry,
        index: row.index,
        kind: row.kind,
        verdict: row.verdict,
        reference: row.reference,
        digest: row.digest,
        matched: row.matched,
        withdrawn_by: row.withdrawn_by,
        reason: row.reason,
        note: row.note,
        asked: row.asked,
    }
}
