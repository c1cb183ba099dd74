//! Witnesses with real nodes: they cosign what extends, tell whom they may, and never
//! two histories; who reads a feed knows where they stand.

use std::path::PathBuf;

use hashpact_core::witness::judge::FRESH_MS;
use hashpact_store::FeedStatus;

use super::hostile::{Forged, Hostile, Script, Victim, describe, tick, until};
use super::hostile_heads::forked;
use super::live::{Live, Running};
use super::*;
use crate::exchange::ExchangeOptions;
use crate::exchange::announce::told_to;

pub(super) const WITNESSES: [u32; 4] = [WITNESS, 5, 6, 7];

/// Nobody is waited for longer: half of the members do not run.
pub(super) fn hasty(options: &mut ExchangeOptions) {
    options.confirm_wait = Duration::from_millis(300);
}

pub(super) fn ticking() -> Coalition {
    tick(Coalition::witnessed(), Arc::default())
}

pub(super) async fn listening(coalition: &Coalition, member: u32) -> Victim {
    Victim::start_as(coalition, member, |options| {
        options.listen = Some("127.0.0.1:0".parse().unwrap());
        hasty(options);
    })
    .await
}

pub(super) fn address(of: &Victim) -> String {
    of.exchange.local_addr().unwrap().to_string()
}

/// What a witness says of a feed: size and root.
pub(super) fn says(witness: &Node, feed: &FeedId) -> Option<(u64, Digest)> {
    let said = witness.witnessing().unwrap().said(feed)?;
    Some((said.cosigned.size, said.cosigned.root))
}

