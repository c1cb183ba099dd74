//! What one peer may cost: chunks of a pull, growth by what is put back.

use super::sim::{facts, feed, head, member};
use super::*;
use crate::reject::Rejection;

const NOW: UnixMillis = UnixMillis(1_000_000_000);
const PEER: PeerId = PeerId(1);

/// A puller that holds `cursor` leaves of a feed, misses some, and has a peer with all.
struct Bench {
    puller: Puller,
    job: JobId,
    head: Head,
}

impl Bench {
    fn new(settings: Settings, cursor: u64, missing: Vec<Span>, growth: Growth, size: u64) -> Self {
        let held = head(feed(1), 0, cursor);
        let mut puller = Puller::new(settings, 1);
        let root = held.root();
        let holds = Event::FeedHeld {
            feed: feed(1),
            publisher: member(9),
            cursor,
            root,
            applied: Some(held),
            frozen: false,
            growth,
            elided: !missing.is_empty(),
            missing,
        };
        puller.handle(NOW, holds);
        let up = Event::PeerUp {
            peer: PEER,
            member: member(1),
        };
        puller.handle(NOW, up);
        let head = head(feed(1), 0, size);
        let announced = Event::HeadAnnounced {
            peer: PEER,
            publisher: member(9),
            head: head.clone(),
        };
        let asked = puller.handle(NOW, announced);
        let job = asked.iter().find_map(|action| {
            let Action::StartPull { job, .. } = action else {
                return None;
            };
            Some(*job)
        });
        let job = job.unwrap();
        Self { puller, job, head }
    }

    fn brings(&mut self, chunk: u64, from: u64, to: u64, publishes: u64) -> Vec<Action> {
        let mut facts = facts(feed(1), 0, from, to);
        facts.publishes = publishes;
        let verified = Event::ChunkVerified {
            job: self.job,
            chunk: ChunkId(chunk),
            facts,
        };
        self.puller.handle(NOW, verified)
    }
}

fn small_growth() -> Settings {
    Settings {
        growth_per_hour: 100,
        growth_cap_factor: 2,
        ..Settings::default()
    }
}

fn missing(from: u64, to: u64) -> Vec<Span> {
    vec![Span { from, to }]
}

fn refills(actions: &[Action]) -> Vec<u64> {
    let of = |action: &Action| {
        let Action::Refill { growth, .. } = action else {
            return None;
        };
        Some(growth.level)
    };
    actions.iter().filter_map(of).collect()
}

#[test]
fn a_peer_that_sends_its_leaves_one_by_one_is_left() {
    let mut bench = Bench::new(
        Settings::default(),
        256,
        Vec::new(),
        Growth::default(),
        1_024,
    );
    // 768 leaves: three pages, and ends.
    for at in 0..14 {
        let actions = bench.brings(at, 256 + at, 257 + at, 1);
        assert!(
            !actions.iter().any(|a| matches!(a, Action::Reject { .. })),
            "{at}"
        );
    }
    let actions = bench.brings(14, 270, 271, 1);
    let limited = Rejection::RateLimited {
        what: "chunks of one pull",
        limit: 14,
    };
    assert!(actions.contains(&Action::Reject {
        peer: PEER,
        feed: Some(feed(1)),
        rejection: limited,
    }));
    assert!(actions.contains(&Action::CancelPull { job: bench.job }));
    assert!(actions.contains(&Action::Drop { chunk: ChunkId(14) }));
}

#[test]
fn whole_pages_and_ragged_ends_are_never_too_many_chunks() {
    let mut bench = Bench::new(
        Settings::default(),
        100,
        Vec::new(),
        Growth::default(),
        1_000,
    );
    for (chunk, (from, to)) in (0..).zip([(100, 256), (256, 512), (512, 768), (768, 1_000)]) {
        let actions = bench.brings(chunk, from, to, 1);
        assert!(!actions.iter().any(|a| matches!(a, Action::Reject { .. })));
    }
}

#[test]
fn what_is_put_back_grows_the_feed_and_what_of_it_was_not_wanted_is_given_back() {
    let growth = Growth {
        level: 10,
        at: NOW,
        from: 256,
    };
    let mut bench = Bench::new(small_growth(), 1_024, missing(256, 1_024), growth, 1_024);
    let size = bench.head.size();
    assert_eq!(size, 1_024);
    assert_eq!(refills(&bench.brings(1, 256, 512, 80)), [10]);
    // At most all of the first are growth, until the store says how many.
    assert_eq!(refills(&bench.brings(2, 512, 768, 80)), [90]);
    for (chunk, counted) in [(1, 3), (2, 80)] {
        let refilled = Event::Refilled {
            feed: feed(1),
            chunk: ChunkId(chunk),
            counted,
        };
        bench.puller.handle(NOW, refilled);
    }
    assert_eq!(refills(&bench.brings(3, 768, 1_024, 5)), [93]);
}

