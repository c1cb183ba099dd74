//! Frames of videos have postings: new ones, and those that were stored without.

use super::*;
use crate::{FRAME_KIND, frame_key};

/// A leaf with a video of three frames, of which one shows too little.
pub(super) fn video(n: u64) -> (RawLeaf, [[u8; 32]; 3]) {
    let value = |frame: u64| Digest::of(&[n.to_be_bytes(), frame.to_be_bytes()].concat()).0;
    let values = [0, 1, 2].map(value);
    let mut bytes = Vec::new();
    for (second, (value, quality)) in (0_u32..).zip(values.iter().zip([90, 49, 50])) {
        bytes.extend_from_slice(value);
        bytes.push(quality);
        bytes.extend_from_slice(&second.to_be_bytes());
    }
    let publish = Publish {
        media_kind: MediaKind::Video,
        signals: vec![Signal::new(SignalKind::Vpdq, bytes.into(), None).unwrap()],
        classification: None,
        labels: Vec::new(),
        basis: Basis::Human,
        source_reference: String::new(),
        first_seen: None,
        expires: None,
        replaces: Vec::new(),
        published: UnixMillis(1),
    };
    (
        RawLeaf::new(PUBLISH, publish.encode([7; 16]).unwrap()),
        values,
    )
}

pub(super) fn found(store: &Store, value: &[u8; 32]) -> Vec<(u64, Option<u8>)> {
    let found = store.lookup(&[frame_key(value)]).unwrap();
    found[0].iter().map(|p| (p.index, p.quality)).collect()
}

pub(super) fn frames_held(store: &Store) -> usize {
    let mut held = 0;
    store
        .scan_values(FRAME_KIND, |_| {
            held += 1;
            true
        })
        .unwrap();
    held
}

/// Takes all postings of frames away, as if an older program had stored the leaves.
fn forget_frames(store: &Store, no: FeedNo) {
    let inner = &store.inner;
    let mut keys = Vec::new();
    inner
        .scan(
            crate::families::Family::Signals,
            &[FRAME_KIND],
            &[FRAME_KIND + 1],
            |key, _| {
                keys.push(key.to_vec());
                Ok(true)
            },
        )
        .unwrap();
    let state = inner.feeds().by_no.get(&no).cloned().unwrap();
    let mut row = crate::store::read(&state.live).row.clone();
    let mut counts = crate::counts::FeedCounts::read(&row.counts);
    counts.postings -= keys.len() as u64;
    counts.frames -= keys.len() as u64;
    row.counts = counts.to_row();
    let mut batch = rocksdb::WriteBatch::default();
    let signals = inner.cf(crate::families::Family::Signals).unwrap();
    for key in keys {
        batch.delete_cf(signals, key);
    }
    batch.delete_cf(inner.cf(crate::families::Family::Meta).unwrap(), "frames");
    state.put_row(inner, &mut batch, &row).unwrap();
    inner.write_synced(batch, "forgetting frames").unwrap();
}

#[test]
fn frames_of_videos_are_found_and_those_stored_without_are_at_the_next_open() {
    for count in [4, 700] {
        // The first in the log, the second as files.
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
        let videos: Vec<_> = (0..count).map(video).collect();
        let leaves: Vec<RawLeaf> = videos.iter().map(|(leaf, _)| leaf.clone()).collect();
        let mut writer = store.writer(no).unwrap();
        writer.append(&leaves).unwrap();
        commit_signed(&mut writer);
        drop(writer);
        sound(&store);
        let check = |store: &Store| {
            let [first, low, last] = videos[3].1;
            assert_eq!(found(store, &first), [(3, Some(90))]);
            assert_eq!(found(store, &low), []);
            assert_eq!(found(store, &last), [(3, Some(50))]);
            assert_eq!(frames_held(store), 2 * videos.len());
        };
        check(&store);
        forget_frames(&store, no);
        drop(store);
        let store = open(dir.path());
        check(&store);
        sound(&store);
        // Once is enough.
        forget_frames(&store, no);
        let meta = store.inner.cf(crate::families::Family::Meta).unwrap();
        store.inner.db.put_cf(meta, "frames", []).unwrap();
        drop(store);
        assert_eq!(frames_held(&open(dir.path())), 0);
    }
}
