//! Hostile members, seed after seed. `HASHPACT_SIM_SEED` plays one of them again.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread::{self, available_parallelism};

use super::super::tests::{folder, number, seeds};
use super::broken::Broken;
use super::cast::Habit;
use super::play::{Play, Played, play};

/// Seeds that every run of the tests plays.
const SEEDS: u64 = 50;

fn played(of: &Play) -> Played {
    let dir = folder(11);
    let keep_trace = std::env::var("HASHPACT_SIM_TRACE").is_ok();
    let of = &Play { keep_trace, ..*of };
    match play(of, dir.path()) {
        Ok(played) => {
            if let Ok(path) = std::env::var("HASHPACT_SIM_TRACE") {
                std::fs::write(path, played.lines.concat()).unwrap();
            }
            played
        }
        Err(error) => panic!("{error}; HASHPACT_SIM_SEED={} plays it again", of.seed),
    }
}

/// Plays seeds, as many at one time as there are processors.
fn all_played(seeds: std::ops::Range<u64>) -> Vec<Played> {
    let threads = available_parallelism().map_or(2, NonZero::get);
    let next = Mutex::new(seeds);
    let one = || next.lock().unwrap().next();
    let work = || std::iter::from_fn(|| Some(played(&Play::of(one()?)))).collect::<Vec<_>>();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let all = threads.into_iter().map(thread::ScopedJoinHandle::join);
        let all = all.map(|done| done.unwrap_or_else(|failed| resume_unwind(failed)));
        all.flatten().collect()
    })
}

/// Sees that a broken world is found to be, by one of its invariants.
fn fails_by(broken: Broken, invariant: u8) {
    let error = fails(broken);
    assert!(error.contains(&format!(" {invariant}: ")), "{error}");
}

/// The first failure that a broken world shows among some seeds.
fn fails(broken: Broken) -> String {
    for seed in 1..=12 {
        let dir = folder(11);
        let of = Play {
            broken: Some(broken),
            patience_ms: 20_000,
            ..Play::of(seed)
        };
        if let Err(error) = play(&of, dir.path()) {
            return error.to_string();
        }
    }
    panic!("nothing is found to be wrong where {broken:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace_with_hostile_members_as_well() {
    let (one, same, other) = (
        played(&Play::of(3)),
        played(&Play::of(3)),
        played(&Play::of(4)),
    );
    assert_eq!((one.trace, &one.did), (same.trace, &same.did));
    assert_ne!(one.trace, other.trace);
}

#[test]
fn no_hostile_member_gets_anything_forged_enforced_or_anybody_framed() {
    let (mut did, mut proven) = (BTreeMap::new(), 0);
    for played in all_played(seeds(1_000, SEEDS)) {
        proven += played.proven;
        for (habit, count) in played.did {
            *did.entry(habit).or_insert(0) += count;
        }
    }
    // So that it is known that all of it was played.
    let many = number("HASHPACT_SIM_SEEDS").is_none_or(|seeds| seeds >= SEEDS);
    if many && number("HASHPACT_SIM_SEED").is_none() {
        for habit in Habit::OF_NODES.into_iter().chain(Habit::OF_WITNESSES) {
            assert!(did.contains_key(&habit), "no seed played {habit:?}");
        }
        assert!(proven > 0, "no fork was proved");
    }
}

/// Two sides of a fork have one size, and a reader of one hears of the other what witnesses
/// said of it.
#[test]
fn what_witnesses_said_of_one_side_of_a_fork_stands_beside_no_other() {
    played(&Play::of(1_069));
}

/// Two readers show a witness their heads when it has the evidence already.
#[test]
fn evidence_reaches_who_shows_a_head_to_a_witness_that_has_it() {
    played(&Play::of(1_168));
}

#[test]
fn a_forked_feed_that_is_taken_up_again_is_found() {
    fails_by(Broken::Thawed, 1);
}

#[test]
fn a_threshold_of_lying_witnesses_is_found() {
    fails_by(Broken::Bench, 2);
}

#[test]
fn a_fork_that_is_kept_silent_is_found() {
    fails_by(Broken::Silence, 3);
}

#[test]
fn an_honest_feed_that_is_frozen_is_found() {
    fails_by(Broken::Framed, 4);
}

#[test]
fn a_node_that_takes_in_all_that_is_said_is_found() {
    fails_by(Broken::Unpaced, 5);
}

#[test]
fn a_member_that_hears_nothing_is_found() {
    fails_by(Broken::Deaf, 6);
}

#[test]
fn a_node_that_enforces_beyond_a_fork_without_the_threshold_is_found() {
    fails_by(Broken::Careless, 2);
}

#[test]
fn a_receipt_that_is_believed_unseen_is_found() {
    fails_by(Broken::Believed, 7);
}
