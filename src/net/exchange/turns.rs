//! Whose desks are at work. ⚠ How much work a feed is, its publisher decides: retractions
//! and erasures by the thousand hold the thread that stores them. So only so many feeds of
//! one publisher are at work at once, and who else waits has the next turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashpact_core::id::MemberNumber;

/// Feeds of one publisher at work: more than the cores of most machines.
pub(crate) const PER_PUBLISHER: usize = 8;
/// Feeds at work in all: the rest of the threads for what is small verify and read.
pub(crate) const AT_ONCE: usize = 48;

/// Turns of whatever is done for publishers.
pub(crate) struct Turns<T>(Mutex<State<T>>);

struct State<T> {
    /// Who has how many turns.
    working: BTreeMap<MemberNumber, usize>,
    /// Who waits for a turn, each in order.
    waiting: BTreeMap<MemberNumber, VecDeque<T>>,
    /// Who was let begin last.
    last: Option<MemberNumber>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            working: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last: None,
        }))
    }
}

impl<T> Turns<T> {
    /// Waits for a turn of a publisher; answers what is to begin at once, if there is
    /// room.
    pub(crate) fn begin(&self, of: MemberNumber, what: T) -> Option<(MemberNumber, T)> {
        let mut state = self.state();
        state.waiting.entry(of).or_default().push_back(what);
        state.next()
    }

    /// Gives a turn back, with what is to go on later; answers what begins now.
    pub(crate) fn end(&self, of: MemberNumber, more: Option<T>) -> Option<(MemberNumber, T)> {
        let mut state = self.state();
        if let Some(turns) = state.working.get_mut(&of) {
            *turns = turns.saturating_sub(1);
            if *turns == 0 {
                state.working.remove(&of);
            }
        }
        if let Some(more) = more {
            state.waiting.entry(of).or_default().push_back(more);
        }
        state.next()
    }

    /// Whether something waits that could begin if a turn of this publisher ended.
    pub(crate) fn is_wanted(&self, of: MemberNumber) -> bool {
        let state = self.state();
        let full = state.working.values().sum::<usize>() >= AT_ONCE;
        state.waiting.contains_key(&of) || (full && !state.waiting.is_empty())
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Publishers have turns one after the other.
    fn next(&mut self) -> Option<(MemberNumber, T)> {
        if self.working.values().sum::<usize>() >= AT_ONCE {
            return None;
        }
        let turns = |of: &MemberNumber| self.working.get(of).copied().unwrap_or(0);
        let after = |of: &&MemberNumber| self.last.is_none_or(|last| **of > last);
        let mut able = self.waiting.keys().filter(|of| turns(of) < PER_PUBLISHER);
        let first = able.clone().next().copied();
        let of = able.find(after).copied().or(first)?;
        let queue = self.waiting.get_mut(&of)?;
        let what = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&of);
        }
        let what = what?;
        let turns = self.working.entry(of).or_default();
        *turns = turns.saturating_add(1);
        self.last = Some(of);
        Some((of, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u32) -> MemberNumber {
        MemberNumber::new(number).unwrap()
    }

    #[test]
    fn one_publisher_never_has_all_turns() {
        let turns = Turns::default();
        let begun: Vec<_> = (0..100).filter_map(|n| turns.begin(member(1), n)).collect();
        let own: Vec<_> = (0..PER_PUBLISHER).map(|n| (member(1), n)).collect();
        assert_eq!(begun, own);
        assert_eq!(turns.begin(member(2), 7), Some((member(2), 7)));
        assert!(turns.is_wanted(member(1)) && !turns.is_wanted(member(2)));
        // What gives way goes on behind the others.
        let next = Some((member(1), PER_PUBLISHER));
        assert_eq!(turns.end(member(1), Some(0)), next);
        assert_eq!(turns.end(member(2), None), None);
        let rest = std::iter::from_fn(|| turns.end(member(1), None));
        assert_eq!(rest.last(), Some((member(1), 0)));
    }

    #[test]
    fn many_publishers_have_turns_one_after_the_other() {
        let turns = Turns::default();
        let begun = (1..=20).flat_map(|m| (0..PER_PUBLISHER).map(move |n| (m, n)));
        let begun = begun.filter_map(|(m, n)| turns.begin(member(m), n));
        assert_eq!(begun.count(), AT_ONCE);
        assert_eq!(turns.begin(member(30), 0), None);
        assert!(turns.is_wanted(member(1)));
        // The last that began was of member 6.
        let next = (0..15).filter_map(|n| turns.end(member(1 + n % 6), None));
        let next: Vec<_> = next.map(|(of, _)| of.value()).collect();
        let all: Vec<u32> = (7..=20).chain([30]).collect();
        assert_eq!(next, all);
    }
}
