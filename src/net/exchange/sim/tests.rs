//! A coalition of a hundred, and what makes its simulation worth something.
//!
//! `HASHPACT_SIM_SEED` plays one seed, `HASHPACT_SIM_SEEDS` so many; with
//! `HASHPACT_SIM_TRACE` the trace is written into that file.

use super::*;

/// What the stores of a member take at most, measured: RocksDB makes room for its log
/// before it writes.
const MEMBER_BYTES: u64 = 16 << 20;
/// How the folders of plays begin that lie in memory, with the process behind it.
const FOLDER: &str = "hashpact-sim-";

/// Where members play: in memory, where there is room for all of them, since what a
/// crash loses is what was in the process.
pub(super) fn folder(members: u32) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let needed = u64::from(members) * MEMBER_BYTES;
    let free = |stat: rustix::fs::StatVfs| stat.f_bavail.saturating_mul(stat.f_frsize);
    let has_room = rustix::fs::statvfs(memory).is_ok_and(|stat| free(stat) >= 2 * needed);
    if !has_room {
        return tempfile::tempdir().unwrap();
    }
    sweep(memory);
    let prefix = format!("{FOLDER}{}-", std::process::id());
    let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(memory);
    made.unwrap()
}

/// Removes what plays left in memory that were killed.
fn sweep(memory: &Path) {
    for entry in std::fs::read_dir(memory).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let process = name
            .strip_prefix(FOLDER)
            .and_then(|rest| rest.split('-').next());
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            // Another process may sweep as well.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds to play: one that is named, or so many from the first.
pub(super) fn seeds(first: u64, default: u64) -> std::ops::Range<u64> {
    match number("HASHPACT_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + number("HASHPACT_SIM_SEEDS").unwrap_or(default),
    }
}

fn simulated(plan: &Plan) -> Outcome {
    let dir = folder(plan.members + plan.joiners);
    let plan = &Plan {
        keep_trace: std::env::var("HASHPACT_SIM_TRACE").is_ok(),
        ..plan.clone()
    };
    let outcome = run(plan, dir.path());
    if let Ok(path) = std::env::var("HASHPACT_SIM_TRACE") {
        let lines = match &outcome {
            Ok(outcome) => &outcome.lines,
            Err(error) => error.lines(),
        };
        std::fs::write(path, lines.concat()).unwrap();
    }
    match outcome {
        Ok(outcome) => outcome,
        Err(error) => panic!("{error}; HASHPACT_SIM_SEED={} plays it again", plan.seed),
    }
}

fn few(seed: u64) -> Plan {
    Plan {
        seed,
        members: 10,
        listening: 3,
        publishers: 3,
        joiners: 2,
        rounds: 1,
        ..Plan::default()
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let (one, same, other) = (simulated(&few(7)), simulated(&few(7)), simulated(&few(8)));
    assert_eq!(one.trace, same.trace);
    assert_eq!((one.events, one.state), (same.events, same.state));
    assert_ne!(one.trace, other.trace);
}

#[test]
fn members_end_in_the_same_place_whatever_happens_between() {
    // At 130 a member rotates its keys in the first moments of a partition.
    let named = number("HASHPACT_SIM_SEED").is_none().then_some(130);
    for seed in seeds(100, 4).chain(named) {
        simulated(&few(seed));
    }
}

#[test]
fn witnesses_cosign_everything_whatever_happens_between_and_by_the_seed() {
    let plan = Plan {
        witnesses: 4,
        ..few(21)
    };
    let (one, same) = (simulated(&plan), simulated(&plan));
    assert_eq!((one.trace, one.state), (same.trace, same.state));
}

#[test]
fn where_everybody_listens_everybody_ends_in_the_same_place() {
    simulated(&Plan {
        listening: 9,
        members: 9,
        ..few(11)
    });
}

#[test]
fn a_hundred_members_end_with_the_same_roster_cards_and_heads() {
    for seed in seeds(1, 1) {
        let outcome = simulated(&Plan {
            seed,
            listening: 4,
            publishers: 4,
            rounds: 1,
            ..Plan::default()
        });
        assert!(outcome.connections > 750);
    }
}
