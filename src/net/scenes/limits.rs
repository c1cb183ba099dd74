//! Limits of connections, calls and streams.

use futures_util::StreamExt as _;
use std::time::{Duration, Instant};

use super::{HIDDEN, OVERSIZE, PATIENCE, PLAIN, Scene, feed, node_info, pull_of, quick, until};
use crate::peer::PeerStatus;
use crate::{NetError, PeerRefusal, Settings};

fn refusal(error: NetError) -> PeerRefusal {
    let NetError::Peer(refusal) = error else {
        panic!("{error:?}")
    };
    refusal
}

#[tokio::test]
async fn connections_of_a_member_are_capped() {
    let scene = Scene::new(quick()).await;
    let mut peers = Vec::new();
    for _ in 0..4 {
        let peer = scene.dial().await;
        peer.hello(&node_info()).await.unwrap();
        peers.push(peer);
    }
    let fifth = match scene.try_dial(&scene.caller).await {
        Ok(peer) => peer.hello(&node_info()).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(fifth.is_err());
    assert_eq!(scene.connections.open().len(), 4);
    peers.pop();
    until("the place is free", || scene.connections.open().len() == 3).await;
    assert!(scene.dial().await.hello(&node_info()).await.is_ok());
}

#[tokio::test]
async fn a_cut_ends_every_stream_of_the_connection() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    let mut pull = peer.pull(&pull_of(PLAIN, 1 << 30)).await.unwrap();
    let mut watch = peer
        .watch(Box::pin(futures_util::stream::pending()))
        .await
        .unwrap();
    assert!(pull.next().await.unwrap().is_ok());
    let member = scene.caller.peer.member;
    assert_eq!(scene.connections.cut(|open| open.peer.member == member), 1);
    let ends = async {
        while let Some(Ok(_)) = pull.next().await {}
        while let Some(Ok(_)) = watch.next().await {}
    };
    tokio::time::timeout(PATIENCE, ends).await.unwrap();
    until("the connection is gone", || {
        scene.connections.open().is_empty()
    })
    .await;
    assert!(peer.hello(&node_info()).await.is_err());
}

#[tokio::test]
async fn a_suspended_member_may_say_hello_and_read_the_roster_only() {
    let scene = Scene::new(quick()).await;
    let suspended = scene.caller.with_status(PeerStatus::Suspended);
    scene.table.replace([scene.server.peer.clone(), suspended]);
    let peer = scene.dial().await;
    assert!(peer.hello(&node_info()).await.is_ok());
    assert_eq!(peer.roster(1).await.unwrap().count().await, 3);
    let pull = peer.pull(&pull_of(PLAIN, 1024)).await;
    assert_eq!(refusal(pull.err().unwrap()).code, "not_active");
    let watch = peer.watch(Box::pin(futures_util::stream::pending())).await;
    assert_eq!(refusal(watch.err().unwrap()).code, "not_active");
}

#[tokio::test]
async fn a_suspension_ends_a_pull_before_its_next_chunk() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    let mut pull = peer.pull(&pull_of(PLAIN, 1 << 30)).await.unwrap();
    assert!(pull.next().await.unwrap().is_ok());
    let suspended = scene.caller.with_status(PeerStatus::Suspended);
    scene.table.replace([scene.server.peer.clone(), suspended]);
    let error = loop {
        match pull.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refusal(error).code, "not_active");
}

#[tokio::test]
async fn a_key_that_left_the_cards_loses_its_connection() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    peer.hello(&node_info()).await.unwrap();
    scene.table.replace([scene.server.peer.clone()]);
    assert!(peer.hello(&node_info()).await.is_err());
    until("the connection is gone", || {
        scene.connections.open().is_empty()
    })
    .await;
}

#[tokio::test]
async fn calls_beyond_the_rate_are_refused_with_a_time_to_come_back() {
    let settings = Settings {
        calls_per_second: 1,
        calls_burst: 3,
        ..quick()
    };
    let scene = Scene::new(settings).await;
    let peer = scene.dial().await;
    // Each second that passes allows one more.
    let began = Instant::now();
    let mut answered = 0;
    let refused = loop {
        match peer.hello(&node_info()).await {
            Ok(_) => answered += 1,
            Err(error) => break refusal(error),
        }
        assert!(answered <= 4 + began.elapsed().as_secs());
    };
    assert!(answered >= 3, "{answered}");
    assert_eq!(refused.code, "busy");
    assert!(refused.retry_after.unwrap() <= Duration::from_secs(1));
}

#[tokio::test]
async fn what_is_hidden_and_what_does_not_exist_get_the_same_answer() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    let hidden = peer.pull(&pull_of(HIDDEN, 1024)).await.err().unwrap();
    let absent = peer.pull(&pull_of(feed(9), 1024)).await.err().unwrap();
    let (hidden, absent) = (refusal(hidden), refusal(absent));
    assert_eq!(hidden, absent);
    assert_eq!(hidden.code, "not_found");
    assert_eq!(hidden.message, "not found");
}

#[tokio::test]
async fn a_reader_that_stalls_loses_its_connection() {
    let settings = Settings {
        progress_timeout: Duration::from_secs(1),
        ..quick()
    };
    let scene = Scene::new(settings).await;
    let peer = scene.dial().await;
    // Far more than the windows hold, and nobody reads.
    let _pull = peer.pull(&pull_of(PLAIN, 1 << 30)).await.unwrap();
    until("the server gives up", || {
        scene.connections.open().is_empty()
    })
    .await;
    assert!(peer.hello(&node_info()).await.is_err());
}

#[tokio::test]
async fn a_message_above_the_limit_is_never_sent() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    let mut pull = peer.pull(&pull_of(OVERSIZE, 1024)).await.unwrap();
    let refused = pull.next().await.unwrap();
    assert!(refused.is_err(), "{refused:?}");
    assert!(peer.hello(&node_info()).await.is_ok());
}

#[tokio::test]
async fn a_connection_has_one_watch() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    let silent = || Box::pin(futures_util::stream::pending());
    let first = peer.watch(silent()).await.unwrap();
    let second = peer.watch(silent()).await;
    assert_eq!(refusal(second.err().unwrap()).code, "busy");
    drop(first);
    let free = async {
        while peer.watch(silent()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let freed = tokio::time::timeout(PATIENCE, free).await;
    assert!(freed.is_ok(), "the watch is never free");
}

#[tokio::test]
async fn a_connection_of_age_is_closed_after_its_grace() {
    let settings = Settings {
        connection_age: Duration::from_secs(2),
        connection_age_grace: Duration::from_millis(200),
        ..quick()
    };
    let scene = Scene::new(settings).await;
    let peer = scene.dial().await;
    let mut watch = peer
        .watch(Box::pin(futures_util::stream::pending()))
        .await
        .unwrap();
    let ends = async { while let Some(Ok(_)) = watch.next().await {} };
    tokio::time::timeout(PATIENCE, ends).await.unwrap();
    assert!(peer.hello(&node_info()).await.is_err());
}

#[tokio::test]
async fn a_server_that_stops_gives_streams_their_grace_and_no_more() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    let _watch = peer
        .watch(Box::pin(futures_util::stream::pending()))
        .await
        .unwrap();
    scene.stop.cancel();
    let served = tokio::time::timeout(PATIENCE, scene.serving).await;
    assert!(served.unwrap().unwrap().is_ok());
}
