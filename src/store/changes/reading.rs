//! Reading on from a cursor: which leaves to tell, and how each stands by now.

use std::sync::Arc;

use hashpact_core::id::{FeedId, UnixMillis};
use roaring::RoaringTreemap;

use super::cursor::{ChangeCursor, CursorError, Place};
use super::rows::{self, LogRecord};
use super::{FeedShown, Noted, WholeStanding, load_once, log};
use crate::error::{Result, StoreError};
use crate::keys::FeedNo;
use crate::quarantine::WHOLE_LEAF;
use crate::store::{Inner, Store, hold, read};

/// Leaves looked at for one batch, told or not: some 20 ms.
const LOOKED_MAX: u64 = 1 << 20;

/// How a leaf is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// It is to be looked at, whatever its feed counts for.
    pub review: bool,
    /// Kinds of signals of it that do not count.
    pub withheld: Vec<u8>,
    /// It was not shown before the record that names it.
    pub added: bool,
}

/// A leaf that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedLeaf {
    /// Its index.
    pub index: u64,
    /// How it is shown; `None` where it is not.
    pub seen: Option<Seen>,
}

/// What is told of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Leaves as they stand.
    Leaves {
        /// The feed.
        feed: FeedNo,
        /// Its id.
        id: FeedId,
        /// The set's name.
        set: String,
        /// Whether the feed as a whole is to be looked at.
        review: bool,
        /// In the order of their indexes, the shown ones of a record first.
        leaves: Vec<ChangedLeaf>,
    },
    /// Nothing of the feed counts any more.
    Gone {
        /// Its id.
        id: FeedId,
        /// The set's name.
        set: String,
    },
}

/// Some changes, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeBatch {
    /// In order.
    pub steps: Vec<Step>,
    /// Where whoever has them goes on.
    pub next: ChangeCursor,
    /// Whether there is nothing more at present.
    pub caught_up: bool,
    /// When the newest of them was logged; 0 in a snapshot.
    pub at: UnixMillis,
}

/// A record of the log, read.
pub(crate) struct OpenRecord {
    number: u64,
    record: LogRecord,
    added: RoaringTreemap,
    all: RoaringTreemap,
}

impl OpenRecord {
    fn read(inner: &Inner, number: u64) -> Result<Self> {
        let record = log::read_record(inner, number)?;
        let added = rows::bitmap(&record.added)?;
        let all = &added | rows::bitmap(&record.others)?;
        Ok(Self {
            number,
            record,
            added,
            all,
        })
    }

    fn id(&self) -> Result<FeedId> {
        FeedId::from_slice(&self.record.id).map_err(|_| StoreError::corrupt("a record of changes"))
    }
}

impl Store {
    /// The changes after `cursor`, at most `limit` leaves of them.
    ///
    /// # Errors
    /// What RocksDB answers; inside, why the cursor does not say where to go on.
    pub fn changes_after(
        &self,
        cursor: &ChangeCursor,
        limit: usize,
    ) -> Result<std::result::Result<ChangeBatch, CursorError>> {
        let inner = &*self.inner;
        let mut held = hold(&inner.changes.noted);
        let Some(noted) = load_once(inner, &mut held)? else {
            return Ok(Err(CursorError::OtherHistory));
        };
        if let Err(error) = check(inner, noted, cursor)? {
            return Ok(Err(error));
        }
        let mut reading = Reading {
            inner,
            noted,
            left: limit,
            looked: 0,
            batch: ChangeBatch {
                steps: Vec::new(),
                next: *cursor,
                caught_up: false,
                at: UnixMillis::default(),
            },
        };
        reading.go_on()?;
        Ok(Ok(reading.batch))
    }
}

