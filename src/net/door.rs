//! A door for the member's own systems: TCP with TLS 1.3, and clients whose keys the
//! configuration names.
//!
//! The same discipline as towards peers: no resumption, one certificate as a carrier of
//! its key, a permit before accept, a handshake with a deadline in a task of its own,
//! bounds on connections. What a client may do is decided per call by whoever serves;
//! here it is only known who it is.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashpact_core::id::Digest;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::Connected;

use crate::accept::handshake_error;
use crate::addresses::{Addresses, Turn};
use crate::error::NetError;
use crate::io::Metered;
use crate::settings::{self, TLS_BUFFER_BYTES};
use crate::stream::Guarded;
use crate::tls::{self, Credentials, KnownClients, Refusal, TlsError};

/// After an accept that failed for want of file descriptors, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Handshakes done that the server has not taken yet; it takes them at once.
const QUEUE: usize = 16;
/// Connections of all clients together: a pool for each of some services.
const CONNECTIONS_MAX: usize = 256;
/// Connections of one client: a pool of workers.
const CONNECTIONS_PER_CLIENT: usize = 64;

/// What is spoken behind the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, for gRPC.
    Http2,
    /// HTTP/1.1, for JSON.
    Http1,
}

impl Protocol {
    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }
}

/// Bounds and times, which a test may set otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorSettings {
    /// See [`settings::HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// See [`settings::HANDSHAKES_MAX`].
    pub handshakes_max: usize,
    /// Of these, from one address: all of a member's systems may stand behind one.
    pub handshakes_per_address_max: usize,
    /// Connections of all clients together.
    pub connections_max: usize,
    /// Connections of one client.
    pub connections_per_client: usize,
    /// See [`settings::PROGRESS_TIMEOUT`].
    pub progress_timeout: Duration,
    /// See [`settings::CONNECTION_AGE`], with the grace after it: then it is cut.
    pub connection_age: Duration,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            handshake_timeout: settings::HANDSHAKE_TIMEOUT,
            handshakes_max: settings::HANDSHAKES_MAX,
            handshakes_per_address_max: settings::HANDSHAKES_MAX / 2,
            connections_max: CONNECTIONS_MAX,
            connections_per_client: CONNECTIONS_PER_CLIENT,
            progress_timeout: settings::PROGRESS_TIMEOUT,
            connection_age: settings::CONNECTION_AGE + settings::CONNECTION_AGE_GRACE,
        }
    }
}

/// A door; `T` is what is known of a client, such as its name and role.
pub struct Door<T> {
    tls: Arc<ServerConfig>,
    clients: Arc<Clients<T>>,
    open: Arc<Mutex<HashMap<Digest, usize>>>,
    settings: DoorSettings,
}

/// A connection whose client is known.
pub type DoorStream<T> = Guarded<Seat<T>>;

/// The clients by the digests of their keys.
struct Clients<T>(HashMap<Digest, T>);

impl<T> fmt::Debug for Clients<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} clients", self.0.len())
    }
}

impl<T: Send + Sync + 'static> KnownClients for Clients<T> {
    fn check(&self, key: &Digest) -> Result<(), Refusal> {
        if self.0.contains_key(key) {
            Ok(())
        } else {
            Err(Refusal::UnknownClient(*key))
        }
    }
}

/// A client's place, which lies with its connection.
pub struct Seat<T> {
    client: T,
    key: Digest,
    open: Arc<Mutex<HashMap<Digest, usize>>>,
    _place: OwnedSemaphorePermit,
    _gone: DropGuard,
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&self.key) {
            *count = count.saturating_sub(1);
        }
        metrics::gauge!("hashpact_api_connections").decrement(1);
    }
}

impl<T: Clone> DoorStream<T> {
    /// What is known of the client.
    #[must_use]
    pub fn client(&self) -> T {
        self.guard.client.clone()
    }
}

impl<T: Clone + Send + Sync + 'static> Connected for DoorStream<T> {
    type ConnectInfo = T;

    fn connect_info(&self) -> T {
        self.client()
    }
}

