//! Telling whoever keeps an index in memory which values look-ups will answer for.
//!
//! A value is told before look-ups see its first posting and is never told to be
//! gone: liveness, held retractions, frozen feeds and grants change without a word,
//! so whoever finds a value near asks [`Store::lookup`] what is said of it now. Values
//! whose postings went with a dropped feed stay known until the next sweep.

use std::sync::{Arc, OnceLock};

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::keys::{FeedNo, IndexKey};
use crate::record::PostingRecord;
use crate::store::{Inner, Store};

/// Values that are told at one time during a bulk load.
const TOLD_AT_ONCE: usize = 65_536;

/// Is told values of one kind of signal before look-ups answer for them. Called by
/// the thread that commits, which waits for it.
pub trait SignalWatch: Send + Sync {
    /// Values of leaves that are to be seen; the same one may come again.
    fn coming(&self, of: ToldOf, values: Vec<[u8; 32]>);

    /// All that was told of a feed while its commit took leaves is about to be seen.
    fn landing(&self, feed: FeedNo);

    /// A feed's postings were removed: values told before may have none left.
    fn dropped(&self);
}

/// Whose values are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToldOf {
    /// The feed.
    pub feed: FeedNo,
    /// They are of no leaf below this one.
    pub from: u64,
    /// The commit takes more leaves yet: it may be long before look-ups see these.
    pub loading: bool,
}

/// Kinds that are watched: pictures, and frames of videos.
const KINDS: usize = 2;

/// Who watches which kind, and which commits have told values that are not seen yet.
#[derive(Default)]
pub(crate) struct Watch {
    watchers: [OnceLock<(u8, Arc<dyn SignalWatch>)>; KINDS],
    under_way: Arc<()>,
}

/// A commit's values that were not told yet, and its claim to be under way.
#[derive(Default)]
pub(crate) struct Coming {
    /// In the order of the watchers.
    values: [Vec<[u8; 32]>; KINDS],
    /// Of what feed, and from which leaf on.
    of: Option<(FeedNo, u64)>,
    /// Some were told while the commit took leaves.
    landing: bool,
    under_way: Option<UnderWay>,
}

/// Held from a commit's first value until look-ups see it, or the commit is given up.
#[derive(Clone)]
pub(crate) struct UnderWay(#[expect(dead_code, reason = "what counts is that it is held")] Arc<()>);

impl Coming {
    /// Notes the watched values among a leaf's postings; all leaves are of one feed, in
    /// ascending order.
    pub(crate) fn note(
        &mut self,
        inner: &Inner,
        (feed, index): (FeedNo, u64),
        postings: &[(IndexKey, PostingRecord)],
    ) {
        let mut many = false;
        for (values, watcher) in self.values.iter_mut().zip(&inner.watch.watchers) {
            let Some((kind, _)) = watcher.get() else {
                continue;
            };
            for (key, _) in postings {
                let [first, value @ ..] = key;
                if first == kind {
                    values.push(*value);
                    self.of.get_or_insert((feed, index));
                }
            }
            many |= values.len() >= TOLD_AT_ONCE;
        }
        if many {
            self.tell(inner, true);
        }
    }

    /// Tells what was noted.
    fn tell(&mut self, inner: &Inner, loading: bool) {
        let Some((feed, from)) = self.of.take() else {
            return;
        };
        let of = ToldOf {
            feed,
            from,
            loading,
        };
        self.landing |= loading;
        for (values, watcher) in self.values.iter_mut().zip(&inner.watch.watchers) {
            if values.is_empty() {
                continue;
            }
            self.under_way
                .get_or_insert_with(|| UnderWay(Arc::clone(&inner.watch.under_way)));
            if let Some((_, watcher)) = watcher.get() {
                watcher.coming(of, std::mem::take(values));
            }
        }
    }

    /// Tells the rest and hands the claim to whoever lets look-ups see the leaves.
    pub(crate) fn finish(&mut self, inner: &Inner, feed: FeedNo) -> Option<UnderWay> {
        self.tell(inner, false);
        if std::mem::take(&mut self.landing) {
            for (_, watcher) in inner.watch.watchers.iter().filter_map(OnceLock::get) {
                watcher.landing(feed);
            }
        }
        self.under_way.take()
    }
}

impl Inner {
    /// Tells that a feed's postings were removed.
    pub(crate) fn tell_dropped(&self) {
        for (_, watcher) in self.watch.watchers.iter().filter_map(OnceLock::get) {
            watcher.dropped();
        }
    }
}

impl Store {
    /// Tells `watcher` the values of `kind` from now on: a kind of signal, or
    /// [`FRAME_KIND`](crate::FRAME_KIND). Once for each of two kinds; later calls change
    /// nothing.
    pub fn watch_signals(&self, kind: u8, watcher: Arc<dyn SignalWatch>) {
        let mut watcher = (kind, watcher);
        for place in &self.inner.watch.watchers {
            // A second watcher of one kind would be a second index of the same values.
            if place.get().is_some_and(|(held, _)| *held == kind) {
                return;
            }
            match place.set(watcher) {
                Ok(()) => return,
                Err(back) => watcher = back,
            }
        }
    }

    /// Whether a commit has told values that look-ups do not see yet. A sweep that
    /// begins while none has finds every value told before it.
    #[must_use]
    pub fn commits_under_way(&self) -> bool {
        Arc::strong_count(&self.inner.watch.under_way) > 1
    }

    /// Calls `visit` with every value of one kind that has a posting, live or dead,
    /// once, in order, until it answers false. One sweep over the family.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn scan_values(&self, kind: u8, mut visit: impl FnMut(&[u8; 32]) -> bool) -> Result<()> {
        let end = kind
            .checked_add(1)
            .map_or_else(|| vec![0xff; 64], |next| vec![next]);
        let mut last: Option<[u8; 32]> = None;
        self.inner.scan(Family::Signals, &[kind], &end, |key, _| {
            let value = key
                .get(1..33)
                .and_then(|value| <&[u8; 32]>::try_from(value).ok())
                .ok_or(StoreError::corrupt("a posting's key has another length"))?;
            if last.as_ref() == Some(value) {
                return Ok(true);
            }
            last = Some(*value);
            Ok(visit(value))
        })
    }
}
