//! What drives a node's federation: dials, watches, pulls, and answers others.
//!
//! Owns: which peers are dialled and when, what is told to whom, what is pulled
//! from whom, and what becomes of all that peers say. Does not own: what is true
//! (the core verifies), what is kept (the node and its store), whose key is whose.
//!
//! Trust: none in any peer. A head counts after its publisher's signature, a chunk
//! after its proof, a document after its whole acceptance rules.

mod allowed;
pub mod announce;
mod asking;
mod beside;
mod bulk;
mod bundle;
mod busy;
mod cosigning;
mod dial;
pub mod directory;
mod documents;
mod documents_in;
mod driver;
mod epochs;
mod errand;
mod fork;
mod forked;
mod hands;
mod heard;
pub mod inbox;
mod inside;
mod leaving;
mod links;
mod older;
mod pipeline;
mod purging;
mod reach;
mod receipts;
mod rechecking;
mod rejections;
mod reports;
mod resigned;
mod reverse;
mod room;
mod roster_cosigning;
pub mod serve;
mod served;
mod shown;
pub mod sim;
mod standing;
mod start;
mod storing;
mod targets;
mod telling_work;
mod turns;
mod view;
mod vouched;
mod waits;

pub use bulk::Bulk;
pub use bundle::{BundleView, FeedView, alone, show as show_bundle};
pub use dial::Bootstrap;
pub use inbox::{Heard, Inbox, Said};
pub use start::{Exchange, ExchangeOptions, PUBLISHER_MAX_BYTES};

#[cfg(test)]
mod scenes;
