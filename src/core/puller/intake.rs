//! What comes of pulls: chunks, ends and faults of streams, answers of the store.

use super::backoff::Fault;
use super::feed::{Conflict, Drained, Held, REFILL_SPANS_MAX, Refill};
use super::peers::{Job, Kind};
use super::spans::Spans;
use super::types::{Action, ChunkFacts, ChunkId, Failure, JobId, PeerId, Span};
use super::{Puller, Scope};
use crate::id::FeedId;
use crate::reject::Rejection;

/// Between times that leaves are asked for which only held retractions make dead:
/// whoever has them not may never have them.
const HELD_AGAIN_MS: u64 = 60 * 60 * 1_000;

impl Puller {
    pub(super) fn jobs_where(&self, which: impl Fn(&Job) -> bool) -> Vec<JobId> {
        let chosen = self.jobs.iter().filter(|(_, job)| which(job));
        chosen.map(|(id, _)| *id).collect()
    }

    /// Removes a job, gives back what it did not bring, and counts its fault.
    pub(super) fn end_job(&mut self, id: JobId, fault: Option<Fault>) {
        let Some(job) = self.jobs.remove(&id) else {
            return;
        };
        let Some(feed) = self.feeds.get_mut(&job.feed) else {
            return;
        };
        let gaps = match job.kind {
            Kind::Leaves => feed.round.as_mut().map(|round| &mut round.gaps),
            Kind::Refill => feed.refill.as_mut().map(|refill| &mut refill.gaps),
        };
        if let Some(gaps) = gaps {
            gaps.insert(job.rest());
        }
        let fault = fault.filter(|_| job.running());
        let Some(fault) = fault else {
            return;
        };
        let offer = feed.offers.entry(job.peer).or_default();
        if job.at > job.span.from {
            offer.backoff.succeed(); // it cut after it had brought something
        }
        offer.backoff.fail(self.now, fault, &mut self.jitter);
        if let Some(peer) = self.peers.get_mut(&job.peer) {
            match fault {
                Fault::Silent | Fault::Busy => {
                    peer.backoff.fail(self.now, fault, &mut self.jitter);
                }
                Fault::Lie => peer.strike(self.now, &mut self.jitter),
                Fault::Cut | Fault::Refused => {}
            }
        }
    }

    /// Sets a peer aside for a feed: it sent what does not verify.
    pub(super) fn lie(&mut self, id: JobId, rejection: Rejection, out: &mut Vec<Action>) -> Scope {
        let Some(job) = self.jobs.get(&id) else {
            return Scope::Nothing;
        };
        let (peer, feed, running) = (job.peer, job.feed, job.running());
        out.push(Action::Reject {
            peer,
            feed: Some(feed),
            rejection,
        });
        if running {
            self.end_job(id, Some(Fault::Lie));
        } else {
            self.jobs.remove(&id); // more than was asked for is a lie too
            self.blame(peer, feed);
        }
        out.push(Action::CancelPull { job: id });
        self.drop_jobs(peer, feed, out);
        Scope::All
    }

    fn blame(&mut self, peer: PeerId, feed: FeedId) {
        if let Some(feed) = self.feeds.get_mut(&feed) {
            let offer = feed.offers.entry(peer).or_default();
            offer.backoff.fail(self.now, Fault::Lie, &mut self.jitter);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.strike(self.now, &mut self.jitter);
        }
    }

    fn drop_jobs(&mut self, peer: PeerId, feed: FeedId, out: &mut Vec<Action>) {
        for job in self.jobs_where(|job| job.peer == peer && job.feed == feed) {
            self.end_job(job, None);
            out.push(Action::CancelPull { job });
        }
    }

    pub(super) fn chunk_verified(
        &mut self,
        id: JobId,
        chunk: ChunkId,
        facts: ChunkFacts,
        out: &mut Vec<Action>,
    ) -> Scope {
        let Some(job) = self.jobs.get_mut(&id) else {
            out.push(Action::Drop { chunk });
            return Scope::Nothing;
        };
        let Span { from, to } = facts.span;
        if from != job.at || to <= from || to > job.span.to {
            let expected = job.at;
            out.push(Action::Drop { chunk });
            let wrong = Rejection::WrongRange {
                expected,
                got: from,
            };
            return self.lie(id, wrong, out);
        }
        job.chunks = job.chunks.saturating_add(1);
        let most = job.chunks_max();
        if job.chunks > most {
            out.push(Action::Drop { chunk });
            return self.drips(id, most, out);
        }
        job.at = to;
        job.last = self.now;
        let (feed, peer, kind, done) = (job.feed, job.peer, job.kind, !job.running());
        if done {
            self.succeeded(peer, feed);
        }
        let held = Held { chunk, facts };
        let ended = match kind {
            Kind::Leaves => self.take_leaves(id, feed, peer, held, out),
            Kind::Refill => self.take_refill(feed, peer, held, out),
        };
        if done || ended {
            Scope::All
        } else {
            Scope::One(feed)
        }
    }

