//! What rosters, cards, requests and suspensions are refused for, and the test of each.
//!
//! | refused | code | test |
//! |---|---|---|
//! | threshold not met | `threshold_not_met` | `roster::tests::a_roster_that_one_administrator_signed_is_refused` |
//! | the genesis without its threshold | `threshold_not_met` | `roster::tests::the_genesis_itself_needs_its_threshold` |
//! | one key signing twice | `threshold_not_met` | `one_key_that_signs_twice_approves_once`, below |
//! | one key under two ids | `invalid` | `roster::tests::one_administrator_under_two_names_is_refused` |
//! | a version skipped or repeated | `version_gap`, `wrong_predecessor` | `roster::tests::a_version_that_is_skipped_or_repeated_is_refused` |
//! | another predecessor, another genesis | `wrong_predecessor`, `wrong_genesis` | `roster::tests::another_predecessor_or_genesis_is_refused` |
//! | expired | `expired` | `roster::tests::an_expired_roster_alarms_and_after_its_grace_takes_no_publish_leaves`, `card::tests::a_card_outside_its_time_is_refused`, `what_has_expired_begins_nothing`, below |
//! | a key in two places | `invalid` | `roster::tests::a_key_in_two_places_is_refused`, `a_key_that_was_somebody_elses_before_is_refused`, `card::tests::a_key_that_two_members_claim_is_refused`, `a_key_of_the_roster_on_a_card_is_refused` |
//! | a slug used before | `invalid` | `roster::tests::slugs_and_numbers_are_never_used_again`, `a_slug_of_a_removed_member_is_nobody_elses`, below |
//! | k lowered with only the new keys | `threshold_not_met` | `roster::tests::a_threshold_lowered_with_only_the_new_keys_is_refused`, `new_administrators_must_agree_too` |
//! | a proof of possession that fails | `bad_signature` | `card::tests::every_key_on_a_card_must_prove_possession`, `a_request_without_a_proof_of_each_key_is_refused`, below |
//! | somebody else's key in a request | `invalid`, `bad_signature` | `access::tests::a_request_with_somebody_elses_key_or_slug_is_refused`, `a_new_identity_key_is_nobodys_and_of_a_member`, below |
//! | the same administrator again, two members at once | `invalid` | `access::tests::one_administrator_suspends_one_member_at_a_time_once_per_roster` |
//! | two rosters of one version stay on the first | `equivocation` | `roster::tests::two_approved_rosters_of_one_version_leave_evidence_and_the_first_stays` |
//! | two envelopes of one payload are one roster | | `roster::tests::more_signatures_make_it_the_same_roster` |
//! | a card that goes back | `version_gap` | `card::tests::a_card_that_goes_back_is_refused_and_gaps_are_allowed` |
//! | an endpoint on loopback, link-local or metadata addresses | `invalid` | `card::endpoint::tests::endpoints_on_loopback_link_local_or_metadata_are_refused_unless_allowed`, `card::tests::a_local_endpoint_is_refused_unless_allowed` |
//! | a chain that takes another's place and changes members | `wrong_genesis`, `invalid` | `roster::succeed::tests::a_chain_that_changes_what_feeds_hang_on_takes_nobodys_place` |
//!
//! Commands refuse the same before anything is written: `cli::coalition::scenes`.

use prost::Message as _;

use crate::card::CardBook;
use crate::card::tests::{Keys, card, signed as signed_card};
use crate::enrol::{EnrolmentRequest, VerifiedRequest};
use crate::envelope::{Envelope, PayloadType};
use crate::keys::{Identity, SecretKey};
use crate::limits::{CLOCK_SKEW_MS, DAY_MS};
use crate::reject::Rejection;
use crate::roster::tests::{
    NOW, admin, change, code, identity, next, number, signed, with_members,
};
use crate::roster::{MemberStatus, Role, RosterChain};
use crate::{id, wire};

/// A request of `who`, whose identity key has this seed, signed by these seeds; its card
/// has the keys of `on_card`, signed by those of `proofs`.
fn request(
    chain: &RosterChain,
    who: &str,
    seed: u8,
    signers: &[u8],
    (on_card, proofs): (&Keys, &[&Keys]),
) -> Envelope {
    let request = EnrolmentRequest {
        genesis: chain.genesis(),
        slug: id::Slug::parse(who).unwrap(),
        display_name: who.to_owned(),
        organisation_kind: String::new(),
        roles: vec![Role::Subscribe],
        identity: identity(seed),
        created: NOW,
        card: signed_card(&card(chain, who, 1, on_card), seed, proofs),
    };
    let mut draft = request.to_envelope().unwrap();
    for signer in signers {
        draft.sign(&SecretKey::<Identity>::from_seed(&[*signer; 32]));
    }
    draft.finish().unwrap()
}

fn verified(envelope: Envelope) -> Result<VerifiedRequest, Rejection> {
    VerifiedRequest::verify(envelope, NOW)
}

