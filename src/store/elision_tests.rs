//! Elided leaves: full replay against permitted elided pulls, refills, erased bytes.

use hashpact_core::chunk::{ChunkParts, Layout, VerifiedChunk};
use hashpact_core::page;

use super::*;
use crate::Posting;
use crate::RefillTerms;

fn erase(ranges: Vec<IndexRange>) -> RawLeaf {
    let erase = Erase {
        indexes: ranges,
        legal_basis: "court order".to_owned(),
        created: UnixMillis(1),
    };
    RawLeaf::new(ERASE, erase.encode([7; 16]).unwrap())
}

fn one(first: u64) -> Vec<IndexRange> {
    vec![IndexRange { first, count: 1 }]
}

/// The leaves of a feed from `from` to its end, as a chunk, those that `elide` names
/// as records.
pub(super) fn chunk_of(
    store: &Store,
    no: FeedNo,
    from: u64,
    to: u64,
    elide: impl Fn(u64) -> bool,
) -> VerifiedChunk {
    let mut leaves = store.read_leaves(no, from, to).unwrap();
    for (index, leaf) in (from..).zip(&mut leaves) {
        if elide(index) {
            *leaf = leaf.elided();
        }
    }
    let layout = Layout::of(from, to);
    let (lead, rest) = leaves.split_at(layout.leading);
    let (pages, trail) = rest.split_at(layout.pages * 256);
    let parts = ChunkParts {
        from,
        to,
        leading: page::encode_plain(lead).unwrap(),
        pages: pages
            .chunks(256)
            .map(|p| page::encode(p).unwrap())
            .collect(),
        trailing: page::encode_plain(trail).unwrap(),
        before: store.range(no, 0, from).unwrap().hashes().to_vec(),
        after: Vec::new(),
    };
    let root = store.root_at(no, to).unwrap();
    chunk::verify(&parts, &PinnedHead { size: to, root }).unwrap()
}

/// All that look-ups answer of a feed, and what is dead in it.
fn answers(store: &Store, no: FeedNo, entries: u64) -> (Vec<Vec<Posting>>, Vec<u64>) {
    let keys: Vec<_> = (0..entries)
        .flat_map(|n| signals(n).map(|signal| signal.index_key()))
        .collect();
    let dead = store
        .with_liveness(no, hashpact_core::liveness::Liveness::dead)
        .unwrap();
    (store.lookup(&keys).unwrap(), dead.into_iter().collect())
}

fn commit(writer: &mut FeedWriter) {
    commit_signed(writer);
    writer.drop_erased().unwrap();
}

/// A feed of `fill` plain entries with some operations after them.
fn feed_of(fill: u64, ops: &[(u8, Vec<u64>)]) -> Vec<RawLeaf> {
    let mut leaves: Vec<RawLeaf> = (0..fill).map(|n| publish(n, &[])).collect();
    for (at, (kind, named)) in (fill..).zip(ops) {
        // Near the end and at page boundaries, where things go wrong.
        let named: BTreeSet<u64> = named
            .iter()
            .map(|n| {
                if n % 3 == 0 {
                    n % 12
                } else {
                    at.saturating_sub(1 + n % 12)
                }
            })
            .filter(|n| *n < at)
            .collect();
        let ranges = IndexRange::gather(named.iter().copied());
        leaves.push(match kind {
            0 if !ranges.is_empty() => retract(ranges),
            1 if !ranges.is_empty() => erase(ranges),
            2..=5 => publish(at, &named.into_iter().collect::<Vec<_>>()),
            _ => publish(at, &[]),
        });
    }
    leaves
}

