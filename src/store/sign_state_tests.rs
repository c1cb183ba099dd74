//! The sign-state file: what it refuses, and what a crash leaves of it.

use super::*;
use crate::durable::Step;

fn feed() -> FeedId {
    FeedId(Digest::of(b"feed"))
}

/// The tree over `size` leaves of one history.
fn tree(history: &str, size: u64) -> CompactRange {
    let mut range = CompactRange::empty(0);
    for n in 0..size {
        range.push(Digest::of(format!("{history} {n}").as_bytes()));
    }
    range
}

fn state(history: &str, epoch: u32, size: u64) -> SignedState {
    SignedState {
        epoch,
        size,
        root: tree(history, size).root().unwrap(),
    }
}

fn advance(
    file: &mut SignState,
    from: Option<SignedState>,
    to: SignedState,
    history: &str,
) -> Result<(), SignStateError> {
    let recorded = file.state(&feed()).map_or(0, |state| state.size);
    file.advance(&feed(), from, to, &tree(history, recorded))
}

#[test]
fn a_later_epoch_begins_where_the_roster_says_and_an_earlier_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = SignState::create(&dir.path().join("sign-state.json")).unwrap();
    advance(&mut file, None, state("a", 0, 9), "a").unwrap();
    let other = file.open_epoch(&feed(), state("a", 1, 5), &tree("b", 5));
    assert_eq!(other.unwrap_err().code(), "sign_state_not_an_extension");
    let first = state("a", 1, 5);
    file.open_epoch(&feed(), first, &tree("a", 5)).unwrap();
    assert_eq!(file.state(&feed()), Some(first));
    for epoch in [0, 1] {
        let again = file.open_epoch(&feed(), state("a", epoch, 4), &tree("a", 4));
        assert_eq!(again.unwrap_err().code(), "sign_state_went_back");
    }
}

#[test]
fn a_signed_state_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sign-state.json");
    let mut file = SignState::create(&path).unwrap();
    advance(&mut file, None, state("a", 0, 5), "a").unwrap();
    advance(&mut file, Some(state("a", 0, 5)), state("a", 0, 9), "a").unwrap();
    drop(file);
    let file = SignState::open(&path).unwrap();
    assert_eq!(file.state(&feed()), Some(state("a", 0, 9)));
}

#[test]
fn two_states_of_one_size_are_never_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = SignState::create(&dir.path().join("s.json")).unwrap();
    let held = Some(state("a", 0, 5));
    advance(&mut file, None, state("a", 0, 5), "a").unwrap();
    let error = advance(&mut file, held, state("b", 0, 5), "a").unwrap_err();
    assert_eq!(error.code(), "sign_state_not_an_extension");
    // Leaves that do not lead to what was signed: a restored store.
    let error = advance(&mut file, held, state("b", 0, 8), "b").unwrap_err();
    assert_eq!(error.code(), "sign_state_not_an_extension");
    // The range of another size proves nothing.
    let short = tree("a", 4);
    let error = file.advance(&feed(), held, state("a", 0, 8), &short);
    assert_eq!(error.unwrap_err().code(), "sign_state_not_an_extension");
    let error = advance(&mut file, held, state("a", 0, 4), "a").unwrap_err();
    assert_eq!(error.code(), "sign_state_went_back");
    let error = advance(&mut file, None, state("a", 0, 8), "a").unwrap_err();
    assert_eq!(error.code(), "sign_state_conflict");
    // The identical head again, and the same tree in a new epoch.
    advance(&mut file, held, state("a", 0, 5), "a").unwrap();
    advance(&mut file, held, state("a", 1, 5), "a").unwrap();
    let held = Some(state("a", 1, 5));
    let error = advance(&mut file, held, state("a", 0, 6), "a").unwrap_err();
    assert_eq!(error.code(), "sign_state_went_back");
}

#[test]
fn a_crash_at_any_step_leaves_the_old_state_or_the_new_one() {
    let faults: [(Fault, bool); 4] = [
        (|step| fail(step, Step::Write), false),
        (|step| fail(step, Step::SyncFile), false),
        (|step| fail(step, Step::Rename), false),
        (|step| fail(step, Step::SyncFolder), true),
    ];
    for (fault, persisted) in faults {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        let mut file = SignState::create(&path).unwrap();
        let old = state("a", 0, 5);
        advance(&mut file, None, old, "a").unwrap();
        file.fault = fault;
        let new = state("a", 0, 9);
        let error = advance(&mut file, Some(old), new, "a").unwrap_err();
        assert_eq!(error.code(), "sign_state_io");
        assert_eq!(file.state(&feed()), Some(old), "nothing to sign");
        drop(file);
        let mut file = SignState::open(&path).unwrap();
        let held = if persisted { new } else { old };
        assert_eq!(file.state(&feed()), Some(held));
        let forked = state("b", 0, 9);
        if persisted {
            assert!(advance(&mut file, Some(held), forked, "a").is_err());
        }
        advance(&mut file, Some(held), state("a", 0, 10), "a").unwrap();
    }
}

fn fail(step: Step, at: Step) -> std::io::Result<()> {
    if step == at {
        Err(std::io::Error::other("injected"))
    } else {
        Ok(())
    }
}

#[test]
fn a_missing_a_newer_and_a_held_file_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.json");
    let missing = SignState::open(&path).unwrap_err();
    assert_eq!(missing.code(), "sign_state_missing");
    let file = SignState::create(&path).unwrap();
    let held = SignState::open(&path).unwrap_err();
    assert_eq!(held.code(), "sign_state_locked");
    drop(file);
    std::fs::write(&path, r#"{"version": 2, "feeds": {}}"#).unwrap();
    let newer = SignState::open(&path).unwrap_err();
    assert_eq!(newer.code(), "sign_state_version");
    std::fs::write(&path, r#"{"version": 1, "feeds": {"xyz": {}}}"#).unwrap();
    let broken = SignState::open(&path).unwrap_err();
    assert_eq!(broken.code(), "sign_state_unreadable");
}
