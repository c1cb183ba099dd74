//! The index of near PDQ values, of pictures or of frames of videos, kept as the store
//! changes.
//!
//! It holds every value that has a posting, live or dead; what is said of a value
//! found near is read from the store at once afterwards. So retractions, held ones,
//! frozen feeds and lost grants count from the moment they are known, and the index
//! is only ever told of new values. What a dropped feed left goes with the next sweep.
//!
//! Few new values go in before look-ups see their leaves. Many (a bulk load) are put in by
//! the keeper's thread while queries go on; [`NearStatus::pending`] says how
//! many wait, and answers carry it, so that nobody takes "not known" for more than it
//! is.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hashpact_matching::pdq::index::{DistanceTooLarge, PdqIndex, Stats};
use hashpact_store::{FeedNo, SignalWatch, Store, ToldOf};

use crate::error::NodeError;
use crate::matching::{NearValues, Nearest};
use hashpact_priority::give_way_wholly;

/// Values of one commit that go in before look-ups see them: some 10 ms of work.
const AT_ONCE: usize = 8_192;
/// Values that a sweep puts in at one time, and that wait in one lot: some 300 ms.
const SLICE: usize = 1 << 18;
/// Values of a load that is under way and that wait for its end while queries come: 64 MB
/// of them. Nothing would be found by them before, and each part that goes in makes those
/// that are there anew. So many go in at one time at most.
const LOAD_MAX: usize = 1 << 21;
/// How long they wait at most: a peer can make a load last for days.
const LOAD_WAIT: Duration = Duration::from_secs(20);
/// How long the keeper waits before it looks whether such a load is over.
const LOAD_LOOK: Duration = Duration::from_millis(50);
/// How long the keeper waits before it looks for something to tidy.
const TIDY: Duration = Duration::from_secs(10);

/// The index, and what waits to go into it.
pub struct Near {
    /// The kind byte of what it holds, in the store's keys.
    kind: u8,
    index: ArcSwap<PdqIndex>,
    waiting: Mutex<Waiting>,
    told: Condvar,
    pending: AtomicUsize,
    /// Queries so far.
    asked: AtomicUsize,
    ready: AtomicBool,
    stopping: AtomicBool,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Waiting {
    /// Values of bulk loads.
    told: Lots,
    /// What the keeper is putting in, without the values.
    going_in: Vec<(ToldOf, usize)>,
    /// While a sweep runs: everything told meanwhile, for the index that it makes.
    beside_sweep: Option<Lots>,
    /// Whether a feed was dropped since the last sweep.
    dropped: bool,
    /// When the last sweep ended.
    made: Option<Instant>,
}

/// Values that wait, in the order in which they were told, by feed.
#[derive(Default)]
struct Lots {
    lots: Vec<(ToldOf, Vec<[u8; 32]>)>,
    values: usize,
}

impl Lots {
    fn add(&mut self, of: ToldOf, values: Vec<[u8; 32]>) {
        self.values += values.len();
        // Few enough in each that what a lot took is given back when it is taken.
        if let Some((last, held)) = self.lots.last_mut()
            && (last.feed, last.loading) == (of.feed, of.loading)
            && held.len() + values.len() <= SLICE
        {
            last.from = last.from.min(of.from);
            held.extend(values);
        } else {
            self.lots.push((of, values));
        }
    }

    fn append(&mut self, other: Self) {
        self.values += other.values;
        self.lots.extend(other.lots);
    }

    /// Takes up to `limit` values out, the newest first; of loads that are under way only
    /// where `loads` says so.
    fn take(&mut self, limit: usize, loads: bool) -> Self {
        let mut taken = Self::default();
        let mut at = self.lots.len();
        while at > 0 && taken.values < limit {
            at -= 1;
            let Some((of, held)) = self.lots.get_mut(at) else {
                break;
            };
            if of.loading && !loads {
                continue;
            }
            let from = held.len().saturating_sub(limit - taken.values);
            let (of, part) = (*of, held.split_off(from));
            taken.values += part.len();
            taken.lots.push((of, part));
            if from == 0 {
                self.lots.remove(at);
            }
        }
        self.values -= taken.values;
        taken
    }

