//! What one version of the roster changes of the one before, in sentences.

use hashpact_core::id::Digest;
use hashpact_core::roster::{Group, Member, MemberStatus, Role, Roster};
use hashpact_core::suspension::AcceptedSuspension;

use super::state::day;

/// What changes from `before` to `after`; `None` for the founding. The suspensions known
/// say whose one is that ends.
pub(super) fn changes(
    before: Option<&Roster>,
    after: &Roster,
    suspensions: &[AcceptedSuspension],
) -> Vec<String> {
    let mut lines = Vec::new();
    match before {
        None => founded(after, &mut lines),
        Some(before) => {
            administration(before, after, &mut lines);
            for member in &after.members {
                match before.member(member.number) {
                    None => newcomer(member, &mut lines),
                    Some(held) => changed(held, member, &mut lines),
                }
            }
            groups(before, after, &mut lines);
            rest(before, after, &mut lines);
            for lifted in &after.lifted_suspensions {
                lines.push(ended(lifted, after, suspensions));
            }
        }
    }
    lines
}

fn founded(roster: &Roster, lines: &mut Vec<String>) {
    let (k, n) = (roster.threshold, roster.admins.len());
    lines.push(format!(
        "founds {}: {k} of {n} administrators decide",
        roster.coalition
    ));
    for former in &roster.former_geneses {
        lines.push(format!("takes the place of genesis {former}"));
    }
    for admin in &roster.admins {
        lines.push(format!("administrator {}: {}", admin.name, admin.key));
    }
    roster
        .members
        .iter()
        .for_each(|member| newcomer(member, lines));
    lines.push(format!("expires {}", day(roster.expires)));
}

fn administration(before: &Roster, after: &Roster, lines: &mut Vec<String>) {
    for admin in &after.admins {
        if !before.admins.iter().any(|held| held.key == admin.key) {
            lines.push(format!("new administrator {}: {}", admin.name, admin.key));
        }
    }
    for admin in &before.admins {
        if !after.admins.iter().any(|stays| stays.key == admin.key) {
            lines.push(format!(
                "{} is no administrator any longer: {}",
                admin.name, admin.key
            ));
        }
    }
    let (was, is) = (before.admins.len(), after.admins.len());
    if (before.threshold, was) != (after.threshold, is) {
        lines.push(format!(
            "{} of {is} administrators decide; before, {} of {was}",
            after.threshold, before.threshold
        ));
    }
}

fn newcomer(member: &Member, lines: &mut Vec<String>) {
    lines.push(format!(
        "new member {} ({}), number {}: {}; identity key {}",
        member.slug,
        member.display_name,
        member.number,
        roles(&member.roles),
        member.identity
    ));
}

fn changed(held: &Member, member: &Member, lines: &mut Vec<String>) {
    let slug = &member.slug;
    if held.status != member.status {
        lines.push(match member.status {
            MemberStatus::Active => format!("{slug} takes part again; it was {}", held.status),
            MemberStatus::Suspended => format!("{slug} is suspended until further notice"),
            MemberStatus::Removed => format!("{slug} is removed"),
        });
    }
    if held.display_name != member.display_name {
        let (was, is) = (&held.display_name, &member.display_name);
        lines.push(format!("{slug} is called {is}; before, {was}"));
    }
    if held.organisation_kind != member.organisation_kind {
        let (was, is) = (&held.organisation_kind, &member.organisation_kind);
        lines.push(format!("{slug} is a {is}; before, a {was}"));
    }
    if held.roles != member.roles {
        let (was, is) = (roles(&held.roles), roles(&member.roles));
        lines.push(format!("{slug} may {is}; before, {was}"));
    }
    if held.identity != member.identity {
        let (was, is) = (held.identity, member.identity);
        lines.push(format!("{slug} has a new identity key {is}; before, {was}"));
    }
}

fn groups(before: &Roster, after: &Roster, lines: &mut Vec<String>) {
    for group in &after.groups {
        let names = |numbers: &mut dyn Iterator<Item = &hashpact_core::id::MemberNumber>| {
            let slugs = numbers
                .filter_map(|n| after.member(*n))
                .map(|m| m.slug.to_string());
            slugs.collect::<Vec<_>>().join(", ")
        };
        let held: &[_] = before.group(&group.name).map_or(&[], |held| &held.members);
        if before.group(&group.name).is_none() {
            let members = names(&mut group.members.iter());
            lines.push(format!("new group {}: {members}", group.name));
            continue;
        }
        let come = names(&mut group.members.iter().filter(|n| !held.contains(n)));
        let gone = names(&mut held.iter().filter(|n| !group.members.contains(n)));
        if !come.is_empty() {
            lines.push(format!("group {} gets {come}", group.name));
        }
        if !gone.is_empty() {
            lines.push(format!("group {} loses {gone}", group.name));
        }
    }
    let gone = |group: &&Group| after.group(&group.name).is_none();
    for group in before.groups.iter().filter(gone) {
        lines.push(format!("group {} goes away", group.name));
    }
}

fn rest(before: &Roster, after: &Roster, lines: &mut Vec<String>) {
    for revoked in after.revocations.iter().skip(before.revocations.len()) {
        lines.push(format!(
            "feed {}: key {} is revoked from {} leaves on (root {}); epoch {} goes on from there",
            revoked.feed.0,
            revoked.key,
            revoked.last_good_size,
            revoked.last_good_root,
            revoked.next_epoch
        ));
    }
    if before.witness_threshold != after.witness_threshold {
        let (was, is) = (before.witness_threshold, after.witness_threshold);
        let is = match is {
            1 => "1 witness is".to_owned(),
            many => format!("{many} witnesses are"),
        };
        lines.push(format!("{is} a quorum; before, {was}"));
    }
    if before.feed_growth_per_hour != after.feed_growth_per_hour {
        let (was, is) = (growth(before), growth(after));
        lines.push(format!(
            "a feed may grow by {is} leaves an hour; before, {was}"
        ));
    }
    if before.expires != after.expires {
        let (was, is) = (day(before.expires), day(after.expires));
        lines.push(format!("expires {is}; before, {was}"));
    }
}

fn ended(lifted: &Digest, roster: &Roster, known: &[AcceptedSuspension]) -> String {
    let held = known.iter().find(|held| held.digest() == *lifted);
    let member = held.and_then(|held| roster.member(held.suspension().member));
    let whose = member.map_or(String::new(), |member| format!(" of {}", member.slug));
    format!("the suspension{whose} ends ({})", lifted.short())
}

fn growth(roster: &Roster) -> String {
    let limit = roster.feed_growth_per_hour;
    limit.map_or("what each node is set to".to_owned(), |leaves| {
        leaves.to_string()
    })
}

fn roles(roles: &[Role]) -> String {
    if roles.is_empty() {
        return "nothing".to_owned();
    }
    roles
        .iter()
        .map(|role| role.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
