//! The audit feed: who did what on this node, when, and how it ended.
//!
//! One leaf an act, in segments. A segment is a feed like any other: the same records,
//! tree and heads, a sign-state file of its own with the same compare-and-swap. It is
//! local: it lies apart from the store's feeds, so nothing announces, serves or pulls
//! it, and no grant can name it.
//!
//! **Which key signs.** The node's feed key. Its one purpose is to sign checkpoints of
//! this member's feeds, and this is one; the member's card says which sets it may sign,
//! and one that may sign `audit` only, or everything but it, can be told apart there. A
//! key of another purpose would have to be introduced to auditors somewhere; the feed
//! key is, by every card, for ever. The id of a segment is part of what is signed, so
//! its heads are never those of a set.
//!
//! **What a crash loses.** Nothing silently. An act is noted, durably, before it
//! begins; if that fails, it does not begin. When it has ended, one atomic write takes
//! the note away and appends the leaf. A start that finds a note appends its act as
//! interrupted: it may have been done. Leaves that were appended and not signed are
//! kept, unlike those of a set, and signed with the next: nobody else could have seen
//! them, and what was done stays done. What is only counted, refused calls, is lost for
//! the minute that a crash cuts short.
//!
//! A segment whose signed state the store cannot show (a restored store, a lost
//! sign-state file) is never signed again: the next one names it, and says so.

mod read;
mod refusals;
mod retention;
mod ticket;
mod verify;
mod write;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashpact_core::id::Slug;
use hashpact_core::leaf::audit::{Act, Actor, INTERRUPTED};
use hashpact_core::limits::DAY_MS;
use hashpact_store::Store;
use hashpact_store::sign_state::{SignState, SignStateError};
use tokio::sync::watch;

pub use self::read::{At, AuditFilter, AuditLeaf, Said};
pub use self::ticket::Ticket;
pub use self::verify::AuditReport;

use self::refusals::Refusals;
use self::write::{Position, Writing};
use crate::clock::Clock;
use crate::error::NodeError;
use crate::membership::Membership;
use crate::publish::Publisher;
use crate::restored;

/// What cards name the audit feed by, where they limit what a feed key may sign. No
/// hash set has this name.
pub const AUDIT_SET: &str = "audit";
/// The act of a note that is damaged.
const UNREADABLE: &str = "unreadable";
/// The name of the audit feed's sign-state file, beside that of the sets.
const STATE_FILE: &str = "audit-state.json";

/// When a segment is sealed, and when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSettings {
    /// Leaves of a segment.
    pub segment_leaves: u64,
    /// A segment's age.
    pub segment_ms: u64,
    /// How long a sealed segment is kept; for ever where there is none.
    pub retain_ms: Option<u64>,
    /// Segments that are kept at most, whatever their age: whoever makes many acts
    /// fills no disk.
    pub segments_max: usize,
}

impl Default for AuditSettings {
    /// Some 3 MB or a month in a segment, kept for two years, and 3 GB at most.
    fn default() -> Self {
        Self {
            segment_leaves: 16_384,
            segment_ms: 30 * DAY_MS,
            retain_ms: Some(730 * DAY_MS),
            segments_max: 1_024,
        }
    }
}

/// A step on the way to a signed record; tests make each of them fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Begin,
    Append,
    Record,
    Sign,
}

/// Asked before each step; an error stands for a crash there.
pub(crate) type Fault = fn(Step) -> Result<(), NodeError>;

/// One node's audit feed.
pub struct Audit {
    store: Arc<Store>,
    membership: Arc<Membership>,
    publisher: Arc<Publisher>,
    clock: Clock,
    node: Slug,
    settings: AuditSettings,
    writing: Mutex<Writing>,
    refused: Mutex<Refusals>,
    /// Held by a check of everything, so that no segment goes meanwhile.
    keeping: Mutex<()>,
    /// Leaves appended since the start.
    told: watch::Sender<u64>,
    fault: Fault,
}

