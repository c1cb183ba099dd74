//! What a node must be able to answer: the trait behind the federation's four
//! calls.

use std::future::Future;
use std::time::Duration;

use hashpact_core::id::UnixMillis;
use hashpact_core::reject::Rejection;

use crate::connections::Connection;
use crate::types::{Announcement, Answers, Incoming, NodeInfo, PullPart, PullRequest, RosterItem};

/// Who calls, over which connection. The status in `connection.peer` is that of
/// this call's beginning.
pub type Caller = Connection;

/// One of the four calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Hello.
    Hello,
    /// `GetRoster`.
    Roster,
    /// Watch.
    Watch,
    /// Pull.
    Pull,
}

impl Call {
    /// The label in logs, metrics and the audit log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Roster => "get_roster",
            Self::Watch => "watch",
            Self::Pull => "pull",
        }
    }

    /// Tells whether a member that is not active may make the call. PROTOCOL 15.2:
    /// so that nobody deadlocks, any key on a known card may say hello and read the
    /// roster.
    #[must_use]
    pub const fn open_to_inactive(self) -> bool {
        match self {
            Self::Hello | Self::Roster => true,
            Self::Watch | Self::Pull => false,
        }
    }
}

/// Says why a call is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// What the caller asked or sent is refused. What is not granted is
    /// [`Rejection::NotFound`], as what does not exist.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The caller's member is suspended or removed.
    #[error("the member is not active")]
    NotActive,
    /// More than can be done now.
    #[error("too much to do at the moment")]
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
    /// The node is starting or stopping.
    #[error("not ready")]
    Unavailable,
    /// The call took longer than its deadline.
    #[error("the call took too long")]
    Timeout,
    /// Our own fault. The answer says nothing more; the log of whoever makes this
    /// says what.
    #[error("internal error")]
    Internal,
}

impl ServiceError {
    /// The stable code for answers, logs, metrics and the audit log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::NotActive => "not_active",
            Self::Busy { .. } => "busy",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

/// Answers the four calls in types of the core.
///
/// Who calls, the status of its member, rates, sizes, deadlines and stalled
/// streams are dealt with before and around these methods. What the caller may
/// read is not: `watch` and `pull` decide that, at the start **and before each
/// item**, from one snapshot, and end the stream with [`Rejection::NotFound`] when
/// it changes.
pub trait FederationService: Send + Sync + 'static {
    /// The node's clock, for the signs of life on a watch.
    fn now(&self) -> UnixMillis;

    /// Takes in what the peer says of itself and says the same of this node.
    fn hello(
        &self,
        caller: &Caller,
        peer: NodeInfo,
    ) -> impl Future<Output = Result<NodeInfo, ServiceError>> + Send;

    /// The roster chain from a version on, then cards, then suspensions. For a
    /// removed member up to its removal.
    fn roster(
        &self,
        caller: &Caller,
        from_version: u64,
    ) -> impl Future<Output = Result<Answers<RosterItem>, ServiceError>> + Send;

    /// Takes what the peer announces and announces in turn. The stream ends when
    /// the peer is gone; signs of life are added to it. `incoming` yields an error
    /// and ends when the peer breaks a rule or falls silent. It must be read even
    /// if nothing is done with it.
    fn watch(
        &self,
        caller: &Caller,
        incoming: Incoming<Announcement>,
    ) -> impl Future<Output = Result<Answers<Announcement>, ServiceError>> + Send;

    /// Chunks from `request.from` up to `request.to`, in order, or one proof. At
    /// most two items are asked for ahead of what the connection takes.
    fn pull(
        &self,
        caller: &Caller,
        request: PullRequest,
    ) -> impl Future<Output = Result<Answers<PullPart>, ServiceError>> + Send;

    /// Told of every call's outcome, with "ok" or a reason code, for the audit
    /// log. A stream is told of when it ends.
    fn audit(&self, caller: &Caller, call: Call, outcome: &'static str) {
        let _ = (caller, call, outcome);
    }
}
