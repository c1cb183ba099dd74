//! The store against a model: roots, ranges, look-ups, liveness, crash points.

#[path = "allowed_tests.rs"]
mod allowed;
#[path = "changes_tests.rs"]
mod changes;
#[path = "cut_tests.rs"]
mod cuts;
#[path = "elision_tests.rs"]
mod elisions;
#[path = "frame_room_tests.rs"]
mod frame_room;
#[path = "lookup_tests.rs"]
mod lookups;
#[path = "opinions/tests.rs"]
mod opinions;
#[path = "pairs_tests.rs"]
mod pairs;
#[path = "quarantine_tests.rs"]
mod quarantine;
#[path = "retractions_tests.rs"]
mod retractions;
#[path = "status_tests.rs"]
mod status;
#[path = "frames_tests.rs"]
mod videos;

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use hashpact_core::checkpoint::{self, Checkpoint, Origin};
use hashpact_core::chunk::{self, PinnedHead};
use hashpact_core::id::{CoalitionName, Digest, FeedId, MemberNumber, UnixMillis};
use hashpact_core::keys::{Feed, SecretKey};
use hashpact_core::leaf::{
    Basis, Classification, ERASE, Erase, IndexRange, MediaKind, PUBLISH, Publish, RETRACT, RawLeaf,
    Retract, RetractReason,
};
use hashpact_core::limits::CHUNK_TARGET_BYTES;
use hashpact_core::merkle::CompactRange;
use hashpact_core::signal::{Signal, SignalKind};
use proptest::prelude::*;

use crate::{FeedKind, FeedNo, FeedStatus, FeedWriter, Head, NewFeed, Store, StoreOptions};

/// A bulk load from 300 leaves on, and a spill that does not fit in memory.
fn options() -> StoreOptions {
    StoreOptions {
        bulk_from_leaves: 300,
        bulk_memory_bytes: 64 << 10,
        ..StoreOptions::default()
    }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, &options()).unwrap()
}

fn new_feed(own: bool, name: &[u8]) -> NewFeed {
    NewFeed {
        id: FeedId(Digest::of(name)),
        publisher: MemberNumber::new(1).unwrap(),
        own,
        kind: FeedKind::HashSet,
    }
}

fn signals(n: u64) -> [Signal; 2] {
    let value = Digest::of(&n.to_be_bytes());
    let other = Digest::of(value.as_bytes());
    [
        Signal::new(SignalKind::Sha256, value.0.to_vec().into(), None).unwrap(),
        Signal::new(SignalKind::Pdq, other.0.to_vec().into(), Some(90)).unwrap(),
    ]
}

fn publish(n: u64, replaces: &[u64]) -> RawLeaf {
    let publish = Publish {
        media_kind: MediaKind::Image,
        signals: signals(n).to_vec(),
        classification: Some(Classification::parse("A1").unwrap()),
        labels: vec!["label".to_owned()],
        basis: Basis::Human,
        source_reference: format!("case {n}"),
        first_seen: None,
        expires: None,
        replaces: replaces.to_vec(),
        published: UnixMillis(1_700_000_000_000 + n),
    };
    RawLeaf::new(PUBLISH, publish.encode([7; 16]).unwrap())
}

fn retract(ranges: Vec<IndexRange>) -> RawLeaf {
    let retract = Retract {
        indexes: ranges,
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        created: UnixMillis(1),
        identity_signature: None,
    };
    RawLeaf::new(RETRACT, retract.encode([7; 16]).unwrap())
}

fn head(feed: FeedId, epoch: u32, size: u64, root: Digest) -> Head {
    let key = SecretKey::<Feed>::from_seed(&[3; 32]);
    let coalition = CoalitionName::parse("test.example").unwrap();
    let origin = Origin {
        coalition: coalition.clone(),
        feed,
        epoch,
    };
    let note = checkpoint::sign(&Checkpoint { origin, size, root }, &key);
    let verified = checkpoint::verify(&note, &coalition, &feed, |_| vec![key.public()]).unwrap();
    Head::new(&verified, UnixMillis(5))
}

fn commit_signed(writer: &mut FeedWriter) {
    let info = writer.info();
    let root = writer.frontier().root().unwrap();
    let head = head(info.id, info.epoch, writer.size(), root);
    writer.commit(Some(&head)).unwrap();
}

