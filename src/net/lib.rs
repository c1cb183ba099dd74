//! TLS, the accept loop, and the federation server and client.
//!
//! Owns: who is at the other end of a connection, every limit of connections,
//! streams and calls, and the conversion between messages on the wire and types of
//! the core; in [`exchange`] whom a node dials, what it tells, asks, pulls and serves,
//! and when; in [`door`] how the member's own systems come in over TCP. Does not own:
//! what is true (the core verifies), what counts (the node and its store).
//!
//! Trust: nothing that comes over a connection is trusted for more than its
//! caller's name.

#![forbid(unsafe_code)]

mod accept;
mod addresses;
mod calls;
pub mod client;
mod codec;
pub mod connections;
mod convert;
pub mod door;
pub mod error;
pub mod exchange;
mod io;
pub mod peer;
mod proxy;
mod reported;
pub mod server;
pub mod service;
pub mod settings;
mod status;
mod stream;
mod streams;
pub mod tls;
pub mod types;

pub use client::{Clock, Dialler, Peer, Stranger};
pub use connections::{Connection, Connections, Direction};
pub use door::{Door, DoorSettings, DoorStream, Protocol};
pub use error::{NetError, PeerRefusal};
pub use io::Traffic;
pub use peer::{Expected, PeerDirectory, PeerIdentity, PeerStatus, PeerTable};
pub use server::{Identity, serve};
pub use service::{Call, Caller, FederationService, ServiceError};
pub use settings::Settings;
pub use tls::{Credentials, PemPair, TlsError};

#[cfg(test)]
mod scenes;

/// Messages and stubs of the federation service, as generated. They stop at
/// `convert` and `codec`.
#[expect(
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the comments stand in the proto file"
)]
mod wire {
    tonic::include_proto!("hashpact.federation.v1");
}