fn ops() -> impl Strategy<Value = Vec<(u8, Vec<u64>)>> {
    let op = (0_u8..8, prop::collection::vec(0_u64..60, 0..4));
    prop::collection::vec(op, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_full_replay_equals_every_permitted_elided_pull(
        fill in prop_oneof![0_u64..4, 250_u64..262, 505_u64..520],
        ops in ops(), cuts in prop::collection::vec(0_usize..60, 0..3),
        taken in any::<u64>(), lies in prop::collection::btree_set(0_u64..560, 0..4),
    ) {
        let (full_dir, some_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (full, some) = (open(full_dir.path()), open(some_dir.path()));
        let no = full.create_feed(&new_feed(false, b"feed")).unwrap();
        prop_assert_eq!(some.create_feed(&new_feed(false, b"feed")).unwrap(), no);
        let leaves = feed_of(fill, &ops);
        let mut sizes: BTreeSet<usize> = cuts.into_iter().map(|cut| at(fill) + cut).collect();
        sizes.retain(|size| (1..leaves.len()).contains(size));
        sizes.insert(leaves.len());
        let mut from = 0;
        for size in sizes {
            let mut writer = full.writer(no).unwrap();
            writer.append(&leaves[from..size]).unwrap();
            commit_signed(&mut writer);
            let (begin, end) = (from as u64, size as u64);
            let at_head = full.liveness_at(no, end).unwrap();
            let permitted = |n: u64| at_head.may_elide(n, end) && taken >> (n % 64) & 1 == 1;
            let lying = |n: u64| lies.contains(&n) && n > 0;
            let pulled = chunk_of(&full, no, begin, end, |n| permitted(n) || lying(n));
            writer.drop_erased().unwrap();
            drop(writer);

            let mut writer = some.writer(no).unwrap();
            writer.append_verified(&pulled).unwrap();
            commit_signed(&mut writer);
            for _ in 0..6 {
                if some.elisions(no).unwrap().unjustified.is_empty() {
                    break;
                }
                writer.refill(&chunk_of(&full, no, 0, end, |_| false), &RefillTerms::default()).unwrap();
            }
            writer.drop_erased().unwrap();
            prop_assert_eq!(some.feed(no).unwrap().missing, 0);
            prop_assert_eq!(answers(&full, no, end), answers(&some, no, end));
            prop_assert_eq!(full.root_at(no, end).unwrap(), some.root_at(no, end).unwrap());
            from = size;
        }
        sound(&full);
        sound(&some);
        drop((full, some));
        let (full, some) = (open(full_dir.path()), open(some_dir.path()));
        let end = leaves.len() as u64;
        prop_assert_eq!(answers(&full, no, end), answers(&some, no, end));
        prop_assert_eq!(some.feed(no).unwrap().missing, 0);
        sound(&some);
    }
}

/// A publisher's store of 600 entries and a retraction of two, and a reader's empty one.
struct Pair {
    _dirs: [tempfile::TempDir; 2],
    full: Store,
    some: Store,
    no: FeedNo,
}

impl Pair {
    fn new(last: &[RawLeaf]) -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (full, some) = (open(dirs[0].path()), open(dirs[1].path()));
        let no = full.create_feed(&new_feed(false, b"feed")).unwrap();
        some.create_feed(&new_feed(false, b"feed")).unwrap();
        let mut leaves: Vec<RawLeaf> = (0..600).map(|n| publish(n, &[])).collect();
        leaves.extend(last.iter().cloned());
        let mut writer = full.writer(no).unwrap();
        writer.append(&leaves).unwrap();
        commit_signed(&mut writer);
        drop(writer);
        Self {
            _dirs: dirs,
            full,
            some,
            no,
        }
    }

    fn pull(&self, elide: impl Fn(u64) -> bool) -> FeedWriter {
        let size = self.full.feed(self.no).unwrap().stored;
        let mut writer = self.some.writer(self.no).unwrap();
        let chunk = chunk_of(&self.full, self.no, 0, size, elide);
        writer.append_verified(&chunk).unwrap();
        commit_signed(&mut writer);
        writer
    }
}

#[test]
fn what_was_elided_without_reason_is_kept_unanswered_and_refilled() {
    let pair = Pair::new(&[retract(one(7)), publish(600, &[5])]);
    let mut writer = pair.pull(|n| [5, 7, 300, 580, 601].contains(&n));
    let (some, no) = (&pair.some, pair.no);
    let elisions = some.elisions(no).unwrap();
    let first = |ranges: &[IndexRange]| ranges.iter().map(|r| r.first).collect::<Vec<_>>();
    // 601 replaces 5, and is not there to say so.
    assert_eq!(first(&elisions.unjustified), [5, 300, 580]);
    assert_eq!(
        (
            some.feed(no).unwrap().elided,
            some.feed(no).unwrap().missing
        ),
        (5, 4)
    );
    let asked = |n| some.lookup(&[signals(n)[0].index_key()]).unwrap()[0].len();
    assert_eq!((asked(299), asked(300), asked(580)), (1, 0, 0));
    sound(some);
    assert_eq!(
        writer
            .refill(
                &chunk_of(&pair.full, no, 256, 602, |_| false),
                &RefillTerms::default()
            )
            .unwrap()
            .leaves,
        3
    );
    assert_eq!((asked(300), asked(580), asked(600)), (1, 1, 1));
    assert_eq!(some.elisions(no).unwrap().unjustified, []);
    assert!(
        some.read_leaf(no, 7).unwrap().is_elided(),
        "what is dead stays a record"
    );
    assert!(some.read_leaf(no, 5).unwrap().is_elided());
    sound(some);
    assert_eq!(
        writer
            .refill(
                &chunk_of(&pair.full, no, 0, 602, |_| false),
                &RefillTerms::default()
            )
            .unwrap()
            .leaves,
        0
    );
}

#[test]
fn leaves_that_came_back_last_with_the_tail_that_becomes_a_page() {
    let pair = Pair::new(&[]);
    let mut writer = pair.pull(|n| n == 590);
    writer.append(&[publish(700, &[])]).unwrap();
    writer
        .refill(
            &chunk_of(&pair.full, pair.no, 512, 600, |_| false),
            &RefillTerms::default(),
        )
        .unwrap();
    let more: Vec<RawLeaf> = (701..900).map(|n| publish(n, &[])).collect();
    writer.append(&more).unwrap();
    commit_signed(&mut writer);
    assert!(!pair.some.read_leaf(pair.no, 590).unwrap().is_elided());
    sound(&pair.some);
}

#[test]
fn a_retraction_that_comes_back_takes_effect_and_an_erasure_erases() {
    let pair = Pair::new(&[retract(one(7)), erase(one(9))]);
    let mut writer = pair.pull(|n| [7, 9, 600, 601].contains(&n));
    writer.drop_erased().unwrap();
    let elisions = pair.some.elisions(pair.no).unwrap();
    assert_eq!(elisions.unjustified.len(), 2, "{elisions:?}");
    writer
        .refill(
            &chunk_of(&pair.full, pair.no, 0, 602, |_| false),
            &RefillTerms::default(),
        )
        .unwrap();
    writer.drop_erased().unwrap();
    assert!(pair.some.read_leaf(pair.no, 9).unwrap().is_elided());
    assert!(pair.some.is_dead(pair.no, 7).unwrap());
    assert_eq!(pair.some.feed(pair.no).unwrap().missing, 0);
    sound(&pair.some);
}

#[test]
fn a_held_erasure_drops_nothing_and_is_not_elided_until_it_is_spoken_for() {
    let pair = Pair::new(&[erase(vec![IndexRange {
        first: 10,
        count: 200,
    }])]);
    let (store, no) = (&pair.full, pair.no);
    store.hold_retractions(no, BTreeSet::from([600])).unwrap();
    let mut writer = store.writer(no).unwrap();
    assert_eq!(writer.drop_erased().unwrap(), 0);
    assert!(store.is_dead(no, 10).unwrap() && store.is_held(no, 10).unwrap());
    let parts = store
        .chunk_with(no, 0, 601, 601, CHUNK_TARGET_BYTES, true)
        .unwrap();
    let root = store.root_at(no, 601).unwrap();
    let sent = chunk::verify(&parts, &PinnedHead { size: 601, root }).unwrap();
    assert!(sent.leaves().all(|(_, leaf)| !leaf.is_elided()));

    // A reader that was given records all the same wants the payloads.
    drop(pair.pull(|n| (10..210).contains(&n)));
    pair.some
        .hold_retractions(no, BTreeSet::from([600]))
        .unwrap();
    let elisions = pair.some.elisions(no).unwrap();
    assert!(elisions.unjustified.is_empty() && !elisions.held.is_empty());
    let mut reader = pair.some.writer(no).unwrap();
    assert_eq!(
        reader
            .refill(
                &chunk_of(store, no, 0, 601, |_| false),
                &RefillTerms::default()
            )
            .unwrap()
            .leaves,
        200
    );
    let asked = pair.some.lookup(&[signals(50)[0].index_key()]).unwrap();
    assert!(asked[0][0].held);
    sound(&pair.some);

    writer
        .append(&[retract(vec![IndexRange {
            first: 10,
            count: 90,
        }])])
        .unwrap();
    commit_signed(&mut writer);
    store.hold_retractions(no, BTreeSet::from([600])).unwrap();
    assert_eq!(writer.drop_erased().unwrap(), 90);
    assert!(store.read_leaf(no, 99).unwrap().is_elided());
    assert!(!store.read_leaf(no, 100).unwrap().is_elided());
    sound(store);
}

#[test]
fn erasing_the_newest_version_alone_leaves_the_one_before_as_the_latest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(true, b"feed")).unwrap();
    let mut writer = store.writer(no).unwrap();
    let versions = [publish(1, &[]), publish(1, &[0]), publish(1, &[0, 1])];
    writer.append(&versions).unwrap();
    writer.append(&[erase(one(2))]).unwrap();
    commit(&mut writer);
    assert_eq!(store.latest_version(no, 0).unwrap(), 1);
    sound(&store);
    writer
        .append(&[erase(vec![IndexRange { first: 0, count: 2 }])])
        .unwrap();
    commit(&mut writer);
    assert_eq!(store.feed(no).unwrap().elided, 3);
    sound(&store);
}

