//! The accept loop: a permit, then accept, then a handshake of its own with a
//! deadline; what comes out has a decided peer.
//!
//! tonic's own loop knows no custom verifier, hands on errors of one connection to
//! all, and has no limits on handshakes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hashpact_core::id::Digest;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::connections::{Connections, Direction, Listed, NewConnection};
use crate::error::NetError;
use crate::io::Metered;
use crate::peer::PeerDirectory;
use crate::settings::{Settings, TLS_BUFFER_BYTES};
use crate::stream::PeerStream;
use crate::tls::{self, Refusal};

/// After an accept that failed for want of file descriptors, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Handshakes done that HTTP/2 has not taken yet; it takes them at once.
const QUEUE: usize = 16;

/// What the loop needs.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) directory: Arc<dyn PeerDirectory>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) settings: Settings,
}

impl Acceptor {
    /// Accepts until `stop`. The stream ends then.
    pub(crate) fn incoming(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> ReceiverStream<Result<PeerStream, Infallible>> {
        let (done, incoming) = mpsc::channel(QUEUE);
        let accept = Arc::new(self).accept_all(listener, done, stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(accept));
        ReceiverStream::new(incoming)
    }

    async fn accept_all(
        self: Arc<Self>,
        listener: TcpListener,
        done: mpsc::Sender<Result<PeerStream, Infallible>>,
        stop: CancellationToken,
    ) {
        let handshakes = Arc::new(Semaphore::new(self.settings.handshakes_max));
        loop {
            // The permit comes first: without one, connections wait in the kernel.
            let Ok(permit) = handshakes.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((socket, address)) => {
                    let done = done.clone();
                    let welcome = self.clone().welcome(socket, address, permit, done);
                    tokio::spawn(stop.clone().run_until_cancelled_owned(welcome));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// One handshake, its outcome in log and metrics, and what came of it handed on.
    async fn welcome(
        self: Arc<Self>,
        socket: TcpStream,
        address: SocketAddr,
        permit: OwnedSemaphorePermit,
        done: mpsc::Sender<Result<PeerStream, Infallible>>,
    ) {
        let limit = self.settings.handshake_timeout;
        let late = NetError::Timeout {
            what: "handshake",
            limit,
        };
        let outcome = timeout(limit, self.handshake(socket, address)).await;
        let outcome = outcome.unwrap_or(Err(late));
        drop(permit);
        let code = outcome.as_ref().map_or_else(NetError::code, |_| "ok");
        metrics::counter!("hashpact_handshakes_total", "outcome" => code).increment(1);
        match outcome {
            Ok(stream) => {
                let connection = stream.connection();
                tracing::debug!(peer = %connection.peer, %address, id = connection.id, "connected");
                // Fails only once the server is gone; then so is the connection.
                let _ = done.send(Ok(stream)).await;
            }
            Err(error) => tracing::info!(%address, code, %error, "connection refused"),
        }
    }

    async fn handshake(
        &self,
        socket: TcpStream,
        address: SocketAddr,
    ) -> Result<PeerStream, NetError> {
        socket.set_nodelay(true).map_err(NetError::Connect)?;
        let cut = CancellationToken::new();
        let socket = Metered::new(socket, cut.clone(), self.settings.progress_timeout);
        let traffic = socket.traffic();
        let handshake = TlsAcceptor::from(self.tls.clone()).accept(socket);
        let mut stream = TlsStream::from(handshake.await.map_err(handshake_error)?);
        let key = tune(&mut stream)?;
        let peer = self.directory.peer_of(&key);
        let peer = peer.ok_or(NetError::Refused(Refusal::UnknownKey(key)))?;
        let new = NewConnection {
            direction: Direction::Inbound,
            peer,
            address,
            traffic,
            cut,
        };
        let listed = self
            .connections
            .add(new, self.settings.connections_per_member)?;
        self.retire(&listed);
        Ok(PeerStream::new(stream, listed))
    }

    /// Cuts the connection once it is of age and its streams had time to end.
    /// tonic's own grace skips the graceful part.
    fn retire(&self, listed: &Listed) {
        let connection = listed.connection().clone();
        let at = Instant::now() + self.settings.connection_age + self.settings.connection_age_grace;
        tokio::spawn(async move {
            tokio::select! {
                () = sleep_until(at) => connection.cut(),
                () = connection.closed() => {}
            }
        });
    }
}

/// What both sides do after a handshake: the protocol is checked, the buffer of
/// TLS bounded, and the key that the peer proved to hold is named.
pub(crate) fn tune(stream: &mut TlsStream<Metered<TcpStream>>) -> Result<Digest, NetError> {
    let buffer = Some(TLS_BUFFER_BYTES);
    match stream {
        TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(buffer),
        TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(buffer),
    }
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(tls::ALPN) {
        return Err(NetError::Protocol);
    }
    let certificates = session.peer_certificates().unwrap_or_default();
    let [certificate] = certificates else {
        return Err(NetError::Refused(Refusal::Chain(certificates.len())));
    };
    tls::spki_digest(certificate).map_err(|error| NetError::Handshake(std::io::Error::other(error)))
}

/// Tells our own refusal of a certificate from every other failure.
pub(crate) fn handshake_error(error: std::io::Error) -> NetError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match tls.and_then(Refusal::in_error) {
        Some(refusal) => NetError::Refused(refusal.clone()),
        None => NetError::Handshake(error),
    }
}