    fn landing(&mut self, feed: FeedNo) {
        for (of, _) in &mut self.lots {
            of.loading &= of.feed != feed;
        }
    }

    fn sizes(&self) -> Vec<(ToldOf, usize)> {
        let lots = self.lots.iter();
        lots.map(|(of, values)| (*of, values.len())).collect()
    }

    fn has(&self, feed: FeedNo, below: u64) -> bool {
        self.lots.iter().any(|(of, _)| is_of(of, feed, below))
    }
}

/// Whether values may be of a leaf of the feed below `below`.
fn is_of(of: &ToldOf, feed: FeedNo, below: u64) -> bool {
    of.feed == feed && of.from < below
}

/// What the index holds and waits for.
#[derive(Debug, Clone, Copy, Default)]
pub struct NearStatus {
    /// Whether the first sweep is over: PDQ signals are answered within a distance.
    pub ready: bool,
    /// Values told that queries do not find yet.
    pub pending: u64,
    /// What is held.
    pub stats: Stats,
    /// Since it was last made from the store; in between it is told of changes.
    pub age: Option<Duration>,
}

impl Near {
    /// Begins to watch the store, and fills the index from it on a thread of its own,
    /// which ends when the last handle of the index goes.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn start(store: &Arc<Store>, kind: u8) -> Result<Arc<Self>, NodeError> {
        let near = Arc::new(Self {
            kind,
            index: ArcSwap::default(),
            waiting: Mutex::default(),
            told: Condvar::new(),
            pending: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            keeper: Mutex::default(),
        });
        let watch = Watch(Arc::downgrade(&near));
        // From here on nothing new is missed; the first sweep finds what is there.
        lock(&near.waiting).beside_sweep = Some(Lots::default());
        store.watch_signals(kind, Arc::new(watch));
        let (weak, store) = (Arc::downgrade(&near), Arc::downgrade(store));
        let keeper = std::thread::Builder::new().name("near-index".to_owned());
        let started = keeper.spawn(move || keep(&weak, &store));
        let keeper =
            started.map_err(|error| NodeError::Internal(format!("the near index: {error}")))?;
        *near.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        Ok(near)
    }

