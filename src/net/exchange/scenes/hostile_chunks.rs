//! Chunks that a relay tampers with: refused with a code, nothing of them stored,
//! and the feed comes from its publisher.

use hashpact_core::chunk::ChunkParts;
use hashpact_core::limits::CHUNK_PLAIN_MAX_BYTES;

use super::hostile::*;
use super::*;

/// The first chunk: two whole pages, 88 leaves after them, hashes to the head.
const CUT: u64 = 600;
const ENTRIES: u64 = 1_000;

/// What is done to the chunks, by name, and the codes that it may end as. Where
/// there are several, the bytes that were hit decide.
struct Case {
    what: &'static str,
    tamper: fn(Vec<ChunkParts>) -> Vec<ChunkParts>,
    codes: &'static [&'static str],
    /// Leaves of the untouched chunk before it.
    before: u64,
}

const fn first(
    what: &'static str,
    tamper: fn(Vec<ChunkParts>) -> Vec<ChunkParts>,
    codes: &'static [&'static str],
) -> Case {
    Case {
        what,
        tamper,
        codes,
        before: 0,
    }
}

const fn second(
    what: &'static str,
    tamper: fn(Vec<ChunkParts>) -> Vec<ChunkParts>,
    codes: &'static [&'static str],
) -> Case {
    Case {
        what,
        tamper,
        codes,
        before: CUT,
    }
}

/// Changes one chunk, which may not come alone: a request for the rest starts at
/// what is stored.
fn of(
    mut chunks: Vec<ChunkParts>,
    from: u64,
    change: impl FnOnce(&mut ChunkParts),
) -> Vec<ChunkParts> {
    if let Some(chunk) = chunks.iter_mut().find(|chunk| chunk.from == from) {
        change(chunk);
    }
    chunks
}

fn changed(bytes: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    bytes.into()
}

fn flip(bytes: &Bytes, at: usize) -> Bytes {
    changed(bytes, |bytes| bytes[at] ^= 1)
}

