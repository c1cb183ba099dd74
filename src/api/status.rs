//! The node at a glance: its state, its peers and its feeds as messages.

use hashpact_core::id::{Slug, UnixMillis};
use hashpact_core::leaf::audit::Act;
use hashpact_core::witness::judge::Judged;
use hashpact_node::model::{FeedView, PeerView};
use hashpact_node::{LostSet, Node, NodeError};

use crate::about::About;
use crate::wire;

/// The node at a glance. Blocking.
pub(crate) fn status(node: &Node, about: &About) -> Result<wire::StatusResponse, NodeError> {
    let status = node.status()?;
    let roster = node.roster_standing();
    let judged = roster.as_ref().map(|roster| &roster.judged);
    let threshold = judged.and_then(|judged| u32::try_from(judged.threshold?).ok());
    Ok(wire::StatusResponse {
        roster_witnesses: judged.map_or_else(Vec::new, |judged| witnesses(node, judged)),
        roster_witness_threshold: threshold.unwrap_or(0),
        roster_witness_quorum: judged.and_then(|judged| judged.quorum).unwrap_or(0),
        roster_stale: judged.is_some_and(|judged| judged.stale),
        software: about.software.clone(),
        member: status.member.to_string(),
        node: status.node.to_string(),
        coalition: status.coalition.unwrap_or_default(),
        genesis_digest: status.genesis.0.to_vec().into(),
        roster_version: status.roster_version,
        roster_state: status.roster_state.to_owned(),
        roster_expires_ms: status.roster_expires.0,
        card_version: status.card_version,
        card_expires_ms: status.card_expires.0,
        certificate_expires_ms: node
            .certificate_expires()
            .or(about.certificate_expires)
            .unwrap_or_default()
            .0,
        ready: status.ready,
        notices: status.notices,
        feeds: status.feeds,
        leaves: status.leaves,
        live_entries: status.live_entries,
        store_bytes: status.store_bytes,
        peers: status.peers,
        peers_connected: status.peers_connected,
        started_ms: status.started.0,
        resident_bytes: resident_bytes(),
        quarantined: status.quarantined,
        policy: status.policy,
        policy_rules: status.policy_rules,
        policy_since_ms: status.policy_since.0,
        policy_refused: node.policy_is_refused(),
        mutes: status.mutes,
        overdue_receipts: crate::receipts::overdue(node, node.overdue_receipts()),
        only_witnesses: node.only_witnesses(),
    })
}

/// Another member's node, under the name and status that the roster gives its member.
pub(crate) fn peer(node: &Node, peer: PeerView) -> wire::Peer {
    let member = node.membership().member(peer.member);
    let (display_name, status) = member.map_or_else(Default::default, |member| {
        (
            member.display_name,
            format!("{:?}", member.status).to_lowercase(),
        )
    });
    let (last_error_code, last_error) = peer.last_error;
    let overdue = peer.overdue_receipts.into_iter().collect();
    wire::Peer {
        member: peer.slug.to_string(),
        node: peer.node.to_string(),
        display_name,
        status,
        endpoints: peer.endpoints,
        state: peer.state.to_owned(),
        last_seen_ms: peer.last_seen.0,
        next_attempt_ms: peer.next_attempt.0,
        last_error_code,
        last_error,
        roster_version: peer.roster_version,
        software: peer.software,
        certificate_expires_ms: peer.certificate_expires.0,
        overdue_receipts: crate::receipts::overdue(node, overdue),
    }
}

/// A feed.
fn feed(node: &Node, feed: FeedView) -> wire::Feed {
    let judged = feed.judged.as_ref();
    let quorum = judged.and_then(|judged| judged.quorum);
    wire::Feed {
        witnesses: judged.map_or_else(Vec::new, |judged| witnesses(node, judged)),
        witness_threshold: judged
            .and_then(|judged| u32::try_from(judged.threshold?).ok())
            .unwrap_or(0),
        witness_quorum: quorum.unwrap_or(0),
        witness_quorum_ms: judged.map_or(0, |judged| judged.quorum_at.0),
        stale: judged.is_some_and(|judged| judged.stale),
        cosigned: feed.cosigned.unwrap_or(0),
        name: feed.name,
        feed_id: feed.id.as_bytes().to_vec().into(),
        publisher: feed.publisher,
        own: feed.own,
        epoch: feed.epoch,
        stored: feed.stored,
        indexed: feed.indexed,
        head: feed.head,
        root: feed
            .root
            .map_or_else(Vec::new, |root| root.0.to_vec())
            .into(),
        live_entries: feed.live_entries,
        state: feed.state.to_owned(),
        from_peer: feed.from_peer,
        updated_ms: feed.updated.0,
        last_error_code: feed.last_error,
        unconfirmed: feed.unconfirmed,
        quarantined: feed.quarantined,
    }
}

/// What this node would lose with a member. Blocking.
pub(crate) fn preview(
    node: &Node,
    member: &Slug,
    act: &mut Act,
) -> Result<wire::PreviewResponse, NodeError> {
    let radius = node.blast_radius(member)?;
    act.count("entries", radius.entries);
    let sets = radius.sets.into_iter().map(|(name, live_entries)| {
        let name = name.to_string();
        wire::PreviewedSet { name, live_entries }
    });
    Ok(wire::PreviewResponse {
        sets: sets.collect(),
        entries: radius.entries,
        without_other: radius.without_other,
        with_one_other: radius.with_one_other,
        examples: radius.examples,
        examples_with_one_other: radius.examples_with_one_other,
    })
}

/// The feeds that are held, and the sets that were lost. Blocking.
pub(crate) fn feeds(node: &Node) -> Result<wire::FeedsResponse, NodeError> {
    let sets = node.lost_sets()?;
    Ok(wire::FeedsResponse {
        feeds: node
            .feeds()
            .into_iter()
            .map(|view| feed(node, view))
            .collect(),
        lost: sets.into_iter().map(lost).collect(),
    })
}

/// A set that this member may not read any longer.
fn lost(lost: LostSet) -> wire::LostSet {
    wire::LostSet {
        name: lost.name,
        feed_id: lost.feed.as_bytes().to_vec().into(),
        lost_ms: lost.at.0,
    }
}

/// Who stands where.
fn witnesses(node: &Node, judged: &Judged) -> Vec<wire::FeedWitness> {
    let stands = judged.witnesses.iter();
    let stands = stands.map(|(number, stand)| {
        let member = node.membership().member(*number);
        wire::FeedWitness {
            member: member.map_or_else(|| number.to_string(), |member| member.slug.to_string()),
            size: stand.map_or(0, |stand| stand.size),
            cosigned_ms: stand.map_or(0, |stand| stand.at.0),
            fresh: stand.is_some_and(|stand| stand.fresh),
            since_ms: stand.map_or(0, |stand| stand.since.0),
        }
    });
    stands.collect()
}

/// What the process holds in memory, where the system says so; else 0.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1_024)
}

/// Days from `now` to `then`; 0 when it has passed.
#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge of days needs few digits"
)]
pub(crate) fn days_left(now: UnixMillis, then: UnixMillis) -> f64 {
    then.since(now) as f64 / 86_400_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        assert!(!cfg!(target_os = "linux") || resident_bytes() > 100_000);
    }

    #[test]
    fn days_that_have_passed_are_none() {
        let (now, later) = (UnixMillis(86_400_000), UnixMillis(3 * 86_400_000));
        assert!((days_left(now, later) - 2.0).abs() < 1e-9);
        assert!(days_left(later, now).abs() < 1e-9);
    }
}
