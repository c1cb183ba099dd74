//! Opinions in the store against a naive model, which reads every leaf from the end.

use std::collections::BTreeMap;

use hashpact_core::chunk::{ChunkParts, Layout, VerifiedChunk};
use hashpact_core::leaf::{self, Leaf, OPINION, Opinion, Stance, Subject};
use hashpact_core::page;
use hashpact_core::standing::{self, EntryState, LiveOpinion, Standing};

use super::*;
use crate::families::Family;
use crate::{RefillTerms, SaidOpinion};

const ENTRIES: u64 = 3;
const KINDS: [Option<u32>; 3] = [None, Some(3), Some(5)];

fn subject_feed() -> FeedId {
    FeedId(Digest::of(b"set"))
}

fn opinions_feed(n: u8) -> NewFeed {
    NewFeed {
        id: FeedId(Digest::of(&[b'o', n])),
        // The last two are one member's.
        publisher: MemberNumber::new(2 + u32::from(n.min(1))).unwrap(),
        own: false,
        kind: FeedKind::Opinions,
    }
}

fn opinion(subject: Subject, stance: Stance, replaces: &[u64]) -> RawLeaf {
    let opinion = Opinion {
        subject,
        stance,
        confidence: 90,
        reason_id: 3,
        note: "a note".to_owned(),
        replaces: replaces.to_vec(),
        created: UnixMillis(1_700_000_000_000),
    };
    RawLeaf::new(OPINION, opinion.encode([9; 16]).unwrap())
}

fn entry(first: u64, kind: Option<u32>) -> Subject {
    Subject::Entry {
        feed: subject_feed(),
        first,
        kind,
    }
}

/// One leaf: its kind, the entry, the kind of signal, the stance, what it names.
type Op = (u8, u64, usize, usize, Vec<u64>);

fn leaves_of(ops: &[Op]) -> Vec<RawLeaf> {
    let mut leaves = Vec::new();
    for (at, (op, first, kind, stance, named)) in (0_u64..).zip(ops) {
        let mut named: Vec<u64> = named.iter().filter_map(|n| at.checked_sub(1 + n)).collect();
        named.sort_unstable();
        named.dedup();
        let ranges = IndexRange::gather(named.iter().copied());
        let subject = entry(first % ENTRIES, KINDS[kind % KINDS.len()]);
        let stances = [Stance::Positive, Stance::Seed, Stance::Negative];
        leaves.push(match op {
            0 if !ranges.is_empty() => retract(ranges),
            1 if !ranges.is_empty() => {
                let erase = Erase {
                    indexes: ranges,
                    legal_basis: "court order".to_owned(),
                    created: UnixMillis(1),
                };
                RawLeaf::new(ERASE, erase.encode([7; 16]).unwrap())
            }
            // Says nothing in this feed, and may be dead.
            2 => publish(at, &[]),
            _ => opinion(subject, stances[stance % 3], &named),
        });
    }
    leaves
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let named = prop::collection::vec(0_u64..6, 0..3);
    prop::collection::vec((0_u8..9, 0_u64..9, 0_usize..9, 0_usize..9, named), 0..24)
}

/// What is dead, decided from the end backwards.
fn dead(leaves: &[RawLeaf]) -> BTreeSet<u64> {
    let mut dead = BTreeSet::new();
    for (index, raw) in leaves.iter().enumerate().rev() {
        let index = index as u64;
        match leaf::read(raw, index) {
            Leaf::Retract(retract) => {
                dead.extend(retract.indexes.iter().flat_map(|r| r.first..r.end()));
            }
            Leaf::Erase(erase) => dead.extend(erase.indexes.iter().flat_map(|r| r.first..r.end())),
            Leaf::Opinion(opinion) if !dead.contains(&index) => dead.extend(opinion.replaces),
            Leaf::Publish(publish) if !dead.contains(&index) => dead.extend(publish.replaces),
            Leaf::Describe(_)
            | Leaf::Publish(_)
            | Leaf::Opinion(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => {}
        }
    }
    dead.retain(|index| matches!(leaves[at(*index)].kind, OPINION | PUBLISH));
    dead
}

/// The live opinions of some feeds.
fn live(feeds: &BTreeMap<u8, Vec<RawLeaf>>) -> Vec<(FeedId, u64, Opinion)> {
    let mut live = Vec::new();
    for (n, leaves) in feeds {
        let dead = dead(leaves);
        for (index, raw) in (0..).zip(leaves) {
            if let Leaf::Opinion(opinion) = leaf::read(raw, index)
                && !dead.contains(&index)
            {
                live.push((opinions_feed(*n).id, index, *opinion));
            }
        }
    }
    live
}

fn standing_of<'a>(
    first: u64,
    kind: Option<u32>,
    opinions: impl IntoIterator<Item = LiveOpinion<'a>>,
) -> Standing {
    standing::of_entry((subject_feed(), first), kind, EntryState::Live, opinions)
}

