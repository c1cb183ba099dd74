//! `hashpact bundle show`: verifies a bundle without a node.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use data_encoding::HEXLOWER;
use hashpact_core::id::Digest;
use hashpact_core::reject::Rejection;
use hashpact_net::exchange::{BundleView, show_bundle};
use hashpact_node::NodeError;
use hashpact_node::bundle::Recipient;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::file::OnDisk;
use super::{Refused, note_refused};
use crate::cli::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::output::{Progress, counted, note, stamp, table};

/// Verify a bundle and say what is in it
///
/// Needs no node, no member and no network: the roster chain in the bundle is
/// verified from the genesis digest on, every head by its publisher's card, every
/// leaf by its proof. Nothing is stored. Exit code 3: some of it does not verify.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The bundle
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The coalition's genesis digest, which somebody trusted gave you; without it,
    /// that of the configuration
    #[arg(long, value_name = "DIGEST", value_parser = Digest::from_hex)]
    genesis: Option<Digest>,
}

#[derive(Serialize)]
struct SetObject {
    set: String,
    title: String,
    publisher: String,
    feed: String,
    epoch: u32,
    from: u64,
    size: u64,
    entries: u64,
    elided: u64,
    cosignatures: u64,
    verified: bool,
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Summary {
    file: String,
    genesis: String,
    /// Whether the genesis digest came from elsewhere than the file.
    genesis_given: bool,
    coalition: Option<String>,
    roster_version: u64,
    made_by: String,
    made: Option<String>,
    for_member: Option<String>,
    for_authority: Option<String>,
    documents: u64,
    evidence: u64,
    sets: Vec<SetObject>,
    refused: Vec<Refused>,
}

/// Runs the command.
///
/// # Errors
/// A file that cannot be read, or is no bundle of the coalition.
pub(super) fn run(args: &ShowArgs, context: &Context) -> Result<(), CliError> {
    let file = OnDisk::open(&args.file)?;
    let configured = || context.config_text().ok();
    let genesis = args
        .genesis
        .or_else(|| configured().map(|config| config.coalition.genesis));
    let runtime = Runtime::new().map_err(CliError::failed)?;
    let mut progress = Progress::count(None);
    progress.name("verifying");
    let shown = show_bundle(Arc::new(file.clone()), genesis, |done, of| {
        progress.set_total(of);
        progress.set(done);
    });
    let view = runtime
        .block_on(shown)
        .map_err(|error| refused(&file, &error))?;
    drop(progress);
    if genesis.is_none() {
        note("no genesis digest was given: who the coalition is stands in the file alone");
        note("next: --genesis DIGEST, with what somebody you trust tells you");
    }
    let summary = summary(&file, view, genesis.is_some());
    print(&summary, context)?;
    context.output.json(&summary)?;
    if summary.refused.is_empty() && summary.sets.iter().all(|set| set.verified) {
        return Ok(());
    }
    Err(CliError::Quiet(Exit::Partial))
}

fn refused(file: &OnDisk, error: &NodeError) -> CliError {
    let failed = CliError::failed(format!("{}: {error}", file.name()));
    if let NodeError::Rejected(Rejection::WrongGenesis { .. }) = error {
        return failed.next("ask who made it, and compare the genesis digest by telephone");
    }
    failed.next("hashpact bundle export writes bundles")
}

fn print(summary: &Summary, context: &Context) -> Result<(), CliError> {
    let out = &context.output;
    let coalition = summary
        .coalition
        .as_deref()
        .unwrap_or("of no coalition that verifies");
    out.line(format_args!(
        "{}: {coalition}, roster {}, {}",
        summary.file,
        summary.roster_version,
        counted(summary.documents, "document", "documents"),
    ))?;
    let whom = summary
        .for_member
        .as_ref()
        .or(summary.for_authority.as_ref());
    out.line(format_args!(
        "says that {} made it for {} on {}",
        summary.made_by,
        whom.map_or("nobody", String::as_str),
        summary.made.as_deref().unwrap_or("no day"),
    ))?;
    if !summary.sets.is_empty() {
        let mut shown = table(
            &["SET", "FROM", "SIZE", "ENTRIES", "ELIDED", "VERIFIED"],
            &[1, 2, 3, 4],
        );
        for set in &summary.sets {
            shown.add_row([
                set.set.clone(),
                set.from.to_string(),
                set.size.to_string(),
                set.entries.to_string(),
                set.elided.to_string(),
                match (set.verified, summary.genesis_given) {
                    (true, true) => "yes",
                    (true, false) => "by itself",
                    (false, _) => "NO",
                }
                .to_owned(),
            ]);
        }
        out.table(&shown)?;
    }
    if summary.evidence > 0 {
        let pieces = counted(summary.evidence, "piece", "pieces");
        out.line(format_args!(
            "{pieces} of evidence against members or administrators"
        ))?;
    }
    note_refused(&summary.refused);
    note_refused(summary.sets.iter().flat_map(|set| &set.refused));
    Ok(())
}

fn summary(file: &OnDisk, view: BundleView, genesis_given: bool) -> Summary {
    let (for_member, for_authority) = match view.header.to {
        Recipient::Member(slug) => (Some(slug.to_string()), None),
        Recipient::Authority(name) => (None, Some(name)),
    };
    let sets = view.feeds.into_iter().map(|feed| SetObject {
        verified: feed.refused.is_empty(),
        set: feed.set,
        title: feed.title,
        publisher: feed.publisher,
        feed: HEXLOWER.encode(feed.feed.as_bytes()),
        epoch: feed.epoch,
        from: feed.from,
        size: feed.size,
        entries: feed.entries,
        elided: feed.elided,
        cosignatures: feed.cosignatures,
        refused: feed.refused.into_iter().map(Refused::from).collect(),
    });
    Summary {
        file: file.name(),
        genesis: HEXLOWER.encode(view.header.genesis.as_bytes()),
        genesis_given,
        coalition: view.coalition,
        roster_version: view.roster_version,
        made_by: view.header.by.to_string(),
        made: stamp(view.header.made.0),
        for_member,
        for_authority,
        documents: view.documents,
        evidence: view.evidence,
        sets: sets.collect(),
        refused: view.refused.into_iter().map(Refused::from).collect(),
    }
}
