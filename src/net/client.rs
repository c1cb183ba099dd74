//! The dialler and the peer that it reaches: one connection, one decided identity,
//! four typed calls.
//!
//! A [`Peer`] never dials again by itself: when its connection ends, all its calls
//! fail, and the node dials anew, with all checks.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt as _};
use hashpact_core::id::{Digest, UnixMillis};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::accept::{Met, handshake_error, tune};
use crate::connections::{Connection, Direction, Listed, NewConnection};
use crate::error::NetError;
use crate::io::{Metered, Traffic};
use crate::peer::{Expected, PeerIdentity};
use crate::server::Identity;
use crate::settings::{self, MESSAGE_MAX_BYTES, Settings};
use crate::stream::{Guarded, PeerStream};
use crate::streams::{incoming, with_alive};
use crate::tls::{self, CallingSide, Pinned, Refusal};
use crate::types::{
    Announcement, BoxStream, Incoming, NodeInfo, Outgoing, PullPart, PullRequest, RosterItem,
};
use crate::wire::federation_client::FederationClient;
use crate::{convert, proxy, status, wire};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// Dials peers with this node's key.
#[derive(Clone)]
pub struct Dialler {
    identity: Identity,
    clock: Clock,
    proxy: Option<String>,
}

impl fmt::Debug for Dialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dialler").field(&self.identity).finish()
    }
}

impl Dialler {
    /// Makes a dialler. `clock` stamps the signs of life on a watch.
    #[must_use]
    pub const fn new(identity: Identity, clock: Clock) -> Self {
        Self {
            identity,
            clock,
            proxy: None,
        }
    }

    /// Goes through the HTTP proxy at `host:port` from here on. TLS runs end to
    /// end inside; the proxy sees names and sizes.
    #[must_use]
    pub fn through(mut self, proxy: String) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Dials `host:port` and takes nobody but `expected` there.
    ///
    /// # Errors
    /// [`NetError`]; [`NetError::Refused`] when somebody else answers.
    pub async fn dial(&self, endpoint: &str, expected: Expected) -> Result<Peer, NetError> {
        let stream = self.open(endpoint, expected, CallingSide::Dialler).await?;
        self.call_over(stream).await
    }

    /// Dials `host:port`, takes nobody but `expected` there, and agrees on who calls.
    pub(crate) async fn open(
        &self,
        endpoint: &str,
        expected: Expected,
        caller: CallingSide,
    ) -> Result<PeerStream, NetError> {
        let identity = &self.identity;
        let pinned = Pinned::new(identity.directory.clone(), expected.clone());
        let config = tls::client_config_for(&identity.credentials, pinned, caller)?;
        let secured = self.reach(endpoint, config, caller).await?;
        let known = pin(identity, &secured.key, &expected)?;
        let new = secured.facts.connection(known);
        let limit = identity.settings.connections_per_member;
        let listed = identity.connections.add(new, limit)?;
        Ok(PeerStream::new(*secured.stream, listed))
    }

    /// Makes the caller of a connection that [`open`](Self::open) gave.
    pub(crate) async fn call_over(&self, stream: PeerStream) -> Result<Peer, NetError> {
        Peer::over(stream, self.identity.settings, self.clock.clone()).await
    }

    /// Limits and times.
    pub(crate) const fn settings(&self) -> &Settings {
        &self.identity.settings
    }

    /// Dials `host:port` before this node can know whose key it should meet. The
    /// roster is all that can be asked of whoever answers.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn dial_stranger(&self, endpoint: &str) -> Result<Stranger, NetError> {
        let config = tls::client_config_unpinned(&self.identity.credentials)?;
        let secured = self.reach(endpoint, config, CallingSide::Dialler).await?;
        let slot = Arc::new(OnceLock::new());
        let listed = Arc::downgrade(&slot);
        Ok(Stranger {
            client: client(Guarded::new(*secured.stream, slot)).await?,
            key: secured.key,
            facts: secured.facts,
            listed,
            dialler: self.clone(),
        })
    }

    async fn reach(
        &self,
        endpoint: &str,
        config: ClientConfig,
        caller: CallingSide,
    ) -> Result<Secured, NetError> {
        let name = server_name(endpoint)?;
        let limit = settings::CONNECT_TIMEOUT;
        let connect = timeout(limit, self.connect(endpoint)).await;
        let late = |what, limit| move |_| NetError::Timeout { what, limit };
        let socket = connect.map_err(late("connecting", limit))??;
        let limit = self.identity.settings.handshake_timeout;
        let handshake = Box::pin(self.handshake(name, socket, config, caller));
        let handshake = timeout(limit, handshake).await;
        handshake.map_err(late("handshake", limit))?
    }

    async fn connect(&self, endpoint: &str) -> Result<TcpStream, NetError> {
        let first = self.proxy.as_deref().unwrap_or(endpoint);
        let mut socket = TcpStream::connect(first).await.map_err(NetError::Connect)?;
        socket.set_nodelay(true).map_err(NetError::Connect)?;
        if self.proxy.is_some() {
            proxy::tunnel(&mut socket, endpoint).await?;
        }
        Ok(socket)
    }

    async fn handshake(
        &self,
        name: ServerName<'static>,
        socket: TcpStream,
        config: ClientConfig,
        caller: CallingSide,
    ) -> Result<Secured, NetError> {
        let settings = self.identity.settings;
        let address = socket.peer_addr().map_err(NetError::Connect)?;
        let own_key = self.identity.credentials.key_digest()?;
        let cut = CancellationToken::new();
        let socket = Metered::new(socket, cut.clone(), settings.progress_timeout);
        let traffic = socket.traffic();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, socket).await;
        let mut stream = TlsStream::from(stream.map_err(handshake_error)?);
        let Met {
            key,
            caller: agreed,
            certificate_expires,
        } = tune(&mut stream)?;
        if agreed != caller {
            return Err(NetError::Protocol);
        }
        let facts = Facts {
            caller,
            own_key,
            certificate_expires,
            address,
            traffic,
            cut,
        };
        let stream = Box::new(stream);
        Ok(Secured { stream, key, facts })
    }
}

