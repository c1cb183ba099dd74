//! What to do next: which head to pin, which feed and peer get the next pull, and
//! when to look again.

use std::collections::BTreeSet;

use super::backoff::Fault;
use super::feed::{Conflict, Feed};
use super::peers::{self, Job, Kind};
use super::types::{Action, Head, JobId, PeerId};
use super::{Puller, Scope};
use crate::id::{FeedId, UnixMillis};
use crate::limits::{CHUNK_MAX_LEAVES, PAGE_LEAVES};
use crate::reject::Rejection;

/// A pull that a feed could use.
struct Want {
    kind: Kind,
    head: Head,
    leaves: u64,
    bulk: bool,
}

impl Puller {
    /// Does what became possible within `scope`.
    pub(super) fn plan(&mut self, scope: Scope, out: &mut Vec<Action>) {
        let feeds: Vec<FeedId> = match scope {
            Scope::Nothing => return,
            Scope::One(id) => vec![id],
            Scope::All => {
                self.refresh_busy();
                self.busy.iter().copied().collect()
            }
        };
        for id in &feeds {
            self.prepare(*id, out);
        }
        let mut queue: BTreeSet<(bool, u64, FeedId)> =
            feeds.iter().filter_map(|id| self.turn(*id)).collect();
        while let Some((_, _, id)) = queue.pop_first() {
            if self.start_one(id, out) {
                queue.extend(self.turn(id));
            }
        }
        for id in feeds {
            self.settle_wake(id);
        }
    }

    fn refresh_busy(&mut self) {
        let denied = &self.denied.feeds;
        let busy = self
            .feeds
            .iter()
            .filter(|(id, feed)| feed.busy() && !denied.contains(id));
        self.busy = busy.map(|(id, _)| *id).collect();
    }

    /// The place of a feed in the queue: small tails first, then by turns.
    fn turn(&self, id: FeedId) -> Option<(bool, u64, FeedId)> {
        let feed = self.feeds.get(&id)?;
        let want = self.want(id, feed)?;
        Some((want.bulk, feed.served, id))
    }

    /// Moves a feed on: applies, checks, and pins heads.
    fn prepare(&mut self, id: FeedId, out: &mut Vec<Action>) {
        let blocked = self.denied.feeds.contains(&id);
        if blocked || self.feeds.get(&id).is_none_or(|feed| feed.frozen) {
            return;
        }
        self.finish_round(id, out);
        self.finish_refill(id, out);
        self.choose_head(id, out);
    }

    fn finish_round(&mut self, id: FeedId, out: &mut Vec<Action>) {
        let Some(feed) = self.feeds.get_mut(&id) else {
            return;
        };
        let at_end = |feed: &Feed, head: &Head| feed.cursor == head.size && feed.storing.is_empty();
        let Some(head) = feed
            .round
            .as_ref()
            .map(|round| round.head.clone())
            .filter(|head| at_end(feed, head))
        else {
            return;
        };
        if feed.root != head.root {
            let conflict = Conflict {
                held: feed.basis.clone(),
            };
            let rejection = Rejection::NotAnExtension { held: feed.cursor };
            self.fork(id, conflict, head, None, rejection, out);
            return;
        }
        feed.round = None;
        if feed.elided {
            feed.checking = Some(head.clone());
            out.push(Action::CheckElisions { feed: id, head });
        } else {
            feed.apply(id, head, out);
        }
    }

    /// Checks again when everything that was missing came, or applies the head
    /// without it when nobody within reach has it.
    fn finish_refill(&mut self, id: FeedId, out: &mut Vec<Action>) {
        let running = peers::running(&self.jobs, |job| job.feed == id && job.kind == Kind::Refill);
        let reachable = self.feeds.get(&id).is_some_and(|feed| {
            let head = feed.refill.as_ref().map(|refill| &refill.head);
            head.is_some_and(|head| self.could_serve(id, feed, head))
        });
        let patience = self.settings.refill_patience_ms;
        let Some(feed) = self.feeds.get_mut(&id) else {
            return;
        };
        let idle = feed.round.is_none() && feed.checking.is_none();
        let Some(refill) = feed.refill.as_mut().filter(|_| idle) else {
            return;
        };
        if refill.gaps.is_empty() && refill.storing.is_empty() && running == 0 {
            let head = refill.head.clone();
            feed.refill = None;
            feed.checking = Some(head.clone());
            out.push(Action::CheckElisions { feed: id, head });
            return;
        }
        let waited = self.now.since(refill.since) >= patience;
        if !refill.applied && ((!reachable && running == 0) || waited) {
            let head = refill.head.clone();
            feed.apply(id, head, out);
        }
    }