/// Compares the last words, and every standing, with the model's.
fn agrees(store: &Store, feeds: &BTreeMap<u8, Vec<RawLeaf>>) {
    let live = live(feeds);
    for first in 0..ENTRIES {
        let mut words: BTreeMap<(FeedId, Option<u32>), u64> = BTreeMap::new();
        for (feed, index, opinion) in &live {
            if let Subject::Entry { first: f, kind, .. } = opinion.subject
                && f == first
            {
                let word = words.entry((*feed, kind)).or_default();
                *word = (*word).max(*index);
            }
        }
        let said = store.opinions_on(&subject_feed(), first).unwrap();
        let mut got: Vec<_> = said
            .iter()
            .map(|said| match said.opinion.subject {
                Subject::Entry { kind, .. } => ((said.feed, kind), said.index),
                Subject::OwnSignal(_) => panic!("of an entry"),
            })
            .collect();
        got.sort_unstable();
        assert_eq!(got, words.into_iter().collect::<Vec<_>>());
        for kind in KINDS {
            let naive = live.iter().map(|(feed, index, opinion)| LiveOpinion {
                feed: *feed,
                index: *index,
                opinion,
            });
            assert_eq!(
                standing_of(first, kind, said.iter().map(SaidOpinion::live)),
                standing_of(first, kind, naive)
            );
        }
    }
    sound(store);
}

fn feed_in(store: &Store, n: u8) -> FeedNo {
    let new = opinions_feed(n);
    let known = store.feed_no(&new.id);
    known.unwrap_or_else(|| store.create_feed(&new).unwrap())
}