impl<T: Clone + Send + Sync + Unpin + 'static> Door<T> {
    /// Makes a door for these clients and no others.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub fn new(
        credentials: &Credentials,
        clients: HashMap<Digest, T>,
        protocol: Protocol,
        settings: DoorSettings,
    ) -> Result<Self, TlsError> {
        let clients = Arc::new(Clients(clients));
        let known: Arc<dyn KnownClients> = clients.clone();
        Ok(Self {
            tls: Arc::new(tls::server_config_for(credentials, known, protocol.alpn())?),
            clients,
            open: Arc::default(),
            settings,
        })
    }

    /// Accepts until `stop`; needs a Tokio runtime.
    #[must_use]
    pub fn open(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> ReceiverStream<Result<DoorStream<T>, Infallible>> {
        let (entrance, entering) = mpsc::channel(QUEUE);
        let accept = Arc::new(self).accept_all(listener, entrance, stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(accept));
        ReceiverStream::new(entering)
    }

    async fn accept_all(
        self: Arc<Self>,
        listener: TcpListener,
        entrance: mpsc::Sender<Result<DoorStream<T>, Infallible>>,
        stop: CancellationToken,
    ) {
        let handshakes = Arc::new(Semaphore::new(self.settings.handshakes_max));
        let places = Arc::new(Semaphore::new(self.settings.connections_max));
        let addresses = Addresses::new(self.settings.handshakes_per_address_max);
        loop {
            // The permits come first: without them, connections wait in the kernel.
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let Ok(permit) = handshakes.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((socket, address)) => {
                    let Some(turn) = addresses.enter(address.ip()) else {
                        count("too_many_handshakes");
                        continue;
                    };
                    let welcome = self.clone().welcome(
                        socket,
                        address,
                        (permit, turn),
                        place,
                        entrance.clone(),
                    );
                    tokio::spawn(stop.clone().run_until_cancelled_owned(welcome));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn welcome(
        self: Arc<Self>,
        socket: TcpStream,
        address: SocketAddr,
        permit: (OwnedSemaphorePermit, Turn),
        place: OwnedSemaphorePermit,
        entrance: mpsc::Sender<Result<DoorStream<T>, Infallible>>,
    ) {
        let limit = self.settings.handshake_timeout;
        let late = NetError::Timeout {
            what: "handshake",
            limit,
        };
        let outcome = timeout(limit, Box::pin(self.handshake(socket, place))).await;
        drop(permit);
        match outcome.unwrap_or(Err(late)) {
            Ok(stream) => {
                count("ok");
                // Without a server it is dropped, and closed.
                let _ = entrance.send(Ok(stream)).await;
            }
            Err(error) => {
                count(error.code());
                tracing::info!(%address, code = error.code(), %error, "client refused");
            }
        }
    }

    async fn handshake(
        &self,
        socket: TcpStream,
        place: OwnedSemaphorePermit,
    ) -> Result<DoorStream<T>, NetError> {
        socket.set_nodelay(true).map_err(NetError::Connect)?;
        let cut = CancellationToken::new();
        let socket = Metered::new(socket, cut.clone(), self.settings.progress_timeout);
        let handshake = TlsAcceptor::from(self.tls.clone()).accept(socket);
        let mut stream = handshake.await.map_err(handshake_error)?;
        let session = stream.get_mut().1;
        session.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        // rustls refuses another protocol, but not a client that names none.
        if session.alpn_protocol().is_none() {
            return Err(NetError::Protocol);
        }
        let certificates = session.peer_certificates().unwrap_or_default();
        let [certificate] = certificates else {
            return Err(NetError::Refused(Refusal::Chain(certificates.len())));
        };
        let key = tls::spki_digest(certificate);
        let key = key.map_err(|error| NetError::Handshake(std::io::Error::other(error)))?;
        let client = self.clients.0.get(&key).cloned();
        let client = client.ok_or(NetError::Refused(Refusal::UnknownClient(key)))?;
        self.enter(&key)?;
        let gone = CancellationToken::new();
        retire(cut, gone.clone(), self.settings.connection_age);
        let seat = Seat {
            client,
            key,
            open: self.open.clone(),
            _place: place,
            _gone: gone.drop_guard(),
        };
        Ok(Guarded::new(TlsStream::from(stream), seat))
    }

    /// Counts a connection of a client's; one too many is refused.
    fn enter(&self, key: &Digest) -> Result<(), NetError> {
        let mut open = lock(&self.open);
        let count = open.entry(*key).or_default();
        if *count >= self.settings.connections_per_client {
            return Err(NetError::TooManyConnections(
                self.settings.connections_per_client,
            ));
        }
        *count = count.saturating_add(1);
        metrics::gauge!("hashpact_api_connections").increment(1);
        Ok(())
    }
}

/// Cuts a connection that is of age, so that none outlasts what was true when it began.
fn retire(cut: CancellationToken, gone: CancellationToken, age: Duration) {
    let end = Instant::now() + age;
    tokio::spawn(async move {
        tokio::select! {
            () = sleep_until(end) => cut.cancel(),
            () = gone.cancelled() => {}
        }
    });
}

fn count(outcome: &'static str) {
    metrics::counter!("hashpact_api_handshakes_total", "outcome" => outcome).increment(1);
}

fn lock(open: &Mutex<HashMap<Digest, usize>>) -> MutexGuard<'_, HashMap<Digest, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hashpact_core::id::UnixMillis;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::tls::{PemPair, client_config_unpinned};

    fn credentials(name: &str) -> Credentials {
        let pair = PemPair::generate(name, UnixMillis(1_790_000_000_000)).unwrap();
        Credentials::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).unwrap()
    }

    struct Scene {
        address: SocketAddr,
        known: Credentials,
        entering: ReceiverStream<Result<DoorStream<&'static str>, Infallible>>,
    }

    async fn scene(settings: DoorSettings) -> Scene {
        let known = credentials("known");
        let clients = HashMap::from([(known.key_digest().unwrap(), "matcher")]);
        let door = Door::new(&credentials("node"), clients, Protocol::Http2, settings).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Scene {
            address: listener.local_addr().unwrap(),
            known,
            entering: door.open(listener, CancellationToken::new()),
        }
    }

    /// A handshake and one byte from the other side: with TLS 1.3 a client learns of
    /// its refusal only when it reads.
    async fn dial(
        address: SocketAddr,
        credentials: &Credentials,
        protocol: Option<Protocol>,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut config = client_config_unpinned(credentials).unwrap();
        config.alpn_protocols = protocol.map(|p| p.alpn().to_vec()).into_iter().collect();
        let socket = TcpStream::connect(address).await?;
        let name = ServerName::try_from("node.invalid").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
    }

    /// Whether the door closed the connection rather than let it in.
    async fn is_refused(
        address: SocketAddr,
        credentials: &Credentials,
        p: Option<Protocol>,
    ) -> bool {
        match dial(address, credentials, p).await {
            Err(_) => true,
            Ok(mut stream) => !matches!(stream.read(&mut [0; 1]).await, Ok(1..)),
        }
    }

    #[tokio::test]
    async fn a_client_that_the_configuration_names_comes_in_under_its_name() {
        let mut scene = scene(DoorSettings::default()).await;
        let dialled = dial(scene.address, &scene.known, Some(Protocol::Http2));
        let (dialled, entered) = tokio::join!(dialled, scene.entering.next());
        let mut entered = entered.unwrap().unwrap();
        assert_eq!(entered.client(), "matcher");
        entered.write_all(b"x").await.unwrap();
        entered.flush().await.unwrap();
        assert_eq!(dialled.unwrap().read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn strangers_and_other_protocols_stay_outside() {
        let scene = scene(DoorSettings::default()).await;
        let (at, h2) = (scene.address, Some(Protocol::Http2));
        assert!(is_refused(at, &credentials("stranger"), h2).await);
        assert!(is_refused(at, &scene.known, Some(Protocol::Http1)).await);
        assert!(is_refused(at, &scene.known, None).await);
    }

    #[tokio::test]
    async fn one_client_has_so_many_connections_and_one_that_ends_makes_room() {
        let settings = DoorSettings {
            connections_per_client: 1,
            ..DoorSettings::default()
        };
        let mut scene = scene(settings).await;
        let h2 = Some(Protocol::Http2);
        let first = dial(scene.address, &scene.known, h2).await.unwrap();
        let entered = scene.entering.next().await.unwrap();
        assert!(is_refused(scene.address, &scene.known, h2).await);
        drop((first, entered));
        let _second = dial(scene.address, &scene.known, h2).await.unwrap();
        assert!(scene.entering.next().await.is_some());
    }

    #[tokio::test]
    async fn a_session_is_never_resumed() {
        let mut scene = scene(DoorSettings::default()).await;
        let mut config = client_config_unpinned(&scene.known).unwrap();
        config.resumption = rustls::client::Resumption::in_memory_sessions(8);
        let connector = TlsConnector::from(Arc::new(config));
        for _ in 0..3 {
            let socket = TcpStream::connect(scene.address).await.unwrap();
            let name = ServerName::try_from("node.invalid").unwrap();
            let mut stream = connector.connect(name, socket).await.unwrap();
            let mut entered = scene.entering.next().await.unwrap().unwrap();
            entered.write_all(b"x").await.unwrap();
            entered.flush().await.unwrap();
            stream.read_u8().await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            assert_ne!(kind, Some(rustls::HandshakeKind::Resumed));
        }
    }

    #[tokio::test]
    async fn a_connection_of_age_is_cut() {
        let settings = DoorSettings {
            connection_age: Duration::from_millis(100),
            ..DoorSettings::default()
        };
        let mut scene = scene(settings).await;
        let h2 = Some(Protocol::Http2);
        let _dialled = dial(scene.address, &scene.known, h2).await.unwrap();
        let mut entered = scene.entering.next().await.unwrap().unwrap();
        assert!(entered.read_u8().await.is_err());
    }
}
