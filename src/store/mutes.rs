//! What this node mutes, the policy that it took last, and the secret of its digests.
//!
//! | family, key | value |
//! |---|---|
//! | `mutes`: 1, slug | mute of a member |
//! | `mutes`: 2, set | mute of a set |
//! | `mutes`: 3, kind, 16-byte keyed digest | mute of a signal: the value is nowhere |
//! | `meta`: `secret` | 32 random bytes |
//! | `meta`: `policy` | the text of the policy in force |
//!
//! Own decisions of this node: nothing here follows from leaves, and `verify` has nothing
//! to compare it with. What a mute or its end changes for consumers of changes is logged
//! in the same batch.

use hashpact_core::id::{FeedId, SetName, Slug, UnixMillis};
use prost::Message;
use rocksdb::WriteBatch;

use crate::changes;
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::keys::FeedNo;
use crate::record::{seal, unseal};
use crate::store::{Inner, Store, hold};

/// Mutes at one time: a brake, and no second policy.
pub const MUTES_MAX: usize = 10_000;

const MEMBER: u8 = 1;
const SET: u8 = 2;
const SIGNAL: u8 = 3;
const SECRET: &[u8] = b"secret";
const POLICY: &[u8] = b"policy";

/// What is muted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MuteSubject {
    /// All that a member publishes.
    Member(Slug),
    /// All entries of a set.
    Set(SetName),
    /// A signal, by its kind's number and its keyed digest.
    Signal {
        /// The number of the kind.
        kind: u8,
        /// What it is found by; without the node's secret nobody can make it.
        digest: [u8; 16],
    },
}

impl MuteSubject {
    fn key(&self) -> Vec<u8> {
        match self {
            Self::Member(slug) => [&[MEMBER], slug.as_str().as_bytes()].concat(),
            Self::Set(set) => [&[SET], set.to_string().as_bytes()].concat(),
            Self::Signal { kind, digest } => [&[SIGNAL, *kind], &digest[..]].concat(),
        }
    }

    fn read(key: &[u8]) -> Result<Self> {
        let wrong = || StoreError::corrupt("the key of a mute");
        let (what, rest) = key.split_first().ok_or_else(wrong)?;
        let text = || std::str::from_utf8(rest).map_err(|_| wrong());
        match *what {
            MEMBER => Slug::parse(text()?).map(Self::Member).map_err(|_| wrong()),
            SET => SetName::parse(text()?).map(Self::Set).map_err(|_| wrong()),
            SIGNAL => {
                let (kind, digest) = rest.split_first().ok_or_else(wrong)?;
                let digest = <[u8; 16]>::try_from(digest).map_err(|_| wrong())?;
                Ok(Self::Signal {
                    kind: *kind,
                    digest,
                })
            }
            _ => Err(wrong()),
        }
    }
}

/// A mute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mute {
    /// What.
    pub subject: MuteSubject,
    /// The case that it belongs to, in the operator's words.
    pub case: String,
    /// Who said so.
    pub by: String,
    /// Since when.
    pub since: UnixMillis,
    /// Until when.
    pub expires: UnixMillis,
    /// Of a signal: some leaves that carry it, from which it is found again.
    pub leaves: Vec<(FeedNo, u64)>,
    /// What the others are told with it.
    pub told: Option<MuteTold>,
}

/// What the others are told with a mute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MuteTold {
    /// Why, a number of the table of reasons.
    pub reason_id: u32,
    /// Of which entries: feed, first index, and of which kind of signal.
    pub entries: Vec<(FeedId, u64, Option<u32>)>,
}

#[derive(Clone, PartialEq, Message)]
struct MuteRecord {
    #[prost(string, tag = "1")]
    case: String,
    #[prost(string, tag = "2")]
    by: String,
    #[prost(uint64, tag = "3")]
    since_ms: u64,
    #[prost(uint64, tag = "4")]
    expires_ms: u64,
    #[prost(message, repeated, tag = "5")]
    leaves: Vec<LeafRecord>,
    /// 0 where nothing is told.
    #[prost(uint32, tag = "6")]
    reason_id: u32,
    #[prost(message, repeated, tag = "7")]
    told: Vec<ToldRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct ToldRecord {
    #[prost(bytes = "vec", tag = "1")]
    feed: Vec<u8>,
    #[prost(uint64, tag = "2")]
    first: u64,
    #[prost(uint32, optional, tag = "3")]
    kind: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct LeafRecord {
    #[prost(uint32, tag = "1")]
    feed: u32,
    #[prost(uint64, tag = "2")]
    index: u64,
}

impl ToldRecord {
    fn of((feed, first, kind): &(FeedId, u64, Option<u32>)) -> Self {
        Self {
            feed: feed.as_bytes().to_vec(),
            first: *first,
            kind: *kind,
        }
    }

    fn read(&self) -> Option<(FeedId, u64, Option<u32>)> {
        let feed = FeedId::from_slice(&self.feed).ok()?;
        Some((feed, self.first, self.kind))
    }
}

/// There was nothing of it before: older programs, which do not know of mutes, refuse
/// the store from here on.
pub(crate) fn migrate(inner: &Inner) -> Result<()> {
    inner.cf(Family::Mutes).map(drop)
}

impl Store {
    /// The secret of this node's digests: `fresh` from the first call on, and for ever.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn secret(&self, fresh: [u8; 32]) -> Result<[u8; 32]> {
        let inner = &*self.inner;
        let _turn = hold(&inner.catalogue);
        if let Some(found) = inner.get(Family::Meta, SECRET)? {
            return found
                .try_into()
                .map_err(|_| StoreError::corrupt("the secret of digests"));
        }
        let mut batch = WriteBatch::default();
        batch.put_cf(inner.cf(Family::Meta)?, SECRET, fresh);
        // Crash: before, nothing was made with it; after, it is the one.
        inner.write_synced(batch, "making the secret of digests")?;
        Ok(fresh)
    }

    /// The text of the policy that was taken last; `None` for the shipped one.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn policy_text(&self) -> Result<Option<Vec<u8>>> {
        self.inner.get(Family::Meta, POLICY)
    }