    /// The values within `max` differing bits of `value`, with how many differ,
    /// nearest first, at most `limit`, and whether there are more: anybody may publish
    /// as many near one as he likes.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] for a distance at which a match means nothing.
    pub fn within(
        &self,
        value: &[u8; 32],
        max: u32,
        limit: usize,
    ) -> Result<(NearValues, bool), NodeError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut nearest = Nearest::new(limit);
        let asked = self.index.load().query(value, max, |value, distance| {
            nearest.meet(value, distance);
        });
        asked.map_err(|error: DistanceTooLarge| NodeError::Misuse(error.to_string()))?;
        Ok(nearest.finish())
    }

    /// What the index holds and waits for.
    #[must_use]
    pub fn status(&self) -> NearStatus {
        NearStatus {
            ready: self.is_ready(),
            pending: self.pending(),
            stats: self.index.load().stats(),
            age: lock(&self.waiting).made.map(|made| made.elapsed()),
        }
    }

    /// Whether the first sweep is over.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Values told that queries do not find yet.
    #[must_use]
    pub fn pending(&self) -> u64 {
        u64::try_from(self.pending.load(Ordering::Acquire)).unwrap_or(u64::MAX)
    }

    /// Whether values of leaves of this feed below `below` may be among these.
    #[must_use]
    pub fn waits_for(&self, feed: FeedNo, below: u64) -> bool {
        let waiting = lock(&self.waiting);
        let mut going_in = waiting.going_in.iter();
        !self.is_ready()
            || waiting.told.has(feed, below)
            || going_in.any(|(of, _)| is_of(of, feed, below))
    }

    /// Ends the keeper after what it does at present, a few seconds of work at most, and
    /// waits for it: until then it may hold the store.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.told.notify_all();
        let keeper = self
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The keeper itself may be who drops the last handle.
        let other = keeper.filter(|keeper| keeper.thread().id() != std::thread::current().id());
        if let Some(keeper) = other {
            let _ = keeper.join();
        }
    }

    fn stopped(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn coming(&self, of: ToldOf, values: Vec<[u8; 32]>) {
        let mut waiting = lock(&self.waiting);
        if let Some(beside) = &mut waiting.beside_sweep {
            beside.add(of, values.clone());
            if !self.is_ready() {
                self.count(&waiting);
                return;
            }
        }
        if values.len() > AT_ONCE {
            waiting.told.add(of, values);
            self.count(&waiting);
            drop(waiting);
            self.told.notify_all();
            return;
        }
        // The lock is held on: a sweep that ends meanwhile would replace the index
        // that these go into.
        let index = self.index.load();
        for value in &values {
            index.set(value, 1);
        }
        drop(waiting);
    }

    /// What was told of a feed's load is to be seen: it waits for no other load.
    fn landing(&self, feed: FeedNo) {
        let mut waiting = lock(&self.waiting);
        waiting.told.landing(feed);
        if let Some(beside) = &mut waiting.beside_sweep {
            beside.landing(feed);
        }
        drop(waiting);
        self.told.notify_all();
    }

    /// Shows how many wait.
    fn count(&self, waiting: &Waiting) {
        let beside = match &waiting.beside_sweep {
            Some(beside) if !self.is_ready() => beside.values,
            Some(_) | None => 0,
        };
        let going_in: usize = waiting.going_in.iter().map(|(_, values)| values).sum();
        let pending = waiting.told.values + going_in + beside;
        self.pending.store(pending, Ordering::Release);
    }

    /// Puts in what waits, the newest first; answers whether there was any. The values of
    /// loads that are under way go on waiting where they can and are not too many.
    fn put_in(&self, can_wait: bool) -> bool {
        let slice = {
            let mut waiting = lock(&self.waiting);
            let loads = !can_wait || waiting.told.values >= LOAD_MAX;
            let slice = waiting.told.take(LOAD_MAX, loads);
            waiting.going_in = slice.sizes();
            slice
        };
        if slice.lots.is_empty() {
            return false;
        }
        let values = slice.lots.into_iter().flat_map(|(_, values)| values);
        // In one piece with what is there: queries never look in more places meanwhile.
        self.index.load_full().load(values, 1);
        let mut waiting = lock(&self.waiting);
        waiting.going_in = Vec::new();
        self.count(&waiting);
        true
    }

    /// Notes from now on what is told, for a sweep; answers whether one can begin. It
    /// can when every value told before has leaves that a sweep sees.
    fn may_sweep(&self, store: &Store) -> bool {
        let mut waiting = lock(&self.waiting);
        if self.is_ready() && !waiting.dropped {
            return false;
        }
        waiting.beside_sweep.get_or_insert_default();
        if self.is_ready() && store.commits_under_way() {
            waiting.beside_sweep = None;
            return false;
        }
        waiting.dropped = false;
        true
    }

    /// A sweep failed: another one begins, and what was told meanwhile is kept no longer
    /// than that needs.
    fn failed(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.dropped = true;
        // Before the first sweep it holds what no sweep may have seen.
        if self.is_ready() {
            waiting.beside_sweep = None;
        }
    }

    /// Makes the index anew from the store's postings.
    fn sweep(&self, store: &Store, threads: usize) -> Result<(), NodeError> {
        let fresh = PdqIndex::new();
        let mut slice = Vec::with_capacity(SLICE);
        store.scan_values(self.kind, |value| {
            slice.push(*value);
            if slice.len() == SLICE {
                fresh.extend(slice.drain(..), threads);
            }
            !self.stopped()
        })?;
        fresh.extend(slice, threads);
        let mut waiting = lock(&self.waiting);
        let beside = waiting.beside_sweep.take().unwrap_or_default();
        waiting.told.append(beside);
        self.index.store(Arc::new(fresh));
        waiting.made = Some(Instant::now());
        self.ready.store(true, Ordering::Release);
        self.count(&waiting);
        Ok(())
    }
}

