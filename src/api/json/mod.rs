//! `Match` over HTTP and JSON, for systems that speak no gRPC, and the document that
//! describes it.
//!
//! A door of its own, closed unless it is configured: health and metrics stay readable
//! where they are, and say nothing of any signal. What is asked here goes the way of
//! the gRPC call: the same limits, the same turns, the same codes, the same table of
//! roles.
//!
//! A page that a browser shows could ask a service on the same machine: requests that
//! carry an `Origin` are refused, and so is every body that is not JSON by its type.

mod shapes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hashpact_node::caller::Caller;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use utoipa::OpenApi;

use self::shapes::{MatchBody, Matched, Problem};
use crate::access;
use crate::asking::Asking;
use crate::error::{CODE, RETRY_AFTER_MS, misuse, nobody, overloaded};
use crate::looking;
use crate::recorded::code_of;
use crate::service::NodeService;
use crate::web;

/// A body: 10,000 signals of the longest usual kind with room to spare.
const BODY_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bodies that are read at one time: 128 MiB of them.
const BODIES_MAX: usize = 32;
/// What whoever finds no room is told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// For a body to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Whose role a question takes: the same as by gRPC.
const MATCH: &str = "/hashpact.node.v1.Node/Match";

/// Serves JSON over one node.
#[derive(Clone)]
pub struct JsonApi {
    asking: Asking,
    /// Bodies that are being read.
    bodies: Arc<Semaphore>,
}

/// The description of this door; utoipa writes it from the handlers' own annotations.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "hashpact: is this known?",
        description = "The JSON twin of Match of the gRPC service hashpact.node.v1.Node. For a member's own \
                       systems only.",
        license(name = "Apache-2.0")
    ),
    paths(ask, document)
)]
struct Document;

impl JsonApi {
    /// Answers what `service` answers, in the same turns.
    #[must_use]
    pub fn new(service: &NodeService) -> Self {
        Self {
            asking: service.asking(),
            bodies: Arc::new(Semaphore::new(BODIES_MAX)),
        }
    }

    /// Serves whoever reaches `listener`, as some process of this machine: for loopback
    /// addresses alone.
    pub async fn serve_loopback(self, listener: TcpListener, stop: CancellationToken) {
        self.serve(web::from_loopback(listener), stop).await;
    }

    /// Serves connections whose callers are decided, until `stop`.
    pub async fn serve<IO>(
        self,
        incoming: impl Stream<Item = (IO, Caller)>,
        stop: CancellationToken,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        web::serve(incoming, self.router(), stop).await;
    }

    fn router(self) -> Router {
        Router::new()
            .route("/v1/match", post(ask))
            .route("/v1/openapi.json", get(document))
            .fallback(async || problem(StatusCode::NOT_FOUND, "not_found", "there is no such page"))
            .method_not_allowed_fallback(async || {
                let what = "this page takes another method";
                problem(StatusCode::METHOD_NOT_ALLOWED, "misuse", what)
            })
            .layer(from_fn(no_browser))
            .with_state(self)
    }
}

/// Whether only this machine reaches an address.
#[must_use]
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

async fn no_browser(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        let why = "requests that a browser makes for another page are refused";
        return problem(StatusCode::FORBIDDEN, "not_allowed", why);
    }
    next.run(request).await
}

/// Asks for up to 10,000 signals, near duplicates of PDQ included; one answer a signal,
/// in order.
#[utoipa::path(
    post,
    path = "/v1/match",
    request_body = MatchBody,
    responses(
        (status = 200, description = "One answer a signal, in order", body = Matched),
        (status = 400, description = "The body cannot be read, or asks for too much", body = Problem),
        (status = 403, description = "The caller's role does not allow it", body = Problem),
        (status = 408, description = "The body did not come in time", body = Problem),
        (status = 413, description = "The body is larger than 4 MiB", body = Problem),
        (status = 415, description = "The body is not application/json", body = Problem),
        (status = 429, description = "No room: Retry-After, in seconds, and retry_after_ms say how long to wait",
         body = Problem),
        (status = 500, description = "The node's fault; its log says more", body = Problem),
    )
)]
async fn ask(State(api): State<JsonApi>, request: Request) -> Response {
    match answer(&api, request).await {
        Ok(matched) => Json(matched).into_response(),
        Err(refused) => refused,
    }
}

