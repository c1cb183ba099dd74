//! Receipts: when a node makes one, and what their publisher learns of them.

use hashpact_core::id::{Digest, SetName};
use hashpact_node::receipts::judge::{LeafSort, Standing};
use hashpact_node::receipts::{Hold, RENEW_MS};
use hashpact_store::{FeedStatus, HeadRef};

use super::hostile::{Forged, Hostile, Script, Victim, ticking};
use super::live::{Live, Running, copy, until};
use super::telling::set_roles;
use super::*;
use crate::exchange::announce::told_to;

/// A publisher and a reader without a network, on a clock that stands.
pub(super) struct Still {
    pub(super) coalition: Coalition,
    pub(super) north: Arc<Node>,
    pub(super) south: Arc<Node>,
    pub(super) feed: FeedId,
}

impl Still {
    /// `south` has ten entries of `north`.
    pub(super) async fn new() -> Self {
        let coalition = Coalition::new();
        let (north, south) = (coalition.open(NORTH), coalition.open(SOUTH));
        let feed = create_set(&north, "set", &[("all", true)]);
        publish(&north, "set", 0, 10);
        bring(&north, &south, &feed, false).await;
        let scene = Self {
            coalition,
            north,
            south,
            feed,
        };
        scene.south.make_receipts(None).unwrap();
        scene
    }

    pub(super) fn later(&self, millis: u64) -> UnixMillis {
        let now = self.coalition.clock.now().plus(millis);
        self.coalition.clock.set(now);
        now
    }

    pub(super) async fn grows(&self, from: u64, to: u64) {
        publish(&self.north, "set", from, to);
        bring(&self.north, &self.south, &self.feed, false).await;
    }

    /// Size, since when, and when it was signed, of what `node` said.
    fn said(&self, node: &Node) -> Option<(u64, UnixMillis, UnixMillis)> {
        let no = node.store().feed_no(&self.feed).unwrap();
        let own = node.membership().own().unwrap();
        let kept = node.store().receipt(no, own, &slug("n1")).unwrap();
        kept.map(|kept| (kept.at.size, kept.since, kept.signed))
    }

    fn size_said(&self) -> u64 {
        self.said(&self.south).map_or(0, |said| said.0)
    }
}

/// Has a consumer acknowledge all that there is.
pub(super) fn acknowledge_all(node: &Node, name: &str, mut cursor: hashpact_store::ChangeCursor) {
    node.note_changes().unwrap();
    loop {
        let changed = node.changes(&cursor, 1_000).unwrap();
        cursor = changed.next;
        node.acknowledge(&slug(name), &cursor).unwrap();
        if changed.caught_up {
            return;
        }
    }
}

#[tokio::test]
async fn many_heads_in_a_second_have_one_receipt_and_the_last_is_receipted_after_it() {
    let scene = Still::new().await;
    assert_eq!(scene.said(&scene.south), Some((11, NOW, NOW)));
    for n in 10..15 {
        scene.later(100);
        scene.grows(n, n + 1).await;
        scene.south.make_receipts(Some(&scene.feed)).unwrap();
        assert_eq!(scene.size_said(), 11);
    }
    let covered = NOW.plus(500);
    let now = scene.later(500);
    scene.south.make_receipts(None).unwrap();
    // It says since when that was so, not when it came to say so.
    assert_eq!(scene.said(&scene.south), Some((16, covered, now)));
    // Nothing more to say, however often.
    scene.later(RENEW_MS);
    scene.south.make_receipts(None).unwrap();
    assert_eq!(scene.said(&scene.south), Some((16, covered, now)));
}

#[tokio::test]
async fn a_publisher_gives_its_word_on_its_own_head_anew_every_ten_minutes() {
    let scene = Still::new().await;
    scene.north.make_receipts(None).unwrap();
    assert_eq!(scene.said(&scene.north), Some((11, NOW, NOW)));
    scene.later(RENEW_MS - 1);
    scene.north.make_receipts(None).unwrap();
    assert_eq!(scene.said(&scene.north), Some((11, NOW, NOW)));
    let now = scene.later(1);
    scene.north.make_receipts(None).unwrap();
    assert_eq!(scene.said(&scene.north), Some((11, NOW, now)));
}

