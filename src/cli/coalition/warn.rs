//! What a version of the roster would break, and what is close to breaking.

use hashpact_core::enrol::VerifiedRequest;
use hashpact_core::id::UnixMillis;
use hashpact_core::roster::{Member, MemberStatus, Role, Roster};

use super::draft::{Draft, RENEW_WINDOW_MS};
use super::state::{State, day};

/// What people should know before they sign.
pub(super) fn warnings(state: Option<&State>, draft: &Draft, now: UnixMillis) -> Vec<String> {
    let mut lines = Vec::new();
    let before = state.map(|state| state.chain.roster());
    administrators(before, &draft.roster, &mut lines);
    time(before, &draft.roster, now, &mut lines);
    if let Some(state) = state {
        nodes(state, draft, now, &mut lines);
        keys(state, &draft.roster, &mut lines);
    }
    members(before, &draft.roster, &mut lines);
    lines
}

fn administrators(before: Option<&Roster>, after: &Roster, lines: &mut Vec<String>) {
    let (k, n) = (after.threshold, after.admins.len());
    if k == n {
        let whose = match n {
            1 => "the one administrator".to_owned(),
            n => format!("all {n} administrators"),
        };
        lines.push(format!(
            "{whose} must sign: the loss of one key ends all changes"
        ));
    }
    if let Some(before) = before {
        let stay = before.admins.iter();
        let stay = stay
            .filter(|a| after.admin_keys().any(|key| key == a.key))
            .count();
        if stay < before.admins.len() {
            lines.push(format!(
                "{stay} of {} administrators still sign; suspensions of the others end",
                before.admins.len()
            ));
        }
    }
}

fn time(before: Option<&Roster>, after: &Roster, now: UnixMillis, lines: &mut Vec<String>) {
    if after.issued > now {
        lines.push(format!(
            "post-dated: nodes take it from {} on; any other change before voids it",
            day(after.issued)
        ));
    }
    if after.expires.since(now) <= RENEW_WINDOW_MS {
        lines.push(format!("it expires on {} already", day(after.expires)));
    }
    if before.is_some_and(|before| before.expires > after.expires) {
        lines.push("it expires sooner than the one in force".to_owned());
    }
}

/// Members that nobody could talk to: no card, an expired one, or one of a former
/// identity key.
fn nodes(state: &State, draft: &Draft, now: UnixMillis, lines: &mut Vec<String>) {
    let roster = &draft.roster;
    let brings = |member: &Member| {
        let of = |r: &VerifiedRequest| r.request().slug == member.slug;
        draft.requests.iter().any(of)
    };
    let has_node = |member: &Member| {
        brings(member) || state.cards.current(member.number, roster, now).is_some()
    };
    let active = roster
        .members
        .iter()
        .filter(|m| m.status == MemberStatus::Active);
    let without: Vec<&str> = active
        .filter(|member| !has_node(member))
        .map(|member| member.slug.as_str())
        .collect();
    if !without.is_empty() {
        lines.push(format!(
            "members without an active node, as far as the cards here tell: {}",
            without.join(", ")
        ));
    }
}

/// Feed keys that are revoked though no card here names them.
fn keys(state: &State, after: &Roster, lines: &mut Vec<String>) {
    let held = state.chain.roster().revocations.len();
    for revoked in after.revocations.iter().skip(held) {
        let cards = state.cards.all().map(|card| card.card());
        let mut keys = cards
            .flat_map(|card| &card.nodes)
            .flat_map(|node| &node.feed_keys);
        if !keys.any(|key| key.key == revoked.key) {
            lines.push(format!(
                "no card here names the feed key {}: compare it with what the member reads \
                 out (hashpact card show); its newest card may not be here",
                revoked.key
            ));
        }
    }
}

fn members(before: Option<&Roster>, after: &Roster, lines: &mut Vec<String>) {
    let witnesses = after.active_with(Role::Witness).count();
    let needed = usize::try_from(after.witness_threshold).unwrap_or(usize::MAX);
    if needed > 0 && witnesses <= needed {
        lines.push(format!(
            "{needed} witnesses are a quorum and {witnesses} take part: none may fail"
        ));
    }
    for group in &after.groups {
        let takes_part = |n: &_| {
            after
                .member(*n)
                .is_some_and(|m| m.status == MemberStatus::Active)
        };
        if !group.members.iter().any(takes_part) {
            lines.push(format!("no active member is in group {}", group.name));
        }
    }
    let Some(before) = before else { return };
    let gone = before
        .groups
        .iter()
        .filter(|g| after.group(&g.name).is_none());
    for group in gone {
        lines.push(format!(
            "sets granted to group {} lose those readers",
            group.name
        ));
    }
    for member in &after.members {
        let held = before.member(member.number);
        let had = |role| held.is_some_and(|m| m.has(role)) && !member.has(role);
        if had(Role::Publish) {
            lines.push(format!(
                "{} publishes no more: its new heads are refused",
                member.slug
            ));
        }
        if had(Role::Subscribe) {
            lines.push(format!(
                "{} reads no more: grants to it have no effect",
                member.slug
            ));
        }
        let rotated = held.is_some_and(|m| m.identity != member.identity);
        if rotated {
            lines.push(format!(
                "{}: its cards of the former key count no longer; the new one comes with this",
                member.slug
            ));
        }
        if held.is_some_and(|m| m.status != member.status) && member.status == MemberStatus::Removed
        {
            lines.push(format!(
                "{} is cut off at once; nodes keep what it said, and count it as they are set",
                member.slug
            ));
        }
    }
}