    /// PROTOCOL 16.8: a peer that sends its leaves one by one makes proofs the most of
    /// the work. It is left for another, or for later.
    fn drips(&mut self, id: JobId, limit: u64, out: &mut Vec<Action>) -> Scope {
        if let Some(job) = self.jobs.get(&id) {
            out.push(Action::Reject {
                peer: job.peer,
                feed: Some(job.feed),
                rejection: Rejection::RateLimited {
                    what: "chunks of one pull",
                    limit,
                },
            });
        }
        self.end_job(id, Some(Fault::Silent));
        out.push(Action::CancelPull { job: id });
        Scope::All
    }

    fn succeeded(&mut self, peer: PeerId, feed: FeedId) {
        let offers = self.feeds.get_mut(&feed).map(|feed| &mut feed.offers);
        if let Some(offer) = offers.and_then(|offers| offers.get_mut(&peer)) {
            offer.backoff.succeed();
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.backoff.succeed();
        }
    }

    /// Takes a chunk of a round; says whether jobs ended by it.
    fn take_leaves(
        &mut self,
        job: JobId,
        id: FeedId,
        peer: PeerId,
        held: Held,
        out: &mut Vec<Action>,
    ) -> bool {
        let window = self.settings.window_bytes;
        let Some((feed, goal)) = self.feeds.get_mut(&id).and_then(|feed| {
            let goal = feed.round.as_ref()?.head.clone();
            Some((feed, goal))
        }) else {
            out.push(Action::Drop { chunk: held.chunk });
            return false;
        };
        feed.learn(&held.facts);
        let from = held.facts.span.from;
        let waiting = feed.waiting_bytes().saturating_add(held.facts.bytes);
        if from != feed.next && waiting > window.saturating_mul(2) {
            // Leaves larger than any before: give the chunk back, without blame.
            if let Some(round) = &mut feed.round {
                round.gaps.insert(held.facts.span);
            }
            out.push(Action::Drop { chunk: held.chunk });
            self.end_job(job, None);
            out.push(Action::CancelPull { job });
            return true;
        }
        feed.supplied(&held.facts, peer, goal.size);
        if let Some(old) = feed.buffer.insert(from, held) {
            out.push(Action::Drop { chunk: old.chunk });
        }
        // PROTOCOL 13.6: the first chunk starts at the cursor, and the root of what it
        // says comes before must be the root of what is held.
        let drained = feed.drain(id, self.now, self.growth_limit, out);
        if let Drained::Odd(odd) = drained {
            let conflict = Conflict {
                held: feed.basis.clone(),
            };
            let rejection = Rejection::NotAnExtension { held: feed.next };
            self.fork(id, conflict, goal, Some(odd.chunk), rejection, out);
            return true;
        }
        let opened = feed.next > from;
        if let Some(round) = &mut feed.round {
            round.opened |= opened;
            if opened {
                feed.basis = Some(goal);
            }
        }
        self.throttle(id, out);
        if let Drained::Capped = drained {
            // What came of the round beyond the cap is refused and asked for later.
            self.abandon(id, out);
            return true;
        }
        false
    }

    /// Lets a feed rest that is at its growth cap.
    fn throttle(&mut self, id: FeedId, out: &mut Vec<Action>) {
        let Some(feed) = self.feeds.get_mut(&id) else {
            return;
        };
        let wait = feed.growth.rest_ms(self.growth_limit);
        let until = self.now.plus(wait);
        if wait > 0 && feed.rest_until <= self.now {
            out.push(Action::Throttled {
                feed: id,
                until,
                rejection: self.growth_limit.refusal(),
            });
        }
        if wait > 0 {
            feed.rest_until = feed.rest_until.max(until);
        }
    }

    fn take_refill(&mut self, id: FeedId, peer: PeerId, held: Held, out: &mut Vec<Action>) -> bool {
        let Some(feed) = self.feeds.get_mut(&id) else {
            out.push(Action::Drop { chunk: held.chunk });
            return false;
        };
        let Some(head_size) = feed.refill.as_ref().map(|refill| refill.head.size) else {
            out.push(Action::Drop { chunk: held.chunk });
            return false;
        };
        // PROTOCOL 18.1: what comes in place of a record grows the feed as well.
        let Some(growth) = feed.set_growth_aside(self.now, &held, self.growth_limit) else {
            out.push(Action::Drop { chunk: held.chunk });
            self.throttle(id, out);
            self.end_refill(id, out);
            return true;
        };
        feed.supplied(&held.facts, peer, head_size);
        if let Some(refill) = &mut feed.refill {
            refill.storing.insert(held.chunk);
        }
        out.push(Action::Refill {
            feed: id,
            chunk: held.chunk,
            span: held.facts.span,
            growth,
            limit: self.growth_limit,
        });
        false
    }

