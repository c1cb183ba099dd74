//! Pages: 256 aligned leaves as they are stored and travel.
//!
//! Plain form of a leaf: the kind byte, then the payload's length plus one as a
//! canonical unsigned LEB128 and the payload; or a zero byte and the 32-byte
//! digest of a payload that was elided. A page's plain form is its 256 leaves
//! one after the other; its wire form is one zstd frame of that, which states its
//! content size and needs no dictionary. Page bytes are never signed: the leaves
//! in them are.
//!
//! Bytes are not trusted. Sizes are checked before anything is allocated, and a
//! frame is decoded in one shot into a buffer of the declared, capped size: a
//! streaming decoder reserves the window that the frame asks for, 128 MiB for a
//! frame of 27 bytes.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::zstd_safe;

use crate::id::Digest;
use crate::leaf::{LeafBody, RawLeaf};
use crate::limits::{LEAF_PAYLOAD_MAX_BYTES, PAGE_LEAVES, PAGE_PLAIN_MAX_BYTES};
use crate::reject::Rejection;

const WHAT: &str = "page";
/// [`PAGE_LEAVES`] as a count in memory.
const LEAVES: usize = 256;
const _: () = assert!(LEAVES as u64 == PAGE_LEAVES);
/// A frame of zstd grows what does not compress by three bytes for each block of
/// 128 KiB, and has a header and a checksum of at most 22: 2 KiB is ample.
const PAGE_WIRE_MAX_BYTES: usize = PAGE_PLAIN_MAX_BYTES + 2_048;
/// Level 1: leaves are digests and hardly compress, and importing waits for it.
const COMPRESSION_LEVEL: i32 = 1;

thread_local! {
    /// Scratch memory of the codec (about 160 KiB), kept between pages.
    static DECODER: RefCell<zstd_safe::DCtx<'static>> = RefCell::new(zstd_safe::DCtx::create());
    static ENCODER: RefCell<zstd_safe::CCtx<'static>> = RefCell::new(zstd_safe::CCtx::create());
}

/// Encodes exactly 256 leaves into a page's wire form.
///
/// # Errors
/// [`Rejection::Invalid`] for another number of leaves, [`Rejection::TooLarge`]
/// for a payload over the limit.
pub fn encode(leaves: &[RawLeaf]) -> Result<Bytes, Rejection> {
    if leaves.len() != LEAVES {
        let why = format!("{} leaves instead of {LEAVES}", leaves.len());
        return Err(Rejection::invalid(WHAT, why));
    }
    let plain = encode_plain(leaves)?;
    let mut wire = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    ENCODER
        .with_borrow_mut(|context| context.compress(&mut wire, &plain, COMPRESSION_LEVEL))
        .map_err(|code| Rejection::malformed(WHAT, zstd_safe::get_error_name(code)))?;
    Ok(Bytes::from(wire))
}

/// Encodes leaves in plain form, one after the other.
///
/// # Errors
/// [`Rejection::TooLarge`] for a payload over the limit.
pub fn encode_plain(leaves: &[RawLeaf]) -> Result<Bytes, Rejection> {
    let bound = leaves
        .iter()
        .map(|leaf| leaf.payload().map_or(0, Bytes::len).saturating_add(34))
        .fold(0, usize::saturating_add);
    let mut plain = Vec::with_capacity(bound);
    for leaf in leaves {
        put_plain(leaf, &mut plain)?;
    }
    Ok(Bytes::from(plain))
}

/// Appends the plain form of one leaf.
///
/// # Errors
/// [`Rejection::TooLarge`] for a payload over the limit.
pub fn put_plain(leaf: &RawLeaf, plain: &mut Vec<u8>) -> Result<(), Rejection> {
    plain.push(leaf.kind);
    match &leaf.body {
        LeafBody::Payload(payload) => {
            Rejection::cap("leaf payload", payload.len(), LEAF_PAYLOAD_MAX_BYTES)?;
            put_length(payload.len().saturating_add(1), plain);
            plain.extend_from_slice(payload);
        }
        LeafBody::Elided(digest) => {
            plain.push(0);
            plain.extend_from_slice(digest.as_bytes());
        }
    }
    Ok(())
}

