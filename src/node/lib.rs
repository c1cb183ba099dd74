//! The service layer of hashpact: what a node does, behind plain functions.
//!
//! Below the federation (`hashpact-net`) and the local interfaces (`hashpact-api`),
//! which convert and call. `hashpact-net`'s exchange writes what it pulled and verified
//! into the store beside it.

#![forbid(unsafe_code)]

mod act;
pub mod audit;
pub mod blast;
pub mod bundle;
pub mod caller;
pub mod card;
pub mod changes;
pub mod clock;
pub mod cosignatures;
mod erasing;
pub mod error;
pub mod evidence;
pub mod expiry;
pub mod hub;
pub mod hygiene;
pub mod journal;
pub mod lookup;
mod lost;
mod mass;
pub mod matching;
pub mod membership;
pub mod model;
pub mod near;
pub mod opinions;
pub mod past;
pub mod policy;
pub mod proving;
pub mod publish;
pub mod quarantine;
pub mod receipts;
pub mod removed;
pub mod reported;
pub mod restored;
pub mod roster_words;
pub mod witnessing;

mod coalition;
mod export;
mod flooded;
mod handed_in;
mod judging;
mod node;
mod peer_view;
mod re_anchor;
mod retention;
mod sign_state;
mod status;
mod verifying;
mod videos;
mod views;
mod words;

#[cfg(test)]
mod scenes;

pub use self::coalition::{MemberView, RosterDocuments};
pub use self::error::NodeError;
pub use self::model::ExchangeView;
pub use self::node::{Node, NodeOptions};
pub use self::re_anchor::ReAnchoring;
pub use self::retention::Retired;
pub use hashpact_store::LostSet;
