//! A hostile member's node: enrolled, over real TLS, with its own keys, and lying.
//!
//! It wraps a truthful service, so that all it does beside the one lie of a scene
//! is right. Its victim is a real node with a whole exchange.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::stream;
use hashpact_core::card::Endpoint;
use hashpact_core::chunk::ChunkParts;
use hashpact_core::keys::Feed;
use hashpact_node::model::Reason;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub(super) use super::forged::{Forged, describe, note, note_of, publish_leaf, retract_leaf, told};
use super::*;
use crate::exchange::directory::Directory;
use crate::exchange::inbox::Inbox;
use crate::exchange::serve::NodeService;
use crate::exchange::{Exchange, ExchangeOptions};
use crate::service::{Call, Caller, FederationService};
use crate::types::{Incoming, NodeInfo, RosterItem};
use crate::{Connections, Identity, Settings, serve};

/// Long enough for a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

pub(super) type Tamper = Arc<dyn Fn(Vec<ChunkParts>) -> Vec<PullPart> + Send + Sync>;
pub(super) type Say = Arc<dyn Fn(Announcement) -> Vec<Announcement> + Send + Sync>;
pub(super) type Give = Arc<dyn Fn(&Caller, PullRequest) -> Option<Answers<PullPart>> + Send + Sync>;

/// What a liar does otherwise than the truth.
#[derive(Clone, Default)]
pub(super) struct Script {
    /// Said on each watch before the truth.
    pub(super) first: Vec<Announcement>,
    /// What is said in place of something true.
    pub(super) say: Option<Say>,
    /// Where the truthful answer to a pull is split in two chunks.
    pub(super) cut: Option<u64>,
    /// What becomes of the truthful chunks.
    pub(super) tamper: Option<Tamper>,
    /// The answer to a pull instead of the truth; `None` for the truth.
    pub(super) give: Option<Give>,
    /// Given with the roster.
    pub(super) papers: Vec<RosterItem>,
    /// What is said of the node itself.
    pub(super) hello: Option<fn(NodeInfo) -> NodeInfo>,
}

/// A service that tells the truth but for its script.
pub(super) struct Liar {
    truth: Arc<NodeService>,
    script: Mutex<Script>,
    later: broadcast::Sender<Announcement>,
    pulls: AtomicUsize,
    calls: Mutex<Vec<&'static str>>,
}

impl Liar {
    fn called(&self, call: Call) {
        self.calls.lock().unwrap().push(call.name());
    }

    fn script(&self) -> Script {
        let script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.clone()
    }

    async fn truthful(
        &self,
        caller: &Caller,
        request: PullRequest,
        script: &Script,
    ) -> Result<Vec<ChunkParts>, ServiceError> {
        let inside = |cut: &u64| request.from < *cut && *cut < request.to;
        let ranges = match script.cut.filter(inside) {
            Some(cut) => vec![(request.from, cut), (cut, request.to)],
            None => vec![(request.from, request.to)],
        };
        let mut chunks = Vec::new();
        for (from, to) in ranges {
            let request = PullRequest {
                from,
                to,
                ..request
            };
            let mut parts = self.truth.pull(caller, request).await?;
            while let Some(part) = parts.next().await {
                if let PullPart::Chunk(chunk) = part? {
                    chunks.push(chunk);
                }
            }
        }
        Ok(chunks)
    }
}

impl FederationService for Liar {
    fn now(&self) -> UnixMillis {
        self.truth.now()
    }

    async fn hello(&self, caller: &Caller, peer: NodeInfo) -> Result<NodeInfo, ServiceError> {
        self.called(Call::Hello);
        let told = self.truth.hello(caller, peer).await?;
        Ok(match self.script().hello {
            Some(lie) => lie(told),
            None => told,
        })
    }

    async fn roster(
        &self,
        caller: &Caller,
        from: u64,
    ) -> Result<Answers<RosterItem>, ServiceError> {
        self.called(Call::Roster);
        let truth = self.truth.roster(caller, from).await?;
        let papers = self.script().papers.into_iter().map(Ok);
        Ok(Box::pin(stream::iter(papers).chain(truth)))
    }

