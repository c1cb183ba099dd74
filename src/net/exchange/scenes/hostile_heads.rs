//! Heads: forged, of somebody else, going back, and forked.

use hashpact_core::card::SetScope;
use hashpact_core::checkpoint::{Checkpoint, Origin};
use hashpact_core::evidence::ForkEvidence;
use hashpact_store::FeedStatus;

use super::hostile::*;
use super::*;

const ENTRIES: u64 = 400;

/// A note by an origin of another sort.
fn by_origin(feed: FeedId, change: impl FnOnce(&mut Origin)) -> Vec<u8> {
    let mut origin = Origin {
        coalition: coalition_name(),
        feed,
        epoch: 0,
    };
    change(&mut origin);
    let root = Digest::of(b"a root");
    let size = 20;
    checkpoint::sign(&Checkpoint { origin, size, root }, &feed_key(NORTH))
}

/// The text of one note with the signature of another.
fn mixed(feed: FeedId) -> Vec<u8> {
    let root = Digest::of(b"a root");
    let halves = |size| {
        let note = String::from_utf8(note(feed, NORTH, size, root)).unwrap();
        let (text, signature) = note.split_once("\n\n").unwrap();
        (text.to_owned(), signature.to_owned())
    };
    format!("{}\n\n{}", halves(20).0, halves(21).1).into_bytes()
}