/// The host of `host:port`: for load balancers that look at it; no check uses it.
fn server_name(endpoint: &str) -> Result<ServerName<'static>, NetError> {
    let wrong = || NetError::Endpoint(endpoint.chars().take(300).collect());
    let (host, port) = endpoint.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| wrong())
}

/// HTTP/2 over one stream, with every limit set. A second connection is refused: it
/// would skip the checks.
async fn channel<G>(stream: Guarded<G>) -> Result<Channel, NetError>
where
    G: Unpin + Send + 'static,
{
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        std::future::ready(stream.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)))
    });
    Endpoint::from_static("http://peer.invalid")
        .initial_stream_window_size(settings::CLIENT_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(settings::CLIENT_CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(false)
        .max_frame_size(settings::CLIENT_FRAME_MAX_BYTES)
        .http2_max_header_list_size(settings::HEADER_LIST_MAX_BYTES)
        .http2_max_local_error_reset_streams(settings::LOCAL_ERROR_RESETS_MAX)
        .http2_keep_alive_interval(settings::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(settings::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| NetError::Closed(error.to_string()))
}

async fn client<G>(stream: Guarded<G>) -> Result<FederationClient<Channel>, NetError>
where
    G: Unpin + Send + 'static,
{
    let client = FederationClient::new(channel(stream).await?);
    Ok(client
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES))
}

/// Whose the key is that a handshake proved, if that is who was meant.
fn pin(identity: &Identity, key: &Digest, expected: &Expected) -> Result<PeerIdentity, NetError> {
    let known = identity.directory.peer_of(key);
    let peer = known.ok_or(NetError::Refused(Refusal::UnknownKey(*key)))?;
    if expected.is(&peer) {
        return Ok(peer);
    }
    let (expected, got) = (expected.clone(), Box::new(peer));
    Err(NetError::Refused(Refusal::WrongPeer { expected, got }))
}

/// A connection after its handshake.
struct Secured {
    stream: Box<TlsStream<Metered<TcpStream>>>,
    key: Digest,
    facts: Facts,
}

/// What a connection that we dialled is listed with.
#[derive(Debug)]
struct Facts {
    caller: CallingSide,
    own_key: Digest,
    certificate_expires: Option<UnixMillis>,
    address: SocketAddr,
    traffic: Arc<Traffic>,
    cut: CancellationToken,
}

impl Facts {
    fn connection(self, peer: PeerIdentity) -> NewConnection {
        NewConnection {
            direction: Direction::Outbound,
            caller: self.caller,
            peer,
            own_key: self.own_key,
            certificate_expires: self.certificate_expires,
            address: self.address,
            traffic: self.traffic,
            cut: self.cut,
        }
    }
}

/// A peer whose key is on no card that this node knows yet.
#[derive(Debug)]
pub struct Stranger {
    client: FederationClient<Channel>,
    key: Digest,
    facts: Facts,
    listed: Weak<OnceLock<Listed>>,
    dialler: Dialler,
}

impl Stranger {
    /// The SPKI digest of the key that the handshake proved.
    #[must_use]
    pub const fn key(&self) -> &Digest {
        &self.key
    }

    /// As [`Peer::roster`].
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn roster(&self, from_version: u64) -> Result<Incoming<RosterItem>, NetError> {
        let settings = &self.dialler.identity.settings;
        roster(&self.client, settings, from_version).await
    }

    /// Goes on with the connection, once the directory knows the key as that of who
    /// was meant.
    ///
    /// # Errors
    /// [`NetError::Refused`] when it does not.
    pub fn pin(self, expected: &Expected) -> Result<Peer, NetError> {
        let Dialler {
            identity, clock, ..
        } = self.dialler;
        let known = pin(&identity, &self.key, expected)?;
        let limit = identity.settings.connections_per_member;
        let new = self.facts.connection(known);
        let listed = identity.connections.add(new, limit)?;
        let connection = listed.connection().clone();
        // Without the slot the stream is gone, and `listed` ends right here.
        if let Some(slot) = self.listed.upgrade() {
            let _ = slot.set(listed);
        }
        Ok(Peer {
            client: self.client,
            connection,
            settings: identity.settings,
            clock,
        })
    }
}

/// The node that was meant, over one connection. Clones share it.
#[derive(Clone)]
pub struct Peer {
    client: FederationClient<Channel>,
    connection: Connection,
    settings: Settings,
    clock: Clock,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.connection).finish()
    }
}

