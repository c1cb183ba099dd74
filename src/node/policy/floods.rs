//! Floods: a signal that suddenly matches much of what is asked.
//!
//! Counted are distinct values that were asked for within a minute, not questions: one
//! value that is asked ten thousand times counts once, so an exact signal can never be a
//! flood, and only near ones are counted (PDQ, vPDQ). What a minute matched is judged
//! when it is over, against all that was asked in it. A flood caps a verdict at review:
//! it still matches and is told, and people look.
//!
//! In memory: a start forgets floods and finds them again within a minute. Bounded: so
//! many values a minute, and the signals by the rule of Misra and Gries, whose counts are
//! never too high.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use hashpact_core::id::UnixMillis;
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_store::IndexKey;

use crate::hygiene::HygieneOptions;
use crate::model::Matched;

/// What is counted together.
const WINDOW_MS: u64 = 60_000;
/// Distinct values counted in one window, which then ends: 0.6 MB.
const VALUES_MAX: usize = 65_536;
/// Signals counted at one time: what every hundredth value matches is among them.
const COUNTED_MAX: usize = 1_024;
/// Signals held, and those let alone, at one time.
const HELD_MAX: usize = 1_024;

/// A signal that is held at review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// Since when.
    pub since: UnixMillis,
    /// Until when, unless it floods again.
    pub until: UnixMillis,
    /// Distinct values that matched it, at least.
    pub values: u64,
    /// Of so many.
    pub of_values: u64,
}

/// Signals that are held.
pub(crate) type Held = HashMap<IndexKey, Flood>;

/// What floods, and what was asked within the minute.
#[derive(Default)]
pub(crate) struct Floods {
    options: HygieneOptions,
    hasher: RandomState,
    window: Mutex<Window>,
    held: ArcSwap<Held>,
}

#[derive(Default)]
struct Window {
    began: UnixMillis,
    asked: HashSet<u64>,
    matched: HashMap<IndexKey, u64>,
    /// Signals that the operator released, until when.
    let_alone: HashMap<IndexKey, UnixMillis>,
}

impl Floods {
    pub(crate) fn new(options: HygieneOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    pub(crate) const fn options(&self) -> &HygieneOptions {
        &self.options
    }

    /// What is held, also what has run out since.
    pub(crate) fn held(&self) -> Arc<Held> {
        self.held.load_full()
    }

    /// Counts what was asked and found; answers the signals that are held from here on.
    pub(crate) fn note<'m>(
        &self,
        now: UnixMillis,
        asked: impl Iterator<Item = (&'m Signal, &'m Matched)>,
    ) -> Vec<(IndexKey, Flood)> {
        if self.options.flood_share_percent == 0 {
            return Vec::new();
        }
        let mut asked = asked
            .filter(|(signal, _)| matches!(signal.kind(), SignalKind::Pdq | SignalKind::Vpdq))
            .peekable();
        if asked.peek().is_none() {
            return Vec::new();
        }
        let mut window = self.window();
        let mut new = self.end_of_window(&mut window, now);
        for (signal, matched) in asked {
            let value = self.hasher.hash_one(signal.value());
            if !window.asked.insert(value) {
                continue;
            }
            let keys: BTreeSet<&IndexKey> = matched.found.iter().map(|found| &found.key).collect();
            for key in keys {
                window.count(key);
            }
            if window.asked.len() >= VALUES_MAX {
                new.extend(self.judge(&mut window, now));
            }
        }
        new
    }

    /// Judges a window that is over, and forgets what has run out.
    pub(crate) fn look(&self, now: UnixMillis) -> Vec<(IndexKey, Flood)> {
        let mut window = self.window();
        let new = self.end_of_window(&mut window, now);
        if self.held.load().values().any(|flood| flood.until <= now) {
            let mut held = Held::clone(&self.held.load());
            held.retain(|_, flood| now < flood.until);
            self.held.store(Arc::new(held));
        }
        new
    }

    /// Lets a signal count, and alone for as long as it would have been held.
    pub(crate) fn release(&self, key: &IndexKey, now: UnixMillis) -> bool {
        let mut window = self.window();
        let mut held = Held::clone(&self.held.load());
        if held.remove(key).is_none() {
            return false;
        }
        window.let_alone.retain(|_, until| now < *until);
        if window.let_alone.len() < HELD_MAX {
            let until = now.plus(self.options.flood_hold_ms);
            window.let_alone.insert(*key, until);
        }
        self.held.store(Arc::new(held));
        true
    }

    fn end_of_window(&self, window: &mut Window, now: UnixMillis) -> Vec<(IndexKey, Flood)> {
        // A clock that was set back ends it as well.
        if now.0.abs_diff(window.began.0) >= WINDOW_MS {
            self.judge(window, now)
        } else {
            Vec::new()
        }
    }

    fn judge(&self, window: &mut Window, now: UnixMillis) -> Vec<(IndexKey, Flood)> {
        let asked = std::mem::take(&mut window.asked);
        let matched = std::mem::take(&mut window.matched);
        window.began = now;
        let of_values = u64::try_from(asked.len()).unwrap_or(u64::MAX);
        let share = u64::from(self.options.flood_share_percent);
        let flooding = matched.into_iter().filter(|(key, values)| {
            let much = values.saturating_mul(100) >= share.saturating_mul(of_values);
            let alone = window.let_alone.get(key);
            *values >= self.options.flood_min_values.max(1)
                && much
                && alone.is_none_or(|until| *until <= now)
        });
        let mut flooding = flooding.peekable();
        if flooding.peek().is_none() {
            return Vec::new();
        }
        let mut held = Held::clone(&self.held.load());
        held.retain(|_, flood| now < flood.until);
        let mut new = Vec::new();
        for (key, values) in flooding {
            let known = held.get(&key).copied();
            if known.is_none() && held.len() >= HELD_MAX {
                continue;
            }
            let flood = Flood {
                since: known.map_or(now, |known| known.since),
                until: now.plus(self.options.flood_hold_ms),
                values,
                of_values,
            };
            held.insert(key, flood);
            if known.is_none() {
                new.push((key, flood));
            }
        }
        self.held.store(Arc::new(held));
        new
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// Misra and Gries: a signal without a place takes one from all. Each such step was
    /// paid for by as many counts.
    fn count(&mut self, key: &IndexKey) {
        let full = self.matched.len() >= COUNTED_MAX;
        match self.matched.entry(*key) {
            Entry::Occupied(mut known) => {
                let count = known.get_mut();
                *count = count.saturating_add(1);
            }
            Entry::Vacant(new) if !full => {
                new.insert(1);
            }
            Entry::Vacant(_) => self.matched.retain(|_, count| {
                *count = count.saturating_sub(1);
                *count > 0
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> IndexKey {
        let mut key = [5; 33];
        key[1..9].copy_from_slice(&n.to_be_bytes());
        key
    }

    #[test]
    fn counts_of_signals_are_never_too_high_and_frequent_ones_are_kept() {
        let mut window = Window::default();
        for n in 0..20_000 {
            window.count(&key(n));
            if n % 10 == 0 {
                window.count(&key(u64::MAX));
            }
        }
        assert!(window.matched.len() <= COUNTED_MAX);
        let counted = window.matched[&key(u64::MAX)];
        assert!((1_900..=2_000).contains(&counted), "{counted}");
        let others = window.matched.iter().filter(|(k, _)| **k != key(u64::MAX));
        assert!(others.clone().all(|(_, count)| *count == 1));
    }
}
