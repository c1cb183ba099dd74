//! Rosters and their chain: what is accepted, what is refused, what is evidence.

use prost::Message as _;

use super::*;
use crate::envelope::{EnvelopeDraft, PayloadType};
use crate::keys::SecretKey;
use crate::limits::DAY_MS;
use crate::reject::Rejection;
use crate::wire;

pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const LIFE: u64 = 365 * DAY_MS;

pub(crate) fn admin(seed: u8) -> SecretKey<Admin> {
    SecretKey::from_seed(&[seed; 32])
}

pub(crate) fn identity(seed: u8) -> PublicKey<Identity> {
    SecretKey::from_seed(&[seed; 32]).public()
}

pub(crate) fn slug(text: &str) -> Slug {
    Slug::parse(text).unwrap()
}

pub(crate) fn number(number: u32) -> MemberNumber {
    MemberNumber::new(number).unwrap()
}

fn admins(seeds: &[u8]) -> Vec<RosterAdmin> {
    let admin = |seed: &u8| RosterAdmin {
        name: format!("admin {seed}"),
        key: admin(*seed).public(),
    };
    seeds.iter().map(admin).collect()
}

pub(crate) fn newcomer(name: &str, seed: u8) -> NewMember {
    NewMember {
        slug: slug(name),
        display_name: name.to_owned(),
        organisation_kind: "platform".to_owned(),
        identity: identity(seed),
        roles: vec![Role::Subscribe, Role::Publish],
    }
}

pub(crate) fn signed(roster: &Roster, by: &[u8]) -> Envelope {
    let payload = wire::Roster::from(roster).encode_to_vec();
    let mut draft = EnvelopeDraft::new(PayloadType::Roster, payload.into());
    for seed in by {
        draft.sign(&admin(*seed));
    }
    draft.finish().unwrap()
}

/// A coalition of administrators 1 to 3, two of whom decide, without members.
pub(crate) fn founded() -> RosterChain {
    let mut roster = Roster::found(
        CoalitionName::parse("csa-coalition.example").unwrap(),
        admins(&[1, 2, 3]),
        NOW,
        LIFE,
    );
    roster.former_geneses = vec![Digest::of(b"a chain whose keys were lost")];
    let envelope = signed(&roster, &[1, 2]);
    let genesis = envelope.payload_digest();
    RosterChain::begin(envelope, &genesis, NOW).unwrap()
}

pub(crate) fn next(chain: &RosterChain, change: impl FnOnce(&mut Roster)) -> Roster {
    let mut roster = Roster::after(chain.current(), chain.genesis(), NOW, LIFE);
    change(&mut roster);
    roster
}

/// Accepts a change that administrators 1 and 2 signed.
pub(crate) fn change(
    chain: &mut RosterChain,
    how: impl FnOnce(&mut Roster),
) -> Result<Accepted, Rejection> {
    let roster = next(chain, how);
    chain.accept(signed(&roster, &[1, 2]), NOW)
}

/// A founded coalition with members north (1) and south (2).
pub(crate) fn with_members() -> RosterChain {
    let mut chain = founded();
    let accepted = change(&mut chain, |r| {
        r.admit(newcomer("north", 101)).unwrap();
        r.admit(newcomer("south", 102)).unwrap();
    });
    assert_eq!(accepted, Ok(Accepted::New));
    chain
}

pub(crate) fn code<T>(result: Result<T, Rejection>) -> &'static str {
    result.err().map_or("accepted", |r| r.code())
}

#[track_caller]
fn refused_as(chain: &mut RosterChain, expected: &str, how: impl FnOnce(&mut Roster)) {
    let before = chain.current().digest();
    assert_eq!(code(change(chain, how)), expected);
    assert_eq!(chain.current().digest(), before, "nothing changed");
}

#[test]
fn a_chain_begins_with_its_genesis_and_nothing_else() {
    let chain = founded();
    assert_eq!(chain.version(), 1);
    let other = Digest::of(b"another coalition");
    let envelope = chain.current().envelope().clone();
    assert_eq!(
        code(RosterChain::begin(envelope, &other, NOW)),
        "wrong_genesis"
    );
}

#[test]
fn the_genesis_itself_needs_its_threshold() {
    let roster = founded().roster().clone();
    let envelope = signed(&roster, &[1]);
    let genesis = envelope.payload_digest();
    assert_eq!(
        code(RosterChain::begin(envelope, &genesis, NOW)),
        "threshold_not_met"
    );
}

