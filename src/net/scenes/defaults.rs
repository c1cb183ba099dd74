//! The stack's unsafe defaults, as regression tests of our configuration.
//!
//! Each names the program in which the default was seen to be unsafe: a session
//! resumed with a key that was revoked in between, and HTTP/2 without limits. The
//! third, zstd's window, is tested with `hashpact_core::page`, whose decoder is the
//! only one.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Party, Scene, quick};
use crate::peer::{Expected, PeerTable};
use crate::settings;
use crate::tls::{self, Pinned, Refusal};

/// Runs one handshake in memory and reads a little after it, tickets included.
pub(super) fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = "node.example".try_into().unwrap();
    let mut client = ClientConnection::new(client.clone(), name)?;
    let mut server = ServerConnection::new(server.clone())?;
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((client, server))
}

pub(super) struct Pair {
    pub(super) server: Party,
    pub(super) caller: Party,
    pub(super) table: Arc<PeerTable>,
}

impl Pair {
    pub(super) fn new() -> Self {
        let (server, caller) = (Party::new(1), Party::new(2));
        let table = Arc::new(PeerTable::new([server.peer.clone(), caller.peer.clone()]));
        Self {
            server,
            caller,
            table,
        }
    }

    pub(super) fn server_config(&self) -> ServerConfig {
        tls::server_config(&self.server.credentials, self.table.clone()).unwrap()
    }

    pub(super) fn client_config(&self) -> ClientConfig {
        let expected = Expected::Member(self.server.peer.member);
        let pinned = Pinned::new(self.table.clone(), expected);
        tls::client_config(&self.caller.credentials, pinned).unwrap()
    }
}

#[test]
fn a_second_handshake_is_full_even_if_the_client_would_resume() {
    let pair = Pair::new();
    let server = Arc::new(pair.server_config());
    let mut client = pair.client_config();
    client.resumption = Resumption::in_memory_sessions(8);
    let client = Arc::new(client);
    for _ in 0..2 {
        let (client, server) = handshake(&client, &server).unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_second_handshake_is_full_even_if_the_server_would_resume() {
    let pair = Pair::new();
    let mut server = pair.server_config();
    server.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    server.send_tls13_tickets = 2;
    let server = Arc::new(server);
    let client = Arc::new(pair.client_config());
    for _ in 0..2 {
        let (client, _) = handshake(&client, &server).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_key_revoked_between_two_handshakes_is_refused() {
    let pair = Pair::new();
    let server = Arc::new(pair.server_config());
    let mut client = pair.client_config();
    client.resumption = Resumption::in_memory_sessions(8);
    let client = Arc::new(client);
    assert!(handshake(&client, &server).is_ok());
    pair.table.replace([pair.server.peer.clone()]);
    let refused = handshake(&client, &server).unwrap_err();
    let key = pair.caller.peer.tls_key;
    assert_eq!(
        Refusal::in_error(&refused),
        Some(&Refusal::UnknownKey(key)),
        "{refused:?}"
    );
}

#[test]
fn early_data_and_tickets_are_off_on_both_sides() {
    let pair = Pair::new();
    let server = pair.server_config();
    assert_eq!(server.send_tls13_tickets, 0);
    assert_eq!(server.max_tls13_tickets, 0);
    assert_eq!(server.max_early_data_size, 0);
    assert!(!server.send_half_rtt_data);
    assert!(!server.session_storage.can_cache());
    assert!(!server.ticketer.enabled());
    let client = pair.client_config();
    assert!(!client.enable_early_data);
    assert!(client.send_ticket_request.is_none());
}

/// A TLS connection to the scene's server, for frames written by hand.
async fn raw(scene: &Scene) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    let expected = Expected::Member(scene.server.peer.member);
    let pinned = Pinned::new(scene.table.clone(), expected);
    let config = tls::client_config(&scene.caller.credentials, pinned).unwrap();
    let socket = TcpStream::connect(&scene.address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let name = "node.example".try_into().unwrap();
    connector.connect(name, socket).await.unwrap()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Reads one frame: its type and payload.
async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.ok()?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((header[3], payload))
}

#[tokio::test]
async fn settings_carry_every_limit() {
    let scene = Scene::new(quick()).await;
    let mut stream = raw(&scene).await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(EMPTY_SETTINGS).await.unwrap();
    let (kind, payload) = frame(&mut stream).await.unwrap();
    assert_eq!(kind, 4);
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

#[tokio::test]
async fn a_flood_of_faulty_streams_ends_in_goaway() {
    const STREAMS: u32 = 1_000;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let scene = Scene::new(quick()).await;
    let (mut reader, mut writer) = tokio::io::split(raw(&scene).await);
    writer.write_all(PREFACE).await.unwrap();
    writer.write_all(EMPTY_SETTINGS).await.unwrap();
    let flood = tokio::spawn(async move {
        for stream in 0..STREAMS {
            let id = (2 * stream + 1).to_be_bytes();
            // POST /x that ends with its headers, with `content-length: 10`: an error
            // of the stream, which the server must answer by a reset.
            let block = b"\x83\x86\x04\x02/x\x01\x01a\x0f\x0d\x0210";
            let mut bytes = vec![0, 0, u8::try_from(block.len()).unwrap(), 1, 5];
            bytes.extend_from_slice(&id);
            bytes.extend_from_slice(block);
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let (mut resets, mut goaway) = (0, None);
    while let Some((kind, payload)) = frame(&mut reader).await {
        match kind {
            3 => resets += 1,
            7 => {
                goaway = Some(u32::from_be_bytes([
                    payload[4], payload[5], payload[6], payload[7],
                ]));
            }
            _ => {}
        }
    }
    flood.abort();
    assert_eq!(goaway, Some(ENHANCE_YOUR_CALM));
    assert!(resets <= settings::LOCAL_ERROR_RESETS_MAX + 1, "{resets}");
}