/// Heads of a feed of NORTH that are none.
fn forged(feed: FeedId) -> Vec<(&'static str, Announcement, &'static str)> {
    let root = Digest::of(b"a root");
    let good = || note(feed, NORTH, 20, root);
    let other_coalition = by_origin(feed, |origin| {
        origin.coalition = CoalitionName::parse("other.example").unwrap();
    });
    let other_feed = by_origin(feed, |origin| origin.feed = FeedId(Digest::of(b"other")));
    let unopened = by_origin(feed, |origin| origin.epoch = 1);
    let twice = [good(), b"\xe2\x80\x94 x AAAAAAAA\n".to_vec()].concat();
    let by = |note| told(feed, NORTH, note);
    vec![
        ("a changed text", by(mixed(feed)), "bad_signature"),
        (
            "a key that is not on the card",
            by(note(feed, 77, 20, root)),
            "bad_signature",
        ),
        (
            "another member's key",
            by(note(feed, WEST, 20, root)),
            "bad_signature",
        ),
        ("another coalition", by(other_coalition), "wrong_origin"),
        ("another feed", by(other_feed), "wrong_origin"),
        ("an unopened epoch", by(unopened), "wrong_epoch"),
        ("no note", by(b"nothing".to_vec()), "malformed"),
        ("a note cut short", by(good()[..80].to_vec()), "malformed"),
        ("two signatures", by(twice), "malformed"),
        ("a note over its limit", by(vec![b'a'; 5_000]), "too_large"),
        (
            "another publisher",
            told(feed, WEST, good()),
            "bad_signature",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_heads_are_refused_and_the_feed_comes_from_its_publisher() {
    let coalition = ticking();
    let honest = Hostile::start(&coalition, NORTH, Script::default()).await;
    let hostile = Hostile::start(&coalition, WEST, Script::default()).await;
    let feed = create_set(&honest.node, "set", &[("south", false)]);
    publish(&honest.node, "set", 0, 20);
    for (what, head, code) in forged(feed) {
        hostile.plays(Script {
            first: vec![head],
            ..Script::default()
        });
        let victim = Victim::start(&coalition).await;
        victim.meet(&coalition, &hostile);
        victim.refuses(what, &hostile, &[code]).await;
        assert!(victim.held(&feed).is_none(), "{what}");
        assert_eq!(hostile.pulls(), 0, "{what}");
        victim.meet(&coalition, &honest);
        until(what, || victim.applied(&feed) == 21).await;
        assert!(victim.refused(&honest).is_empty(), "{what}");
        victim.stop(&coalition).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_by_a_key_for_other_sets_is_refused_with_its_first_leaf() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 20);
    let hostile = Hostile::start(&coalition, NORTH, forged.script()).await;
    let victim = Victim::start(&coalition).await;
    let endpoint = Endpoint::parse(&hostile.address).unwrap();
    let scoped = coalition.card_with(NORTH, 2, |card| {
        card.nodes[0].endpoints = vec![endpoint];
        card.nodes[0].feed_keys[0].sets = SetScope::Only(vec![slug("another")]);
    });
    victim.node.membership().accept_card(scoped).unwrap();
    let codes = ["bad_signature"];
    victim.refuses("out of scope", &hostile, &codes).await;
    assert!(victim.held(&forged.feed).is_none());
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_of_a_member_that_may_not_publish_is_not_pulled() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, WITNESS, "set", 20);
    let hostile = Hostile::start(&coalition, WITNESS, forged.script()).await;
    let marker = Forged::new(&coalition, NORTH, "marker", 20);
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    // What is said next is heard next: by then the head was judged.
    let unsigned = told(marker.feed, NORTH, b"nothing".to_vec());
    until("it is watched", || {
        let peers = victim.node.exchange().unwrap().peers();
        peers.iter().any(|peer| peer.state == "connected")
    })
    .await;
    hostile.says(unsigned);
    victim.refuses("the marker", &hostile, &["malformed"]).await;
    assert_eq!(hostile.pulls(), 0);
    assert!(victim.held(&forged.feed).is_none());
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_goes_back_is_refused_and_changes_nothing() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", ENTRIES);
    let hostile = Hostile::start(&coalition, NORTH, forged.script()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    until("all is there", || victim.applied(&forged.feed) == ENTRIES).await;
    hostile.says(forged.head(30));
    let codes = ["head_went_back"];
    victim.refuses("going back", &hostile, &codes).await;
    let held = victim.held(&forged.feed).unwrap();
    assert_eq!((held.stored, held.status), (ENTRIES, FeedStatus::Active));
    assert_eq!(victim.answers(ENTRIES - 1), 1);
    victim.stop(&coalition).await;
}

/// The same feed with another leaf in it.
pub(super) fn forked(forged: &Forged, at: usize, size: u64) -> Forged {
    let mut fork = forged.clone();
    let more = fork.size()..size;
    fork.leaves.extend(more.map(publish_leaf));
    fork.leaves[at] = publish_leaf(1_000_000);
    fork
}

/// A victim that has a feed, and a publisher about to fork it.
struct Held {
    coalition: Coalition,
    forged: Forged,
    hostile: Hostile,
    victim: Victim,
}

impl Held {
    async fn new() -> Self {
        let coalition = ticking();
        let forged = Forged::new(&coalition, NORTH, "set", ENTRIES);
        let hostile = Hostile::start(&coalition, NORTH, forged.script()).await;
        let victim = Victim::start(&coalition).await;
        victim.meet(&coalition, &hostile);
        until("all is there", || victim.applied(&forged.feed) == ENTRIES).await;
        Self {
            coalition,
            forged,
            hostile,
            victim,
        }
    }

    /// The feed is frozen as it was, and there is proof that anybody can check.
    async fn expect_frozen_with_proof(self) {
        let Self {
            victim,
            forged,
            coalition,
            ..
        } = self;
        until("there is a proof", || {
            !victim.node.store().evidence().unwrap().is_empty()
        })
        .await;
        let evidence = victim.node.store().evidence().unwrap();
        let evidence = ForkEvidence::decode(&evidence[0]).unwrap();
        let keys = |_| vec![feed_key(NORTH).public()];
        let proof = evidence.verify(&coalition_name(), keys, |_| None);
        assert!(proof.is_ok(), "{:?}", proof.err());
        let held = victim.held(&forged.feed).unwrap();
        assert_eq!((held.stored, held.status), (ENTRIES, FeedStatus::Frozen));
        assert_eq!(victim.applied(&forged.feed), ENTRIES);
        assert_eq!(victim.answers(1), 1, "what was verified still answers");
        assert_eq!(victim.answers(1_000_000), 0, "the other fork does not");
        let view = victim.node.exchange().unwrap().feed(&forged.feed);
        until("it is shown", || {
            let now = victim.node.exchange().unwrap().feed(&forged.feed);
            now.is_some_and(|row| row.state == "frozen")
        })
        .await;
        assert!(view.is_some());
        victim.stop(&coalition).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_roots_at_one_size_freeze_the_feed_with_a_proof() {
    let held = Held::new().await;
    let fork = forked(&held.forged, 200, ENTRIES);
    held.hostile.says(fork.head(ENTRIES));
    let what = "two roots";
    held.victim
        .refuses(what, &held.hostile, &["two_roots"])
        .await;
    held.expect_frozen_with_proof().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fork_is_proved_once_in_however_many_ways_it_is_told() {
    let held = Held::new().await;
    let (victim, hostile) = (&held.victim, &held.hostile);
    let fork = forked(&held.forged, 200, ENTRIES);
    hostile.says(fork.head(ENTRIES));
    let kept = || victim.node.store().evidence().unwrap();
    until("there is a proof", || !kept().is_empty()).await;
    let mut evidence = ForkEvidence::decode(&kept()[0]).unwrap();
    for n in 0..20_u8 {
        evidence.node_cards = vec![Bytes::from(vec![n; 1_000])];
        hostile.says(Announcement::Evidence(evidence.encode().into()));
    }
    hostile.says(told(held.forged.feed, NORTH, b"nothing".to_vec()));
    until("all was heard", || {
        victim.refused(hostile).contains("malformed")
    })
    .await;
    assert_eq!(kept().len(), 1);
    held.expect_frozen_with_proof().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_head_of_another_fork_freezes_the_feed_with_a_proof() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", ENTRIES);
    let hostile = Hostile::start(&coalition, NORTH, forged.script()).await;
    let relay = Hostile::start(&coalition, WEST, Script::default()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    until("all is there", || victim.applied(&forged.feed) == ENTRIES).await;
    let fork = forked(&forged, 100, ENTRIES);
    relay.plays(Script {
        first: vec![fork.head(300)],
        ..Script::default()
    });
    victim.meet(&coalition, &relay);
    let held = Held {
        coalition,
        forged,
        hostile,
        victim,
    };
    held.expect_frozen_with_proof().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_of_a_larger_fork_freeze_the_feed_with_a_proof() {
    let held = Held::new().await;
    let fork = forked(&held.forged, 200, ENTRIES + 300);
    held.hostile.plays(fork.script());
    held.hostile.says(fork.head(ENTRIES + 300));
    held.expect_frozen_with_proof().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_of_another_fork_out_of_order_never_get_into_the_feed() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 40_000);
    let hostile = Hostile::start(&coalition, NORTH, forged.script()).await;
    // The relay has the same head, and leaves of another fork for it.
    let relay = Hostile::start(&coalition, WEST, Script::default()).await;
    let fork = forked(&forged, 30_000, 40_000);
    relay.plays(Script {
        first: vec![forged.head(40_000)],
        give: Some(fork.give()),
        ..Script::default()
    });
    let victim = Victim::start_with(&coalition, |options| {
        options.pull.job_bytes = 256 * 1024;
    })
    .await;
    victim.meet(&coalition, &relay);
    victim.meet(&coalition, &hostile);
    until("all is there", || victim.applied(&forged.feed) == 40_000).await;
    assert!(victim.refused(&hostile).is_empty());
    assert_eq!((victim.answers(30_000), victim.answers(1_000_000)), (1, 0));
    let status = victim.held(&forged.feed).unwrap().status;
    assert_eq!(status, FeedStatus::Active, "the publisher forked nothing");
    victim.stop(&coalition).await;
}