/// What an audit feed is opened with.
pub(crate) struct AuditParts<'a> {
    pub(crate) store: Arc<Store>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) clock: Clock,
    pub(crate) node: Slug,
    pub(crate) settings: AuditSettings,
    pub(crate) sign_state_dir: &'a Path,
    pub(crate) fault: Fault,
}

impl Audit {
    /// Opens the feed, signs what a crash left unsigned, and records what it left
    /// without an end. Blocking.
    ///
    /// # Errors
    /// What the store or the sign-state file answer.
    pub(crate) fn open(parts: AuditParts<'_>) -> Result<Arc<Self>, NodeError> {
        let state = open_state(&parts.sign_state_dir.join(STATE_FILE))?;
        let begun = parts.store.audit_begun()?;
        let next_begun = begun.last().map_or(0, |(last, _)| last.saturating_add(1));
        let audit = Arc::new(Self {
            store: parts.store,
            membership: parts.membership,
            publisher: parts.publisher,
            clock: parts.clock,
            node: parts.node,
            settings: parts.settings,
            writing: Mutex::new(Writing::new(state, next_begun)),
            refused: Mutex::default(),
            keeping: Mutex::default(),
            told: watch::Sender::new(0),
            fault: parts.fault,
        });
        audit.settle()?;
        // Marked before anything is appended: the next start sees no break any more.
        if audit.is_broken() {
            restored::noticed(&audit.store)?;
        }
        for (number, payload) in begun {
            // What cannot be read is still one act of which nobody knows the end.
            let unread = |_| Act::new(UNREADABLE, Actor::node());
            let mut act = Act::read(&payload).unwrap_or_else(unread);
            // Some say how they ended in the very step that did them.
            if act.outcome.is_empty() {
                INTERRUPTED.clone_into(&mut act.outcome);
                act.ended = audit.clock.now();
                tracing::warn!(
                    act = act.act,
                    "an act was interrupted: it may have been done"
                );
            }
            audit.append(&act, Some(number), None)?;
        }
        Ok(audit)
    }

    /// Notes that an act begins; whoever holds the ticket says how it ended. Blocking.
    ///
    /// # Errors
    /// What the store answers: then the act must not begin.
    pub fn begin(self: &Arc<Self>, mut act: Act) -> Result<Ticket, NodeError> {
        act.began = self.clock.now();
        act.outcome.clear();
        let payload = act.encode(self.publisher.salt())?;
        let number = self.writing().take_number();
        (self.fault)(Step::Begin)?;
        self.store.begin_audit(number, &payload)?;
        Ok(Ticket::new(Arc::clone(self), number, act))
    }

    /// Records what has happened already, such as the node's start. Blocking.
    pub fn note(&self, mut act: Act, outcome: &str) {
        let now = self.clock.now();
        if act.began.0 == 0 {
            act.began = now;
        }
        act.ended = now;
        outcome.clone_into(&mut act.outcome);
        if let Err(error) = self.append(&act, None, None) {
            not_recorded(&act, &error);
        }
    }

    /// Told whenever leaves were appended.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// What is to be done from time to time: refused calls of minutes that are over are
    /// recorded, segments that are too old go. Blocking.
    pub fn upkeep(&self) {
        self.record_refused(false);
        self.retain();
    }

    /// Records what was refused up to now: the process ends. Blocking.
    pub fn close(&self) {
        self.record_refused(true);
    }

    /// Whether what was signed last is not in the store, or it is not known what was.
    fn is_broken(&self) -> bool {
        let writing = self.writing();
        writing.position().is_some_and(Position::is_broken)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        // A panic while it was held left the disk as it was before or after; the next
        // append reads it again.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_recorded(act: &Act, error: &NodeError) {
    metrics::counter!("hashpact_audit_failures_total").increment(1);
    tracing::error!(
        act = act.act, outcome = act.outcome, code = error.code(), %error,
        "an act was not recorded in the audit feed; the next start records that it began"
    );
}

fn open_state(path: &Path) -> Result<SignState, NodeError> {
    match SignState::open(path) {
        Err(SignStateError::Missing { .. }) => SignState::create(path),
        other => other,
    }
    .map_err(|error| NodeError::Internal(error.to_string()))
}