/// The leaves `[from, to)` as a chunk, those that `elide` names as records.
fn chunk_of(leaves: &[RawLeaf], from: u64, elide: impl Fn(u64) -> bool) -> VerifiedChunk {
    let to = leaves.len() as u64;
    let mut before = CompactRange::empty(0);
    let mut all = CompactRange::empty(0);
    for (index, leaf) in (0..).zip(leaves) {
        if index < from {
            before.push(leaf.hash());
        }
        all.push(leaf.hash());
    }
    let sent: Vec<RawLeaf> = (from..to)
        .map(|index| {
            let leaf = &leaves[at(index)];
            if elide(index) {
                leaf.elided()
            } else {
                leaf.clone()
            }
        })
        .collect();
    let layout = Layout::of(from, to);
    let (lead, rest) = sent.split_at(layout.leading);
    assert_eq!(layout.pages, 0);
    let parts = ChunkParts {
        from,
        to,
        leading: page::encode_plain(lead).unwrap(),
        pages: Vec::new(),
        trailing: page::encode_plain(rest).unwrap(),
        before: before.hashes().to_vec(),
        after: Vec::new(),
    };
    let root = all.root().unwrap();
    chunk::verify(&parts, &PinnedHead { size: to, root }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn standing_from_the_store_is_the_models_whatever_comes_when(
        feeds in prop::collection::vec(ops(), 3),
        order in prop::collection::vec((0_u8..3, 1_usize..6, any::<bool>()), 1..24),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let leaves: Vec<Vec<RawLeaf>> = feeds.iter().map(|ops| leaves_of(ops)).collect();
        let mut held: BTreeMap<u8, Vec<RawLeaf>> = BTreeMap::new();
        for (n, count, restart) in order {
            let no = feed_in(&store, n);
            let held = held.entry(n).or_default();
            let all = &leaves[usize::from(n)];
            let to = (held.len() + count).min(all.len());
            if to > held.len() {
                let mut writer = store.writer(no).unwrap();
                writer.append(&all[held.len()..to]).unwrap();
                commit_signed(&mut writer);
                writer.drop_erased().unwrap();
                held.extend_from_slice(&all[held.len()..to]);
            }
            if restart {
                drop(store);
                store = open(dir.path());
            }
        }
        agrees(&store, &held);
        // One of them is granted no longer.
        store.drop_feed(feed_in(&store, 0)).unwrap();
        held.remove(&0);
        agrees(&store, &held);
    }

    #[test]
    fn a_full_replay_says_what_every_permitted_elided_pull_says(
        ops in ops(), taken in any::<u64>(), lies in prop::collection::btree_set(0_u64..24, 0..3),
    ) {
        let leaves = leaves_of(&ops);
        prop_assume!(!leaves.is_empty());
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let no = feed_in(&store, 1);
        let dead = dead(&leaves);
        let permitted = |n: u64| dead.contains(&n) && taken >> (n % 64) & 1 == 1;
        let mut writer = store.writer(no).unwrap();
        let lying = |n: u64| lies.contains(&n);
        writer.append_verified(&chunk_of(&leaves, 0, |n| permitted(n) || lying(n))).unwrap();
        commit_signed(&mut writer);
        for _ in 0..6 {
            writer.refill(&chunk_of(&leaves, 0, |_| false), &RefillTerms::default()).unwrap();
        }
        writer.drop_erased().unwrap();
        drop(writer);
        agrees(&store, &BTreeMap::from([(1, leaves)]));
    }

    #[test]
    fn what_is_cut_off_never_was_said(ops in ops(), size in 0_u64..24) {
        let leaves = leaves_of(&ops);
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let no = feed_in(&store, 1);
        let mut writer = store.writer(no).unwrap();
        writer.append(&leaves).unwrap();
        writer.commit(None).unwrap();
        let size = size.min(leaves.len() as u64);
        writer.truncate_unsigned(size).unwrap();
        drop(writer);
        agrees(&store, &BTreeMap::from([(1, leaves[..at(size)].to_vec())]));
    }
}

fn negative(store: &Store, n: u8, subject: Subject) {
    let mut writer = store.writer(feed_in(store, n)).unwrap();
    writer
        .append(&[opinion(subject, Stance::Negative, &[])])
        .unwrap();
    commit_signed(&mut writer);
}

#[test]
fn a_bulk_load_of_opinions_is_indexed_as_a_few_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = feed_in(&store, 1);
    let leaves: Vec<RawLeaf> = (0..700)
        .map(|n| opinion(entry(n, None), Stance::Negative, &[]))
        .collect();
    let mut writer = store.writer(no).unwrap();
    writer.append(&leaves).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    for n in [0, 350, 699] {
        assert_eq!(store.opinions_on(&subject_feed(), n).unwrap().len(), 1);
    }
    let listed = store
        .list_opinions(Some(&subject_feed()), None, 300)
        .unwrap();
    assert_eq!(listed.said.len(), 300);
    let rest = store.list_opinions(Some(&subject_feed()), listed.next.as_deref(), 1_000);
    let rest = rest.unwrap();
    assert_eq!((rest.said.len(), rest.next), (400, None));
    sound(&store);
}

