//! All documents at once, when a coalition is anchored anew.

use bytes::Bytes;
use hashpact_core::id::{Digest, MemberNumber};
use rocksdb::WriteBatch;

use crate::documents::{END, versioned};
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::store::Store;

/// Before the genesis digest of a chain that the node went by before.
const FORMER: &[u8] = b"former/";

/// A node card or a suspension, and what it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// The member that it is about.
    pub member: MemberNumber,
    /// The card's version.
    pub version: u64,
    /// The SHA-256 of its payload.
    pub payload: Digest,
    /// The envelope as received.
    pub envelope: Bytes,
}

impl Store {
    /// Puts a roster chain and its cards in the place of those held; suspensions go.
    /// `act` is what the audit feed says of it, with the act's number; `former` is the
    /// genesis of the chain that goes, and its documents as one file: heads that were
    /// signed under it are checked with its cards for ever.
    ///
    /// Crash: before, the old chain stands whole; after, the new one does, and what is
    /// to be recorded of it with it.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn replace_documents(
        &self,
        rosters: &[Bytes],
        cards: &[StoredDocument],
        act: (u64, &[u8]),
        former: Option<(&Digest, &[u8])>,
    ) -> Result<()> {
        let inner = &self.inner;
        let mut batch = WriteBatch::default();
        inner.begin_audit(&mut batch, act.0, act.1)?;
        if let Some((genesis, documents)) = former {
            let key = [FORMER, genesis.as_bytes()].concat();
            batch.put_cf(inner.cf(Family::Meta)?, key, documents);
        }
        for family in [Family::Roster, Family::Cards, Family::Suspensions] {
            batch.delete_range_cf(inner.cf(family)?, &[][..], &END[..]);
        }
        for (version, roster) in (1_u64..).zip(rosters) {
            batch.put_cf(inner.cf(Family::Roster)?, version.to_be_bytes(), roster);
        }
        for card in cards {
            let key = versioned(card.member, card.version, &card.payload);
            batch.put_cf(inner.cf(Family::Cards)?, key, &card.envelope);
        }
        inner.write_synced(batch, "anchoring anew")
    }

    /// The documents of every chain that the node went by before, each with its genesis.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn former_documents(&self) -> Result<Vec<(Digest, Bytes)>> {
        let mut former = Vec::new();
        let end = [FORMER, &[0xff; 33]].concat();
        self.inner.scan(Family::Meta, FORMER, &end, |key, value| {
            let genesis = key.get(FORMER.len()..).unwrap_or_default();
            let genesis = Digest::from_slice(genesis)
                .map_err(|_| StoreError::corrupt("the key of a former chain"))?;
            former.push((genesis, Bytes::copy_from_slice(value)));
            Ok(true)
        })?;
        Ok(former)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreOptions;

    #[test]
    fn a_new_chain_takes_the_place_of_every_document_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let member = MemberNumber::new(1).unwrap();
        let card = |version: u64| StoredDocument {
            member,
            version,
            payload: Digest::of(&version.to_be_bytes()),
            envelope: Bytes::from(format!("card {version}")),
        };
        let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
        for version in 1..=3 {
            store.put_roster(version, b"old").unwrap();
        }
        let old = card(4);
        store
            .put_card(member, 4, &old.payload, &old.envelope)
            .unwrap();
        store
            .put_suspension(member, 3, &old.payload, b"old")
            .unwrap();
        let new = [Bytes::from_static(b"new")];
        store
            .replace_documents(
                &new,
                &[card(1)],
                (9, b"act"),
                Some((&old.payload, b"former")),
            )
            .unwrap();
        drop(store);
        let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
        assert_eq!(store.rosters().unwrap(), new);
        assert_eq!(store.cards().unwrap(), [card(1).envelope]);
        assert!(store.suspensions().unwrap().is_empty());
        assert_eq!(
            store.audit_begun().unwrap(),
            [(9, Bytes::from_static(b"act"))]
        );
    }
}