#[tokio::test]
async fn a_paused_consumer_keeps_a_receipt_open_and_is_named() {
    let scene = Still::new().await;
    let south = &scene.south;
    let begun = south.begin_snapshot(&slug("matcher"), "test").unwrap();
    acknowledge_all(south, "matcher", begun);
    let acked = south.consumer(&slug("matcher")).unwrap().acked;
    scene.later(1_000);
    scene.grows(10, 12).await;
    south.make_receipts(None).unwrap();
    assert_eq!(scene.size_said(), 11);
    let name = slug("matcher");
    let hold = Hold::Consumer { name, size: 11 };
    assert_eq!(south.receipt_hold(&scene.feed), Some(hold));
    scene.later(5_000);
    south.make_receipts(None).unwrap();
    let notices = south.notices();
    let expected = "receipts are kept open: consumer matcher acknowledged 11 leaves of north/set";
    assert_eq!(notices, [expected]);
    acknowledge_all(south, "matcher", acked);
    south.make_receipts(None).unwrap();
    assert_eq!(scene.size_said(), 13);
    assert_eq!(
        (south.receipt_hold(&scene.feed), south.notices()),
        (None, vec![])
    );
}

#[tokio::test]
async fn what_a_consumer_is_to_act_on_anew_without_growth_keeps_a_receipt_open() {
    let scene = Still::new().await;
    let (south, no) = (
        &scene.south,
        scene.south.store().feed_no(&scene.feed).unwrap(),
    );
    let begun = south.begin_snapshot(&slug("matcher"), "test").unwrap();
    acknowledge_all(south, "matcher", begun);
    scene.later(1_000);
    retract(&scene.north, "set", 3..4);
    bring(&scene.north, south, &scene.feed, false).await;
    south.store().hold_retractions(no, [11].into()).unwrap();
    let acked = south.consumer(&slug("matcher")).unwrap().acked;
    acknowledge_all(south, "matcher", acked);
    // The consumer has every leaf; the retraction is held, so nobody acts on it.
    south.make_receipts(None).unwrap();
    assert_eq!(scene.size_said(), 11);
    assert!(matches!(
        south.receipt_hold(&scene.feed),
        Some(Hold::Leaf { index: 11, .. })
    ));
    // It counts now, and the consumer does not know.
    south.store().hold_retractions(no, [].into()).unwrap();
    south.make_receipts(None).unwrap();
    assert_eq!(scene.size_said(), 11);
    assert!(matches!(
        south.receipt_hold(&scene.feed),
        Some(Hold::Consumer { .. })
    ));
    let acked = south.consumer(&slug("matcher")).unwrap().acked;
    acknowledge_all(south, "matcher", acked);
    south.make_receipts(None).unwrap();
    assert_eq!(scene.size_said(), 12);
}

#[tokio::test]
async fn nothing_is_said_of_a_feed_in_doubt_or_by_a_key_that_is_on_no_card() {
    let scene = Still::new().await;
    let south = &scene.south;
    let no = south.store().feed_no(&scene.feed).unwrap();
    for status in [FeedStatus::Frozen, FeedStatus::Leaving, FeedStatus::Silent] {
        south.store().set_feed_status(no, status).unwrap();
        scene.later(1_000);
        south.make_receipts(None).unwrap();
        assert_eq!(scene.size_said(), 11);
        south
            .store()
            .set_feed_status(no, FeedStatus::Active)
            .unwrap();
    }
    south.use_receipt_keys(vec![SecretKey::from_seed(&[99; 32])]);
    scene.later(1_000);
    scene.grows(10, 12).await;
    south.make_receipts(None).unwrap();
    assert_eq!(scene.size_said(), 11);
    south.set_ready(false);
    south.use_receipt_keys(vec![receipt_key(SOUTH)]);
    south.make_receipts(None).unwrap();
    assert_eq!(scene.size_said(), 11, "it is not ready");
    south.set_ready(true);
    south.make_receipts(None).unwrap();
    assert_eq!(scene.size_said(), 13);
}

