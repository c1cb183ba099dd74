//! Grants that end: at once for few or by the identity key's word, for many by the feed
//! key's word alone a day later.

use std::sync::atomic::{AtomicU64, Ordering};

use hashpact_core::keys::Identity;
use hashpact_core::leaf::{DESCRIBE, Grant, Grantee as LeafGrantee, RawLeaf};
use hashpact_core::page;
use hashpact_store::FeedStatus;

use super::epochs::revoking;
use super::forged::told;
use super::hostile::{Forged, Hostile, Script, Victim, describe, ticking_from, until};
use super::*;
use crate::types::GrantEnded;

const SIZE: u64 = 40;

/// South, which has a set of North's that West reads as well, and is to lose it.
struct Granted {
    coalition: Coalition,
    ahead: Arc<AtomicU64>,
    forged: Forged,
    hostile: Hostile,
    victim: Victim,
}

/// Whom a describe leaf grants.
#[derive(Clone, Copy)]
enum To {
    Nobody,
    West,
    All,
}

impl Granted {
    async fn new() -> Self {
        let ahead = Arc::new(AtomicU64::new(0));
        let coalition = ticking_from(Arc::clone(&ahead));
        let forged = Forged::new(&coalition, NORTH, "set", SIZE);
        let hostile = Hostile::start(&coalition, NORTH, forged.script()).await;
        let victim = Victim::start(&coalition).await;
        victim.meet(&coalition, &hostile);
        until("all is there", || victim.applied(&forged.feed) == SIZE).await;
        Self {
            coalition,
            ahead,
            forged,
            hostile,
            victim,
        }
    }

    /// Another describe leaf, by the feed key; with an index by the identity key as well,
    /// for a leaf there.
    fn describe(&mut self, to: To, signed_for: Option<u64>) {
        let mut said = describe(&self.coalition, NORTH, "set");
        let grantee = match to {
            To::Nobody => None,
            To::West => Some(LeafGrantee::Member(number(WEST))),
            To::All => Some(LeafGrantee::All),
        };
        let grant = |grantee| Grant {
            grantee,
            relay: true,
        };
        said.grants = grantee.map(grant).into_iter().collect();
        if let Some(index) = signed_for {
            let key = SecretKey::<Identity>::from_seed(&key_seed(NORTH, 2));
            let bytes = said.grants_signing_bytes(&self.forged.feed, index);
            said.identity_signature = Some(key.sign(&bytes));
        }
        let payload = said.encode([8; 16]).unwrap();
        self.forged.leaves.push(RawLeaf::new(DESCRIBE, payload));
        self.hostile.plays(Script {
            give: Some(self.forged.clone().give()),
            ..Script::default()
        });
    }

    /// North says that South's grant ended by the leaf at an index.
    fn says_ended(&self, index: u64) {
        let size = self.forged.size();
        let Announcement::Head(head) = self.forged.head(size) else {
            unreachable!("a head is made");
        };
        let at = usize::try_from(index).unwrap();
        let ended = GrantEnded {
            head: *head,
            index,
            leaf: page::encode_plain(&self.forged.leaves[at..=at]).unwrap(),
            inclusion: self.forged.inclusion(index, size),
        };
        self.hostile.says(Announcement::GrantEnded(Box::new(ended)));
    }

    fn standing(&self) -> Option<MatchStanding> {
        let signal = entry(7).body.signals.remove(0);
        let found = self.victim.node.lookup(&[signal]).unwrap();
        found[0].first().map(|found| found.standing)
    }

    async fn until_standing(&self, standing: Option<MatchStanding>) {
        until(&format!("{standing:?}"), || self.standing() == standing).await;
    }

    async fn until_gone(&self) {
        let gone = || self.victim.held(&self.forged.feed).is_none();
        until("the set is dropped", gone).await;
    }

    /// Lets time pass, and the driver look twice.
    async fn pass(&self, ms: u64) {
        let then = self.victim.node.clock().now().plus(ms);
        self.ahead.fetch_add(ms, Ordering::SeqCst);
        until("the clock", || self.victim.node.clock().now() >= then).await;
        let looks = self.victim.exchange.looks();
        until("it is looked at", || {
            self.victim.exchange.looks() >= looks + 2
        })
        .await;
    }

