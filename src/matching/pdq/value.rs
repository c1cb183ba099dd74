//! A PDQ value as four words, big-endian, so that the order of words is the order of bytes.

/// A PDQ value.
pub(crate) type Words = [u64; 4];

/// Reads 32 bytes as words.
#[inline]
pub(crate) fn to_words(value: &[u8; 32]) -> Words {
    let mut words = [0; 4];
    let (chunks, _) = value.as_chunks::<8>();
    for (word, bytes) in words.iter_mut().zip(chunks) {
        *word = u64::from_be_bytes(*bytes);
    }
    words
}

/// Writes words as 32 bytes.
#[inline]
pub(crate) fn to_bytes(words: &Words) -> [u8; 32] {
    let mut value = [0; 32];
    let (chunks, _) = value.as_chunks_mut::<8>();
    for (bytes, word) in chunks.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
    value
}

/// Counts the bits in which two values differ.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "inherits the caller's instruction set"
)]
pub(crate) fn differing_bits([a0, a1, a2, a3]: &Words, [b0, b1, b2, b3]: &Words) -> u32 {
    let low = (a0 ^ b0).count_ones().wrapping_add((a1 ^ b1).count_ones());
    let high = (a2 ^ b2).count_ones().wrapping_add((a3 ^ b3).count_ones());
    low.wrapping_add(high)
}

/// Counts the bits in which two PDQ values differ: 0 to 256.
#[must_use]
pub fn distance(a: &[u8; 32], b: &[u8; 32]) -> u32 {
    differing_bits(&to_words(a), &to_words(b))
}