/// Decodes a page's wire form into its 256 leaves, whose payloads are slices of
/// one buffer.
///
/// # Errors
/// [`Rejection::TooLarge`] before anything is decoded; [`Rejection::Malformed`]
/// for a frame without its size, with another size, with a dictionary, with
/// something after it, and for anything but 256 leaves in canonical form.
pub fn decode(wire: &Bytes) -> Result<Vec<RawLeaf>, Rejection> {
    let plain = decompress(wire)?;
    let leaves = decode_plain(&plain, LEAVES)?;
    if leaves.len() == LEAVES {
        Ok(leaves)
    } else {
        let why = format!("{} leaves instead of {LEAVES}", leaves.len());
        Err(Rejection::malformed(WHAT, why))
    }
}

/// The size of a page's plain form, as its frame declares it, without decoding.
///
/// # Errors
/// As [`decode`], as far as the frame's header shows it.
pub fn plain_len(wire: &[u8]) -> Result<usize, Rejection> {
    Rejection::cap(WHAT, wire.len(), PAGE_WIRE_MAX_BYTES)?;
    let size = zstd_safe::get_frame_content_size(wire)
        .map_err(|_| Rejection::malformed(WHAT, "no zstd frame"))?
        .ok_or_else(|| Rejection::malformed(WHAT, "the frame does not state its size"))?;
    if zstd_safe::get_dict_id_from_frame(wire).is_some() {
        return Err(Rejection::malformed(WHAT, "the frame needs a dictionary"));
    }
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    Rejection::cap("page in plain form", size, PAGE_PLAIN_MAX_BYTES)?;
    Ok(size)
}

/// Decodes leaves in plain form that stand one after the other, at most
/// `max_leaves` of them. The payloads are slices of `plain`.
///
/// # Errors
/// [`Rejection::TooLarge`] for more leaves or a longer payload;
/// [`Rejection::Malformed`] for bytes that are not the canonical plain form.
pub fn decode_plain(plain: &Bytes, max_leaves: usize) -> Result<Vec<RawLeaf>, Rejection> {
    // A leaf has at least two bytes.
    let mut leaves = Vec::with_capacity(max_leaves.min(LEAVES).min(plain.len()));
    let mut at = 0;
    while at < plain.len() {
        if leaves.len() == max_leaves {
            return Err(Rejection::malformed(
                WHAT,
                format!("more than {max_leaves} leaves"),
            ));
        }
        let (leaf, next) = take_leaf(plain, at)?;
        leaves.push(leaf);
        at = next;
    }
    Ok(leaves)
}

/// Decodes exactly one leaf in plain form.
///
/// # Errors
/// As [`decode_plain`].
pub fn decode_leaf(plain: &Bytes) -> Result<RawLeaf, Rejection> {
    match take_leaf(plain, 0)? {
        (leaf, end) if end == plain.len() => Ok(leaf),
        _ => Err(Rejection::malformed("leaf", "bytes after its end")),
    }
}

fn decompress(wire: &[u8]) -> Result<Bytes, Rejection> {
    let size = plain_len(wire)?;
    let one_frame = zstd_safe::find_frame_compressed_size(wire)
        .map_err(|_| Rejection::malformed(WHAT, "the frame is cut short"))?;
    if one_frame != wire.len() {
        return Err(Rejection::malformed(WHAT, "bytes after the frame"));
    }
    let mut plain = Vec::with_capacity(size);
    let got = DECODER
        .with_borrow_mut(|context| context.decompress(&mut plain, wire))
        .map_err(|code| Rejection::malformed(WHAT, zstd_safe::get_error_name(code)))?;
    if got != size {
        return Err(Rejection::malformed(WHAT, "another size than declared"));
    }
    Ok(Bytes::from(plain))
}

