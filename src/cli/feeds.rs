//! `hashpact feeds`: the feeds that the node holds.

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use hashpact_api::wire;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::CliError;
use super::output::{count, counted, note, stamp, table, time};
use super::roster_witnesses::detection_only;
use super::values::SetReference;

/// List the feeds that the node holds: entries, leaves, lag, state
///
/// With a SET also where the witnesses stand: which size each has cosigned, and when.
#[derive(Debug, Args)]
pub struct FeedsArgs {
    /// Only this set's feed: SET of this member, or MEMBER/SET
    #[arg(value_name = "SET")]
    pub set: Option<SetReference>,
}

/// Show one feed: entries, leaves, state, and who stands at which size since when
#[derive(Debug, Args)]
pub struct FeedArgs {
    /// What to show
    #[command(subcommand)]
    pub command: FeedCommand,
}

/// What to show of a feed.
#[derive(Debug, Subcommand)]
pub enum FeedCommand {
    /// Show a feed, and which size each witness has cosigned, since when
    ///
    /// The same as `hashpact feeds SET`.
    Show {
        /// SET of this member, or MEMBER/SET
        #[arg(value_name = "SET")]
        set: SetReference,
    },
}

#[derive(Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a state of its own, for scripts"
)]
struct FeedObject {
    name: String,
    feed: String,
    publisher: String,
    own: bool,
    epoch: u32,
    live_entries: u64,
    quarantined: u64,
    stored: u64,
    indexed: u64,
    head: u64,
    lag: u64,
    root: String,
    state: String,
    from_peer: String,
    updated: Option<String>,
    last_error_code: String,
    /// The store was restored, and it is not known yet whether this is all of it.
    unconfirmed: bool,
    stale: bool,
    witness_threshold: u32,
    /// So many find a fork and do not prevent one.
    detection_only: bool,
    witness_quorum: u64,
    witness_quorum_at: Option<String>,
    witnesses: Vec<WitnessObject>,
    cosigned: u64,
}

/// Where one witness stands with a feed.
#[derive(Serialize)]
struct WitnessObject {
    member: String,
    size: u64,
    since: Option<String>,
    cosigned_at: Option<String>,
    fresh: bool,
}

#[derive(Serialize)]
struct FeedList {
    feeds: Vec<FeedObject>,
    lost: Vec<LostObject>,
}

/// A set that was dropped since this member may not read it any longer.
#[derive(Serialize)]
struct LostObject {
    name: String,
    feed: String,
    lost: Option<String>,
}

/// Runs `hashpact feed`.
///
/// # Errors
/// As [`run`].
pub fn run_one(args: FeedArgs, context: &Context) -> Result<(), CliError> {
    let FeedCommand::Show { set } = args.command;
    run(&FeedsArgs { set: Some(set) }, context)
}

/// Runs the command.
///
/// # Errors
/// When neither a node nor its store can be reached.
pub fn run(args: &FeedsArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let answer = client.call(client.node().feeds(wire::FeedsRequest {}))?;
    let (mut feeds, mut lost) = (answer.feeds, answer.lost);
    if let Some(set) = &args.set {
        let name = set.resolve(&client.config().member.slug).to_string();
        feeds.retain(|feed| feed.name == name);
        lost.retain(|lost| lost.name == name);
        if feeds.is_empty() && lost.is_empty() {
            return Err(
                CliError::failed(format!("this node holds no feed of {name}")).next(
                    "hashpact feeds lists those it holds; its publisher may not have granted it",
                ),
            );
        }
    }
    if feeds.is_empty() && lost.is_empty() {
        context
            .output
            .line("no feeds: those of others come once they are granted; a witness holds none")?;
        note("next: hashpact set create makes an own set");
    } else if !feeds.is_empty() {
        print(&feeds, context)?;
        if let (Some(_), [feed]) = (&args.set, feeds.as_slice()) {
            print_witnesses(feed, context)?;
        }
    }
    for lost in &lost {
        let (name, when) = (&lost.name, time(lost.lost_ms));
        context.output.line(format_args!(
            "  - {name}: dropped {when}, no longer granted to this member"
        ))?;
    }
    let feeds = feeds.into_iter().map(object).collect();
    let lost = lost.into_iter().map(|lost| LostObject {
        name: lost.name,
        feed: HEXLOWER.encode(&lost.feed_id),
        lost: stamp(lost.lost_ms),
    });
    context.output.json(&FeedList {
        feeds,
        lost: lost.collect(),
    })
}

/// What a node that only witnesses has of feeds.
fn print_witnessed(feeds: &[wire::Feed], context: &Context) -> Result<(), CliError> {
    let mut shown = table(&["FEED", "HEAD", "COSIGNED", "STATE"], &[1, 2]);
    for feed in feeds {
        let cosigned = count(feed.cosigned);
        shown.add_row([
            feed.name.clone(),
            count(feed.head),
            cosigned,
            feed.state.clone(),
        ]);
    }
    context.output.table(&shown)
}