#[test]
fn members_are_found_by_number_and_slug() {
    let chain = with_members();
    let north = chain.roster().member_by_slug(&slug("north")).unwrap();
    assert_eq!(north.number, number(1));
    assert_eq!(chain.roster().member(number(1)), Some(north));
    assert_eq!(chain.roster().active_with(Role::Publish).count(), 2);
}

#[test]
fn a_roster_that_one_administrator_signed_is_refused() {
    let mut chain = founded();
    let roster = next(&chain, |_| ());
    assert_eq!(
        code(chain.accept(signed(&roster, &[1]), NOW)),
        "threshold_not_met"
    );
    assert_eq!(
        code(chain.accept(signed(&roster, &[1, 9]), NOW)),
        "threshold_not_met"
    );
}

#[test]
fn one_administrator_under_two_names_is_refused() {
    refused_as(&mut founded(), "invalid", |r| {
        let mut twin = r.admins[0].clone();
        twin.name = "twin".to_owned();
        r.admins.push(twin);
    });
}

#[test]
fn a_version_that_is_skipped_or_repeated_is_refused() {
    refused_as(&mut with_members(), "version_gap", |r| r.version += 1);
    refused_as(&mut with_members(), "version_gap", |r| r.version = 0);
    refused_as(&mut with_members(), "wrong_predecessor", |r| r.version -= 1);
}

#[test]
fn another_predecessor_or_genesis_is_refused() {
    refused_as(&mut founded(), "wrong_predecessor", |r| {
        r.previous = Some(Digest::of(b"x"));
    });
    refused_as(&mut founded(), "wrong_genesis", |r| {
        r.genesis = Some(Digest::of(b"x"));
    });
    refused_as(&mut founded(), "wrong_genesis", |r| r.genesis = None);
}

#[test]
fn a_threshold_lowered_with_only_the_new_keys_is_refused() {
    let mut chain = founded();
    let roster = next(&chain, |r| {
        r.admins = admins(&[8, 9]);
    });
    assert_eq!(
        code(chain.accept(signed(&roster, &[8, 9]), NOW)),
        "threshold_not_met"
    );
    let alone = next(&chain, |r| {
        r.admins = admins(&[8]);
        r.threshold = 1;
    });
    assert_eq!(
        code(chain.accept(signed(&alone, &[8]), NOW)),
        "threshold_not_met"
    );
}

#[test]
fn new_administrators_must_agree_too() {
    let mut chain = founded();
    let roster = next(&chain, |r| r.admins = admins(&[1, 8, 9]));
    assert_eq!(
        code(chain.accept(signed(&roster, &[1, 2]), NOW)),
        "threshold_not_met"
    );
    assert_eq!(
        chain.accept(signed(&roster, &[1, 2, 8]), NOW),
        Ok(Accepted::New)
    );
}

#[test]
fn thresholds_outside_the_rules_are_refused() {
    for threshold in [0, 1, 4] {
        refused_as(&mut founded(), "invalid", |r| r.threshold = threshold);
    }
    refused_as(&mut founded(), "invalid", |r| r.admins.clear());
    let mut alone = founded();
    let roster = next(&alone, |r| {
        r.admins = admins(&[1]);
        r.threshold = 1;
    });
    assert_eq!(
        alone.accept(signed(&roster, &[1, 2]), NOW),
        Ok(Accepted::New)
    );
}

#[test]
fn a_key_in_two_places_is_refused() {
    refused_as(&mut with_members(), "invalid", |r| {
        r.members[1].identity = r.members[0].identity;
    });
    refused_as(&mut with_members(), "invalid", |r| {
        let key = *r.admins[0].key.as_bytes();
        r.members[0].former_identities.push(identity(101));
        r.members[0].identity = PublicKey::from_slice(&key).unwrap();
    });
}

#[test]
fn a_key_that_was_somebody_elses_before_is_refused() {
    let mut chain = with_members();
    let without_3 = next(&chain, |r| {
        r.admins = admins(&[1, 2]);
    });
    assert_eq!(
        chain.accept(signed(&without_3, &[1, 2]), NOW),
        Ok(Accepted::New)
    );
    refused_as(&mut chain, "invalid", |r| {
        r.rotate_identity(number(1), identity(3)).unwrap();
    });
}