    /// Pins the newest head that a usable peer offers, unless the one that is
    /// pinned can still be had.
    fn choose_head(&mut self, id: FeedId, out: &mut Vec<Action>) {
        let Some(feed) = self.feeds.get(&id) else {
            return;
        };
        let waiting = feed.refill.as_ref().is_some_and(|refill| !refill.applied);
        if feed.checking.is_some() || waiting || feed.rest_until > self.now {
            return;
        }
        if let Some(round) = &feed.round {
            let running =
                peers::running(&self.jobs, |job| job.feed == id && job.kind == Kind::Leaves);
            let stuck = running == 0 && !round.gaps.is_empty() && feed.storing.is_empty();
            if !stuck || self.usable(id, feed, &round.head).next().is_some() {
                return;
            }
        } else if !feed.storing.is_empty() {
            return;
        }
        let offered = feed
            .offers
            .iter()
            .filter(|(peer, offer)| self.peer_ready(**peer, id) && offer.backoff.ready(self.now));
        let newest = offered
            .filter_map(|(_, offer)| offer.head.as_ref())
            .filter(|head| feed.wants(head))
            .max_by_key(|head| head.rank())
            .cloned();
        if let (Some(head), Some(feed)) = (newest, self.feeds.get_mut(&id)) {
            feed.pin(head, out);
            self.finish_round(id, out); // nothing to pull where only the epoch is new
        }
    }

    fn peer_ready(&self, peer: PeerId, feed: FeedId) -> bool {
        !self.denied.covers(peer, feed)
            && self
                .peers
                .get(&peer)
                .is_some_and(|known| known.up && known.backoff.ready(self.now))
    }

