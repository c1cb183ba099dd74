//! Connections that make way for others, and keys that do: no pull fails by it.

use hashpact_core::card::{Endpoint, FeedKey, SetScope};
use hashpact_core::envelope::{Envelope, EnvelopeDraft, PayloadType};
use hashpact_core::keys::{Feed, Identity};

use super::live::{Live, Running, until, verify};
use super::*;

/// Publishes in parts while `disturb` is called between them.
async fn publish_in_parts(north: &Running, readers: &[&Running], mut disturb: impl FnMut()) {
    let feed = north.node.store().feeds()[0].id;
    for part in 0..8 {
        publish(&north.node, "confirmed", part * 10_000, (part + 1) * 10_000);
        tokio::time::sleep(Duration::from_millis(60)).await;
        disturb();
    }
    for reader in readers {
        until("the readers have it", || reader.size(&feed) == 80_001).await;
        assert_eq!(reader.exchange.failed_pulls(), 0, "a pull failed");
        verify(&reader.node);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_renewed_under_load_and_no_pull_fails() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    create_set(&north.node, "confirmed", &[("all", false)]);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south is connected", || {
        let peers = south.node.exchange().unwrap().peers();
        peers.iter().any(|peer| peer.state == "connected")
    })
    .await;
    let before: Vec<_> = north.exchange.connections().open();
    let mut turn = 0;
    publish_in_parts(&north, &[&south], || {
        turn += 1;
        if turn == 2 {
            assert!(north.exchange.connections().renew(|_| true) > 0);
        }
        if turn == 5 {
            south.exchange.connections().renew(|_| true);
        }
    })
    .await;
    until("the old ones have gone", || {
        before.iter().all(crate::Connection::is_closed)
    })
    .await;
    assert_eq!(south.exchange.failed_pulls(), 0);
    assert!(!north.exchange.connections().open().is_empty());
    south.stop().await;
    north.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_be_called_on_are_renewed_under_load_and_no_pull_fails() {
    renewed_to_be_called_on(NORTH).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_calls_on_what_a_peer_dialled_gets_another_when_it_asks_and_no_pull_fails() {
    renewed_to_be_called_on(SOUTH).await;
}

/// North dials to be called, and one of both asks for another connection.
async fn renewed_to_be_called_on(asks: u32) {
    let mut live = Live::new();
    let (north, south) = (live.run_outbound_only(NORTH).await, live.run(SOUTH).await);
    create_set(&north.node, "confirmed", &[("all", false)]);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    let called = |running: &Running| {
        let open = running.exchange.connections().open();
        open.into_iter()
            .filter(|one| !one.is_served())
            .collect::<Vec<_>>()
    };
    until("south may call", || called(&south).len() == 1).await;
    let before = called(&south);
    let mut turn = 0;
    publish_in_parts(&north, &[&south], || {
        turn += 1;
        if turn == 2 {
            let asking = if asks == NORTH { &north } else { &south };
            asking.exchange.connections().renew(|_| true);
        }
    })
    .await;
    until("the old one has gone", || before[0].is_closed()).await;
    until("another stands", || called(&south).len() == 1).await;
    assert_eq!(south.exchange.failed_pulls(), 0);
    south.stop().await;
    north.stop().await;
}

fn other_feed_key() -> SecretKey<Feed> {
    SecretKey::from_seed(&[77; 32])
}

/// A card of north with these feed keys, signed by all of them.
fn card_with_feed_keys(
    live: &Live,
    version: u64,
    endpoint: &Endpoint,
    keys: &[SecretKey<Feed>],
) -> Bytes {
    let card = live.coalition.card_with(NORTH, version, |card| {
        card.nodes[0].endpoints = vec![endpoint.clone()];
        let listed = keys.iter().map(|key| FeedKey {
            key: key.public(),
            sets: SetScope::All,
        });
        card.nodes[0].feed_keys = listed.collect();
    });
    let envelope = Envelope::decode(card, PayloadType::NodeCard).unwrap();
    let mut draft = EnvelopeDraft::resume(&envelope);
    for key in keys {
        draft.sign(key);
    }
    let identity = SecretKey::<Identity>::from_seed(&key_seed(NORTH, 2));
    draft.sign(&identity);
    draft.finish().unwrap().as_bytes().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_key_is_replaced_while_readers_pull_and_relays_hand_out_the_new_signature() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    let feed = create_set(
        &north.node,
        "confirmed",
        &[("south", true), ("west", false)],
    );
    publish(&north.node, "confirmed", 0, 100);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south has it", || south.answers(99) == 1).await;
    let address = north.exchange.local_addr().unwrap().to_string();
    let endpoint = Endpoint::parse(&address).unwrap();
    let old = || SecretKey::<Feed>::from_seed(&key_seed(NORTH, 3));
    let both = card_with_feed_keys(&live, 10, &endpoint, &[old(), other_feed_key()]);
    north.node.membership().accept_card(both).unwrap();
    let note = |running: &Running| {
        let held = feed_of(&running.node, &feed);
        running
            .node
            .store()
            .applied_head(held.no)
            .unwrap()
            .unwrap()
            .note()
            .clone()
    };
    let before = note(&north);
    north.node.publisher().use_feed_key(other_feed_key());
    north.node.publisher().resign_heads().unwrap();
    let after = note(&north);
    assert_ne!(before, after);
    until("south keeps the new signature", || note(&south) == after).await;
    // The old one, told again by whomever, does not come back.
    north.node.publisher().use_feed_key(old());
    north.node.publisher().resign_heads().unwrap();
    publish(&north.node, "confirmed", 100, 101);
    until("south has one more", || south.answers(100) == 1).await;
    north.node.publisher().use_feed_key(other_feed_key());
    north.node.publisher().resign_heads().unwrap();
    let last = note(&north);
    until("south keeps that of the newer key", || note(&south) == last).await;
    // The old key leaves the card; the publisher goes away; a newcomer reads from the
    // relay.
    let only = card_with_feed_keys(&live, 11, &endpoint, &[other_feed_key()]);
    north.node.membership().accept_card(only.clone()).unwrap();
    until("south knows the card", || {
        let state = south.node.membership().state();
        let card = state.cards.newest(number(NORTH)).unwrap();
        card.card().version == 11
    })
    .await;
    assert_eq!(south.exchange.failed_pulls(), 0);
    north.stop().await;
    let west = live.run(WEST).await;
    west.node.membership().accept_card(only).unwrap();
    live.introduce(&[(SOUTH, &south), (WEST, &west)]);
    until("west has it from south", || west.answers(100) == 1).await;
    verify(&west.node);
    verify(&south.node);
    west.stop().await;
    south.stop().await;
}