    /// Keeps the text of the policy in force; `None` for the shipped one.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn put_policy_text(&self, text: Option<&[u8]>) -> Result<()> {
        let inner = &*self.inner;
        let family = inner.cf(Family::Meta)?;
        let mut batch = WriteBatch::default();
        match text {
            Some(text) => batch.put_cf(family, POLICY, text),
            None => batch.delete_cf(family, POLICY),
        }
        // Crash: before, the start takes the policy before it, and then the file's; after,
        // it is in force.
        inner.write_synced(batch, "keeping the policy")
    }

    /// All mutes, those that have run out included.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn mutes(&self) -> Result<Vec<Mute>> {
        let mut mutes = Vec::new();
        let (from, to) = ([MEMBER], [SIGNAL.saturating_add(1)]);
        self.inner.scan(Family::Mutes, &from, &to, |key, value| {
            let record: MuteRecord = unseal(value, "a mute")?;
            let told = (record.reason_id > 0).then(|| MuteTold {
                reason_id: record.reason_id,
                entries: record.told.iter().filter_map(ToldRecord::read).collect(),
            });
            mutes.push(Mute {
                told,
                subject: MuteSubject::read(key)?,
                case: record.case,
                by: record.by,
                since: UnixMillis(record.since_ms),
                expires: UnixMillis(record.expires_ms),
                leaves: record
                    .leaves
                    .iter()
                    .map(|leaf| (FeedNo(leaf.feed), leaf.index))
                    .collect(),
            });
            Ok(true)
        })?;
        Ok(mutes)
    }

    /// Keeps a mute, in the place of one of the same; consumers are told `leaves` again.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn put_mute(&self, mute: &Mute, leaves: &[(FeedNo, u64)], now: UnixMillis) -> Result<()> {
        let inner = &*self.inner;
        let told = mute.told.iter().flat_map(|told| &told.entries);
        let record = MuteRecord {
            reason_id: mute.told.as_ref().map_or(0, |told| told.reason_id),
            told: told.map(ToldRecord::of).collect(),
            case: mute.case.clone(),
            by: mute.by.clone(),
            since_ms: mute.since.0,
            expires_ms: mute.expires.0,
            leaves: mute
                .leaves
                .iter()
                .map(|(no, index)| LeafRecord {
                    feed: no.0,
                    index: *index,
                })
                .collect(),
        };
        let mut batch = WriteBatch::default();
        batch.put_cf(inner.cf(Family::Mutes)?, mute.subject.key(), seal(&record));
        // Crash: before, nothing is muted and nobody was told; after, both.
        changes::write_with_again(inner, batch, leaves, now, "muting")
    }

    /// Ends mutes; consumers are told `leaves` again.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn remove_mutes(
        &self,
        subjects: &[MuteSubject],
        leaves: &[(FeedNo, u64)],
        now: UnixMillis,
    ) -> Result<()> {
        let inner = &*self.inner;
        let mut batch = WriteBatch::default();
        for subject in subjects {
            batch.delete_cf(inner.cf(Family::Mutes)?, subject.key());
        }
        // Crash: before, they stand, and count until they run out; after, they are gone.
        changes::write_with_again(inner, batch, leaves, now, "ending mutes")
    }
}

#[cfg(test)]
mod tests {
    use hashpact_core::id::Digest;

    use super::*;
    use crate::StoreOptions;

    fn mute(subject: MuteSubject, expires: u64) -> Mute {
        Mute {
            subject,
            case: "case 7".to_owned(),
            by: "socket".to_owned(),
            since: UnixMillis(1),
            expires: UnixMillis(expires),
            leaves: vec![(FeedNo(1), 7)],
            told: (expires > 5).then(|| MuteTold {
                reason_id: 1,
                entries: vec![
                    (FeedId(Digest([3; 32])), 9, Some(5)),
                    (FeedId(Digest([4; 32])), 0, None),
                ],
            }),
        }
    }

    #[test]
    fn mutes_of_every_kind_outlive_a_start_and_one_takes_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let subjects = [
            MuteSubject::Member(Slug::parse("north").unwrap()),
            MuteSubject::Set(SetName::parse("north/one").unwrap()),
            MuteSubject::Signal {
                kind: 5,
                digest: [9; 16],
            },
        ];
        let store = open();
        assert!(store.mutes().unwrap().is_empty());
        for subject in &subjects {
            let put = |expires| {
                let mute = mute(subject.clone(), expires);
                store.put_mute(&mute, &[], UnixMillis(1)).unwrap();
            };
            put(5);
            put(9);
        }
        drop(store);
        let store = open();
        let held = subjects.clone().map(|subject| mute(subject, 9));
        assert_eq!(store.mutes().unwrap(), held);
        store
            .remove_mutes(&subjects[..2], &[], UnixMillis(1))
            .unwrap();
        assert_eq!(store.mutes().unwrap(), held[2..]);
    }

    #[test]
    fn the_secret_is_made_once_and_the_policy_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let store = open();
        assert_eq!(store.secret([1; 32]).unwrap(), [1; 32]);
        store.put_policy_text(Some(b"text")).unwrap();
        drop(store);
        let store = open();
        assert_eq!(store.secret([2; 32]).unwrap(), [1; 32]);
        assert_eq!(store.policy_text().unwrap().unwrap(), b"text");
        store.put_policy_text(None).unwrap();
        assert!(store.policy_text().unwrap().is_none());
    }
}
