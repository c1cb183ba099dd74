//! Rules that several kinds of leaf share.

use bytes::Bytes;
use prost::Message;

use super::IndexRange;
use crate::limits::LEAF_PAYLOAD_MAX_BYTES;
use crate::reject::Rejection;

/// Random bytes in every payload, so that the digest of an erased one says nothing.
pub(super) const SALT_BYTES: usize = 16;

/// Decodes a payload, whose size is within the limit.
pub(super) fn decode<M: Message + Default>(
    what: &'static str,
    payload: &Bytes,
) -> Result<M, Rejection> {
    Rejection::cap("leaf payload", payload.len(), LEAF_PAYLOAD_MAX_BYTES)?;
    // prost's error names a field, never a value.
    M::decode(payload.clone()).map_err(|error| Rejection::malformed(what, error.to_string()))
}

/// Encodes a payload once and for all.
pub(super) fn encode<M: Message>(message: &M) -> Result<Bytes, Rejection> {
    Rejection::cap(
        "leaf payload",
        message.encoded_len(),
        LEAF_PAYLOAD_MAX_BYTES,
    )?;
    Ok(message.encode_to_vec().into())
}

pub(super) fn salt(what: &'static str, salt: &[u8]) -> Result<(), Rejection> {
    if salt.len() == SALT_BYTES {
        Ok(())
    } else {
        Err(Rejection::invalid(what, "the salt has not 16 bytes"))
    }
}

/// Refuses text that is too long or has control characters, with which a peer
/// could write over an operator's terminal. Line breaks are for `lines` only.
pub(super) fn text(
    what: &'static str,
    text: &str,
    max_bytes: usize,
    lines: Lines,
) -> Result<(), Rejection> {
    if text.len() > max_bytes {
        let why = format!("{} bytes, at most {max_bytes}", text.len());
        return Err(Rejection::invalid(what, why));
    }
    let bad = |c: char| (c.is_control() && !(c == '\n' && lines == Lines::Many)) || is_bidi(c);
    if text.chars().any(bad) {
        return Err(Rejection::invalid(what, "a control character"));
    }
    Ok(())
}

/// Characters that reorder what stands around them.
const fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a text may have line breaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    One,
    Many,
}

/// PROTOCOL: `replaces` is strictly ascending.
pub(super) fn ascending(what: &'static str, indexes: &[u64]) -> Result<(), Rejection> {
    if indexes.is_sorted_by(|a, b| a < b) {
        Ok(())
    } else {
        Err(Rejection::invalid(what, "`replaces` is not ascending"))
    }
}

/// PROTOCOL: a leaf names only leaves before it.
pub(super) fn before(
    what: &'static str,
    end: Option<u64>,
    own_index: u64,
) -> Result<(), Rejection> {
    if end.is_none_or(|end| end <= own_index) {
        Ok(())
    } else {
        Err(Rejection::invalid(what, "names a leaf not before its own"))
    }
}

/// PROTOCOL: ranges are not empty, ascending, disjoint and not adjacent.
pub(super) fn canonical(what: &'static str, ranges: &[IndexRange]) -> Result<(), Rejection> {
    let each =
        |range: &IndexRange| range.count > 0 && range.first.checked_add(range.count).is_some();
    let apart = ranges.is_sorted_by(|a, b| a.end() < b.first);
    if !ranges.is_empty() && ranges.iter().all(each) && apart {
        Ok(())
    } else {
        let why = "ranges are not ascending and apart, or there is none";
        Err(Rejection::invalid(what, why))
    }
}

/// Refuses a number that no value of an enumeration has, or the unspecified one.
pub(super) fn enumerated<T>(what: &'static str, value: Option<T>) -> Result<T, Rejection> {
    value.ok_or_else(|| Rejection::invalid(what, "a value that is not known"))
}
