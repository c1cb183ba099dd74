//! Look-ups: the latest version of an entry, and that no feed hides another.

use super::*;

#[test]
fn references_name_the_latest_version() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(true, b"feed")).unwrap();
    let mut writer = store.writer(no).unwrap();
    let changed = publish(5, &[0]);
    writer
        .append(&[publish(5, &[]), publish(6, &[]), changed])
        .unwrap();
    commit_signed(&mut writer);
    let digest = |leaf: &RawLeaf| {
        let hashpact_core::leaf::Leaf::Publish(p) = hashpact_core::leaf::read(leaf, 9) else {
            panic!("no publish leaf");
        };
        (crate::reference_digest(&p), crate::content_digest(&p))
    };
    let (known, content) = digest(&publish(5, &[]));
    let (unknown, _) = digest(&publish(7, &[]));
    let found = store.lookup_refs(no, &[known, unknown]).unwrap();
    assert_eq!(
        found[0].map(|r| (r.index, r.content, r.live)),
        Some((2, content, true))
    );
    assert_eq!(found[1], None);
    assert_eq!(store.latest_version(no, 0).unwrap(), 2);
    let posting = &store.lookup(&[signals(5)[1].index_key()]).unwrap()[0][0];
    assert_eq!(
        (posting.index, posting.first, posting.quality),
        (2, 0, Some(90))
    );
    assert_eq!(posting.classification.as_deref(), Some("A1"));
}

#[test]
fn describe_leaves_are_sought_among_so_many_leaves_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let mut writer = store.writer(no).unwrap();
    let other = RawLeaf::new(77, Bytes::from_static(b"of a later version"));
    let mut leaves = vec![other; 41];
    leaves[0] = RawLeaf::new(hashpact_core::leaf::DESCRIBE, Bytes::from_static(b"void"));
    writer.append(&leaves).unwrap();
    commit_signed(&mut writer);
    let found = |after, limit| store.describes(no, after, limit).unwrap().len();
    assert_eq!(
        [found(None, 16), found(None, 64), found(Some(0), 64)],
        [0, 1, 0]
    );
}

#[test]
fn what_one_feed_took_back_often_keeps_nobody_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let make = |name, leaves: &[RawLeaf]| {
        let no = store.create_feed(&new_feed(false, name)).unwrap();
        let mut writer = store.writer(no).unwrap();
        writer.append(leaves).unwrap();
        commit_signed(&mut writer);
        no
    };
    let count = 17_000;
    let mut flood = vec![publish(7, &[]); count];
    let count = u64::try_from(count).unwrap();
    flood.push(retract(vec![IndexRange { first: 0, count }]));
    flood.push(publish(7, &[]));
    let feeds = [make(b"flood", &flood), make(b"other", &[publish(7, &[])])];
    let key = signals(7)[0].index_key();
    let found = store.lookup_bounded(&[key, key], 32).unwrap();
    let of = |postings: &[crate::Posting]| postings.iter().map(|p| p.feed).collect::<Vec<_>>();
    assert_eq!(of(&found[0].postings), [feeds[1]]);
    assert!(found[0].more);
    assert_eq!(found[0], found[1], "a value asked for twice");
    assert_eq!(of(&store.lookup(&[key]).unwrap()[0]), feeds, "all of it");
}
