//! A socket that counts its bytes, gives up on a peer that stalls, and can be cut
//! from outside.
//!
//! It lies below TLS, so that every byte that the kernel takes counts as progress
//! and the counts are those of the wire.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Bytes that went over one connection, handshake included.
#[derive(Debug, Default)]
pub struct Traffic {
    read: AtomicU64,
    written: AtomicU64,
}

impl Traffic {
    /// Bytes from the peer.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes to the peer.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// A stream with counters, a progress timeout for writing and a switch that cuts
/// it. Silence of the peer is found by HTTP/2 pings, not here.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    inner: S,
    traffic: Arc<Traffic>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    stall: Pin<Box<Sleep>>,
    stalling: bool,
    patience: Duration,
    counters: Counters,
}

/// Handles into the metrics registry, looked up once per connection.
struct Counters {
    read: metrics::Counter,
    written: metrics::Counter,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}

impl<S> Metered<S> {
    /// Wraps a stream. `cut` ends it at once; `patience` is how long a write may
    /// wait without one byte taken.
    pub(crate) fn new(inner: S, cut: CancellationToken, patience: Duration) -> Self {
        Self {
            inner,
            traffic: Arc::default(),
            cut: Box::pin(cut.cancelled_owned()),
            stall: Box::pin(sleep_until(Instant::now() + patience)),
            stalling: false,
            patience,
            counters: Counters {
                read: metrics::counter!("hashpact_wire_read_bytes_total"),
                written: metrics::counter!("hashpact_wire_written_bytes_total"),
            },
        }
    }

    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    fn check_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection was cut",
            )),
            Poll::Pending => Ok(()),
        }
    }

    /// Starts, or goes on with, the time that a write may wait.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.stalling {
            self.stalling = true;
            self.stall.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.stall.as_mut().poll(context));
        Poll::Ready(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer takes no bytes",
        ))
    }

    fn after_write(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(result) = result else {
            return self.wait(context).map(Err);
        };
        self.stalling = false;
        if let Ok(count) = result {
            let count = count as u64;
            self.traffic.written.fetch_add(count, Ordering::Relaxed);
            self.counters.written.increment(count);
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check_cut(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        let count = (buffer.filled().len() - before) as u64;
        this.traffic.read.fetch_add(count, Ordering::Relaxed);
        this.counters.read.increment(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.check_cut(context)?;
        let result = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.after_write(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.check_cut(context)?;
        let result = Pin::new(&mut this.inner).poll_write_vectored(context, slices);
        this.after_write(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(200);

    fn pair(
        capacity: usize,
    ) -> (
        Metered<tokio::io::DuplexStream>,
        tokio::io::DuplexStream,
        CancellationToken,
    ) {
        let (near, far) = tokio::io::duplex(capacity);
        let cut = CancellationToken::new();
        (Metered::new(near, cut.clone(), PATIENCE), far, cut)
    }

    #[tokio::test]
    async fn a_peer_that_takes_no_bytes_is_given_up() {
        let (mut near, _far, _cut) = pair(4);
        let begin = Instant::now();
        let failed = near.write_all(&[0; 8]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= PATIENCE);
        assert_eq!(near.traffic().written(), 4);
    }

    #[tokio::test]
    async fn a_slow_peer_that_takes_bytes_is_kept() {
        let (mut near, mut far, _cut) = pair(1);
        let reader = tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(PATIENCE / 3).await;
                far.read_u8().await.unwrap();
            }
        });
        near.write_all(&[0; 5]).await.unwrap();
        reader.await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_wakes_a_reader_that_waits() {
        let (mut near, _far, cut) = pair(4);
        let reader = tokio::spawn(async move { near.read_u8().await.unwrap_err().kind() });
        tokio::task::yield_now().await;
        cut.cancel();
        assert_eq!(reader.await.unwrap(), io::ErrorKind::ConnectionAborted);
    }
}
