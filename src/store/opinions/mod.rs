//! Opinions: who says what of an entry, or of a signal that it publishes itself.
//!
//! Every indexed opinion leaf of an opinions feed has one row, alive or dead, written
//! and removed in the batches that write and remove the leaf's other rows; what is
//! dead is filtered when rows are read, as with postings. [`Store::verify`] recomputes
//! all of them. Most entries have no opinion: a filter in memory says so without the
//! disk. It never says so wrongly, and now and then asks the disk for nothing.
//!
//! Does not own what an opinion changes (`hashpact_core::standing`), nor whether its
//! member counts here, which is the node's to say.

mod reading;
mod rows;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use hashpact_core::leaf::{Opinion, Subject};
use roaring::RoaringBitmap;
use rocksdb::WriteBatch;

pub use self::reading::{ListedOpinions, OpinionsOf, SaidOpinion};
pub(crate) use self::reading::{on_entry, on_key, signal_subjects, subjects};
pub(crate) use self::rows::{OPINION_VALUE_BYTES, migrate, opinion_of, read_key};
use crate::error::Result;
use crate::families::Family;
use crate::feeds::{FeedKind, FeedState};
use crate::store::{Inner, read, write};

/// The row of one opinion leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpinionRow {
    pub(crate) key: Vec<u8>,
    pub(crate) value: [u8; OPINION_VALUE_BYTES],
}

impl OpinionRow {
    /// The row of an opinion at `index` of a feed; none in a feed of another kind, where
    /// opinions say nothing.
    pub(crate) fn of(feed: &FeedState, index: u64, opinion: &Opinion) -> Option<Self> {
        let opinions = match feed.kind {
            FeedKind::Opinions => true,
            FeedKind::HashSet => false,
        };
        opinions.then(|| Self {
            key: rows::key((feed.publisher, feed.id), index, &opinion.subject),
            value: rows::value(opinion),
        })
    }

    /// Adds the row to a batch. The filter knows the subject from here on, before the
    /// leaf counts.
    pub(crate) fn put(&self, inner: &Inner, batch: &mut WriteBatch) -> Result<()> {
        inner.opinions.note(rows::subject_of(&self.key));
        batch.put_cf(inner.cf(Family::Opinions)?, &self.key, self.value);
        Ok(())
    }
}

/// Which subjects may have opinions: 32 bits of a digest of each, so that a feed of
/// many opinions about made-up entries takes a few bytes for each.
#[derive(Default)]
pub(crate) struct OpinionFilter {
    any: AtomicBool,
    some: RwLock<RoaringBitmap>,
}

impl OpinionFilter {
    /// Notes that a subject has an opinion.
    fn note(&self, subject: &[u8]) {
        write(&self.some).insert(mark(subject));
        self.any.store(true, Ordering::Release);
    }

    /// Whether a subject may have one.
    fn may_have(&self, subject: &[u8]) -> bool {
        self.any.load(Ordering::Acquire) && read(&self.some).contains(mark(subject))
    }

    /// Whether the subject of a row is known to have one.
    pub(crate) fn knows(&self, key: &[u8]) -> bool {
        self.may_have(rows::subject_of(key))
    }

    /// Reads which subjects have opinions, at open.
    pub(crate) fn load(&self, inner: &Inner) -> Result<()> {
        let mut last: Vec<u8> = Vec::new();
        inner.scan(Family::Opinions, &[], &[0xff], |key, _| {
            let subject = rows::subject_of(key);
            if subject != last {
                self.note(subject);
                last = subject.to_vec();
            }
            Ok(true)
        })
    }
}

fn mark(subject: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    // The lower half is as good as the whole.
    u32::try_from(hasher.finish() & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// What an opinion is about, as keys begin.
fn prefix_of(subject: &Subject) -> Vec<u8> {
    match subject {
        Subject::Entry { feed, first, .. } => rows::entry_prefix(feed, *first).to_vec(),
        Subject::OwnSignal(signal) => rows::signal_prefix(&signal.index_key()).to_vec(),
    }
}
