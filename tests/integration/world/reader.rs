//! A member's key in the test's own hands: what a node says and serves to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use hashpact::keyfile;
use hashpact_core::checkpoint::Checkpoint;
use hashpact_core::chunk::ChunkParts;
use hashpact_core::id::{MemberNumber, Slug, UnixMillis};
use hashpact_net::types::{Announcement, Head, Incoming, PullPart, PullRequest};
use hashpact_net::{
    Connections, Dialler, Expected, Identity, NetError, Peer, PeerIdentity, PeerStatus, PeerTable,
    Settings,
};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{Member, PATIENCE};

/// A watch and a pull that are under way.
pub(crate) struct Held<'a> {
    reader: &'a Reader,
    watch: Incoming<Announcement>,
    pull: Incoming<PullPart>,
}

impl Held<'_> {
    /// Waits until both were cut off: an error, and not the end of what there is.
    pub(crate) fn assert_cut(mut self) {
        self.reader.runtime.block_on(async {
            let pull = async {
                while let Some(part) = self.pull.next().await {
                    if part.is_err() {
                        return true;
                    }
                }
                false
            };
            assert!(timeout(PATIENCE, pull).await.unwrap(), "the pull is cut");
            let watch = async { while let Some(Ok(_)) = self.watch.next().await {} };
            timeout(PATIENCE, watch).await.unwrap();
        });
    }
}

/// A connection to one node under another member's TLS key.
pub(crate) struct Reader {
    runtime: Runtime,
    peer: Peer,
}

impl Reader {
    /// Dials `to` with the TLS key of `caller`, whose own node need not run.
    pub(crate) fn dial(caller: &Member, to: &Member) -> Self {
        let runtime = Runtime::new().unwrap();
        let key = caller.folder().join("keys/tls.key");
        let peer = runtime.block_on(dial(&key, to)).unwrap();
        Self { runtime, peer }
    }

    /// The heads that the node announces to the caller, by name of their feed's
    /// origin, once it has said all that stands.
    pub(crate) fn heads(&self) -> BTreeMap<String, Head> {
        self.runtime.block_on(async {
            let nothing = Box::pin(futures_util::stream::pending());
            let mut heard = self.peer.watch(nothing).await.unwrap();
            let mut heads = BTreeMap::new();
            loop {
                let next = timeout(PATIENCE, heard.next()).await.unwrap();
                match next.expect("a watch that goes on").unwrap() {
                    Announcement::Head(said) => {
                        heads.insert(said.feed.to_string(), *said);
                    }
                    Announcement::SnapshotEnd => return heads,
                    Announcement::Roster { .. }
                    | Announcement::NodeCard(_)
                    | Announcement::Suspension(_)
                    | Announcement::Alive { .. }
                    | Announcement::Overdue(_)
                    | Announcement::Quarantined(..)
                    | Announcement::Evidence(_)
                    | Announcement::DocumentEvidence(_)
                    | Announcement::GrantEnded(_) => {}
                }
            }
        })
    }

    /// Begins a watch, and a pull of all of a feed of which one chunk is read.
    pub(crate) fn hold(&self, feed: &str) -> Held<'_> {
        let (watch, pull) = self.runtime.block_on(async {
            let nothing = Box::pin(futures_util::stream::pending());
            let mut watch = self.peer.watch(nothing).await.unwrap();
            let mut found = None;
            loop {
                match timeout(PATIENCE, watch.next())
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap()
                {
                    Announcement::Head(head) if head.feed.to_string() == feed => found = Some(head),
                    Announcement::SnapshotEnd => break,
                    Announcement::Head(_)
                    | Announcement::Roster { .. }
                    | Announcement::NodeCard(_)
                    | Announcement::Suspension(_)
                    | Announcement::Alive { .. }
                    | Announcement::Overdue(_)
                    | Announcement::Quarantined(..)
                    | Announcement::Evidence(_)
                    | Announcement::DocumentEvidence(_)
                    | Announcement::GrantEnded(_) => {}
                }
            }
            let head = found.expect("the feed is announced");
            let (feed, checkpoint) = (head.feed, checkpoint(&head));
            let request = PullRequest {
                feed,
                from: 0,
                to: checkpoint.size,
                head_size: checkpoint.size,
                head_root: checkpoint.root,
                proof_only: false,
                elide_dead: false,
            };
            let mut pull = self.peer.pull(&request).await.unwrap();
            let first = timeout(PATIENCE, pull.next()).await.unwrap().unwrap();
            let PullPart::Chunk(first) = first.unwrap() else {
                panic!("a proof where leaves were asked for")
            };
            assert!(first.to < checkpoint.size, "there is more to come");
            (watch, pull)
        });
        Held {
            reader: self,
            watch,
            pull,
        }
    }

    /// Pulls a range of leaves under this head.
    pub(crate) fn pull(
        &self,
        head: &Head,
        from: u64,
        to: u64,
    ) -> Result<Vec<ChunkParts>, NetError> {
        let checkpoint = checkpoint(head);
        let request = PullRequest {
            feed: head.feed,
            from,
            to,
            head_size: checkpoint.size,
            head_root: checkpoint.root,
            proof_only: false,
            elide_dead: false,
        };
        self.pull_exactly(&request)
    }

    /// Pulls what the request says.
    pub(crate) fn pull_exactly(&self, request: &PullRequest) -> Result<Vec<ChunkParts>, NetError> {
        self.runtime.block_on(async {
            let mut parts = self.peer.pull(request).await?;
            let mut chunks = Vec::new();
            while let Some(part) = timeout(PATIENCE, parts.next()).await.unwrap() {
                match part? {
                    PullPart::Chunk(chunk) => chunks.push(chunk),
                    PullPart::Proof(_) => panic!("a proof where leaves were asked for"),
                }
            }
            Ok(chunks)
        })
    }
}

/// What a head's note says, unverified.
pub(crate) fn checkpoint(head: &Head) -> Checkpoint {
    let note = std::str::from_utf8(&head.note).unwrap();
    let end = note.find("\n\n").unwrap();
    Checkpoint::parse_body(&note[..=end]).unwrap()
}

/// Whoever answers at the endpoint is taken for the node: tests trust themselves.
async fn dial(key: &Path, to: &Member) -> Result<Peer, NetError> {
    let now = UnixMillis(1_795_325_998_000);
    let credentials = keyfile::load_tls(key, None, "reader.test.invalid", now).unwrap();
    let table = Arc::new(PeerTable::default());
    let settings = Settings {
        handshake_timeout: Duration::from_secs(20),
        ..Settings::default()
    };
    let identity = Identity {
        credentials,
        directory: table.clone(),
        connections: Connections::new(),
        settings,
    };
    let dialler = Dialler::new(identity, Arc::new(move || now));
    let stranger = dialler.dial_stranger(to.endpoint()).await?;
    let member = MemberNumber::new(1).unwrap();
    table.replace([PeerIdentity {
        member,
        slug: Slug::parse(to.slug()).unwrap(),
        node: Slug::parse("main").unwrap(),
        status: PeerStatus::Active,
        tls_key: *stranger.key(),
    }]);
    stranger.pin(&Expected::Member(member))
}
