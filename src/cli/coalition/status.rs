//! `hashpact coalition status`: who takes part, as this node sees it.
//!
//! Made for observers, who hear of no feed: all of it comes from the roster, the node
//! cards, the handshakes and the greetings. No set is named here, whatever the node's
//! roles are.

use std::io::IsTerminal as _;
use std::thread;
use std::time::Duration;

use comfy_table::ColumnConstraint;
use hashpact_api::wire;
use hashpact_core::card::{CardState, CardVersion};
use hashpact_core::id::UnixMillis;
use hashpact_core::roster::{Member, MemberStatus, Role, RosterFile};
use hashpact_node::clock::Clock;
use hashpact_node::expiry;
use serde::Serialize;

use super::args::StatusArgs;
use super::state::{State, day};
use crate::cli::Context;
use crate::cli::client::{Client, connect_or_embed};
use crate::cli::error::CliError;
use crate::cli::output::{counted, stamp, table};
use crate::cli::roster_witnesses::{self, RosterWitnessed};

/// Clears a terminal and goes to its corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, Serialize)]
struct Standing {
    coalition: String,
    roster_version: u64,
    roster_state: String,
    roster_expires: Option<String>,
    roster_witnessed: RosterWitnessed,
    nodes_reachable: usize,
    nodes_behind: usize,
    members: Vec<MemberStanding>,
    notices: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MemberStanding {
    member: String,
    display_name: String,
    roles: Vec<&'static str>,
    status: &'static str,
    /// 0 where no card is known.
    card_version: u64,
    card_expires: Option<String>,
    #[serde(skip)]
    card_until: Option<UnixMillis>,
    nodes: Vec<NodeStanding>,
    /// Sets whose publishers say that the member's receipts of them are overdue; `None`
    /// where this node is told of none, since its member does not observe.
    overdue_receipts: Option<u64>,
}

#[derive(Debug, Serialize)]
struct NodeStanding {
    node: String,
    reach: String,
    reachable: bool,
    last_heard: Option<String>,
    #[serde(skip)]
    heard_ms: u64,
    software: String,
    /// 0 where the node never said.
    roster_version: u64,
    behind: bool,
    certificate_expires: Option<String>,
    #[serde(skip)]
    certificate_until: Option<UnixMillis>,
}

pub(super) fn run(args: &StatusArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let Some(every) = args.watch else {
        return show(&client, context, false);
    };
    if client.is_embedded() {
        // It would keep the store from the node that is to be watched.
        return Err(CliError::failed("no node runs: there is nothing to watch")
            .next("hashpact run starts it"));
    }
    let clears = !context.output.is_json() && std::io::stdout().is_terminal();
    loop {
        show(&client, context, clears)?;
        if !clears {
            context.output.line("")?;
        }
        thread::sleep(Duration::from_secs(every));
    }
}

fn show(client: &Client, context: &Context, clears: bool) -> Result<(), CliError> {
    let now = Clock::system().now();
    let documents = client.call(client.node().show_roster(wire::ShowRosterRequest {}))?;
    let own = client.call(client.node().status(wire::StatusRequest {}))?;
    let peers = client.call(client.node().peers(wire::PeersRequest {}))?;
    let state = verified(documents)?;
    let runs = !client.is_embedded();
    let standing = standing(&state, &own, &peers.peers, runs, now);
    if clears {
        context.output.write(CLEAR.as_bytes())?;
    }
    print(&standing, &own, context, now)?;
    context.output.json(&standing)
}

/// The node's documents, verified once more: what is shown is what is signed.
pub(in crate::cli) fn verified(documents: wire::ShowRosterResponse) -> Result<State, CliError> {
    if documents.rosters.is_empty() {
        return Err(
            CliError::failed("this node has no roster of the coalition yet")
                .next("hashpact roster import FILE, or start the node with a peer to ask"),
        );
    }
    let file = RosterFile {
        rosters: documents.rosters,
        node_cards: documents.node_cards,
        suspensions: documents.suspensions,
    };
    State::verify(file)
        .map_err(|error| CliError::failed(format!("the node's roster cannot be shown: {error}")))
}

fn standing(
    state: &State,
    own: &wire::StatusResponse,
    peers: &[wire::Peer],
    runs: bool,
    now: UnixMillis,
) -> Standing {
    let roster = state.chain.roster();
    let suspended = state.suspensions.members(&state.chain, now);
    let members = roster.members.iter();
    let members = members.filter(|member| member.status != MemberStatus::Removed);
    let members: Vec<MemberStanding> = members
        .map(|member| {
            let status = match member.status {
                MemberStatus::Active if suspended.contains(&member.number) => "suspended",
                MemberStatus::Active => "active",
                MemberStatus::Suspended => "suspended",
                MemberStatus::Removed => "removed",
            };
            of_member(state, member, status, (own, peers), runs, now)
        })
        .collect();
    let nodes = || members.iter().flat_map(|member| &member.nodes);
    Standing {
        coalition: roster.coalition.to_string(),
        roster_version: roster.version,
        roster_state: format!("{:?}", state.chain.state(now)).to_lowercase(),
        roster_expires: stamp(roster.expires.0),
        roster_witnessed: RosterWitnessed::of(own),
        nodes_reachable: nodes().filter(|node| node.reachable).count(),
        nodes_behind: nodes().filter(|node| node.behind).count(),
        notices: notices(roster.expires, &members, now),
        members,
    }
}

fn of_member(
    state: &State,
    member: &Member,
    status: &'static str,
    (own, peers): (&wire::StatusResponse, &[wire::Peer]),
    runs: bool,
    now: UnixMillis,
) -> MemberStanding {
    let roster = state.chain.roster();
    let this = roster
        .members
        .iter()
        .find(|m| own.member == m.slug.as_str());
    let observes = runs && this.is_some_and(|member| member.has(Role::Observe));
    let card = state.cards.newest(member.number);
    let newest = state.chain.version();
    let nodes = card.into_iter().flat_map(|card| &card.card().nodes);
    let nodes = nodes.map(|node| {
        let slug = member.slug.as_str();
        if own.member == slug && own.node == node.name.as_str() {
            return of_own(own, runs);
        }
        let mut peers = peers.iter();
        let peer = peers.find(|peer| peer.member == slug && peer.node == node.name.as_str());
        let why = unreached(state, card, status, runs, now);
        of_peer(node.name.to_string(), peer, why, newest)
    });
    MemberStanding {
        member: member.slug.to_string(),
        display_name: member.display_name.clone(),
        roles: member.roles.iter().copied().map(Role::as_str).collect(),
        status,
        card_version: card.map_or(0, |card| card.card().version),
        card_expires: stamp(card.map_or(0, |card| card.card().expires.0)),
        card_until: card.map(|card| card.card().expires),
        nodes: nodes.collect(),
        overdue_receipts: observes.then(|| {
            let publishers = peers.iter().map(|peer| &peer.overdue_receipts);
            let said = publishers.chain([&own.overdue_receipts]).flatten();
            let of_member = said.filter(|said| said.member == member.slug.as_str());
            of_member.map(|said| said.sets).sum()
        }),
    }
}

/// Why nobody talks with a member's nodes, where that needs no attempt.
fn unreached(
    state: &State,
    card: Option<&std::sync::Arc<CardVersion>>,
    status: &'static str,
    runs: bool,
    now: UnixMillis,
) -> Option<&'static str> {
    if status != "active" {
        return Some(status);
    }
    match card.map(|card| card.state(state.chain.roster(), now)) {
        Some(CardState::Expired) => return Some("card expired"),
        Some(CardState::FormerIdentity) => return Some("card of old key"),
        Some(CardState::Current) | None => {}
    }
    (!runs).then_some("not asked")
}

