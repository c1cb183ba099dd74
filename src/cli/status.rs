//! `hashpact status`: how the node is.

use clap::Args;
use data_encoding::HEXLOWER;
use hashpact_api::wire;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::CliError;
use super::output::{bytes, count, counted, stamp, time};
use super::roster_witnesses::{self, RosterWitnessed};

/// Show how the node is: roster, feeds, peers, store, certificates, alarms
///
/// Where no node runs, shows its store at rest.
#[derive(Debug, Args)]
pub struct StatusArgs {}

#[derive(Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a state of its own, for scripts"
)]
struct StatusObject {
    running: bool,
    only_witnesses: bool,
    software: String,
    member: String,
    node: String,
    coalition: String,
    genesis: String,
    ready: bool,
    roster_version: u64,
    roster_state: String,
    roster_expires: Option<String>,
    roster_witnessed: RosterWitnessed,
    card_version: u64,
    card_expires: Option<String>,
    certificate_expires: Option<String>,
    feeds: u64,
    leaves: u64,
    live_entries: u64,
    quarantined: u64,
    policy: String,
    policy_rules: u64,
    policy_since: Option<String>,
    policy_refused: bool,
    mutes: u64,
    store_bytes: u64,
    resident_bytes: u64,
    caught_up: bool,
    peers: u64,
    peers_connected: u64,
    started: Option<String>,
    notices: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When neither a node nor its store can be reached.
pub fn run(_args: StatusArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let status = client.call(client.node().status(wire::StatusRequest {}))?;
    let running = !client.is_embedded();
    let feeds = client
        .call(client.node().feeds(wire::FeedsRequest {}))?
        .feeds;
    let progress = progress(&status, &feeds, running);
    print(&status, &progress, running, context)?;
    context.output.json(&object(status, &progress, running))
}

/// How far the node is with what others publish.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Everything that it may read is here and answers.
    CaughtUp,
    /// Why it is not, for people.
    Not(String),
}

fn progress(status: &wire::StatusResponse, feeds: &[wire::Feed], running: bool) -> Progress {
    let not = |why: &str| Progress::Not(why.to_owned());
    if !running {
        return not("not running");
    }
    if status.roster_version == 0 {
        return not("waiting for the roster");
    }
    if status.peers > 0 && status.peers_connected == 0 {
        return not("no peer is connected");
    }
    let others = feeds.iter().filter(|feed| !feed.own);
    // Of a set that may not be read any more nothing is to come.
    let done = |state: &str| {
        matches!(
            state,
            "caught up" | "frozen" | "silent" | "dropping" | "cosigned" | "recorded"
        )
    };
    let behind: Vec<&str> = others
        .map(|feed| feed.state.as_str())
        .filter(|state| !done(state))
        .collect();
    let out_of_reach = behind.iter().filter(|state| **state == "behind").count();
    match (behind.len(), out_of_reach) {
        (0, _) => Progress::CaughtUp,
        (1, 1) => not("1 feed behind; nobody connected may serve it"),
        (1, _) => not("1 feed to go"),
        (behind, 0) => Progress::Not(format!("{behind} feeds to go")),
        (behind, of) => Progress::Not(format!(
            "{behind} feeds to go; nobody connected may serve {of} of them"
        )),
    }
}

fn print(
    status: &wire::StatusResponse,
    progress: &Progress,
    running: bool,
    context: &Context,
) -> Result<(), CliError> {
    let output = &context.output;
    let state = match (running, status.ready) {
        (false, _) => "not running",
        (true, false) => "running, not ready",
        (true, true) => "ready",
    };
    let coalition = match status.coalition.as_str() {
        "" => "no coalition yet",
        name => name,
    };
    let (member, node) = (&status.member, &status.node);
    output.line(format_args!("{member}/{node} in {coalition}: {state}"))?;
    if status.roster_version > 0 {
        let (version, state) = (status.roster_version, &status.roster_state);
        let expires = time(status.roster_expires_ms);
        output.line(format_args!(
            "  roster       version {version}, {state}, expires {expires}"
        ))?;
        let witnesses = roster_witnesses::short(status);
        output.line(format_args!("  witnesses    {witnesses}"))?;
    }
    if status.card_version > 0 {
        let (version, expires) = (status.card_version, time(status.card_expires_ms));
        output.line(format_args!(
            "  node card    version {version}, expires {expires}"
        ))?;
    }
    if status.certificate_expires_ms > 0 {
        let expires = time(status.certificate_expires_ms);
        output.line(format_args!("  certificate  expires {expires}"))?;
    }
    if status.only_witnesses {
        output.line("  does         witness heads, and nothing else: it holds no hashes")?;
    } else {
        let feeds = count(status.feeds);
        let entries = counted(status.live_entries, "entry", "entries");
        let leaves = counted(status.leaves, "leaf", "leaves");
        output.line(format_args!("  feeds        {feeds}, {entries} ({leaves})"))?;
    }
    match progress {
        Progress::CaughtUp if status.only_witnesses => {}
        Progress::CaughtUp => output.line("  reading      caught up")?,
        Progress::Not(why) if running => output.line(format_args!("  reading      {why}"))?,
        Progress::Not(_) => {}
    }
    if !status.only_witnesses {
        output.line(format_args!("  policy       {}", policy(status)))?;
    }
    let (connected, peers) = (status.peers_connected, status.peers);
    output.line(format_args!(
        "  peers        {connected} of {peers} connected"
    ))?;
    let (store, memory) = (bytes(status.store_bytes), bytes(status.resident_bytes));
    output.line(format_args!(
        "  store        {store} on disk, {memory} in memory"
    ))?;
    if running {
        let (started, software) = (time(status.started_ms), &status.software);
        output.line(format_args!("  started      {started}, {software}"))?;
    }
    for notice in &status.notices {
        output.item("  ! ", notice)?;
    }
    Ok(())
}

