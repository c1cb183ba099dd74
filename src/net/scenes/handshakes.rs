//! Who gets through a handshake, in either direction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::defaults::{Pair, handshake};
use super::{PATIENCE, Party, Scene, node_info, quick, until};
use crate::peer::{Expected, PeerIdentity, PeerTable};
use crate::tls::Refusal;
use crate::{NetError, Settings};

#[test]
fn both_sides_agree_on_tls_1_3_and_the_hybrid_group() {
    let pair = Pair::new();
    let client = Arc::new(pair.client_config());
    let server = Arc::new(pair.server_config());
    let (client, server) = handshake(&client, &server).unwrap();
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(crate::tls::ALPN));
    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[test]
fn a_tls_1_2_client_is_refused() {
    const FATAL_PROTOCOL_VERSION: &[u8] = &[2, 70];
    // A hello without `supported_versions`: ECDHE-ECDSA-AES128-GCM, P-256.
    let extensions = b"\x00\x0a\x00\x04\x00\x02\x00\x17\x00\x0d\x00\x04\x00\x02\x04\x03";
    let mut hello = b"\x03\x03".to_vec();
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(b"\x00\x00\x02\xc0\x2b\x01\x00\x00\x10");
    hello.extend_from_slice(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend_from_slice(&hello);
    let mut server = ServerConnection::new(Arc::new(Pair::new().server_config())).unwrap();
    server.read_tls(&mut &record[..]).unwrap();
    let refused = server.process_new_packets().unwrap_err();
    assert!(
        matches!(refused, rustls::Error::PeerIncompatible(_)),
        "{refused:?}"
    );
    let mut alert = Vec::new();
    server.write_tls(&mut alert).unwrap();
    assert!(alert.ends_with(FATAL_PROTOCOL_VERSION), "{alert:?}");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let pair = Pair::new();
    let mut client = pair.client_config();
    client.client_auth_cert_resolver = Arc::new(NoCertificate);
    let server = Arc::new(pair.server_config());
    let refused = handshake(&Arc::new(client), &server).unwrap_err();
    assert_eq!(refused, rustls::Error::NoCertificatesPresented);
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_certificate_that_was_copied_proves_nothing() {
    // The server holds its own key but shows the caller's certificate.
    let pair = Pair::new();
    let mut server = pair.server_config();
    server.cert_resolver = Arc::new(Thief {
        own: Arc::new(pair.server_config()),
        stolen: Arc::new(pair.client_config()),
    });
    let pinned = crate::tls::Pinned::new(
        pair.table.clone(),
        Expected::Member(pair.caller.peer.member),
    );
    let client = crate::tls::client_config(&pair.caller.credentials, pinned).unwrap();
    let refused = handshake(&Arc::new(client), &Arc::new(server)).unwrap_err();
    let bad_signature = rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature);
    assert_eq!(refused, bad_signature);
}

#[derive(Debug)]
struct Thief {
    own: Arc<rustls::ServerConfig>,
    stolen: Arc<rustls::ClientConfig>,
}

impl rustls::server::ResolvesServerCert for Thief {
    fn resolve(
        &self,
        hello: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        let own = self.own.cert_resolver.resolve(hello)?;
        let stolen = self.stolen.client_auth_cert_resolver.resolve(&[], &[])?;
        let shown = rustls::sign::CertifiedKey::new(stolen.cert.clone(), own.key.clone());
        Some(Arc::new(shown))
    }
}

#[tokio::test]
async fn members_reach_each_other() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    assert_eq!(peer.identity(), &scene.server.peer);
    assert_eq!(peer.hello(&node_info()).await.unwrap(), node_info());
    let open = scene.connections.open();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].peer, scene.caller.peer);
    assert!(open[0].traffic().read() > 1_000 && open[0].traffic().written() > 1_000);
    let connection = peer.connection().clone();
    assert!(!connection.is_closed());
    drop(peer);
    until("both ends see the close", || {
        connection.is_closed() && scene.connections.open().is_empty()
    })
    .await;
}

#[tokio::test]
async fn an_unknown_key_gets_no_call_through() {
    let scene = Scene::new(quick()).await;
    let stranger = Party::new(3);
    // In TLS 1.3 the client is done before the server has seen its certificate.
    let failed = match scene.try_dial(&stranger).await {
        Ok(peer) => peer.hello(&node_info()).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(failed, NetError::Closed(_) | NetError::Handshake(_)),
        "{failed:?}"
    );
    assert!(scene.connections.open().is_empty());
}

