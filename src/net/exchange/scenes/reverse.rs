//! Members that nobody can dial: they dial, and are called on what they dialled.

use hashpact_core::limits::CLOCK_SKEW_MS;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::live::{Live, Running, until, verify};
use super::*;
use crate::connections::Connection;
use crate::tls::CallingSide;

/// The connections of a node on which it calls a peer that dialled.
fn called(running: &Running) -> Vec<Connection> {
    let mut open = running.exchange.connections().open();
    open.retain(|one| one.caller == CallingSide::Dialled && !one.is_served());
    open
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_that_only_dials_publishes_and_retracts_reaches_those_it_dials() {
    let mut live = Live::new();
    let north = live.run_outbound_only(NORTH).await;
    assert!(north.exchange.local_addr().is_none());
    let (south, west) = (live.run(SOUTH).await, live.run(WEST).await);
    let feed = create_set(&north.node, "confirmed", &[("all", false)]);
    let private = create_set(&north.node, "private", &[("west", false)]);
    publish(&north.node, "confirmed", 0, 3_000);
    publish(&north.node, "private", 5_000, 5_001);
    live.introduce(&[(NORTH, &north), (SOUTH, &south), (WEST, &west)]);
    for reader in [&south, &west] {
        until("readers answer", || reader.answers(2_999) == 1).await;
    }
    until("west answers", || west.answers(5_000) == 1).await;
    publish(&north.node, "confirmed", 3_000, 3_001);
    retract(&north.node, "confirmed", 5..6);
    for reader in [&south, &west] {
        until("one more is answered", || reader.answers(3_000) == 1).await;
        until("one is taken back", || reader.answers(5) == 0).await;
        assert_eq!(reader.size(&feed), 3_003);
        until("one way to call it", || called(reader).len() == 1).await;
        let peers = reader.node.exchange().unwrap().peers();
        let row = peers.iter().find(|row| row.slug.as_str() == "north");
        assert_eq!(row.map(|row| row.state), Some("connected"));
        until("readers are ready", || reader.node.is_ready()).await;
        verify(&reader.node);
    }
    // Who may read is decided as on any other connection.
    assert!(south.node.store().feed_no(&private).is_none());
    assert_eq!(south.answers(5_000), 0);
    for running in [south, west, north] {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_only_dial_reach_one_another_through_a_relay_that_may() {
    let mut live = Live::new();
    let (north, west) = (
        live.run_outbound_only(NORTH).await,
        live.run_outbound_only(WEST).await,
    );
    let south = live.run(SOUTH).await;
    create_set(&north.node, "relayed", &[("south", true), ("west", false)]);
    let direct = create_set(&north.node, "direct", &[("south", false), ("west", false)]);
    publish(&north.node, "relayed", 0, 100);
    publish(&north.node, "direct", 100, 200);
    live.introduce(&[(NORTH, &north), (SOUTH, &south), (WEST, &west)]);
    until("west has it from south", || west.answers(99) == 1).await;
    retract(&north.node, "relayed", 7..8);
    until("the retraction arrives", || west.answers(7) == 0).await;
    until("south has the other", || south.answers(199) == 1).await;
    // Without leave to relay there is no way from one to the other.
    assert_eq!(west.answers(199), 0);
    assert!(west.node.store().feed_no(&direct).is_none());
    verify(&west.node);
    for running in [south, west, north] {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_be_called_on_comes_back_after_a_cut_and_the_set_goes_on() {
    let mut live = Live::new();
    let (north, south) = (live.run_outbound_only(NORTH).await, live.run(SOUTH).await);
    create_set(&north.node, "confirmed", &[("all", false)]);
    publish(&north.node, "confirmed", 0, 10);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south answers", || south.answers(9) == 1).await;
    for cut_by in [&north, &south] {
        cut_by.exchange.connections().cut(|_| true);
        let next = south.size(&feed_named(&south, "confirmed")) + 100;
        publish(&north.node, "confirmed", next, next + 1);
        until("south answers again", || south.answers(next) == 1).await;
    }
    verify(&south.node);
    south.stop().await;
    north.stop().await;
}

fn feed_named(running: &Running, set: &str) -> FeedId {
    let feeds = running.node.store().feeds();
    let named = |feed: &&FeedInfo| {
        let leaf = feed.describe.as_ref().map(|(_, payload)| payload.clone());
        leaf.is_some_and(|leaf| String::from_utf8_lossy(&leaf).contains(set))
    };
    feeds.iter().find(named).unwrap().id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_member_is_called_no_more_on_what_it_dialled_or_dials_again() {
    let mut live = Live::new();
    let (north, south) = (live.run_outbound_only(NORTH).await, live.run(SOUTH).await);
    create_set(&north.node, "confirmed", &[("all", false)]);
    publish(&north.node, "confirmed", 0, 10);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south answers", || south.answers(9) == 1).await;
    until("a connection", || called(&south).len() == 1).await;
    let before = called(&south).remove(0);
    suspend(&south.node, NORTH);
    until("the connection is cut", || before.is_closed()).await;
    publish(&north.node, "confirmed", 10, 11);
    // It dials again, for it does not know yet, and is not called.
    until("north learns of it", || {
        let state = north.node.membership().state();
        let now = north.node.clock().now();
        let chain = state.chain.as_ref().unwrap();
        state.suspensions.in_force(chain, now).next().is_some()
    })
    .await;
    assert!(called(&south).iter().all(Connection::is_closed));
    assert_eq!(south.answers(10), 0);
    assert_eq!(south.answers(9), 1, "what it said stands");
    south.stop().await;
    north.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_card_ran_out_is_called_no_more() {
    let mut live = Live::new();
    let (north, south) = (live.run_outbound_only(NORTH).await, live.run(SOUTH).await);
    create_set(&south.node, "ours", &[("all", false)]);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("a connection", || called(&south).len() == 1).await;
    let before = called(&south).remove(0);
    let end = south.node.clock().now().plus(2_000);
    let card = live.coalition.card_with(NORTH, 3, |card| {
        card.issued = UnixMillis(end.0 - 2 * CLOCK_SKEW_MS);
        card.expires = UnixMillis(end.0 - CLOCK_SKEW_MS);
    });
    assert!(south.node.membership().accept_card(card).unwrap());
    until("it has run out", || south.node.clock().now() > end).await;
    // Whatever makes the node look who may stand.
    let other = live.coalition.card(WEST, 3, Vec::new());
    assert!(south.node.membership().accept_card(other).unwrap());
    until("the connection is cut", || before.is_closed()).await;
    // It dials again, for the roster, and is not called.
    until("nobody is called", || called(&south).is_empty()).await;
    south.stop().await;
    north.stop().await;
}

/// An HTTP proxy that knows CONNECT and nothing else; tells what it was asked for.
async fn proxy() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (told, asked) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let told = told.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(client.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap();
                let target = request.strip_prefix("CONNECT ").unwrap();
                let target = target.split(' ').next().unwrap().to_owned();
                let mut server = TcpStream::connect(&target).await.unwrap();
                let answer = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n";
                client.write_all(answer).await.unwrap();
                let _ = told.send(target).await;
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_behind_a_proxy_is_heard_and_pulled_from_through_it() {
    let mut live = Live::new();
    let (address, mut asked) = proxy().await;
    let north = live
        .run_with(NORTH, |options| {
            options.listen = None;
            options.proxy = Some(address);
        })
        .await;
    let south = live.run(SOUTH).await;
    create_set(&north.node, "confirmed", &[("all", false)]);
    create_set(&south.node, "theirs", &[("all", false)]);
    publish(&north.node, "confirmed", 0, 100);
    publish(&south.node, "theirs", 200, 300);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south answers", || south.answers(99) == 1).await;
    until("north answers", || north.answers(299) == 1).await;
    let listening = south.exchange.local_addr().unwrap().to_string();
    for _ in 0..2 {
        assert_eq!(asked.recv().await, Some(listening.clone()));
    }
    let open = north.exchange.connections().open();
    assert!(open.iter().all(|one| one.address.to_string() != listening));
    south.stop().await;
    north.stop().await;
}