#[tokio::test]
async fn with_another_key_the_same_is_said_again() {
    let scene = Still::new().await;
    let next = SecretKey::from_seed(&[98; 32]);
    let card = scene.coalition.card_signed(
        SOUTH,
        3,
        |draft| {
            draft.sign(&next);
        },
        |card| card.nodes[0].receipt_keys.push(next.public()),
    );
    assert!(scene.south.membership().accept_card(card).unwrap());
    scene.south.use_receipt_keys(vec![receipt_key(SOUTH), next]);
    let now = scene.later(10);
    scene.south.make_receipts(None).unwrap();
    assert_eq!(scene.said(&scene.south), Some((11, NOW, now)));
}

#[tokio::test]
async fn overdue_receipts_are_counted_by_member_and_told_to_observers_without_a_set() {
    let scene = Still::new().await;
    let north = &scene.north;
    set_roles(north, WEST, vec![Role::Observe]);
    north.set_overdue_after(60_000);
    north.watch_receipts().unwrap();
    assert!(north.overdue_receipts().is_empty());
    scene.later(61_000);
    north.watch_receipts().unwrap();
    let overdue = vec![(number(SOUTH), 1)];
    assert_eq!(
        north.overdue_receipts().into_iter().collect::<Vec<_>>(),
        overdue
    );
    let notices = north.notices();
    assert!(
        notices
            .iter()
            .any(|n| n.contains("sets by member: south 1")),
        "{notices:?}"
    );
    let told = |to| {
        let mut watch = told_to(Arc::clone(north), number(to));
        async move { snapshot_of(&mut watch).await }
    };
    let is_overdue = |said: &Announcement| matches!(said, Announcement::Overdue(_));
    let said = told(WEST).await;
    assert!(said.contains(&Announcement::Overdue(overdue)), "{said:?}");
    assert!(
        !said
            .iter()
            .any(|said| matches!(said, Announcement::Head(_)))
    );
    assert!(
        !told(SOUTH).await.iter().any(is_overdue),
        "it observes nothing"
    );
}