impl Store {
    /// How the leaves `[from, to)` are shown by now, whatever was logged; `None` for one
    /// that is not. What the feed as a whole counts for is not asked.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn seen(&self, no: FeedNo, from: u64, to: u64) -> Result<Vec<Option<Seen>>> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        let seen = |index: u64| {
            let lots = live.quarantine.lots.iter();
            let mut withheld = Vec::new();
            for (name, _) in lots.filter(|(_, lot)| lot.withholds(index)) {
                withheld.push(name.kind);
            }
            let review = if live.liveness.is_dead(index) {
                live.held.answers(index)?
            } else {
                live.doubted.contains(index)
            };
            let shown = index < live.row.indexed && !withheld.contains(&WHOLE_LEAF);
            shown.then_some(Seen {
                review,
                withheld,
                added: false,
            })
        };
        Ok((from..to).map(seen).collect())
    }

    /// The kinds of signals of a leaf that do not count; all where it waits as a whole.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn withheld_kinds(&self, no: FeedNo, index: u64) -> Result<Vec<u8>> {
        let lots = self.withheld(no, index)?;
        if lots.iter().any(|lot| lot.kind == WHOLE_LEAF) {
            return Ok((0..=u8::MAX).collect());
        }
        Ok(lots.iter().map(|lot| lot.kind).collect())
    }
}

/// Whether the log goes on after a cursor.
pub(super) fn check(
    inner: &Inner,
    noted: &Noted,
    cursor: &ChangeCursor,
) -> Result<std::result::Result<(), CursorError>> {
    if cursor.number < noted.log.gone() {
        return Ok(Err(CursorError::TooOld));
    }
    let tag = noted.log.tag(inner, cursor.number)?;
    Ok(if tag == Some(cursor.tag) {
        Ok(())
    } else {
        Err(CursorError::OtherHistory)
    })
}

struct Reading<'r> {
    inner: &'r Inner,
    noted: &'r mut Noted,
    left: usize,
    looked: u64,
    batch: ChangeBatch,
}

