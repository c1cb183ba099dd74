//! Who may read, prove and relay what, and what suspensions and requests change.

use super::*;
use crate::card::{CardBook, CardState};
use crate::enrol::{EnrolmentRequest, VerifiedRequest};
use crate::envelope::Envelope;
use crate::id::{Digest, Slug};
use crate::keys::{Identity, SecretKey};
use crate::leaf::Source;
use crate::limits::DAY_MS;
use crate::roster::Group;
use crate::roster::tests::{
    NOW, admin, change, code, identity, newcomer, number, slug, with_members,
};
use crate::suspension::{AcceptedSuspension, Suspension};

/// North (1) publishes, south (2) and east (3) subscribe, and west (4) witnesses.
fn chain() -> RosterChain {
    let mut chain = with_members();
    change(&mut chain, |r| {
        r.admit(newcomer("east", 103)).unwrap();
        let mut west = newcomer("west", 104);
        west.roles = vec![Role::Witness];
        r.admit(west).unwrap();
        r.groups = vec![Group {
            name: slug("lines"),
            members: vec![number(2)],
        }];
    })
    .unwrap();
    chain
}

fn terms(may_share: bool) -> Terms {
    Terms {
        source: Source::OwnWork,
        may_share,
        text: "for north only".to_owned(),
    }
}

fn grants(grantee: Grantee, relay: bool) -> Grants {
    Grants::new(&terms(true), vec![Grant { grantee, relay }]).unwrap()
}

fn snapshot(own: u32, chain: &RosterChain) -> Snapshot {
    let (book, nobody) = (SuspensionBook::default(), BTreeSet::new());
    Snapshot::new(number(own), chain, &book, &nobody, NOW)
}

fn reads(chain: &RosterChain, caller: u32, grants: &Grants) -> bool {
    snapshot(1, chain)
        .may_read(number(caller), number(1), Some(grants))
        .is_ok()
}

fn suspension(chain: &RosterChain, member: u32, by: u8) -> Suspension {
    Suspension {
        genesis: chain.genesis(),
        roster_version: chain.version(),
        member: number(member),
        issued: NOW,
        expires: NOW.plus(7 * DAY_MS),
        reason: "key lost".to_owned(),
        admin: admin(by).public(),
    }
}

fn by(suspension: &Suspension, seed: u8) -> Envelope {
    suspension
        .to_envelope()
        .unwrap()
        .sign(&admin(seed))
        .finish()
        .unwrap()
}

#[test]
fn nobody_reads_without_a_grant_and_the_answer_is_that_for_no_feed() {
    let snapshot = snapshot(1, &chain());
    let none = Grants::default();
    let ungranted = snapshot.may_read(number(2), number(1), Some(&none));
    let unknown = snapshot.may_read(number(2), number(1), None);
    assert_eq!(ungranted, Err(Rejection::NotFound));
    assert_eq!(ungranted, unknown);
    assert_eq!(snapshot.may_read(number(1), number(1), Some(&none)), Ok(()));
}

#[test]
fn grants_name_members_groups_or_all_subscribers() {
    let chain = chain();
    let who = |g: &Grants| {
        (2..=4)
            .filter(|c| reads(&chain, *c, g))
            .collect::<Vec<u32>>()
    };
    assert_eq!(who(&grants(Grantee::Member(number(3)), false)), [3]);
    assert_eq!(who(&grants(Grantee::Group(slug("lines")), false)), [2]);
    assert_eq!(
        who(&grants(Grantee::Group(slug("gone")), false)),
        [0_u32; 0]
    );
    assert_eq!(who(&grants(Grantee::All, false)), [2, 3]);
    assert_eq!(
        who(&grants(Grantee::Member(number(4)), false)),
        [0_u32; 0],
        "no subscriber"
    );
}

#[test]
fn a_grant_without_the_right_to_share_is_refused() {
    let all = vec![Grant {
        grantee: Grantee::All,
        relay: false,
    }];
    let refused = Grants::new(&terms(false), all);
    assert!(refused.unwrap_err().to_string().contains("for north only"));
    assert!(Grants::new(&terms(false), Vec::new()).is_ok());
}

#[test]
fn witnesses_get_proofs_and_no_leaves() {
    let snapshot = snapshot(1, &chain());
    let none = Grants::default();
    assert_eq!(
        snapshot.may_prove(number(4), number(1), Some(&none)),
        Ok(())
    );
    assert!(
        snapshot
            .may_read(number(4), number(1), Some(&none))
            .is_err()
    );
    assert!(snapshot.may_prove(number(4), number(1), None).is_err());
    assert!(
        snapshot
            .may_prove(number(2), number(1), Some(&none))
            .is_err()
    );
}

