//! A world in virtual time to drive a puller in: peers that are honest, slow,
//! cut, silent or lying, a store that answers later, and a check of every action.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::*;
use crate::id::Digest;
use crate::reject::Rejection;

/// Leaves in a chunk that a simulated server sends.
const CHUNK_LEAVES: u64 = 2_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Honest,
    /// Cuts this share of its streams, in per cent, somewhere within.
    Cuts(u64),
    /// Sends chunks that do not verify.
    Wrong,
    /// Takes calls and says nothing.
    Silent,
    /// Ends each stream well after one chunk.
    Truncates,
    /// Elides one leaf per chunk without reason.
    Elides,
}

#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) manner: Manner,
    pub(super) latency_ms: u64,
    pub(super) up: bool,
    /// Per feed: which history it serves, and how far.
    pub(super) heads: BTreeMap<FeedId, (u8, u64)>,
}

#[derive(Debug)]
enum Due {
    Event(Event),
    OfJob(JobId, Event),
    Tick,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) puller: Puller,
    pub(super) now: u64,
    pub(super) servers: BTreeMap<PeerId, Server>,
    pub(super) trace: Vec<String>,
    pub(super) applied: BTreeMap<FeedId, u64>,
    pub(super) rejections: Vec<(PeerId, &'static str)>,
    pub(super) forks: Vec<FeedId>,
    pub(super) order: Vec<(u64, FeedId)>,
    pub(super) pulled: BTreeMap<PeerId, u64>,
    /// Leaves over the growth limit, chunk by chunk.
    pub(super) over_growth: Vec<u64>,
    due: BTreeMap<(u64, u64), Due>,
    seq: u64,
    dice: Jitter,
    live: BTreeMap<JobId, (PeerId, FeedId)>,
    chunks: BTreeMap<ChunkId, (FeedId, Head, ChunkFacts, Option<u64>)>,
    pub(super) named: BTreeMap<FeedId, (u64, Digest)>,
    holes: BTreeMap<FeedId, BTreeSet<u64>>,
    /// Leaves that everybody leaves out for good reason, by held retractions alone
    /// where it says true, and whether the payload is there when it is asked for.
    dead: BTreeMap<(FeedId, u64), bool>,
    next_chunk: u64,
}

pub(super) fn feed(n: u8) -> FeedId {
    FeedId(Digest::of(&[n]))
}

pub(super) fn member(n: u32) -> MemberNumber {
    MemberNumber::new(n).unwrap()
}

/// The root of `n` leaves in a history; histories part at leaf 5,000.
pub(super) fn root(feed: FeedId, history: u8, n: u64) -> Digest {
    if n == 0 {
        return crate::merkle::empty_root();
    }
    let history = if n <= 5_000 { 0 } else { history };
    let mut bytes = feed.as_bytes().to_vec();
    bytes.push(history);
    bytes.extend(n.to_be_bytes());
    Digest::of(&bytes)
}

pub(super) fn head(feed: FeedId, history: u8, size: u64) -> Head {
    Head {
        feed,
        epoch: 1,
        size,
        root: root(feed, history, size),
        note: Bytes::new(),
    }
}

