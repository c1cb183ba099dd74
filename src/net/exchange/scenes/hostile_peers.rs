//! Peers that cut, stall or talk without end, and what a node then does.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::hostile::*;
use super::*;

const ENTRIES: u64 = 1_000;

impl Stage {
    /// The hostile relay is asked and gives nothing that counts; the publisher does.
    async fn comes_from_the_publisher(&self, victim: Victim) {
        until("the relay is asked", || self.hostile.pulls() > 0).await;
        assert_eq!(victim.applied(&self.feed), 0);
        victim.meet(&self.coalition, &self.honest);
        until("the publisher's leaves", || {
            victim.applied(&self.feed) == ENTRIES + 1
        })
        .await;
        assert_eq!(victim.answers(ENTRIES - 1), 1);
        assert!(victim.refused(&self.honest).is_empty());
        victim.stop(&self.coalition).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_a_pull_and_says_nothing_is_left_for_another() {
    let stage = Stage::new(ENTRIES).await;
    stage.hostile.plays(Script {
        give: Some(Arc::new(|_, _| Some(Box::pin(stream::pending())))),
        ..Script::default()
    });
    let victim = Victim::start(&stage.coalition).await;
    victim.meet(&stage.coalition, &stage.hostile);
    stage.comes_from_the_publisher(victim).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_ends_every_pull_with_an_error_is_left_for_another() {
    let stage = Stage::new(ENTRIES).await;
    stage.hostile.plays(Script {
        give: Some(Arc::new(|_, _| {
            Some(Box::pin(stream::iter([Err(ServiceError::Internal)])))
        })),
        ..Script::default()
    });
    let victim = Victim::start(&stage.coalition).await;
    victim.meet(&stage.coalition, &stage.hostile);
    stage.comes_from_the_publisher(victim).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_with_every_pull_is_left_for_another() {
    let stage = Stage::new(ENTRIES).await;
    stage.hostile.plays(Script {
        give: Some(Arc::new(|caller, _| {
            caller.cut();
            Some(Box::pin(stream::pending()))
        })),
        ..Script::default()
    });
    let victim = Victim::start(&stage.coalition).await;
    victim.meet(&stage.coalition, &stage.hostile);
    stage.comes_from_the_publisher(victim).await;
}

/// Passes bytes on, and cuts each connection after so many towards the client.
async fn cutter(to: String, after: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&to).await.unwrap();
            let (mut near_read, mut near_write) = near.into_split();
            let (far_read, mut far_write) = far.into_split();
            let mut far_read = far_read.take(after.load(Ordering::SeqCst));
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy(&mut near_read, &mut far_write) => {}
                    _ = tokio::io::copy(&mut far_read, &mut near_write) => {}
                }
                let _ = near_write.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_cut_within_a_chunk_stores_nothing_and_goes_on_later() {
    let stage = Stage::new(ENTRIES).await;
    let after = Arc::new(AtomicU64::new(40_000));
    let address = cutter(stage.hostile.address.clone(), Arc::clone(&after)).await;
    let victim = Victim::start(&stage.coalition).await;
    victim.meet_at(&stage.coalition, WEST, &address);
    until("it was cut twice", || stage.hostile.pulls() >= 2).await;
    assert_eq!(victim.stored(&stage.feed), 0);
    assert!(
        victim.refused(&stage.hostile).is_empty(),
        "a cut is no lie: {:?}",
        victim.refused(&stage.hostile)
    );
    after.store(u64::MAX, Ordering::SeqCst);
    until("all is there", || {
        victim.applied(&stage.feed) == ENTRIES + 1
    })
    .await;
    victim.stop(&stage.coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_another_coalition_is_not_watched() {
    let stage = Stage::new(ENTRIES).await;
    stage.hostile.plays(Script {
        hello: Some(|mut told| {
            told.genesis = Digest::of(b"another coalition");
            told
        }),
        ..Script::default()
    });
    let victim = Victim::start(&stage.coalition).await;
    victim.meet(&stage.coalition, &stage.hostile);
    until("why is shown", || {
        let peers = victim.node.exchange().unwrap().peers();
        peers
            .iter()
            .any(|peer| peer.last_error.0 == "wrong_genesis")
    })
    .await;
    assert_eq!(stage.hostile.pulls(), 0);
    victim.stop(&stage.coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_announcements_holds_nobody_else_up() {
    let stage = Stage::new(ENTRIES).await;
    let flood: Vec<Announcement> = (0..50_000_u64)
        .map(|n| {
            let feed = FeedId(Digest::of(&n.to_be_bytes()));
            told(feed, WEST, note(feed, NORTH, 9, Digest::of(b"root")))
        })
        .collect();
    stage.hostile.plays(Script {
        first: flood,
        ..Script::default()
    });
    let victim = Victim::start(&stage.coalition).await;
    victim.meet(&stage.coalition, &stage.hostile);
    let what = "the flood";
    victim
        .refuses(what, &stage.hostile, &["bad_signature"])
        .await;
    let began = std::time::Instant::now();
    victim.meet(&stage.coalition, &stage.honest);
    until("the publisher's leaves", || {
        victim.applied(&stage.feed) == ENTRIES + 1
    })
    .await;
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    assert_eq!(victim.node.store().feeds().len(), 1);
    victim.stop(&stage.coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_feeds_than_a_publisher_may_have_are_refused() {
    let stage = Stage::new(ENTRIES).await;
    let heads = (0..50_u64).map(|n| {
        let feed = FeedId(Digest::of(&n.to_be_bytes()));
        told(feed, WEST, note(feed, WEST, 9, Digest::of(b"root")))
    });
    stage.hostile.plays(Script {
        first: heads.collect(),
        ..Script::default()
    });
    let victim = Victim::start_with(&stage.coalition, |options| {
        options.pull.feeds_per_publisher_max = 8;
        // Feeds that do not exist take no room of those that do.
        options.pull.feeds_max = 16;
    })
    .await;
    victim.meet(&stage.coalition, &stage.hostile);
    let codes = ["rate_limited"];
    victim.refuses("too many", &stage.hostile, &codes).await;
    until("the relayed feed", || {
        victim.applied(&stage.feed) == ENTRIES + 1
    })
    .await;
    assert_eq!(victim.node.store().feeds().len(), 1);
    victim.stop(&stage.coalition).await;
}
