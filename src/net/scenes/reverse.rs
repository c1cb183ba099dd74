//! Connections on which the side that was dialled calls: pinned, limited and
//! counted as all others.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Invented, NOW, PLAIN, Party, node_info, pull_of, quick, until};
use crate::accept::{Acceptor, Entering, Entrance, Reversals};
use crate::client::{Dialler, Peer};
use crate::connections::Connections;
use crate::error::NetError;
use crate::peer::{Expected, PeerTable};
use crate::server::{Identity, serve_entering};
use crate::settings::{self, Settings};
use crate::stream::PeerStream;
use crate::tls::{self, ALPN_REVERSE, CallingSide, Refusal};

/// A node that listens and calls who dialled for it, and one that only dials.
struct Reversed {
    acceptor: Party,
    small: Party,
    table: Arc<PeerTable>,
    address: String,
    accepted: Arc<Connections>,
    dialled: Identity,
    peers: mpsc::Receiver<Peer>,
    entrance: Entrance,
    /// Who dialled to call: nobody answers it, and it stands.
    _calling: Entering,
    stop: CancellationToken,
}

impl Reversed {
    async fn new(settings: Settings, takes: bool) -> Self {
        let (acceptor, small) = (Party::new(1), Party::new(2));
        let table = Arc::new(PeerTable::new([acceptor.peer.clone(), small.peer.clone()]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (to, peers) = mpsc::channel(4);
        let clock: crate::Clock = Arc::new(|| NOW);
        let reversals = takes.then(|| Reversals { to, clock });
        let identity = acceptor.identity(&table, settings);
        let accepted = identity.connections.clone();
        let stop = CancellationToken::new();
        let (calls, calling) = Entrance::new();
        let accepting = Acceptor::new(identity, reversals).unwrap();
        accepting.begin(listener, calls, stop.clone());
        let dialled = small.identity(&table, settings);
        let (entrance, entering) = Entrance::new();
        let grace = Duration::from_millis(200);
        let service = Arc::new(Invented);
        let serving = serve_entering(entering, dialled.clone(), service, stop.clone(), grace);
        tokio::spawn(serving);
        Self {
            acceptor,
            small,
            table,
            address,
            accepted,
            dialled,
            peers,
            entrance,
            _calling: calling,
            stop,
        }
    }

    async fn open(&self) -> Result<PeerStream, NetError> {
        let expected = Expected::Member(self.acceptor.peer.member);
        let dialler = Dialler::new(self.dialled.clone(), Arc::new(|| NOW));
        let side = CallingSide::Dialled;
        dialler.open(&self.address, expected, side).await
    }

    /// Dials, serves, and answers the acceptor's way to call.
    async fn called(&mut self) -> Peer {
        let stream = self.open().await.unwrap();
        self.entrance.put(stream).await;
        self.peers.recv().await.unwrap()
    }
}

#[tokio::test]
async fn the_side_that_was_dialled_calls_and_knows_whom() {
    let mut scene = Reversed::new(quick(), true).await;
    let peer = scene.called().await;
    assert_eq!(peer.identity(), &scene.small.peer);
    assert_eq!(peer.hello(&node_info()).await.unwrap(), node_info());
    let mut parts = peer.pull(&pull_of(PLAIN, 4096)).await.unwrap();
    let mut chunks = 0;
    while let Some(part) = futures_util::StreamExt::next(&mut parts).await {
        part.unwrap();
        chunks += 1;
    }
    assert_eq!(chunks, 4);
    let served = scene.dialled.connections.open().remove(0);
    assert!(served.is_served() && !peer.connection().is_served());
    assert_eq!(served.peer, scene.acceptor.peer);
    // Stopping the node that serves closes what it serves.
    scene.stop.cancel();
    until("it is closed", || peer.connection().is_closed()).await;
}

#[tokio::test]
async fn a_cut_at_either_end_closes_the_connection() {
    let mut scene = Reversed::new(quick(), true).await;
    for side in 0..2 {
        let peer = scene.called().await;
        let connections = [&scene.accepted, &scene.dialled.connections][side];
        assert_eq!(connections.cut(|_| true), 1);
        until("it is closed", || peer.connection().is_closed()).await;
        let dialled = &scene.dialled.connections;
        until("at both ends", || dialled.open().is_empty()).await;
    }
}

#[tokio::test]
async fn keys_are_pinned_at_both_ends() {
    let scene = Reversed::new(quick(), true).await;
    // The dialler means another member.
    let other = Party::new(3);
    let table = [&scene.acceptor, &scene.small, &other].map(|party| party.peer.clone());
    scene.table.replace(table);
    let dialler = Dialler::new(scene.dialled.clone(), Arc::new(|| NOW));
    let expected = Expected::Member(other.peer.member);
    let refused = dialler
        .open(&scene.address, expected, CallingSide::Dialled)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, NetError::Refused(Refusal::WrongPeer { .. })),
        "{refused}"
    );
    // The acceptor does not know the dialler.
    let stranger = Party::new(4);
    let known = Arc::new(PeerTable::new([scene.acceptor.peer.clone()]));
    let dialler = stranger.dialler(&known);
    let expected = Expected::Member(scene.acceptor.peer.member);
    let opened = dialler
        .open(&scene.address, expected, CallingSide::Dialled)
        .await;
    // In TLS 1.3 the dialler may hear of it only when it reads.
    if let Ok(mut stream) = opened {
        let mut byte = [0];
        assert!(!matches!(stream.read(&mut byte).await, Ok(1..)));
    }
    assert!(scene.accepted.open().is_empty());
}

