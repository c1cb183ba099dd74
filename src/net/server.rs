//! The server: each call in five steps. Who calls, convert, ask the node, convert,
//! audit.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::accept::{Acceptor, Entering, Entrance};
use crate::calls::CallLimiter;
use crate::connections::{Connection, Connections, WatchSlot};
use crate::error::NetError;
use crate::peer::{PeerDirectory, PeerIdentity};
use crate::service::{Call, Caller, FederationService, ServiceError};
use crate::settings::{self, MESSAGE_MAX_BYTES, Settings};
use crate::streams::{incoming, with_alive};
use crate::tls::Credentials;
use crate::types::{Announcement, Answers};
use crate::wire::federation_server::{Federation, FederationServer};
use crate::{convert, status, wire};

/// What a server and a dialler of one node share.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The node's own TLS key and certificate.
    pub credentials: Credentials,
    /// Which keys belong to which nodes.
    pub directory: Arc<dyn PeerDirectory>,
    /// All connections, of both directions.
    pub connections: Arc<Connections>,
    /// Limits and times.
    pub settings: Settings,
}

/// Serves the federation's calls until `stop`; then streams have `grace` to end.
///
/// # Errors
/// [`NetError::Tls`] when TLS cannot be set up. A fault of one connection never
/// ends the server.
pub async fn serve<S: FederationService>(
    listener: TcpListener,
    identity: Identity,
    service: Arc<S>,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), NetError> {
    let (entrance, entering) = Entrance::new();
    Acceptor::new(identity.clone(), None)?.begin(listener, entrance, stop.clone());
    serve_entering(entering, identity, service, stop, grace).await
}

/// As [`serve`], over the connections that enter, whoever dialled.
///
/// # Errors
/// [`NetError::Closed`] when the server ends by itself.
pub(crate) async fn serve_entering<S: FederationService>(
    entering: Entering,
    identity: Identity,
    service: Arc<S>,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), NetError> {
    let connections = identity.connections.clone();
    let calls = Calls(Arc::new(Shared {
        service,
        limiter: CallLimiter::new(&identity.settings),
        directory: identity.directory,
        settings: identity.settings,
    }));
    let calls = FederationServer::new(calls)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let serving = limited(&identity.settings)
        .add_service(calls)
        .serve_with_incoming_shutdown(entering, stop.clone().cancelled_owned());
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
        connections.cut(Connection::is_served);
        std::future::pending().await
    };
    tokio::select! {
        served = serving => served.map_err(|error| NetError::Closed(error.to_string())),
        never = too_late => never,
    }
}

/// HTTP/2 with every limit set. tonic and hyper leave streams and resets without
/// one.
fn limited(settings: &Settings) -> Server {
    Server::builder()
        .max_concurrent_streams(settings::STREAMS_MAX)
        .http2_max_local_error_reset_streams(Some(settings::LOCAL_ERROR_RESETS_MAX))
        .http2_max_pending_accept_reset_streams(Some(settings::PENDING_ACCEPT_RESETS_MAX))
        .http2_max_header_list_size(settings::HEADER_LIST_MAX_BYTES)
        .initial_stream_window_size(settings::SERVER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(settings::SERVER_CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(Some(false))
        .max_frame_size(settings::SERVER_FRAME_MAX_BYTES)
        .http2_keepalive_interval(Some(settings::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(settings::KEEPALIVE_TIMEOUT))
        .max_connection_age(settings.connection_age)
        .accept_http1(false)
}

/// Who has a key at this moment; `None` when it has changed hands.
pub(crate) fn still(directory: &dyn PeerDirectory, met: &PeerIdentity) -> Option<PeerIdentity> {
    let peer = directory.peer_of(&met.tls_key);
    peer.filter(|peer| peer.member == met.member && peer.node == met.node)
}

/// Whether a peer may make a call. PROTOCOL 15.2.
pub(crate) const fn may_call(peer: &PeerIdentity, call: Call) -> bool {
    peer.status.is_active() || call.open_to_inactive()
}

struct Calls<S>(Arc<Shared<S>>);

struct Shared<S> {
    service: Arc<S>,
    limiter: CallLimiter,
    directory: Arc<dyn PeerDirectory>,
    settings: Settings,
}

impl<S: FederationService> Shared<S> {
    /// Step one: who calls, and whether it may call at all. A refusal here is
    /// audited here.
    fn admit<T>(&self, request: &Request<T>, call: Call) -> Result<Caller, Status> {
        let Some(connection) = request.extensions().get::<Connection>() else {
            return Err(status::of_service(&ServiceError::Internal));
        };
        let admitted = self.check(connection, call).and_then(|caller| {
            match self.limiter.take(caller.peer.member) {
                Ok(()) => Ok(caller),
                Err(retry_after) => Err(ServiceError::Busy { retry_after }),
            }
        });
        admitted.map_err(|error| self.refused(connection, call, &error))
    }

    /// Asks the directory again: a card or a status may have changed since the
    /// handshake. A key that changed hands ends its connection.
    fn check(&self, connection: &Connection, call: Call) -> Result<Caller, ServiceError> {
        let Some(peer) = still(&*self.directory, &connection.peer) else {
            connection.cut();
            return Err(ServiceError::NotActive);
        };
        if !may_call(&peer, call) {
            return Err(ServiceError::NotActive);
        }
        let mut caller = connection.clone();
        caller.peer = peer;
        Ok(caller)
    }

    /// The node's answer within the deadline.
    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, ServiceError>>,
    ) -> Result<T, ServiceError> {
        let answer = timeout(self.settings.unary_deadline, answer).await;
        answer.unwrap_or(Err(ServiceError::Timeout))
    }

    /// Step five.
    fn audit(&self, caller: &Caller, call: Call, outcome: &'static str) {
        let labels = [("call", call.name()), ("outcome", outcome)];
        metrics::counter!("hashpact_calls_total", &labels).increment(1);
        tracing::debug!(peer = %caller.peer, call = call.name(), outcome, "call");
        self.service.audit(caller, call, outcome);
    }

    fn refused(&self, caller: &Caller, call: Call, error: &ServiceError) -> Status {
        self.audit(caller, call, error.code());
        status::of_service(error)
    }

    /// Sends a stream of answers on, item by item, from a task of its own, so that
    /// one item is made while another travels.
    fn send<T, W>(
        self: &Arc<Self>,
        caller: Caller,
        call: Call,
        answers: Answers<T>,
        watch: Option<WatchSlot>,
    ) -> Response<ReceiverStream<Result<W, Status>>>
    where
        T: Send + 'static,
        W: From<T> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(1);
        let shared = self.clone();
        let pull = (call == Call::Pull).then(|| caller.begin_pull());
        tokio::spawn(async move {
            let outcome = shared.pump(&caller, call, answers, sender).await;
            drop((watch, pull));
            shared.audit(&caller, call, outcome);
        });
        Response::new(ReceiverStream::new(receiver))
    }

    async fn pump<T, W: From<T>>(
        &self,
        caller: &Caller,
        call: Call,
        mut answers: Answers<T>,
        sender: mpsc::Sender<Result<W, Status>>,
    ) -> &'static str {
        loop {
            let item = tokio::select! {
                () = sender.closed() => return "cancelled",
                item = answers.next() => item,
            };
            let Some(item) = item else { return "ok" };
            // PROTOCOL 15: access is decided at the start and before each chunk.
            let item = item.and_then(|item| self.check(caller, call).map(|_| item));
            let failed = item.as_ref().err().map(ServiceError::code);
            let item = item
                .map(W::from)
                .map_err(|error| status::of_service(&error));
            match timeout(self.settings.progress_timeout, sender.send(item)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return "cancelled",
                Err(_) => {
                    // The stream's buffers are freed only with its connection.
                    caller.cut();
                    return "stalled";
                }
            }
            if let Some(code) = failed {
                return code;
            }
        }
    }
}

