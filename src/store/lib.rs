//! The store of a node: RocksDB behind domain words.
//!
//! In scope: leaves and pages of feeds, their trees, heads, the index of signals,
//! what is dead, own references for imports, documents as received, what is held in
//! quarantine, changes and who follows them, segments of the audit feed, bulk loads, room
//! on the volume, and the sign-state file ([`sign_state`]), which lies outside RocksDB.
//!
//! Out of scope: whether something may be read, served or signed; time; the
//! network. Nothing here runs on an async reactor: every call may wait for disk.
//!
//! Trust: RocksDB is trusted for durability, not for integrity; [`Store::verify`]
//! recomputes everything from the leaves. Keys hold signals, so no key or value
//! stands in an error.

#![forbid(unsafe_code)]

pub mod cosigned;
pub mod sign_state;

mod allowed;
mod anchor;
mod audit;
mod bench;
mod bulk;
mod changes;
mod classes;
mod counts;
mod documents;
mod drop_feed;
mod durable;
mod elided;
mod error;
mod families;
mod feeds;
mod forks;
mod frame_room;
mod frames;
mod gate;
mod heads;
mod held;
mod index;
mod journal;
mod keys;
mod leaves;
mod leaving;
mod lookup;
mod lost;
mod mutes;
mod naming;
mod opinions;
mod options;
mod pairs;
mod past;
mod policies;
mod purge;
pub mod quarantine;
mod receipts;
mod rechecks;
mod record;
mod retractions;
mod roster_words;
mod schema;
mod space;
mod stats;
mod status;
mod store;
mod sums;
mod unconfirmed;
mod verify;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

pub use self::allowed::ALLOWED_MAX;
pub use self::anchor::StoredDocument;
pub use self::audit::AuditBatch;
pub use self::bench::RawLoad;
pub use self::changes::{
    CONSUMERS_MAX, CONSUMERS_PER_OWNER, ChangeBatch, ChangeCursor, ChangePulse, ChangedLeaf,
    Consumer, CursorError, Seen, Step, Whole, WholeStanding,
};
pub use self::counts::FeedCounts;
pub use self::elided::Elisions;
pub use self::error::{Result, StoreError};
pub use self::feeds::{FeedInfo, FeedKind, FeedStatus, HeadRef, NewFeed};
pub use self::forks::ForkName;
pub use self::frame_room::PUBLISHER_FRAMES_MAX;
pub use self::gate::{AllowList, NearAllowed, NearBuilder};
pub use self::heads::Head;
pub use self::index::derive::{content_digest, reference_digest};
pub use self::index::taking::Taking;
pub use self::journal::{
    JournalEntry, JournalRow, RECHECKS_MAX, RECHECKS_PER_PUBLISHER, RecheckAsked,
};
pub use self::keys::{FRAME_KIND, FeedNo, IndexKey, frame as frame_key};
pub use self::leaving::Leaving;
pub use self::lookup::{Posting, Postings, Reference};
pub use self::lost::{LOST_MAX, LostSet};
pub use self::mutes::{MUTES_MAX, Mute, MuteSubject, MuteTold};
pub use self::naming::{AsOf, Naming, PastHead};
pub use self::opinions::{ListedOpinions, OpinionsOf, SaidOpinion};
pub use self::options::StoreOptions;
pub use self::past::PastFeed;
pub use self::policies::{PastPolicy, PolicyAt};
pub use self::receipts::{KeptReceipt, NotActedOn};
pub use self::rechecks::{RecheckBudget, Rechecked};
pub use self::retractions::{RetractionRow, Signed};
pub use self::roster_words::{RosterWord, RosterWords};
pub use self::space::{Room, Space};
pub use self::stats::{FamilyStats, StoreStats};
pub use self::store::Store;
pub use self::verify::{Finding, FindingKind, VerifyReport};
pub use self::watch::{SignalWatch, ToldOf};
pub use self::writer::{Committed, DroppedDead, FeedWriter, RefillTerms, Refilled};