#[test]
fn slugs_and_numbers_are_never_used_again() {
    refused_as(&mut with_members(), "invalid", |r| {
        r.members.remove(0);
    });
    refused_as(&mut with_members(), "invalid", |r| {
        r.members[0].slug = slug("renamed");
    });
    refused_as(&mut with_members(), "invalid", |r| {
        r.members[0].number = number(7);
    });
    refused_as(&mut with_members(), "invalid", |r| {
        r.members[0] = Member {
            number: number(1),
            slug: slug("south"),
            ..r.members[0].clone()
        };
    });
    let mut roster = next(&with_members(), |_| ());
    assert_eq!(code(roster.admit(newcomer("north", 110))), "invalid");
    assert_eq!(code(roster.admit(newcomer("third", 101))), "invalid");
}

#[test]
fn an_identity_key_rotates_and_the_former_one_is_remembered() {
    let mut chain = with_members();
    refused_as(&mut chain, "invalid", |r| {
        r.members[0].identity = identity(111);
    });
    let rotated = change(&mut chain, |r| {
        r.rotate_identity(number(1), identity(111)).unwrap();
    });
    assert_eq!(rotated, Ok(Accepted::New));
    let north = chain.roster().member(number(1)).unwrap();
    assert_eq!(north.identity, identity(111));
    assert_eq!(north.former_identities, [identity(101)]);
    refused_as(&mut chain, "invalid", |r| {
        r.members[0].former_identities.clear();
    });
    refused_as(&mut chain, "invalid", |r| {
        r.rotate_identity(number(1), identity(101)).unwrap();
    });
}

#[test]
fn a_life_outside_30_to_400_days_is_refused() {
    for days in [0, 29, 401] {
        refused_as(&mut founded(), "invalid", |r| {
            r.expires = r.issued.plus(days * DAY_MS);
        });
    }
    refused_as(&mut founded(), "invalid", |r| r.expires = UnixMillis(0));
}

#[test]
fn a_roster_from_the_future_is_refused_until_its_time() {
    let mut chain = founded();
    let later = NOW.plus(10 * DAY_MS);
    let roster = Roster::after(chain.current(), chain.genesis(), later, LIFE);
    let envelope = signed(&roster, &[1, 2]);
    assert_eq!(code(chain.accept(envelope.clone(), NOW)), "from_the_future");
    assert_eq!(chain.version(), 1);
    assert_eq!(chain.accept(envelope, later), Ok(Accepted::New));
}

#[test]
fn unknown_enum_values_are_refused() {
    let chain = with_members();
    let mut message = wire::Roster::from(chain.roster());
    for status in [0, 4, 99, -1] {
        message.members[0].status = status;
        assert!(Roster::read(&message.encode_to_vec().into()).is_err());
    }
    message.members[0].status = wire::MemberStatus::Active.into();
    for roles in [vec![0], vec![5], vec![1, 1], vec![2, 1]] {
        message.members[0].roles = roles;
        assert!(Roster::read(&message.encode_to_vec().into()).is_err());
    }
}

#[test]
fn the_coalitions_name_never_changes() {
    refused_as(&mut founded(), "invalid", |r| {
        r.coalition = CoalitionName::parse("other.example").unwrap();
    });
}

#[test]
fn groups_name_members_once_each() {
    let group = |members: &[u32]| Group {
        name: slug("hotlines"),
        members: members.iter().map(|n| number(*n)).collect(),
    };
    refused_as(&mut with_members(), "invalid", |r| {
        r.groups = vec![group(&[9])];
    });
    refused_as(&mut with_members(), "invalid", |r| {
        r.groups = vec![group(&[1, 1])];
    });
    refused_as(&mut with_members(), "invalid", |r| {
        r.groups = vec![group(&[1]), group(&[2])];
    });
    let fine = change(&mut with_members(), |r| r.groups = vec![group(&[1, 2])]);
    assert_eq!(fine, Ok(Accepted::New));
}

fn revocation(epoch: u32, size: u64) -> Revocation {
    Revocation {
        feed: FeedId(Digest::of(b"feed")),
        key: SecretKey::from_seed(&[50; 32]).public(),
        last_good_size: size,
        last_good_root: Digest::of(b"root"),
        next_epoch: epoch,
    }
}

