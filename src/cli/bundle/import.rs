//! `hashpact bundle import`: takes a bundle in.

use std::path::PathBuf;

use clap::Args;
use data_encoding::HEXLOWER;
use hashpact_api::wire;
use hashpact_api::wire::import_bundle_response::Item;
use hashpact_node::bundle::BundleFile as _;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::file::OnDisk;
use super::{Refused, note_refused};
use crate::cli::Context;
use crate::cli::client::{Client, connect_or_embed_for_bundles, failed};
use crate::cli::error::{CliError, Exit};
use crate::cli::output::{Progress, counted, fitted, stamp, table};

/// Pieces that wait for the node: it asks for a few at a time.
const WAITING: usize = 4;

/// Take in what a bundle holds
///
/// Everything is verified as what another member's node sends: nothing in the file
/// is believed, and what this member is not granted is refused. What is held
/// already is skipped, so an import that was interrupted goes on where it was. Exit
/// code 3: some of it was refused, the rest was taken.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The bundle
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Serialize)]
struct SetObject {
    set: String,
    feed: String,
    from: u64,
    size: u64,
    stored: u64,
    held: u64,
    outcome: String,
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Summary {
    file: String,
    made_by: String,
    made: Option<String>,
    for_member: Option<String>,
    for_authority: Option<String>,
    documents_new: u64,
    documents_known: u64,
    evidence: u64,
    sets: Vec<SetObject>,
    refused: Vec<Refused>,
}

/// Runs the command.
///
/// # Errors
/// A file that is no bundle of this coalition; a node that cannot be reached.
pub(super) fn run(args: &ImportArgs, context: &Context) -> Result<(), CliError> {
    let file = OnDisk::open(&args.file)?;
    let client = connect_or_embed_for_bundles(context)?;
    let taken = client.wait(import(&client, &file))?;
    let summary = summary(&file, taken);
    print(&summary, context)?;
    context.output.json(&summary)?;
    let refused = |set: &SetObject| !set.refused.is_empty();
    if summary.refused.is_empty() && !summary.sets.iter().any(refused) {
        return Ok(());
    }
    Err(CliError::Quiet(Exit::Partial))
}

/// Hands the node the pieces that it asks for, until it says what came of it.
async fn import(client: &Client, file: &OnDisk) -> Result<wire::ImportedBundle, CliError> {
    let (say, said) = mpsc::channel(WAITING);
    let first = wire::ImportBundleRequest {
        size: file.size(),
        ..wire::ImportBundleRequest::default()
    };
    let gone = || CliError::failed("the node broke off").next("the node's log says more");
    say.send(first).await.map_err(|_| gone())?;
    let mut node = client.node();
    let answers = node.import_bundle(ReceiverStream::new(said)).await;
    let mut answers = answers.map_err(|status| failed(&status))?.into_inner();
    let mut progress = Progress::count(None);
    while let Some(answer) = answers.message().await.map_err(|status| failed(&status))? {
        match answer.item {
            Some(Item::Read(piece)) => {
                let data = read(file, &piece).await?;
                let piece = wire::ImportBundleRequest {
                    size: 0,
                    id: piece.id,
                    data,
                };
                // A node that has heard enough says so in its last answer.
                let _ = say.send(piece).await;
            }
            Some(Item::Progress(said)) => {
                progress.name(said.set);
                progress.set_total(said.of);
                progress.set(said.done);
            }
            Some(Item::Done(done)) => return Ok(done),
            None => {}
        }
    }
    Err(gone())
}

async fn read(file: &OnDisk, piece: &wire::BundlePiece) -> Result<bytes::Bytes, CliError> {
    let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
    let read = file.read(piece.offset, length).await;
    read.map_err(CliError::failed)
}

fn print(summary: &Summary, context: &Context) -> Result<(), CliError> {
    let Summary { made_by, .. } = summary;
    let whom = summary
        .for_member
        .as_ref()
        .or(summary.for_authority.as_ref());
    context.output.line(format_args!(
        "{}: says that {made_by} made it for {} on {}",
        summary.file,
        whom.map_or("nobody", String::as_str),
        summary.made.as_deref().unwrap_or("no day"),
    ))?;
    context.output.line(format_args!(
        "{} new, {} known",
        counted(summary.documents_new, "document", "documents"),
        summary.documents_known,
    ))?;
    if !summary.sets.is_empty() {
        let mut shown = table(&["SET", "LEAVES", "NEW", "HELD", "OUTCOME"], &[1, 2, 3]);
        for set in &summary.sets {
            let unnamed = set.set == set.feed;
            shown.add_row([
                if unnamed {
                    fitted(&set.set, 17)
                } else {
                    set.set.clone()
                },
                set.size.saturating_sub(set.from).to_string(),
                set.stored.to_string(),
                set.held.to_string(),
                set.outcome.clone(),
            ]);
        }
        context.output.table(&shown)?;
    }
    // ⚠ What is held is skipped, damaged or not.
    if summary.sets.iter().any(|set| set.held > 0) {
        let shown = &summary.file;
        context.output.line(format_args!(
            "what is held already was not read again; hashpact bundle show {shown} checks it"
        ))?;
    }
    note_refused(&summary.refused);
    note_refused(summary.sets.iter().flat_map(|set| &set.refused));
    Ok(())
}

fn summary(file: &OnDisk, taken: wire::ImportedBundle) -> Summary {
    let said = |text: String| (!text.is_empty()).then_some(text);
    let all = |refused: Vec<wire::BundleRefusal>| refused.into_iter().map(Refused::from).collect();
    Summary {
        file: file.name(),
        made_by: taken.made_by,
        made: stamp(taken.made_ms),
        for_member: said(taken.for_member),
        for_authority: said(taken.for_authority),
        documents_new: taken.documents_new,
        documents_known: taken.documents_known,
        evidence: taken.evidence,
        sets: taken
            .sets
            .into_iter()
            .map(|set| SetObject {
                set: set.set,
                feed: HEXLOWER.encode(&set.feed_id),
                from: set.from,
                size: set.size,
                stored: set.stored,
                held: set.held,
                outcome: set.outcome,
                refused: all(set.refused),
            })
            .collect(),
        refused: all(taken.refused),
    }
}