/// Takes the leaf that begins at `at`; returns it and where the next begins.
#[inline]
fn take_leaf(plain: &Bytes, at: usize) -> Result<(RawLeaf, usize), Rejection> {
    let rest = plain.get(at..).unwrap_or_default();
    let (&kind, rest) = rest.split_first().ok_or_else(cut_short)?;
    let (length_plus_one, rest) = take_length(rest)?;
    let begin = plain.len().saturating_sub(rest.len());
    let Some(length) = length_plus_one.checked_sub(1) else {
        let digest = rest.first_chunk::<32>().ok_or_else(cut_short)?;
        let body = LeafBody::Elided(Digest(*digest));
        return Ok((RawLeaf { kind, body }, begin.saturating_add(32)));
    };
    Rejection::cap("leaf payload", length, LEAF_PAYLOAD_MAX_BYTES)?;
    if rest.len() < length {
        return Err(cut_short());
    }
    let end = begin.saturating_add(length);
    Ok((RawLeaf::new(kind, plain.slice(begin..end)), end))
}

/// Takes a canonical unsigned LEB128 of at most two bytes, so below 16,384: the
/// longest payload's length plus one is 8,001.
#[inline]
fn take_length(bytes: &[u8]) -> Result<(usize, &[u8]), Rejection> {
    match bytes {
        [low, rest @ ..] if low & 0x80 == 0 => Ok((usize::from(*low), rest)),
        [_, 0, ..] => Err(Rejection::malformed("leaf", "length is not canonical")),
        [low, high, rest @ ..] if high & 0x80 == 0 => {
            let length = (usize::from(*high) << 7) | usize::from(low & 0x7f);
            Ok((length, rest))
        }
        [_, _, ..] => Err(Rejection::TooLarge {
            what: "leaf payload",
            size: 16_383,
            limit: LEAF_PAYLOAD_MAX_BYTES,
        }),
        _ => Err(cut_short()),
    }
}

/// Appends `length`, which is below 16,384, as unsigned LEB128.
fn put_length(length: usize, plain: &mut Vec<u8>) {
    let low = u8::try_from(length & 0x7f).unwrap_or_default(); // masked to seven bits
    let high = u8::try_from((length >> 7) & 0x7f).unwrap_or_default();
    if high == 0 {
        plain.push(low);
    } else {
        plain.extend_from_slice(&[low | 0x80, high]);
    }
}