pub(super) fn done(of: &Running, index: u64) -> usize {
    let set = SetName::parse("north/set").unwrap();
    let receipts = of.node.receipts_of(&set, index, true);
    receipts.map_or(0, |receipts| receipts.count(Standing::Done))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_sees_who_acts_on_an_entry_and_on_its_withdrawal() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    create_set(&north.node, "set", &[("all", true)]);
    publish(&north.node, "set", 0, 10);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south is done with all", || done(&north, 10) == 1).await;
    retract(&north.node, "set", 4..5);
    until("and with the retraction", || done(&north, 11) == 1).await;
    let set = SetName::parse("north/set").unwrap();
    let of_entry = north.node.receipts_of(&set, 5, true).unwrap();
    assert_eq!((of_entry.index, of_entry.withdrew), (11, Some(5)));
    assert_eq!(of_entry.sort, LeafSort::Retraction);
    let states: Vec<_> = of_entry
        .members
        .iter()
        .map(|one| (one.member.as_str(), one.standing, one.size))
        .collect();
    let expected = [
        ("south", Standing::Done, 12),
        ("west", Standing::Unreachable, 0),
    ];
    assert_eq!(states, expected);
    assert!(
        of_entry.percentile(50).is_some() && of_entry.percentile(99) == of_entry.percentile(50)
    );
    let published = north.node.receipts_of(&set, 5, false).unwrap();
    assert_eq!((published.index, published.sort), (5, LeafSort::Entry));
    // The later receipt left the time of the earlier one.
    let since = |of: &hashpact_node::receipts::judge::LeafReceipts| of.members[0].since.unwrap();
    assert!(since(&published) < since(&of_entry));
    assert!(north.node.receipts_of(&set, 12, true).is_err());
    assert!(
        south.node.receipts_of(&set, 5, true).is_err(),
        "it is not its set"
    );
    south.stop().await;
    north.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_of_a_reader_that_cannot_be_reached_come_by_a_relay() {
    let mut live = Live::new();
    let (north, west) = (
        live.run_outbound_only(NORTH).await,
        live.run_outbound_only(WEST).await,
    );
    let south = live.run(SOUTH).await;
    create_set(&north.node, "set", &[("all", true)]);
    publish(&north.node, "set", 0, 10);
    live.introduce(&[(NORTH, &north), (SOUTH, &south), (WEST, &west)]);
    until("both are done", || done(&north, 10) == 2).await;
    retract(&north.node, "set", 4..5);
    until("both are done with the retraction", || {
        done(&north, 11) == 2
    })
    .await;
    for one in [north, west, south] {
        one.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_grant_does_not_count() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    create_set(&north.node, "set", &[("south", false), ("west", false)]);
    publish(&north.node, "set", 0, 10);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south is done", || done(&north, 10) == 1).await;
    change_grants(&north.node, "set", &[], &["south"]);
    let set = SetName::parse("north/set").unwrap();
    let receipts = north.node.receipts_of(&set, 10, true).unwrap();
    let members: Vec<_> = receipts.members.iter().map(|m| m.member.as_str()).collect();
    assert_eq!(members, ["west"]);
    // Nor is its word kept, which it would have to catch up with if it got the set again.
    until("its word is forgotten", || {
        let store = north.node.store();
        let kept = store.receipts(store.feeds()[0].no, Some(number(SOUTH)));
        kept.unwrap().is_empty()
    })
    .await;
    let mut watch = told_to(Arc::clone(&north.node), number(WEST));
    let said = snapshot_of(&mut watch).await;
    let receipts = said.iter().find_map(|said| {
        let Announcement::Head(head) = said else {
            return None;
        };
        Some(head.receipts.len())
    });
    assert_eq!(receipts, Some(1), "the publisher's own");
    drop(watch);
    south.stop().await;
    north.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retraction_is_receipted_after_a_partition_a_restart_and_a_restored_backup() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    create_set(&north.node, "set", &[("all", true)]);
    publish(&north.node, "set", 0, 10);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south is done", || done(&north, 10) == 1).await;
    south.stop().await;
    let store = live.coalition.dir.path().join("south/store");
    let backup = live.coalition.dir.path().join("backup");
    copy(&store, &backup);
    // South is away while it is published.
    retract(&north.node, "set", 4..5);
    assert_eq!(done(&north, 11), 0);
    let south = live.run(SOUTH).await;
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("it is done once it is back", || done(&north, 11) == 1).await;
    south.stop().await;
    std::fs::remove_dir_all(&store).unwrap();
    copy(&backup, &store);
    let south = live.run(SOUTH).await;
    assert_eq!(south.answers(4), 1, "the backup does not know");
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    let said_anew = || {
        let store = north.node.store();
        let no = store.feeds()[0].no;
        let kept = store.receipt(no, number(SOUTH), &slug("n1")).unwrap();
        kept.is_some_and(|kept| kept.at.size == 12 && south.answers(4) == 0)
    };
    until("it has caught up and says so", said_anew).await;
    until("it is ready again", || south.node.is_ready()).await;
    assert_eq!(done(&north, 11), 1);
    verify_both(&[&north, &south]);
    south.stop().await;
    north.stop().await;
}

fn verify_both(running: &[&Running]) {
    for one in running {
        super::live::verify(&one.node);
    }
}

/// A state of `size` leaves that are not held.
fn state(size: u64) -> HeadRef {
    let root = Digest::of(b"root");
    HeadRef {
        epoch: 0,
        size,
        root,
    }
}

// ⚠ Its own genuine word is all that a peer needs for it.
#[tokio::test]
async fn a_feed_that_does_not_come_is_waited_for_once_however_often_a_word_on_it_is_said() {
    let scene = Still::new().await;
    let south = &scene.south;
    south.set_ready(true);
    let no = south.store().feed_no(&scene.feed).unwrap();
    south.store().drop_feed(no).unwrap();
    let says = |feed: FeedId, size: u64| {
        south.note_former_receipt(feed, number(NORTH), (state(size), NOW));
        south.follow_former();
    };
    says(scene.feed, 11);
    assert!(!south.is_ready(), "it may have been restored");
    scene.later(RENEW_MS - 1);
    says(scene.feed, 11);
    // One of a newer state renews nothing either.
    says(scene.feed, 12);
    assert!(!south.is_ready());
    scene.later(1);
    says(scene.feed, 11);
    assert!(south.is_ready(), "{:?}", south.notices());
    says(scene.feed, 13);
    let another = FeedId(Digest::of(b"another"));
    says(another, 13);
    assert!(south.is_ready(), "{:?}", south.notices());
    // Of others a word counts as before.
    south.note_former_receipt(another, number(WEST), (state(13), NOW));
    assert!(!south.is_ready());
}

#[tokio::test]
async fn what_was_said_before_a_set_was_dropped_does_not_count_and_what_was_said_since_does() {
    let scene = Still::new().await;
    let south = &scene.south;
    south.set_ready(true);
    let no = south.store().feed_no(&scene.feed).unwrap();
    south.note_lost(&south.store().feed(no).unwrap()).unwrap();
    let says = |signed| {
        south.note_former_receipt(scene.feed, number(NORTH), (state(20), signed));
        south.follow_former();
    };
    // Also while it is held, or held again and not all of it there.
    says(NOW);
    assert!(south.is_ready(), "{:?}", south.notices());
    south.store().drop_feed(no).unwrap();
    says(NOW);
    assert!(south.is_ready(), "{:?}", south.notices());
    says(NOW.plus(1));
    assert!(!south.is_ready(), "its store is a restored one");
}

// The node is shown what it said before by a peer that serves no leaves yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_its_own_receipt_is_not_ready_and_says_nothing_until_it_has_caught_up() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 40);
    let longer = Forged::new(&coalition, NORTH, "set", 60);
    let hostile = Hostile::start(&coalition, NORTH, forged.script()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    until("it has the first", || victim.applied(&forged.feed) == 40).await;
    until("it is ready", || victim.node.is_ready()).await;
    let said = hashpact_core::receipt::Receipt {
        genesis: coalition.genesis,
        member: number(SOUTH),
        node: slug("n1"),
        feed: forged.feed,
        epoch: 0,
        size: 60,
        root: longer.root(60),
        since: NOW,
        signed: NOW.plus(60_000),
    };
    let mut draft = said.to_envelope().unwrap();
    draft.sign(&receipt_key(SOUTH));
    let bytes = draft.finish().unwrap().as_bytes().clone();
    let Announcement::Head(mut head) = forged.head(40) else {
        panic!("a head")
    };
    head.receipts = vec![bytes];
    hostile.says(Announcement::Head(head));
    until("it is not ready", || !victim.node.is_ready()).await;
    let notices = victim.node.notices();
    assert!(
        notices.iter().any(|n| n.contains("behind this node's own")),
        "{notices:?}"
    );
    hostile.plays(Script {
        give: Some(longer.clone().give()),
        ..Script::default()
    });
    hostile.says(longer.head(60));
    until("it has caught up", || victim.applied(&forged.feed) == 60).await;
    until("it is ready again", || victim.node.is_ready()).await;
    victim.stop(&coalition).await;
}
