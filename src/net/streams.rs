//! What is put around the streams of a call: signs of life, an end to silence.

use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use hashpact_core::reject::Rejection;
use tokio::time::timeout;
use tonic::Streaming;

use crate::error::NetError;
use crate::status;
use crate::types::{BoxStream, Incoming};

/// Adds `alive()` whenever the stream was quiet for `interval`.
pub(crate) fn with_alive<T: Send + 'static>(
    stream: BoxStream<T>,
    interval: Duration,
    alive: impl Fn() -> T + Send + 'static,
) -> impl Stream<Item = T> + Send {
    stream::unfold((stream, alive), move |(mut stream, alive)| async move {
        let item = timeout(interval, stream.next()).await;
        let item = item.unwrap_or_else(|_| Some(alive()))?;
        Some((item, (stream, alive)))
    })
}

/// Reads what a peer sends: converted, skipping kinds that a later version added,
/// with an error in place of a silence of `patience`. Ends after the first error.
pub(crate) fn incoming<W: Send + 'static, T: Send + 'static>(
    what: &'static str,
    stream: Streaming<W>,
    patience: Duration,
    convert: impl Fn(W) -> Result<Option<T>, Rejection> + Send + 'static,
) -> Incoming<T> {
    let state = Some((stream, convert));
    Box::pin(stream::unfold(state, move |state| async move {
        let (mut stream, convert) = state?;
        loop {
            let item = match timeout(patience, stream.message()).await {
                Ok(Ok(Some(item))) => convert(item).map_err(NetError::from),
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => Err(status::read(&status)),
                Err(_) => Err(NetError::Timeout {
                    what,
                    limit: patience,
                }),
            };
            match item {
                Ok(Some(item)) => return Some((Ok(item), Some((stream, convert)))),
                Ok(None) => {}
                Err(error) => return Some((Err(error), None)),
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_quiet_stream_gets_signs_of_life_and_a_busy_one_none() {
        let quiet: BoxStream<u8> = Box::pin(stream::once(async { 1 }).chain(stream::pending()));
        let alive = with_alive(quiet, Duration::from_millis(1), || 0);
        let seen: Vec<u8> = alive.take(3).collect().await;
        assert_eq!(seen, [1, 0, 0]);
        let busy: BoxStream<u8> = Box::pin(stream::iter([1, 2, 3]));
        let seen: Vec<u8> = with_alive(busy, Duration::from_secs(10), || 0)
            .collect()
            .await;
        assert_eq!(seen, [1, 2, 3]);
    }
}