fn policy(status: &wire::StatusResponse) -> String {
    let rules = counted(status.policy_rules, "rule", "rules");
    let mut said = match status.policy.as_str() {
        "" | "shipped" => "as shipped: people look at everything".to_owned(),
        name => {
            let since = time(status.policy_since_ms);
            format!("{}, {rules}, since {since}", name.get(..12).unwrap_or(name))
        }
    };
    if status.policy_refused {
        said.push_str("; the file is wrong");
    }
    if status.mutes > 0 {
        said.push_str("; ");
        said.push_str(&counted(status.mutes, "mute", "mutes"));
    }
    said
}

fn object(status: wire::StatusResponse, progress: &Progress, running: bool) -> StatusObject {
    StatusObject {
        roster_witnessed: RosterWitnessed::of(&status),
        running,
        only_witnesses: status.only_witnesses,
        software: status.software,
        member: status.member,
        node: status.node,
        coalition: status.coalition,
        genesis: HEXLOWER.encode(&status.genesis_digest),
        ready: running && status.ready,
        roster_version: status.roster_version,
        roster_state: status.roster_state,
        roster_expires: stamp(status.roster_expires_ms),
        card_version: status.card_version,
        card_expires: stamp(status.card_expires_ms),
        certificate_expires: stamp(status.certificate_expires_ms),
        feeds: status.feeds,
        leaves: status.leaves,
        live_entries: status.live_entries,
        quarantined: status.quarantined,
        policy: status.policy,
        policy_rules: status.policy_rules,
        policy_since: stamp(status.policy_since_ms),
        policy_refused: status.policy_refused,
        mutes: status.mutes,
        store_bytes: status.store_bytes,
        resident_bytes: status.resident_bytes,
        caught_up: *progress == Progress::CaughtUp,
        peers: status.peers,
        peers_connected: status.peers_connected,
        started: stamp(status.started_ms),
        notices: status.notices,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(own: bool, state: &str) -> wire::Feed {
        wire::Feed {
            own,
            state: state.to_owned(),
            ..wire::Feed::default()
        }
    }

    #[test]
    fn a_node_has_caught_up_when_all_that_it_reads_is_here() {
        let status = wire::StatusResponse {
            roster_version: 2,
            peers: 1,
            peers_connected: 1,
            ..wire::StatusResponse::default()
        };
        let read = [feed(true, "closed"), feed(false, "caught up")];
        assert_eq!(progress(&status, &read, true), Progress::CaughtUp);
        let lost = [feed(false, "silent"), feed(false, "caught up")];
        assert_eq!(progress(&status, &lost, true), Progress::CaughtUp);
        let behind = [feed(false, "pulling"), feed(false, "caught up")];
        let why = Progress::Not("1 feed to go".to_owned());
        assert_eq!(progress(&status, &behind, true), why);
        assert!(matches!(progress(&status, &read, false), Progress::Not(_)));
        let out_of_reach = [feed(false, "behind"), feed(false, "caught up")];
        let why = Progress::Not("1 feed behind; nobody connected may serve it".to_owned());
        assert_eq!(progress(&status, &out_of_reach, true), why);
        let alone = wire::StatusResponse {
            peers_connected: 0,
            ..status.clone()
        };
        assert!(matches!(progress(&alone, &read, true), Progress::Not(_)));
        let new = wire::StatusResponse::default();
        assert!(matches!(progress(&new, &[], true), Progress::Not(_)));
    }
}