fn sound(store: &Store) {
    let report = store.verify(|_, _| Ok(()), |_, _| ()).unwrap();
    assert_eq!(report.findings, []);
}

fn at(index: u64) -> usize {
    index.try_into().unwrap()
}

/// What a feed should hold, kept as a list.
#[derive(Default)]
struct Model {
    leaves: Vec<RawLeaf>,
    /// The number of each entry's signals, by index.
    entries: Vec<Option<u64>>,
    dead: BTreeSet<u64>,
}

impl Model {
    fn push(&mut self, leaf: RawLeaf, entry: Option<u64>) {
        self.leaves.push(leaf);
        self.entries.push(entry);
    }

    fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn range(&self, a: u64, b: u64) -> CompactRange {
        let mut range = CompactRange::empty(a);
        for leaf in &self.leaves[at(a)..at(b)] {
            range.push(leaf.hash());
        }
        range
    }

    fn check(&self, store: &Store, no: FeedNo) {
        let info = store.feed(no).unwrap();
        assert_eq!((info.stored, info.indexed), (self.size(), self.size()));
        assert_eq!(info.dead, self.dead.len() as u64);
        assert_eq!(store.read_leaves(no, 0, self.size()).unwrap(), self.leaves);
        let numbers: Vec<u64> = self.entries.iter().flatten().copied().collect();
        let keys: Vec<_> = numbers.iter().map(|n| signals(*n)[0].index_key()).collect();
        for (n, found) in numbers.iter().zip(store.lookup(&keys).unwrap()) {
            let live = self.entries.iter().zip(0..);
            let live = live.filter(|(e, i)| **e == Some(*n) && !self.dead.contains(i));
            let wanted: Vec<u64> = live.map(|(_, i)| i).collect();
            let got: Vec<u64> = found.iter().map(|posting| posting.index).collect();
            assert_eq!(got, wanted);
        }
        sound(store);
    }
}

fn pull(from: &Store, no: FeedNo, to: &Store, id: FeedNo, target: usize) {
    let size = from.feed(no).unwrap().stored;
    let pinned = PinnedHead {
        size,
        root: from.root_at(no, size).unwrap(),
    };
    let mut writer = to.writer(id).unwrap();
    while writer.size() < size {
        let parts = from.chunk(no, writer.size(), size, size, target).unwrap();
        assert!(parts.to > parts.from);
        let chunk = chunk::verify(&parts, &pinned).unwrap();
        writer.append_verified(&chunk).unwrap();
    }
    commit_signed(&mut writer);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_history_gives_the_models_roots_lookups_and_liveness(
        steps in prop::collection::vec((0_u8..8, 1_u64..400), 1..10),
        ranges in prop::collection::vec((0_u64..2_000, 0_u64..2_000), 8),
        target in prop::sample::select(vec![1_usize, 20_000, CHUNK_TARGET_BYTES]),
    ) {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut store = open(dir.path());
        let no = store.create_feed(&new_feed(true, b"feed")).unwrap();
        let mut model = Model::default();
        for (step, count) in steps {
            let mut writer = store.writer(no).unwrap();
            let from = model.size();
            match step {
                0 if from > 0 => {
                    let first = count % from;
                    let count = (from - first).min(3);
                    model.push(retract(vec![IndexRange { first, count }]), None);
                    for index in first..first + count {
                        if model.entries[at(index)].is_some() {
                            model.dead.insert(index);
                        }
                    }
                }
                1 if from > 0 && model.entries[at(count % from)].is_some()
                    && !model.dead.contains(&(count % from)) =>
                {
                    let old = count % from;
                    let first = store.lookup(&[signals(model.entries[at(old)].unwrap())[0].index_key()]).unwrap();
                    let first = first[0].iter().find(|p| p.index == old).unwrap().first;
                    let mut replaces: Vec<u64> = vec![first, old];
                    replaces.dedup();
                    model.push(publish(100_000 + from, &replaces), Some(100_000 + from));
                    model.dead.insert(old);
                }
                2 => model.push(RawLeaf::new(99, Bytes::from_static(b"unknown kind")), None),
                3 => model.push(RawLeaf::new(ERASE, Bytes::from_static(b"void")), None),
                _ => for n in from..from + count {
                    model.push(publish(n, &[]), Some(n));
                },
            }
            writer.append(&model.leaves[at(from)..]).unwrap();
            if step == 4 {
                // Stored, not indexed, then lost: the next open finds it.
                writer.sync().unwrap();
                drop(writer);
                drop(store);
                store = open(dir.path());
                store.writer(no).unwrap().commit(None).unwrap();
            } else {
                commit_signed(&mut writer);
            }
        }
        model.check(&store, no);
        let size = model.size();
        for (a, b) in ranges {
            let (a, b) = (a.min(b) % (size + 1), a.max(b) % (size + 1));
            let (a, b) = (a.min(b), a.max(b));
            prop_assert_eq!(store.range(no, a, b).unwrap(), model.range(a, b));
            prop_assert_eq!(store.root_at(no, b).unwrap(), model.range(0, b).root().unwrap());
        }
        let reader = open(other.path());
        let copy = reader.create_feed(&new_feed(false, b"feed")).unwrap();
        pull(&store, no, &reader, copy, target);
        model.check(&reader, copy);
        drop(store);
        drop(reader);
        model.check(&open(dir.path()), no);
        model.check(&open(other.path()), copy);
    }
}