/// The keeper's thread.
fn keep(near: &Weak<Near>, store: &Weak<Store>) {
    // At start nothing else has much to do; later, queries come first.
    let mut threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (mut first, mut asked, mut waits_since) = (true, 0, None);
    loop {
        let (Some(near), Some(store)) = (near.upgrade(), store.upgrade()) else {
            return;
        };
        if near.stopped() {
            return;
        }
        if near.may_sweep(&store) {
            match near.sweep(&store, threads) {
                Ok(()) => {
                    threads = 1;
                    if std::mem::take(&mut first) {
                        give_way_wholly();
                    }
                    continue;
                }
                Err(error) => {
                    near.failed();
                    tracing::error!(
                        %error,
                        "the sweep of PDQ values failed and is tried again: near matches are not \
                         up to date"
                    );
                }
            }
        }
        let before = std::mem::replace(&mut asked, near.asked.load(Ordering::Relaxed));
        let queried = asked != before;
        let load = store.commits_under_way() && near.pending() > 0;
        waits_since = load.then(|| waits_since.unwrap_or_else(Instant::now));
        let in_time = waits_since.is_some_and(|since| since.elapsed() < LOAD_WAIT);
        let can_wait = queried && in_time;
        drop(store);
        let worked = near.put_in(can_wait) || near.index.load_full().merge(1);
        if worked {
            continue;
        }
        let waiting = lock(&near.waiting);
        if !near.stopped() {
            let pause = if waiting.told.lots.is_empty() {
                TIDY
            } else {
                LOAD_LOOK
            };
            // Woken or not: the state is read anew.
            let _ = near.told.wait_timeout(waiting, pause);
        }
    }
}

/// What the store tells; it keeps no index alive.
struct Watch(Weak<Near>);

impl SignalWatch for Watch {
    fn coming(&self, of: ToldOf, values: Vec<[u8; 32]>) {
        if let Some(near) = self.0.upgrade() {
            near.coming(of, values);
        }
    }

    fn landing(&self, feed: FeedNo) {
        if let Some(near) = self.0.upgrade() {
            near.landing(feed);
        }
    }

    fn dropped(&self) {
        if let Some(near) = self.0.upgrade() {
            lock(&near.waiting).dropped = true;
            near.told.notify_all();
        }
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::Scene;

    fn ready() -> Near {
        Near {
            kind: 5,
            index: ArcSwap::default(),
            waiting: Mutex::default(),
            told: Condvar::new(),
            pending: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            ready: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            keeper: Mutex::default(),
        }
    }

    fn of(feed: u32, from: u64, loading: bool) -> ToldOf {
        ToldOf {
            feed: FeedNo(feed),
            from,
            loading,
        }
    }

    #[test]
    fn what_waits_of_one_feed_keeps_no_other_waiting() {
        let (near, [one, two]) = (ready(), [FeedNo(1), FeedNo(2)]);
        let many = |n: u8| vec![[n; 32]; AT_ONCE + 1];
        near.coming(of(1, 100, true), many(1));
        assert!(!near.waits_for(one, 100), "it is of leaves that come");
        assert!(near.waits_for(one, 101));
        assert!(!near.waits_for(two, u64::MAX));
        // The load goes on, and what others commit meanwhile goes in.
        assert!(!near.put_in(true), "a load that is under way");
        near.coming(of(2, 5, false), many(2));
        assert!(near.waits_for(two, 6));
        assert!(near.put_in(true));
        assert_eq!(
            (near.waits_for(two, 6), near.waits_for(one, 101)),
            (false, true)
        );
        // Its end waits for no other load either.
        near.coming(of(3, 0, true), many(3));
        near.landing(one);
        assert!(near.put_in(true));
        assert!(!near.waits_for(one, 101));
        assert!(near.waits_for(FeedNo(3), 1));
        assert!(!near.put_in(true));
        assert!(near.put_in(false), "its wait is over");
        assert_eq!(near.pending(), 0);
    }

    #[test]
    fn a_sweep_that_fails_is_tried_again_and_keeps_nothing_twice() {
        let scene = Scene::new();
        let node = scene.open();
        let near = ready();
        assert!(!near.may_sweep(node.store()), "nothing was dropped");
        lock(&near.waiting).dropped = true;
        assert!(near.may_sweep(node.store()));
        near.failed();
        near.coming(of(1, 0, false), vec![[7; 32]]);
        assert!(lock(&near.waiting).beside_sweep.is_none());
        assert!(near.may_sweep(node.store()), "it is tried again");
        near.sweep(node.store(), 1).unwrap();
        assert!(!near.may_sweep(node.store()));
    }
}