fn of_own(own: &wire::StatusResponse, runs: bool) -> NodeStanding {
    NodeStanding {
        node: own.node.clone(),
        reach: if runs { "this node" } else { "not running" }.to_owned(),
        reachable: runs,
        last_heard: None,
        heard_ms: 0,
        software: own.software.clone(),
        roster_version: own.roster_version,
        behind: false,
        certificate_expires: stamp(own.certificate_expires_ms),
        certificate_until: until(own.certificate_expires_ms),
    }
}

fn of_peer(
    node: String,
    peer: Option<&wire::Peer>,
    why: Option<&'static str>,
    newest: u64,
) -> NodeStanding {
    let unknown = wire::Peer::default();
    let peer = peer.unwrap_or(&unknown);
    let reach = match (why, peer.state.as_str()) {
        (Some(why), _) => why,
        (None, "backing off") => "unreachable",
        (None, "") => "unknown",
        (None, state) => state,
    };
    NodeStanding {
        node,
        reach: reach.to_owned(),
        reachable: reach == "connected",
        last_heard: stamp(peer.last_seen_ms),
        heard_ms: peer.last_seen_ms,
        software: peer.software.clone(),
        roster_version: peer.roster_version,
        behind: peer.roster_version > 0 && peer.roster_version < newest,
        certificate_expires: stamp(peer.certificate_expires_ms),
        certificate_until: until(peer.certificate_expires_ms),
    }
}

