//! After a start a publisher asks all that it can reach before it signs: one reader
//! that is old, or lies, opens nothing.

use super::live::{Live, Running, copy, until};
use super::*;

/// A publisher and two readers. South stays at ten entries, West has twenty, and the
/// publisher's disk has gone back to ten, sign-state and all.
struct Restored {
    live: Live,
    north: Running,
    south: Running,
    west: Running,
    feed: FeedId,
}

const SIZE: u64 = 21;

impl Restored {
    async fn new(confirm_wait: Duration) -> Self {
        let mut live = Live::new();
        let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
        let feed = create_set(&north.node, "set", &[("south", true), ("west", true)]);
        publish(&north.node, "set", 0, 10);
        live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
        until("south has ten", || south.answers(9) == 1).await;
        south.stop().await;
        north.stop().await;
        let folder = live.coalition.dir.path().join("north");
        let backup = live.coalition.dir.path().join("backup");
        copy(&folder, &backup);
        let (north, west) = (live.run(NORTH).await, live.run(WEST).await);
        north.node.confirm_head(&slug("set"), "a test").unwrap();
        publish(&north.node, "set", 10, 20);
        live.introduce(&[(NORTH, &north), (WEST, &west)]);
        until("west has twenty", || west.answers(19) == 1).await;
        north.stop().await;
        std::fs::remove_dir_all(&folder).unwrap();
        copy(&backup, &folder);
        let south = live.run(SOUTH).await;
        let north = live.run_with(NORTH, |options| {
            options.confirm_wait = confirm_wait;
            options.settings.handshake_timeout = Duration::from_secs(120);
        });
        let north = north.await;
        Self {
            live,
            north,
            south,
            west,
            feed,
        }
    }

    fn closed(&self) -> Option<String> {
        self.north.node.publisher().closed(&self.feed)
    }

    async fn until_closed_by(&self, words: &str) {
        let says = || self.closed().is_some_and(|why| why.contains(words));
        until(words, says).await;
    }

    async fn stop(self) {
        self.north.stop().await;
        self.south.stop().await;
        self.west.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_reader_that_is_behind_opens_no_restored_set_while_another_is_being_asked() {
    let mut scene = Restored::new(Duration::from_secs(3_600)).await;
    // West takes the connection and says nothing yet.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string();
    scene.live.tell_address(&scene.north, WEST, &address);
    scene
        .live
        .introduce(&[(NORTH, &scene.north), (SOUTH, &scene.south)]);
    scene.until_closed_by("waiting for west/n1").await;
    let refused = scene.north.node.import(&slug("set"));
    assert!(refused.is_err(), "south alone opens nothing");
    drop(refused);
    scene
        .live
        .introduce(&[(NORTH, &scene.north), (WEST, &scene.west)]);
    until("north has its leaves back", || {
        scene.north.size(&scene.feed) == SIZE
    })
    .await;
    until("north may publish", || scene.closed().is_none()).await;
    publish(&scene.north.node, "set", 20, 21);
    until("west has one more", || scene.west.answers(20) == 1).await;
    let status = feed_of(&scene.west.node, &scene.feed).status;
    assert_eq!(status, hashpact_store::FeedStatus::Active, "one history");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_connections_and_says_nothing_closes_no_set_for_ever() {
    let mut scene = Restored::new(Duration::from_millis(300)).await;
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string();
    scene.live.tell_address(&scene.north, WEST, &address);
    scene
        .live
        .introduce(&[(NORTH, &scene.north), (SOUTH, &scene.south)]);
    until("north may publish", || scene.closed().is_none()).await;
    scene.stop().await;
}

// Who is back first after an outage of the publisher's own network must not decide.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_away_is_tried_once_more_and_holds_nothing_up() {
    let mut scene = Restored::new(Duration::from_secs(3_600)).await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap().to_string();
    drop(gone);
    scene.live.tell_address(&scene.north, WEST, &address);
    scene
        .live
        .introduce(&[(NORTH, &scene.north), (SOUTH, &scene.south)]);
    until("north may publish", || scene.closed().is_none()).await;
    scene.stop().await;
}