/// The files under `dir` in which `needle` lies, as it is or in a page.
fn files_with(dir: &Path, needle: &[u8]) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let frames = bytes
                .windows(4)
                .enumerate()
                .filter(|(_, w)| *w == b"\x28\xb5\x2f\xfd");
            let inside = frames.filter_map(|(at, _)| {
                let frame = &bytes[at..];
                let size = zstd::zstd_safe::find_frame_compressed_size(frame).ok()?;
                zstd::bulk::decompress(frame.get(..size)?, 3 << 20).ok()
            });
            if holds(&bytes) || inside.into_iter().any(|plain| holds(&plain)) {
                found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn erased_payloads_leave_the_files_with_all_that_was_derived_from_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(true, b"feed")).unwrap();
    let leaves: Vec<RawLeaf> = (0..600).map(|n| publish(n, &[])).collect();
    let mut writer = store.writer(no).unwrap();
    // As a bulk load and in the log, in a page, in the tail.
    writer.append(&leaves[..400]).unwrap();
    commit(&mut writer);
    store.flush().unwrap();
    writer.append(&leaves[400..]).unwrap();
    commit(&mut writer);
    let root = store.root_at(no, 600).unwrap();
    let mut needles: Vec<Vec<u8>> = Vec::new();
    for n in [120, 590] {
        needles.extend(signals(n).map(|signal| signal.value().to_vec()));
        needles.push(format!("case {n}").into_bytes());
        for needle in &needles {
            assert!(
                !files_with(dir.path(), needle).is_empty(),
                "{n} is found while it is there"
            );
        }
    }
    writer.append(&[erase(one(120)), erase(one(590))]).unwrap();
    commit(&mut writer);
    assert!(store.purge_due());
    store.purge().unwrap();
    assert!(!store.purge_due());
    for needle in &needles {
        let mut found = files_with(dir.path(), needle);
        // The boundaries of files stand there until the next start.
        found.retain(|file| !file.starts_with("MANIFEST"));
        assert_eq!(found, Vec::<String>::new());
    }
    assert_eq!(store.root_at(no, 600).unwrap(), root);
    sound(&store);
    drop(writer);
    drop(store);
    let store = open(dir.path());
    assert!(!store.purge_due());
    for needle in &needles {
        assert_eq!(files_with(dir.path(), needle), Vec::<String>::new());
    }
    sound(&store);
}

