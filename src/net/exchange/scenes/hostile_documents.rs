//! Rosters, cards, suspensions and evidence that are forged, old or forked.

use hashpact_core::limits::{CARD_MAX_BYTES, DAY_MS, EVIDENCE_MAX_BYTES};

use super::hostile::*;
use super::*;
use crate::types::RosterItem;

/// A next roster by `change`, signed by `by`.
fn roster(node: &Node, by: &SecretKey<Admin>, change: impl FnOnce(&mut Roster)) -> Bytes {
    let chain = node.membership().roster().unwrap();
    let now = node.clock().now();
    let mut roster = Roster::after(chain.current(), chain.genesis(), now, 365 * DAY_MS);
    change(&mut roster);
    let mut draft = roster.to_envelope().unwrap();
    draft.sign(by);
    draft.finish().unwrap().as_bytes().clone()
}

fn suspension(node: &Node, by: &SecretKey<Admin>) -> Bytes {
    let chain = node.membership().roster().unwrap();
    let suspension = Suspension {
        genesis: chain.genesis(),
        roster_version: chain.version(),
        member: number(NORTH),
        issued: node.clock().now(),
        expires: node.clock().now().plus(DAY_MS),
        reason: "none".to_owned(),
        admin: by.public(),
    };
    let mut draft = suspension.to_envelope().unwrap();
    draft.sign(by);
    draft.finish().unwrap().as_bytes().clone()
}

fn stranger() -> SecretKey<Admin> {
    SecretKey::from_seed(&[99; 32])
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bytes.into()
}