#[test]
fn a_relay_serves_only_with_leave_and_only_to_who_may_read() {
    let relay = snapshot(2, &chain());
    let serves = |to: u32, g: &Grants| relay.may_serve(number(to), number(1), Some(g)).is_ok();
    assert!(!serves(3, &grants(Grantee::All, false)));
    assert!(serves(3, &grants(Grantee::All, true)));
    assert!(!serves(3, &grants(Grantee::Member(number(2)), true)));
    assert!(
        serves(1, &grants(Grantee::All, false)),
        "its publisher reads it back"
    );
}

#[test]
fn whoever_is_suspended_removed_or_denied_reads_nothing_and_is_not_read() {
    let all = grants(Grantee::All, true);
    for status in [MemberStatus::Suspended, MemberStatus::Removed] {
        for (out, caller) in [(2, 2), (1, 2), (1, 1)] {
            let mut chain = chain();
            change(&mut chain, |r| r.set_status(number(out), status).unwrap()).unwrap();
            assert!(!reads(&chain, caller, &all), "{status} {out} {caller}");
        }
    }
    let (chain, book) = (chain(), SuspensionBook::default());
    let denied = BTreeSet::from([number(2)]);
    let snapshot = Snapshot::new(number(1), &chain, &book, &denied, NOW);
    assert!(!snapshot.may_connect(number(2)) && snapshot.may_connect(number(3)));
    assert!(snapshot.may_read(number(2), number(1), Some(&all)).is_err());
}

#[test]
fn any_key_on_a_known_card_may_fetch_the_roster() {
    let mut chain = chain();
    let owner = |member: u32, card| KeyOwner {
        member: number(member),
        node: slug("one"),
        card,
    };
    change(&mut chain, |r| {
        r.set_status(number(2), MemberStatus::Suspended).unwrap();
    })
    .unwrap();
    change(&mut chain, |r| {
        r.set_status(number(3), MemberStatus::Removed).unwrap();
    })
    .unwrap();
    change(&mut chain, |_| ()).unwrap();
    let snapshot = snapshot(1, &chain);
    let suspended = owner(2, CardState::Current);
    let removed = owner(3, CardState::Current);
    let expired = owner(1, CardState::Expired);
    for caller in [&suspended, &removed, &expired] {
        assert_eq!(snapshot.admission(caller), Admission::RosterOnly);
    }
    assert_eq!(snapshot.may_get_roster(&suspended), RosterReach::All);
    let reach = snapshot.may_get_roster(&removed);
    assert_eq!(
        reach,
        RosterReach::UpTo {
            version: 5,
            issued: NOW
        }
    );
    assert_eq!(
        snapshot.admission(&owner(1, CardState::Current)),
        Admission::Full
    );
}

#[test]
fn one_administrator_suspends_one_member_at_a_time_once_per_roster() {
    let (chain, mut book) = (chain(), SuspensionBook::default());
    let offer = |book: &mut SuspensionBook, s: &Suspension, seed: u8| {
        book.accept(by(s, seed), &chain, NOW.plus(1_000))
    };
    let first = suspension(&chain, 2, 1);
    assert_eq!(offer(&mut book, &first, 1), Ok(true));
    assert_eq!(offer(&mut book, &first, 1), Ok(false));
    let later = |mut s: Suspension| {
        s.issued = NOW.plus(500);
        s.expires = NOW.plus(6 * DAY_MS);
        s
    };
    assert_eq!(
        code(offer(&mut book, &later(first.clone()), 1)),
        "invalid",
        "again"
    );
    let two = later(suspension(&chain, 3, 1));
    assert_eq!(code(offer(&mut book, &two, 1)), "invalid", "two at once");
    let other = later(suspension(&chain, 3, 2));
    assert_eq!(offer(&mut book, &other, 2), Ok(true));
    assert_eq!(book.members(&chain, NOW).len(), 2);
    assert_eq!(
        book.members(&chain, NOW.plus(7 * DAY_MS)).len(),
        0,
        "it ends"
    );
}

/// One administrator's suspension of a member from and until so many hours after `NOW`.
fn hours(chain: &RosterChain, member: u32, admin: u8, (from, to): (i64, u64)) -> Suspension {
    const HOUR: u64 = DAY_MS / 24;
    let mut suspension = suspension(chain, member, admin);
    let back = UnixMillis(NOW.0 - from.min(0).unsigned_abs() * HOUR);
    suspension.issued = back.plus(u64::try_from(from).unwrap_or(0) * HOUR);
    suspension.expires = NOW.plus(to * HOUR);
    suspension
}

