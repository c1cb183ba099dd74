//! Scenarios in virtual time, and invariants under any order of events.

use proptest::prelude::*;

use super::sim::{Manner, World, facts, feed, head, member, root};
use super::*;
use crate::reject::Rejection;

const MINUTE: u64 = 60_000;

fn codes(world: &World, peer: u64) -> Vec<&'static str> {
    let of = world
        .rejections
        .iter()
        .filter(|(id, _)| *id == PeerId(peer));
    of.map(|(_, code)| *code).collect()
}

#[test]
fn a_feed_is_pulled_to_its_head_and_applied() {
    let mut world = World::new(1);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 300_000)]);
    world.run(MINUTE);
    assert_eq!(world.applied[&feed(1)], 300_000);
    assert!(world.rejections.is_empty());
}

#[test]
fn a_large_pull_is_split_among_all_peers_that_have_it() {
    let mut world = World::new(2);
    for peer in 1..=3 {
        world.serve(peer, Manner::Honest, &[(feed(1), 0, 1_000_000)]);
    }
    world.run(MINUTE);
    assert_eq!(world.applied[&feed(1)], 1_000_000);
    assert!((1..=3).all(|peer| world.pulled[&PeerId(peer)] > 100_000));
}

#[test]
fn nothing_but_the_chunk_at_the_cursor_is_asked_for_before_it_is_verified() {
    let mut puller = Puller::new(Settings::default(), 1);
    let now = UnixMillis(1);
    let mut starts = Vec::new();
    for peer in [PeerId(1), PeerId(2)] {
        puller.handle(
            now,
            Event::PeerUp {
                peer,
                member: member(1),
            },
        );
        let announced = Event::HeadAnnounced {
            peer,
            publisher: member(9),
            head: head(feed(1), 0, 900_000),
        };
        starts.extend(puller.handle(now, announced));
    }
    let jobs: Vec<(JobId, Span)> = starts.iter().filter_map(started).collect();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].1.from, 0);
    let verified = Event::ChunkVerified {
        job: jobs[0].0,
        chunk: ChunkId(1),
        facts: facts(feed(1), 0, 0, 100),
    };
    let next = puller.handle(now, verified);
    assert!(next.iter().filter_map(started).count() >= 2);
}

fn started(action: &Action) -> Option<(JobId, Span)> {
    if let Action::StartPull { job, span, .. } = action {
        Some((*job, *span))
    } else {
        None
    }
}

#[test]
fn a_first_chunk_that_does_not_extend_what_is_held_freezes_the_feed() {
    let mut world = World::new(3);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 10_000)]);
    world.run(MINUTE);
    world.serve(2, Manner::Honest, &[(feed(1), 1, 20_000)]);
    world.run(MINUTE);
    assert_eq!(world.forks, [feed(1)]);
    assert_eq!(world.applied[&feed(1)], 10_000);
    world.serve(3, Manner::Honest, &[(feed(1), 0, 30_000)]);
    world.run(MINUTE);
    assert_eq!(
        world.applied[&feed(1)],
        10_000,
        "frozen feeds stay as verified"
    );
}

#[test]
fn two_roots_at_one_size_freeze_the_feed() {
    let mut world = World::new(4);
    world.serve(1, Manner::Silent, &[(feed(1), 0, 10_000)]);
    world.serve(2, Manner::Honest, &[(feed(1), 1, 10_000)]);
    world.run(MINUTE);
    assert_eq!(world.forks, [feed(1)]);
    assert!(codes(&world, 2).contains(&"two_roots"));
    assert!(!world.applied.contains_key(&feed(1)));
}

#[test]
fn a_head_that_goes_back_is_refused_and_the_newer_one_kept() {
    let mut world = World::new(5);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 9_000)]);
    let back = Event::HeadAnnounced {
        peer: PeerId(1),
        publisher: member(99),
        head: head(feed(1), 0, 8_000),
    };
    world.tell(back);
    world.run(MINUTE);
    assert_eq!(codes(&world, 1), ["head_went_back"]);
    assert_eq!(world.applied[&feed(1)], 9_000);
}

#[test]
fn a_lying_peer_is_set_aside_and_the_rest_comes_from_elsewhere() {
    let mut world = World::new(6);
    world.serve(1, Manner::Wrong, &[(feed(1), 0, 400_000)]);
    world.serve(2, Manner::Honest, &[(feed(1), 0, 400_000)]);
    world.run(20_000);
    assert_eq!(world.applied[&feed(1)], 400_000);
    assert!(codes(&world, 1).len() <= 1, "it is not asked again at once");
}

#[test]
fn a_silent_peer_does_not_keep_a_feed_from_coming() {
    let mut world = World::new(7);
    world.serve(1, Manner::Silent, &[(feed(1), 0, 100_000)]);
    world.serve(2, Manner::Honest, &[(feed(1), 0, 100_000)]);
    world.run(3 * MINUTE);
    assert_eq!(world.applied[&feed(1)], 100_000);
}

