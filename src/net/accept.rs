//! The accept loop: a permit, then accept, then a handshake of its own with a
//! deadline; what comes out has a decided peer.
//!
//! tonic's own loop knows no custom verifier, hands on errors of one connection to
//! all, and has no limits on handshakes.
//!
//! A connection whose protocol says that this side calls on it goes to whoever
//! takes those, as a [`Peer`]; all others go to the server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hashpact_core::id::{Digest, UnixMillis};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::addresses::{Addresses, Turn};
use crate::client::{Clock, Peer};
use crate::connections::{Connection, Direction, NewConnection};
use crate::error::NetError;
use crate::io::Metered;
use crate::server::Identity;
use crate::settings::{Settings, TLS_BUFFER_BYTES};
use crate::stream::PeerStream;
use crate::tls::{self, CallingSide, Refusal};

/// After an accept that failed for want of file descriptors, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Handshakes done that HTTP/2 has not taken yet; it takes them at once.
const QUEUE: usize = 16;

/// The way in to the server for connections whose peer is decided, whoever dialled.
#[derive(Debug, Clone)]
pub(crate) struct Entrance(mpsc::Sender<Result<PeerStream, Infallible>>);

/// What comes in.
pub(crate) type Entering = ReceiverStream<Result<PeerStream, Infallible>>;

impl Entrance {
    pub(crate) fn new() -> (Self, Entering) {
        let (sender, entering) = mpsc::channel(QUEUE);
        (Self(sender), ReceiverStream::new(entering))
    }

    /// Hands a connection to the server. Without one it is dropped, and closed.
    pub(crate) async fn put(&self, stream: PeerStream) {
        let _ = self.0.send(Ok(stream)).await;
    }
}

/// Who takes connections on which this side calls.
#[derive(Clone)]
pub(crate) struct Reversals {
    pub(crate) to: mpsc::Sender<Peer>,
    pub(crate) clock: Clock,
}

/// What a handshake came to.
enum Welcomed {
    /// The peer calls.
    Calling(Box<PeerStream>),
    /// The peer dialled to be called.
    Called(Box<Peer>),
}

/// What the loop needs.
pub(crate) struct Acceptor {
    tls: Arc<ServerConfig>,
    identity: Identity,
    reversals: Option<Reversals>,
}

impl Acceptor {
    /// Without `reversals`, connections on which this side calls are refused in the
    /// handshake.
    pub(crate) fn new(identity: Identity, reversals: Option<Reversals>) -> Result<Self, NetError> {
        let mut tls = tls::server_config(&identity.credentials, identity.directory.clone())?;
        if reversals.is_some() {
            tls.alpn_protocols
                .push(CallingSide::Dialled.alpn().to_vec());
        }
        Ok(Self {
            tls: Arc::new(tls),
            identity,
            reversals,
        })
    }

    /// Accepts until `stop`.
    pub(crate) fn begin(self, listener: TcpListener, entrance: Entrance, stop: CancellationToken) {
        let accept = Arc::new(self).accept_all(listener, entrance, stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(accept));
    }

    const fn settings(&self) -> &Settings {
        &self.identity.settings
    }

