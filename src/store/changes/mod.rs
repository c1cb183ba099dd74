//! Changes: what this node answers, as a log that consumers follow.
//!
//! A member that keeps a matcher of its own wants every change of what this node would
//! act on, and to lose none whatever crashes. So nothing here is told by whoever makes
//! a change. The store keeps beside each feed what was logged of it last ([`shown`]);
//! [`Store::note_changes`] compares that with the feed as it stands, and writes the
//! difference as one record, in one batch with what was compared. A crash before the
//! batch finds the same difference again.
//!
//! A record names leaves, not what became of them: whoever reads it is given them as
//! they are by then, and whatever changes later is in a later record. So a reader that
//! begins anywhere and goes on ends at what the node answers.
//!
//! Owns the log, what is shown of each feed, and who follows ([`consumers`]); without a
//! consumer nothing of it exists and nothing is compared. Does not own what a feed as a
//! whole counts for ([`Whole`]): that is the node's to say.
//!
//! | key in the family `changes` | value |
//! |---|---|
//! | 1, number | record of the log |
//! | 2, feed | the feed, and its size, as logged last |
//! | 3, feed, index / 65,536 | leaves not shown, to be reviewed, or shown in part |
//! | 4, name | consumer |
//! | 5, feed | from which leaf on a feed was cut since |
//! | 6 | state of the log |
//! | 7, feed id, first index | how opinions dispute the entry; 7 alone: all were looked at |

mod consumers;
mod cursor;
mod disputes;
mod log;
mod reading;
mod rows;
mod shown;
mod signals;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLockWriteGuard};
use std::time::Duration;

use hashpact_core::id::{FeedId, UnixMillis};
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use self::disputes::Touched;
use self::log::LogState;
use self::reading::OpenRecord;
use self::rows::FeedShownRecord;
use self::shown::{Difference, Shown};
use crate::error::Result;
use crate::families::Family;
use crate::feeds::{FeedInfo, FeedState, Live};
use crate::keys::FeedNo;
use crate::opinions::SaidOpinion;
use crate::store::{Inner, Store, hold, read, write};

pub use self::consumers::{CONSUMERS_MAX, CONSUMERS_PER_OWNER, Consumer};
pub use self::cursor::{ChangeCursor, CursorError};
pub use self::reading::{ChangeBatch, ChangedLeaf, Seen, Step};

/// What the node makes of a feed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum WholeStanding {
    /// Nothing of it counts.
    #[default]
    Nothing,
    /// All of it is to be looked at.
    Review,
    /// Its entries count.
    Active,
}

impl WholeStanding {
    const fn number(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Review => 1,
            Self::Active => 2,
        }
    }

    const fn read(number: u32) -> Self {
        match number {
            1 => Self::Review,
            2 => Self::Active,
            _ => Self::Nothing,
        }
    }
}

/// What the node says of a feed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Whole {
    /// How its entries count.
    pub standing: WholeStanding,
    /// The set's name; empty before it is known.
    pub name: String,
    /// What is said with every entry: where it changes, all entries did.
    pub words: String,
}

/// What was logged last, in memory; the rows say the same.
pub(crate) struct Noted {
    log: LogState,
    feeds: BTreeMap<FeedNo, FeedShown>,
    /// The record that was read last.
    open: Option<Arc<OpenRecord>>,
    /// Whether what opinions dispute was ever looked at.
    disputes_known: bool,
}

impl Noted {
    const fn begin(log: LogState) -> Self {
        Self {
            log,
            feeds: BTreeMap::new(),
            open: None,
            disputes_known: false,
        }
    }
}

/// What was logged last of one feed.
#[derive(Clone)]
pub(crate) struct FeedShown {
    id: FeedId,
    whole: Whole,
    shown: Shown,
    /// The state in memory that it was taken from; `None` after a start.
    version: Option<u64>,
    /// The log's newest number once the latest cut below what was shown was in it: whoever
    /// has not acknowledged that knows leaves that are gone.
    cut_number: u64,
}

/// Wakes whoever notes changes. Told by everything that changes a feed in memory.
#[derive(Clone, Default)]
pub struct ChangePulse(Arc<(Mutex<u64>, Condvar)>);

impl ChangePulse {
    /// Tells that something changed.
    pub fn beat(&self) {
        let mut beats = hold(&self.0.0);
        *beats = beats.wrapping_add(1);
        self.0.1.notify_all();
    }

    /// Waits until something changed since `seen`, or some time has passed; answers what
    /// to wait from next.
    #[must_use]
    pub fn wait(&self, seen: u64, at_most: Duration) -> u64 {
        let (beats, told) = &*self.0;
        let waited = told.wait_timeout_while(hold(beats), at_most, |beats| *beats == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The state of noting: taken by one thread at a time.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) noted: Mutex<Option<Noted>>,
    /// Held while leaves are cut off, and while a feed is compared.
    pub(crate) cutting: Mutex<()>,
}

impl Store {
    /// What tells that something may have changed; it does not keep the store open.
    #[must_use]
    pub fn pulse(&self) -> ChangePulse {
        self.inner.pulse.clone()
    }

