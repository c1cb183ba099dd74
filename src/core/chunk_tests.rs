//! Tests of chunks: every field changed, every count wrong.

use proptest::prelude::*;

use super::*;
use crate::merkle::empty_root;

const SIZE: u64 = 1_500;

fn leaf(i: u64) -> RawLeaf {
    let payload = Digest::of(&i.to_be_bytes()).0.repeat(2);
    let leaf = RawLeaf::new(2, Bytes::from(payload));
    if i.is_multiple_of(7) {
        leaf.elided()
    } else {
        leaf
    }
}

fn leaves(from: u64, to: u64) -> Vec<RawLeaf> {
    (from..to).map(leaf).collect()
}

fn range(from: u64, to: u64) -> CompactRange {
    let mut range = CompactRange::empty(from);
    (from..to).for_each(|i| range.push(leaf(i).hash()));
    range
}

fn head(size: u64) -> PinnedHead {
    let root = range(0, size).root().unwrap();
    PinnedHead { size, root }
}

fn chunk(from: u64, to: u64, size: u64) -> ChunkParts {
    let layout = Layout::of(from, to);
    let middle = from + layout.leading as u64;
    let trail = to - layout.trailing as u64;
    let pages = (middle..trail).step_by(256);
    ChunkParts {
        from,
        to,
        leading: page::encode_plain(&leaves(from, middle)).unwrap(),
        pages: pages
            .map(|i| page::encode(&leaves(i, i + 256)).unwrap())
            .collect(),
        trailing: page::encode_plain(&leaves(trail, to)).unwrap(),
        before: range(0, from).hashes().to_vec(),
        after: range(to, size).hashes().to_vec(),
    }
}

fn code<T>(result: Result<T, Rejection>) -> &'static str {
    result
        .err()
        .map_or("accepted", |rejection| rejection.code())
}

/// Ranges that begin and end on a boundary, in mid-page, or in the same page.
const RANGES: [(u64, u64); 10] = [
    (0, SIZE),
    (0, 1),
    (256, 1_024),
    (300, 1_100),
    (300, 1_024),
    (256, 300),
    (257, 300),
    (300, 512),
    (1_400, SIZE),
    (1_280, SIZE),
];

#[test]
fn chunks_with_any_ends_verify_and_give_their_leaves() {
    let head = head(SIZE);
    for (from, to) in RANGES {
        let parts = chunk(from, to, SIZE);
        let verified = verify(&parts, &head).unwrap();
        let expected: Vec<_> = (from..).zip(leaves(from, to)).collect();
        let got: Vec<_> = verified
            .leaves()
            .map(|(i, leaf)| (i, leaf.clone()))
            .collect();
        assert_eq!(got, expected);
        assert_eq!(verified.range, range(from, to));
        assert_eq!(verified.check_extends(&range(0, from)), Ok(()));
        for page in &verified.pages {
            let begin = page.number * 256;
            assert_eq!(page.leaves, leaves(begin, begin + 256));
            assert_eq!(range(begin, begin + 256).hashes(), [page.root]);
        }
    }
}

#[test]
fn any_changed_hash_of_a_compact_range_is_refused() {
    let head = head(SIZE);
    for (from, to) in RANGES {
        let good = chunk(from, to, SIZE);
        for at in 0..good.before.len() {
            let mut bad = good.clone();
            bad.before[at].0[31] ^= 1;
            assert_eq!(code(verify(&bad, &head)), "wrong_root");
        }
        for at in 0..good.after.len() {
            let mut bad = good.clone();
            bad.after[at].0[0] ^= 0x80;
            assert_eq!(code(verify(&bad, &head)), "wrong_root");
        }
    }
}

#[test]
fn one_hash_more_or_fewer_is_refused_by_its_count() {
    let head = head(SIZE);
    for (from, to) in RANGES {
        let good = chunk(from, to, SIZE);
        for at in 0..=good.before.len() {
            let mut bad = good.clone();
            bad.before.insert(at, Digest([0; 32]));
            assert_eq!(code(verify(&bad, &head)), "proof_length");
        }
        for at in 0..=good.after.len() {
            let mut bad = good.clone();
            bad.after.insert(at, Digest([0; 32]));
            assert_eq!(code(verify(&bad, &head)), "proof_length");
        }
        for at in 0..good.before.len() {
            let mut bad = good.clone();
            bad.before.remove(at);
            assert_eq!(code(verify(&bad, &head)), "proof_length");
        }
        for at in 0..good.after.len() {
            let mut bad = good.clone();
            bad.after.remove(at);
            assert_eq!(code(verify(&bad, &head)), "proof_length");
        }
    }
}

#[test]
fn other_bounds_than_those_of_the_leaves_are_refused() {
    let head = head(SIZE);
    for (from, to) in RANGES {
        let good = chunk(from, to, SIZE);
        for (from, to) in [
            (from + 1, to),
            (from.wrapping_sub(1), to),
            (from, to + 1),
            (from, to - 1),
            (from + 1, to + 1),
            (from + 256, to + 256),
            (from.wrapping_sub(256), to.wrapping_sub(256)),
            (to, from),
            (from, from),
            (from, u64::MAX),
            (u64::MAX, u64::MAX),
        ] {
            let bad = ChunkParts {
                from,
                to,
                ..good.clone()
            };
            assert!(verify(&bad, &head).is_err(), "[{from}, {to})");
        }
    }
}