#[test]
fn truncation_takes_back_everything_derived() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(true, b"feed")).unwrap();
    let mut model = Model::default();
    for n in 0..300 {
        model.push(publish(n, &[]), Some(n));
    }
    let mut writer = store.writer(no).unwrap();
    writer.append(&model.leaves).unwrap();
    commit_signed(&mut writer);
    let range = IndexRange { first: 3, count: 2 };
    writer
        .append(&[retract(vec![range]), publish(7, &[7])])
        .unwrap();
    let more: Vec<RawLeaf> = (1_000..1_600).map(|n| publish(n, &[])).collect();
    writer.append(&more).unwrap();
    writer.commit(None).unwrap();
    assert!(store.is_dead(no, 3).unwrap() && store.is_dead(no, 7).unwrap());
    assert!(
        writer.truncate_unsigned(299).is_err(),
        "below the signed head"
    );
    writer.truncate_unsigned(300).unwrap();
    model.check(&store, no);
    assert_eq!(store.latest_version(no, 7).unwrap(), 7);
    // Other leaves take the indexes.
    for n in 5_000..5_400 {
        model.push(publish(n, &[]), Some(n));
    }
    writer.append(&model.leaves[300..]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    drop(store);
    model.check(&open(dir.path()), no);
}

#[test]
fn a_new_epoch_cuts_off_signed_leaves_and_doubts_what_they_had_killed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let leaves: Vec<RawLeaf> = (0..600).map(|n| publish(n, &[])).collect();
    let mut writer = store.writer(no).unwrap();
    writer.append(&leaves).unwrap();
    commit_signed(&mut writer);
    writer
        .append(&[publish(900, &[3]), publish(901, &[7])])
        .unwrap();
    commit_signed(&mut writer);
    assert!(store.is_dead(no, 3).unwrap());
    let root = store.root_at(no, 500).unwrap();
    assert_eq!(writer.open_epoch(1, 500).unwrap(), 102);
    drop(writer);
    let check = |store: &Store| {
        let feed = store.feed(no).unwrap();
        assert_eq!((feed.stored, feed.indexed, feed.epoch), (500, 500, 1));
        assert_eq!(feed.applied, None, "no head of so few leaves was kept");
        assert_eq!(store.root_at(no, 500).unwrap(), root);
        assert!(!store.is_dead(no, 3).unwrap());
        assert_eq!(store.doubted(no).unwrap(), 2);
        assert!(store.held_retractions(no).unwrap().is_empty());
    };
    check(&store);
    drop(store);
    let store = open(dir.path());
    check(&store);
    // What is held for other reasons changes nothing about what is in doubt.
    store.hold_retractions(no, BTreeSet::new()).unwrap();
    check(&store);
    let mut writer = store.writer(no).unwrap();
    writer.append(&[publish(902, &[3])]).unwrap();
    commit_signed(&mut writer);
    assert_eq!(store.doubted(no).unwrap(), 1, "the new epoch spoke of one");
}

