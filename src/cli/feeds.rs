//! `hashpact feeds`: the feeds that the node holds.

use clap::Args;
use data_encoding::HEXLOWER;
use hashpact_api::wire;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::CliError;
use super::output::{count, counted, stamp, table, time};
use super::values::SetReference;

/// List the feeds that the node holds: entries, leaves, lag, state
#[derive(Debug, Args)]
pub struct FeedsArgs {
    /// Only this set's feed: SET of this member, or MEMBER/SET
    #[arg(value_name = "SET")]
    pub set: Option<SetReference>,
}

#[derive(Serialize)]
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
            .line("no feeds; hashpact set create makes one")?;
    } else if !feeds.is_empty() {
        print(&feeds, context)?;
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

fn print(feeds: &[wire::Feed], context: &Context) -> Result<(), CliError> {
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

/// Leaves under the newest head that look-ups do not answer from.
const fn lag(feed: &wire::Feed) -> u64 {
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
    }
}