#[test]
fn what_a_crash_left_to_purge_is_known_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let leaves: Vec<RawLeaf> = (0..300).map(|n| publish(n, &[])).collect();
    let mut writer = store.writer(no).unwrap();
    writer.append(&leaves).unwrap();
    writer.append(&[erase(one(20))]).unwrap();
    let growth = hashpact_core::puller::Growth {
        level: 300,
        at: hashpact_core::id::UnixMillis(7),
        from: 0,
    };
    writer.note_growth(growth);
    commit_signed(&mut writer);
    drop(writer);
    drop(store);
    let store = open(dir.path());
    assert!(!store.purge_due(), "nothing was dropped");
    assert_eq!(
        store.unsettled(no).unwrap(),
        Some(0),
        "the drop is still to be done"
    );
    store.writer(no).unwrap().drop_erased().unwrap();
    assert_eq!(store.unsettled(no).unwrap(), None);
    drop(store);
    let store = open(dir.path());
    assert!(store.purge_due());
    store.purge().unwrap();
    for signal in signals(20) {
        let mut found = files_with(dir.path(), signal.value());
        found.retain(|file| !file.starts_with("MANIFEST"));
        assert_eq!(found, Vec::<String>::new());
    }
    drop(store);
    let store = open(dir.path());
    assert!(!store.purge_due());
    assert_eq!(store.growth(no).unwrap(), growth, "it stands beside");
}

