//! What witnesses have said last of the roster chain: in `meta`, one record.
//!
//! Nothing here follows from leaves, and `verify` has nothing to compare it with. Not
//! trusted: whoever reads it verifies each line again, against the chain that is held.

use bytes::Bytes;
use hashpact_core::id::{Digest, MemberNumber, UnixMillis};
use prost::Message;
use rocksdb::WriteBatch;

use crate::error::Result;
use crate::families::Family;
use crate::record::{seal, unseal};
use crate::store::Store;

const KEY: &[u8] = b"roster words";

/// The newest word of one witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterWord {
    /// The witness.
    pub witness: MemberNumber,
    /// The version that it cosigned.
    pub version: u64,
    /// When it was first heard to stand there, by its clock.
    pub since: UnixMillis,
    /// The cosignature's line.
    pub line: Bytes,
}

/// All that is kept of one chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RosterWords {
    /// Up to which version a quorum was found.
    pub reached: u64,
    /// The newest version when this was written, and when it came.
    pub newest: (u64, UnixMillis),
    /// The words, one of each witness.
    pub words: Vec<RosterWord>,
}

#[derive(Clone, PartialEq, Message)]
struct WordsRecord {
    #[prost(bytes = "bytes", tag = "1")]
    genesis: Bytes,
    #[prost(uint64, tag = "2")]
    reached: u64,
    #[prost(uint64, tag = "3")]
    newest: u64,
    #[prost(uint64, tag = "4")]
    newest_ms: u64,
    #[prost(message, repeated, tag = "5")]
    words: Vec<WordRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct WordRecord {
    #[prost(uint32, tag = "1")]
    witness: u32,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(uint64, tag = "3")]
    since_ms: u64,
    #[prost(bytes = "bytes", tag = "4")]
    line: Bytes,
}

impl Store {
    /// What is kept of the chain that begins with `genesis`; nothing of another one.
    ///
    /// # Errors
    /// What RocksDB answers; a damaged record.
    pub fn roster_words(&self, genesis: &Digest) -> Result<RosterWords> {
        let Some(bytes) = self.inner.get(Family::Meta, KEY)? else {
            return Ok(RosterWords::default());
        };
        let record: WordsRecord = unseal(&bytes, "what witnesses say of the roster")?;
        if record.genesis != genesis.0.as_slice() {
            return Ok(RosterWords::default());
        }
        let words = record.words.into_iter().filter_map(|word| {
            Some(RosterWord {
                witness: MemberNumber::new(word.witness).ok()?,
                version: word.version,
                since: UnixMillis(word.since_ms),
                line: word.line,
            })
        });
        Ok(RosterWords {
            reached: record.reached,
            newest: (record.newest, UnixMillis(record.newest_ms)),
            words: words.collect(),
        })
    }

    /// Keeps it in the place of what was kept before.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn put_roster_words(&self, genesis: &Digest, kept: &RosterWords) -> Result<()> {
        let inner = &*self.inner;
        let words = kept.words.iter().map(|word| WordRecord {
            witness: word.witness.value(),
            version: word.version,
            since_ms: word.since.0,
            line: word.line.clone(),
        });
        let record = WordsRecord {
            genesis: genesis.0.to_vec().into(),
            reached: kept.reached,
            newest: kept.newest.0,
            newest_ms: kept.newest.1.0,
            words: words.collect(),
        };
        let mut batch = WriteBatch::default();
        batch.put_cf(inner.cf(Family::Meta)?, KEY, seal(&record));
        // Crash: before, the words of before stand, and the newer ones are told again;
        // after, they are there.
        inner.write_synced(batch, "keeping what witnesses say of the roster")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreOptions;

    #[test]
    fn words_outlive_a_start_and_are_of_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let (genesis, other) = (Digest([1; 32]), Digest([2; 32]));
        let kept = RosterWords {
            reached: 2,
            newest: (3, UnixMillis(7)),
            words: vec![RosterWord {
                witness: MemberNumber::new(4).unwrap(),
                version: 3,
                since: UnixMillis(9),
                line: Bytes::from_static(b"a line\n"),
            }],
        };
        let store = open();
        assert_eq!(
            store.roster_words(&genesis).unwrap(),
            RosterWords::default()
        );
        store.put_roster_words(&genesis, &kept).unwrap();
        drop(store);
        let store = open();
        assert_eq!(store.roster_words(&genesis).unwrap(), kept);
        assert_eq!(store.roster_words(&other).unwrap(), RosterWords::default());
    }
}