impl Reading<'_> {
    fn go_on(&mut self) -> Result<()> {
        while self.left > 0 && self.looked < LOOKED_MAX {
            let cursor = self.batch.next;
            match cursor.place {
                Place::Snapshot { feed, from } => {
                    if self.snapshot(FeedNo(feed), from) {
                        // What follows is of the log: its reader has everything now.
                        return Ok(());
                    }
                }
                Place::After => {
                    if cursor.number >= self.noted.log.newest() {
                        self.batch.caught_up = true;
                        return Ok(());
                    }
                    self.begin_record()?;
                }
                Place::Present { from } => self.present(from)?,
                Place::Absent { from } => self.absent(from)?,
            }
        }
        Ok(())
    }

    /// Tells one feed, or as much of it as there is room for; answers whether that was
    /// all there is.
    fn snapshot(&mut self, no: FeedNo, from: u64) -> bool {
        let mut feeds = self.noted.feeds.range(no..);
        let Some((at, feed)) = feeds.find(|(_, f)| f.whole.standing != WholeStanding::Nothing)
        else {
            self.batch.next = self.batch.next.at(Place::After);
            return true;
        };
        let mut index = if *at == no { from } else { 0 };
        let mut leaves = Vec::new();
        while index < feed.shown.size && leaves.len() < self.left && self.looked < LOOKED_MAX {
            if feed.is_seen(index) {
                leaves.push(changed(feed, index, true));
            }
            index = index.saturating_add(1);
            self.looked = self.looked.saturating_add(1);
        }
        let place = if index < feed.shown.size {
            Place::Snapshot {
                feed: at.0,
                from: index,
            }
        } else {
            Place::Snapshot {
                feed: at.0.saturating_add(1),
                from: 0,
            }
        };
        let step = leaves_of(*at, feed, leaves);
        self.push(step);
        self.batch.next = self.batch.next.at(place);
        false
    }

    fn begin_record(&mut self) -> Result<()> {
        let open = self.open()?;
        self.batch.at = UnixMillis(open.record.at_ms);
        if open.record.gone {
            self.batch.steps.push(Step::Gone {
                id: open.id()?,
                set: open.record.name.clone(),
            });
            self.left = self.left.saturating_sub(1);
            self.batch.next = ChangeCursor::after(open.number, open.record.tag);
        } else {
            self.batch.next = self.batch.next.at(Place::Present { from: 0 });
        }
        Ok(())
    }

    /// The leaves of a record that are shown by now.
    fn present(&mut self, from: u64) -> Result<()> {
        let open = self.open()?;
        self.batch.at = UnixMillis(open.record.at_ms);
        let no = FeedNo(open.record.feed);
        let mut leaves = Vec::new();
        let mut place = Place::Absent { from: 0 };
        if let Some(feed) = self.noted.feeds.get(&no) {
            let mut indexes = open.all.iter();
            indexes.advance_to(from);
            for index in indexes {
                if leaves.len() >= self.left || self.looked >= LOOKED_MAX {
                    place = Place::Present { from: index };
                    break;
                }
                self.looked = self.looked.saturating_add(1);
                if feed.is_seen(index) {
                    leaves.push(changed(feed, index, open.added.contains(index)));
                }
            }
            let step = leaves_of(no, feed, leaves);
            self.push(step);
        }
        self.batch.next = self.batch.next.at(place);
        Ok(())
    }

    /// The leaves of a record that are not shown any more.
    fn absent(&mut self, from: u64) -> Result<()> {
        let open = self.open()?;
        self.batch.at = UnixMillis(open.record.at_ms);
        let no = FeedNo(open.record.feed);
        let gone = match self.noted.feeds.get(&no) {
            Some(feed) if feed.whole.standing != WholeStanding::Nothing => {
                let mut gone = &open.all & &feed.shown.absent;
                let mut beyond = open.all.clone();
                beyond.remove_range(..feed.shown.size);
                gone |= beyond;
                gone
            }
            // A later record says that the whole feed is gone.
            Some(_) | None => RoaringTreemap::new(),
        };
        let mut indexes = gone.iter();
        indexes.advance_to(from);
        let leaves: Vec<ChangedLeaf> = indexes
            .take(self.left)
            .map(|index| ChangedLeaf { index, seen: None })
            .collect();
        let last = leaves.last().map(|leaf| leaf.index);
        let more = last.is_some_and(|last| gone.max().is_some_and(|max| max > last));
        self.batch.next = match last {
            Some(last) if more => self.batch.next.at(Place::Absent {
                from: last.saturating_add(1),
            }),
            Some(_) | None => ChangeCursor::after(open.number, open.record.tag),
        };
        self.push(Step::Leaves {
            feed: no,
            id: open.id()?,
            set: open.record.name.clone(),
            review: false,
            leaves,
        });
        Ok(())
    }

    fn push(&mut self, step: Step) {
        if let Step::Leaves { leaves, .. } = &step {
            if leaves.is_empty() {
                return;
            }
            self.left = self.left.saturating_sub(leaves.len());
        }
        self.batch.steps.push(step);
    }

    /// The record after the cursor; the one read last is kept, for it is read in pieces.
    fn open(&mut self) -> Result<Arc<OpenRecord>> {
        let number = self.batch.next.number.saturating_add(1);
        if let Some(open) = &self.noted.open
            && open.number == number
        {
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(OpenRecord::read(self.inner, number)?);
        self.noted.open = Some(Arc::clone(&open));
        Ok(open)
    }
}

fn leaves_of(no: FeedNo, feed: &FeedShown, leaves: Vec<ChangedLeaf>) -> Step {
    Step::Leaves {
        feed: no,
        id: feed.id,
        set: feed.whole.name.clone(),
        review: feed.whole.standing == WholeStanding::Review,
        leaves,
    }
}

fn changed(feed: &FeedShown, index: u64, added: bool) -> ChangedLeaf {
    let kinds = feed.shown.partial.iter();
    let withheld = kinds.filter(|(_, leaves)| leaves.contains(index));
    ChangedLeaf {
        index,
        seen: Some(Seen {
            review: feed.shown.review.contains(index),
            withheld: withheld.map(|(kind, _)| *kind).collect(),
            added,
        }),
    }
}
