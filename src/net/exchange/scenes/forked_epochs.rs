//! Forks of feeds whose next epoch the roster opens: no order of events lets what may be
//! forged count.

use hashpact_core::evidence::ForkEvidence;
use hashpact_node::model::MatchStanding;
use hashpact_store::{FeedStatus, ForkName};

use super::epochs::{GOOD, Stolen, new_key, rekeyed, revoking, standing};
use super::hostile::{
    Forged, Hostile, Victim, feed_key, note_of, publish_leaf, ticking, told, until,
};
use super::hostile_heads::forked;
use super::*;
use crate::types::Announcement;

/// A feed that its reader holds less of than the roster is to name, and of the other side.
async fn short() -> Stolen {
    let coalition = ticking();
    let good = Forged::new(&coalition, NORTH, "set", GOOD);
    let fork = forked(&Forged::new(&coalition, NORTH, "set", 250), 200, 250);
    let hostile = Hostile::start(&coalition, NORTH, fork.script()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    until("all is there", || victim.applied(&fork.feed) == 250).await;
    Stolen {
        coalition,
        bad: fork,
        good,
        hostile,
        victim,
    }
}

/// Long enough for what is under way to have an effect.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(800)).await;
}

impl Stolen {
    fn forks(&self) -> usize {
        self.victim.node.store().forks().unwrap().len()
    }

    async fn until_frozen(&self) {
        until("it is frozen", || self.status() == FeedStatus::Frozen).await;
        until("there is a proof", || self.forks() > 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forked_feed_of_which_too_little_is_held_does_not_count_before_the_new_epoch_is_there() {
    let mut scene = short().await;
    // The other side's head.
    let root = scene.good.root(250);
    let note = note_of(scene.good.feed, 0, &feed_key(NORTH), (250, root));
    scene.hostile.says(told(scene.good.feed, NORTH, note));
    scene.until_frozen().await;
    assert_eq!(
        standing(&scene.victim, 1_000_000),
        Some(MatchStanding::Review)
    );
    scene.revoke();
    let open = || scene.victim.node.membership().epoch(scene.good.feed) == 1;
    until("the roster is here", open).await;
    settled().await;
    assert_eq!(
        standing(&scene.victim, 1_000_000),
        Some(MatchStanding::Review)
    );
    scene.go_on();
    until("the new epoch is there", || scene.epoch() == 1).await;
    assert_eq!(standing(&scene.victim, 1_000_000), None);
    scene.expect_to_go_on().await;
}

/// Evidence of two histories of the epoch that the roster is to open.
fn of_the_next_epoch(feed: FeedId) -> Bytes {
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    let noted = |root| note_of(feed, 1, &new_key(), (1, root));
    let evidence = ForkEvidence {
        feed,
        smaller: noted(one).into(),
        larger: noted(two).into(),
        before: vec![two],
        between: Vec::new(),
        node_cards: Vec::new(),
    };
    evidence.encode().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_that_waited_freezes_the_epoch_whichever_of_roster_and_card_comes_first() {
    for (card_first, frozen) in [(true, true), (true, false), (false, true), (false, false)] {
        let scene = Stolen::new().await;
        if frozen {
            let fork = forked(&scene.bad, 200, scene.bad.size());
            scene.hostile.says(fork.head(fork.size()));
            scene.until_frozen().await;
        }
        let (feed, before) = (scene.good.feed, scene.forks());
        scene
            .hostile
            .says(Announcement::Evidence(of_the_next_epoch(feed)));
        settled().await;
        let membership = scene.victim.node.membership();
        let roster = revoking(&scene.victim.node, feed, scene.good.root(GOOD), GOOD);
        let card = rekeyed(&scene.coalition, Some(&scene.hostile.address));
        if card_first {
            membership.accept_card(card).unwrap();
            settled().await;
            membership.accept_roster(roster).unwrap();
        } else {
            membership.accept_roster(roster).unwrap();
            settled().await;
            membership.accept_card(card).unwrap();
        }
        let what = format!("card first: {card_first}, frozen before: {frozen}");
        until(&what, || scene.epoch() == 1 && scene.forks() > before).await;
        settled().await;
        assert_eq!(scene.status(), FeedStatus::Frozen, "{what}");
        scene.victim.stop(&scene.coalition).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_is_frozen_by_a_start_after_a_crash_between_evidence_and_that() {
    let mut scene = Stolen::new().await;
    let (feed, epoch) = (scene.good.feed, 0);
    let publisher = scene.victim.held(&feed).unwrap().publisher;
    let fork = ForkName { feed, epoch };
    let store = scene.victim.node.store();
    store.put_fork(publisher, &fork, None).unwrap();
    scene.victim = scene.victim.restart(&scene.coalition).await;
    until("it is frozen", || scene.status() == FeedStatus::Frozen).await;
    // Nothing more of it is pulled.
    let size = scene.bad.size();
    scene.bad.leaves.extend((5_000..5_010).map(publish_leaf));
    scene.hostile.plays(scene.bad.script());
    settled().await;
    assert_eq!(scene.victim.stored(&feed), size);
    scene.revoke();
    scene.go_on();
    scene.expect_to_go_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_frozen_in_its_new_epoch_stays_so_over_a_start() {
    let mut scene = Stolen::new().await;
    scene.revoke();
    until("it is cut off", || scene.epoch() == 1).await;
    scene.good = forked(&scene.good, 200, GOOD);
    scene.go_on();
    until("it is frozen", || scene.status() == FeedStatus::Frozen).await;
    scene.victim = scene.victim.restart(&scene.coalition).await;
    settled().await;
    assert_eq!(scene.status(), FeedStatus::Frozen);
    scene.victim.stop(&scene.coalition).await;
}

/// A node whose own feed others proved to be forked: the thief had its key.
#[tokio::test]
async fn an_own_feed_that_was_frozen_for_a_fork_counts_again_in_its_new_epoch() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    publish(&north, "set", 0, 5);
    let good = feed_of(&north, &feed).applied.unwrap();
    north
        .store()
        .freeze_feed(feed_of(&north, &feed).no)
        .unwrap();
    let roster = revoking(&north, feed, good.root, good.size);
    north.membership().accept_roster(roster).unwrap();
    north
        .membership()
        .accept_card(rekeyed(&coalition, None))
        .unwrap();
    drop(north);
    let north = coalition.open_keyed("north", NORTH, &[], new_key());
    let held = feed_of(&north, &feed);
    assert_eq!((held.epoch, held.status), (1, FeedStatus::Active));
}
