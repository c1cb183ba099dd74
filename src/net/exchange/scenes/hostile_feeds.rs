//! Feeds that are signed as they should be and wrong inside: a hostile publisher's.

use hashpact_core::leaf::{DESCRIBE, RawLeaf};
use hashpact_core::page;

use super::hostile::*;
use super::*;
use crate::types::GrantEnded;

/// A first leaf that is not this feed's, by name, and how it is refused.
fn strangers(coalition: &Coalition) -> Vec<(&'static str, Forged, &'static str)> {
    let good = Forged::new(coalition, NORTH, "set", 20);
    let mut other_id = good.clone();
    other_id.feed = FeedId(Digest::of(b"another feed"));
    let mut other_leaf = good.clone();
    other_leaf.leaves[0] = publish_leaf(0);
    let payload = other_leaf.leaves[0].payload().unwrap();
    other_leaf.feed = FeedId::derive(&coalition.genesis, &slug("north"), payload);
    let mut elsewhere = describe(coalition, NORTH, "set");
    elsewhere.genesis = Digest::of(b"another coalition");
    let elsewhere = Forged::with(coalition, NORTH, &elsewhere, 20);
    let others = describe(coalition, WEST, "set");
    let others = Forged::with(coalition, NORTH, &others, 20);
    let mut of_other = Forged::new(coalition, WEST, "set", 20);
    of_other.publisher = NORTH;
    vec![
        ("another feed id", other_id, "wrong_first_leaf"),
        ("no describe leaf first", other_leaf, "wrong_first_leaf"),
        ("another coalition's", elsewhere, "wrong_genesis"),
        ("another member's name", others, "invalid"),
        ("another member's feed", of_other, "wrong_first_leaf"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_leaf_that_is_not_the_feeds_is_refused() {
    let coalition = ticking();
    let hostile = Hostile::start(&coalition, NORTH, Script::default()).await;
    for (what, forged, code) in strangers(&coalition) {
        hostile.plays(forged.script());
        let victim = Victim::start(&coalition).await;
        victim.meet(&coalition, &hostile);
        victim.refuses(what, &hostile, &[code]).await;
        assert!(victim.held(&forged.feed).is_none(), "{what}");
        assert_eq!(victim.answers(1), 0, "{what}");
        victim.stop(&coalition).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_of_an_unknown_kind_is_stored_counted_and_relayed() {
    let coalition = ticking();
    let mut forged = Forged::new(&coalition, NORTH, "set", 600);
    let unknown = RawLeaf::new(77, Bytes::from_static(b"of a later version"));
    forged.leaves[300] = unknown.clone();
    let hostile = Hostile::start(&coalition, NORTH, forged.script()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    until("all is there", || victim.applied(&forged.feed) == 600).await;
    let held = victim.held(&forged.feed).unwrap();
    assert_eq!(held.counts.unknown, 1);
    assert_eq!((victim.answers(299), victim.answers(301)), (1, 1));
    assert!(victim.refused(&hostile).is_empty());
    let request = all_of(&victim.node, &forged.feed);
    let parts = pull(&victim.node, WEST, request).await.unwrap();
    let leaves: Vec<RawLeaf> = verified(&parts, &request)
        .iter()
        .flat_map(|chunk| chunk.leaves().map(|(_, leaf)| leaf.clone()))
        .collect();
    assert_eq!(leaves[300], unknown);
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_only_set_is_never_announced_nor_served() {
    let coalition = ticking();
    let honest = Hostile::start(&coalition, NORTH, Script::default()).await;
    let shared = create_set(&honest.node, "shared", &[("all", true)]);
    publish(&honest.node, "shared", 0, 10);
    let new = NewSet {
        set: slug("bought"),
        title: "A bought list".to_owned(),
        source: SetSource::ThirdParty {
            list_owner: "a vendor".to_owned(),
            may_share: false,
            terms: "not to be passed on".to_owned(),
        },
        classification_scheme: "tc".to_owned(),
        grants: Vec::new(),
    };
    let local = honest.node.create_set(&new).unwrap().feed;
    publish(&honest.node, "bought", 20, 30);
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &honest);
    until("what is shared", || victim.answers(9) == 1).await;
    publish(&honest.node, "bought", 30, 40);
    publish(&honest.node, "shared", 10, 11);
    until("one more", || victim.answers(10) == 1).await;
    assert!(victim.node.exchange().unwrap().feed(&local).is_none());
    assert!(victim.node.exchange().unwrap().feed(&shared).is_some());
    assert_eq!((victim.answers(20), victim.answers(30)), (0, 0));
    let asked = pull(&honest.node, SOUTH, all_of(&honest.node, &local)).await;
    assert!(matches!(asked, Err(ServiceError::Rejected(_))));
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_ended_and_was_given_again_is_not_ended_by_a_replay() {
    let coalition = ticking();
    let mut forged = Forged::new(&coalition, NORTH, "set", 32);
    let mut ending = describe(&coalition, NORTH, "set");
    ending.grants.clear();
    forged.leaves[16] = RawLeaf::new(DESCRIBE, ending.encode([8; 16]).unwrap());
    let granting = describe(&coalition, NORTH, "set");
    forged.leaves[24] = RawLeaf::new(DESCRIBE, granting.encode([9; 16]).unwrap());
    let first = Script {
        first: vec![forged.head(9)],
        ..forged.script()
    };
    let publisher = Hostile::start(&coalition, NORTH, first).await;
    let relay = Hostile::start(&coalition, WEST, Script::default()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &publisher);
    victim.meet(&coalition, &relay);
    until("the first part", || victim.applied(&forged.feed) == 9).await;
    until("both are watched", || {
        let peers = victim.node.exchange().unwrap().peers();
        let connected = |peer: &&hashpact_node::model::PeerView| peer.state == "connected";
        peers.iter().filter(connected).count() >= 2
    })
    .await;
    // It has told of the rest, and is slow to give it.
    publisher.plays(Script::default());
    publisher.says(forged.head(32));
    until("the rest is heard of", || {
        let row = victim.node.exchange().unwrap().feed(&forged.feed);
        row.is_some_and(|row| row.newest == 32)
    })
    .await;
    let Announcement::Head(head) = forged.head(32) else {
        unreachable!("a head is made");
    };
    relay.says(Announcement::GrantEnded(Box::new(GrantEnded {
        head: *head,
        index: 16,
        leaf: page::encode_plain(&forged.leaves[16..17]).unwrap(),
        inclusion: forged.inclusion(16, 32),
    })));
    relay.says(told(forged.feed, NORTH, b"nothing".to_vec()));
    victim.refuses("the marker", &relay, &["malformed"]).await;
    assert_eq!(victim.applied(&forged.feed), 9, "nothing was dropped");
    assert_eq!(victim.answers(5), 1);
    victim.stop(&coalition).await;
}