#[test]
fn an_opinion_about_a_signal_counts_where_its_writer_publishes_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [signal, _] = signals(1);
    negative(&store, 1, Subject::OwnSignal(signal.clone()));
    let of = |store: &Store| store.opinions_on_signal(&signal).unwrap();
    assert_eq!((of(&store).said.len(), of(&store).ignored), (0, 1));
    // Somebody else publishes it, and the writer another one.
    for (publisher, name, n) in [(1, b"set a", 1), (3, b"set b", 2)] {
        let feed = NewFeed {
            publisher: MemberNumber::new(publisher).unwrap(),
            ..new_feed(false, name)
        };
        let mut writer = store.writer(store.create_feed(&feed).unwrap()).unwrap();
        writer.append(&[publish(n, &[])]).unwrap();
        commit_signed(&mut writer);
        assert_eq!((of(&store).said.len(), of(&store).ignored), (0, 1));
    }
    // The writer publishes it, and takes it back.
    let own = store.feed_no(&new_feed(false, b"set b").id).unwrap();
    let mut writer = store.writer(own).unwrap();
    writer.append(&[publish(1, &[])]).unwrap();
    commit_signed(&mut writer);
    assert_eq!((of(&store).said.len(), of(&store).ignored), (1, 0));
    writer
        .append(&[retract(vec![IndexRange { first: 1, count: 1 }])])
        .unwrap();
    commit_signed(&mut writer);
    assert_eq!((of(&store).said.len(), of(&store).ignored), (0, 1));
}

#[test]
fn opinions_in_a_set_of_entries_say_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"a set")).unwrap();
    let mut writer = store.writer(no).unwrap();
    writer
        .append(&[opinion(entry(1, None), Stance::Negative, &[])])
        .unwrap();
    commit_signed(&mut writer);
    drop(writer);
    assert_eq!(store.opinions_on(&subject_feed(), 1).unwrap(), []);
    assert_eq!(store.feed(no).unwrap().counts.opinion, 1);
    sound(&store);
}

#[test]
fn a_retraction_that_is_held_takes_no_opinion_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    negative(&store, 1, entry(1, None));
    let no = feed_in(&store, 1);
    let mut writer = store.writer(no).unwrap();
    writer
        .append(&[retract(vec![IndexRange { first: 0, count: 1 }])])
        .unwrap();
    commit_signed(&mut writer);
    drop(writer);
    assert_eq!(store.opinions_on(&subject_feed(), 1).unwrap(), []);
    store.hold_retractions(no, BTreeSet::from([1])).unwrap();
    let said = store.opinions_on(&subject_feed(), 1).unwrap();
    assert!(said[0].in_doubt);
    store.hold_retractions(no, BTreeSet::new()).unwrap();
    assert_eq!(store.opinions_on(&subject_feed(), 1).unwrap(), []);
}

#[test]
fn a_silent_feed_has_no_opinions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    negative(&store, 1, entry(1, None));
    let no = feed_in(&store, 1);
    for (status, said) in [
        (FeedStatus::Silent, 0),
        (FeedStatus::Leaving, 1),
        (FeedStatus::Frozen, 1),
        (FeedStatus::Active, 1),
    ] {
        store.set_feed_status(no, status).unwrap();
        assert_eq!(store.opinions_on(&subject_feed(), 1).unwrap().len(), said);
    }
}

#[test]
fn however_many_feeds_one_member_makes_the_others_are_heard() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 1..30 {
        negative(&store, n, entry(1, None));
    }
    negative(&store, 0, entry(1, None));
    let said = store.opinions_on(&subject_feed(), 1).unwrap();
    let of = |member: u32| said.iter().filter(|s| s.member.value() == member).count();
    assert_eq!((of(2), of(3)), (1, 8));
}

#[test]
fn an_opinion_that_was_changed_very_often_is_read_with_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = feed_in(&store, 1);
    let mut leaves = vec![opinion(entry(1, None), Stance::Negative, &[])];
    leaves.extend((1..280).map(|n| opinion(entry(1, None), Stance::Positive, &[n - 1])));
    let mut writer = store.writer(no).unwrap();
    writer.append(&leaves).unwrap();
    commit_signed(&mut writer);
    let said = store.opinions_on(&subject_feed(), 1).unwrap();
    assert_eq!((said.len(), said[0].index), (1, 279));
    // All that is looked at is dead: the writer alone loses its voice by that.
    let ranges = vec![IndexRange {
        first: 2,
        count: 278,
    }];
    writer.append(&[retract(ranges)]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    assert_eq!(store.opinions_on(&subject_feed(), 1).unwrap(), []);
}