    /// Compares what every feed shows with what was logged of it, and logs what differs.
    /// Answers the log's newest number; `None` without a consumer, when there is no log.
    ///
    /// # Errors
    /// What RocksDB answers; then nothing was logged, and the next call finds it again.
    pub fn note_changes(
        &self,
        whole: &dyn Fn(&FeedInfo) -> Whole,
        now: UnixMillis,
    ) -> Result<Option<u64>> {
        let inner = &*self.inner;
        let mut held = hold(&inner.changes.noted);
        let Some(noted) = load_once(inner, &mut held)? else {
            return Ok(None);
        };
        note(inner, noted, whole, now, true)?;
        signals::note(self, noted, now)?;
        Ok(Some(noted.log.newest()))
    }
}

/// Reads what was logged last, once; `None` where there is no log.
fn load_once<'n>(inner: &Inner, held: &'n mut Option<Noted>) -> Result<Option<&'n mut Noted>> {
    if held.is_none() {
        let Some(log) = LogState::load(inner)? else {
            return Ok(None);
        };
        if !consumers::any(inner)? {
            return Ok(None);
        }
        *held = Some(Noted {
            feeds: rows::load_feeds(inner)?,
            disputes_known: rows::disputes_known(inner)?,
            ..Noted::begin(log)
        });
    }
    Ok(held.as_mut())
}

/// Compares every feed; without `logs` what they show is taken as known.
fn note(
    inner: &Inner,
    noted: &mut Noted,
    whole: &dyn Fn(&FeedInfo) -> Whole,
    now: UnixMillis,
    logs: bool,
) -> Result<()> {
    let _cutting = hold(&inner.changes.cutting);
    // Crash: before, the differences are found again; after, they are logged, and what
    // was compared is known.
    let mut batch = WriteBatch::default();
    let mut log = noted.log.clone();
    let mut next: Vec<(FeedNo, Option<FeedShown>)> = Vec::new();
    let mut rows = 0_usize;
    let mut touched = Touched::default();
    if !noted.disputes_known {
        touched.everything();
        rows::put_disputes_known(inner, &mut batch)?;
        rows = 1;
    }
    let table = inner.feeds();
    for (no, state) in &table.by_no {
        let before = noted.feeds.get(no);
        let cut = rows::cut_of(inner, *no)?;
        let Some(mut after) = look(state, before, cut.is_some(), whole) else {
            continue;
        };
        let difference = shown::difference(before, &after, cut);
        let looks = (before, &after);
        touched.take(inner, state, looks, &difference, cut.is_some())?;
        if logs && difference.says_something() {
            log.append(inner, &mut batch, *no, &after, &difference, now)?;
        }
        if before.is_some_and(|before| before.loses_by(cut)) {
            after.cut_number = log.newest();
        }
        rows = rows.saturating_add(1);
        rows::put_feed(inner, &mut batch, *no, before, &after)?;
        if cut.is_some() {
            rows::delete_cut(inner, &mut batch, *no)?;
        }
        next.push((*no, Some(after)));
    }
    for (no, before) in &noted.feeds {
        if !table.by_no.contains_key(no) {
            if logs && before.whole.standing != WholeStanding::Nothing {
                let gone = FeedShown {
                    whole: Whole {
                        standing: WholeStanding::Nothing,
                        ..before.whole.clone()
                    },
                    shown: Shown::default(),
                    ..before.clone()
                };
                let difference = shown::difference(Some(before), &gone, None);
                log.append(inner, &mut batch, *no, &gone, &difference, now)?;
            }
            // It may have held opinions.
            touched.everything();
            rows = rows.saturating_add(1);
            rows::delete_feed(inner, &mut batch, *no)?;
            next.push((*no, None));
        }
    }
    if rows == 0 {
        return Ok(());
    }
    if !touched.is_empty() {
        let now_shown: BTreeMap<FeedNo, Option<&FeedShown>> = next
            .iter()
            .map(|(no, shown)| (*no, shown.as_ref()))
            .collect();
        let shown = |no: FeedNo| match now_shown.get(&no) {
            Some(shown) => *shown,
            None => noted.feeds.get(&no),
        };
        let counts = |said: &SaidOpinion| {
            let of = shown(said.feed_no);
            of.is_some_and(|feed| feed.whole.standing != WholeStanding::Nothing)
        };
        for (feed, firsts) in touched.compare(inner, &mut batch, &counts)? {
            let no = table.by_id.get(&feed).copied();
            let Some((no, feed)) = no.and_then(|no| Some((no, shown(no)?))) else {
                continue;
            };
            let others = disputes::leaves_of(inner, &table, feed, &firsts)?;
            if logs && feed.whole.standing != WholeStanding::Nothing && !others.is_empty() {
                let difference = Difference {
                    others,
                    ..Difference::default()
                };
                log.append(inner, &mut batch, no, feed, &difference, now)?;
            }
        }
    }
    if logs {
        log.prune(inner, &mut batch)?;
    }
    log.put(inner, &mut batch)?;
    inner.write_synced(batch, "logging changes")?;
    noted.log = log;
    noted.disputes_known = true;
    for (no, after) in next {
        match after {
            Some(after) => noted.feeds.insert(no, after),
            None => noted.feeds.remove(&no),
        };
    }
    Ok(())
}

