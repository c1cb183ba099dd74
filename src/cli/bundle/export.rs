//! `hashpact bundle export`: writes a bundle.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use data_encoding::HEXLOWER;
use hashpact_api::wire;
use hashpact_core::id::Slug;
use hashpact_net::exchange::show_bundle;
use serde::{Deserialize, Serialize};

use super::file::OnDisk;
use crate::cli::Context;
use crate::cli::client::{Client, connect_or_embed_for_bundles, failed};
use crate::cli::error::CliError;
use crate::cli::export::{Target, write_error};
use crate::cli::output::{Progress, bytes, counted, note};
use crate::cli::values::SetReference;

/// What `hashpact feeds --json` prints of some thousand feeds.
const HELD_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Write chosen sets, with all that proves them, as one file
///
/// For a member: it must be granted each set, and this member must publish the set
/// or be granted to relay it. For an authority that is no member: only sets that
/// this member publishes itself, each named. A set that its terms keep local is
/// refused, with the terms. The file appears once it is whole.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// File to write, which must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The member that it is for
    #[arg(
        long = "for",
        value_name = "MEMBER",
        value_parser = Slug::parse,
        required_unless_present = "for_authority"
    )]
    for_member: Option<Slug>,
    /// The authority that it is for: a name, for the file and the audit
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "for_member",
        requires = "sets"
    )]
    for_authority: Option<String>,
    /// A set to write: SET of this member, or MEMBER/SET; may be repeated. Without
    /// it: every set that the member may have
    #[arg(long = "set", value_name = "SET")]
    sets: Vec<SetReference>,
    /// Leaves that the receiver holds: SIZE with one --set, or SET=SIZE; may be
    /// repeated
    #[arg(long, value_name = "SIZE")]
    since: Vec<Since>,
    /// Leave out what is in an earlier bundle, which the receiver took in
    #[arg(long, value_name = "FILE")]
    from_bundle: Option<PathBuf>,
    /// Leave out what the receiver says that it holds: the output of its
    /// hashpact feeds --json
    #[arg(long, value_name = "FILE")]
    held: Option<PathBuf>,
    /// Also what is retracted or replaced, with its content
    #[arg(long)]
    history: bool,
}

/// How much of a set is held.
#[derive(Debug, Clone)]
struct Since {
    set: Option<SetReference>,
    size: u64,
}

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (set, size) = match text.rsplit_once('=') {
            Some((set, size)) => (Some(set.parse().map_err(|error| format!("{error}"))?), size),
            None => (None, text),
        };
        let size = size
            .parse()
            .map_err(|_| "SIZE is a number of leaves".to_owned())?;
        Ok(Self { set, size })
    }
}

#[derive(Serialize)]
struct SetObject {
    set: String,
    feed: String,
    from: u64,
    size: u64,
}

#[derive(Serialize)]
struct Summary {
    file: String,
    bytes: u64,
    for_member: Option<String>,
    for_authority: Option<String>,
    documents: u64,
    evidence: u64,
    sets: Vec<SetObject>,
    left_out: u64,
}

/// Runs the command.
///
/// # Errors
/// When a set may not be given to the recipient, or the file cannot be written.
pub(super) fn run(args: &ExportArgs, context: &Context) -> Result<(), CliError> {
    if args.file == Path::new("-") {
        return Err(CliError::usage("a bundle is written to a file")
            .next("give it a name; the next place may read it from there"));
    }
    if args.file.exists() {
        return Err(CliError::failed(format!("{} exists", args.file.display()))
            .next("name another file, or move it away"));
    }
    let client = connect_or_embed_for_bundles(context)?;
    let request = request(args, &client)?;
    let mut target = Target::open(&args.file, context)?;
    let made = client.wait(write(&client, request, &mut target, &args.file))?;
    target.finish().map_err(write_error(&args.file))?;
    let size = std::fs::metadata(&args.file).map_or(0, |about| about.len());
    let summary = summary(args, made, size);
    context.output.line(format_args!(
        "{}: {}, {} and {}",
        summary.file,
        bytes(size),
        counted(
            u64::try_from(summary.sets.len()).unwrap_or(u64::MAX),
            "set",
            "sets"
        ),
        counted(summary.documents, "document", "documents"),
    ))?;
    for SetObject {
        set, from, size, ..
    } in &summary.sets
    {
        let leaves = counted(size.saturating_sub(*from), "leaf", "leaves");
        let since = if *from > 0 {
            format!(" from leaf {from} on")
        } else {
            String::new()
        };
        context
            .output
            .line(format_args!("  {set}: {leaves}{since}, up to {size}"))?;
    }
    if summary.left_out > 0 {
        let sets = counted(summary.left_out, "set", "sets");
        note(format_args!(
            "left out: {sets} that may not be given to it; name one to hear why"
        ));
    }
    context.output.json(&summary)
}