    async fn watch(
        &self,
        caller: &Caller,
        incoming: Incoming<Announcement>,
    ) -> Result<Answers<Announcement>, ServiceError> {
        self.called(Call::Watch);
        let later = stream::unfold(self.later.subscribe(), |mut later| async move {
            let said = later.recv().await.ok()?;
            Some((Ok(said), later))
        });
        let script = self.script();
        let truth = self.truth.watch(caller, incoming).await?;
        let said = truth.flat_map(move |item| {
            let said = match (item, &script.say) {
                (Ok(item), Some(say)) => say(item).into_iter().map(Ok).collect(),
                (item, _) => vec![item],
            };
            stream::iter(said)
        });
        let first = stream::iter(script.first.into_iter().map(Ok));
        Ok(Box::pin(stream::select(first.chain(said), Box::pin(later))))
    }

    async fn pull(
        &self,
        caller: &Caller,
        request: PullRequest,
    ) -> Result<Answers<PullPart>, ServiceError> {
        self.called(Call::Pull);
        self.pulls.fetch_add(1, Ordering::SeqCst);
        let script = self.script();
        if let Some(given) = script.give.as_ref().and_then(|give| give(caller, request)) {
            return Ok(given);
        }
        let Some(tamper) = &script.tamper else {
            return self.truth.pull(caller, request).await;
        };
        let parts = tamper(self.truthful(caller, request, &script).await?);
        Ok(Box::pin(stream::iter(parts.into_iter().map(Ok))))
    }
}