pub(super) fn facts(feed: FeedId, history: u8, from: u64, to: u64) -> ChunkFacts {
    ChunkFacts {
        span: Span { from, to },
        root_before: root(feed, history, from),
        root_after: root(feed, history, to),
        elided: 0,
        publishes: to.saturating_sub(from),
        bytes: to.saturating_sub(from).saturating_mul(180),
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            puller: Puller::new(Settings::default(), seed),
            now: 1_000_000,
            servers: BTreeMap::new(),
            trace: Vec::new(),
            applied: BTreeMap::new(),
            rejections: Vec::new(),
            forks: Vec::new(),
            order: Vec::new(),
            pulled: BTreeMap::new(),
            over_growth: Vec::new(),
            due: BTreeMap::new(),
            seq: 0,
            dice: Jitter::new(seed ^ 0xfeed),
            live: BTreeMap::new(),
            chunks: BTreeMap::new(),
            named: BTreeMap::new(),
            holes: BTreeMap::new(),
            dead: BTreeMap::new(),
            next_chunk: 0,
        }
    }

    pub(super) fn serve(&mut self, peer: u64, manner: Manner, heads: &[(FeedId, u8, u64)]) {
        let heads = heads.iter().map(|(id, h, size)| (*id, (*h, *size)));
        let server = Server {
            manner,
            latency_ms: 5 + self.dice.up_to(80),
            up: true,
            heads: heads.collect(),
        };
        self.servers.insert(PeerId(peer), server);
        self.tell(Event::PeerUp {
            peer: PeerId(peer),
            member: member(u32::try_from(peer).unwrap()),
        });
        self.announce(PeerId(peer));
    }

    /// A leaf is dead: everybody leaves its payload out who may.
    pub(super) fn elide(&mut self, feed: FeedId, at: u64) {
        self.dead.insert((feed, at), false);
    }

    /// It is dead by held retractions alone, and nobody has its payload.
    pub(super) fn hold(&mut self, feed: FeedId, at: u64) {
        self.dead.insert((feed, at), true);
    }

    /// It lives again.
    pub(super) fn revive(&mut self, feed: FeedId, at: u64) {
        self.dead.remove(&(feed, at));
    }

    pub(super) fn announce(&mut self, peer: PeerId) {
        let heads = self.servers[&peer].heads.clone();
        for (id, (history, size)) in heads {
            self.tell(Event::HeadAnnounced {
                peer,
                publisher: member(99),
                head: head(id, history, size),
            });
        }
    }

    pub(super) fn down(&mut self, peer: u64) {
        self.servers.get_mut(&PeerId(peer)).unwrap().up = false;
        self.live.retain(|_, (whose, _)| *whose != PeerId(peer));
        self.tell(Event::PeerDown { peer: PeerId(peer) });
    }

    pub(super) fn tell(&mut self, event: Event) {
        let actions = self.puller.handle(UnixMillis(self.now), event);
        for action in actions {
            self.trace.push(format!("{} {action:?}", self.now));
            self.act(action);
        }
        self.check_bounds();
    }

    /// Runs for so long in virtual time.
    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(entry) = self.due.first_entry() {
            let (at, _) = *entry.key();
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            match entry.remove() {
                Due::Event(event) => self.tell(event),
                Due::OfJob(job, event) => {
                    if self.live.contains_key(&job) {
                        self.deliver(job, event);
                    }
                }
                Due::Tick => self.tell(Event::Tick),
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, job: JobId, event: Event) {
        if matches!(
            event,
            Event::StreamEnded { .. } | Event::StreamFailed { .. }
        ) {
            self.live.remove(&job);
        }
        if let Event::ChunkVerified { facts, .. } = &event {
            let (peer, _) = self.live[&job];
            *self.pulled.entry(peer).or_default() += facts.span.leaves();
        }
        self.tell(event);
    }

    fn later(&mut self, ms: u64, due: Due) {
        self.seq += 1;
        self.due.insert((self.now + ms, self.seq), due);
    }

    fn refill(&mut self, feed: FeedId, chunk: ChunkId, span: Span) {
        let (_, _, _, hole) = self.chunks.remove(&chunk).expect("named once");
        let holes = self.holes.entry(feed).or_default();
        holes.retain(|at| *at < span.from || *at >= span.to);
        holes.extend(hole);
        let refilled = Event::Refilled {
            feed,
            chunk,
            counted: 0,
        };
        self.later(5, Due::Event(refilled));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::StartPull {
                job,
                peer,
                feed,
                head,
                span,
                elide,
            } => self.pull(job, peer, feed, &head, span, elide),
            Action::CancelPull { job } => {
                self.live.remove(&job);
            }
            Action::Store {
                feed,
                chunk,
                span,
                over_growth,
                ..
            } => {
                self.over_growth.push(over_growth);
                let (of, _, facts, hole) = self.chunks.remove(&chunk).expect("named once");
                let empty = (0, root(feed, 0, 0));
                let (cursor, held) = self
                    .named
                    .insert(feed, (span.to, facts.root_after))
                    .unwrap_or(empty);
                assert_eq!(
                    (of, cursor, held),
                    (feed, span.from, facts.root_before),
                    "in order"
                );
                self.holes.entry(feed).or_default().extend(hole);
                let wait = self.dice.up_to(20);
                self.later(wait, Due::Event(Event::ChunkStored { feed, chunk }));
            }
            Action::Refill {
                feed, chunk, span, ..
            } => self.refill(feed, chunk, span),
            Action::Drop { chunk } => {
                assert!(self.chunks.remove(&chunk).is_some(), "named once");
            }
            Action::Fork { feed, chunk, .. } => {
                self.forks.push(feed);
                if let Some(chunk) = chunk {
                    assert!(self.chunks.remove(&chunk).is_some(), "named once");
                }
            }
            Action::CheckElisions { feed, head } => {
                let holes = self.holes.entry(feed).or_default();
                let span = |at: &u64| Span {
                    from: *at,
                    to: at + 1,
                };
                let of = |at: &&u64| self.dead.get(&(feed, **at)).copied();
                let unjustified = holes.iter().filter(|at| of(at).is_none());
                let unjustified = unjustified.map(span).collect();
                let held = holes.iter().filter(|at| of(at) == Some(true));
                let held = held.map(span).collect();
                let size = head.size();
                let checked = Event::ElisionsChecked {
                    feed,
                    size,
                    unjustified,
                    held,
                };
                self.later(10, Due::Event(checked));
            }
            Action::HeadApplied { feed, head, .. } => {
                assert_eq!(
                    self.named[&feed],
                    (head.size(), head.root()),
                    "only what is stored"
                );
                self.applied.insert(feed, head.size());
                self.order.push((self.now, feed));
            }
            Action::Reject {
                peer, rejection, ..
            } => self.rejections.push((peer, rejection.code())),
            Action::Ask { peer } => {
                if self.servers[&peer].up {
                    self.announce(peer);
                }
            }
            Action::Wake { at } => {
                // It replaces the wake said before.
                self.due.retain(|_, due| !matches!(due, Due::Tick));
                let wait = at.0.saturating_sub(self.now);
                self.later(wait, Due::Tick);
            }
            Action::CompareHead { .. } | Action::Throttled { .. } => {}
        }
    }

    fn pull(
        &mut self,
        job: JobId,
        peer: PeerId,
        id: FeedId,
        pinned: &Head,
        span: Span,
        elide: bool,
    ) {
        self.live.insert(job, (peer, id));
        let server = self.servers[&peer].clone();
        let (history, size) = server.heads[&id];
        assert!(size >= pinned.size() && span.to <= pinned.size() && span.from < span.to);
        let mut at = server.latency_ms + self.dice.up_to(10);
        let rejected = |rejection| Event::ChunkRejected { job, rejection };
        match server.manner {
            Manner::Silent => {
                let failure = Failure::Silent;
                return self.later(
                    30_000,
                    Due::OfJob(job, Event::StreamFailed { job, failure }),
                );
            }
            Manner::Wrong => {
                let wrong = Rejection::WrongRoot {
                    from: span.from,
                    to: span.to,
                };
                return self.later(at, Due::OfJob(job, rejected(wrong)));
            }
            Manner::Honest | Manner::Cuts(_) | Manner::Truncates | Manner::Elides => {}
        }
        if root(id, history, pinned.size()) != pinned.root() {
            let wrong = Rejection::WrongRoot {
                from: span.from,
                to: span.to,
            };
            return self.later(at, Due::OfJob(job, rejected(wrong)));
        }
        let cut = match server.manner {
            Manner::Cuts(share) if self.dice.up_to(99) < share => Some(self.dice.up_to(4)),
            Manner::Cuts(_)
            | Manner::Honest
            | Manner::Truncates
            | Manner::Elides
            | Manner::Wrong
            | Manner::Silent => None,
        };
        let mut from = span.from;
        let mut count = 0;
        while from < span.to {
            if cut == Some(count) {
                let failure = Failure::Cut;
                return self.later(at, Due::OfJob(job, Event::StreamFailed { job, failure }));
            }
            if server.manner == Manner::Truncates && count == 1 {
                break;
            }
            let to = (from + CHUNK_LEAVES).min(span.to);
            self.next_chunk += 1;
            let chunk = ChunkId(self.next_chunk);
            let mut made = facts(id, history, from, to);
            let within = self.dead.iter().find(|((feed, at), held)| {
                *feed == id && (from..to).contains(at) && (elide || **held)
            });
            let lied = (elide && server.manner == Manner::Elides).then_some(from);
            let hole = within.map(|((_, at), _)| *at).or(lied);
            made.elided = u64::from(hole.is_some());
            self.chunks.insert(chunk, (id, pinned.clone(), made, hole));
            self.later(
                at,
                Due::OfJob(
                    job,
                    Event::ChunkVerified {
                        job,
                        chunk,
                        facts: made,
                    },
                ),
            );
            at += 3;
            (from, count) = (to, count + 1);
        }
        self.later(at, Due::OfJob(job, Event::StreamEnded { job }));
    }

    fn check_bounds(&self) {
        let settings = Settings::default();
        let running = |which: &dyn Fn(&Job) -> bool| peers::running(&self.puller.jobs, which);
        assert!(running(&|_| true) <= settings.jobs_total);
        for peer in self.servers.keys() {
            assert!(running(&|job| job.peer == *peer) <= settings.jobs_per_peer);
        }
        for feed in self.puller.feeds.values() {
            let most = settings.window_bytes * 2 + settings.job_bytes * 4;
            assert!(feed.waiting_bytes() <= most, "{}", feed.waiting_bytes());
        }
    }
}
