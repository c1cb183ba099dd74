//! What can go wrong with a peer, each with its code. Words of a peer are quoted in
//! part, and never trusted.

use std::io;
use std::time::Duration;

use hashpact_core::puller::Failure;
use hashpact_core::reject::Rejection;

use crate::tls::{Refusal, TlsError};

/// Says why a dial or a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An endpoint that is not `host:port`.
    #[error("{0:?} is no endpoint: it reads host:port")]
    Endpoint(String),
    /// No TCP connection.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// The proxy opens no tunnel; its words.
    #[error("the proxy refuses: {0}")]
    Proxy(String),
    /// Our verifier refused the peer's certificate.
    #[error("the peer's certificate is refused: {0}")]
    Refused(Refusal),
    /// The handshake failed otherwise; most often the peer refused our key.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// The peer speaks another protocol inside TLS.
    #[error(
        "the peer speaks another protocol than {}",
        String::from_utf8_lossy(crate::tls::ALPN)
    )]
    Protocol,
    /// Our own TLS setup is unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Not done in time.
    #[error("{what} took longer than {} s", limit.as_secs())]
    Timeout {
        /// What took too long.
        what: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// The connection is closed.
    #[error("the connection is closed: {0}")]
    Closed(String),
    /// The peer answered with a refusal of its own.
    #[error(transparent)]
    Peer(#[from] PeerRefusal),
    /// What the peer sent breaks a rule.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// As many connections of this member as may be open.
    #[error("the member has {0} connections, as many as it may")]
    TooManyConnections(usize),
}

impl NetError {
    /// The stable code for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::Connect(_) => "connect",
            Self::Proxy(_) => "proxy",
            Self::Refused(refusal) => refusal.code(),
            Self::Handshake(_) => "tls_handshake",
            Self::Protocol => "tls_protocol",
            Self::Tls(_) => "tls_setup",
            Self::Timeout { .. } => "timeout",
            Self::Closed(_) => "closed",
            Self::Peer(_) => "peer_refused",
            Self::Rejected(rejection) => rejection.code(),
            Self::TooManyConnections(_) => "too_many_connections",
        }
    }

    /// What the puller makes of it; `None` is a lie, which its own event says.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Rejected(_) => None,
            Self::Timeout { .. } => Some(Failure::Silent),
            Self::Peer(refusal) => Some(refusal.failure()),
            Self::Endpoint(_)
            | Self::Connect(_)
            | Self::Proxy(_)
            | Self::Refused(_)
            | Self::Handshake(_)
            | Self::Protocol
            | Self::Tls(_)
            | Self::Closed(_)
            | Self::TooManyConnections(_) => Some(Failure::Cut),
        }
    }
}

/// A peer's refusal of a call, in its words, cut to a decent length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer refused ({code}): {message}")]
pub struct PeerRefusal {
    /// The peer's reason code, of `a-z`, `0-9` and `_`; "none" without one.
    pub code: String,
    /// The peer's text, at most 200 printable characters.
    pub message: String,
    /// When to try again, if the peer said so.
    pub retry_after: Option<Duration>,
}

impl PeerRefusal {
    fn failure(&self) -> Failure {
        match self.code.as_str() {
            "busy" | "rate_limited" | "unavailable" | "timeout" | "internal" => Failure::Busy,
            _ => Failure::Refused,
        }
    }
}
