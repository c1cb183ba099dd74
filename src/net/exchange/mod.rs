//! What drives a node's federation: dials, watches, pulls, and answers others.
//!
//! Owns: which peers are dialled and when, what is told to whom, what is pulled
//! from whom, and what becomes of all that peers say. Does not own: what is true
//! (the core verifies), what is kept (the node and its store), whose key is whose.
//!
//! Trust: none in any peer. A head counts after its publisher's signature, a chunk
//! after its proof, a document after its whole acceptance rules.

pub mod announce;
pub mod directory;
mod documents;
pub mod inbox;
mod reach;
pub mod serve;
mod served;

pub use inbox::{Heard, Inbox, Said};

#[cfg(test)]
mod scenes;