#[test]
fn the_past_is_read_within_the_bounds_of_today_and_says_where_something_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = feed_in(&store, 0);
    let leaves: Vec<_> = (0..5_000)
        .map(|_| opinion(entry(1, None), Stance::Positive, &[]))
        .collect();
    let mut writer = store.writer(no).unwrap();
    writer.append(&leaves).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    negative(&store, 1, entry(1, None));
    let then = |size: &dyn Fn(FeedNo) -> Option<u64>, dead: u64| {
        let stood = |_, index| index != dead;
        let then = store.opinions_then(&subject_feed(), 1, size, &stood);
        let (said, left_out) = then.unwrap();
        let said = said.iter().map(|said| (said.member.value(), said.index));
        (said.collect::<Vec<_>>(), left_out)
    };
    // However much one member said, others are heard.
    assert_eq!(
        then(&|_| Some(9_999), 9_999),
        (vec![(2, 4_999), (3, 0)], true)
    );
    // When there was little, nothing is left out; and one feed was not there.
    let few = |of| (of == no).then_some(10);
    assert_eq!(then(&few, 9), (vec![(2, 8)], false));
    assert_eq!(then(&|_| Some(256), 0), (vec![(2, 255)], false));
    assert_eq!(then(&|_| None, 0), (vec![], false));
    // Feeds that came later take no place.
    for n in 2..30 {
        negative(&store, n, entry(1, None));
    }
    let first = feed_in(&store, 1);
    let before = |of| (of == first).then_some(1);
    assert_eq!(then(&before, 9_999), (vec![(3, 0)], false));
    let (said, left_out) = then(&|_| Some(1), 9_999);
    assert_eq!((said.len(), left_out), (9, true));
}

#[test]
fn opinions_of_a_store_from_before_they_were_indexed_get_their_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    negative(&store, 1, entry(1, None));
    let inner = &store.inner;
    let family = inner.cf(Family::Opinions).unwrap();
    let mut batch = rocksdb::WriteBatch::default();
    batch.delete_range_cf(family, vec![0], vec![0xff]);
    batch.put_cf(
        inner.cf(Family::Meta).unwrap(),
        b"schema",
        1_u32.to_be_bytes(),
    );
    inner.write_synced(batch, "a test").unwrap();
    let report = store.verify(|_, _| Ok(()), |_, _| ()).unwrap();
    assert_eq!(report.findings[0].kind, crate::FindingKind::Opinions);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.opinions_on(&subject_feed(), 1).unwrap().len(), 1);
    sound(&store);
}

#[test]
fn an_erased_opinion_leaves_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let value = Digest::of(b"a signal that is found in files");
    let signal = Signal::new(SignalKind::Sha256, value.0.to_vec().into(), None).unwrap();
    negative(&store, 1, Subject::OwnSignal(signal));
    negative(&store, 1, entry(2, None));
    store.flush().unwrap();
    let mut writer = store.writer(feed_in(&store, 1)).unwrap();
    let erase = Erase {
        indexes: vec![IndexRange { first: 0, count: 1 }],
        legal_basis: "court order".to_owned(),
        created: UnixMillis(1),
    };
    writer
        .append(&[RawLeaf::new(ERASE, erase.encode([7; 16]).unwrap())])
        .unwrap();
    commit_signed(&mut writer);
    assert_eq!(writer.drop_erased().unwrap(), 1);
    drop(writer);
    store.purge().unwrap();
    sound(&store);
    drop(store);
    let store = open(dir.path());
    store.flush().unwrap();
    let holds = |bytes: &[u8]| bytes.windows(32).any(|window| window == value.0);
    for file in std::fs::read_dir(dir.path().join("db")).unwrap() {
        let path = file.unwrap().path();
        if path
            .extension()
            .is_some_and(|ending| ending == "sst" || ending == "log")
        {
            assert!(!holds(&std::fs::read(&path).unwrap()), "{}", path.display());
        }
    }
}
