//! Where a play can have members do otherwise than a node does: message by message, and
//! nothing else of them. Without a meddler every member is what its node is.

use crate::service::ServiceError;
use crate::types::{Announcement, ChunkParts, PullPart, PullRequest, RosterItem};

use super::sessions::{CALLEE, CALLER, SessionId};
use super::world::World;

/// Whose end of a session it is, who stands at the other, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) now: u64,
    pub(crate) at: usize,
    pub(crate) other: usize,
}

/// What becomes of a pull.
#[derive(Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests have members lie"))]
pub(crate) enum Served {
    /// What the node answers.
    Truth,
    /// No answer, and no end.
    Never,
    /// Nothing.
    Refused(ServiceError),
    /// This instead.
    Parts(Vec<PullPart>),
}

/// Says and serves in place of nodes. What it is not asked about is the truth.
pub(crate) trait Meddler {
    /// What is announced in place of something true.
    fn says(&mut self, way: Way, said: Vec<Announcement>) -> Vec<Announcement>;

    /// Whether a member takes in what it was told.
    fn hears(&mut self, way: Way, said: &Announcement) -> bool;

    /// What a caller gets for a pull.
    fn answers(&mut self, way: Way, request: &PullRequest) -> Served;

    /// What becomes of a true chunk of a pull.
    fn serves(&mut self, way: Way, request: &PullRequest, chunk: ChunkParts) -> Vec<PullPart>;

    /// What is given as roster, cards and suspensions.
    fn papers(&mut self, way: Way, papers: Vec<RosterItem>) -> Vec<RosterItem>;
}

impl World {
    /// The way from an end of a session.
    pub(super) fn way(&self, session: SessionId, end: usize) -> Option<Way> {
        let ends = &self.sessions.get(&session)?.ends;
        Some(Way {
            now: self.now,
            at: ends.get(end)?.who.at,
            other: ends.get(CALLER + CALLEE - end)?.who.at,
        })
    }

    /// What a meddler makes of something true; that itself where there is none.
    pub(super) fn meddle<T>(
        &mut self,
        way: Option<Way>,
        truth: T,
        lie: impl FnOnce(&mut dyn Meddler, Way, T) -> T,
    ) -> T {
        match (self.meddler.as_deref_mut(), way) {
            (Some(meddler), Some(way)) => lie(meddler, way, truth),
            (None, _) | (_, None) => truth,
        }
    }
}
