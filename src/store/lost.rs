//! Sets that were held and are not any longer, since their grant ended: which, and when.
//!
//! The note outlives the feed; nothing answers by it. It is kept until newer ones push it
//! out. People are shown it, and the node goes by it where others say what it said before.

use hashpact_core::id::{Digest, FeedId, UnixMillis};
use rocksdb::WriteBatch;

use crate::error::Result;
use crate::families::Family;
use crate::store::{Inner, Store};

/// What begins the key of a note, in `meta`; the feed's id ends it.
const PREFIX: &[u8] = b"lost/";
/// The format of a note.
const VERSION: u8 = 1;
/// Notes that are kept: whoever grants sets and takes them away fills no disk with it.
pub const LOST_MAX: usize = 256;
/// Bytes of a name: two slugs and what stands between them.
const NAME_MAX_BYTES: usize = 80;

/// A set that was held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSet {
    /// The feed.
    pub feed: FeedId,
    /// When it was dropped.
    pub at: UnixMillis,
    /// Its name, `member/set`.
    pub name: String,
}

impl Store {
    /// Notes, durably, that a set is dropped since this member may not read it any
    /// longer. Said again it counts from then on. Answers what was noted before, of sets
    /// that are held again, too.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn note_lost(&self, lost: &LostSet) -> Result<Vec<LostSet>> {
        let inner = &*self.inner;
        let meta = inner.cf(Family::Meta)?;
        let before = load(inner)?;
        let others = before.iter().filter(|one| one.feed != lost.feed);
        let mut batch = WriteBatch::default();
        let over = (others.clone().count() + 1).saturating_sub(LOST_MAX);
        for old in others.take(over) {
            batch.delete_cf(meta, key(&old.feed));
        }
        let name = lost.name.as_bytes();
        let name = name.get(..NAME_MAX_BYTES).unwrap_or(name);
        let note = [&[VERSION][..], &lost.at.0.to_be_bytes(), name].concat();
        batch.put_cf(meta, key(&lost.feed), note);
        // Crash: before, the set is held; after, it is noted, and dropped when it is said
        // to be once more.
        inner.write_synced(batch, "noting that a set was lost")?;
        Ok(before)
    }

    /// When a feed was dropped last, also where it is held again.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn lost_at(&self, feed: &FeedId) -> Result<Option<UnixMillis>> {
        let note = self.inner.get(Family::Meta, key(feed))?;
        let noted = note.and_then(|note| read(feed.0.as_bytes(), &note));
        Ok(noted.map(|noted| noted.at))
    }

    /// The sets that were lost and are not held again, the one lost first first.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn lost(&self) -> Result<Vec<LostSet>> {
        let mut lost = load(&self.inner)?;
        lost.retain(|one| self.feed_no(&one.feed).is_none());
        Ok(lost)
    }
}

fn key(feed: &FeedId) -> Vec<u8> {
    [PREFIX, feed.0.as_bytes()].concat()
}

/// ⚠ What cannot be read is left out: a note keeps no set from being dropped.
fn load(inner: &Inner) -> Result<Vec<LostSet>> {
    let mut lost = Vec::new();
    let mut end = PREFIX.to_vec();
    end.push(0xff);
    end.resize(PREFIX.len().saturating_add(64), 0xff);
    inner.scan(Family::Meta, PREFIX, &end, |key, note| {
        let feed = key.strip_prefix(PREFIX).unwrap_or_default();
        lost.extend(read(feed, note));
        Ok(true)
    })?;
    lost.sort_by_key(|one| one.at);
    Ok(lost)
}

fn read(feed: &[u8], note: &[u8]) -> Option<LostSet> {
    let (version, rest) = note.split_first()?;
    let (at, name) = rest.split_first_chunk::<8>()?;
    (*version == VERSION).then_some(())?;
    Some(LostSet {
        feed: FeedId(Digest::from_slice(feed).ok()?),
        at: UnixMillis(u64::from_be_bytes(*at)),
        name: std::str::from_utf8(name).ok()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use hashpact_core::id::MemberNumber;

    use super::*;
    use crate::{FeedKind, NewFeed, StoreOptions};

    fn lost(name: &str, at: u64) -> LostSet {
        LostSet {
            feed: FeedId(Digest::of(name.as_bytes())),
            at: UnixMillis(at),
            name: name.to_owned(),
        }
    }

    #[test]
    fn what_was_lost_is_kept_over_a_start_until_it_is_held_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path(), &StoreOptions::default()).unwrap();
        let store = open();
        assert_eq!(store.lost().unwrap(), []);
        let (first, second) = (lost("west/confirmed", 7), lost("west/links", 5));
        store.note_lost(&first).unwrap();
        store.note_lost(&second).unwrap();
        drop(store);
        let store = open();
        assert_eq!(store.lost().unwrap(), [second.clone(), first.clone()]);
        let feed = NewFeed {
            id: second.feed,
            publisher: MemberNumber::new(1).unwrap(),
            own: false,
            kind: FeedKind::HashSet,
        };
        let no = store.create_feed(&feed).unwrap();
        assert_eq!(store.lost().unwrap(), std::slice::from_ref(&first));
        assert_eq!(store.lost_at(&second.feed).unwrap(), Some(second.at));
        store.drop_feed(no).unwrap();
        let again = lost("west/links", 9);
        store.note_lost(&again).unwrap();
        assert_eq!(store.lost().unwrap(), [first, again]);
    }

    #[test]
    fn the_oldest_notes_go_when_there_are_many() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
        for at in 0..=LOST_MAX as u64 {
            store.note_lost(&lost(&format!("west/{at}"), at)).unwrap();
        }
        let kept = store.lost().unwrap();
        assert_eq!(kept.len(), LOST_MAX);
        assert_eq!(kept.first().unwrap().name, "west/1");
    }
}