#[test]
fn another_head_is_refused() {
    let good = chunk(300, 1_100, SIZE);
    let mut other = head(SIZE);
    other.root.0[5] ^= 4;
    assert_eq!(code(verify(&good, &other)), "wrong_root");
    let root = head(SIZE).root;
    assert_eq!(
        code(verify(&good, &PinnedHead { size: 1_099, root })),
        "invalid"
    );
    assert!(
        verify(
            &good,
            &PinnedHead {
                size: SIZE + 1,
                root
            }
        )
        .is_err()
    );
    assert!(
        verify(
            &good,
            &PinnedHead {
                size: u64::MAX,
                root
            }
        )
        .is_err()
    );
}

#[test]
fn swapped_missing_and_further_pages_are_refused() {
    let head = head(SIZE);
    let good = chunk(300, 1_100, SIZE);
    let mut swapped = good.clone();
    swapped.pages.swap(0, 1);
    assert_eq!(code(verify(&swapped, &head)), "wrong_root");
    let mut fewer = good.clone();
    fewer.pages.pop();
    assert_eq!(code(verify(&fewer, &head)), "invalid");
    let mut more = good.clone();
    more.pages.push(more.pages[0].clone());
    assert_eq!(code(verify(&more, &head)), "invalid");
    let mut ends = good.clone();
    std::mem::swap(&mut ends.leading, &mut ends.trailing);
    assert!(verify(&ends, &head).is_err());
}

#[test]
fn a_ragged_end_with_another_number_of_leaves_is_refused() {
    let head = head(SIZE);
    let good = chunk(300, 1_100, SIZE);
    for (from, to) in [(300, 511), (300, 513), (300, 300)] {
        let leading = page::encode_plain(&leaves(from, to)).unwrap();
        let bad = ChunkParts {
            leading,
            ..good.clone()
        };
        assert!(verify(&bad, &head).is_err());
    }
    for (from, to) in [(1_024, 1_099), (1_024, 1_101), (1_024, 1_024)] {
        let trailing = page::encode_plain(&leaves(from, to)).unwrap();
        let bad = ChunkParts {
            trailing,
            ..good.clone()
        };
        assert!(verify(&bad, &head).is_err());
    }
}

