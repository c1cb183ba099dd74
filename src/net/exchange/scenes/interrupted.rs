//! What comes between a pull and its end: no card yet, a suspension, a store that
//! fails, a publisher with two stories.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream;
use hashpact_core::card::Endpoint;
use hashpact_core::leaf::RawLeaf;
use hashpact_core::merkle::CompactRange;
use hashpact_store::{FeedNo, FeedWriter};

use super::hostile::*;
use super::*;
use crate::exchange::Bootstrap;

/// How soon a suspension must have ended everything: well before what stands still is
/// ended for that.
const WITHIN: Duration = Duration::from_secs(60);

fn bootstrap(member: &str, peer: &Hostile) -> Bootstrap {
    Bootstrap {
        member: Some(slug(member)),
        endpoint: peer.address.clone(),
    }
}

/// A node that has the genesis digest and one address.
async fn newcomer(coalition: &Coalition, first: Bootstrap) -> Victim {
    let node = coalition.open_unknowing(SOUTH, &[]);
    Victim::start_of(coalition, SOUTH, node, |options| {
        options.bootstrap = vec![first];
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_asked_for_the_roster_alone_before_its_key_is_known() {
    let coalition = ticking();
    let north = Hostile::start(&coalition, NORTH, Script::default()).await;
    let endpoint = Endpoint::parse(&north.address).unwrap();
    let card = coalition.card(NORTH, 2, vec![endpoint]);
    assert!(north.node.membership().accept_card(card).unwrap());
    let feed = create_set(&north.node, "set", &[("all", false)]);
    publish(&north.node, "set", 0, 10);
    let victim = newcomer(&coalition, bootstrap("north", &north)).await;
    until("the set is there", || victim.applied(&feed) == 11).await;
    let calls = north.calls();
    assert_eq!(calls[..2], ["get_roster", "hello"], "{calls:?}");
    assert!(calls.contains(&"watch") && calls.contains(&"pull"));
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_is_another_member_than_was_meant_is_asked_nothing_more() {
    let coalition = ticking();
    let north = Hostile::start(&coalition, NORTH, Script::default()).await;
    let feed = create_set(&north.node, "set", &[("all", false)]);
    let victim = newcomer(&coalition, bootstrap("west", &north)).await;
    let knows = || {
        let state = victim.node.membership().state();
        state.cards.newest(number(WEST)).is_some()
    };
    until("what it gave is verified and taken", knows).await;
    until("it is let go of", || {
        victim.exchange.connections().open().is_empty()
    })
    .await;
    assert!(north.calls().iter().all(|call| *call == "get_roster"));
    assert!(victim.held(&feed).is_none());
    victim.stop(&coalition).await;
}

/// Gives the first page of a feed and then nothing, for as long as the pull stands;
/// counts the pulls that were let go of.
fn one_page_and_no_more(forged: &Forged, ended: &Arc<AtomicUsize>) -> Script {
    struct Ended(Arc<AtomicUsize>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (feed, ended) = (forged.clone(), Arc::clone(ended));
    let give: Give = Arc::new(move |_, request| {
        let size = request.head_size;
        let page = feed.chunk(request.from, request.from + 256, size);
        let first = stream::iter([Ok(PullPart::Chunk(page))]);
        let ended = Ended(Arc::clone(&ended));
        let never = stream::pending().inspect(move |_| {
            let _ = &ended;
        });
        Some(Box::pin(first.chain(never)) as Answers<PullPart>)
    });
    Script {
        first: vec![forged.head(forged.size())],
        give: Some(give),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_cuts_the_connection_and_the_pull_that_runs() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 1_024);
    let ended = Arc::new(AtomicUsize::new(0));
    let script = one_page_and_no_more(&forged, &ended);
    let north = Hostile::start(&coalition, NORTH, script).await;
    let victim = Victim::start_with(&coalition, |options| {
        // The pull stands still, and is not to end for that.
        options.settings.progress_timeout = PATIENCE;
    })
    .await;
    victim.meet(&coalition, &north);
    until("a pull runs", || north.pulls() == 1).await;
    let ends = async {
        suspend(&victim.node, NORTH);
        until("no connection stands", || {
            victim.exchange.connections().open().is_empty()
        })
        .await;
        until("the pull is let go of", || {
            ended.load(Ordering::SeqCst) == 1
        })
        .await;
    };
    assert!(timeout(WITHIN, ends).await.is_ok(), "not within {WITHIN:?}");
    assert_eq!(north.pulls(), 1, "it is asked for nothing more");
    assert!(victim.stored(&forged.feed) <= 256);
    assert_eq!(victim.applied(&forged.feed), 0);
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_during_a_pull_loses_nothing_and_is_tried_again() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 2_000);
    let north = Hostile::start(&coalition, NORTH, forged.script()).await;
    let victim = Victim::start_with(&coalition, |options| options.pull.store_rest_ms = 100).await;
    let mut first = forged.clone();
    first.leaves.truncate(700);
    north.plays(first.script());
    victim.meet(&coalition, &north);
    until("the first leaves are there", || {
        victim.applied(&forged.feed) == 700
    })
    .await;
    // Whatever wants to store leaves of the feed fails while somebody has its writer.
    let no = victim.held(&forged.feed).unwrap().no;
    let writer = writer_of(&victim, no).await;
    north.plays(forged.script());
    let before = north.pulls();
    north.says(forged.head(2_000));
    until("it is tried again and again", || {
        north.pulls() >= before + 3
    })
    .await;
    assert_eq!(victim.applied(&forged.feed), 700);
    assert_eq!((victim.answers(699), victim.answers(700)), (1, 0));
    assert!(victim.refused(&north).is_empty(), "the peer is at no fault");
    drop(writer);
    until("all is there", || victim.applied(&forged.feed) == 2_000).await;
    assert_eq!(victim.answers(1_999), 1);
    victim.stop(&coalition).await;
}

/// Takes a feed's writer once the desk gives it back.
async fn writer_of(victim: &Victim, no: FeedNo) -> FeedWriter {
    let taken = async {
        loop {
            if let Ok(writer) = victim.node.store().writer(no) {
                return writer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, taken).await.unwrap()
}

/// The root of what is stored of a feed.
fn stored_root(victim: &Victim, feed: &FeedId) -> Option<Digest> {
    let held = victim.held(feed)?;
    victim.node.store().root_at(held.no, held.stored).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_mixes_two_forks_gets_one_of_them_stored_and_never_a_mixture() {
    let coalition = ticking();
    let one = Forged::new(&coalition, NORTH, "set", 40_000);
    let mut other = one.clone();
    other.leaves.extend((40_000..42_000).map(publish_leaf));
    other.leaves[20_000] = publish_leaf(1_000_000);
    let asked = AtomicUsize::new(0);
    let (a, b) = (one.clone().give(), other.clone().give());
    let give: Give = Arc::new(move |caller, request| {
        // Every other pull gets the other story.
        if asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            a(caller, request)
        } else {
            b(caller, request)
        }
    });
    let north = Hostile::start(
        &coalition,
        NORTH,
        Script {
            // The larger head comes first.
            first: vec![other.head(42_000), one.head(40_000)],
            give: Some(give),
            ..Script::default()
        },
    )
    .await;
    let victim = Victim::start_with(&coalition, |options| {
        options.pull.job_bytes = 256 * 1024;
    })
    .await;
    victim.meet(&coalition, &north);
    until("it is refused", || !victim.refused(&north).is_empty()).await;
    north.says(one.head(40_000));
    north.says(other.head(42_000));
    until("it was asked for parts", || north.pulls() > 2).await;
    let stored = victim.stored(&one.feed);
    if stored > 0 {
        let root = stored_root(&victim, &one.feed).unwrap();
        let of = |forged: &Forged| {
            let leaves = &forged.leaves[..usize::try_from(stored).unwrap()];
            let mut range = CompactRange::empty(0);
            range.extend(leaves.iter().map(RawLeaf::hash));
            range.root()
        };
        assert!([of(&one), of(&other)].contains(&Some(root)), "{stored}");
    }
    let both = victim.answers(20_000) + victim.answers(1_000_000);
    assert!(both <= 1, "leaves of both stories answer");
    victim.stop(&coalition).await;
}
