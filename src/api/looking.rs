//! The four ways to look up, each recorded where an administrator asks.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use hashpact_node::Node;
use tonic::{Request, Response, Status, Streaming};

use crate::asking::Asking;
use crate::recorded::{Asked, kinds};
use crate::wire;

/// Look-ups of one stream that are under way at one time.
const IN_FLIGHT: usize = 8;

pub(crate) type Stream<T> = BoxStream<'static, Result<T, Status>>;

pub(crate) async fn lookup(
    asking: &Asking,
    node: &Arc<Node>,
    request: Request<wire::LookupRequest>,
) -> Result<Response<wire::LookupResponse>, Status> {
    let asked = Asked::of(&request);
    let place = asking.place(asked.who())?;
    let request = request.into_inner();
    let kinds = kinds(&request.signals);
    let look_up = asked.look_up(node, &kinds).await?;
    let answered = asking.lookup(place, request).await;
    look_up.count(&kinds, answered.as_ref().map(|a| a.answers.as_slice()));
    look_up.end().await;
    answered.map(Response::new)
}

pub(crate) async fn lookup_stream(
    asking: &Asking,
    node: &Arc<Node>,
    request: Request<Streaming<wire::LookupRequest>>,
) -> Result<Response<Stream<wire::LookupResponse>>, Status> {
    let look_up = Asked::of(&request).look_ups(node).await?;
    let (asking, counted) = (asking.clone(), look_up.clone());
    let answers = request.into_inner().map(move |request| {
        let (asking, counted) = (asking.clone(), counted.clone());
        async move {
            let request = request?;
            let kinds = kinds(&request.signals);
            let place = asking.wait_for_place().await?;
            let answered = asking.lookup(place, request).await;
            counted.count(&kinds, answered.as_ref().map(|a| a.answers.as_slice()));
            answered
        }
    });
    Ok(Response::new(look_up.around(answers.buffered(IN_FLIGHT))))
}

pub(crate) async fn matches(
    asking: &Asking,
    node: &Arc<Node>,
    request: Request<wire::MatchRequest>,
) -> Result<Response<wire::MatchResponse>, Status> {
    let asked = Asked::of(&request);
    let place = asking.place(asked.who())?;
    let request = request.into_inner();
    let kinds = kinds(&request.signals);
    let look_up = asked.look_up(node, &kinds).await?;
    let answered = asking.matches(place, request).await;
    look_up.count(&kinds, answered.as_ref().map(|a| a.answers.as_slice()));
    look_up.end().await;
    answered.map(Response::new)
}

pub(crate) async fn match_stream(
    asking: &Asking,
    node: &Arc<Node>,
    request: Request<Streaming<wire::MatchRequest>>,
) -> Result<Response<Stream<wire::MatchResponse>>, Status> {
    let look_up = Asked::of(&request).look_ups(node).await?;
    let (asking, counted) = (asking.clone(), look_up.clone());
    let answers = request.into_inner().map(move |request| {
        let (asking, counted) = (asking.clone(), counted.clone());
        async move {
            let request = request?;
            let kinds = kinds(&request.signals);
            let place = asking.wait_for_place().await?;
            let answered = asking.matches(place, request).await;
            counted.count(&kinds, answered.as_ref().map(|a| a.answers.as_slice()));
            answered
        }
    });
    Ok(Response::new(look_up.around(answers.buffered(IN_FLIGHT))))
}