    async fn accept_all(
        self: Arc<Self>,
        listener: TcpListener,
        entrance: Entrance,
        stop: CancellationToken,
    ) {
        let handshakes = Arc::new(Semaphore::new(self.settings().handshakes_max));
        let addresses = Addresses::new(self.settings().handshakes_per_address_max);
        loop {
            // The permit comes first: without one, connections wait in the kernel.
            let Ok(permit) = handshakes.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((socket, address)) => {
                    let Some(turn) = addresses.enter(address.ip()) else {
                        let code = "too_many_handshakes";
                        metrics::counter!("hashpact_handshakes_total", "outcome" => code)
                            .increment(1);
                        tracing::debug!(%address, code, "connection refused");
                        continue;
                    };
                    let entrance = entrance.clone();
                    let welcome = self
                        .clone()
                        .welcome(socket, address, (permit, turn), entrance);
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
        permit: (OwnedSemaphorePermit, Turn),
        entrance: Entrance,
    ) {
        let limit = self.settings().handshake_timeout;
        let late = NetError::Timeout {
            what: "handshake",
            limit,
        };
        let outcome = timeout(limit, Box::pin(self.handshake(socket, address))).await;
        let outcome = outcome.unwrap_or(Err(late));
        drop(permit);
        let code = outcome.as_ref().map_or_else(NetError::code, |_| "ok");
        metrics::counter!("hashpact_handshakes_total", "outcome" => code).increment(1);
        match outcome {
            Ok(Welcomed::Calling(stream)) => {
                connected(stream.connection());
                entrance.put(*stream).await;
            }
            Ok(Welcomed::Called(peer)) => {
                connected(peer.connection());
                if let Some(reversals) = &self.reversals {
                    // Without a taker it is dropped, and closed.
                    let _ = reversals.to.send(*peer).await;
                }
            }
            Err(error) => tracing::info!(%address, code, %error, "connection refused"),
        }
    }

    async fn handshake(
        &self,
        socket: TcpStream,
        address: SocketAddr,
    ) -> Result<Welcomed, NetError> {
        socket.set_nodelay(true).map_err(NetError::Connect)?;
        // Before the handshake: one that is replaced meanwhile is renewed once more.
        let own_key = self.identity.credentials.key_digest()?;
        let cut = CancellationToken::new();
        let socket = Metered::new(socket, cut.clone(), self.settings().progress_timeout);
        let traffic = socket.traffic();
        let handshake = TlsAcceptor::from(self.tls.clone()).accept(socket);
        let mut stream = TlsStream::from(handshake.await.map_err(handshake_error)?);
        let Met {
            key,
            caller,
            certificate_expires,
        } = tune(&mut stream)?;
        let peer = self.identity.directory.peer_of(&key);
        let peer = peer.ok_or(NetError::Refused(Refusal::UnknownKey(key)))?;
        let new = NewConnection {
            direction: Direction::Inbound,
            caller,
            peer,
            own_key,
            certificate_expires,
            address,
            traffic,
            cut,
        };
        let limit = self.settings().connections_per_member;
        let listed = self.identity.connections.add(new, limit)?;
        retire(listed.connection(), self.settings());
        let stream = PeerStream::new(stream, listed);
        match (caller, &self.reversals) {
            (CallingSide::Dialler, _) => Ok(Welcomed::Calling(Box::new(stream))),
            (CallingSide::Dialled, Some(reversals)) => {
                let clock = reversals.clock.clone();
                let peer = Peer::over(stream, *self.settings(), clock).await?;
                Ok(Welcomed::Called(Box::new(peer)))
            }
            // rustls agrees on nothing that was not offered.
            (CallingSide::Dialled, None) => Err(NetError::Protocol),
        }
    }
}

fn connected(connection: &Connection) {
    let Connection {
        peer, address, id, ..
    } = connection;
    tracing::debug!(%peer, %address, id, caller = ?connection.caller, "connected");
}

/// Asks for another connection shortly before this one is of age, and cuts it once it
/// is and its streams had time to end. tonic's own grace skips the graceful part.
pub(crate) fn retire(connection: &Connection, settings: &Settings) {
    let connection = connection.clone();
    let begun = Instant::now();
    // Not all at once, and before HTTP/2 takes no new streams.
    let early = 0.8 + 0.15 * rand::random::<f64>();
    let renewed = begun + settings.connection_age.mul_f64(early);
    let cut = begun + settings.connection_age + settings.connection_age_grace;
    tokio::spawn(async move {
        let ending = async {
            sleep_until(renewed).await;
            connection.ask_renewal();
            sleep_until(cut).await;
        };
        tokio::select! {
            () = ending => connection.cut(),
            () = connection.closed() => {}
        }
    });
}

/// What a handshake told.
pub(crate) struct Met {
    /// The key that the peer proved to hold.
    pub(crate) key: Digest,
    /// Which side calls.
    pub(crate) caller: CallingSide,
    /// When the certificate that carries the key runs out: shown, and no more.
    pub(crate) certificate_expires: Option<UnixMillis>,
}

/// What both sides do after a handshake: the protocol is read, the buffer of TLS
/// bounded, and the key that the peer proved to hold is named.
pub(crate) fn tune(stream: &mut TlsStream<Metered<TcpStream>>) -> Result<Met, NetError> {
    let buffer = Some(TLS_BUFFER_BYTES);
    match stream {
        TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(buffer),
        TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(buffer),
    }
    let session = stream.get_ref().1;
    let caller = CallingSide::agreed(session.alpn_protocol()).ok_or(NetError::Protocol)?;
    let certificates = session.peer_certificates().unwrap_or_default();
    let [certificate] = certificates else {
        return Err(NetError::Refused(Refusal::Chain(certificates.len())));
    };
    let key = tls::spki_digest(certificate);
    let key = key.map_err(|error| NetError::Handshake(std::io::Error::other(error)))?;
    Ok(Met {
        key,
        caller,
        certificate_expires: tls::not_after(certificate),
    })
}

/// Tells our own refusal of a certificate from every other failure.
pub(crate) fn handshake_error(error: std::io::Error) -> NetError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match tls.and_then(Refusal::in_error) {
        Some(refusal) => NetError::Refused(refusal.clone()),
        None => NetError::Handshake(error),
    }
}