#[tokio::test]
async fn a_dialler_refuses_another_member_than_it_meant() {
    let scene = Scene::new(quick()).await;
    let other = scene.caller.peer.member;
    let dialler = scene.caller.dialler(&scene.table);
    let expected = Expected::Member(other);
    let refused = dialler.dial(&scene.address, expected).await.unwrap_err();
    let NetError::Refused(Refusal::WrongPeer { got, .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(**got, scene.server.peer);
    assert_eq!(refused.code(), "tls_wrong_peer");
}

#[tokio::test]
async fn a_dialler_refuses_another_node_than_it_meant() {
    let scene = Scene::new(quick()).await;
    let dialler = scene.caller.dialler(&scene.table);
    let spare = hashpact_core::id::Slug::parse("spare").unwrap();
    let expected = Expected::Node(scene.server.peer.member, spare);
    let refused = dialler.dial(&scene.address, expected).await;
    assert!(matches!(refused, Err(NetError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_stranger_is_asked_for_the_roster_and_pinned_by_it() {
    use futures_util::StreamExt as _;
    let scene = Scene::new(quick()).await;
    let cards = Arc::new(PeerTable::default());
    let dialler = scene.caller.dialler(&cards);
    let meant = Expected::Member(scene.server.peer.member);
    let stranger = dialler.dial_stranger(&scene.address).await.unwrap();
    assert_eq!(stranger.key(), &scene.server.peer.tls_key);
    let items = stranger.roster(7).await.unwrap();
    assert_eq!(items.count().await, 3);
    cards.replace([scene.server.peer.clone()]);
    let peer = stranger.pin(&meant).unwrap();
    assert!(peer.hello(&node_info()).await.is_ok());

    let stranger = dialler.dial_stranger(&scene.address).await.unwrap();
    cards.replace([PeerIdentity {
        member: scene.caller.peer.member,
        ..scene.server.peer.clone()
    }]);
    let refused = stranger.pin(&meant);
    assert!(
        matches!(refused, Err(NetError::Refused(Refusal::WrongPeer { .. }))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_silent_client_keeps_nobody_waiting() {
    let settings = Settings {
        handshake_timeout: PATIENCE,
        ..quick()
    };
    let scene = Scene::new(settings).await;
    let silent = TcpStream::connect(&scene.address).await.unwrap();
    let peer = scene.dial().await;
    assert!(peer.hello(&node_info()).await.is_ok());
    let still_open = silent.try_read(&mut [0; 16]).unwrap_err();
    assert_eq!(still_open.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_silent_client_is_dropped() {
    let settings = Settings {
        handshake_timeout: Duration::from_millis(200),
        ..quick()
    };
    let scene = Scene::new(settings).await;
    let mut silent = TcpStream::connect(&scene.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn handshakes_beyond_the_limit_wait_for_a_permit() {
    let settings = Settings {
        handshakes_max: 1,
        handshake_timeout: Duration::from_secs(1),
        ..quick()
    };
    let scene = Scene::new(settings).await;
    let begin = Instant::now();
    let _silent = TcpStream::connect(&scene.address).await.unwrap();
    let peer = scene.dial().await;
    assert!(peer.hello(&node_info()).await.is_ok());
    assert!(begin.elapsed() >= settings.handshake_timeout);
}

#[tokio::test]
async fn text_that_is_no_endpoint_is_refused() {
    let scene = Scene::new(quick()).await;
    let dialler = scene.caller.dialler(&scene.table);
    for endpoint in ["", "host", "host:", "host:70000", ":1", "a b:1", "h\r\nx:1"] {
        let expected = Expected::Member(scene.server.peer.member);
        let refused = dialler.dial(endpoint, expected).await;
        assert!(matches!(refused, Err(NetError::Endpoint(_))), "{refused:?}");
    }
}

/// A proxy that opens one tunnel, or answers with `refusal`.
async fn proxy(refusal: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(near.read_u8().await.unwrap());
        }
        if let Some(refusal) = refusal {
            near.write_all(refusal.as_bytes()).await.unwrap();
            return;
        }
        let request = String::from_utf8(request).unwrap();
        let target = request.split(' ').nth(1).unwrap();
        let mut far = TcpStream::connect(target).await.unwrap();
        near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await
            .unwrap();
        let _ = copy_bidirectional(&mut near, &mut far).await;
    });
    address
}

#[tokio::test]
async fn a_peer_is_reached_through_a_proxy() {
    let scene = Scene::new(quick()).await;
    let dialler = scene.caller.dialler(&scene.table);
    let dialler = dialler.through(proxy(None).await);
    let expected = Expected::Member(scene.server.peer.member);
    let peer = dialler.dial(&scene.address, expected).await.unwrap();
    assert!(peer.hello(&node_info()).await.is_ok());
}

#[tokio::test]
async fn a_proxy_that_refuses_is_quoted() {
    let scene = Scene::new(quick()).await;
    let dialler = scene.caller.dialler(&scene.table);
    let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
    let dialler = dialler.through(proxy(Some(refusal)).await);
    let expected = Expected::Member(scene.server.peer.member);
    let refused = dialler.dial(&scene.address, expected).await.unwrap_err();
    assert!(
        matches!(&refused, NetError::Proxy(words) if words.contains("407")),
        "{refused:?}"
    );
}
