//! Which cards and suspensions a peer is given: those that it can still accept.

use std::sync::Arc;

use hashpact_core::access::RosterReach;
use hashpact_core::card::{CardState, CardVersion};
use hashpact_core::id::{MemberNumber, UnixMillis};
use hashpact_core::roster::MemberStatus;
use hashpact_core::suspension::AcceptedSuspension;
use hashpact_node::membership::State;

use crate::types::RosterItem;

/// A member's newest card, if it is in force and the member is not removed.
pub(crate) fn card_in_force(
    state: &State,
    member: MemberNumber,
    now: UnixMillis,
) -> Option<&Arc<CardVersion>> {
    let roster = state.chain.as_ref()?.roster();
    let stays = roster.member(member)?.status != MemberStatus::Removed;
    let card = state.cards.current(member, roster, now);
    card.filter(|_| stays)
}

/// The suspensions that count now.
pub(crate) fn suspensions_in_force(
    state: &State,
    now: UnixMillis,
) -> impl Iterator<Item = &AcceptedSuspension> {
    let chain = state.chain.iter();
    chain.flat_map(move |chain| state.suspensions.in_force(chain, now))
}

/// The roster chain from a version on, then cards, then suspensions, as far as a
/// caller may see them.
pub(crate) fn roster_items(
    state: &State,
    reach: RosterReach,
    from_version: u64,
    now: UnixMillis,
) -> Vec<RosterItem> {
    let (last, before) = match reach {
        RosterReach::All => (u64::MAX, UnixMillis(u64::MAX)),
        RosterReach::UpTo { version, issued } => (version, issued),
        RosterReach::None => return Vec::new(),
    };
    let Some(chain) = &state.chain else {
        return Vec::new();
    };
    let rosters = chain
        .from_version(from_version)
        .take_while(|version| version.roster().version <= last)
        .map(|version| RosterItem::Roster(version.as_bytes().clone()));
    let members = chain.roster().members.iter().map(|member| member.number);
    let cards = members
        .filter_map(|member| card_before(state, member, before, now))
        .map(|card| RosterItem::NodeCard(card.as_bytes().clone()));
    let suspensions = suspensions_in_force(state, now)
        .filter(|held| held.suspension().issued < before)
        .map(|held| RosterItem::Suspension(held.as_bytes().clone()));
    rosters.chain(cards).chain(suspensions).collect()
}

/// The newest card in force, or for a caller that was removed the newest one that
/// was issued before.
fn card_before(
    state: &State,
    member: MemberNumber,
    before: UnixMillis,
    now: UnixMillis,
) -> Option<&Arc<CardVersion>> {
    if before == UnixMillis(u64::MAX) {
        return card_in_force(state, member, now);
    }
    let roster = state.chain.as_ref()?.roster();
    let of_member = state.cards.all().filter(|card| card.member() == member);
    let fits = |card: &&Arc<CardVersion>| {
        card.card().issued < before && card.state(roster, now) == CardState::Current
    };
    of_member.filter(fits).last()
}
