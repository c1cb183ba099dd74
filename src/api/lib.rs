//! The local interfaces of a node: what the member's own systems and people call.
//!
//! In scope: the gRPC service `hashpact.node.v1` over a Unix socket ([`socket`]) or
//! in process ([`embedded`]), or at a door that the caller brings ([`serve_incoming`]);
//! `Match` over HTTP and JSON ([`json`]); and `/live`, `/ready` and `/metrics` over HTTP
//! ([`http`]). A method is five steps: who calls, convert, call the node, convert,
//! audit. Messages stop at `convert`. What a caller may call is decided in one table
//! (`access`), before any method sees the call.
//!
//! Trust: the socket is the permission. It lies in a folder that nobody else may
//! write to, and only its owner can open it; who can is an operator. At a TCP door it is
//! the client's key, and the role that the configuration gives it; at the JSON door that
//! key, or on a loopback address being on this machine. What comes in is checked all the
//! same, so that a mistake is an answer and not damage. The health pages hold states and
//! counts alone: no signal value, no entry.

#![forbid(unsafe_code)]

pub mod http;
pub mod json;
pub mod socket;

mod about;
mod access;
mod asking;
mod audit;
mod bundle;
mod calling;
mod changes;
mod codec;
mod convert;
mod embedded;
mod erase;
mod error;
mod export;
mod gather;
mod import;
mod looking;
mod matches;
mod opinions;
mod past;
mod places;
mod policy;
mod proving;
mod quarantine;
mod receipts;
mod recheck;
mod recorded;
mod refusals;
mod retract;
mod serves;
mod service;
mod serving;
mod sets;
mod status;
mod verify;
mod web;

pub use self::about::About;
pub use self::asking::LOOKUP_MAX;
pub use self::convert::{basis_name, media_name};
pub use self::embedded::{Embedded, embedded};
pub use self::error::{ApiError, CODE, RETRY_AFTER_MS};
pub use self::gather::SELECTORS_MAX;
pub use self::policy::policy_to_wire;
pub use self::recorded::COMMAND_AGENT;
pub use self::service::NodeService;
pub use self::serving::{DoorLimits, serve_incoming};

#[cfg(test)]
mod tests;

/// A message on the local socket, each way: 10,000 answers, or 4,096 entries with
/// all that an entry may have.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The service's definition, as reflection tells it.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/node.binpb"));

/// Messages and stubs of the service, as generated. The command line speaks them.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the comments stand in the proto file"
)]
pub mod wire {
    tonic::include_proto!("hashpact.node.v1");
}