/// Offers all in every order, three times each, and answers what is in force then.
fn in_every_order(chain: &RosterChain, all: &[(Suspension, u8)], now: UnixMillis) -> Vec<Digest> {
    let mut orders = vec![Vec::new()];
    for _ in all {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<usize>| {
                let rest = (0..all.len()).filter(|at| !order.contains(at));
                rest.map(|at| [order.clone(), vec![at]].concat())
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    let mut outcomes = BTreeSet::new();
    for order in orders {
        let mut book = SuspensionBook::default();
        for at in order.repeat(3) {
            let _ = book.accept(by(&all[at].0, all[at].1), chain, now);
        }
        let held: BTreeSet<_> = book
            .in_force(chain, now)
            .map(AcceptedSuspension::digest)
            .collect();
        outcomes.insert(held);
    }
    assert_eq!(outcomes.len(), 1, "the order matters");
    outcomes.pop_first().unwrap().into_iter().collect()
}

fn digest_of(suspension: &Suspension) -> Digest {
    let envelope = suspension.to_envelope().unwrap().finish().unwrap();
    envelope.payload_digest()
}

#[test]
fn no_administrator_ends_what_another_suspended() {
    let chain = chain();
    let emergency = hours(&chain, 2, 1, (0, 7 * 24));
    let now = NOW.plus(DAY_MS);
    // Made an hour before by its own word, and over in a moment.
    let rogue = hours(&chain, 2, 2, (0, 25));
    let held = in_every_order(&chain, &[(emergency.clone(), 1), (rogue, 2)], now);
    assert_eq!(held.len(), 2, "any that is in force suffices");
    let mut book = SuspensionBook::default();
    let early = hours(&chain, 2, 2, (0, 1));
    book.accept(by(&early, 2), &chain, NOW).unwrap();
    assert_eq!(book.accept(by(&emergency, 1), &chain, now), Ok(true));
    assert!(book.members(&chain, now).contains(&number(2)));
}

#[test]
fn a_second_word_of_one_administrator_does_not_end_the_first_before_its_time() {
    let chain = chain();
    let now = NOW.plus(24 * DAY_MS / 24);
    let first = hours(&chain, 2, 1, (10, 7 * 24));
    let back_dated = hours(&chain, 2, 1, (1, 25));
    let shorter = hours(&chain, 2, 1, (11, 30));
    let all = [(first.clone(), 1), (back_dated.clone(), 1), (shorter, 1)];
    let held = in_every_order(&chain, &all, now);
    assert!(held.contains(&digest_of(&first)));
    // Nor a word about another member.
    let elsewhere = hours(&chain, 3, 1, (1, 25));
    let held = in_every_order(&chain, &[(first.clone(), 1), (elsewhere, 1)], now);
    assert_eq!(held, [digest_of(&first)]);
}

#[test]
fn one_administrator_suspends_a_member_under_one_roster_once_and_not_week_after_week() {
    let (chain, mut book) = (chain(), SuspensionBook::default());
    let week = |no: u64| {
        let from = i64::try_from(no * 7 * 24).unwrap();
        hours(&chain, 2, 1, (from, (no + 1) * 7 * 24))
    };
    for (no, taken) in [(0, true), (1, true), (2, false), (3, false)] {
        let now = NOW.plus(no * 7 * DAY_MS);
        let offered = book.accept(by(&week(no), 1), &chain, now);
        assert_eq!(offered.is_ok(), taken, "week {no}");
    }
}

#[test]
fn a_suspension_from_before_its_roster_is_refused() {
    let chain = chain();
    let early = hours(&chain, 2, 1, (-1, 24));
    let offered = SuspensionBook::default().accept(by(&early, 1), &chain, NOW);
    assert_eq!(code(offered), "invalid");
}

#[test]
fn a_suspension_that_is_not_an_administrators_is_refused() {
    let chain = chain();
    let offer =
        |s: &Suspension, seed: u8| code(SuspensionBook::default().accept(by(s, seed), &chain, NOW));
    assert_eq!(offer(&suspension(&chain, 2, 1), 2), "bad_signature");
    assert_eq!(offer(&suspension(&chain, 2, 9), 9), "unknown");
    assert_eq!(offer(&suspension(&chain, 9, 1), 1), "unknown");
    let mut long = suspension(&chain, 2, 1);
    long.expires = NOW.plus(7 * DAY_MS + 1);
    assert!(long.to_envelope().is_err());
    let mut early = suspension(&chain, 2, 1);
    early.issued = NOW.plus(DAY_MS);
    assert_eq!(offer(&early, 1), "from_the_future");
    let mut elsewhere = suspension(&chain, 2, 1);
    elsewhere.genesis = Digest::of(b"x");
    assert_eq!(offer(&elsewhere, 1), "wrong_genesis");
}

#[test]
fn a_suspension_outlives_a_new_roster_unless_that_lifts_it() {
    let (mut chain, mut book) = (chain(), SuspensionBook::default());
    book.accept(by(&suspension(&chain, 2, 1), 1), &chain, NOW)
        .unwrap();
    change(&mut chain, |_| ()).unwrap();
    let out = |chain: &RosterChain| book.members(chain, NOW).contains(&number(2));
    assert!(out(&chain));
    let digest = book.all()[0].digest();
    change(&mut chain, |r| r.lifted_suspensions = vec![digest]).unwrap();
    assert!(!out(&chain));
    let snapshot = Snapshot::new(number(1), &chain, &book, &BTreeSet::new(), NOW);
    assert!(snapshot.may_connect(number(2)));
}

fn request(chain: &RosterChain, name: &str, signer: u8, card_signer: u8) -> Envelope {
    use crate::card::tests::{Keys, card, signed};
    let keys = Keys::of(21);
    let request = EnrolmentRequest {
        genesis: chain.genesis(),
        slug: Slug::parse(name).unwrap(),
        display_name: name.to_owned(),
        organisation_kind: String::new(),
        roles: vec![Role::Subscribe],
        identity: identity(105),
        created: NOW,
        card: signed(&card(chain, name, 1, &keys), card_signer, &[&keys]),
    };
    let key = SecretKey::<Identity>::from_seed(&[signer; 32]);
    request.to_envelope().unwrap().sign(&key).finish().unwrap()
}

#[test]
fn a_request_leads_to_a_member_whose_card_is_accepted() {
    let (mut chain, mut book) = (chain(), CardBook::default());
    let verified = VerifiedRequest::verify(request(&chain, "studio", 105, 105), NOW).unwrap();
    assert_eq!(verified.check_against(&chain, &book), Ok(()));
    assert_eq!(verified.fingerprint().len(), 16 * 5 - 1);
    change(&mut chain, |r| {
        r.admit(verified.new_member()).unwrap();
    })
    .unwrap();
    let card = verified.request().card.clone();
    assert!(book.accept(card, &chain, NOW).is_ok());
    assert_eq!(book.newest(number(5)).unwrap().member(), number(5));
}

#[test]
fn a_request_with_somebody_elses_key_or_slug_is_refused() {
    let chain = chain();
    let verify = |envelope| VerifiedRequest::verify(envelope, NOW);
    assert_eq!(
        code(verify(request(&chain, "studio", 106, 105))),
        "bad_signature"
    );
    assert_eq!(
        code(verify(request(&chain, "studio", 105, 106))),
        "bad_signature"
    );
    let taken = verify(request(&chain, "north", 105, 105)).unwrap();
    assert_eq!(
        code(taken.check_against(&chain, &CardBook::default())),
        "invalid"
    );
}

#[test]
fn more_than_one_reader_and_a_tenth_of_them_is_many() {
    let chain = chain();
    let snapshot = snapshot(1, &chain);
    let grant = |grantee| Grant {
        grantee,
        relay: false,
    };
    let terms = Terms {
        source: crate::leaf::Source::OwnWork,
        may_share: true,
        text: String::new(),
    };
    let of = |grants: Vec<Grantee>| {
        Grants::new(&terms, grants.into_iter().map(grant).collect()).unwrap()
    };
    let publisher = number(1);
    let reads = |grants: &Grants| {
        let members = (2..=20).map(number);
        members
            .filter(|m| snapshot.may_read(*m, publisher, Some(grants)).is_ok())
            .count()
    };
    let (all, nobody) = (of(vec![Grantee::All]), of(Vec::new()));
    assert!(reads(&all) >= 2, "{}", reads(&all));
    assert!(snapshot.ends_for_many(publisher, &all, &nobody));
    assert!(!snapshot.ends_for_many(publisher, &all, &all));
    let one = of(vec![Grantee::Member(number(2))]);
    assert_eq!(reads(&one), 1);
    assert!(!snapshot.ends_for_many(publisher, &one, &nobody), "one");
    assert!(
        !snapshot.ends_for_many(publisher, &nobody, &all),
        "none lost"
    );
}
