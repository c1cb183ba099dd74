//! The limit of a first pull: the same bytes over the same TLS, SHA-256 over them,
//! the same keys through the same SST path with as many threads, and no protocol.
//!
//! Receiving and loading overlap, as in a pull. Nothing is decompressed, proved or
//! read: the keys come from where the entries came from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use hashpact_net::tls::{self, Pinned};
use hashpact_net::{Credentials, Expected, PeerTable};
use hashpact_node::Node;
use hashpact_store::{FeedNo, RawLoad, StoreOptions};
use rustls::pki_types::ServerName;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::entries::{self, Which};
use super::{per_second, seconds};
use crate::cli::error::CliError;
use crate::cli::trial::Trial;

/// Pages in one piece: about 1 MiB, as a chunk.
const PIECE_PAGES: u64 = 44;
/// Pieces that one side may be ahead of the other.
const AHEAD: usize = 4;
const PAGE_LEAVES: u64 = hashpact_core::limits::PAGE_LEAVES;

/// What the limit took.
#[derive(Debug, Serialize)]
pub(super) struct Limit {
    /// Of whole pages: up to 255 entries fewer than the pull had.
    entries: u64,
    bytes: u64,
    elapsed_s: f64,
    pub(super) entries_per_s: f64,
    /// From the dial to the last byte; loading goes on beside it.
    pub(super) receive_s: f64,
    /// SHA-256 over what came.
    hash_s: f64,
    /// Postings partitioned, pages written as files.
    put_s: f64,
    /// Postings sorted, written as files, ingested.
    pub(super) files_s: f64,
    settle_s: f64,
}

/// Serves the pages of a feed to whoever connects, one after the other.
pub(super) async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    credentials: Credentials,
    table: Arc<PeerTable>,
) -> Result<(), CliError> {
    let config = tls::server_config(&credentials, table).map_err(CliError::failed)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await.map_err(CliError::failed)?;
        stream.set_nodelay(true).map_err(CliError::failed)?;
        let mut stream = acceptor.accept(stream).await.map_err(CliError::failed)?;
        let (to, mut pieces) = mpsc::channel(AHEAD);
        let node = Arc::clone(&node);
        let reader = tokio::task::spawn_blocking(move || read(&node, &to));
        while let Some(piece) = pieces.recv().await {
            let piece: Bytes = piece;
            stream.write_all(&piece).await.map_err(CliError::failed)?;
        }
        stream.shutdown().await.map_err(CliError::failed)?;
        reader.await.map_err(CliError::failed)??;
    }
}

/// A piece is its length, then each page after its length.
fn read(node: &Node, to: &mpsc::Sender<Bytes>) -> Result<(), CliError> {
    let feed = node.store().feeds().into_iter().find(|feed| feed.own);
    let feed = feed.ok_or_else(|| CliError::failed("there is no set to serve"))?;
    let pages = feed.stored / PAGE_LEAVES;
    let mut first = 0;
    while first < pages {
        let count = PIECE_PAGES.min(pages - first);
        let piece = piece(node, feed.no, first, count)?;
        if to.blocking_send(piece).is_err() {
            return Ok(());
        }
        first += count;
    }
    Ok(())
}

fn piece(node: &Node, feed: FeedNo, first: u64, count: u64) -> Result<Bytes, CliError> {
    let wire = node.store().read_pages_wire(feed, first, count);
    let wire = wire.map_err(CliError::failed)?;
    let length = wire.iter().map(|page| page.len() + 4).sum::<usize>();
    let mut piece = BytesMut::with_capacity(length + 4);
    piece.put_u32(length_of(length)?);
    for page in wire {
        piece.put_u32(length_of(page.len())?);
        piece.put(page);
    }
    Ok(piece.freeze())
}

fn length_of(length: usize) -> Result<u32, CliError> {
    u32::try_from(length).map_err(CliError::failed)
}

