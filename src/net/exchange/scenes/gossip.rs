//! Readers that were shown different histories find out by talking to each other.

use hashpact_core::checkpoint::{Checkpoint, Origin};
use hashpact_core::evidence::ForkEvidence;
use hashpact_core::evidence_file::{EvidenceFile, ProvenEvidence};
use hashpact_node::Node;
use hashpact_node::evidence::EvidenceAbout;
use hashpact_store::FeedStatus;

use super::hostile::{
    Forged, Hostile, Script, Victim, coalition_name, describe, feed_key, note, ticking, until,
};
use super::hostile_heads::forked;
use super::*;
use crate::exchange::fork;

/// A set that two members may read and none may relay.
fn unrelayed(coalition: &Coalition, size: u64) -> Forged {
    let mut said = describe(coalition, NORTH, "set");
    for grant in &mut said.grants {
        grant.relay = false;
    }
    Forged::with(coalition, NORTH, &said, size)
}

async fn listening(coalition: &Coalition, member: u32) -> Victim {
    Victim::start_as(coalition, member, |options| {
        options.listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await
}

/// Both readers hold another history of `north`'s set, of these sizes, and then meet.
async fn two_histories(south_size: u64, west_size: u64) {
    let coalition = ticking();
    let one = unrelayed(&coalition, south_size);
    let other = forked(&unrelayed(&coalition, 400), 200, west_size);
    let to_south = Hostile::start(&coalition, NORTH, one.script()).await;
    let to_west = Hostile::start_beside(&coalition, NORTH, other.script()).await;
    let south = listening(&coalition, SOUTH).await;
    let west = listening(&coalition, WEST).await;
    south.meet(&coalition, &to_south);
    west.meet(&coalition, &to_west);
    let feed = one.feed;
    until("both have what they were shown", || {
        south.applied(&feed) == south_size && west.applied(&feed) == west_size
    })
    .await;
    let address = west.exchange.local_addr().unwrap().to_string();
    south.meet_at(&coalition, WEST, &address);
    for reader in [&south, &west] {
        until("each is frozen with a proof", || {
            let frozen = reader.held(&feed).unwrap().status == FeedStatus::Frozen;
            frozen && !reader.node.store().evidence().unwrap().is_empty()
        })
        .await;
        let evidence = reader.node.store().evidence().unwrap();
        let evidence = ForkEvidence::decode(&evidence[0]).unwrap();
        let keys = |_| vec![feed_key(NORTH).public()];
        assert!(evidence.verify(&coalition_name(), keys, |_| None).is_ok());
        as_a_file(&reader.node, (south_size, west_size));
    }
    assert_eq!(south.stored(&feed), south_size, "no leaves were taken");
    south.stop(&coalition).await;
    west.stop(&coalition).await;
}

/// What is kept is listed, and as a file it is checked by the genesis alone.
fn as_a_file(node: &Node, sizes: (u64, u64)) {
    let listed = node.evidence().unwrap();
    let EvidenceAbout::Fork { sizes: said, .. } = listed[0].about else {
        panic!("{listed:?}");
    };
    assert_eq!(said, sizes);
    let name = listed[0].digest.to_string();
    for describe in [false, true] {
        let (file, _) = node.evidence_file(&name[..8], describe).unwrap();
        let file = EvidenceFile::decode(&file).unwrap();
        let guilt = file.verify(&node.membership().genesis()).unwrap();
        let ProvenEvidence::Fork { member, set, .. } = &guilt.proven else {
            panic!("{guilt:?}");
        };
        assert_eq!(member.value(), NORTH);
        assert_eq!(set.is_some(), describe);
    }
    let missing = node.evidence_file("00ff00", false);
    assert_eq!(missing.unwrap_err().code(), "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_readers_that_were_shown_two_heads_of_one_size_find_the_fork_by_gossip_alone() {
    two_histories(400, 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_readers_that_were_shown_heads_of_two_sizes_find_the_fork_by_gossip_alone() {
    two_histories(400, 450).await;
}

/// Evidence that a publisher signed two histories, as anybody makes it who has both.
fn evidence_of(smaller: &Forged, larger: &Forged) -> ForkEvidence {
    let (m, n) = (smaller.size(), larger.size());
    let noted = |of: &Forged, size| note(of.feed, NORTH, size, of.root(size)).into();
    ForkEvidence {
        feed: smaller.feed,
        smaller: noted(smaller, m),
        larger: noted(larger, n),
        before: larger.range(0, m).hashes().to_vec(),
        between: larger.range(m, n).hashes().to_vec(),
        node_cards: Vec::new(),
    }
}

/// The same in an epoch that no roster has opened, as whoever has a feed key makes it.
fn unopened(feed: FeedId, epoch: u32) -> ForkEvidence {
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    let noted = |root| {
        let origin = Origin {
            coalition: coalition_name(),
            feed,
            epoch,
        };
        let size = 1;
        checkpoint::sign(&Checkpoint { origin, size, root }, &feed_key(NORTH)).into()
    };
    ForkEvidence {
        feed,
        smaller: noted(one),
        larger: noted(two),
        before: vec![two],
        between: Vec::new(),
        node_cards: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_in_epochs_that_nobody_opened_is_not_kept_and_freezes_nothing() {
    let coalition = ticking();
    let held = Forged::new(&coalition, NORTH, "held", 40);
    let marker = Forged::new(&coalition, NORTH, "marker", 40);
    let teller = Hostile::start(&coalition, WEST, held.script()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &teller);
    until("one is held", || victim.applied(&held.feed) == 40).await;
    for epoch in [1, 2, 3, u32::MAX] {
        let evidence = unopened(held.feed, epoch).encode();
        teller.says(Announcement::Evidence(evidence.into()));
    }
    teller.says(marker.head(40));
    let known = evidence_of(&marker, &forked(&marker, 20, 45)).encode();
    teller.says(Announcement::Evidence(known.into()));
    let store = || victim.node.store();
    until("all was heard", || !store().forks().unwrap().is_empty()).await;
    let forks = store().forks().unwrap();
    assert_eq!((forks.len(), forks[0].feed), (1, marker.feed));
    let status = store().feed(store().feed_no(&held.feed).unwrap());
    assert_eq!(status.unwrap().status, FeedStatus::Active);
    // In the epoch that is open the same freezes it.
    let open = unopened(held.feed, 0).encode();
    teller.says(Announcement::Evidence(open.into()));
    until("it is believed", || store().forks().unwrap().len() == 2).await;
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_forks_feeds_by_the_dozen_fills_nobodys_disk() {
    let coalition = ticking();
    let held = Forged::new(&coalition, NORTH, "held", 40);
    let marker = Forged::new(&coalition, NORTH, "marker", 5);
    let teller = Hostile::start(&coalition, WEST, held.script()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &teller);
    until("one is held", || victim.applied(&held.feed) == 40).await;
    let made_up = (0..30).map(|n| Forged::new(&coalition, NORTH, &format!("set-{n}"), 40));
    let made_up: Vec<_> = made_up.collect();
    for one in made_up.iter().chain([&held]) {
        let mut evidence = evidence_of(one, &forked(one, 20, 45));
        evidence.node_cards = vec![Bytes::from(vec![7; 10_000]); 8];
        teller.says(one.head(40));
        teller.says(Announcement::Evidence(evidence.encode().into()));
    }
    let store = || victim.node.store();
    until("all was heard", || store().forks().unwrap().len() == 31).await;
    // Of what is held all, of what nobody has a few, and none of it padded.
    let kept = store().evidence().unwrap();
    assert_eq!(kept.len(), fork::UNTOLD_MAX + 1);
    assert!(kept.iter().all(|piece| piece.len() < 2_000));
    assert_eq!(store().evidence_about(&held.feed).unwrap().len(), 1);
    assert!(
        store()
            .evidence_about(&made_up[29].feed)
            .unwrap()
            .is_empty()
    );
    drop(teller);
    // What is only remembered stays out all the same.
    let victim = victim.restart(&coalition).await;
    let last = made_up[29].clone();
    let heads = vec![last.head(40), marker.head(5)];
    let (of_last, of_marker) = (last.clone().give(), marker.clone().give());
    let publisher = Hostile::start(&coalition, NORTH, Script::default()).await;
    publisher.plays(Script {
        first: heads,
        give: Some(Arc::new(move |caller, request| {
            of_last(caller, request).or_else(|| of_marker(caller, request))
        })),
        ..Script::default()
    });
    victim.meet(&coalition, &publisher);
    until("another is there", || victim.applied(&marker.feed) == 5).await;
    assert!(victim.held(&last.feed).is_none());
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_is_known_to_be_forked_before_it_is_held_is_not_taken_up_by_a_restart() {
    let coalition = ticking();
    let one = unrelayed(&coalition, 40);
    let other = forked(&unrelayed(&coalition, 40), 20, 45);
    let marker = Forged::new(&coalition, NORTH, "marker", 5);
    let evidence = Announcement::Evidence(evidence_of(&one, &other).encode().into());
    // Whoever tells of the fork has none of its leaves.
    let teller = Hostile::start(&coalition, WEST, Script::default()).await;
    teller.plays(Script {
        first: vec![one.head(40), evidence],
        ..Script::default()
    });
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &teller);
    until("there is evidence", || {
        !victim.node.store().evidence().unwrap().is_empty()
    })
    .await;
    drop(teller);
    let victim = victim.restart(&coalition).await;
    let publisher = Hostile::start(&coalition, NORTH, one.script()).await;
    let (forked, honest) = (one.clone().give(), marker.clone().give());
    publisher.plays(Script {
        first: vec![one.head(40), marker.head(5)],
        give: Some(Arc::new(move |caller, request| {
            forked(caller, request).or_else(|| honest(caller, request))
        })),
        ..Script::default()
    });
    victim.meet(&coalition, &publisher);
    until("another feed is there", || {
        victim.applied(&marker.feed) == 5
    })
    .await;
    assert!(victim.held(&one.feed).is_none(), "nothing of it is taken");
    assert_eq!(publisher.pulls(), 1, "nor asked for");
    victim.stop(&coalition).await;
}
