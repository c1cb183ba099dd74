//! Every limit of a connection, in one place, each with its reason.
//!
//! The bounds on documents and leaves stand in [`hashpact_core::limits`]; here are
//! those on connections, streams, calls and time.

use std::time::Duration;

pub use hashpact_core::limits::MESSAGE_MAX_BYTES;

/// A TLS handshake, from accept to its last byte: three round trips of a far peer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at once: strangers can hold this many sockets, for 5 s each.
pub const HANDSHAKES_MAX: usize = 64;
/// Handshakes at once from one address, so that one host does not hold them all: the
/// nodes behind one company's way out to the net.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 8;
/// Connections that one member may have open here: a few nodes, or a node that
/// reconnects before its old connection is known to be dead.
pub const CONNECTIONS_PER_MEMBER: usize = 4;
/// Streams at once on a connection: a watch and several pulls.
pub const STREAMS_MAX: u32 = 16;
/// Streams that our side resets for the peer's errors before the connection is
/// cut (CVE-2025-8671).
pub const LOCAL_ERROR_RESETS_MAX: usize = 64;
/// Streams that the peer resets before we took them (CVE-2023-44487).
pub const PENDING_ACCEPT_RESETS_MAX: usize = 20;
/// A header list: our longest is far below 1 KiB.
pub const HEADER_LIST_MAX_BYTES: u32 = 8 * 1024;
/// Bytes of a stream in flight towards a server: requests are small, an
/// announcement at most a message.
pub const SERVER_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of a connection in flight towards a server.
pub const SERVER_CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes of a stream in flight towards a client: 80 MB/s at 100 ms round trip.
pub const CLIENT_STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes of a connection in flight towards a client: two full streams.
pub const CLIENT_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// An HTTP/2 frame towards a client: fewer frames for bulk.
pub const CLIENT_FRAME_MAX_BYTES: u32 = 256 * 1024;
/// An HTTP/2 frame towards a server: the smallest that HTTP/2 allows.
pub const SERVER_FRAME_MAX_BYTES: u32 = 16 * 1024;
/// Between HTTP/2 pings.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// For the answer to a ping; with the interval a dead peer is known within 20 s.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream, or a connection with bytes to write, without progress.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);
/// A unary call, and the first answer of a streaming one.
pub const UNARY_DEADLINE: Duration = Duration::from_secs(10);
/// Between announcements on a quiet watch: three of them within the time that a
/// stream may be silent.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A connection takes no new streams after this, so that a long-lived one does
/// not outlast what was true when it began.
pub const CONNECTION_AGE: Duration = Duration::from_secs(60 * 60);
/// For streams that run when a connection comes of age; then it is closed.
pub const CONNECTION_AGE_GRACE: Duration = Duration::from_secs(5 * 60);
/// For the TCP connection of a dial.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A certificate: a company's own with many names is 2 KiB.
pub const CERTIFICATE_MAX_BYTES: usize = 8 * 1024;
/// Bytes of TLS output that wait for the socket, per connection.
pub const TLS_BUFFER_BYTES: usize = 256 * 1024;
/// Calls that a member may make each second, over all its connections.
pub const CALLS_PER_SECOND: u32 = 100;
/// Calls that a member may make at once after a quiet time: a pull per feed.
pub const CALLS_BURST: u32 = 400;

/// What an operator, or a test, may set otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// See [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// See [`HANDSHAKES_MAX`].
    pub handshakes_max: usize,
    /// See [`HANDSHAKES_PER_ADDRESS_MAX`].
    pub handshakes_per_address_max: usize,
    /// See [`CONNECTIONS_PER_MEMBER`].
    pub connections_per_member: usize,
    /// See [`PROGRESS_TIMEOUT`].
    pub progress_timeout: Duration,
    /// See [`UNARY_DEADLINE`].
    pub unary_deadline: Duration,
    /// See [`ALIVE_INTERVAL`].
    pub alive_interval: Duration,
    /// See [`CONNECTION_AGE`].
    pub connection_age: Duration,
    /// See [`CONNECTION_AGE_GRACE`].
    pub connection_age_grace: Duration,
    /// See [`CALLS_PER_SECOND`].
    pub calls_per_second: u32,
    /// See [`CALLS_BURST`].
    pub calls_burst: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            handshakes_max: HANDSHAKES_MAX,
            handshakes_per_address_max: HANDSHAKES_PER_ADDRESS_MAX,
            connections_per_member: CONNECTIONS_PER_MEMBER,
            progress_timeout: PROGRESS_TIMEOUT,
            unary_deadline: UNARY_DEADLINE,
            alive_interval: ALIVE_INTERVAL,
            connection_age: CONNECTION_AGE,
            connection_age_grace: CONNECTION_AGE_GRACE,
            calls_per_second: CALLS_PER_SECOND,
            calls_burst: CALLS_BURST,
        }
    }
}