    async fn stop(self) {
        self.victim.stop(&self.coalition).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_that_end_for_many_by_the_feed_key_alone_disarm_nobody_for_a_day() {
    let mut scene = Granted::new().await;
    scene.describe(To::Nobody, None);
    scene.says_ended(SIZE);
    scene.until_standing(Some(MatchStanding::Review)).await;
    let notices = || scene.victim.node.notices().join(" ");
    until("it is an alarm", || notices().contains("ALARM")).await;
    scene.pass(DAY_MS / 2).await;
    // Said again, it is put off for nobody.
    scene.says_ended(SIZE);
    scene.pass(DAY_MS / 2 - 60_000).await;
    assert_eq!(scene.standing(), Some(MatchStanding::Review));
    scene.pass(60_000).await;
    scene.until_gone().await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_ends_for_one_reader_ends_at_once() {
    let mut scene = Granted::new().await;
    scene.describe(To::West, None);
    scene.says_ended(SIZE);
    scene.until_gone().await;
    scene.stop().await;
}

// ⚠ A thief ends them one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_that_end_one_after_another_within_a_day_are_counted_together() {
    let mut scene = Granted::new().await;
    let mut said = describe(&scene.coalition, NORTH, "set");
    said.grants[0].grantee = LeafGrantee::Member(number(SOUTH));
    let payload = said.encode([6; 16]).unwrap();
    scene.forged.leaves.push(RawLeaf::new(DESCRIBE, payload));
    scene.describe(To::Nobody, None);
    scene.hostile.says(scene.forged.head(SIZE + 1));
    let feed = scene.forged.feed;
    until("South sees West lose it", || {
        scene.victim.applied(&feed) == SIZE + 1
    })
    .await;
    scene.says_ended(SIZE + 1);
    scene.until_standing(Some(MatchStanding::Review)).await;
    scene.stop().await;
}

// ⚠ A thief puts more leaves before it than are looked back at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_of_a_day_ago_that_are_out_of_sight_are_taken_for_many() {
    let mut scene = Granted::new().await;
    let filler = describe(&scene.coalition, NORTH, "set");
    let filler = RawLeaf::new(DESCRIBE, filler.encode([6; 16]).unwrap());
    scene
        .forged
        .leaves
        .extend(std::iter::repeat_n(filler, 4_200));
    scene.describe(To::West, None);
    let (feed, end) = (scene.forged.feed, scene.forged.size() - 1);
    scene.hostile.says(scene.forged.head(end));
    until("South has it", || scene.victim.applied(&feed) == end).await;
    scene.says_ended(end);
    scene.until_standing(Some(MatchStanding::Review)).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_that_the_identity_key_ends_end_at_once_for_all() {
    let mut scene = Granted::new().await;
    scene.describe(To::Nobody, Some(SIZE));
    scene.says_ended(SIZE);
    scene.until_gone().await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_identity_key_signed_for_another_leaf_ends_nothing() {
    let mut scene = Granted::new().await;
    scene.describe(To::Nobody, Some(SIZE - 1));
    scene.says_ended(SIZE);
    scene.until_standing(Some(MatchStanding::Review)).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_leaf_that_ends_grants_for_many_is_held_to_the_same() {
    let mut scene = Granted::new().await;
    scene.describe(To::Nobody, None);
    scene.hostile.says(scene.forged.head(SIZE + 1));
    scene.until_standing(Some(MatchStanding::Review)).await;
    let held = scene.victim.held(&scene.forged.feed).unwrap();
    assert_eq!((held.stored, held.status), (SIZE + 1, FeedStatus::Leaving));
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_that_stand_again_within_the_day_are_as_if_they_had_never_ended() {
    let mut scene = Granted::new().await;
    scene.describe(To::Nobody, None);
    scene.says_ended(SIZE);
    scene.until_standing(Some(MatchStanding::Review)).await;
    scene.describe(To::All, None);
    scene.hostile.says(scene.forged.head(SIZE + 2));
    scene.until_standing(Some(MatchStanding::Active)).await;
    scene.pass(2 * DAY_MS).await;
    assert_eq!(scene.standing(), Some(MatchStanding::Active));
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_that_cuts_the_leaf_off_gives_the_set_back() {
    let mut scene = Granted::new().await;
    scene.describe(To::Nobody, None);
    scene.says_ended(SIZE);
    scene.until_standing(Some(MatchStanding::Review)).await;
    let (forged, node) = (&scene.forged, &scene.victim.node);
    let roster = revoking(node, forged.feed, forged.root(SIZE), SIZE);
    node.membership().accept_roster(roster).unwrap();
    scene.until_standing(Some(MatchStanding::Active)).await;
    scene.pass(2 * DAY_MS).await;
    assert_eq!(scene.standing(), Some(MatchStanding::Active));
    scene.stop().await;
}

// ⚠ Whoever published it keeps what this node once said of it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_publisher_that_repeats_a_readers_receipt_keeps_it_from_nothing() {
    let mut scene = Granted::new().await;
    let feed = scene.forged.feed;
    let said = || {
        let store = scene.victim.node.store();
        let no = store.feed_no(&feed)?;
        let kept = store.receipt(no, number(SOUTH), &slug("n1")).unwrap()?;
        Some(kept.envelope)
    };
    until("it has a receipt", || said().is_some()).await;
    let receipt = said().unwrap();
    scene.describe(To::West, None);
    scene.says_ended(SIZE);
    scene.until_gone().await;
    let Announcement::Head(mut head) = scene.forged.head(SIZE) else {
        unreachable!("a head is made");
    };
    head.receipts = vec![receipt];
    scene.hostile.plays(Script::default());
    scene.hostile.says(Announcement::Head(head));
    scene.hostile.says(told(feed, NORTH, b"nothing".to_vec()));
    let hostile = &scene.hostile;
    scene
        .victim
        .refuses("the marker", hostile, &["malformed"])
        .await;
    assert!(
        scene.victim.node.is_ready(),
        "{:?}",
        scene.victim.node.notices()
    );
    scene.stop().await;
}