#[tokio::test]
async fn a_node_that_calls_nobody_so_refuses_it_in_the_handshake() {
    let scene = Reversed::new(quick(), false).await;
    let refused = scene.open().await.unwrap_err();
    assert_eq!(refused.code(), "tls_handshake");
}

#[tokio::test]
async fn connections_of_each_kind_have_the_members_limit_for_themselves() {
    let settings = Settings {
        connections_per_member: 1,
        ..quick()
    };
    let mut scene = Reversed::new(settings, true).await;
    let _first = scene.called().await;
    let expected = || Expected::Member(scene.acceptor.peer.member);
    let other = scene.small.dialler(&scene.table);
    let plain = other.open(&scene.address, expected(), CallingSide::Dialler);
    let _second = plain.await.unwrap();
    until("both stand", || scene.accepted.open().len() == 2).await;
    for side in [CallingSide::Dialler, CallingSide::Dialled] {
        let third = other.open(&scene.address, expected(), side).await;
        if let Ok(mut stream) = third {
            let mut byte = [0];
            assert!(!matches!(stream.read(&mut byte).await, Ok(1..)));
        }
    }
    assert_eq!(scene.accepted.open().len(), 2);
    // The dialler counts as well.
    let refused = scene.open().await.unwrap_err();
    assert_eq!(refused.code(), "too_many_connections");
}

#[tokio::test]
async fn the_dialler_that_serves_says_every_limit() {
    // Nothing of ours at the other end: frames written and read by hand.
    let scene = Reversed::new(quick(), true).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut config = tls::server_config(&scene.acceptor.credentials, scene.table.clone()).unwrap();
    config.alpn_protocols = vec![ALPN_REVERSE.to_vec()];
    let accepting = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        acceptor.accept(socket).await.unwrap()
    });
    let expected = Expected::Member(scene.acceptor.peer.member);
    let dialler = Dialler::new(scene.dialled.clone(), Arc::new(|| NOW));
    let opened = dialler.open(&address, expected, CallingSide::Dialled).await;
    scene.entrance.put(opened.unwrap()).await;
    let mut stream = accepting.await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(&empty_settings).await.unwrap();
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!(header[3], 4, "a settings frame");
    let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
    stream.read_exact(&mut payload).await.unwrap();
    let value = |id: u16| {
        let mut settings = payload.chunks(6);
        let found = settings.find(|s| u16::from_be_bytes([s[0], s[1]]) == id);
        found.map(|s| u32::from_be_bytes([s[2], s[3], s[4], s[5]]))
    };
    assert_eq!(value(3), Some(settings::STREAMS_MAX));
    assert_eq!(value(4), Some(settings::SERVER_STREAM_WINDOW_BYTES));
    assert_eq!(value(5), Some(settings::SERVER_FRAME_MAX_BYTES));
    assert_eq!(value(6), Some(settings::HEADER_LIST_MAX_BYTES));
}
