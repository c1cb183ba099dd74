//! A TLS stream whose peer is decided, as the server of HTTP/2 takes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

use crate::connections::{Connection, Listed};
use crate::io::Metered;

/// A TLS stream and what lives as long as it.
#[derive(Debug)]
pub struct Guarded<G> {
    /// Boxed: its buffers would make every future large that holds it.
    tls: Box<TlsStream<Metered<TcpStream>>>,
    pub(crate) guard: G,
}

/// An accepted connection, listed among the open ones until it is dropped.
pub(crate) type PeerStream = Guarded<Listed>;

impl<G> Guarded<G> {
    pub(crate) fn new(tls: TlsStream<Metered<TcpStream>>, guard: G) -> Self {
        let tls = Box::new(tls);
        Self { tls, guard }
    }
}

impl PeerStream {
    /// Who is at the other end, and the switch.
    pub(crate) const fn connection(&self) -> &Connection {
        self.guard.connection()
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection().clone()
    }
}

impl<G: Unpin> AsyncRead for Guarded<G> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl<G: Unpin> AsyncWrite for Guarded<G> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