#[test]
fn one_key_that_signs_twice_approves_once() {
    let mut chain = with_members();
    let roster = next(&chain, |_| ());
    let envelope = signed(&roster, &[1]);
    // The same signature once more, and another one over another payload.
    let mut message = wire::Envelope::decode(envelope.as_bytes().clone()).unwrap();
    let mut again = message.signatures[0].clone();
    message.signatures.push(again.clone());
    again.signature = admin(1).sign(b"something else").to_vec().into();
    message.signatures.push(again);
    let envelope = Envelope::decode(message.encode_to_vec().into(), PayloadType::Roster).unwrap();
    assert_eq!(code(chain.accept(envelope, NOW)), "threshold_not_met");
}

#[test]
fn what_has_expired_begins_nothing() {
    let chain = with_members();
    let keys = Keys::of(31);
    let envelope = request(&chain, "studio", 105, &[105], (&keys, &[&keys]));
    let late = NOW.plus(90 * DAY_MS + CLOCK_SKEW_MS + 1);
    assert_eq!(code(VerifiedRequest::verify(envelope, late)), "expired");
    let end = chain.roster().expires;
    assert_eq!(chain.require_fresh(end), Ok(()));
    assert_eq!(code(chain.require_fresh(end.plus(1))), "expired");
}

#[test]
fn a_request_without_a_proof_of_each_key_is_refused() {
    let chain = with_members();
    let (mine, stolen) = (Keys::of(31), Keys::of(32));
    let none = request(&chain, "studio", 105, &[105], (&mine, &[]));
    assert_eq!(code(verified(none)), "bad_signature");
    // A card that names keys whose owner has not signed.
    let theirs = request(&chain, "studio", 105, &[105], (&stolen, &[&mine]));
    assert_eq!(code(verified(theirs)), "bad_signature");
    // A request that the identity key in it has not signed.
    let unsigned = request(&chain, "studio", 105, &[106], (&mine, &[&mine]));
    assert_eq!(code(verified(unsigned)), "bad_signature");
}

#[test]
fn a_slug_of_a_removed_member_is_nobody_elses() {
    let mut chain = with_members();
    let keys = Keys::of(31);
    change(&mut chain, |r| {
        r.set_status(number(1), MemberStatus::Removed).unwrap();
    })
    .unwrap();
    let book = CardBook::default();
    let other = request(&chain, "north", 105, &[105], (&keys, &[&keys]));
    assert_eq!(
        code(verified(other).unwrap().check_against(&chain, &book)),
        "invalid"
    );
    let back = request(&chain, "north", 101, &[101], (&keys, &[&keys]));
    assert_eq!(verified(back).unwrap().check_against(&chain, &book), Ok(()));
}

#[test]
fn a_new_identity_key_is_nobodys_and_of_a_member() {
    let mut chain = with_members();
    let (keys, book) = (Keys::of(31), CardBook::default());
    let rotation = |chain: &RosterChain, who: &str, seed: u8, signers: &[u8]| {
        let envelope = request(chain, who, seed, signers, (&keys, &[&keys]));
        verified(envelope).and_then(|request| request.check_rotation(chain, &book))
    };
    // With the old key, and without it.
    assert_eq!(rotation(&chain, "north", 111, &[111, 101]), Ok(true));
    assert_eq!(rotation(&chain, "north", 111, &[111]), Ok(false));
    // The signature of another member's key is none of the old key.
    assert_eq!(rotation(&chain, "north", 111, &[111, 102]), Ok(false));
    assert_eq!(code(rotation(&chain, "studio", 111, &[111])), "unknown");
    // South's key, an administrator's key.
    assert_eq!(code(rotation(&chain, "north", 102, &[102, 101])), "invalid");
    assert_eq!(code(rotation(&chain, "north", 3, &[3, 101])), "invalid");
    change(&mut chain, |r| {
        r.set_status(number(1), MemberStatus::Removed).unwrap();
    })
    .unwrap();
    assert_eq!(code(rotation(&chain, "north", 111, &[111, 101])), "unknown");
    let mut elsewhere = with_members();
    change(&mut elsewhere, |_| ()).unwrap();
    let envelope = request(&chain, "south", 111, &[111, 102], (&keys, &[&keys]));
    assert_eq!(
        verified(envelope)
            .unwrap()
            .check_rotation(&elsewhere, &book),
        Ok(true)
    );
}

/// All sources in a folder, one after the other.
fn sources(folder: &std::path::Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|end| end == "rs") {
            all += &std::fs::read_to_string(path).unwrap();
        }
    }
    all
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let all = sources(std::path::Path::new(env!("CARGO_MANIFEST_DIR")));
    let rows = include_str!("refusals.rs")
        .lines()
        .filter(|line| line.starts_with("//! | "));
    let mut named = 0;
    for row in rows.skip(1) {
        let tests = row.rsplit(" | ").next().unwrap();
        for name in tests.split('`').skip(1).step_by(2) {
            let test = name.rsplit("::").next().unwrap();
            assert!(
                all.contains(&format!("\nfn {test}()")) || all.contains(&format!(" fn {test}()")),
                "{name}"
            );
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}