    /// Leaves what is missing for a later head to ask for; this one takes effect
    /// without it: retractions must not wait.
    fn end_refill(&mut self, id: FeedId, out: &mut Vec<Action>) {
        for job in self.jobs_where(|job| job.feed == id && job.kind == Kind::Refill) {
            self.jobs.remove(&job);
            out.push(Action::CancelPull { job });
        }
        let Some(feed) = self.feeds.get_mut(&id) else {
            return;
        };
        let waiting = feed.refill.as_ref().filter(|refill| !refill.applied);
        if let Some(head) = waiting.map(|refill| refill.head.clone()) {
            feed.apply(id, head, out);
        }
        feed.refill = None;
    }

    /// A chunk is back in its place: what of it did not count as growth is given back.
    pub(super) fn refilled(
        &mut self,
        id: FeedId,
        chunk: ChunkId,
        counted: u64,
        out: &mut Vec<Action>,
    ) -> Scope {
        let Some(feed) = self.feeds.get_mut(&id) else {
            return Scope::Nothing;
        };
        feed.refilled(chunk, counted);
        if let Some(refill) = &mut feed.refill {
            refill.storing.remove(&chunk);
        }
        self.throttle(id, out);
        Scope::One(id)
    }

    pub(super) fn chunk_stored(&mut self, id: FeedId, chunk: ChunkId) -> Scope {
        let Some(feed) = self.feeds.get_mut(&id) else {
            return Scope::Nothing;
        };
        let at = feed.storing.iter().position(|held| held.chunk == chunk);
        if let Some(at) = at {
            for held in feed.storing.drain(..=at) {
                feed.cursor = held.facts.span.to;
                feed.root = held.facts.root_after;
            }
        }
        Scope::One(id)
    }

    pub(super) fn store_failed(&mut self, id: FeedId, out: &mut Vec<Action>) -> Scope {
        self.abandon(id, out);
        let Some(feed) = self.feeds.get_mut(&id) else {
            return Scope::Nothing;
        };
        feed.storing.clear();
        feed.next = feed.cursor;
        feed.next_root = feed.root;
        feed.rest_until = feed
            .rest_until
            .max(self.now.plus(self.settings.store_rest_ms));
        // What was stored elided is not known any better than after a start.
        feed.elided |= feed.cursor > 0;
        Scope::All
    }

    pub(super) fn stream_ended(&mut self, id: JobId, out: &mut Vec<Action>) -> Scope {
        let Some(job) = self.jobs.get(&id) else {
            return Scope::Nothing;
        };
        if job.running() {
            out.push(Action::Reject {
                peer: job.peer,
                feed: Some(job.feed),
                rejection: Rejection::Truncated {
                    at: job.at,
                    of: job.span.to,
                },
            });
        }
        let fault = if job.at > job.span.from {
            Fault::Cut
        } else {
            Fault::Silent
        };
        self.end_job(id, Some(fault));
        Scope::All
    }

    pub(super) fn stream_failed(&mut self, id: JobId, failure: Failure) -> Scope {
        self.end_job(id, Some(failure.into()));
        Scope::All
    }

    pub(super) fn elisions_checked(
        &mut self,
        id: FeedId,
        size: u64,
        unjustified: &[Span],
        held: &[Span],
        out: &mut Vec<Action>,
    ) -> Scope {
        let Some(feed) = self.feeds.get_mut(&id) else {
            return Scope::Nothing;
        };
        let Some(head) = feed.checking.take_if(|head| head.size == size) else {
            return Scope::Nothing;
        };
        let missing = Spans::pages_of(unjustified, size, REFILL_SPANS_MAX);
        let blamed = feed.blame(unjustified, size);
        let mut wanted = unjustified.to_vec();
        if !held.is_empty() && self.now >= feed.held_again {
            feed.held_again = self.now.plus(HELD_AGAIN_MS);
            wanted.extend_from_slice(held);
        }
        let gaps = Spans::pages_of(&wanted, size, REFILL_SPANS_MAX);
        let waits = !missing.is_empty()
            && feed
                .applied
                .as_ref()
                .is_none_or(|held| held.rank() < head.rank());
        feed.refill = (!gaps.is_empty())
            .then(|| Refill::new(head.clone(), gaps, missing.into_vec(), self.now, !waits));
        if blamed.is_empty() {
            feed.suppliers.clear();
        }
        if !waits {
            feed.apply(id, head, out);
        }
        for job in self.jobs_where(|job| job.feed == id && job.kind == Kind::Refill) {
            self.jobs.remove(&job);
            out.push(Action::CancelPull { job });
        }
        for (peer, index) in blamed {
            out.push(Action::Reject {
                peer,
                feed: Some(id),
                rejection: Rejection::ElidedWithoutReason { index },
            });
            self.blame(peer, id);
            self.drop_jobs(peer, id, out);
        }
        Scope::All
    }
}