type Out<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl<S: FederationService> Federation for Calls<S> {
    type GetRosterStream = Out<wire::RosterItem>;
    type WatchStream = Out<wire::Announcement>;
    type PullStream = Out<wire::PullItem>;

    async fn hello(
        &self,
        request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloResponse>, Status> {
        let shared = &self.0;
        let caller = shared.admit(&request, Call::Hello)?;
        let answer = async {
            let peer = convert::node_info(request.into_inner().node)?;
            shared.in_time(shared.service.hello(&caller, peer)).await
        };
        let answer = answer.await;
        let node = answer.map_err(|error| shared.refused(&caller, Call::Hello, &error))?;
        shared.audit(&caller, Call::Hello, "ok");
        Ok(Response::new(wire::HelloResponse {
            node: Some((&node).into()),
        }))
    }

    async fn get_roster(
        &self,
        request: Request<wire::GetRosterRequest>,
    ) -> Result<Response<Self::GetRosterStream>, Status> {
        let shared = &self.0;
        let caller = shared.admit(&request, Call::Roster)?;
        let from = request.into_inner().from_version;
        let answer = shared.in_time(shared.service.roster(&caller, from)).await;
        let items = answer.map_err(|error| shared.refused(&caller, Call::Roster, &error))?;
        Ok(shared.send(caller, Call::Roster, items, None))
    }

    async fn watch(
        &self,
        request: Request<Streaming<wire::Announcement>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let shared = &self.0;
        let caller = shared.admit(&request, Call::Watch)?;
        let Some(slot) = caller.begin_watch() else {
            let retry_after = shared.settings.alive_interval;
            let busy = ServiceError::Busy { retry_after };
            return Err(shared.refused(&caller, Call::Watch, &busy));
        };
        let patience = shared.settings.progress_timeout;
        let heard = incoming(
            "a watch",
            request.into_inner(),
            patience,
            convert::announcement,
        );
        let answer = shared.in_time(shared.service.watch(&caller, heard)).await;
        let said = answer.map_err(|error| shared.refused(&caller, Call::Watch, &error))?;
        let service = shared.service.clone();
        let alive = move || {
            let clock = service.now();
            Ok(Announcement::Alive { clock })
        };
        let said = Box::pin(with_alive(said, shared.settings.alive_interval, alive));
        Ok(shared.send(caller, Call::Watch, said, Some(slot)))
    }

    async fn pull(
        &self,
        request: Request<wire::PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let shared = &self.0;
        let caller = shared.admit(&request, Call::Pull)?;
        let answer = async {
            let request = convert::pull_request(request.get_ref())?;
            shared.in_time(shared.service.pull(&caller, request)).await
        };
        let answer = answer.await;
        let parts = answer.map_err(|error| shared.refused(&caller, Call::Pull, &error))?;
        Ok(shared.send(caller, Call::Pull, parts, None))
    }
}
