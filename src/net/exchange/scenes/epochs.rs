//! The roster revokes a feed key: what it signed beyond the last good size is void,
//! and the feed goes on under the next epoch.

use hashpact_core::keys::Feed;
use hashpact_core::leaf::{IndexRange, RETRACT, RawLeaf, Retract};
use hashpact_core::roster::Revocation;
use hashpact_node::model::MatchStanding;
use hashpact_store::FeedStatus;

use super::hostile::{
    Forged, Hostile, Script, Victim, feed_key, note_of, publish_leaf, ticking, told, until,
};
use super::hostile_heads::forked;
use super::*;
use crate::types::{Announcement, RosterItem};

pub(super) const GOOD: u64 = 300;

pub(super) fn new_key() -> SecretKey<Feed> {
    SecretKey::from_seed(&[99; 32])
}

/// The next roster, with north's feed key revoked at the last good size.
pub(super) fn revoking(node: &Node, feed: FeedId, root: Digest, size: u64) -> Bytes {
    let chain = node.membership().roster().unwrap();
    let now = node.clock().now();
    let mut roster = Roster::after(chain.current(), chain.genesis(), now, 365 * DAY_MS);
    roster.revocations.push(Revocation {
        feed,
        key: feed_key(NORTH).public(),
        last_good_size: size,
        last_good_root: root,
        next_epoch: 1,
    });
    signed(&roster)
}

/// North's card with a new feed key, and where it listens.
pub(super) fn rekeyed(coalition: &Coalition, address: Option<&str>) -> Bytes {
    coalition.card_keyed(NORTH, 3, &[new_key()], |card| {
        card.nodes[0].endpoints = address
            .map(|address| Endpoint::parse(address).unwrap())
            .into_iter()
            .collect();
        card.nodes[0].feed_keys = vec![FeedKey {
            key: new_key().public(),
            sets: SetScope::All,
        }];
    })
}

fn retraction(first: u64, count: u64) -> RawLeaf {
    let leaf = Retract {
        indexes: vec![IndexRange { first, count }],
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        identity_signature: None,
        created: NOW,
    };
    RawLeaf::new(RETRACT, leaf.encode([5; 16]).unwrap())
}

pub(super) fn standing(victim: &Victim, n: u64) -> Option<MatchStanding> {
    let signal = entry(n).body.signals.remove(0);
    let found = victim.node.lookup(&[signal]).unwrap();
    found[0].first().map(|found| found.standing)
}

/// A head of the new epoch by the new key.
pub(super) fn head(forged: &Forged, size: u64) -> Announcement {
    let note = note_of(forged.feed, 1, &new_key(), (size, forged.root(size)));
    told(forged.feed, NORTH, note)
}

/// A feed whose stolen key has retracted entries 10 to 19, and published more.
pub(super) struct Stolen {
    pub(super) coalition: Coalition,
    pub(super) bad: Forged,
    pub(super) good: Forged,
    pub(super) hostile: Hostile,
    pub(super) victim: Victim,
}

impl Stolen {
    pub(super) async fn new() -> Self {
        let coalition = ticking();
        let good = Forged::new(&coalition, NORTH, "set", GOOD);
        let mut bad = good.clone();
        bad.leaves.push(retraction(10, 10));
        bad.leaves.extend((1_000..1_050).map(publish_leaf));
        let hostile = Hostile::start(&coalition, NORTH, bad.script()).await;
        let victim = Victim::start(&coalition).await;
        victim.meet(&coalition, &hostile);
        until("all is there", || victim.applied(&bad.feed) == bad.size()).await;
        assert_eq!((victim.answers(10), victim.answers(1_000)), (0, 1));
        Self {
            coalition,
            bad,
            good,
            hostile,
            victim,
        }
    }

    pub(super) fn revoke(&self) {
        let roster = revoking(
            &self.victim.node,
            self.good.feed,
            self.good.root(GOOD),
            GOOD,
        );
        let membership = self.victim.node.membership();
        membership.accept_roster(roster).unwrap();
        let card = rekeyed(&self.coalition, Some(&self.hostile.address));
        membership.accept_card(card).unwrap();
    }

    pub(super) fn epoch(&self) -> u32 {
        self.victim.held(&self.good.feed).unwrap().epoch
    }

    pub(super) fn status(&self) -> FeedStatus {
        self.victim.held(&self.good.feed).unwrap().status
    }