/// Cards of WEST that are none.
fn cards(coalition: &Coalition) -> Vec<(&'static str, Bytes, &'static [&'static str])> {
    let expired = coalition.card_with(WEST, 3, |card| {
        card.issued = UnixMillis(NOW.0 - 30 * DAY_MS);
        card.expires = UnixMillis(NOW.0 - DAY_MS);
    });
    let forked = coalition.card_with(WEST, 1, |card| {
        "somebody else".clone_into(&mut card.contact.name);
    });
    let elsewhere = coalition.card_with(WEST, 3, |card| {
        card.genesis = Digest::of(b"another coalition");
    });
    let future = coalition.card_with(WEST, 3, |card| {
        card.issued = NOW.plus(DAY_MS);
    });
    let thief = coalition.card_with(WEST, 3, |card| {
        card.member = Some(number(NORTH));
        card.slug = slug("north");
    });
    let good = coalition.card(WEST, 3, Vec::new());
    vec![
        ("an expired card", expired, &["expired"]),
        ("a forked card", forked, &["equivocation"]),
        ("another coalition's card", elsewhere, &["wrong_genesis"]),
        ("a card of tomorrow", future, &["from_the_future"]),
        (
            "a card of another member",
            thief,
            &["bad_signature", "unknown", "invalid"],
        ),
        (
            "a card with a changed byte",
            flipped(&good),
            &["bad_signature", "malformed", "invalid"],
        ),
        (
            "a card cut short",
            good.slice(..good.len() / 2),
            &["malformed"],
        ),
        (
            "a card over its limit",
            vec![0; CARD_MAX_BYTES + 1].into(),
            &["too_large"],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_that_are_none_are_refused_and_the_one_held_stays() {
    let coalition = ticking();
    let hostile = Hostile::start(&coalition, WEST, Script::default()).await;
    for (what, card, codes) in cards(&coalition) {
        hostile.plays(Script {
            first: vec![Announcement::NodeCard(card)],
            ..Script::default()
        });
        let victim = Victim::start(&coalition).await;
        victim.meet(&coalition, &hostile);
        let before = newest(&victim, WEST);
        victim.refuses(what, &hostile, codes).await;
        assert_eq!(newest(&victim, WEST), before, "{what}");
        victim.stop(&coalition).await;
    }
}

fn newest(victim: &Victim, member: u32) -> u64 {
    let state = victim.node.membership().state();
    let card = state.cards.newest(number(member)).unwrap();
    card.card().version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_card_is_no_fault_and_changes_nothing() {
    let coalition = ticking();
    let older = coalition.card(NORTH, 2, Vec::new());
    let no_evidence = Announcement::Evidence(Bytes::from_static(b"nothing"));
    let hostile = Hostile::start(&coalition, WEST, Script::default()).await;
    hostile.plays(Script {
        first: vec![Announcement::NodeCard(older), no_evidence],
        ..Script::default()
    });
    let victim = Victim::start(&coalition).await;
    let card = coalition.card(NORTH, 3, Vec::new());
    victim.node.membership().accept_card(card).unwrap();
    victim.meet(&coalition, &hostile);
    // What came after the card was judged, so the card was.
    let codes = ["malformed"];
    victim.refuses("evidence", &hostile, &codes).await;
    assert_eq!(newest(&victim, NORTH), 3);
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspensions_and_evidence_that_are_none_are_refused() {
    let coalition = ticking();
    let hostile = Hostile::start(&coalition, WEST, Script::default()).await;
    let good = suspension(&hostile.node, &admin());
    let too_much = Bytes::from(vec![0; EVIDENCE_MAX_BYTES + 1]);
    let cases: [(_, _, &[&str]); 5] = [
        (
            "a stranger's suspension",
            Announcement::Suspension(suspension(&hostile.node, &stranger())),
            &["bad_signature", "unknown", "threshold_not_met"],
        ),
        (
            "a suspension with a changed byte",
            Announcement::Suspension(flipped(&good)),
            &["bad_signature", "malformed", "invalid", "threshold_not_met"],
        ),
        (
            "a suspension cut short",
            Announcement::Suspension(good.slice(..good.len() / 2)),
            &["malformed"],
        ),
        (
            "no evidence",
            Announcement::Evidence(Bytes::from_static(b"nothing")),
            &["malformed"],
        ),
        (
            "evidence over its limit",
            Announcement::Evidence(too_much),
            &["too_large"],
        ),
    ];
    for (what, said, codes) in cases {
        hostile.plays(Script {
            first: vec![said],
            ..Script::default()
        });
        let victim = Victim::start(&coalition).await;
        victim.meet(&coalition, &hostile);
        victim.refuses(what, &hostile, codes).await;
        let snapshot = victim.node.membership().snapshot().unwrap();
        assert!(snapshot.may_connect(number(NORTH)), "{what}");
        assert!(victim.node.store().suspensions().unwrap().is_empty());
        assert!(victim.node.store().evidence().unwrap().is_empty());
        victim.stop(&coalition).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rosters_that_are_none_are_refused_and_the_one_held_stays() {
    let coalition = ticking();
    let hostile = Hostile::start(&coalition, WEST, Script::default()).await;
    let out = |roster: &mut Roster| {
        roster
            .set_status(number(NORTH), MemberStatus::Removed)
            .unwrap();
    };
    let node = &hostile.node;
    let unsigned = roster(node, &stranger(), out);
    let gap = roster(node, &admin(), |roster| roster.version = 9);
    let forked = roster(node, &admin(), |roster| {
        roster.version = 2;
        roster.previous = Some(coalition.genesis);
        out(roster);
    });
    let elsewhere = roster(node, &admin(), |roster| {
        roster.genesis = Some(Digest::of(b"another coalition"));
    });
    let other_past = roster(node, &admin(), |roster| {
        roster.previous = Some(Digest::of(b"another roster"));
    });
    let cases: [(_, u64, _, &[&str]); 6] = [
        ("no administrator's", 3, unsigned, &["threshold_not_met"]),
        ("a version too far", 9, gap, &["version_gap"]),
        ("a forked one", 2, forked, &["equivocation"]),
        ("another coalition's", 3, elsewhere, &["wrong_genesis"]),
        (
            "one with another past",
            3,
            other_past,
            &["wrong_predecessor"],
        ),
        (
            "one that is none",
            3,
            Bytes::from_static(b"roster"),
            &["malformed"],
        ),
    ];
    for (what, version, document, codes) in cases {
        let digest = Digest::of(&document);
        hostile.plays(Script {
            first: vec![Announcement::Roster {
                version,
                digest,
                cosignatures: Vec::new(),
            }],
            papers: vec![RosterItem::Roster(document)],
            ..Script::default()
        });
        let victim = Victim::start(&coalition).await;
        victim.meet(&coalition, &hostile);
        victim.refuses(what, &hostile, codes).await;
        let chain = victim.node.membership().roster().unwrap();
        assert_eq!(chain.version(), 2, "{what}");
        let north = victim.node.membership().member(number(NORTH)).unwrap();
        assert_eq!(north.status, MemberStatus::Active, "{what}");
        victim.stop(&coalition).await;
    }
}