fn cut_short() -> Rejection {
    Rejection::malformed("leaf", "cut short")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn leaf(number: usize, length: usize) -> RawLeaf {
        let bytes = (0..length).map(|i| Digest::of(&(number * 8_192 + i).to_be_bytes()).0[0]);
        RawLeaf::new(2, bytes.collect::<Vec<_>>().into())
    }

    fn page(length: usize) -> Vec<RawLeaf> {
        (0..LEAVES).map(|number| leaf(number, length)).collect()
    }

    fn frame(plain: &[u8]) -> Bytes {
        zstd::bulk::compress(plain, 1).unwrap().into()
    }

    fn code(result: Result<Vec<RawLeaf>, Rejection>) -> &'static str {
        result.map_or_else(|rejection| rejection.code(), |_| "accepted")
    }

    #[test]
    fn a_page_reads_back_as_written() {
        for length in [0, 1, 126, 127, 134, LEAF_PAYLOAD_MAX_BYTES] {
            let leaves = page(length);
            assert_eq!(decode(&encode(&leaves).unwrap()).unwrap(), leaves);
        }
    }

    #[test]
    fn only_256_leaves_make_a_page() {
        let mut leaves = page(20);
        leaves.push(leaf(0, 20));
        assert!(encode(&leaves).is_err());
        let long = frame(&encode_plain(&leaves).unwrap());
        assert_eq!(code(decode(&long)), "malformed");
        let short = frame(&encode_plain(&leaves[..255]).unwrap());
        assert_eq!(code(decode(&short)), "malformed");
    }

    #[test]
    fn a_frame_without_its_size_is_refused_before_decoding() {
        // 27 bytes that make a streaming decoder reserve 128 MiB.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        let zeros = vec![0; 1 << 16];
        encoder.write_all(&zeros).unwrap();
        encoder.flush().unwrap();
        for _ in 0..3 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = Bytes::from(encoder.finish().unwrap());
        assert!(bomb.len() < 64);
        assert_eq!(
            decode(&bomb),
            Err(Rejection::malformed(
                WHAT,
                "the frame does not state its size"
            ))
        );
    }

    #[test]
    fn a_frame_that_declares_too_much_is_refused_before_decoding() {
        let bomb = frame(&vec![0; PAGE_PLAIN_MAX_BYTES + 1]);
        assert_eq!(code(decode(&bomb)), "too_large");
        let long = Bytes::from(vec![0; PAGE_WIRE_MAX_BYTES + 1]);
        assert_eq!(code(decode(&long)), "too_large");
    }

    #[test]
    fn a_frame_that_declares_less_than_it_holds_is_refused() {
        let plain = encode_plain(&page(20)).unwrap();
        let wire = frame(&plain);
        // The frame's content size stands in the two bytes after magic and descriptor.
        let size = zstd_safe::get_frame_content_size(&wire).unwrap().unwrap();
        let mut changed = wire.to_vec();
        changed[5] = changed[5].wrapping_sub(1);
        let other = zstd_safe::get_frame_content_size(&changed).unwrap();
        assert_ne!(other, Some(size));
        assert_eq!(code(decode(&changed.into())), "malformed");
    }

    #[test]
    fn a_frame_with_a_dictionary_is_refused() {
        // Magic, descriptor (one segment, a dictionary id of one byte), id, size.
        let wire = [0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 1, 9, 0, 0, 2];
        assert_eq!(
            decode(&Bytes::copy_from_slice(&wire)),
            Err(Rejection::malformed(WHAT, "the frame needs a dictionary"))
        );
    }

    #[test]
    fn bytes_after_the_frame_are_refused() {
        let wire = encode(&page(20)).unwrap();
        let empty_frame = zstd::bulk::compress(&[], 1).unwrap();
        for tail in [&[0_u8][..], &wire, &empty_frame] {
            let mut longer = wire.to_vec();
            longer.extend_from_slice(tail);
            assert_eq!(code(decode(&longer.into())), "malformed");
        }
    }

    #[test]
    fn lengths_are_canonical_and_capped() {
        let plain = |bytes: &[u8]| code(decode_plain(&Bytes::copy_from_slice(bytes), 8));
        assert_eq!(plain(&[2, 2, 9]), "accepted");
        assert_eq!(plain(&[2, 0x82, 0, 9]), "malformed");
        assert_eq!(plain(&[2, 0x80, 0]), "malformed");
        assert_eq!(plain(&[2, 0xff, 0xff, 0x01]), "too_large");
        // 8,002 is the length plus one of a payload one byte too long.
        let mut long = vec![2, 0xc2, 0x3e];
        long.resize(3 + 8_001, 0);
        assert_eq!(plain(&long), "too_large");
        let mut longest = vec![2, 0xc1, 0x3e];
        longest.resize(3 + 8_000, 0);
        assert_eq!(plain(&longest), "accepted");
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let plain = encode_plain(&[leaf(1, 3).elided(), leaf(2, 200)]).unwrap();
        for cut in 1..plain.len() {
            // Only the end of the first leaf is the end of a leaf.
            let expected = if cut == 34 { "accepted" } else { "malformed" };
            assert_eq!(code(decode_plain(&plain.slice(..cut), 8)), expected);
        }
        assert!(decode_leaf(&plain).is_err());
    }

    proptest! {
        #[test]
        fn plain_leaves_read_back(lengths in prop::collection::vec(prop::option::of(0_usize..300), 0..20)) {
            let leaves: Vec<RawLeaf> = lengths
                .iter()
                .enumerate()
                .map(|(number, length)| match length {
                    Some(length) => leaf(number, *length),
                    None => leaf(number, 5).elided(),
                })
                .collect();
            let plain = encode_plain(&leaves).unwrap();
            prop_assert_eq!(decode_plain(&plain, 20).unwrap(), leaves);
        }

        #[test]
        fn what_decodes_is_the_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            if let Ok(leaves) = decode_plain(&bytes, 200) {
                prop_assert_eq!(encode_plain(&leaves).unwrap(), bytes);
            }
        }

        #[test]
        fn changed_pages_never_panic(at in 0_usize..5_000, bit in 0_u8..8) {
            let mut wire = encode(&page(20)).unwrap().to_vec();
            let at = at % wire.len();
            wire[at] ^= 1 << bit;
            let _ = decode(&wire.into());
        }
    }
}
