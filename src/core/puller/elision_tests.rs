//! Scenarios of elided leaves.

use super::sim::{Manner, World, feed, head, member};
use super::*;

const MINUTE: u64 = 60_000;

#[test]
fn who_sent_a_leaf_elided_for_an_earlier_head_is_not_blamed_when_it_lives_again() {
    let mut world = World::new(31);
    world.elide(feed(1), 1_000);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 5_000)]);
    world.run(MINUTE);
    assert_eq!(world.applied[&feed(1)], 5_000);
    // It was dead at 5,000, and lives again at 6,000.
    world.revive(feed(1), 1_000);
    world
        .servers
        .get_mut(&PeerId(1))
        .unwrap()
        .heads
        .insert(feed(1), (0, 6_000));
    world.announce(PeerId(1));
    world.run(MINUTE);
    assert_eq!(world.applied[&feed(1)], 6_000);
    assert!(world.rejections.is_empty(), "{:?}", world.rejections);
    assert!(world.puller.progress().all(|feed| feed.missing.is_empty()));
    assert!(world.trace.iter().any(|line| line.contains("Refill")));
}

#[test]
fn what_only_held_retractions_make_dead_is_asked_for_once_and_nobody_is_blamed() {
    let mut world = World::new(32);
    world.hold(feed(1), 1_000);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 5_000)]);
    world.run(10 * MINUTE);
    assert_eq!(world.applied[&feed(1)], 5_000);
    assert!(world.rejections.is_empty(), "{:?}", world.rejections);
    let refills = world.trace.iter().filter(|line| line.contains("Refill"));
    assert_eq!(refills.count(), 1);
}

#[test]
fn what_the_store_says_is_missing_is_pulled_again_and_whole() {
    let mut puller = Puller::new(Settings::default(), 1);
    let (now, peer) = (UnixMillis(1), PeerId(1));
    let held = head(feed(1), 0, 5_000);
    let event = Event::FeedHeld {
        feed: feed(1),
        publisher: member(9),
        cursor: 5_000,
        root: held.root(),
        applied: Some(held.clone()),
        frozen: false,
        growth: Growth::default(),
        elided: true,
        missing: vec![Span { from: 700, to: 705 }],
    };
    puller.handle(now, event);
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
        head: held,
    };
    let asked = puller.handle(now, announced);
    let asked = asked.iter().find_map(|action| {
        let Action::StartPull { span, elide, .. } = action else {
            return None;
        };
        Some((*span, *elide))
    });
    assert_eq!(asked, Some((Span { from: 512, to: 768 }, false)));
}

#[test]
fn only_a_first_pull_leaves_out_what_is_dead() {
    let mut world = World::new(33);
    world.serve(1, Manner::Honest, &[(feed(1), 0, 5_000)]);
    world.run(MINUTE);
    let elided = |world: &World| {
        let pulls = world.trace.iter().filter(|line| line.contains("StartPull"));
        pulls
            .map(|line| line.contains("elide: true"))
            .collect::<Vec<_>>()
    };
    assert_eq!(elided(&world), [true]);
    world
        .servers
        .get_mut(&PeerId(1))
        .unwrap()
        .heads
        .insert(feed(1), (0, 6_000));
    world.announce(PeerId(1));
    world.run(MINUTE);
    assert_eq!(elided(&world), [true, false]);
}