#[test]
fn a_revocation_never_goes_away_and_epochs_follow_one_another() {
    let mut chain = with_members();
    let added = change(&mut chain, |r| r.revocations.push(revocation(1, 10)));
    assert_eq!(added, Ok(Accepted::New));
    refused_as(&mut chain, "invalid", |r| r.revocations.clear());
    refused_as(&mut chain, "invalid", |r| {
        r.revocations[0].last_good_size = 11;
    });
    refused_as(&mut chain, "invalid", |r| {
        r.revocations.push(revocation(1, 12));
    });
    refused_as(&mut chain, "invalid", |r| {
        r.revocations.push(revocation(3, 12));
    });
    refused_as(&mut chain, "invalid", |r| {
        r.revocations.push(revocation(2, 9));
    });
    let roster = chain.roster();
    let (feed, key) = (revocation(1, 10).feed, revocation(1, 10).key);
    assert!(!roster.is_revoked(feed, &key, 0));
    assert!(roster.is_revoked(feed, &key, 1));
    assert!(!roster.is_revoked(FeedId(Digest::of(b"other")), &key, 1));
}

#[test]
fn a_witness_threshold_needs_that_many_witnesses() {
    refused_as(&mut with_members(), "invalid", |r| r.witness_threshold = 1);
    let one = change(&mut with_members(), |r| {
        r.members[0].roles.push(Role::Witness);
        r.witness_threshold = 1;
    });
    assert_eq!(one, Ok(Accepted::New));
}

#[test]
fn two_approved_rosters_of_one_version_leave_evidence_and_the_first_stays() {
    let mut chain = founded();
    let other = next(&chain, |r| {
        r.admit(newcomer("evil", 120)).unwrap();
    });
    change(&mut chain, |r| {
        r.admit(newcomer("north", 101)).unwrap();
    })
    .unwrap();
    let first = chain.current().digest();
    let other = signed(&other, &[1, 2]);
    for _ in 0..2 {
        assert_eq!(
            chain.accept(other.clone(), NOW),
            Err(Rejection::Equivocation {
                what: "roster",
                version: 2
            })
        );
    }
    assert_eq!(chain.current().digest(), first);
    let [evidence] = chain.evidence() else {
        panic!("one piece of evidence")
    };
    assert_eq!(evidence.version, 2);
    assert_eq!(evidence.held.payload_digest(), first);
    assert_eq!(evidence.other, other);
}

#[test]
fn an_unapproved_second_roster_is_no_evidence() {
    let mut chain = founded();
    let other = next(&chain, |r| {
        r.admit(newcomer("evil", 120)).unwrap();
    });
    change(&mut chain, |_| ()).unwrap();
    assert_eq!(
        code(chain.accept(signed(&other, &[1, 9]), NOW)),
        "threshold_not_met"
    );
    assert!(chain.evidence().is_empty());
}

#[test]
fn more_signatures_make_it_the_same_roster() {
    let mut chain = founded();
    let roster = next(&chain, |_| ());
    let two = signed(&roster, &[1, 2]);
    let three = signed(&roster, &[1, 2, 3]);
    assert_eq!(chain.accept(two.clone(), NOW), Ok(Accepted::New));
    assert_eq!(chain.accept(two.clone(), NOW), Ok(Accepted::Known));
    assert_eq!(
        chain.accept(three.clone(), NOW),
        Ok(Accepted::MoreSignatures { version: 2 })
    );
    assert_eq!(chain.current().as_bytes(), three.as_bytes());
    assert_eq!(chain.accept(two, NOW), Ok(Accepted::Known));
    let stranger = signed(&roster, &[1, 2, 8, 9]);
    assert_eq!(chain.accept(stranger, NOW), Ok(Accepted::Known));
    assert_eq!(chain.current().as_bytes(), three.as_bytes());
    assert!(chain.evidence().is_empty());
    change(&mut chain, |_| ()).unwrap();
}

#[test]
fn a_stored_chain_comes_back_even_with_the_clock_set_back() {
    let chain = with_members();
    let stored = chain.from_version(1).map(|v| v.envelope().clone());
    let again = RosterChain::restore(stored, &chain.genesis()).unwrap();
    assert_eq!(again.current(), chain.current());
    let gap = [chain.current().envelope().clone()];
    assert!(RosterChain::restore(gap, &chain.genesis()).is_err());
    assert_eq!(chain.from_version(2).count(), 1);
    assert_eq!(chain.from_version(0).count(), 2);
}

#[test]
fn an_expired_roster_alarms_and_after_its_grace_takes_no_publish_leaves() {
    let chain = founded();
    let expiry = chain.roster().expires;
    let at = |days: u64| chain.state(expiry.plus(days * DAY_MS + 1));
    assert_eq!(chain.state(expiry), RosterState::Fresh);
    assert_eq!(at(0), RosterState::Grace);
    assert_eq!(at(13), RosterState::Grace);
    assert_eq!(at(14), RosterState::Stale);
    for state in [RosterState::Grace, RosterState::Stale] {
        assert!(state.alarms());
    }
    assert!(RosterState::Grace.takes_publish_leaves());
    assert!(!RosterState::Stale.takes_publish_leaves());
    assert_eq!(code(chain.require_fresh(expiry.plus(1))), "expired");
}

