//! Counts what was refused, for the audit feed: by minute, caller, call and code.
//!
//! Stands before everything at a door, so that what the doorkeeper refuses counts, too.
//! A refused act has a leaf of its own beside it.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hashpact_node::Node;
use hashpact_node::caller::Caller;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::access::needed;
use crate::recorded::code_of;

/// Stands before the services of one door; `C` as for the doorkeeper.
pub(crate) struct Refusals<C> {
    node: Arc<Node>,
    caller_of: fn(&C) -> Caller,
}

impl<C> Refusals<C> {
    pub(crate) const fn new(node: Arc<Node>, caller_of: fn(&C) -> Caller) -> Self {
        Self { node, caller_of }
    }
}

impl<C> Clone for Refusals<C> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.node), self.caller_of)
    }
}

impl<S, C> Layer<S> for Refusals<C> {
    type Service = Counted<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted {
            inner,
            refusals: self.clone(),
            connection: PhantomData,
        }
    }
}

/// Services whose refusals are counted.
pub(crate) struct Counted<S, C> {
    inner: S,
    refusals: Refusals<C>,
    connection: PhantomData<fn(&C)>,
}

impl<S: Clone, C> Clone for Counted<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            refusals: self.refusals.clone(),
            connection: PhantomData,
        }
    }
}

impl<S, C> Service<Request<Body>> for Counted<S, C>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    C: Clone + Send + Sync + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = request.extensions().get::<C>().cloned();
        // What nobody knows may be anything, and is named by nothing of the caller's.
        let path = request.uri().path();
        let call = needed(path).and_then(|_| path.rsplit('/').next());
        let call = call.unwrap_or("unknown").to_owned();
        let refusals = self.refusals.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(status) = Status::from_header_map(answer.headers())
                && is_refusal(status.code())
            {
                let caller = connection.as_ref().map(refusals.caller_of);
                let actor = caller.unwrap_or_else(Caller::loopback).actor("");
                let audit = refusals.node.audit();
                audit.refused(actor, "", &call, &code_of(&status));
            }
            Ok(answer)
        })
    }
}

/// Whether a status says that the caller may not, or said something wrong; not that we
/// failed.
const fn is_refusal(code: Code) -> bool {
    match code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Unauthenticated => true,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => false,
    }
}