#[test]
fn any_changed_byte_of_a_ragged_end_is_refused() {
    let head = head(300);
    let good = chunk(250, 260, 300);
    for field in [0, 1] {
        let bytes = if field == 0 {
            &good.leading
        } else {
            &good.trailing
        };
        for at in 0..bytes.len() {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            let mut bad = good.clone();
            *(if field == 0 {
                &mut bad.leading
            } else {
                &mut bad.trailing
            }) = bytes.into();
            assert!(verify(&bad, &head).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_changed_byte_of_a_page_never_changes_a_leaf() {
    let head = head(512);
    let good = chunk(0, 512, 512);
    for at in 0..good.pages[1].len() {
        let mut bytes = good.pages[1].to_vec();
        bytes[at] ^= 1;
        let mut bad = good.clone();
        bad.pages[1] = bytes.into();
        // Page bytes are not signed, leaves are: bits without meaning may differ.
        if let Ok(verified) = verify(&bad, &head) {
            assert!(verified.leaves().all(|(i, got)| *got == leaf(i)));
        }
    }
}

#[test]
fn sizes_are_capped_before_anything_is_decoded() {
    let size = CHUNK_MAX_LEAVES + 256;
    let root = empty_root();
    let many = ChunkParts {
        to: CHUNK_MAX_LEAVES + 1,
        ..ChunkParts::default()
    };
    assert_eq!(code(verify(&many, &PinnedHead { size, root })), "too_large");

    let mut long = chunk(300, 1_100, SIZE);
    long.leading = vec![0; CHUNK_PLAIN_MAX_BYTES + 1].into();
    assert_eq!(code(verify(&long, &head(SIZE))), "too_large");

    // Two pages within the limit of a page, together beyond that of a chunk.
    let leaf = RawLeaf::new(2, Bytes::from(vec![0; 8_000]));
    let wire = page::encode(&vec![leaf; 256]).unwrap();
    let mut bomb = chunk(0, 512, 512);
    bomb.pages = vec![wire.clone(), wire];
    assert_eq!(code(verify(&bomb, &head(512))), "too_large");
}

#[test]
fn a_frame_without_its_size_is_refused() {
    let mut bad = chunk(0, 256, 256);
    // Frame header with neither content size nor single segment: window 1 KiB.
    bad.pages = vec![Bytes::from_static(&[
        0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00, 0x01, 0x00, 0x00,
    ])];
    assert_eq!(code(verify(&bad, &head(256))), "malformed");
    bad.pages = vec![Bytes::from_static(b"no frame")];
    assert_eq!(code(verify(&bad, &head(256))), "malformed");
}

#[test]
fn a_head_over_other_leaves_is_no_extension_of_what_is_held() {
    let verified = verify(&chunk(300, 1_100, SIZE), &head(SIZE)).unwrap();
    let mut other = CompactRange::empty(0);
    (1..301).for_each(|i| other.push(leaf(i).hash()));
    let verdict = verified.check_extends(&other);
    assert_eq!(verdict, Err(Rejection::NotAnExtension { held: 300 }));
    assert_eq!(code(verified.check_extends(&range(0, 299))), "wrong_range");
}

#[test]
fn a_proof_without_leaves_shows_that_the_head_extends_what_is_held() {
    let proof = |from: u64, to: u64| ProofParts {
        from,
        to,
        before: range(0, from).hashes().to_vec(),
        range: range(from, to).hashes().to_vec(),
        after: range(to, SIZE).hashes().to_vec(),
    };
    for (from, to) in [(0, 0), (0, SIZE), (300, 300), (300, 1_100), (SIZE, SIZE)] {
        let good = proof(from, to);
        let verdict = verify_extension(&good, &range(0, from), &head(SIZE));
        assert_eq!(verdict, Ok(range(0, to)));
        for (field, length) in [
            (0, good.before.len()),
            (1, good.range.len()),
            (2, good.after.len()),
        ] {
            for at in 0..length {
                let mut bad = good.clone();
                [&mut bad.before, &mut bad.range, &mut bad.after][field][at].0[9] ^= 2;
                let verdict = verify_extension(&bad, &range(0, from), &head(SIZE));
                assert_eq!(code(verdict), "wrong_root");
                let mut bad = good.clone();
                [&mut bad.before, &mut bad.range, &mut bad.after][field].remove(at);
                let verdict = verify_extension(&bad, &range(0, from), &head(SIZE));
                assert_eq!(code(verdict), "proof_length");
            }
        }
    }
    let verdict = verify_extension(&proof(300, SIZE), &range(0, 299), &head(SIZE));
    assert_eq!(code(verdict), "wrong_range");
    let mut other = range(0, 299);
    other.push(Digest([1; 32]));
    let verdict = verify_extension(&proof(300, SIZE), &other, &head(SIZE));
    assert_eq!(code(verdict), "not_an_extension");
    let verdict = verify_extension(&proof(300, SIZE), &range(0, 300), &head(SIZE - 1));
    assert_eq!(code(verdict), "invalid");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_range_verifies_in_the_one_layout(a in 0_u64..1_200, b in 0_u64..1_200, more in 0_u64..300) {
        let (from, to) = (a.min(b), a.max(b) + 1);
        let size = to + more;
        let layout = Layout::of(from, to);
        let total = layout.leading as u64 + layout.pages as u64 * 256 + layout.trailing as u64;
        prop_assert_eq!(total, to - from);
        prop_assert!(layout.leading < 256 && layout.trailing < 256);
        let verified = verify(&chunk(from, to, size), &head(size)).unwrap();
        prop_assert_eq!(verified.leaves().count() as u64, to - from);
    }
}

#[test]
fn any_part_of_a_chunk_verifies_by_itself_and_gives_its_leaves() {
    let head = head(SIZE);
    let whole = chunk(100, 1_300, SIZE);
    let bounds = [
        100, 101, 255, 256, 257, 511, 512, 700, 768, 1_024, 1_299, 1_300,
    ];
    for from in bounds {
        for to in bounds.into_iter().filter(|to| *to > from) {
            let part = cut(&whole, &head, from, to).unwrap();
            assert_eq!(part, chunk(from, to, SIZE), "[{from}, {to})");
            let verified = verify(&part, &head).unwrap();
            let expected: Vec<_> = (from..).zip(leaves(from, to)).collect();
            let got: Vec<_> = verified.leaves().map(|(i, l)| (i, l.clone())).collect();
            assert_eq!(got, expected);
        }
    }
}

#[test]
fn no_part_is_cut_out_of_a_chunk_that_does_not_verify_or_has_not_the_leaves() {
    let head = head(SIZE);
    let whole = chunk(300, 1_100, SIZE);
    assert_eq!(code(cut(&whole, &head, 299, 400)), "wrong_range");
    assert_eq!(code(cut(&whole, &head, 300, 1_101)), "wrong_range");
    let mut other = whole;
    other.before[0] = Digest([9; 32]);
    assert_eq!(code(cut(&other, &head, 400, 500)), "wrong_root");
    assert_eq!(code(prove_at(&other, &head, 400)), "wrong_root");
}

#[test]
fn a_chunk_proves_what_is_below_and_above_each_of_its_leaves() {
    let head = head(SIZE);
    let whole = chunk(300, 1_100, SIZE);
    for at in [300, 301, 512, 777, 1_100] {
        let proof = prove_at(&whole, &head, at).unwrap();
        let all = verify_extension(&proof, &range(0, at), &head).unwrap();
        assert_eq!(all, range(0, SIZE));
    }
}