#[test]
fn a_removed_member_stays_listed_and_may_come_back() {
    let mut chain = with_members();
    let status = |chain: &mut RosterChain, status| {
        change(chain, |r| r.set_status(number(1), status).unwrap()).unwrap();
    };
    status(&mut chain, MemberStatus::Removed);
    status(&mut chain, MemberStatus::Removed);
    assert_eq!(chain.removed_in(number(1)), Some(3));
    assert_eq!(chain.removed_in(number(2)), None);
    status(&mut chain, MemberStatus::Active);
    assert_eq!(chain.removed_in(number(1)), None);
}

#[test]
fn names_that_deceive_in_a_terminal_are_refused() {
    refused_as(&mut with_members(), "invalid", |r| {
        r.members[0].display_name = "\u{1b}[2Jnorth".to_owned();
    });
}

#[test]
fn a_draft_is_checked_in_everything_but_its_signatures() {
    let chain = with_members();
    let draft = |roster: &Roster| roster.to_envelope().unwrap().finish().unwrap();
    let checked = |roster: &Roster| code(chain.check_draft(&draft(roster)));
    let fine = next(&chain, |r| {
        r.set_status(number(1), MemberStatus::Removed).unwrap();
    });
    assert_eq!(chain.check_draft(&draft(&fine)), Ok(fine));
    assert_eq!(checked(&next(&chain, |r| r.version += 1)), "version_gap");
    let other = next(&chain, |r| r.previous = Some(Digest::of(b"x")));
    assert_eq!(checked(&other), "wrong_predecessor");
    let elsewhere = next(&chain, |r| r.genesis = Some(Digest::of(b"x")));
    assert_eq!(checked(&elsewhere), "wrong_genesis");
    assert_eq!(
        checked(&next(&chain, |r| drop(r.members.remove(0)))),
        "invalid"
    );
}

#[test]
fn drafts_change_groups_administrators_and_epochs() {
    let chain = with_members();
    let mut roster = next(&chain, |_| ());
    roster.group_add(&slug("lines"), &[number(2), number(1)]);
    roster.group_add(&slug("lines"), &[number(1)]);
    assert_eq!(
        roster.group(&slug("lines")).unwrap().members,
        [number(1), number(2)]
    );
    assert!(roster.group_remove(&slug("lines"), &[number(3)]).is_err());
    roster.group_remove(&slug("lines"), &[number(1)]).unwrap();
    assert_eq!(roster.group(&slug("lines")).unwrap().members, [number(2)]);
    roster.group_remove(&slug("lines"), &[]).unwrap();
    assert!(roster.group_remove(&slug("lines"), &[]).is_err());
    // Two of three stay; of one, one decides; a second brings the threshold to 2.
    roster.remove_admin(&admin(3).public()).unwrap();
    roster.remove_admin(&admin(2).public()).unwrap();
    assert_eq!((roster.admins.len(), roster.threshold), (1, 1));
    assert!(roster.remove_admin(&admin(2).public()).is_err());
    roster.add_admin(admins(&[4]).remove(0));
    assert_eq!((roster.admins.len(), roster.threshold), (2, 2));
    let leaked = revocation(1, 10);
    for epoch in 1..=2 {
        let (feed, key, root) = (leaked.feed, leaked.key, leaked.last_good_root);
        assert_eq!(roster.revoke_feed_key(feed, key, 10, root), epoch);
    }
    assert!(roster.to_envelope().is_ok());
}

#[test]
fn a_draft_that_nobody_would_accept_cannot_be_encoded() {
    let roster = next(&founded(), |r| r.threshold = 1);
    assert!(roster.to_envelope().is_err());
    assert!(next(&founded(), |_| ()).to_envelope().is_ok());
}

#[test]
fn no_flipped_bit_of_an_approved_roster_is_accepted() {
    let chain = founded();
    let envelope = signed(&next(&chain, |_| ()), &[1, 2]);
    for at in 0..envelope.as_bytes().len() {
        let mut bytes = envelope.as_bytes().to_vec();
        bytes[at] ^= 1 << (at % 8);
        let Ok(changed) = Envelope::decode(bytes.into(), PayloadType::Roster) else {
            continue;
        };
        assert!(chain.clone().accept(changed, NOW).is_err(), "byte {at}");
    }
}
