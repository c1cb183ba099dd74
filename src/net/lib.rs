//! TLS, the accept loop, and the federation server and client.
//!
//! Owns: who is at the other end of a connection, every limit of connections,
//! streams and calls, and the conversion between messages on the wire and types of
//! the core. Does not own: what a node answers, what
//! is true (the core verifies), when to dial and what to ask (the node decides).
//!
//! Trust: nothing that comes over a connection is trusted for more than its
//! caller's name.

pub mod peer;
pub mod settings;
pub mod tls;