#[test]
fn what_is_put_back_of_the_first_pull_is_no_growth() {
    // Nothing came since: all that is held was the first pull.
    let growth = Growth::default();
    let mut bench = Bench::new(small_growth(), 1_024, missing(0, 1_024), growth, 1_024);
    assert_eq!(refills(&bench.brings(1, 0, 512, 512)), [0]);
    assert_eq!(refills(&bench.brings(2, 512, 1_024, 512)), [0]);
}

#[test]
fn at_the_growth_cap_nothing_is_put_back_and_the_feed_rests() {
    let growth = Growth {
        level: 201,
        at: NOW,
        from: 256,
    };
    let mut bench = Bench::new(small_growth(), 1_024, missing(256, 1_024), growth, 1_024);
    let actions = bench.brings(1, 256, 512, 1);
    assert_eq!(refills(&actions), []);
    assert!(actions.contains(&Action::Drop { chunk: ChunkId(1) }));
    let rests = |action: &Action| matches!(action, Action::Throttled { .. });
    assert!(actions.iter().any(rests), "{actions:?}");
    assert!(actions.contains(&Action::CancelPull { job: bench.job }));
}

/// A puller that a publisher serves, and to whom a reader that may not relay says heads.
struct Told {
    puller: Puller,
    now: u64,
    jobs: Vec<(JobId, Span)>,
    compared: Vec<u64>,
}

const PUBLISHER: PeerId = PeerId(1);
const READER: PeerId = PeerId(2);

impl Told {
    fn new() -> Self {
        let mut told = Self {
            puller: Puller::new(Settings::default(), 1),
            now: NOW.0,
            jobs: Vec::new(),
            compared: Vec::new(),
        };
        for (peer, n) in [(PUBLISHER, 1), (READER, 2)] {
            let member = member(n);
            told.tell(Event::PeerUp { peer, member });
        }
        told.tell(Event::AccessChanged(Denied {
            pairs: [(READER, feed(1))].into(),
            ..Denied::default()
        }));
        told
    }

    fn says(&mut self, peer: PeerId, history: u8, size: u64) {
        self.tell(Event::HeadAnnounced {
            peer,
            publisher: member(1),
            head: head(feed(1), history, size),
        });
    }

    fn tell(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.now += 10;
            for action in self.puller.handle(UnixMillis(self.now), event) {
                match action {
                    Action::StartPull { job, span, .. } => self.jobs.push((job, span)),
                    Action::Store { feed, chunk, .. } => {
                        events.push_back(Event::ChunkStored { feed, chunk });
                    }
                    Action::CheckElisions { feed, head } => {
                        events.push_back(Event::ElisionsChecked {
                            feed,
                            size: head.size(),
                            unjustified: vec![],
                            held: vec![],
                        });
                    }
                    Action::CompareHead { head, .. } => self.compared.push(head.size()),
                    Action::Fork { .. } => panic!("no two roots of one size were said"),
                    Action::CancelPull { .. }
                    | Action::Refill { .. }
                    | Action::Drop { .. }
                    | Action::HeadApplied { .. }
                    | Action::Reject { .. }
                    | Action::Throttled { .. }
                    | Action::Ask { .. }
                    | Action::Wake { .. } => {}
                }
            }
        }
    }

    /// The publisher serves what is asked of it, in whole jobs.
    fn pull(&mut self) {
        while let Some((job, span)) = self.jobs.pop() {
            self.now += 10;
            self.tell(Event::ChunkVerified {
                job,
                chunk: ChunkId(self.now),
                facts: facts(feed(1), 0, span.from, span.to),
            });
            self.tell(Event::StreamEnded { job });
        }
    }
}

// ⚠ A reader says a head once a watch: else a publisher that shows it another history
// has that head forgotten here by heads of its own.
#[test]
fn a_head_of_another_history_is_compared_however_many_heads_follow() {
    for more in [0, 5, 20, 200] {
        let mut told = Told::new();
        told.says(PUBLISHER, 0, 7_000);
        told.says(READER, 1, 6_000);
        for n in 1..=more {
            told.says(PUBLISHER, 0, 7_000 + n);
        }
        assert_eq!(told.compared, [0; 0]);
        told.pull();
        let progress = told.puller.progress().next().unwrap();
        assert_eq!(progress.applied, Some(7_000 + more));
        assert!(told.compared.contains(&6_000), "{more}");
    }
}

#[test]
fn a_head_that_was_not_kept_is_compared_when_it_is_said_again_and_then_no_more() {
    let mut told = Told::new();
    told.says(PUBLISHER, 0, 7_000);
    for size in [5_500, 6_000, 6_500] {
        told.says(READER, 1, size);
    }
    told.pull();
    assert_eq!(told.compared, [5_500, 6_500], "the first and the newest");
    for _ in 0..2 {
        for size in [5_500, 6_000, 6_500] {
            told.says(READER, 1, size);
        }
        told.says(PUBLISHER, 0, 7_000);
    }
    assert_eq!(told.compared, [5_500, 6_500, 6_000]);
}