/// Runs the limit against a server at `seat` 0, as `seat` 1.
pub(super) async fn run(
    trial: &Trial,
    port: u16,
    dir: &Path,
    count: u64,
    options: StoreOptions,
) -> Result<Limit, CliError> {
    let (server, own) = (trial.seat(0)?, trial.seat(1)?);
    let pinned = Pinned::new(trial.peers()?, Expected::Member(server.number()));
    let config = tls::client_config(&own.credentials()?, pinned).map_err(CliError::failed)?;
    let (to, pieces) = mpsc::channel(AHEAD);
    let dir: PathBuf = dir.to_owned();
    let began = Instant::now();
    let loader = tokio::task::spawn_blocking(move || load(pieces, &dir, count, &options));
    let stream = TcpStream::connect(("127.0.0.1", port)).await;
    let stream = stream.map_err(CliError::failed)?;
    stream.set_nodelay(true).map_err(CliError::failed)?;
    let name = ServerName::try_from("north.trial.example").map_err(CliError::failed)?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector
        .connect(name, stream)
        .await
        .map_err(CliError::failed)?;
    let mut bytes = 0;
    while let Ok(length) = stream.read_u32().await {
        let length = usize::try_from(length).map_err(CliError::failed)?;
        let mut piece = BytesMut::with_capacity(length);
        while piece.len() < length {
            let room = length - piece.len();
            let read = stream.read_buf(&mut (&mut piece).limit(room)).await;
            if read.map_err(CliError::failed)? == 0 {
                return Err(CliError::failed("the limit's stream was cut"));
            }
        }
        bytes += u64::try_from(length).unwrap_or(0);
        if to.send(piece.freeze()).await.is_err() {
            break;
        }
    }
    drop(to);
    let receive = began.elapsed();
    let done = loader.await.map_err(CliError::failed)??;
    let elapsed = began.elapsed();
    Ok(Limit {
        entries: done.entries,
        bytes,
        elapsed_s: seconds(elapsed),
        entries_per_s: per_second(done.entries, elapsed),
        receive_s: seconds(receive),
        hash_s: seconds(done.hash),
        put_s: seconds(done.put),
        files_s: seconds(done.files),
        settle_s: seconds(done.settle),
    })
}

#[derive(Default)]
struct Loaded {
    entries: u64,
    hash: Duration,
    put: Duration,
    files: Duration,
    settle: Duration,
}

fn load(
    mut pieces: mpsc::Receiver<Bytes>,
    dir: &Path,
    count: u64,
    options: &StoreOptions,
) -> Result<Loaded, CliError> {
    let mut load = RawLoad::begin(dir, options).map_err(CliError::failed)?;
    let mut loaded = Loaded::default();
    let mut number = 0;
    while let Some(mut piece) = pieces.blocking_recv() {
        let began = Instant::now();
        std::hint::black_box(Sha256::digest(&piece));
        loaded.hash += began.elapsed();
        let began = Instant::now();
        while piece.remaining() >= 4 {
            let length = usize::try_from(piece.get_u32()).map_err(CliError::failed)?;
            let page = piece.split_to(length.min(piece.len()));
            load.page(number, page).map_err(CliError::failed)?;
            loaded.entries += postings(&mut load, number, count)?;
            number += 1;
        }
        loaded.put += began.elapsed();
    }
    let began = Instant::now();
    let store = load.finish().map_err(CliError::failed)?;
    loaded.files = began.elapsed();
    let began = Instant::now();
    store.settle().map_err(CliError::failed)?;
    loaded.settle = began.elapsed();
    Ok(loaded)
}

/// The two postings of each entry of a page; leaf 0 describes the set.
fn postings(load: &mut RawLoad, page: u64, count: u64) -> Result<u64, CliError> {
    let first = page * PAGE_LEAVES;
    let numbers = first.max(1)..(first + PAGE_LEAVES).min(count + 1);
    let mut entries = 0;
    for index in numbers {
        for which in [Which::Sha256, Which::Pdq] {
            let mut key = [0; 33];
            let (kind, value) = key.split_at_mut(1);
            kind.fill(u8::try_from(which.kind().number()).unwrap_or(0));
            value.copy_from_slice(&entries::value(index - 1, which));
            load.posting(&key, index).map_err(CliError::failed)?;
        }
        entries += 1;
    }
    Ok(entries)
}
