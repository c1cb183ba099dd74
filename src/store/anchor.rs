//! All documents at once, when a coalition is anchored anew.

use bytes::Bytes;
use hashpact_core::id::{Digest, MemberNumber};
use rocksdb::WriteBatch;

use crate::documents::{END, versioned};
use crate::error::Result;
use crate::families::Family;
use crate::store::Store;

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
    /// `act` is what the audit feed says of it, with the act's number.
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
    ) -> Result<()> {
        let inner = &self.inner;
        let mut batch = WriteBatch::default();
        inner.begin_audit(&mut batch, act.0, act.1)?;
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
            .replace_documents(&new, &[card(1)], (9, b"act"))
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