fn print(feeds: &[wire::Feed], context: &Context) -> Result<(), CliError> {
    if feeds.iter().all(is_witnessed) {
        return print_witnessed(feeds, context);
    }
    let mut shown = table(
        &["FEED", "ENTRIES", "LEAVES", "LAG", "STATE", "FROM"],
        &[1, 2, 3],
    );
    for feed in feeds {
        shown.add_row([
            feed.name.clone(),
            count(feed.live_entries),
            count(feed.indexed),
            count(lag(feed)),
            feed.state.clone(),
            feed.from_peer.clone(),
        ]);
    }
    context.output.table(&shown)?;
    for feed in feeds.iter().filter(|feed| feed.quarantined > 0) {
        let (name, entries) = (&feed.name, counted(feed.quarantined, "entry", "entries"));
        let line = format_args!("  ! {name}: {entries} in quarantine, not matched");
        context.output.line(line)?;
    }
    for feed in feeds.iter().filter(|feed| feed.state == "behind") {
        let (name, behind) = (&feed.name, counted(lag(feed), "leaf", "leaves"));
        context.output.line(format_args!(
            "  ! {name}: {behind} behind; nobody connected may serve it"
        ))?;
    }
    for feed in feeds.iter().filter(|feed| feed.unconfirmed) {
        let name = &feed.name;
        context.output.line(format_args!(
            "  ! {name}: the store was restored: review at most, until it is caught up"
        ))?;
    }
    for feed in feeds.iter().filter(|feed| feed.stale) {
        let name = &feed.name;
        context.output.line(format_args!(
            "  ! {name}: STALE: no witness has cosigned it for 30 minutes"
        ))?;
    }
    for feed in feeds.iter().filter(|feed| !feed.last_error_code.is_empty()) {
        let (name, code) = (&feed.name, &feed.last_error_code);
        let line = if feed.state == "caught up" {
            format!("    {name}: caught up; refused before: {code}")
        } else {
            format!("  ! {name}: refused last: {code}")
        };
        context.output.line(line)?;
    }
    Ok(())
}

/// Who stands at which size since when, and when each said so last.
fn print_witnesses(feed: &wire::Feed, context: &Context) -> Result<(), CliError> {
    if feed.witnesses.is_empty() {
        let line = "  no witnesses: detection only; forks are found by readers that compare heads";
        return context.output.line(line);
    }
    context.output.line("")?;
    let mut shown = table(&["WITNESS", "SIZE", "SINCE", "LAST", "FRESH"], &[1]);
    for witness in &feed.witnesses {
        let size = match witness.size {
            0 => "nothing".to_owned(),
            size => count(size),
        };
        let when = |at: u64| if at == 0 { String::new() } else { time(at) };
        let (since, at) = (when(witness.since_ms), when(witness.cosigned_ms));
        let fresh = if witness.fresh { "yes" } else { "no" };
        shown.add_row([witness.member.clone(), size, since, at, fresh.to_owned()]);
    }
    context.output.table(&shown)?;
    let (threshold, quorum) = (feed.witness_threshold, count(feed.witness_quorum));
    let line = match (threshold, feed.witness_quorum) {
        (0, _) => "  none of them has a key on its card yet".to_owned(),
        (1, 0) => "  1 is a quorum; it has cosigned nothing yet".to_owned(),
        (1, _) => format!("  1 is a quorum; it stands at {quorum} leaves"),
        (_, 0) => format!("  {threshold} are a quorum; it has cosigned nothing yet"),
        (_, _) => format!("  {threshold} are a quorum; it stands at {quorum} leaves"),
    };
    context.output.line(line)?;
    if let Some(why) = detection_only(feed.witnesses.len(), threshold) {
        context.output.line(format_args!("  {why}"))?;
    }
    Ok(())
}

fn witness(witness: wire::FeedWitness) -> WitnessObject {
    WitnessObject {
        member: witness.member,
        size: witness.size,
        since: stamp(witness.since_ms),
        cosigned_at: stamp(witness.cosigned_ms),
        fresh: witness.fresh,
    }
}

/// Whether only its heads are taken, to cosign them: no leaf of it is ever pulled.
fn is_witnessed(feed: &wire::Feed) -> bool {
    matches!(feed.state.as_str(), "cosigned" | "recorded")
}

/// Leaves under the newest head that look-ups do not answer from; of a feed of which
/// nothing is pulled none.
fn lag(feed: &wire::Feed) -> u64 {
    if is_witnessed(feed) {
        return 0;
    }
    feed.head.saturating_sub(feed.indexed)
}

fn object(feed: wire::Feed) -> FeedObject {
    FeedObject {
        lag: lag(&feed),
        name: feed.name,
        feed: HEXLOWER.encode(&feed.feed_id),
        publisher: feed.publisher,
        own: feed.own,
        epoch: feed.epoch,
        live_entries: feed.live_entries,
        quarantined: feed.quarantined,
        stored: feed.stored,
        indexed: feed.indexed,
        head: feed.head,
        root: HEXLOWER.encode(&feed.root),
        state: feed.state,
        from_peer: feed.from_peer,
        updated: stamp(feed.updated_ms),
        last_error_code: feed.last_error_code,
        unconfirmed: feed.unconfirmed,
        stale: feed.stale,
        witness_threshold: feed.witness_threshold,
        detection_only: detection_only(feed.witnesses.len(), feed.witness_threshold).is_some(),
        witness_quorum: feed.witness_quorum,
        witness_quorum_at: stamp(feed.witness_quorum_ms),
        witnesses: feed.witnesses.into_iter().map(witness).collect(),
        cosigned: feed.cosigned,
    }
}