#[test]
fn what_cuts_and_truncated_streams_brought_is_not_pulled_again() {
    let mut world = World::new(8);
    world.serve(1, Manner::Cuts(70), &[(feed(1), 0, 300_000)]);
    world.run(10 * MINUTE);
    assert_eq!(world.applied[&feed(1)], 300_000);
    assert_eq!(world.pulled[&PeerId(1)], 300_000);
    let mut world = World::new(9);
    world.serve(1, Manner::Truncates, &[(feed(1), 0, 60_000)]);
    world.run(10 * MINUTE);
    assert_eq!(world.applied[&feed(1)], 60_000);
    assert_eq!(world.pulled[&PeerId(1)], 60_000);
    assert!(codes(&world, 1).contains(&"truncated"));
}

#[test]
fn a_relay_serves_while_the_publisher_is_away() {
    let mut world = World::new(10);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 500_000)]);
    world.serve(2, Manner::Honest, &[(feed(1), 0, 450_000)]);
    world.run(100);
    world.down(1);
    world.run(MINUTE);
    assert_eq!(world.applied[&feed(1)], 450_000);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 510_000)]);
    world.run(MINUTE);
    assert_eq!(world.applied[&feed(1)], 510_000);
}

#[test]
fn one_leaf_does_not_wait_for_ten_million() {
    let mut world = World::new(11);
    world.serve(
        1,
        Manner::Honest,
        &[(feed(1), 0, 10_000_000), (feed(2), 0, 10_000_000)],
    );
    world.run(500);
    world
        .servers
        .get_mut(&PeerId(1))
        .unwrap()
        .heads
        .insert(feed(3), (0, 1));
    world.announce(PeerId(1));
    world.run(400);
    assert_eq!(world.applied.get(&feed(3)), Some(&1));
    world.run(5 * MINUTE);
    assert_eq!(world.applied[&feed(1)], 10_000_000);
    let times: Vec<u64> = world.order.iter().map(|(at, _)| *at).collect();
    assert!(
        times[2] - times[1] < (times[2] - 1_000_000) / 4,
        "feeds take turns"
    );
}

#[test]
fn what_was_elided_without_reason_is_pulled_elsewhere_before_it_is_applied() {
    let mut world = World::new(12);
    world.serve(1, Manner::Elides, &[(feed(1), 0, 50_000)]);
    world.serve(2, Manner::Honest, &[(feed(1), 0, 50_000)]);
    world.run(MINUTE);
    assert_eq!(world.applied[&feed(1)], 50_000);
    assert!(codes(&world, 1).contains(&"elided_without_reason"));
    assert!(world.puller.progress().all(|feed| feed.missing.is_empty()));
    assert_eq!(world.order.len(), 1);
}

#[test]
fn a_head_is_applied_without_leaves_that_nobody_has() {
    let mut world = World::new(13);
    world.serve(1, Manner::Elides, &[(feed(1), 0, 5_000)]);
    world.run(MINUTE);
    assert_eq!(world.applied[&feed(1)], 5_000);
    assert!(world.puller.progress().any(|feed| !feed.missing.is_empty()));
    world.serve(2, Manner::Honest, &[(feed(1), 0, 5_000)]);
    world.run(MINUTE);
    assert!(world.puller.progress().all(|feed| feed.missing.is_empty()));
}

#[test]
fn access_that_ends_cancels_pulls_at_once() {
    let mut world = World::new(14);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 5_000_000)]);
    world.run(300);
    let denied = Denied {
        feeds: BTreeSet::from([feed(1)]),
        ..Denied::default()
    };
    world.tell(Event::AccessChanged(denied));
    let before = world.pulled[&PeerId(1)];
    world.run(MINUTE);
    assert_eq!(world.pulled[&PeerId(1)], before);
}

#[test]
fn growth_beyond_the_limit_is_named_and_beyond_the_cap_it_rests() {
    let mut world = World::new(15);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 1_000)]);
    world.run(MINUTE);
    world
        .servers
        .get_mut(&PeerId(1))
        .unwrap()
        .heads
        .insert(feed(1), (0, 12_000_000));
    world.announce(PeerId(1));
    world.run(10 * MINUTE);
    let said = |what: &str| world.trace.iter().any(|line| line.contains(what));
    assert!(said("Throttled"));
    assert!(said("over_growth: 2000,"));
    assert!(!world.applied.values().any(|size| *size > 1_000));
    world.run(180 * MINUTE);
    assert_eq!(world.applied[&feed(1)], 12_000_000);
}

