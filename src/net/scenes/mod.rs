//! Whole connections over 127.0.0.1, against a service that makes things up.

mod calls;
mod defaults;
mod handshakes;
mod limits;
mod reverse;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hashpact_core::id::{Digest, FeedId, MemberNumber, Slug, UnixMillis};
use hashpact_core::reject::Rejection;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::types::{
    Announcement, Answers, ChunkParts, Incoming, NodeInfo, ProofParts, PullPart, PullRequest,
    RosterItem,
};
use crate::{
    Caller, Connections, Credentials, Dialler, Expected, FederationService, Identity, NetError,
    Peer, PeerIdentity, PeerStatus, PeerTable, PemPair, ServiceError, Settings, serve,
};

pub(crate) const NOW: UnixMillis = UnixMillis(1_795_325_998_000);

/// A member with one node: its key, and what the cards say of it.
pub(crate) struct Party {
    pub(crate) credentials: Credentials,
    pub(crate) peer: PeerIdentity,
}

impl Party {
    pub(crate) fn new(number: u32) -> Self {
        let pair = PemPair::generate("node.example", NOW).unwrap();
        let credentials =
            Credentials::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).unwrap();
        let peer = PeerIdentity {
            member: MemberNumber::new(number).unwrap(),
            slug: Slug::parse(&format!("member-{number}")).unwrap(),
            node: Slug::parse("main").unwrap(),
            status: PeerStatus::Active,
            tls_key: credentials.key_digest().unwrap(),
        };
        Self { credentials, peer }
    }

    pub(crate) fn with_status(&self, status: PeerStatus) -> PeerIdentity {
        PeerIdentity {
            status,
            ..self.peer.clone()
        }
    }

    pub(crate) fn identity(&self, table: &Arc<PeerTable>, settings: Settings) -> Identity {
        Identity {
            credentials: self.credentials.clone(),
            directory: table.clone(),
            connections: Connections::new(),
            settings,
        }
    }

    pub(crate) fn dialler(&self, table: &Arc<PeerTable>) -> Dialler {
        Dialler::new(self.identity(table, quick()), Arc::new(|| NOW))
    }
}

/// Limits for tests: times are short, but long enough for a busy machine.
pub(crate) fn quick() -> Settings {
    Settings {
        progress_timeout: Duration::from_secs(10),
        alive_interval: Duration::from_millis(50),
        ..Settings::default()
    }
}

/// A running server, one caller, and the cards that both know.
pub(crate) struct Scene {
    pub(crate) server: Party,
    pub(crate) caller: Party,
    pub(crate) table: Arc<PeerTable>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) address: String,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<Result<(), NetError>>,
}

impl Scene {
    pub(crate) async fn new(settings: Settings) -> Self {
        let (server, caller) = (Party::new(1), Party::new(2));
        let table = Arc::new(PeerTable::new([server.peer.clone(), caller.peer.clone()]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let identity = server.identity(&table, settings);
        let connections = identity.connections.clone();
        let stop = CancellationToken::new();
        let grace = Duration::from_millis(200);
        let serving = serve(listener, identity, Arc::new(Invented), stop.clone(), grace);
        Self {
            server,
            caller,
            table,
            connections,
            address,
            stop,
            serving: tokio::spawn(serving),
        }
    }

    pub(crate) async fn dial(&self) -> Peer {
        self.try_dial(&self.caller).await.unwrap()
    }

    pub(crate) async fn try_dial(&self, party: &Party) -> Result<Peer, NetError> {
        let expected = Expected::Member(self.server.peer.member);
        let dialler = party.dialler(&self.table);
        dialler.dial(&self.address, expected).await
    }
}

/// What anything may take that is waited for: a busy machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Lets other tasks run until `done`.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "{what}");
}

pub(crate) fn node_info() -> NodeInfo {
    NodeInfo {
        protocol_versions: vec![1],
        software: "hashpact test".to_owned(),
        genesis: Digest::of(b"genesis"),
        roster_version: 3,
        roster_digest: Digest::of(b"roster"),
        max_message_bytes: 4 * 1024 * 1024,
        clock: NOW,
    }
}

pub(crate) const fn feed(byte: u8) -> FeedId {
    FeedId(Digest([byte; 32]))
}

pub(crate) fn pull_of(feed: FeedId, to: u64) -> PullRequest {
    PullRequest {
        feed,
        from: 0,
        to,
        head_size: 1 << 30,
        head_root: Digest::of(b"root"),
        proof_only: false,
        elide_dead: false,
    }
}

/// Feeds that [`Invented`] has.
pub(crate) const PLAIN: FeedId = feed(1);
pub(crate) const OVERSIZE: FeedId = feed(2);
pub(crate) const HIDDEN: FeedId = feed(3);

pub(crate) fn chunk(from: u64, page_bytes: usize) -> ChunkParts {
    let page = Bytes::from(vec![0xab; page_bytes]);
    ChunkParts {
        from,
        to: from + 1024,
        leading: Bytes::new(),
        pages: vec![page; 4],
        trailing: Bytes::from_static(b"tail"),
        before: vec![Digest::of(b"before"); 3],
        after: vec![Digest::of(b"after"); 20],
    }
}

/// Answers with what it makes up.
pub(crate) struct Invented;

impl FederationService for Invented {
    fn now(&self) -> UnixMillis {
        NOW
    }

    async fn hello(&self, _caller: &Caller, peer: NodeInfo) -> Result<NodeInfo, ServiceError> {
        Ok(peer)
    }

    async fn roster(
        &self,
        _caller: &Caller,
        from_version: u64,
    ) -> Result<Answers<RosterItem>, ServiceError> {
        let items = [
            RosterItem::Roster(Bytes::from(from_version.to_string())),
            RosterItem::NodeCard(Bytes::from_static(b"card")),
            RosterItem::Suspension(Bytes::from_static(b"suspension")),
        ];
        Ok(Box::pin(stream::iter(items).map(Ok)))
    }

    async fn watch(
        &self,
        _caller: &Caller,
        incoming: Incoming<Announcement>,
    ) -> Result<Answers<Announcement>, ServiceError> {
        let said = incoming.filter_map(|item| async move {
            let alive = |item: &Announcement| matches!(item, Announcement::Alive { .. });
            let item = item.ok().filter(|item| !alive(item))?;
            Some(Ok(item))
        });
        Ok(Box::pin(said))
    }

    async fn pull(
        &self,
        _caller: &Caller,
        request: PullRequest,
    ) -> Result<Answers<PullPart>, ServiceError> {
        if request.proof_only {
            let part = PullPart::Proof(ProofParts {
                from: request.from,
                to: request.to,
                before: vec![],
                range: vec![Digest::of(b"range"); 30],
                after: vec![Digest::of(b"after")],
            });
            return Ok(Box::pin(stream::iter([Ok(part)])));
        }
        let page_bytes = match request.feed {
            PLAIN => 256 * 1024,
            OVERSIZE => 1300 * 1024,
            _ => return Err(Rejection::NotFound.into()),
        };
        let model = chunk(0, page_bytes);
        let starts = (request.from..request.to).step_by(1024);
        Ok(Box::pin(stream::iter(starts).map(move |from| {
            let to = from + 1024;
            Ok(PullPart::Chunk(ChunkParts {
                from,
                to,
                ..model.clone()
            }))
        })))
    }
}