pub(super) fn quorum(reader: &Node, feed: &FeedId) -> Option<u64> {
    let no = reader.store().feed_no(feed)?;
    let judged = reader.judged(&reader.store().feed(no).unwrap()).unwrap();
    judged.quorum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_witnesses_cosign_what_is_published_without_a_leaf_and_readers_see_a_quorum() {
    let mut live = Live::of(Coalition::witnessed());
    let north = live.run_with(NORTH, hasty).await;
    let south = live.run_with(SOUTH, hasty).await;
    let mut witnesses: Vec<(u32, Running)> = Vec::new();
    for member in WITNESSES {
        witnesses.push((member, live.run_with(member, hasty).await));
    }
    let mut all: Vec<(u32, &Running)> = vec![(NORTH, &north), (SOUTH, &south)];
    all.extend(witnesses.iter().map(|(member, one)| (*member, one)));
    live.introduce(&all);
    let feed = create_set(&north.node, "set", &[("south", false)]);
    publish(&north.node, "set", 0, 10);
    until("a quorum at south", || {
        quorum(&south.node, &feed) == Some(11)
    })
    .await;
    publish(&north.node, "set", 10, 30);
    until("a quorum of the newer head", || {
        quorum(&south.node, &feed) == Some(31)
    })
    .await;
    until("at its publisher as well", || {
        quorum(&north.node, &feed) == Some(31)
    })
    .await;
    let held = feed_of(&south.node, &feed);
    assert!(south.node.witness_quorum(&held, 31).unwrap());
    assert!(!south.node.witness_quorum(&held, 32).unwrap());
    for (_, witness) in &witnesses {
        assert!(witness.node.store().feeds().is_empty(), "no leaf is held");
        assert_eq!(witness.exchange.pulls(), 0, "and none was asked for");
    }
    assert!(south.exchange.pulls() > 0, "who reads asks");
    // Who showed it nothing is told nothing, not even that there is such a feed.
    let one = &witnesses[0].1.node;
    let heads = |said: Vec<Announcement>| {
        let is_head = |item: &Announcement| matches!(item, Announcement::Head(_));
        said.into_iter().filter(is_head).count()
    };
    let mut watch = told_to(Arc::clone(one), number(WEST));
    assert_eq!(heads(snapshot_of(&mut watch).await), 0);
    for knows in [NORTH, 5] {
        let mut watch = told_to(Arc::clone(one), number(knows));
        assert_eq!(heads(snapshot_of(&mut watch).await), 1, "{knows}");
    }
    drop(watch);
    for (_, one) in witnesses {
        one.stop().await;
    }
    // What they said is not forgotten, however much is signed while they are away.
    for n in 30..110 {
        publish(&north.node, "set", n, n + 1);
    }
    for node in [&north.node, &south.node] {
        until("the newest head", || {
            feed_of(node, &feed)
                .applied
                .is_some_and(|head| head.size == 111)
        })
        .await;
        let judged = node.judged(&feed_of(node, &feed)).unwrap();
        assert_eq!((judged.quorum, judged.stale), (Some(31), false));
    }
    south.stop().await;
    north.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_feed_that_forks_into_two_groups_reaches_the_threshold_on_either_side() {
    let coalition = ticking();
    let mut said = describe(&coalition, NORTH, "set");
    said.grants[0].relay = false;
    let one = Forged::with(&coalition, NORTH, &said, 400);
    let other = forked(&Forged::with(&coalition, NORTH, &said, 400), 200, 450);
    let feed = one.feed;
    let to_one = Hostile::start(&coalition, NORTH, one.script()).await;
    let to_other = Hostile::start_beside(&coalition, NORTH, other.script()).await;
    let south = listening(&coalition, SOUTH).await;
    let west = listening(&coalition, WEST).await;
    south.meet(&coalition, &to_one);
    west.meet(&coalition, &to_other);
    let mut witnesses = Vec::new();
    for member in WITNESSES {
        witnesses.push(listening(&coalition, member).await);
    }
    let [first, second, third, fourth] = &witnesses[..] else {
        panic!("four")
    };
    for witness in [first, second] {
        witness.meet(&coalition, &to_one);
        witness.meet_at(&coalition, SOUTH, &address(&south));
    }
    for witness in [third, fourth] {
        witness.meet(&coalition, &to_other);
        witness.meet_at(&coalition, WEST, &address(&west));
    }
    let (here, there) = ((400, one.root(400)), (450, other.root(450)));
    until("each group has its two cosignatures", || {
        let says = |witness: &Victim| says(&witness.node, &feed);
        [first, second].iter().all(|w| says(w) == Some(here))
            && [third, fourth].iter().all(|w| says(w) == Some(there))
    })
    .await;
    let stand = |reader: &Victim| {
        let held = reader.held(&feed).unwrap();
        let judged = reader.node.judged(&held).unwrap();
        judged.witnesses.values().flatten().count()
    };
    until("and its reader knows them", || {
        stand(&south) == 2 && stand(&west) == 2
    })
    .await;
    // Then everybody meets.
    let meet = |who: &Victim, member: u32, whom: &Victim| {
        let endpoint = Endpoint::parse(&address(whom)).unwrap();
        let card = coalition.card(member, 2, vec![endpoint]);
        // Others may have told of it already.
        let _ = who.node.membership().accept_card(card).unwrap();
    };
    meet(&south, WEST, &west);
    meet(first, 6, third);
    meet(second, WEST, &west);
    meet(fourth, SOUTH, &south);
    for node in witnesses.iter().chain([&south, &west]) {
        until("evidence at everybody", || {
            !node.node.store().evidence().unwrap().is_empty()
        })
        .await;
    }
    for (witness, expected) in witnesses.iter().zip([here, here, there, there]) {
        assert_eq!(
            says(&witness.node, &feed),
            Some(expected),
            "never the other"
        );
    }
    for reader in [&south, &west] {
        assert_eq!(quorum(&reader.node, &feed), None);
        assert_eq!(reader.held(&feed).unwrap().status, FeedStatus::Frozen);
    }
    for one in witnesses.into_iter().chain([south, west]) {
        one.rest().await;
    }
}

fn records_of(coalition: &Coalition) -> PathBuf {
    coalition.dir.path().join("witness/sign-state/witness")
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_whose_disk_was_restored_goes_by_what_its_readers_know_and_cosigns_no_fork() {
    restored(|_, _| ()).await;
}

/// A witness whose records come back as they were, with what becomes of its node before it
/// runs again.
pub(super) async fn restored(before: impl FnOnce(&Coalition, &Node)) {
    let coalition = ticking();
    let one = Forged::new(&coalition, NORTH, "set", 400);
    let other = forked(&one, 300, 450);
    let feed = one.feed;
    let script = Script {
        first: vec![one.head(200)],
        ..one.script()
    };
    let honest = Hostile::start(&coalition, NORTH, script).await;
    let south = listening(&coalition, SOUTH).await;
    south.meet(&coalition, &honest);
    let witness = listening(&coalition, WITNESS).await;
    witness.meet(&coalition, &honest);
    witness.meet_at(&coalition, SOUTH, &address(&south));
    until("the first head is cosigned", || {
        says(&witness.node, &feed) == Some((200, one.root(200)))
    })
    .await;
    let backup = coalition.dir.path().join("backup");
    copy(&records_of(&coalition), &backup);
    honest.says(one.head(400));
    let known = || {
        let held = south.held(&feed).unwrap();
        let judged = south.node.judged(&held).unwrap();
        judged.witnesses[&number(WITNESS)].is_some_and(|stand| stand.size == 400)
    };
    until("a reader knows of the second cosignature", known).await;
    witness.rest().await;
    drop(honest);
    // The disk comes back as it was, and the publisher shows another history.
    copy(&backup, &records_of(&coalition));
    let liar = Hostile::start_beside(&coalition, NORTH, other.script()).await;
    let node = coalition.open(WITNESS);
    before(&coalition, &node);
    let witness = Victim::start_of(&coalition, WITNESS, node, |options| {
        options.listen = Some("127.0.0.1:0".parse().unwrap());
        // Long enough for a reader that is there to be heard on a busy machine.
        options.confirm_wait = Duration::from_secs(10);
    })
    .await;
    let endpoint = Endpoint::parse(&liar.address).unwrap();
    let card = coalition.card(NORTH, 3, vec![endpoint]);
    assert!(witness.node.membership().accept_card(card).unwrap());
    until("the fork is proved", || {
        !witness.node.store().evidence().unwrap().is_empty()
    })
    .await;
    let said = says(&witness.node, &feed);
    assert!(
        said.is_none_or(|said| said == (400, one.root(400))),
        "{said:?}"
    );
    let recorded = witness.node.witnessing().unwrap().recorded();
    for (_, state) in recorded.into_iter().filter(|(id, _)| *id == feed) {
        assert!(state.size <= 400 && state.root == one.root(state.size));
    }
    witness.rest().await;
    south.rest().await;
}

/// A relay that holds north's set, with the cosignature of one witness at its head.
pub(super) async fn relayed(coalition: &Coalition) -> (Arc<Node>, FeedId) {
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", true), ("west", false)]);
    publish(&north, "set", 0, 10);
    let south = coalition.open(SOUTH);
    bring(&north, &south, &feed, false).await;
    (south, feed)
}

pub(super) fn cosigned_at(node: &Node, feed: &FeedId, at: UnixMillis) {
    let no = node.store().feed_no(feed).unwrap();
    let mut head = node.store().applied_head(no).unwrap().unwrap();
    let body = hashpact_core::note::Note::parse(head.note()).unwrap().text;
    let coalition = CoalitionName::parse(COALITION).unwrap();
    let name = checkpoint::witness_name(&coalition, &slug("witness"));
    let key = witness_key(WITNESS);
    let line = checkpoint::cosign(&body, &name, &key, at.0 / 1_000);
    head.cosignatures = vec![line.into()];
    node.store().put_head(no, &head).unwrap();
    node.cosignatures_changed(feed);
}

#[tokio::test]
async fn a_feed_becomes_stale_and_fresh_again_and_a_relay_serves_it_only_while_it_is_fresh() {
    let coalition = Coalition::witnessed();
    let (south, feed) = relayed(&coalition).await;
    let serves = async || {
        let request = all_of(&south, &feed);
        let leaves = pull(&south, WEST, request).await.is_ok();
        let to_publisher = pull(&south, NORTH, request).await.is_ok();
        let proof_only = PullRequest {
            proof_only: true,
            ..request
        };
        let proofs = pull(&south, WITNESS, proof_only).await.is_ok();
        assert!(to_publisher && proofs, "neither depends on it");
        leaves
    };
    let is_stale = || south.is_stale(&feed_of(&south, &feed)).unwrap();
    let alarm = || {
        let notices = south.status().unwrap().notices;
        notices.iter().any(|notice| notice.contains("STALE"))
    };
    assert!(!is_stale(), "there was no time to cosign it");
    coalition.clock.set(NOW.plus(FRESH_MS + 1));
    assert!(is_stale() && alarm() && !serves().await);
    cosigned_at(&south, &feed, NOW.plus(FRESH_MS + 1));
    assert!(!is_stale() && !alarm() && serves().await);
    coalition.clock.set(NOW.plus(2 * FRESH_MS));
    assert!(!is_stale() && serves().await);
    coalition.clock.set(NOW.plus(2 * FRESH_MS + 2_001));
    assert!(is_stale() && !serves().await);
}

#[tokio::test]
async fn without_a_witness_that_has_a_key_nothing_is_stale() {
    let coalition = Coalition::new();
    let (south, feed) = relayed(&coalition).await;
    coalition.clock.set(NOW.plus(100 * FRESH_MS));
    assert!(!south.is_stale(&feed_of(&south, &feed)).unwrap());
    assert!(pull(&south, WEST, all_of(&south, &feed)).await.is_ok());
}

#[tokio::test]
async fn of_anothers_feed_cosignatures_are_told_on_when_they_change_what_is_known() {
    let coalition = Coalition::witnessed();
    let (south, feed) = relayed(&coalition).await;
    let mut watch = told_to(Arc::clone(&south), number(WEST));
    snapshot_of(&mut watch).await;
    let again = |at| {
        cosigned_at(&south, &feed, at);
        south.hub().tell(hashpact_node::hub::Change::Head(feed));
    };
    again(NOW);
    let Announcement::Head(head) = next(&mut watch).await else {
        panic!("a head")
    };
    assert_eq!(head.cosignatures.len(), 1);
    again(NOW.plus(1_000));
    // A second later is no news.
    let nothing = tokio::time::timeout(Duration::from_millis(150), watch.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    coalition.clock.set(NOW.plus(11 * 60_000));
    again(NOW.plus(11 * 60_000));
    assert!(matches!(next(&mut watch).await, Announcement::Head(_)));
}
