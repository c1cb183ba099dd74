//! Whole exchanges over TLS on 127.0.0.1: what one member publishes, others answer.

use std::path::Path;

use hashpact_core::card::Endpoint;
use tokio_util::sync::CancellationToken;

use super::hostile::closed;
pub(super) use super::hostile::until;
use super::*;
use crate::exchange::{Exchange, ExchangeOptions};

/// A coalition whose clock runs, though not by the machine's date.
pub(super) struct Live {
    pub(super) coalition: Coalition,
    version: u64,
}

/// One node with its exchange.
pub(super) struct Running {
    pub(super) node: Arc<Node>,
    pub(super) exchange: Exchange,
    stop: CancellationToken,
}

impl Live {
    pub(super) fn new() -> Self {
        Self::of(Coalition::new())
    }

    pub(super) fn of(coalition: Coalition) -> Self {
        let clock = coalition.clock.clone();
        let began = std::time::Instant::now();
        tokio::spawn(async move {
            loop {
                let passed = u64::try_from(began.elapsed().as_millis()).unwrap();
                clock.set(NOW.plus(passed));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self {
            coalition,
            version: 1,
        }
    }

    pub(super) async fn run(&self, member: u32) -> Running {
        self.run_with(member, |_| ()).await
    }

    /// Runs a node that nobody can dial.
    pub(super) async fn run_outbound_only(&self, member: u32) -> Running {
        self.run_with(member, |options| options.listen = None).await
    }

    pub(super) async fn run_with(
        &self,
        member: u32,
        change: impl FnOnce(&mut ExchangeOptions),
    ) -> Running {
        let node = self.coalition.open(member);
        let at = usize::try_from(member).unwrap() - 1;
        let mut options = ExchangeOptions::new(self.coalition.credentials[at].clone());
        options.listen = Some("127.0.0.1:0".parse().unwrap());
        options.endpoint_policy = EndpointPolicy::AllowLocal;
        options.grace = Duration::from_secs(5);
        change(&mut options);
        let stop = CancellationToken::new();
        let exchange = Exchange::start(Arc::clone(&node), options, stop.clone())
            .await
            .unwrap();
        Running {
            node,
            exchange,
            stop,
        }
    }

    /// Tells a node that a peer listens at an address.
    pub(super) fn tell_address(&mut self, to: &Running, member: u32, address: &str) {
        self.version += 1;
        let endpoints = vec![Endpoint::parse(address).unwrap()];
        let card = self.coalition.card(member, self.version, endpoints);
        to.node.membership().accept_card(card).unwrap();
    }

    /// Tells every node where all of them listen, by new cards.
    pub(super) fn introduce(&mut self, running: &[(u32, &Running)]) {
        self.version += 1;
        for (member, one) in running {
            let address = one.exchange.local_addr().into_iter();
            let endpoints = address.map(|a| Endpoint::parse(&a.to_string()).unwrap());
            let endpoints = endpoints.collect();
            let card = self.coalition.card(*member, self.version, endpoints);
            for (_, other) in running {
                other.node.membership().accept_card(card.clone()).unwrap();
            }
        }
    }
}

impl Running {
    pub(super) async fn stop(self) {
        self.stop.cancel();
        assert!(self.exchange.wait().await, "it ends within its grace");
        closed(self.node).await;
    }

    pub(super) fn answers(&self, n: u64) -> usize {
        let signal = entry(n).body.signals.remove(0);
        self.node.lookup(&[signal]).unwrap()[0].len()
    }

    pub(super) fn size(&self, feed: &FeedId) -> u64 {
        let store = self.node.store();
        let held = store.feed_no(feed).and_then(|no| store.feed(no).ok());
        held.and_then(|held| held.applied)
            .map_or(0, |head| head.size)
    }
}

pub(super) fn verify(node: &Node) {
    let report = node.store().verify(|_, _| Ok(()), |_, _| ()).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_member_publishes_and_retracts_another_answers_and_stops_answering() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    let feed = create_set(&north.node, "confirmed", &[("all", true)]);
    publish(&north.node, "confirmed", 0, 3_000);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south answers", || south.answers(2_999) == 1).await;
    publish(&north.node, "confirmed", 3_000, 3_001);
    until("south answers for one more", || south.answers(3_000) == 1).await;
    retract(&north.node, "confirmed", 5..6);
    until("south stops answering", || south.answers(5) == 0).await;
    assert_eq!((south.answers(4), south.answers(6)), (1, 1));
    assert!(south.node.exchange().unwrap().feed(&feed).is_some());
    let peers = south.node.exchange().unwrap().peers();
    assert!(peers.iter().any(|peer| peer.state == "connected"));
    until("south is ready", || south.node.is_ready()).await;
    verify(&south.node);
    south.stop().await;
    north.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_whose_publisher_is_away_comes_from_a_relay() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    let feed = create_set(
        &north.node,
        "confirmed",
        &[("south", true), ("west", false)],
    );
    publish(&north.node, "confirmed", 0, 2_000);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south has it", || south.answers(1_999) == 1).await;
    north.stop().await;
    let west = live.run(WEST).await;
    live.introduce(&[(SOUTH, &south), (WEST, &west)]);
    until("west has it from south", || west.answers(1_999) == 1).await;
    assert_eq!(west.size(&feed), 2_001);
    verify(&west.node);
    west.stop().await;
    south.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_is_cut_goes_on_and_ends_at_the_same_root() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    let feed = create_set(&north.node, "confirmed", &[("all", true)]);
    for part in 0..8 {
        publish(&north.node, "confirmed", part * 10_000, (part + 1) * 10_000);
    }
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        // Each hits a connection that stands.
        until("one is cut", || {
            south.exchange.connections().cut(|_| true) > 0
        })
        .await;
    }
    until("south has it", || south.size(&feed) == 80_001).await;
    let roots = (feed_of(&north.node, &feed), feed_of(&south.node, &feed));
    assert_eq!(roots.0.applied, roots.1.applied);
    verify(&south.node);
    south.stop().await;
    north.stop().await;
}

/// Stores the first leaves of a feed and no head, as a crash in the middle of a first
/// pull leaves them.
async fn pulled_in_part(from: &Running, to: &Arc<Node>, feed: &FeedId, leaves: u64) {
    let member = to.membership().own().unwrap();
    let request = PullRequest {
        to: leaves,
        ..all_of(&from.node, feed)
    };
    let parts = pull(&from.node, member.value(), request).await.unwrap();
    let new = NewFeed {
        id: *feed,
        publisher: number(NORTH),
        own: false,
        kind: FeedKind::HashSet,
    };
    let no = to.store().create_feed(&new).unwrap();
    let mut writer = to.store().writer(no).unwrap();
    for chunk in verified(&parts, &request) {
        writer.append_verified(&chunk).unwrap();
    }
    writer.sync().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_pull_that_a_crash_cut_goes_on_though_its_first_leaf_grants_nobody() {
    let mut live = Live::new();
    let north = live.run(NORTH).await;
    let feed = create_set(&north.node, "confirmed", &[]);
    publish(&north.node, "confirmed", 0, 2_000);
    change_grants(&north.node, "confirmed", &[("south", false)], &[]);
    let crashed = live.coalition.open(SOUTH);
    pulled_in_part(&north, &crashed, &feed, 1_000).await;
    drop(crashed);
    let south = live.run(SOUTH).await;
    assert_eq!(feed_of(&south.node, &feed).stored, 1_000);
    assert_eq!(south.answers(5), 0, "no head covers it yet");
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south has it", || south.answers(1_999) == 1).await;
    assert_eq!(south.answers(5), 1);
    verify(&south.node);
    south.stop().await;
    north.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_store_gets_its_own_leaves_back_before_it_publishes() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    // Nobody else: who cannot be dialled and may read it would be waited for.
    let feed = create_set(&north.node, "confirmed", &[("south", true)]);
    publish(&north.node, "confirmed", 0, 10);
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("south has ten", || south.answers(9) == 1).await;
    north.stop().await;
    let folder = live.coalition.dir.path().join("north");
    let backup = live.coalition.dir.path().join("backup");
    copy(&folder, &backup);
    let north = live.run(NORTH).await;
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("north may publish", || {
        north.node.publisher().closed(&feed).is_none()
    })
    .await;
    publish(&north.node, "confirmed", 10, 20);
    until("south has twenty", || south.answers(19) == 1).await;
    north.stop().await;
    // The whole disk goes back, the sign-state file with it.
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&backup, &folder);
    let north = live.run(NORTH).await;
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    until("north has its leaves back", || north.size(&feed) == 21).await;
    until("north may publish", || {
        north.node.publisher().closed(&feed).is_none()
    })
    .await;
    publish(&north.node, "confirmed", 20, 21);
    until("south has one more", || south.answers(20) == 1).await;
    assert_eq!(
        feed_of(&south.node, &feed).status,
        hashpact_store::FeedStatus::Active
    );
    verify(&north.node);
    verify(&south.node);
    north.stop().await;
    south.stop().await;
}