#[test]
fn the_lower_of_the_settings_and_the_rosters_growth_limit_counts() {
    for (roster, over) in [(Some(1_000), 1_500), (Some(3_000_000), 0), (None, 0)] {
        let mut world = World::new(16);
        world.serve(1, Manner::Honest, &[(feed(1), 0, 1_000)]);
        world.run(MINUTE);
        world.tell(Event::GrowthLimit { per_hour: roster });
        let heads = &mut world.servers.get_mut(&PeerId(1)).unwrap().heads;
        heads.insert(feed(1), (0, 3_500));
        world.announce(PeerId(1));
        world.run(MINUTE);
        assert_eq!(world.applied[&feed(1)], 3_500);
        let said: u64 = world.over_growth.iter().sum();
        assert_eq!(said, over);
    }
}

#[test]
fn growth_goes_on_from_what_the_store_held() {
    let mut world = World::new(17);
    let growth = Growth {
        level: 1_999_900,
        at: UnixMillis(world.now),
        from: 1_000,
    };
    world.tell(Event::FeedHeld {
        feed: feed(1),
        publisher: member(99),
        cursor: 1_000,
        root: root(feed(1), 0, 1_000),
        applied: Some(head(feed(1), 0, 1_000)),
        frozen: false,
        growth,
        elided: false,
        missing: Vec::new(),
    });
    world
        .named
        .insert(feed(1), (1_000, root(feed(1), 0, 1_000)));
    world.serve(1, Manner::Honest, &[(feed(1), 0, 3_500)]);
    world.run(100);
    world.run(MINUTE);
    let said: u64 = world.over_growth.iter().sum();
    assert!(said > 1_000, "{said}");
}

#[test]
fn a_silent_watch_is_polled() {
    let mut world = World::new(16);
    world.serve(1, Manner::Honest, &[]);
    world.run(2 * MINUTE);
    assert!(world.trace.iter().any(|line| line.contains("Ask")));
}

#[test]
fn more_feeds_than_the_bound_are_refused() {
    let settings = Settings {
        feeds_max: 2,
        ..Settings::default()
    };
    let mut puller = Puller::new(settings, 1);
    let peer = PeerId(1);
    puller.handle(
        UnixMillis(1),
        Event::PeerUp {
            peer,
            member: member(1),
        },
    );
    let mut last = Vec::new();
    for n in 1..=3 {
        let publisher = member(u32::from(n));
        let head = head(feed(n), 0, 5);
        last = puller.handle(
            UnixMillis(1),
            Event::HeadAnnounced {
                peer,
                publisher,
                head,
            },
        );
    }
    assert!(last.iter().any(|action| matches!(
        action,
        Action::Reject {
            rejection: Rejection::RateLimited { .. },
            ..
        }
    )));
}