async fn answer(api: &JsonApi, request: Request) -> Result<Matched, Response> {
    let caller = request.extensions().get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| refused(&nobody()))?;
    let node = api.asking.node();
    let turned_away = |status: Status| {
        let (actor, code) = (caller.actor(""), code_of(&status));
        node.audit().refused(actor, "", MATCH, &code);
        refused(&status)
    };
    access::admit(&caller, MATCH).map_err(turned_away)?;
    if !is_json(request.headers()) {
        let why = "send the header Content-Type: application/json";
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "misuse", why));
    }
    // Bodies have places of their own: one that comes slowly holds up no question.
    let room = api.bodies.try_acquire();
    let room = room.map_err(|_| turned_away(overloaded(RETRY_AFTER)))?;
    let body: MatchBody = read(request.into_body()).await?;
    let asked = body.signals();
    drop(room);
    // The same way as by gRPC, so that what an administrator asks is recorded.
    let mut request = tonic::Request::new(asked.request);
    request.extensions_mut().insert(caller.clone());
    let answered = looking::matches(&api.asking, node, request).await;
    let answered = answered.map_err(turned_away)?;
    Ok(Matched::of(answered.into_inner(), asked.refused))
}

/// This description.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json"))
)]
async fn document() -> Response {
    Json(Document::openapi()).into_response()
}

/// Letters of an unknown field's name that are shown.
const NAME_SHOWN_BYTES: usize = 32;

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// Reads a body within its bounds; it is parsed once it is whole.
async fn read(body: Body) -> Result<MatchBody, Response> {
    let whole = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_MAX_BYTES)).await;
    let Ok(whole) = whole else {
        let why = format!("the body took longer than {} s", BODY_TIMEOUT.as_secs());
        return Err(problem(StatusCode::REQUEST_TIMEOUT, "timeout", why));
    };
    let whole = whole.map_err(|_| {
        let why = format!("a body has at most {BODY_MAX_BYTES} bytes; ask in several");
        problem(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", why)
    })?;
    serde_json::from_slice(&whole).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = without_values(&error.to_string());
        refused(&misuse(format!(
            "the body is not as /v1/openapi.json says, at line {line}, column {column}: {what}"
        )))
    })
}

/// What the parser says, without what it quotes of the body: a name of ours stands
/// between backticks, a value between quotes, and a name that we do not know may be a value.
fn without_values(said: &str) -> String {
    let said = said.rsplit_once(" at line ").map_or(said, |(what, _)| what);
    let is_word = |name: &str| {
        let letter = |b: u8| b.is_ascii_lowercase() || b == b'_';
        name.len() <= NAME_SHOWN_BYTES && name.bytes().all(letter)
    };
    if let Some(rest) = said.strip_prefix("unknown field `") {
        // The last list is ours, whatever the name holds.
        let (name, ours) = rest.rsplit_once("`, expected ").unwrap_or(("?", ""));
        let ours = if ours.is_empty() { "none" } else { ours };
        return if is_word(name) {
            format!("unknown field `{name}`, expected {ours}")
        } else {
            format!("unknown field, expected {ours}")
        };
    }
    if said.starts_with("missing field `") || said.starts_with("duplicate field `") {
        return said.to_owned();
    }
    match said.rsplit_once(", expected ") {
        Some((_, expected)) => format!("what stands there is no {expected}"),
        None => "it is no JSON".to_owned(),
    }
}

/// A status of gRPC as this door says it.
fn refused(status: &Status) -> Response {
    let http = match status.code() {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::PermissionDenied | Code::Unauthenticated => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let text = |key: &str| {
        let value = status.metadata().get(key);
        value.and_then(|value| value.to_str().ok())
    };
    let wait: Option<u64> = text(RETRY_AFTER_MS).and_then(|wait| wait.parse().ok());
    let body = Problem {
        code: text(CODE).unwrap_or("internal").to_owned(),
        message: status.message().to_owned(),
        retry_after_ms: wait,
    };
    let mut response = (http, Json(body)).into_response();
    if let Some(wait) = wait {
        let seconds = wait.div_ceil(1_000).max(1);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn problem(status: StatusCode, code: &'static str, message: impl Into<String>) -> Response {
    let body = Problem {
        code: code.to_owned(),
        message: message.into(),
        retry_after_ms: None,
    };
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests;