/// Writes a batch, and in it the word that these leaves are to be told again: what the
/// node makes of them changed, though they did not. Feeds that do not count are left out,
/// and without a consumer nothing is said.
pub(crate) fn write_with_again(
    inner: &Inner,
    mut batch: WriteBatch,
    leaves: &[(FeedNo, u64)],
    now: UnixMillis,
    what: &'static str,
) -> Result<()> {
    let mut held = hold(&inner.changes.noted);
    let noted = match load_once(inner, &mut held)? {
        Some(noted) if !leaves.is_empty() => noted,
        Some(_) | None => return inner.write_synced(batch, what),
    };
    let log = again(inner, noted, &mut batch, leaves, now)?;
    // Crash: before, neither the batch nor the word; after, both.
    inner.write_synced(batch, what)?;
    noted.log = log;
    inner.pulse.beat();
    Ok(())
}

/// Adds to a batch the word that these leaves are to be told again; answers the log as it
/// is once the batch is written.
fn again(
    inner: &Inner,
    noted: &Noted,
    batch: &mut WriteBatch,
    leaves: &[(FeedNo, u64)],
    now: UnixMillis,
) -> Result<LogState> {
    let mut of_feed: BTreeMap<FeedNo, RoaringTreemap> = BTreeMap::new();
    for (no, index) in leaves {
        of_feed.entry(*no).or_default().insert(*index);
    }
    let mut log = noted.log.clone();
    for (no, others) in of_feed {
        let shown = noted.feeds.get(&no);
        let Some(feed) = shown.filter(|feed| feed.whole.standing != WholeStanding::Nothing) else {
            continue;
        };
        let difference = Difference {
            others,
            ..Difference::default()
        };
        log.append(inner, batch, no, feed, &difference, now)?;
    }
    log.prune(inner, batch)?;
    log.put(inner, batch)?;
    Ok(log)
}

/// What a feed shows now; `None` where it shows what it showed.
fn look(
    state: &FeedState,
    before: Option<&FeedShown>,
    was_cut: bool,
    whole: &dyn Fn(&FeedInfo) -> Whole,
) -> Option<FeedShown> {
    let live = read(&state.live);
    let version = state.version();
    let whole = whole(&state.info_of(&live));
    let known = before.filter(|before| before.version == Some(version) && !was_cut);
    let shown = match known {
        Some(before) if before.whole == whole => return None,
        Some(before) => before.shown.clone(),
        None => Shown::of(&live),
    };
    drop(live);
    Some(FeedShown {
        id: state.id,
        whole,
        shown,
        version: Some(version),
        cut_number: before.map_or(0, |before| before.cut_number),
    })
}

impl FeedState {
    /// The feed in memory, to be changed. Whoever follows changes is woken, and sees
    /// the feed once it is let go.
    pub(crate) fn live_mut(&self) -> RwLockWriteGuard<'_, Live> {
        let live = write(&self.live);
        self.version.fetch_add(1, Ordering::AcqRel);
        self.pulse.beat();
        live
    }

    /// Which state of the feed this is, for whoever holds it.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}

impl FeedShown {
    fn record(&self) -> FeedShownRecord {
        FeedShownRecord {
            id: self.id.as_bytes().to_vec(),
            name: self.whole.name.clone(),
            words: self.whole.words.clone(),
            standing: self.whole.standing.number(),
            size: self.shown.size,
            cut_number: self.cut_number,
        }
    }

    /// Whether leaves that were shown went, where the feed was cut since.
    fn loses_by(&self, cut: Option<u64>) -> bool {
        cut.is_some_and(|cut| cut < self.shown.size)
    }

    fn is_seen(&self, index: u64) -> bool {
        self.whole.standing != WholeStanding::Nothing && self.shown.shows(index)
    }
}

/// Notes that a feed was cut, in the batch that cuts it. The caller holds
/// [`Changes::cutting`].
pub(crate) fn put_cut(inner: &Inner, batch: &mut WriteBatch, no: FeedNo, size: u64) -> Result<()> {
    let size = rows::cut_of(inner, no)?.map_or(size, |cut| cut.min(size));
    batch.put_cf(
        inner.cf(Family::Changes)?,
        rows::cut_key(no),
        size.to_be_bytes(),
    );
    Ok(())
}