fn mixed(seed: u64) -> World {
    let mut world = World::new(seed);
    let manners = [
        Manner::Wrong,
        Manner::Silent,
        Manner::Truncates,
        Manner::Cuts(50),
        Manner::Elides,
    ];
    let small = [(feed(1), 0, 70_000), (feed(2), 0, 3), (feed(3), 0, 9_000)];
    for (at, manner) in manners.into_iter().enumerate() {
        let peer = u64::try_from(at).unwrap() + 2;
        world.serve(peer, manner, &small);
    }
    world.run(seed % 5_000);
    world.serve(
        1,
        Manner::Honest,
        &[(feed(1), 0, 90_000), (feed(2), 0, 4), (feed(3), 0, 9_000)],
    );
    world.run(30 * MINUTE);
    world
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    assert_eq!(mixed(77).trace, mixed(77).trace);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_feed_reaches_the_newest_honest_head(seed in any::<u64>()) {
        let world = mixed(seed);
        for (id, size) in [(feed(1), 90_000), (feed(2), 4), (feed(3), 9_000)] {
            prop_assert_eq!(world.applied.get(&id), Some(&size), "seed {}", seed);
        }
    }

    #[test]
    fn any_order_of_events_keeps_the_invariants(
        steps in proptest::collection::vec((0_u8..16, 0_u64..6, 0_u64..40, 0_u64..4_000), 1..300),
    ) {
        let mut puller = Puller::new(Settings::default(), 5);
        let mut named: BTreeMap<FeedId, u64> = BTreeMap::new();
        let mut open: BTreeSet<ChunkId> = BTreeSet::new();
        let mut now = 0;
        for (at, (what, small, job, leaf)) in steps.into_iter().enumerate() {
            now += leaf;
            let id = feed(u8::try_from(small % 3).unwrap());
            let (peer, job) = (PeerId(small), JobId(job));
            let chunk = ChunkId(u64::try_from(at).unwrap());
            let running = puller.jobs.get(&job).map(|job| (job.feed, job.rest()));
            let (of, rest) = running.unwrap_or((id, Span { from: leaf, to: leaf + 9 }));
            let history = u8::from(leaf % 17 == 0);
            let event = match what {
                0 | 1 => Event::PeerUp { peer, member: member(1) },
                2 => Event::PeerDown { peer },
                3 | 4 => Event::HeadAnnounced { peer, publisher: member(2), head: head(id, history, leaf * 9) },
                5..=9 => {
                    open.insert(chunk);
                    let to = (rest.from + 1 + leaf).min(rest.to.max(rest.from + 1));
                    Event::ChunkVerified { job, chunk, facts: facts(of, 0, rest.from, to) }
                }
                10 => Event::ChunkRejected { job, rejection: Rejection::NotFound },
                11 => Event::StreamEnded { job },
                12 => Event::StreamFailed { job, failure: Failure::Cut },
                13 => {
                    let front = puller.feeds.get(&id).and_then(|feed| feed.storing.front());
                    Event::ChunkStored { feed: id, chunk: front.map_or(chunk, |held| held.chunk) }
                }
                14 => Event::ElisionsChecked { feed: id, size: leaf * 9, unjustified: vec![Span { from: 1, to: leaf }], held: vec![Span { from: leaf, to: leaf + 9 }] },
                _ => Event::Tick,
            };
            for action in puller.handle(UnixMillis(now), event) {
                match action {
                    Action::Store { feed, chunk, span, .. } => {
                        prop_assert!(open.remove(&chunk));
                        prop_assert_eq!(named.insert(feed, span.to).unwrap_or(0), span.from);
                    }
                    Action::Drop { chunk } | Action::Refill { chunk, .. } => prop_assert!(open.remove(&chunk)),
                    Action::Fork { chunk: Some(chunk), .. } => prop_assert!(open.remove(&chunk)),
                    Action::HeadApplied { feed, head, .. } => {
                        prop_assert_eq!(named.get(&feed).copied().unwrap_or(0), head.size());
                        prop_assert_eq!(root(feed, 0, head.size()), head.root());
                    }
                    Action::StartPull { .. }
                    | Action::CancelPull { .. }
                    | Action::CheckElisions { .. }
                    | Action::CompareHead { .. }
                    | Action::Reject { .. }
                    | Action::Fork { chunk: None, .. }
                    | Action::Throttled { .. }
                    | Action::Ask { .. }
                    | Action::Wake { .. } => {}
                }
            }
            let held: usize = puller.feeds.values().map(|feed| feed.buffer.len()).sum();
            prop_assert_eq!(held, open.len(), "every chunk is named or buffered");
            prop_assert!(peers::running(&puller.jobs, |_| true) <= Settings::default().jobs_total);
        }
    }
}

#[test]
fn a_tick_that_comes_before_its_time_is_asked_for_again() {
    let wake = |actions: Vec<Action>| {
        actions.into_iter().find_map(|action| {
            let Action::Wake { at } = action else {
                return None;
            };
            Some(at)
        })
    };
    let mut puller = Puller::new(Settings::default(), 1);
    let up = Event::PeerUp {
        peer: PeerId(1),
        member: member(1),
    };
    let at = wake(puller.handle(UnixMillis(1), up)).expect("a poll is due some time");
    let early = puller.handle(UnixMillis(at.0 - 1), Event::Tick);
    assert_eq!(wake(early), Some(at));
}

#[test]
fn what_is_behind_is_known_by_heads_of_whom_leaves_may_not_be_pulled_from() {
    let mut world = World::new(11);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 1_000)]);
    world.run(MINUTE);
    let at = UnixMillis(world.now);
    let stands = |world: &World| {
        let progress = world.puller.progress().next().unwrap();
        (progress.ahead, progress.offered)
    };
    assert_eq!(stands(&world), (None, false));
    let (witness, reader) = (PeerId(8), PeerId(9));
    let announced = |peer, size| Event::HeadAnnounced {
        peer,
        publisher: member(99),
        head: head(feed(1), 0, size),
    };
    // One only dials here, the other may not relay.
    world.puller.handle(at, announced(witness, 1_001));
    assert_eq!(stands(&world), (Some(1_001), false));
    let up = Event::PeerUp {
        peer: reader,
        member: member(3),
    };
    world.puller.handle(at, up);
    let denied = Denied {
        pairs: [(reader, feed(1))].into(),
        ..Denied::default()
    };
    world.puller.handle(at, Event::AccessChanged(denied));
    world.puller.handle(at, announced(reader, 1_002));
    assert_eq!(stands(&world), (Some(1_002), false));
    let free = Event::AccessChanged(Denied::default());
    world.puller.handle(at, free);
    world.puller.handle(at, announced(reader, 1_002));
    assert_eq!(stands(&world), (Some(1_002), true));
    // Who is gone serves nothing.
    let down = Event::PeerDown { peer: reader };
    world.puller.handle(at, down);
    assert_eq!(stands(&world), (Some(1_002), false));
}
