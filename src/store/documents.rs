//! Documents as received: rosters, cards, suspensions, evidence of two of one version.
//!
//! The store keeps the bytes and trusts nothing in them: who reads them verifies
//! them again, from the genesis digest on.

use bytes::Bytes;
use hashpact_core::id::{Digest, MemberNumber};
use rocksdb::WriteBatch;

use crate::error::Result;
use crate::families::Family;
use crate::keys;
use crate::store::Store;

/// After every key of these families.
pub(crate) const END: [u8; 64] = [0xff; 64];
/// Evidence of two documents stands under its subject, which is shorter than what other
/// evidence stands under.
const SUBJECT_MAX_BYTES: usize = 31;
/// What subjects begin with: `c`, `f` or `r`.
const SUBJECTS: (&[u8], &[u8]) = (b"c", b"s");
/// Subjects of which two documents of one version are kept: two rosters of 1 MiB at
/// most, and more than a few are one story told again.
const EQUIVOCATIONS_MAX: usize = 64;

impl Store {
    /// Keeps the envelope of one roster version; more signatures replace fewer.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn put_roster(&self, version: u64, envelope: &[u8]) -> Result<()> {
        self.put_document(Family::Roster, &version.to_be_bytes(), envelope)
    }

    /// The envelopes of all roster versions, oldest first.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn rosters(&self) -> Result<Vec<Bytes>> {
        self.documents(Family::Roster)
    }

    /// Keeps the envelope of a node card. Two payloads of one version are both kept.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn put_card(
        &self,
        member: MemberNumber,
        version: u64,
        payload: &Digest,
        envelope: &[u8],
    ) -> Result<()> {
        let key = versioned(member, version, payload);
        self.put_document(Family::Cards, &key, envelope)
    }

    /// The envelopes of all node cards, by member, oldest first.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn cards(&self) -> Result<Vec<Bytes>> {
        self.documents(Family::Cards)
    }

    /// Keeps the envelope of a suspension.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn put_suspension(
        &self,
        member: MemberNumber,
        roster_version: u64,
        payload: &Digest,
        envelope: &[u8],
    ) -> Result<()> {
        let key = versioned(member, roster_version, payload);
        self.put_document(Family::Suspensions, &key, envelope)
    }

    /// The envelopes of all suspensions, by member.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn suspensions(&self) -> Result<Vec<Bytes>> {
        self.documents(Family::Suspensions)
    }

    /// Keeps evidence of two documents of one version, the first about a subject, and
    /// of at most 64 subjects that begin with the same byte; answers whether it was kept.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn put_equivocation(&self, subject: &[u8], evidence: &[u8]) -> Result<bool> {
        let known = self.equivocation(subject)?.is_some();
        let same = |key: &[u8]| key.first() == subject.first();
        if known || self.evidence_where(same)?.len() >= EQUIVOCATIONS_MAX {
            return Ok(false);
        }
        self.put_document(Family::Evidence, subject, evidence)?;
        Ok(true)
    }

    /// What is kept of two documents about a subject.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn equivocation(&self, subject: &[u8]) -> Result<Option<Bytes>> {
        let kept = self.inner.get(Family::Evidence, subject)?;
        Ok(kept.map(Bytes::from))
    }

    /// Keeps a piece under another subject than it was.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn move_equivocation(&self, from: &[u8], to: &[u8], evidence: &[u8]) -> Result<()> {
        let family = self.inner.cf(Family::Evidence)?;
        let mut batch = WriteBatch::default();
        batch.delete_cf(family, from);
        batch.put_cf(family, to, evidence);
        // Crash: before, it is as it was, and moved another time; after, it has moved.
        self.inner.write_synced(batch, "moving evidence")
    }

    /// All evidence of two documents of one version.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn equivocations(&self) -> Result<Vec<Bytes>> {
        self.evidence_where(|_| true)
    }

    /// Those that others are told: not what an identity key signed that was replaced by
    /// the time this node met it. Subjects of these begin with `f`.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn open_equivocations(&self) -> Result<Vec<Bytes>> {
        self.evidence_where(|key| key.first() != Some(&b'f'))
    }

    fn evidence_where(&self, which: impl Fn(&[u8]) -> bool) -> Result<Vec<Bytes>> {
        let mut evidence = Vec::new();
        self.inner
            .scan(Family::Evidence, SUBJECTS.0, SUBJECTS.1, |key, document| {
                if key.len() <= SUBJECT_MAX_BYTES && which(key) {
                    evidence.push(Bytes::copy_from_slice(document));
                }
                Ok(true)
            })?;
        Ok(evidence)
    }

    /// Crash: before, the document is asked for again; after, it is kept.
    fn put_document(&self, family: Family, key: &[u8], document: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.inner.cf(family)?, key, document);
        self.inner.write_synced(batch, "keeping a document")
    }

    fn documents(&self, family: Family) -> Result<Vec<Bytes>> {
        let mut documents = Vec::new();
        self.inner.scan(family, &[], &END, |_, document| {
            documents.push(Bytes::copy_from_slice(document));
            Ok(true)
        })?;
        Ok(documents)
    }
}

pub(crate) fn versioned(member: MemberNumber, version: u64, payload: &Digest) -> Vec<u8> {
    let mut key = keys::member_version(member.value(), version).to_vec();
    key.extend_from_slice(payload.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreOptions;

    #[test]
    fn documents_come_back_in_order_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        for version in [2, 1, 300] {
            store.put_roster(version, &version.to_be_bytes()).unwrap();
        }
        let member = MemberNumber::new(7).unwrap();
        for content in [b"a", b"b"] {
            let digest = Digest::of(content);
            store.put_card(member, 1, &digest, content).unwrap();
        }
        assert!(store.put_equivocation(b"c1", b"two cards").unwrap());
        assert!(!store.put_equivocation(b"c1", b"two others").unwrap());
        assert!(store.put_equivocation(b"f1", b"of a former key").unwrap());
        store.move_equivocation(b"f1", b"f2", b"moved").unwrap();
        assert_eq!(store.equivocation(b"f1").unwrap(), None);
        assert_eq!(store.equivocation(b"f2").unwrap().unwrap(), b"moved"[..]);
        for n in 2..200_u32 {
            let subject = [&b"c"[..], &n.to_be_bytes()].concat();
            let kept = store.put_equivocation(&subject, b"more").unwrap();
            let room = usize::try_from(n).unwrap() <= EQUIVOCATIONS_MAX;
            assert_eq!(kept, room, "{n}");
        }
        drop(store);

        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let versions: Vec<u8> = store.rosters().unwrap().iter().map(|r| r[7]).collect();
        assert_eq!(versions, [1, 2, 44]);
        assert_eq!(store.cards().unwrap().len(), 2);
        assert_eq!(store.equivocations().unwrap().len(), EQUIVOCATIONS_MAX + 1);
        let told = store.open_equivocations().unwrap();
        assert_eq!(told.len(), EQUIVOCATIONS_MAX);
        assert!(!told.contains(&bytes::Bytes::from_static(b"moved")));
    }
}