#[test]
fn what_was_not_synced_is_gone_after_a_crash_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(true, b"feed")).unwrap();
    let mut model = Model::default();
    for n in 0..1_000 {
        model.push(publish(n, &[]), Some(n));
    }
    let mut writer = store.writer(no).unwrap();
    writer.append(&model.leaves).unwrap();
    commit_signed(&mut writer);
    let lost: Vec<RawLeaf> = (2_000..2_500).map(|n| publish(n, &[])).collect();
    writer.append(&lost).unwrap();
    assert_eq!(store.feed(no).unwrap().stored, 1_000);
    drop(writer);
    drop(store);
    model.check(&open(dir.path()), no);
}

#[test]
fn no_more_waits_to_be_made_durable_than_the_options_say() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        unsynced_max_bytes: 20_000,
        ..StoreOptions::default()
    };
    let store = Store::open(dir.path(), &options).unwrap();
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let leaves: Vec<RawLeaf> = (0..1_024).map(|n| publish(n, &[])).collect();
    let mut writer = store.writer(no).unwrap();
    let mut stored = Vec::new();
    for page in leaves.chunks(256) {
        writer.append(page).unwrap();
        stored.push(store.feed(no).unwrap().stored);
    }
    assert_eq!(stored[0], 0, "a page is less than may wait");
    assert!(stored[3] > 0, "{stored:?}");
    drop(writer);
    drop(store);
    assert_eq!(open(dir.path()).feed(no).unwrap().stored, stored[3]);
}

#[test]
fn a_check_finds_nothing_wrong_with_a_store_that_is_written_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let make = |name: &[u8]| {
        let no = store.create_feed(&new_feed(true, name)).unwrap();
        let mut writer = store.writer(no).unwrap();
        let leaves: Vec<RawLeaf> = (0..600).map(|n| publish(n, &[])).collect();
        writer.append(&leaves).unwrap();
        commit_signed(&mut writer);
        no
    };
    let feeds = [make(b"one"), make(b"two")];
    let mut written = false;
    let write = |_, _| {
        if !std::mem::replace(&mut written, true) {
            for no in feeds {
                let mut writer = store.writer(no).unwrap();
                let more: Vec<RawLeaf> = (600..900).map(|n| publish(n, &[n - 600])).collect();
                writer.append(&more).unwrap();
                commit_signed(&mut writer);
            }
            make(b"three");
        }
    };
    let report = store.verify(|_, _| Ok(()), write).unwrap();
    assert!(written);
    assert_eq!(report.findings, []);
    let report = store.verify(|_, _| Ok(()), |_, _| ()).unwrap();
    assert_eq!((report.feeds, report.findings), (3, Vec::new()));
}

#[test]
fn heads_that_the_leaves_do_not_lead_to_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let id = store.feed(no).unwrap().id;
    let mut writer = store.writer(no).unwrap();
    writer.append(&[publish(1, &[])]).unwrap();
    let wrong = head(id, 0, 1, Digest::of(b"another"));
    assert!(writer.commit(Some(&wrong)).is_err());
    let beyond = head(id, 0, 2, Digest::of(b"another"));
    assert!(writer.commit(Some(&beyond)).is_err());
    commit_signed(&mut writer);
    assert!(store.put_head(no, &wrong).is_err(), "two roots of one size");
    assert_eq!(store.applied_head(no).unwrap().unwrap().at().size, 1);
    assert_eq!(store.heads(no, 9).unwrap().len(), 1);
    assert!(store.writer(no).is_err(), "one writer at a time");
}

#[test]
fn a_dropped_feed_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"one")).unwrap();
    let other = store.create_feed(&new_feed(false, b"two")).unwrap();
    let leaves: Vec<RawLeaf> = (0..600).map(|n| publish(n, &[])).collect();
    for feed in [no, other] {
        let mut writer = store.writer(feed).unwrap();
        writer.append(&leaves).unwrap();
        commit_signed(&mut writer);
    }
    let key = signals(1)[0].index_key();
    store.set_feed_status(other, FeedStatus::Silent).unwrap();
    assert_eq!(store.lookup(&[key]).unwrap()[0].len(), 1);
    store.set_feed_status(other, FeedStatus::Active).unwrap();
    store.drop_feed(no).unwrap();
    let found: Vec<FeedNo> = store.lookup(&[key]).unwrap()[0]
        .iter()
        .map(|p| p.feed)
        .collect();
    assert_eq!(found, [other]);
    assert!(store.feed(no).is_err());
    sound(&store);
    assert_ne!(store.create_feed(&new_feed(false, b"one")).unwrap(), no);
}