    /// The new epoch retracts entry 10 and publishes one more.
    pub(super) fn go_on(&mut self) {
        self.good.leaves.push(retraction(10, 1));
        self.good.leaves.push(publish_leaf(2_000));
        let size = self.good.size();
        self.hostile.plays(Script {
            first: vec![head(&self.good, size)],
            give: Some(self.good.clone().give()),
            ..Script::default()
        });
        self.hostile.says(head(&self.good, size));
    }

    pub(super) async fn expect_to_go_on(self) {
        let (victim, feed, size) = (&self.victim, self.good.feed, self.good.size());
        until("the new epoch is there", || victim.applied(&feed) == size).await;
        let held = victim.held(&feed).unwrap();
        assert_eq!((held.status, held.epoch), (FeedStatus::Active, 1));
        assert_eq!((victim.answers(10), victim.answers(2_000)), (0, 1));
        assert_eq!(victim.answers(1_000), 0, "what is void does not answer");
        self.victim.stop(&self.coalition).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_revoked_key_signed_beyond_the_last_good_size_is_cut_off_exactly_there() {
    let mut scene = Stolen::new().await;
    scene.revoke();
    let feed = scene.good.feed;
    until("it is cut off", || scene.epoch() == 1).await;
    assert_eq!(scene.victim.stored(&feed), GOOD);
    assert_eq!(scene.victim.answers(GOOD - 1), 1);
    assert_eq!(
        scene.victim.answers(1_000),
        0,
        "a cut-off leaf says nothing"
    );
    // What the cut-off leaf had retracted is to be reviewed, until the new epoch
    // speaks of it.
    assert_eq!(standing(&scene.victim, 10), Some(MatchStanding::Review));
    assert_eq!(standing(&scene.victim, 19), Some(MatchStanding::Review));
    assert_eq!(standing(&scene.victim, 20), Some(MatchStanding::Active));
    scene.go_on();
    let size = scene.good.size();
    until("the new epoch is there", || {
        scene.victim.applied(&feed) == size
    })
    .await;
    assert_eq!(standing(&scene.victim, 10), None);
    assert_eq!(standing(&scene.victim, 11), Some(MatchStanding::Review));
    scene.expect_to_go_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_feed_thaws_when_the_roster_opens_an_epoch() {
    let mut scene = Stolen::new().await;
    let fork = forked(&scene.bad, 200, scene.bad.size());
    scene.hostile.says(fork.head(fork.size()));
    until("it is frozen", || scene.status() == FeedStatus::Frozen).await;
    until("there is a proof", || {
        !scene.victim.node.store().evidence().unwrap().is_empty()
    })
    .await;
    scene.revoke();
    until("it thaws", || scene.status() == FeedStatus::Active).await;
    assert_eq!(scene.victim.stored(&scene.good.feed), GOOD);
    // What is said of the closed epoch freezes nothing any more.
    let evidence = scene.victim.node.store().evidence().unwrap().remove(0);
    scene.hostile.says(Announcement::Evidence(evidence));
    scene.hostile.says(fork.head(fork.size()));
    scene.go_on();
    scene.expect_to_go_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_comes_before_its_roster_blames_nobody_and_is_heard_once_that_is_here() {
    let mut scene = Stolen::new().await;
    scene.go_on();
    let what = "a head of an epoch that is not open yet";
    let (victim, hostile) = (&scene.victim, &scene.hostile);
    victim.refuses(what, hostile, &["wrong_epoch"]).await;
    scene.revoke();
    scene.expect_to_go_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_another_history_than_the_roster_names_pulls_the_named_one_from_the_start() {
    let coalition = ticking();
    let good = Forged::new(&coalition, NORTH, "set", GOOD);
    let fork = forked(&good, 200, GOOD + 50);
    let hostile = Hostile::start(&coalition, NORTH, fork.script()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    until("all is there", || victim.applied(&fork.feed) == fork.size()).await;
    let mut scene = Stolen {
        coalition,
        bad: fork,
        good,
        hostile,
        victim,
    };
    scene.revoke();
    until("it is frozen", || scene.status() == FeedStatus::Frozen).await;
    assert_eq!(
        scene.victim.answers(1),
        1,
        "it answers until there is better"
    );
    scene.go_on();
    scene.expect_to_go_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_prefix_of_another_history_is_left_for_the_named_one() {
    let coalition = ticking();
    let good = Forged::new(&coalition, NORTH, "set", GOOD);
    let fork = forked(&Forged::new(&coalition, NORTH, "set", 250), 200, 250);
    let hostile = Hostile::start(&coalition, NORTH, fork.script()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    until("all is there", || victim.applied(&fork.feed) == 250).await;
    let mut scene = Stolen {
        coalition,
        bad: fork,
        good,
        hostile,
        victim,
    };
    scene.revoke();
    scene.go_on();
    scene.expect_to_go_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_epoch_that_does_not_go_on_from_the_named_leaves_is_refused() {
    let mut scene = Stolen::new().await;
    scene.revoke();
    let feed = scene.good.feed;
    until("it is cut off", || scene.epoch() == 1).await;
    assert_eq!(scene.victim.stored(&feed), GOOD);
    let other = forked(&scene.good, 200, GOOD);
    let honest = std::mem::replace(&mut scene.good, other);
    scene.go_on();
    until("it is frozen", || scene.status() == FeedStatus::Frozen).await;
    assert_eq!(scene.victim.stored(&feed), GOOD);
    let no = scene.victim.held(&feed).unwrap().no;
    let root = scene.victim.node.store().root_at(no, GOOD).unwrap();
    assert_eq!(root, honest.root(GOOD), "what the roster names stays");
    scene.victim.stop(&scene.coalition).await;
}

#[tokio::test]
async fn a_publisher_goes_on_under_the_new_epoch_with_its_new_feed_key() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    publish(&north, "set", 0, 5);
    let good = feed_of(&north, &feed).applied.unwrap();
    publish(&north, "set", 5, 9);
    let roster = revoking(&north, feed, good.root, good.size);
    north.membership().accept_roster(roster).unwrap();
    // Its key is revoked: it signs nothing.
    north.publisher().open_epochs().unwrap();
    assert!(north.import(&slug("set")).is_err());
    let card = rekeyed(&coalition, None);
    north.membership().accept_card(card).unwrap();
    drop(north);
    let north = coalition.open_keyed("north", NORTH, &[], new_key());
    let held = feed_of(&north, &feed);
    assert_eq!((held.stored, held.epoch), (good.size, 1));
    let applied = held.applied.unwrap();
    assert_eq!((applied.epoch, applied.root), (1, good.root));
    north.confirm_head(&slug("set"), "a test").unwrap();
    publish(&north, "set", 5, 20);
    assert_eq!(feed_of(&north, &feed).applied.unwrap().size, 21);
    let signed = north.store().applied_head(held.no).unwrap().unwrap();
    let name = CoalitionName::parse(COALITION).unwrap();
    let keys = |_| vec![new_key().public()];
    assert!(checkpoint::verify(signed.note(), &name, &feed, keys).is_ok());
    assert!(north.verify(|_, _| ()).unwrap().findings.is_empty());
    // Nothing changes when it starts again.
    drop(north);
    let north = coalition.open_keyed("north", NORTH, &[], new_key());
    assert_eq!(feed_of(&north, &feed).applied.unwrap().size, 21);
}

// The roster itself may come from a peer while a feed is frozen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_is_opened_by_a_roster_that_a_peer_names() {
    let mut scene = Stolen::new().await;
    let roster = revoking(
        &scene.victim.node,
        scene.good.feed,
        scene.good.root(GOOD),
        GOOD,
    );
    let envelope = Envelope::decode(roster.clone(), PayloadType::Roster).unwrap();
    let card = rekeyed(&scene.coalition, Some(&scene.hostile.address));
    scene.go_on();
    scene.hostile.plays(Script {
        papers: vec![RosterItem::Roster(roster), RosterItem::NodeCard(card)],
        first: vec![head(&scene.good, scene.good.size())],
        give: Some(scene.good.clone().give()),
        ..Script::default()
    });
    scene.hostile.says(Announcement::Roster {
        version: 3,
        digest: envelope.payload_digest(),
        cosignatures: Vec::new(),
    });
    scene.expect_to_go_on().await;
}

#[tokio::test]
async fn a_publisher_whose_feed_key_is_not_on_its_card_signs_nothing_until_it_is() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    publish(&north, "set", 0, 5);
    drop(north);
    let north = coalition.open_keyed("north", NORTH, &[], new_key());
    north.confirm_head(&slug("set"), "a test").unwrap();
    let why = north.publisher().closed(&feed).unwrap();
    assert!(why.contains("not on the node card in force"), "{why}");
    let Err(refused) = north.import(&slug("set")) else {
        panic!("it signs with a key that no peer knows");
    };
    assert_eq!(refused.code(), "publishing_closed");
    let card = rekeyed(&coalition, None);
    north.membership().accept_card(card).unwrap();
    assert_eq!(north.publisher().closed(&feed), None);
    publish(&north, "set", 5, 9);
}