fn request(args: &ExportArgs, client: &Client) -> Result<wire::ExportBundleRequest, CliError> {
    let own = &client.config().member.slug;
    let mut held = BTreeMap::new();
    if let Some(path) = &args.held {
        held.extend(said_held(path)?);
    }
    if let Some(path) = &args.from_bundle {
        for (set, size) in in_bundle(path, client)? {
            let known = held.entry(set).or_insert(0);
            *known = size.max(*known);
        }
    }
    for since in &args.since {
        let set = match (&since.set, args.sets.as_slice()) {
            (Some(set), _) | (None, [set]) => set.resolve(own).to_string(),
            (None, _) => {
                return Err(CliError::usage("--since SIZE needs exactly one --set")
                    .next("say --since SET=SIZE for each set"));
            }
        };
        held.insert(set, since.size);
    }
    let sets = args.sets.iter().map(|set| set.resolve(own).to_string());
    let held = held.into_iter();
    let held = held.map(|(set, size)| wire::BundleSetHeld { set, size });
    Ok(wire::ExportBundleRequest {
        sets: sets.collect(),
        held: held.collect(),
        for_member: args
            .for_member
            .as_ref()
            .map(Slug::to_string)
            .unwrap_or_default(),
        for_authority: args.for_authority.clone().unwrap_or_default(),
        history: args.history,
    })
}

#[derive(Deserialize)]
struct HeldFeeds {
    feeds: Vec<HeldFeed>,
}

#[derive(Deserialize)]
struct HeldFeed {
    name: String,
    stored: u64,
}

/// What a receiver says it holds, by set.
fn said_held(path: &Path) -> Result<Vec<(String, u64)>, CliError> {
    let failed = |why: String| {
        CliError::failed(format!("{}: {why}", path.display()))
            .next("hashpact feeds --json at the receiver prints what is read here")
    };
    let about = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if about.len() > HELD_MAX_BYTES {
        return Err(failed("too large for a list of feeds".to_owned()));
    }
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let held: HeldFeeds =
        serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    Ok(held
        .feeds
        .into_iter()
        .map(|feed| (feed.name, feed.stored))
        .collect())
}

/// The sizes of the heads in an earlier bundle; one that is damaged says nothing.
fn in_bundle(path: &Path, client: &Client) -> Result<Vec<(String, u64)>, CliError> {
    let file = Arc::new(OnDisk::open(path)?);
    let genesis = client.config().coalition.genesis;
    let shown = client.wait(show_bundle(file, Some(genesis), |_, _| {}));
    let shown = shown.map_err(|error| {
        CliError::failed(format!("{}: {error}", path.display()))
            .next("hashpact bundle show FILE says what is in a bundle")
    })?;
    let whole = shown
        .feeds
        .into_iter()
        .filter(|feed| feed.refused.is_empty());
    Ok(whole.map(|feed| (feed.set, feed.size)).collect())
}

async fn write(
    client: &Client,
    request: wire::ExportBundleRequest,
    target: &mut Target<'_>,
    path: &Path,
) -> Result<wire::ExportedBundle, CliError> {
    let mut node = client.node();
    let answered = node.export_bundle(request).await;
    let mut stream = answered.map_err(|status| failed(&status))?.into_inner();
    let mut progress = Progress::bytes(None);
    while let Some(response) = stream.message().await.map_err(|status| failed(&status))? {
        if let Some(made) = response.made {
            return Ok(made);
        }
        target
            .write_all(&response.data)
            .map_err(write_error(path))?;
        progress.add(u64::try_from(response.data.len()).unwrap_or(u64::MAX));
    }
    Err(CliError::failed("the node broke off").next("the node's log says more"))
}

fn summary(args: &ExportArgs, made: wire::ExportedBundle, bytes: u64) -> Summary {
    Summary {
        file: args.file.display().to_string(),
        bytes,
        for_member: args.for_member.as_ref().map(Slug::to_string),
        for_authority: args.for_authority.clone(),
        documents: made.documents,
        evidence: made.evidence,
        sets: made
            .sets
            .into_iter()
            .map(|set| SetObject {
                set: set.set,
                feed: HEXLOWER.encode(&set.feed_id),
                from: set.from,
                size: set.size,
            })
            .collect(),
        left_out: made.left_out,
    }
}