#[test]
fn verify_finds_a_posting_without_a_leaf_and_a_changed_page() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let leaves: Vec<RawLeaf> = (0..600).map(|n| publish(n, &[])).collect();
    let mut writer = store.writer(no).unwrap();
    writer.append(&leaves).unwrap();
    commit_signed(&mut writer);
    sound(&store);
    let inner = &store.inner;
    let key = crate::keys::signal(&[3; 33], no, 5);
    let signals = inner.cf(crate::families::Family::Signals).unwrap();
    inner.db.put_cf(signals, key, [0; 10]).unwrap();
    let page = hashpact_core::page::encode(&leaves[1..257]).unwrap();
    let pages = inner.cf(crate::families::Family::Pages).unwrap();
    inner
        .db
        .put_cf(pages, crate::keys::numbered(no, 0), page)
        .unwrap();
    let report = store.verify(|_, _| Ok(()), |_, _| ()).unwrap();
    let kinds: Vec<_> = report.findings.iter().map(|f| f.kind).collect();
    for kind in [
        crate::FindingKind::Tree,
        crate::FindingKind::HeadRoot,
        crate::FindingKind::Signals,
    ] {
        assert!(kinds.contains(&kind), "{kind:?} in {kinds:?}");
    }
}

#[test]
fn a_raw_load_ingests_every_posting_and_page() {
    let dir = tempfile::tempdir().unwrap();
    let mut load = crate::RawLoad::begin(dir.path(), &options()).unwrap();
    for index in 0..10_000_u64 {
        let mut key = [3; 33];
        key[1..].copy_from_slice(&Digest::of(&index.to_be_bytes()).0);
        load.posting(&key, index).unwrap();
    }
    load.page(0, Bytes::from_static(b"page")).unwrap();
    let stats = load.finish().unwrap().stats().unwrap();
    let records = |name| {
        let family = stats.families.iter().find(|family| family.name == name);
        family.unwrap().records_estimate
    };
    assert_eq!((records("signals"), records("pages")), (10_000, 1));
}

#[test]
fn retractions_that_are_held_before_they_count_never_take_anything_out() {
    // In a small commit, and in a bulk load.
    for more in [0, 400] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
        let mut writer = store.writer(no).unwrap();
        let leaves: Vec<RawLeaf> = (0..20).map(|n| publish(n, &[])).collect();
        writer.append(&leaves).unwrap();
        commit_signed(&mut writer);
        let taken = IndexRange { first: 3, count: 5 };
        writer.append(&[retract(vec![taken])]).unwrap();
        let rest: Vec<RawLeaf> = (21..21 + more).map(|n| publish(n, &[])).collect();
        writer.append(&rest).unwrap();
        let taking = writer.taking().unwrap();
        assert_eq!(taking.retractions.keys().copied().collect::<Vec<_>>(), [20]);
        store.hold_retractions(no, [20].into()).unwrap();
        commit_signed(&mut writer);
        // Nobody looked at it after the commit.
        let found = store.lookup(&[signals(4)[0].index_key()]).unwrap();
        assert_eq!(found[0].len(), 1, "{more}");
        assert!(found[0][0].held);
        sound(&store);
    }
}

#[test]
fn old_heads_are_pruned_as_new_ones_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let mut writer = store.writer(no).unwrap();
    for n in 0..600 {
        writer.append(&[publish(n, &[])]).unwrap();
        commit_signed(&mut writer);
    }
    // All of one minute: the first, the newest, and those since the last pruning.
    let heads = store.heads(no, usize::MAX).unwrap();
    assert!(heads.len() < 400, "{}", heads.len());
    let sizes: Vec<u64> = heads.iter().map(|head| head.at().size).collect();
    assert_eq!((sizes[0], sizes[63]), (600, 537));
    assert_eq!(sizes.last(), Some(&1));
    drop(writer);
    sound(&store);
}