impl Peer {
    /// Calls over a connection, whoever dialled it.
    pub(crate) async fn over(
        stream: PeerStream,
        settings: Settings,
        clock: Clock,
    ) -> Result<Self, NetError> {
        let connection = stream.connection().clone();
        Ok(Self {
            client: client(stream).await?,
            connection,
            settings,
            clock,
        })
    }

    /// Who it is.
    #[must_use]
    pub const fn identity(&self) -> &PeerIdentity {
        &self.connection.peer
    }

    /// The connection: its counters, its switch, its end.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Says what this node is and hears the same of the peer.
    ///
    /// # Errors
    /// [`NetError`], within the unary deadline.
    pub async fn hello(&self, node: &NodeInfo) -> Result<NodeInfo, NetError> {
        let mut client = self.client.clone();
        let request = wire::HelloRequest {
            node: Some(node.into()),
        };
        let answer = in_time("hello", &self.settings, client.hello(request)).await?;
        Ok(convert::node_info(answer.node)?)
    }

    /// Reads the roster chain from a version on, then cards, then suspensions.
    ///
    /// # Errors
    /// [`NetError`]; so is every item that breaks a rule, which ends the stream.
    pub async fn roster(&self, from_version: u64) -> Result<Incoming<RosterItem>, NetError> {
        roster(&self.client, &self.settings, from_version).await
    }

    /// Tells the peer what `said` yields and hears what it announces. Signs of life
    /// are added to `said`. The watch ends, both ways, when what is heard is dropped.
    ///
    /// # Errors
    /// [`NetError`]; a silence of the peer ends the stream with one.
    pub async fn watch(&self, said: Outgoing) -> Result<Incoming<Announcement>, NetError> {
        let mut client = self.client.clone();
        let clock = self.clock.clone();
        let alive = move || Announcement::Alive { clock: clock() };
        let said = with_alive(said, self.settings.alive_interval, alive);
        let said = said.map(wire::Announcement::from);
        // HTTP/2 ends a stream only when neither side of it is in use any more.
        let over = CancellationToken::new();
        let said = said.take_until(over.clone().cancelled_owned());
        let said = ToSay(Box::pin(said));
        let over = over.drop_guard();
        let heard = in_time("watch", &self.settings, client.watch(said)).await?;
        let patience = self.settings.progress_timeout;
        let heard = incoming("a watch", heard, patience, convert::announcement);
        Ok(Box::pin(heard.inspect(move |_| {
            let _ = &over;
        })))
    }

    /// Asks for leaves, or for the proof alone.
    ///
    /// # Errors
    /// [`NetError`]; a stream without progress ends with one.
    pub async fn pull(&self, request: &PullRequest) -> Result<Incoming<PullPart>, NetError> {
        let mut client = self.client.clone();
        let count = self.connection.begin_pull();
        let call = client.pull(wire::PullRequest::from(request));
        let parts = in_time("pull", &self.settings, call).await?;
        let proof_only = request.proof_only;
        let convert = move |item| convert::pull_part(item, proof_only);
        let patience = self.settings.progress_timeout;
        let parts = incoming("a pull", parts, patience, convert);
        Ok(Box::pin(parts.inspect(move |_| {
            let _ = &count;
        })))
    }
}

/// What is said on a watch, under a plain name: with the stream's own type, the
/// compiler cannot prove that the call may move between threads.
struct ToSay(BoxStream<wire::Announcement>);

impl Stream for ToSay {
    type Item = wire::Announcement;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

async fn roster(
    client: &FederationClient<Channel>,
    settings: &Settings,
    from_version: u64,
) -> Result<Incoming<RosterItem>, NetError> {
    let mut client = client.clone();
    let request = wire::GetRosterRequest { from_version };
    let items = in_time("the roster", settings, client.get_roster(request)).await?;
    let patience = settings.progress_timeout;
    Ok(incoming(
        "the roster",
        items,
        patience,
        convert::roster_item,
    ))
}

/// A call's answer, or its first sign, within the unary deadline.
async fn in_time<T>(
    what: &'static str,
    settings: &Settings,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, NetError> {
    let limit = settings.unary_deadline;
    let answer = timeout(limit, call).await;
    let answer = answer.map_err(|_| NetError::Timeout { what, limit })?;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| status::read(&status))
}
