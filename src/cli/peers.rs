//! `hashpact peers`: the other members' nodes.

use clap::Args;
use hashpact_api::wire;
use hashpact_core::id::Slug;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::CliError;
use super::output::{note, stamp, table, time};
use super::values::slug;

/// List the other members' nodes: connected or not, since when, what went wrong
#[derive(Debug, Args)]
pub struct PeersArgs {
    /// Only the nodes of this member
    #[arg(value_name = "MEMBER", value_parser = slug)]
    pub member: Option<Slug>,
}

#[derive(Serialize)]
struct PeerObject {
    member: String,
    node: String,
    display_name: String,
    member_status: String,
    endpoints: Vec<String>,
    state: String,
    last_seen: Option<String>,
    next_attempt: Option<String>,
    last_error_code: String,
    last_error: String,
    roster_version: u64,
    software: String,
}

#[derive(Serialize)]
struct PeerList {
    peers: Vec<PeerObject>,
}

/// Runs the command.
///
/// # Errors
/// When neither a node nor its store can be reached.
pub fn run(args: &PeersArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let answer = client.call(client.node().peers(wire::PeersRequest {}))?;
    let mut peers = answer.peers;
    if let Some(member) = &args.member {
        peers.retain(|peer| peer.member == member.as_str());
        if peers.is_empty() && !client.is_embedded() {
            return Err(
                CliError::failed(format!("no other node of {member} is on a node card"))
                    .next("hashpact roster show names the members and their nodes"),
            );
        }
    }
    if peers.is_empty() {
        let why = if client.is_embedded() {
            "no peers: only a running node has any"
        } else {
            "no other node is on a card"
        };
        context.output.line(why)?;
    } else {
        print(&peers, context)?;
    }
    let peers = peers.into_iter().map(object).collect();
    context.output.json(&PeerList { peers })
}

fn print(peers: &[wire::Peer], context: &Context) -> Result<(), CliError> {
    let mut shown = table(
        &["NODE", "STATE", "LAST HEARD", "ROSTER", "ENDPOINTS"],
        &[3],
    );
    for peer in peers {
        shown.add_row([
            format!("{}/{}", peer.member, peer.node),
            peer.state.clone(),
            time(peer.last_seen_ms),
            peer.roster_version.to_string(),
            peer.endpoints.join(" "),
        ]);
    }
    context.output.table(&shown)?;
    for peer in peers.iter().filter(|peer| !peer.last_error_code.is_empty()) {
        let (member, node) = (&peer.member, &peer.node);
        let (code, text) = (&peer.last_error_code, &peer.last_error);
        context
            .output
            .line(format_args!("  ! {member}/{node}: {code}: {text}"))?;
    }
    if peers.iter().any(is_turned_away) {
        note("a node closes the connections of keys that it does not know: has the newest roster");
        note("reached one of these members? hashpact roster import FILE there, and it spreads");
    }
    Ok(())
}

/// Whether a node that never answered closes every connection.
fn is_turned_away(peer: &wire::Peer) -> bool {
    peer.last_seen_ms == 0 && peer.last_error_code == "closed"
}

fn object(peer: wire::Peer) -> PeerObject {
    PeerObject {
        member: peer.member,
        node: peer.node,
        display_name: peer.display_name,
        member_status: peer.status,
        endpoints: peer.endpoints,
        state: peer.state,
        last_seen: stamp(peer.last_seen_ms),
        next_attempt: stamp(peer.next_attempt_ms),
        last_error_code: peer.last_error_code,
        last_error: peer.last_error,
        roster_version: peer.roster_version,
        software: peer.software,
    }
}
