//! Rows of retractions, and erasures of what is erased.

use rocksdb::WriteBatch;

use super::*;
use crate::families::Family;
use crate::{RetractionRow, Signed, keys};

fn range(first: u64, count: u64) -> Vec<IndexRange> {
    vec![IndexRange { first, count }]
}

fn erase(first: u64, count: u64) -> RawLeaf {
    let erase = Erase {
        indexes: range(first, count),
        legal_basis: "court order".to_owned(),
        created: UnixMillis(3),
    };
    RawLeaf::new(ERASE, erase.encode([7; 16]).unwrap())
}

/// A feed of 600 entries and what comes after them.
fn feed(store: &Store, more: &[RawLeaf]) -> FeedNo {
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let mut writer = store.writer(no).unwrap();
    let leaves: Vec<RawLeaf> = (0..600).map(|n| publish(n, &[])).collect();
    writer.append(&leaves).unwrap();
    writer.append(more).unwrap();
    commit_signed(&mut writer);
    no
}

fn said(store: &Store, no: FeedNo) -> Vec<(u64, u64, u64)> {
    let rows = store.retraction_rows(no, 0, 0).unwrap();
    let rows = rows.iter();
    rows.map(|row| (row.index, row.created.0, row.entries))
        .collect()
}

#[test]
fn retractions_have_rows_which_go_with_their_leaves_and_come_back_by_a_migration() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = feed(&store, &[retract(range(4, 9)), erase(20, 2)]);
    let rows = [(601, 3, 2), (600, 1, 9)];
    assert_eq!(said(&store, no), rows);
    assert_eq!(store.retraction_rows(no, 601, 0).unwrap().len(), 1);
    assert_eq!(store.retraction_rows(no, 602, 1).unwrap().len(), 1);
    assert_eq!(store.named_by(no, 600).unwrap(), range(4, 9));
    sound(&store);

    // As an older program left it.
    let mut batch = WriteBatch::default();
    let family = store.inner.cf(Family::Retractions).unwrap();
    batch.delete_range_cf(family, keys::numbered(no, 0), keys::numbered(no, 700));
    let meta = store.inner.cf(Family::Meta).unwrap();
    batch.put_cf(meta, b"schema", 5_u32.to_be_bytes());
    store.inner.write_synced(batch, "test").unwrap();
    let report = store.verify(|_, _| Ok(()), |_, _| ()).unwrap();
    assert_eq!(report.findings.len(), 1);
    drop(store);
    let store = open(dir.path());
    assert_eq!(said(&store, no), rows);
    sound(&store);

    let mut writer = store.writer(no).unwrap();
    writer.open_epoch(1, 601).unwrap();
    assert_eq!(said(&store, no), rows[1..]);
    drop(writer);
    sound(&store);
}

#[test]
fn what_became_of_a_signature_is_kept_until_the_leaf_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let signed = Retract {
        indexes: range(4, 9),
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        created: UnixMillis(1),
        identity_signature: Some([8; 64]),
    };
    let signed = RawLeaf::new(RETRACT, signed.encode([7; 16]).unwrap());
    let no = feed(&store, &[retract(range(1, 1)), signed]);
    let rows = || store.retraction_rows(no, 0, 0).unwrap();
    assert_eq!(
        (rows()[0].signed, rows()[1].signed),
        (Signed::Unchecked, Signed::No)
    );
    let checked = RetractionRow {
        signed: Signed::Checked {
            keys: 7,
            good: true,
        },
        ..rows()[0]
    };
    store.note_signed(no, &[checked]).unwrap();
    assert_eq!(rows()[0], checked);
    sound(&store);
}

#[test]
fn an_erase_leaf_that_names_what_is_erased_reads_no_page_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = feed(&store, &[erase(0, 256)]);
    let mut writer = store.writer(no).unwrap();
    assert_eq!(writer.drop_erased().unwrap(), 256);
    // Whoever reads the page fails.
    let mut batch = WriteBatch::default();
    let pages = store.inner.cf(Family::Pages).unwrap();
    batch.put_cf(pages, keys::numbered(no, 0), b"no page");
    store.inner.write_synced(batch, "test").unwrap();
    assert!(store.read_leaf(no, 7).is_err());
    writer.append(&[erase(0, 300)]).unwrap();
    commit_signed(&mut writer);
    assert_eq!(writer.drop_erased().unwrap(), 44);
}

#[test]
fn how_far_retractions_were_heard_outlives_a_start_and_ends_with_what_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = feed(&store, &[retract(range(4, 1))]);
    let mut writer = store.writer(no).unwrap();
    assert_eq!(writer.heard(), 0);
    writer.heard_to(601, true).unwrap();
    drop(writer);
    let mut writer = store.writer(no).unwrap();
    writer.append(&[retract(range(5, 1))]).unwrap();
    commit_signed(&mut writer);
    // Of the newest one nothing is noted for good.
    writer.heard_to(602, false).unwrap();
    assert_eq!(writer.heard(), 602);
    drop(writer);
    drop(store);
    let store = open(dir.path());
    let mut writer = store.writer(no).unwrap();
    assert_eq!(writer.heard(), 601);
    writer.open_epoch(1, 600).unwrap();
    assert_eq!(writer.heard(), 600);
    drop(writer);
    sound(&store);
}
