//! `hashpact export --follow`: every change of what the node acts on, as lines.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use hashpact_api::wire;
use hashpact_api::wire::change::Kind;
use hashpact_formats::{Change, CsvExport, JsonExport};
use tonic::Streaming;

use super::Context;
use super::client::{Client, connect_or_embed, failed};
use super::error::CliError;
use super::export::{ExportArgs, ExportFormat, Target, row, write_error};
use super::output::note;

/// Between acknowledgements while much is told: each is written to the node's disk.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(1);

/// Runs the command.
///
/// # Errors
/// When no node runs, the consumer is another's or has to start over, or nobody takes
/// the lines.
pub(super) fn run(args: &ExportArgs, context: &Context) -> Result<(), CliError> {
    if context.output.is_json() {
        return Err(CliError::usage("--follow prints lines, --json one object")
            .next("give --format jsonl for an object a line"));
    }
    let client = connect_or_embed(context)?;
    if client.is_embedded() && !args.until_caught_up {
        return Err(CliError::failed("no node runs, so nothing changes")
            .next("hashpact run starts it; --until-caught-up tells what is there and ends"));
    }
    let name = args.consumer.clone().unwrap_or_default();
    let known = client.call(client.node().list_consumers(wire::ListConsumersRequest {}))?;
    let known = known.consumers.into_iter().find(|known| known.name == name);
    let snapshot = args.restart || known.as_ref().is_none_or(|known| known.lost);
    if snapshot && !args.restart && known.is_some() {
        note("what this consumer would go on from is no longer kept: it starts over");
    }
    let request = wire::WatchChangesRequest {
        consumer: name.clone(),
        snapshot,
        until_caught_up: args.until_caught_up,
        ..wire::WatchChangesRequest::default()
    };
    let changes = client.call(client.node().watch_changes(request))?;
    let mut target = Target::Stdout(context);
    let mut lines = Lines::new(args.format, BufWriter::new(&mut target)).map_err(said)?;
    if snapshot {
        lines.mark("snapshot_begins").map_err(said)?;
    }
    client.wait(follow(&client, &name, changes, &mut lines))
}

async fn follow<W: Write>(
    client: &Client,
    name: &str,
    mut changes: Streaming<wire::WatchChangesResponse>,
    lines: &mut Lines<W>,
) -> Result<(), CliError> {
    let mut acknowledged = Instant::now();
    while let Some(told) = changes.message().await.map_err(|status| failed(&status))? {
        for change in told.changes {
            lines.write(change)?;
        }
        if told.snapshot_over {
            lines.mark("snapshot_over").map_err(said)?;
        }
        lines.flush().map_err(said)?;
        let due = told.caught_up || told.snapshot_over;
        if !due && acknowledged.elapsed() < ACKNOWLEDGE_EVERY {
            continue;
        }
        // Whoever takes the lines has them: written is what this command can know.
        let word = wire::AcknowledgeChangesRequest {
            consumer: name.to_owned(),
            cursor: told.cursor,
        };
        let taken = client.node().acknowledge_changes(word).await;
        taken.map_err(|status| failed(&status))?;
        acknowledged = Instant::now();
    }
    Ok(())
}

/// Lines in one of the formats.
enum Lines<W: Write> {
    Csv(Box<CsvExport<W>>),
    Json(JsonExport<W>),
}

impl<W: Write> Lines<W> {
    fn new(format: ExportFormat, output: W) -> io::Result<Self> {
        Ok(match format {
            ExportFormat::Csv => Self::Csv(Box::new(CsvExport::of_changes(output)?)),
            ExportFormat::Jsonl => Self::Json(JsonExport::new(output)),
        })
    }

    fn mark(&mut self, change: &str) -> io::Result<()> {
        let mark = Change {
            change,
            set: "",
            index: None,
            verdict: None,
        };
        match self {
            Self::Csv(csv) => csv.write_change(mark, None),
            Self::Json(json) => json.write_change(mark, None),
        }
    }

    fn write(&mut self, message: wire::Change) -> Result<(), CliError> {
        let verdict = message.entry.as_ref().map(|entry| entry.verdict.as_str());
        let change = Change {
            change: word(message.kind()),
            set: &message.set,
            index: (message.kind() != Kind::SetWithdrawn).then_some(message.index),
            verdict: verdict.filter(|verdict| !verdict.is_empty()),
        };
        let name = (&message.set, message.index);
        let entry = message.entry.clone().map(|entry| wire::ExportedEntry {
            verdict: String::new(), // it stands with the change
            ..entry
        });
        let row = entry.map(row).transpose();
        let row =
            row.map_err(|error| CliError::failed(format!("{}#{}: {error}", name.0, name.1)))?;
        let written = match self {
            Self::Csv(csv) => csv.write_change(change, row.as_ref()),
            Self::Json(json) => json.write_change(change, row.as_ref()),
        };
        written.map_err(said)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Csv(csv) => csv.flush(),
            Self::Json(json) => json.flush(),
        }
    }
}

const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Added => "added",
        // One of a newer node: the entry says how it stands.
        Kind::Changed | Kind::Unspecified => "changed",
        Kind::Withdrawn => "withdrawn",
        Kind::SetWithdrawn => "set_withdrawn",
    }
}

fn said(error: io::Error) -> CliError {
    write_error(Path::new("-"))(error)
}