    /// The peers that may be asked for leaves below `head` at this time.
    fn usable<'a>(
        &'a self,
        id: FeedId,
        feed: &'a Feed,
        head: &'a Head,
    ) -> impl Iterator<Item = PeerId> + 'a {
        feed.offers
            .iter()
            .filter(move |(peer, offer)| {
                let has = offer.head.as_ref().is_some_and(|own| own.covers(head));
                has && offer.backoff.ready(self.now) && self.peer_ready(**peer, id)
            })
            .map(|(peer, _)| *peer)
    }

    /// Says whether a peer that did not lie offers `head`, though it may have to
    /// be waited for.
    fn could_serve(&self, id: FeedId, feed: &Feed, head: &Head) -> bool {
        feed.offers.iter().any(|(peer, offer)| {
            let has = offer.head.as_ref().is_some_and(|own| own.covers(head));
            let known = self.peers.get(peer);
            let honest = known.is_some_and(|peer| peer.up && !peer.backoff.set_aside(self.now));
            has && honest && !offer.backoff.set_aside(self.now) && !self.denied.covers(*peer, id)
        })
    }

    /// The next pull that a feed could use, if it is not at its bounds.
    fn want(&self, id: FeedId, feed: &Feed) -> Option<Want> {
        if feed.frozen || self.denied.feeds.contains(&id) || feed.rest_until > self.now {
            return None;
        }
        let running = peers::running(&self.jobs, |job| job.feed == id);
        if running >= self.settings.jobs_per_feed {
            return None;
        }
        self.want_leaves(id, feed).or_else(|| {
            let refill = feed.refill.as_ref()?;
            let leaves = refill.gaps.first()?.leaves().min(self.job_leaves(feed));
            Some(Want {
                kind: Kind::Refill,
                head: refill.head.clone(),
                leaves,
                bulk: refill.gaps.leaves() > self.settings.small_tail_leaves,
            })
        })
    }

    fn want_leaves(&self, id: FeedId, feed: &Feed) -> Option<Want> {
        let round = feed.round.as_ref()?;
        let gap = round.gaps.first()?;
        let mine = |job: &Job| job.feed == id && job.kind == Kind::Leaves;
        let leaves = gap.leaves().min(self.job_leaves(feed));
        if !round.opened {
            // PROTOCOL 13.6: nothing but the first chunk, at the cursor, until it has
            // proved that the head extends what is held.
            let alone = peers::running(&self.jobs, mine) == 0 && gap.from == feed.next;
            alone.then_some(())?;
        }
        let expected = self
            .jobs
            .values()
            .filter(|job| mine(job))
            .fold(leaves, |sum, job| sum.saturating_add(job.rest().leaves()))
            .saturating_mul(feed.leaf_bytes);
        let full = expected.saturating_add(feed.waiting_bytes()) > self.settings.window_bytes;
        if full && gap.from != feed.next {
            return None;
        }
        Some(Want {
            kind: Kind::Leaves,
            head: round.head.clone(),
            leaves,
            bulk: round.head.size.saturating_sub(feed.next) > self.settings.small_tail_leaves,
        })
    }

    fn job_leaves(&self, feed: &Feed) -> u64 {
        self.settings
            .job_bytes
            .checked_div(feed.leaf_bytes)
            .unwrap_or(PAGE_LEAVES)
            .clamp(PAGE_LEAVES, CHUNK_MAX_LEAVES)
    }

    fn start_one(&mut self, id: FeedId, out: &mut Vec<Action>) -> bool {
        let Some(feed) = self.feeds.get(&id) else {
            return false;
        };
        let Some(want) = self.want(id, feed) else {
            return false;
        };
        let Some(peer) = self.pick(id, feed, &want) else {
            return false;
        };
        self.start(id, peer, want, out)
    }

    /// The usable peer with a free slot that has told fewest lies, runs fewest
    /// pulls, and was asked longest ago.
    fn pick(&self, id: FeedId, feed: &Feed, want: &Want) -> Option<PeerId> {
        let limit = |slots: usize| {
            let kept = if want.bulk {
                self.settings.jobs_reserved
            } else {
                0
            };
            slots.saturating_sub(kept).max(1)
        };
        if peers::running(&self.jobs, |_| true) >= limit(self.settings.jobs_total) {
            return None;
        }
        let per_peer = limit(self.settings.jobs_per_peer);
        self.usable(id, feed, &want.head)
            .filter_map(|peer| {
                let running = peers::running(&self.jobs, |job| job.peer == peer);
                let lies = feed.offers.get(&peer)?.backoff.lies();
                let served = self.peers.get(&peer)?.served;
                (running < per_peer).then_some((lies, running, served, peer))
            })
            .min()
            .map(|(_, _, _, peer)| peer)
    }

    fn start(&mut self, id: FeedId, peer: PeerId, want: Want, out: &mut Vec<Action>) -> bool {
        let Some(feed) = self.feeds.get_mut(&id) else {
            return false;
        };
        let gaps = match want.kind {
            Kind::Leaves => feed.round.as_mut().map(|round| &mut round.gaps),
            Kind::Refill => feed.refill.as_mut().map(|refill| &mut refill.gaps),
        };
        let Some(span) = gaps.and_then(|gaps| gaps.take(want.leaves)) else {
            return false;
        };
        self.next_job = self.next_job.saturating_add(1);
        let job = JobId(self.next_job);
        feed.served = self.next_job;
        let first = feed.applied.is_none();
        if let Some(known) = self.peers.get_mut(&peer) {
            known.served = self.next_job;
        }
        self.busy.insert(id);
        self.jobs.insert(
            job,
            Job {
                peer,
                feed: id,
                kind: want.kind,
                span,
                at: span.from,
                chunks: 0,
                started: self.now,
                last: self.now,
            },
        );
        out.push(Action::StartPull {
            job,
            peer,
            feed: id,
            head: want.head,
            span,
            // Whoever follows a feed keeps its history; whoever comes late need not
            // be given what is dead.
            elide: self.settings.elide && first && want.kind == Kind::Leaves,
        });
        true
    }

    /// Polls the silent, gives up the stalled, forgets what is over.
    pub(super) fn tick(&mut self, out: &mut Vec<Action>) -> Scope {
        // A clock that says that the tick came early has used it up all the same: it is
        // asked for again.
        self.wake = self.wake.filter(|at| *at <= self.now);
        let (now, poll_ms) = (self.now, self.settings.poll_ms);
        for (id, peer) in &mut self.peers {
            if peer.up && peer.poll_at <= now {
                peer.heard(now, poll_ms, &mut self.jitter);
                out.push(Action::Ask { peer: *id });
            }
        }
        let stall = self.settings.stall_ms;
        for job in self.jobs_where(|job| now.since(job.last) >= stall) {
            self.end_job(job, Some(Fault::Silent));
            out.push(Action::CancelPull { job });
        }
        for job in self.jobs_where(|job| job.running() && self.slow(job) && self.elsewhere(job)) {
            self.end_job(job, Some(Fault::Silent));
            out.push(Action::CancelPull { job });
        }
        self.prune();
        Scope::All
    }

    /// A peer that was picked first and says nothing holds the feed up only while
    /// nobody else can be asked.
    pub(super) fn quiet(&mut self, id: JobId, out: &mut Vec<Action>) -> Scope {
        let job = self.jobs.get(&id);
        let silent = job.is_some_and(|job| job.at == job.span.from && job.running());
        if !silent || !job.is_some_and(|job| self.elsewhere(job)) {
            return Scope::Nothing;
        }
        self.end_job(id, Some(Fault::Silent));
        out.push(Action::CancelPull { job: id });
        Scope::All
    }

    fn slow(&self, job: &Job) -> bool {
        self.now.since(job.started) >= self.settings.slow_ms
    }

    fn elsewhere(&self, job: &Job) -> bool {
        let Some(feed) = self.feeds.get(&job.feed) else {
            return false;
        };
        let head = match job.kind {
            Kind::Leaves => feed.round.as_ref().map(|round| &round.head),
            Kind::Refill => feed.refill.as_ref().map(|refill| &refill.head),
        };
        head.is_some_and(|head| {
            self.usable(job.feed, feed, head)
                .any(|peer| peer != job.peer)
        })
    }

    fn prune(&mut self) {
        let now = self.now;
        for feed in self.feeds.values_mut() {
            let keep = |offer: &super::peers::Offer| {
                offer.head.is_some() || !offer.backoff.forgettable(now)
            };
            feed.offers.retain(|_, offer| keep(offer));
        }
        self.peers
            .retain(|_, peer| peer.up || !peer.backoff.forgettable(now));
    }

    /// Notes when a feed that waits for a peer or a rest can go on.
    fn settle_wake(&mut self, id: FeedId) {
        let wake = self
            .feeds
            .get(&id)
            .filter(|feed| feed.busy() && !self.denied.feeds.contains(&id))
            .and_then(|feed| self.next_chance(feed));
        let Some(feed) = self.feeds.get_mut(&id) else {
            return;
        };
        if feed.busy() {
            self.busy.insert(id);
        } else {
            self.busy.remove(&id);
        }
        if let Some(old) = std::mem::replace(&mut feed.wake, wake) {
            self.wakes.remove(&(old, id));
        }
        self.wakes.extend(wake.map(|at| (at, id)));
    }

    /// The next time at which a back-off, a rest or patience of a feed ends.
    fn next_chance(&self, feed: &Feed) -> Option<UnixMillis> {
        let offers = feed.offers.iter().filter_map(|(peer, offer)| {
            let peer = self.peers.get(peer).filter(|known| known.up)?;
            offer.head.as_ref()?;
            Some(offer.backoff.until().max(peer.backoff.until()))
        });
        let waiting = feed.refill.as_ref().filter(|refill| !refill.applied);
        let patience = waiting.map(|refill| refill.since.plus(self.settings.refill_patience_ms));
        offers
            .chain([feed.rest_until])
            .chain(patience)
            .filter(|at| *at > self.now)
            .min()
    }

    /// Says when to tick, if that changed.
    pub(super) fn say_wake(&mut self, out: &mut Vec<Action>) {
        let polls = self.peers.values().filter(|peer| peer.up);
        let jobs = self.jobs.values().flat_map(|job| {
            let slow = job.started.plus(self.settings.slow_ms);
            let slow = (job.running() && slow > self.now).then_some(slow);
            [Some(job.last.plus(self.settings.stall_ms)), slow]
        });
        let at = polls
            .map(|peer| peer.poll_at)
            .chain(jobs.flatten())
            .chain(self.wakes.first().map(|(at, _)| *at))
            .min();
        if at != self.wake {
            self.wake = at;
            out.extend(at.map(|at| Action::Wake { at }));
        }
    }
}
