//! What is known of peers, and of the pulls that run.

use super::backoff::{Backoff, Fault, Jitter};
use super::types::{Head, JobId, PeerId, Span};
use crate::id::{FeedId, MemberNumber, UnixMillis};
use crate::limits::PAGE_LEAVES;

/// Lies after which a peer is left alone for every feed.
const STRIKES_MAX: u32 = 3;

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) member: MemberNumber,
    pub(super) up: bool,
    pub(super) backoff: Backoff,
    pub(super) strikes: u32,
    /// When it is polled unless it says something before.
    pub(super) poll_at: UnixMillis,
    /// The last job it was given, so that equal peers take turns.
    pub(super) served: u64,
}

impl Peer {
    pub(super) fn new(member: MemberNumber) -> Self {
        Self {
            member,
            up: false,
            backoff: Backoff::default(),
            strikes: 0,
            poll_at: UnixMillis::default(),
            served: 0,
        }
    }

    /// Counts a lie about any feed; a few of them count against the peer.
    pub(super) fn strike(&mut self, now: UnixMillis, jitter: &mut Jitter) {
        self.strikes = self.strikes.saturating_add(1);
        if self.strikes >= STRIKES_MAX {
            self.backoff.fail(now, Fault::Lie, jitter);
        }
    }

    /// Sets when the peer is polled unless it says something before.
    pub(super) fn heard(&mut self, now: UnixMillis, poll_ms: u64, jitter: &mut Jitter) {
        self.poll_at = now.plus(poll_ms).plus(jitter.up_to(poll_ms));
    }
}

/// What a peer says it has of one feed, and its faults there.
#[derive(Debug, Default)]
pub(super) struct Offer {
    pub(super) head: Option<Head>,
    pub(super) backoff: Backoff,
}

/// Whether a job appends leaves or fetches payloads that were elided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Leaves,
    Refill,
}

/// One pull that was asked for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) peer: PeerId,
    pub(super) feed: FeedId,
    pub(super) kind: Kind,
    pub(super) span: Span,
    /// The first leaf that has not come verified.
    pub(super) at: u64,
    /// Chunks that came.
    pub(super) chunks: u64,
    pub(super) started: UnixMillis,
    pub(super) last: UnixMillis,
}

impl Job {
    /// Says whether something is still to come; if not, the job only waits for
    /// the end of its stream and takes no slot.
    pub(super) const fn running(&self) -> bool {
        self.at < self.span.to
    }

    /// Chunks that its leaves may come in: twice as many as whole pages and ragged
    /// ends make. Each costs its proofs, however few leaves it brings.
    pub(super) const fn chunks_max(&self) -> u64 {
        const ENDS: u64 = 8;
        let pages = self.span.leaves().saturating_div(PAGE_LEAVES);
        pages.saturating_mul(2).saturating_add(ENDS)
    }

    pub(super) const fn rest(&self) -> Span {
        Span {
            from: self.at,
            to: self.span.to,
        }
    }
}

/// Counts the running jobs that `which` selects.
pub(super) fn running<'a>(
    jobs: impl IntoIterator<Item = (&'a JobId, &'a Job)>,
    which: impl Fn(&Job) -> bool,
) -> usize {
    jobs.into_iter()
        .filter(|(_, job)| job.running() && which(job))
        .count()
}
