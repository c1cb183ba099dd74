//! Evidence of forks: of each epoch of a feed one piece, which shows what happened, or no
//! more than that there was one.
//!
//! | key | value |
//! |---|---|
//! | feed id, epoch (36 bytes) | the evidence, as it was checked |
//! | the publisher's number, feed id, epoch (40 bytes) | version, whether the evidence is kept |
//!
//! How much of one publisher is kept whole is the caller's to say.

use bytes::Bytes;
use hashpact_core::evidence::ForkEvidence;
use hashpact_core::id::{Digest, FeedId, MemberNumber};
use rocksdb::WriteBatch;

use crate::documents::END;
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::identities;
use crate::store::{Inner, Store};

const VERSION: u8 = 1;
const NAME_BYTES: usize = 36;
const KNOWN_BYTES: usize = 40;
/// Before schema 7 evidence stood under its digest.
const DIGEST_BYTES: usize = 32;

/// An epoch of a feed that was forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForkName {
    /// The feed.
    pub feed: FeedId,
    /// The epoch of both heads.
    pub epoch: u32,
}

impl ForkName {
    fn key(&self) -> [u8; NAME_BYTES] {
        let mut key = [0; NAME_BYTES];
        key[..32].copy_from_slice(self.feed.as_bytes());
        key[32..].copy_from_slice(&self.epoch.to_be_bytes());
        key
    }

    fn read(key: &[u8; NAME_BYTES]) -> Self {
        let (mut feed, mut epoch) = ([0; 32], [0; 4]);
        feed.copy_from_slice(&key[..32]);
        epoch.copy_from_slice(&key[32..]);
        Self {
            feed: FeedId(Digest(feed)),
            epoch: u32::from_be_bytes(epoch),
        }
    }

    fn known_key(&self, publisher: u32) -> [u8; KNOWN_BYTES] {
        let mut key = [0; KNOWN_BYTES];
        key[..4].copy_from_slice(&publisher.to_be_bytes());
        key[4..].copy_from_slice(&self.key());
        key
    }
}

/// Puts a fork into a batch, with its evidence or without.
fn put(
    inner: &Inner,
    batch: &mut WriteBatch,
    publisher: u32,
    (fork, evidence): (&ForkName, Option<&[u8]>),
) -> Result<()> {
    let family = inner.cf(Family::Evidence)?;
    let kept = [VERSION, u8::from(evidence.is_some())];
    batch.put_cf(family, fork.known_key(publisher), kept);
    if let Some(evidence) = evidence {
        batch.put_cf(family, fork.key(), evidence);
    }
    Ok(())
}

/// Schema 6 to 7: one piece for an epoch of a feed, under its name and without the cards
/// that came with it. It runs before feeds are loaded, and bears to run again.
pub(crate) fn migrate(inner: &Inner) -> Result<()> {
    let mut old = Vec::new();
    inner.scan(Family::Evidence, &[], &END, |key, evidence| {
        if key.len() == DIGEST_BYTES {
            old.push((key.to_vec(), Bytes::copy_from_slice(evidence)));
        }
        Ok(true)
    })?;
    let feeds = identities(inner)?;
    for (key, evidence) in old {
        // Crash: before, the piece stands as it did; after, under its name.
        let mut batch = WriteBatch::default();
        batch.delete_cf(inner.cf(Family::Evidence)?, key);
        let said = ForkEvidence::decode(&evidence);
        if let Ok((fork, epoch)) = said.and_then(|fork| fork.epoch().map(|epoch| (fork, epoch))) {
            let name = ForkName {
                feed: fork.feed,
                epoch,
            };
            let of = feeds.iter().find(|(_, new)| new.id == fork.feed);
            // Of a feed that is not here nobody is known.
            let publisher = of.map_or(0, |(_, new)| new.publisher.value());
            let small = without_cards(fork);
            put(inner, &mut batch, publisher, (&name, Some(&small)))?;
        }
        inner.write_synced(batch, "naming evidence of forks")?;
    }
    Ok(())
}

/// Evidence as it is kept: whoever checks it has the publisher's cards, and goes by these
/// alone.
fn without_cards(evidence: ForkEvidence) -> Vec<u8> {
    let node_cards = Vec::new();
    ForkEvidence {
        node_cards,
        ..evidence
    }
    .encode()
}