fn until(unix_ms: u64) -> Option<UnixMillis> {
    (unix_ms > 0).then_some(UnixMillis(unix_ms))
}

/// What runs out, each in a sentence.
fn notices(roster: UnixMillis, members: &[MemberStanding], now: UnixMillis) -> Vec<String> {
    let mut lines: Vec<String> = expiry::notice("the roster", roster, now)
        .into_iter()
        .collect();
    for member in members {
        let name = &member.member;
        let ends = member.card_until;
        lines.extend(
            ends.and_then(|end| expiry::notice(&format!("the node card of {name}"), end, now)),
        );
        for node in &member.nodes {
            let what = format!("the TLS certificate of {name}/{}", node.node);
            let ends = node.certificate_until;
            lines.extend(ends.and_then(|end| expiry::notice(&what, end, now)));
        }
        if member.nodes.is_empty() {
            lines.push(format!("{name} has no node card"));
        }
    }
    lines
}

fn print(
    standing: &Standing,
    own: &wire::StatusResponse,
    context: &Context,
    now: UnixMillis,
) -> Result<(), CliError> {
    let output = &context.output;
    let (name, version) = (&standing.coalition, standing.roster_version);
    let (state, expires) = (&standing.roster_state, standing.roster_expires.as_deref());
    let expires = expires.and_then(|time| time.get(..10)).unwrap_or("never");
    output.line(format_args!(
        "{name}: roster version {version}, {state}, expires {expires}"
    ))?;
    let count =
        |count: usize, one, many| counted(u64::try_from(count).unwrap_or(u64::MAX), one, many);
    let members = count(standing.members.len(), "member", "members");
    let reachable = count(standing.nodes_reachable, "node", "nodes");
    let behind = standing.nodes_behind;
    output.line(format_args!(
        "{members}, {reachable} reachable, {behind} with an older roster"
    ))?;
    output.line("")?;
    output.table(&rows(standing, now))?;
    output.line("")?;
    let late = standing.members.iter();
    let told = late.clone().any(|member| member.overdue_receipts.is_some());
    let late: Vec<String> = late
        .filter_map(|member| Some((member.overdue_receipts?, &member.member)))
        .filter(|(sets, _)| *sets > 0)
        .map(|(sets, member)| format!("{member} {sets}"))
        .collect();
    let late = match late.as_slice() {
        [] if !told => "told to members that observe, while their node runs".to_owned(),
        [] => "none".to_owned(),
        late => format!("{} (sets, by their publishers)", late.join(", ")),
    };
    output.line(format_args!("overdue receipts: {late}"))?;
    roster_witnesses::print(own, context)?;
    for notice in &standing.notices {
        output.line(format_args!("  ! {notice}"))?;
    }
    Ok(())
}

fn rows(standing: &Standing, now: UnixMillis) -> comfy_table::Table {
    let header = [
        "NODE",
        "REACH",
        "HEARD",
        "VERSION",
        "ROSTER",
        "CARD ENDS",
        "CERT ENDS",
    ];
    let mut shown = table(&header, &[4]);
    // Names alone are broken over lines.
    for column in shown.column_iter_mut().skip(1) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    for member in &standing.members {
        let card = ends(member.card_until);
        for node in &member.nodes {
            let heard = match node.heard_ms {
                0 => "-".to_owned(),
                heard => ago(UnixMillis(heard), now),
            };
            let software = node.software.strip_prefix("hashpact ");
            let roster = match node.roster_version {
                0 => "-".to_owned(),
                version => version.to_string(),
            };
            shown.add_row([
                format!("{}/{}", member.member, node.node),
                node.reach.clone(),
                heard,
                or_dash(software.unwrap_or(&node.software)),
                roster,
                card.clone(),
                ends(node.certificate_until),
            ]);
        }
        if member.nodes.is_empty() {
            let none = || "-".to_owned();
            let name = member.member.clone();
            let status = member.status.to_owned();
            shown.add_row([name, status, none(), none(), none(), card, none()]);
        }
    }
    shown
}

fn ends(end: Option<UnixMillis>) -> String {
    end.map_or_else(|| "-".to_owned(), day)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// How long ago, in one unit.
fn ago(then: UnixMillis, now: UnixMillis) -> String {
    let elapsed = Duration::from_millis(now.since(then));
    match elapsed.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", elapsed.as_secs() / 86_400),
    }
}