/// A zstd frame of zeros: `size` bytes, whatever the header declares.
pub(super) fn bomb(header: &[u8], size: usize) -> Bytes {
    const BLOCK: usize = 128 * 1024;
    let mut frame = b"\x28\xb5\x2f\xfd".to_vec();
    frame.extend_from_slice(header);
    let blocks = size / BLOCK;
    for n in 1..=blocks {
        let run = u32::try_from(BLOCK << 3 | 0b010 | usize::from(n == blocks)).unwrap();
        frame.extend_from_slice(&run.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame.into()
}

/// A header of one segment that declares a size.
fn declares(size: usize) -> Vec<u8> {
    let size = u64::try_from(size).unwrap();
    [&[0xe0][..], &size.to_le_bytes()].concat()
}

/// A header with a window of 128 MiB and no size.
const DECLARES_NOTHING: [u8; 2] = [0x00, 0x88];
const BOMB: usize = 128 * 1024 * 1024;

const ANY_READING: &[&str] = &["malformed", "wrong_root", "too_large"];
const ANY_BOUND: &[&str] = &["invalid", "malformed", "proof_length", "wrong_range"];

#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn leaves_and_pages() -> Vec<Case> {
    vec![
        first(
            "a payload's last byte",
            |chunks| {
                of(chunks, 0, |chunk| {
                    chunk.trailing = flip(&chunk.trailing, chunk.trailing.len() - 1);
                })
            },
            &["wrong_root"],
        ),
        first(
            "a leaf's kind",
            |chunks| of(chunks, 0, |chunk| chunk.trailing = flip(&chunk.trailing, 0)),
            &["wrong_root"],
        ),
        first(
            "a byte of a page",
            |chunks| {
                of(chunks, 0, |chunk| {
                    let middle = chunk.pages[1].len() / 2;
                    chunk.pages[1] = flip(&chunk.pages[1], middle);
                })
            },
            ANY_READING,
        ),
        first(
            "a page cut short",
            |chunks| {
                of(chunks, 0, |chunk| {
                    let half = chunk.pages[0].len() / 2;
                    chunk.pages[0] = chunk.pages[0].slice(..half);
                })
            },
            &["malformed"],
        ),
        first(
            "bytes after a page",
            |chunks| {
                of(chunks, 0, |chunk| {
                    chunk.pages[0] = changed(&chunk.pages[0], |page| page.push(0));
                })
            },
            &["malformed"],
        ),
        first(
            "swapped pages",
            |chunks| of(chunks, 0, |chunk| chunk.pages.swap(0, 1)),
            &["wrong_root"],
        ),
        first(
            "a page too many",
            |chunks| {
                of(chunks, 0, |chunk| {
                    let again = chunk.pages[0].clone();
                    chunk.pages.push(again);
                })
            },
            &["invalid"],
        ),
        first(
            "a page less",
            |chunks| of(chunks, 0, |chunk| drop(chunk.pages.pop())),
            &["invalid"],
        ),
        first(
            "a leaf over its limit",
            |chunks| {
                of(chunks, 0, |chunk| {
                    let length = [2, 0xc2, 0x3e]; // LEB128 of 8,001 + 1
                    let leaf = [&length[..], &[0; 8_001]].concat();
                    chunk.trailing = changed(&chunk.trailing, |ends| {
                        ends.splice(0..0, leaf);
                    });
                })
            },
            &["too_large"],
        ),
        first(
            "a chunk over its limit",
            |chunks| {
                of(chunks, 0, |chunk| {
                    let page = bomb(&declares(2_048_000), 2_048_000);
                    chunk.pages = vec![page.clone(), page];
                })
            },
            &["too_large"],
        ),
        first(
            "ends over their limit",
            |chunks| {
                of(chunks, 0, |chunk| {
                    chunk.trailing = vec![0; CHUNK_PLAIN_MAX_BYTES + 1].into();
                })
            },
            &["too_large"],
        ),
        first(
            "a bomb that says so",
            |chunks| {
                of(chunks, 0, |chunk| {
                    chunk.pages[0] = bomb(&declares(BOMB), BOMB);
                })
            },
            &["too_large"],
        ),
        first(
            "a bomb that says nothing",
            |chunks| {
                of(chunks, 0, |chunk| {
                    chunk.pages[0] = bomb(&DECLARES_NOTHING, BOMB);
                })
            },
            &["malformed"],
        ),
        first(
            "a bomb that says less",
            |chunks| {
                of(chunks, 0, |chunk| {
                    chunk.pages[0] = bomb(&declares(30_000), BOMB);
                })
            },
            &["malformed"],
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn proofs_and_bounds() -> Vec<Case> {
    vec![
        first(
            "a hash after",
            |chunks| of(chunks, 0, |chunk| chunk.after[0].0[0] ^= 1),
            &["wrong_root"],
        ),
        first(
            "a hash less after",
            |chunks| {
                of(chunks, 0, |chunk| {
                    chunk.after.truncate(chunk.after.len() - 1);
                })
            },
            &["proof_length"],
        ),
        first(
            "a hash more after",
            |chunks| of(chunks, 0, |chunk| chunk.after.push(Digest([0; 32]))),
            &["proof_length"],
        ),
        first(
            "a hash before the first leaf",
            |chunks| of(chunks, 0, |chunk| chunk.before.push(Digest([0; 32]))),
            &["proof_length"],
        ),
        first(
            "a first index that is shifted",
            |chunks| of(chunks, 0, |chunk| chunk.from = 1),
            ANY_BOUND,
        ),
        first(
            "a last index that is shifted down",
            |chunks| of(chunks, 0, |chunk| chunk.to -= 1),
            ANY_BOUND,
        ),
        first(
            "a last index that is shifted up",
            |chunks| of(chunks, 0, |chunk| chunk.to += 1),
            ANY_BOUND,
        ),
        first(
            "a last index beyond the head",
            |chunks| of(chunks, 0, |chunk| chunk.to = 1 << 41),
            &["invalid", "too_large"],
        ),
        first(
            "no leaves",
            |chunks| of(chunks, 0, |chunk| *chunk = ChunkParts::default()),
            &["invalid", "proof_length"],
        ),
        first(
            "the second chunk first",
            |mut chunks| {
                chunks.reverse();
                chunks
            },
            &["wrong_range"],
        ),
        second(
            "the first chunk twice",
            |mut chunks| {
                let again = chunks[0].clone();
                chunks.insert(1, again);
                chunks
            },
            &["wrong_range"],
        ),
        second(
            "a hash before",
            |chunks| of(chunks, CUT, |chunk| chunk.before[0].0[0] ^= 1),
            &["wrong_root"],
        ),
        second(
            "a hash less before",
            |chunks| {
                of(chunks, CUT, |chunk| {
                    chunk.before.truncate(chunk.before.len() - 1);
                })
            },
            &["proof_length"],
        ),
        second(
            "a hash more before",
            |chunks| of(chunks, CUT, |chunk| chunk.before.push(Digest([0; 32]))),
            &["proof_length"],
        ),
        second(
            "a byte of the second chunk",
            |chunks| {
                of(chunks, CUT, |chunk| {
                    chunk.leading = flip(&chunk.leading, 40);
                })
            },
            ANY_READING,
        ),
        second(
            "a stream that ends early",
            |mut chunks| {
                chunks.retain(|chunk| chunk.from == 0);
                chunks
            },
            &["truncated"],
        ),
    ]
}

impl Stage {
    async fn play(&self, case: Case) {
        let tamper = case.tamper;
        self.hostile.plays(Script {
            cut: Some(CUT),
            tamper: Some(Arc::new(move |chunks| {
                tamper(chunks).into_iter().map(PullPart::Chunk).collect()
            })),
            ..Script::default()
        });
        self.refused(case.what, case.codes, case.before).await;
    }

    async fn refused(&self, what: &str, codes: &[&str], before: u64) {
        let victim = Victim::start(&self.coalition).await;
        victim.meet(&self.coalition, &self.hostile);
        victim.refuses(what, &self.hostile, codes).await;
        until(what, || victim.stored(&self.feed) == before).await;
        assert_eq!(victim.applied(&self.feed), 0, "{what}");
        assert_eq!(victim.answers(0), 0, "{what}");
        victim.meet(&self.coalition, &self.honest);
        until(&format!("{what}: the publisher's leaves"), || {
            victim.applied(&self.feed) == ENTRIES + 1
        })
        .await;
        assert_eq!(victim.answers(ENTRIES - 1), 1, "{what}");
        assert!(victim.refused(&self.honest).is_empty(), "{what}");
        victim.stop(&self.coalition).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tampered_leaves_and_pages_are_refused_and_come_from_elsewhere() {
    let stage = Stage::new(ENTRIES).await;
    for case in leaves_and_pages() {
        stage.play(case).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tampered_proofs_and_bounds_are_refused_and_leaves_come_from_elsewhere() {
    let stage = Stage::new(ENTRIES).await;
    for case in proofs_and_bounds() {
        stage.play(case).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_in_place_of_leaves_is_refused() {
    let stage = Stage::new(ENTRIES).await;
    stage.hostile.plays(Script {
        tamper: Some(Arc::new(|_| {
            vec![PullPart::Proof(crate::types::ProofParts::default())]
        })),
        ..Script::default()
    });
    stage.refused("a proof", &["invalid"], 0).await;
}