/// Whether a fork is known, with evidence or without.
pub(crate) fn knows(inner: &Inner, publisher: MemberNumber, fork: &ForkName) -> Result<bool> {
    let key = fork.known_key(publisher.value());
    Ok(inner.get(Family::Evidence, key)?.is_some())
}

impl Store {
    /// Keeps evidence of a fork, without its cards, or only that there was one; answers
    /// whether that is new. The first piece stays.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn put_fork(
        &self,
        publisher: MemberNumber,
        fork: &ForkName,
        evidence: Option<ForkEvidence>,
    ) -> Result<bool> {
        let inner = &*self.inner;
        let known = match &evidence {
            Some(_) => self.has_fork(fork)?,
            None => self.knows_fork(publisher, fork)?,
        };
        if known {
            return Ok(false);
        }
        let evidence = evidence.map(without_cards);
        // Crash: before, it is told again; after, it is known.
        let mut batch = WriteBatch::default();
        let of = (fork, evidence.as_deref());
        put(inner, &mut batch, publisher.value(), of)?;
        inner.write_synced(batch, "keeping evidence of a fork")?;
        Ok(true)
    }

    /// Whether evidence of a fork is kept.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn has_fork(&self, fork: &ForkName) -> Result<bool> {
        Ok(self.inner.get(Family::Evidence, fork.key())?.is_some())
    }

    /// The evidence of a fork, where it is kept.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn evidence_of(&self, fork: &ForkName) -> Result<Option<Bytes>> {
        let kept = self.inner.get(Family::Evidence, fork.key())?;
        Ok(kept.map(Bytes::from))
    }

    /// Whether a fork is known, with evidence or without.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn knows_fork(&self, publisher: MemberNumber, fork: &ForkName) -> Result<bool> {
        knows(&self.inner, publisher, fork)
    }

    /// All forks that are known.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn forks(&self) -> Result<Vec<ForkName>> {
        let mut forks = Vec::new();
        self.known(&[], &END, |fork, _| forks.push(fork))?;
        Ok(forks)
    }

    /// The forks of one publisher of which evidence is kept.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn forks_of(&self, publisher: MemberNumber) -> Result<Vec<ForkName>> {
        let from = publisher.value().to_be_bytes();
        let to = publisher.value().checked_add(1).map(u32::to_be_bytes);
        let to = to.as_ref().map_or(END.as_slice(), <[u8; 4]>::as_slice);
        let mut forks = Vec::new();
        self.known(&from, to, |fork, kept| forks.extend(kept.then_some(fork)))?;
        Ok(forks)
    }

    fn known(&self, from: &[u8], to: &[u8], mut visit: impl FnMut(ForkName, bool)) -> Result<()> {
        self.inner.scan(Family::Evidence, from, to, |key, row| {
            if let Ok(key) = <&[u8; KNOWN_BYTES]>::try_from(key)
                && let Some(name) = key.last_chunk()
            {
                let [VERSION, kept @ (0 | 1)] = *row else {
                    return Err(StoreError::corrupt("a fork's row"));
                };
                visit(ForkName::read(name), kept == 1);
            }
            Ok(true)
        })
    }

    /// Evidence of forks after one of them, in order of their names, at most `limit`
    /// pieces.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn evidence_after(
        &self,
        after: Option<&ForkName>,
        limit: usize,
    ) -> Result<Vec<(ForkName, Bytes)>> {
        let from = after.map_or_else(Vec::new, |after| [&after.key()[..], &[0]].concat());
        self.pieces(&from, &END, limit)
    }

    /// Evidence of forks of one feed, of every epoch that has some.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn evidence_about(&self, feed: &FeedId) -> Result<Vec<(ForkName, Bytes)>> {
        let epoch = |epoch| ForkName { feed: *feed, epoch }.key();
        let end = [&epoch(u32::MAX)[..], &[0]].concat();
        self.pieces(&epoch(0), &end, usize::MAX)
    }

    /// All evidence of forks: for who looks at a store of which it knows that there is
    /// little.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn evidence(&self) -> Result<Vec<Bytes>> {
        let all = self.pieces(&[], &END, usize::MAX)?;
        Ok(all.into_iter().map(|(_, evidence)| evidence).collect())
    }

    fn pieces(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(ForkName, Bytes)>> {
        let mut pieces = Vec::new();
        self.inner.scan(Family::Evidence, from, to, |key, bytes| {
            let room = pieces.len() < limit;
            if let Ok(key) = <&[u8; NAME_BYTES]>::try_from(key)
                && room
            {
                pieces.push((ForkName::read(key), Bytes::copy_from_slice(bytes)));
            }
            Ok(room)
        })?;
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FeedKind, NewFeed, StoreOptions};

    fn fork(n: u32) -> ForkName {
        ForkName {
            feed: FeedId(Digest::of(&n.to_be_bytes())),
            epoch: n % 3,
        }
    }

    fn evidence(fork: &ForkName) -> ForkEvidence {
        let feed = fork.feed.0;
        let note = format!(
            "test.example/feed/{feed}/{}\n7\n{}\n\n\u{2014} name {}\n",
            fork.epoch,
            "A".repeat(43) + "=",
            "A".repeat(91) + "=",
        );
        ForkEvidence {
            feed: fork.feed,
            smaller: note.clone().into(),
            larger: note.into(),
            before: Vec::new(),
            between: Vec::new(),
            node_cards: vec![Bytes::from(vec![7; 16_000])],
        }
    }

    fn member(number: u32) -> MemberNumber {
        MemberNumber::new(number).unwrap()
    }

    #[test]
    fn one_piece_is_kept_of_a_fork_and_none_of_the_cards() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path(), &StoreOptions::default()).unwrap();
        let store = open();
        let of = |n| Some(evidence(&fork(n)));
        for n in 0..40 {
            assert!(store.put_fork(member(7), &fork(n), of(n)).unwrap());
            assert!(!store.put_fork(member(7), &fork(n), of(n)).unwrap());
            assert!(!store.put_fork(member(7), &fork(n), None).unwrap());
        }
        assert!(store.put_fork(member(8), &fork(40), None).unwrap());
        assert!(!store.put_fork(member(8), &fork(40), None).unwrap());
        store.put_equivocation(b"c1", b"two cards").unwrap();
        drop(store);
        let store = open();
        assert_eq!(
            (
                store.forks().unwrap().len(),
                store.evidence().unwrap().len()
            ),
            (41, 40)
        );
        assert!(
            store
                .evidence()
                .unwrap()
                .iter()
                .all(|piece| piece.len() < 1_000)
        );
        assert_eq!(store.forks_of(member(7)).unwrap().len(), 40);
        assert!(store.forks_of(member(8)).unwrap().is_empty());
        assert!(store.knows_fork(member(8), &fork(40)).unwrap());
        assert!(!store.has_fork(&fork(40)).unwrap());
        assert_eq!(store.evidence_about(&fork(3).feed).unwrap()[0].0, fork(3));
        // What was only known is kept once somebody asks for that.
        assert!(store.put_fork(member(8), &fork(40), of(40)).unwrap());
        assert_eq!(store.forks_of(member(8)).unwrap(), [fork(40)]);
        assert_eq!(store.equivocations().unwrap().len(), 1);

        let mut paged = Vec::new();
        loop {
            let page = store.evidence_after(paged.last(), 7).unwrap();
            assert!(page.len() <= 7);
            if page.is_empty() {
                break;
            }
            paged.extend(page.into_iter().map(|(name, _)| name));
        }
        let mut all: Vec<_> = (0..41).map(fork).collect();
        all.sort_unstable();
        assert_eq!(paged, all);
    }

    #[test]
    fn evidence_of_an_older_program_gets_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path(), &StoreOptions::default()).unwrap();
        let store = open();
        let feed = NewFeed {
            id: fork(1).feed,
            publisher: member(7),
            own: false,
            kind: FeedKind::HashSet,
        };
        store.create_feed(&feed).unwrap();
        let family = store.inner.cf(Family::Evidence).unwrap();
        let mut batch = WriteBatch::default();
        for n in [1, 2] {
            let old = evidence(&fork(n)).encode();
            batch.put_cf(family, Digest::of(&old).as_bytes(), &old);
        }
        batch.put_cf(family, Digest::of(b"else").as_bytes(), b"no evidence");
        let meta = store.inner.cf(Family::Meta).unwrap();
        batch.put_cf(meta, b"schema", 6_u32.to_be_bytes());
        store.inner.write_synced(batch, "test").unwrap();
        drop(store);
        let store = open();
        assert_eq!(store.forks_of(member(7)).unwrap(), [fork(1)]);
        assert!(store.has_fork(&fork(2)).unwrap());
        assert_eq!(store.evidence().unwrap().len(), 2);
        assert!(
            store
                .evidence()
                .unwrap()
                .iter()
                .all(|piece| piece.len() < 1_000)
        );
    }
}