#[test]
fn erased_payloads_are_dropped_and_dead_leaves_travel_as_records() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(true, b"feed")).unwrap();
    let leaves: Vec<RawLeaf> = (0..600).map(|n| publish(n, &[])).collect();
    let erase = Erase {
        indexes: vec![
            IndexRange {
                first: 10,
                count: 3,
            },
            IndexRange {
                first: 590,
                count: 1,
            },
        ],
        legal_basis: "court order".to_owned(),
        created: UnixMillis(1),
    };
    let mut writer = store.writer(no).unwrap();
    writer.append(&leaves).unwrap();
    writer
        .append(&[RawLeaf::new(ERASE, erase.encode([7; 16]).unwrap())])
        .unwrap();
    let range = IndexRange {
        first: 300,
        count: 2,
    };
    writer.append(&[retract(vec![range])]).unwrap();
    commit_signed(&mut writer);
    let root = store.root_at(no, 602).unwrap();
    assert_eq!(writer.drop_erased().unwrap(), 4);
    assert_eq!(writer.drop_erased().unwrap(), 0);
    drop(writer);
    assert!(store.read_leaf(no, 11).unwrap().is_elided());
    assert!(store.read_leaf(no, 590).unwrap().is_elided());
    assert!(!store.read_leaf(no, 300).unwrap().is_elided());
    sound(&store);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.root_at(no, 602).unwrap(), root);
    sound(&store);

    let pinned = PinnedHead { size: 602, root };
    let parts = store
        .chunk_with(no, 0, 602, 602, CHUNK_TARGET_BYTES, true)
        .unwrap();
    let chunk = chunk::verify(&parts, &pinned).unwrap();
    let reader = open(other.path());
    let copy = reader.create_feed(&new_feed(false, b"feed")).unwrap();
    let mut writer = reader.writer(copy).unwrap();
    writer.append_verified(&chunk).unwrap();
    commit_signed(&mut writer);
    assert!(reader.read_leaf(copy, 300).unwrap().is_elided());
    assert_eq!(reader.feed(copy).unwrap().dead, 6);
    sound(&reader);
}