/// A member's node that serves by a script, at first the truth.
pub(super) struct Hostile {
    pub(super) node: Arc<Node>,
    pub(super) member: u32,
    pub(super) address: String,
    liar: Arc<Liar>,
    stop: CancellationToken,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Hostile {
    pub(super) async fn start(coalition: &Coalition, member: u32, script: Script) -> Self {
        let node = coalition.open(member);
        Self::start_at(coalition, node, member, script).await
    }

    /// A second one of the same member.
    pub(super) async fn start_beside(coalition: &Coalition, member: u32, script: Script) -> Self {
        let node = coalition.open_in("beside", member, &[]);
        Self::start_at(coalition, node, member, script).await
    }

    async fn start_at(coalition: &Coalition, node: Arc<Node>, member: u32, script: Script) -> Self {
        let (inbox, mut heard) = Inbox::new();
        tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let liar = Arc::new(Liar {
            truth: NodeService::new(
                Arc::clone(&node),
                inbox,
                crate::exchange::bulk::Bulk::start().unwrap(),
                CancellationToken::new(),
            ),
            script: Mutex::new(script),
            later: broadcast::channel(4_096).0,
            pulls: AtomicUsize::new(0),
            calls: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let identity = Identity {
            credentials: coalition.credentials[usize::try_from(member).unwrap() - 1].clone(),
            directory: Directory::of(&node),
            connections: Connections::new(),
            settings: quick(),
        };
        let (service, ended) = (Arc::clone(&liar), stop.clone());
        let grace = Duration::from_millis(50);
        tokio::spawn(serve(listener, identity, service, ended, grace));
        Self {
            node,
            member,
            address,
            liar,
            stop,
        }
    }

    pub(super) fn plays(&self, script: Script) {
        *self.liar.script.lock().unwrap() = script;
    }

    /// Says something to all who watch, now, and to who begins to watch later.
    pub(super) fn says(&self, announcement: Announcement) {
        let mut script = self.liar.script.lock().unwrap();
        script.first.push(announcement.clone());
        drop(script);
        // Nobody may watch at this moment: whoever does next hears it first.
        let _ = self.liar.later.send(announcement);
    }

    pub(super) fn pulls(&self) -> usize {
        self.liar.pulls.load(Ordering::SeqCst)
    }

    /// What it was asked, in order.
    pub(super) fn calls(&self) -> Vec<&'static str> {
        self.liar.calls.lock().unwrap().clone()
    }

    /// The name that refusals are noted under.
    pub(super) fn name(&self) -> String {
        format!("{}/n1", SLUGS[usize::try_from(self.member).unwrap() - 1])
    }
}

/// Short silences, so that the scenes are.
pub(super) fn quick() -> Settings {
    Settings {
        progress_timeout: Duration::from_millis(1_500),
        alive_interval: Duration::from_millis(200),
        ..Settings::default()
    }
}

/// A publisher that tells the truth, and a relay of its set that may lie.
pub(super) struct Stage {
    pub(super) coalition: Coalition,
    pub(super) honest: Hostile,
    pub(super) hostile: Hostile,
    pub(super) feed: FeedId,
}

impl Stage {
    pub(super) async fn new(entries: u64) -> Self {
        let coalition = ticking();
        let honest = Hostile::start(&coalition, NORTH, Script::default()).await;
        let hostile = Hostile::start(&coalition, WEST, Script::default()).await;
        let feed = create_set(&honest.node, "set", &[("west", true), ("south", false)]);
        publish(&honest.node, "set", 0, entries);
        bring(&honest.node, &hostile.node, &feed, false).await;
        Self {
            coalition,
            honest,
            hostile,
            feed,
        }
    }
}

/// A real node that only dials.
pub(super) struct Victim {
    pub(super) node: Arc<Node>,
    pub(super) exchange: Exchange,
    stop: CancellationToken,
}

impl Victim {
    pub(super) async fn start(coalition: &Coalition) -> Self {
        Self::start_with(coalition, |_| ()).await
    }

    pub(super) async fn start_with(
        coalition: &Coalition,
        change: impl FnOnce(&mut ExchangeOptions),
    ) -> Self {
        Self::start_as(coalition, SOUTH, change).await
    }

    /// The same, of any member.
    pub(super) async fn start_as(
        coalition: &Coalition,
        member: u32,
        change: impl FnOnce(&mut ExchangeOptions),
    ) -> Self {
        Self::start_of(coalition, member, coalition.open(member), change).await
    }

    /// Of a node that may know less than everybody's cards.
    pub(super) async fn start_of(
        coalition: &Coalition,
        member: u32,
        node: Arc<Node>,
        change: impl FnOnce(&mut ExchangeOptions),
    ) -> Self {
        let at = usize::try_from(member).unwrap() - 1;
        let mut options = ExchangeOptions::new(coalition.credentials[at].clone());
        options.settings = quick();
        options.endpoint_policy = EndpointPolicy::AllowLocal;
        options.grace = Duration::from_secs(5);
        change(&mut options);
        let stop = CancellationToken::new();
        let exchange = Exchange::start(Arc::clone(&node), options, stop.clone())
            .await
            .unwrap();
        Self {
            node,
            exchange,
            stop,
        }
    }

    /// Learns where a peer listens.
    pub(super) fn meet(&self, coalition: &Coalition, peer: &Hostile) {
        self.meet_at(coalition, peer.member, &peer.address);
    }

    pub(super) fn meet_at(&self, coalition: &Coalition, member: u32, address: &str) {
        let endpoint = Endpoint::parse(address).unwrap();
        let card = coalition.card(member, 2, vec![endpoint]);
        assert!(self.node.membership().accept_card(card).unwrap());
    }

    /// The codes of what was refused of a peer.
    pub(super) fn refused(&self, peer: &Hostile) -> BTreeSet<&'static str> {
        let noted = self.exchange.rejections().noted();
        let of = noted.into_iter().filter(|(who, ..)| *who == peer.name());
        of.map(|(_, _, code)| code).collect()
    }

    /// Waits for a refusal with one of these codes, and that there is no other.
    pub(super) async fn refuses(&self, what: &str, peer: &Hostile, codes: &[&str]) {
        until(&format!("{what} is refused with one of {codes:?}"), || {
            !self.refused(peer).is_empty()
        })
        .await;
        let refused = self.refused(peer);
        let all = refused.iter().all(|code| codes.contains(code));
        assert!(all, "{what}: {refused:?} instead of {codes:?}");
    }

    /// Leaves stored of a feed.
    pub(super) fn stored(&self, feed: &FeedId) -> u64 {
        self.held(feed).map_or(0, |held| held.stored)
    }

    /// The size of the head that took effect.
    pub(super) fn applied(&self, feed: &FeedId) -> u64 {
        let applied = self.held(feed).and_then(|held| held.applied);
        applied.map_or(0, |head| head.size)
    }

    pub(super) fn held(&self, feed: &FeedId) -> Option<FeedInfo> {
        let store = self.node.store();
        store.feed_no(feed).and_then(|no| store.feed(no).ok())
    }

    pub(super) fn answers(&self, n: u64) -> usize {
        let signal = entry(n).body.signals.remove(0);
        self.node.lookup(&[signal]).unwrap()[0].len()
    }

    pub(super) fn verify(&self) {
        let report = self.node.verify(|_, _| ()).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }

    /// What waits in quarantine, by reason.
    pub(super) fn waiting(&self) -> Vec<(Reason, u64)> {
        let lots = self.node.quarantine(None, None).unwrap();
        let held = lots.into_iter().filter(|lot| lot.held > 0);
        held.map(|lot| (lot.reason, lot.held)).collect()
    }

    /// Ends and starts over the same store.
    pub(super) async fn restart(self, coalition: &Coalition) -> Self {
        self.end().await;
        Self::start(coalition).await
    }

    /// Ends, and leaves nothing behind, so that the next one begins anew.
    pub(super) async fn stop(self, coalition: &Coalition) {
        let name = self.node.member_slug().to_string();
        self.rest().await;
        // The store's own threads may still be closing files.
        let folder = coalition.dir.path().join(name);
        until("its folder is gone", || {
            std::fs::remove_dir_all(&folder).is_ok() || !folder.exists()
        })
        .await;
    }

    /// Ends, so that it can start again.
    pub(super) async fn rest(self) {
        self.verify();
        self.end().await;
    }

    async fn end(self) {
        self.stop.cancel();
        assert!(self.exchange.wait().await, "it ends within its grace");
        closed(self.node).await;
    }
}

/// Gives a node up, and waits until its files are closed and its lock is free.
pub(super) async fn closed(node: Arc<Node>) {
    let store = Arc::downgrade(node.store());
    let lock = node.store().dir().join("lock");
    drop(node);
    until("the store is closed", || store.strong_count() == 0).await;
    // The last handle is gone before its files are closed.
    let free = || {
        let file = std::fs::File::options().write(true).open(&lock);
        file.is_ok_and(|file| file.try_lock().is_ok())
    };
    until("its lock is free", free).await;
}

/// A coalition whose clock runs, though not by the machine's date.
pub(super) fn ticking() -> Coalition {
    ticking_from(Arc::default())
}

/// The same, so many milliseconds ahead as the number says at each moment.
pub(super) fn ticking_from(ahead: Arc<std::sync::atomic::AtomicU64>) -> Coalition {
    tick(Coalition::new(), ahead)
}

/// Lets a coalition's clock run.
pub(super) fn tick(coalition: Coalition, ahead: Arc<std::sync::atomic::AtomicU64>) -> Coalition {
    let clock = coalition.clock.clone();
    let began = std::time::Instant::now();
    tokio::spawn(async move {
        loop {
            let passed = u64::try_from(began.elapsed().as_millis()).unwrap();
            let ahead = ahead.load(Ordering::SeqCst);
            clock.set(NOW.plus(passed).plus(ahead));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    coalition
}

pub(super) async fn until(what: &str, is: impl Fn() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "never: {what}");
}

pub(super) fn feed_key(member: u32) -> SecretKey<Feed> {
    SecretKey::from_seed(&key_seed(member, 3))
}

pub(super) fn coalition_name() -> CoalitionName {
    CoalitionName::parse(COALITION).unwrap()
}
