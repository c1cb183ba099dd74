//! Serving HTTP/1.1, with every limit set: connections, headers, bodies, times.
//!
//! HTTP/2 is not spoken here: hyper's own choice of protocol would take it, without
//! limits on streams and resets.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hashpact_node::caller::Caller;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::http::Request;
use tower::ServiceExt as _;

/// Connections at one time: some tools that look and some services that ask.
const CONNECTIONS_MAX: usize = 128;
/// For the headers of a request, from when the connection waits for one: a connection
/// that is not used is closed then.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(15);
/// Headers of one request, in bytes.
const HEADERS_MAX_BYTES: usize = 16 * 1024;
/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// The longest that a connection stands; clients open another.
const AGE_MAX: Duration = Duration::from_secs(30);
/// For requests under way when the door closes, or a connection is of age.
const GRACE: Duration = Duration::from_secs(2);

/// After an accept that failed for want of file descriptors, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections of whoever reaches a listener, without a proof of who it is.
pub(crate) fn from_loopback(listener: TcpListener) -> impl Stream<Item = (TcpStream, Caller)> {
    futures_util::stream::unfold(listener, async |listener| {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some(((stream, Caller::loopback()), listener)),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// Serves connections, each with its caller, until `stop`.
pub(crate) async fn serve<IO>(
    incoming: impl Stream<Item = (IO, Caller)>,
    router: Router,
    stop: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let mut incoming = std::pin::pin!(incoming);
    loop {
        // The permit comes first: without one, connections wait in the kernel.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        let next = tokio::select! {
            next = incoming.next() => next,
            () = stop.cancelled() => break,
        };
        let (Ok(place), Some((stream, caller))) = (place, next) else {
            break;
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, caller, router, stop).await;
            drop(place);
        });
    }
    connections.close();
    // What is under way after it is dropped with the runtime.
    let _ = tokio::time::timeout(GRACE, connections.wait()).await;
}

async fn connection<IO>(stream: IO, caller: Caller, router: Router, stop: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |request: Request<_>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller.clone());
        request
    });
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEADERS_MAX_BYTES)
        .max_headers(HEADERS_MAX);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        // Whoever reads nothing holds a place no longer than this.
        () = tokio::time::sleep(AGE_MAX) => {
            serving.as_mut().graceful_shutdown();
            let last = tokio::time::timeout(GRACE, serving).await;
            last.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
