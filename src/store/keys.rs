//! Keys as types: big-endian, so that RocksDB's order is the order of numbers.
//!
//! Every key begins with what is asked for together; a local [`FeedNo`] stands
//! for the 32 bytes of a feed's id.

use std::fmt;

use hashpact_core::signal::SignalKind;

use crate::error::{Result, StoreError};

/// A feed's number in this store. Local: it means nothing to anybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeedNo(pub u32);

impl fmt::Display for FeedNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `kind ‖ 32 bytes`: what a signal is found by.
pub type IndexKey = [u8; 33];

/// The kind byte under which the frames of vPDQ signals are found, each by its PDQ. No
/// kind of signal has this number: it stands in keys of this store and nowhere else.
pub const FRAME_KIND: u8 = 0x87;

/// The kind of signal that a key's kind byte is of.
pub(crate) fn kind_of(byte: u8) -> u8 {
    if byte == FRAME_KIND {
        SignalKind::Vpdq.number_byte()
    } else {
        byte
    }
}

/// The key by which a frame of a video is found.
#[must_use]
pub fn frame(pdq: &[u8; 32]) -> IndexKey {
    let mut key = [0; 33];
    let (kind, value) = key.split_at_mut(1);
    kind.copy_from_slice(&[FRAME_KIND]);
    value.copy_from_slice(pdq);
    key
}

/// Bytes of an index in a signal's key: a feed has at most 2^40 leaves.
const INDEX_BYTES: usize = 5;
/// Bytes of a posting's key: index key, feed, leaf index.
pub(crate) const SIGNAL_KEY_BYTES: usize = 33 + 4 + INDEX_BYTES;

/// `feed`: what begins every key of one feed.
pub(crate) const fn feed_prefix(feed: FeedNo) -> [u8; 4] {
    feed.0.to_be_bytes()
}

/// The first key after all of one feed's.
pub(crate) fn feed_end(feed: FeedNo) -> Vec<u8> {
    feed.0
        .checked_add(1)
        .map_or_else(|| vec![0xff; 64], |next| next.to_be_bytes().to_vec())
}

/// `feed ‖ number`: pages, tail leaves, killers, entries.
pub(crate) fn numbered(feed: FeedNo, number: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&feed_prefix(feed));
    key[4..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Reads `feed ‖ number`.
pub(crate) fn read_numbered(key: &[u8]) -> Result<(FeedNo, u64)> {
    let wrong = || StoreError::corrupt("a key is not feed and number");
    let (feed, number) = key.split_first_chunk::<4>().ok_or_else(wrong)?;
    let number: [u8; 8] = number.try_into().map_err(|_| wrong())?;
    Ok((
        FeedNo(u32::from_be_bytes(*feed)),
        u64::from_be_bytes(number),
    ))
}

/// `feed ‖ level ‖ index`: a node of a feed's tree.
pub(crate) fn tree(feed: FeedNo, level: u8, index: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..4].copy_from_slice(&feed_prefix(feed));
    key[4] = level;
    key[5..].copy_from_slice(&index.to_be_bytes());
    key
}

/// `feed ‖ epoch ‖ size`: a head.
pub(crate) fn head(feed: FeedNo, epoch: u32, size: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&feed_prefix(feed));
    key[4..8].copy_from_slice(&epoch.to_be_bytes());
    key[8..].copy_from_slice(&size.to_be_bytes());
    key
}

/// Reads `feed ‖ epoch ‖ size`.
pub(crate) fn read_head(key: &[u8]) -> Result<(FeedNo, u32, u64)> {
    let wrong = || StoreError::corrupt("a head's key is not feed, epoch and size");
    let (feed, rest) = key.split_first_chunk::<4>().ok_or_else(wrong)?;
    let (epoch, size) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
    let size: [u8; 8] = size.try_into().map_err(|_| wrong())?;
    Ok((
        FeedNo(u32::from_be_bytes(*feed)),
        u32::from_be_bytes(*epoch),
        u64::from_be_bytes(size),
    ))
}

/// `index key ‖ feed ‖ leaf index` (5 bytes): a posting.
pub(crate) fn signal(key: &IndexKey, feed: FeedNo, index: u64) -> [u8; SIGNAL_KEY_BYTES] {
    let mut out = [0; SIGNAL_KEY_BYTES];
    out[..33].copy_from_slice(key);
    out[33..37].copy_from_slice(&feed_prefix(feed));
    out[37..].copy_from_slice(&index.to_be_bytes()[3..]);
    out
}

/// Reads feed and leaf index of a posting's key.
pub(crate) fn read_signal(key: &[u8]) -> Result<(FeedNo, u64)> {
    let key: &[u8; SIGNAL_KEY_BYTES] = key
        .try_into()
        .map_err(|_| StoreError::corrupt("a posting's key has another length"))?;
    let mut feed = [0; 4];
    feed.copy_from_slice(&key[33..37]);
    let mut index = [0; 8];
    index[3..].copy_from_slice(&key[37..]);
    Ok((FeedNo(u32::from_be_bytes(feed)), u64::from_be_bytes(index)))
}

/// `feed ‖ 16-byte digest`: an own entry by its source reference or signals.
pub(crate) fn reference(feed: FeedNo, digest: &[u8; 16]) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&feed_prefix(feed));
    key[4..].copy_from_slice(digest);
    key
}

/// `number ‖ version`: cards and suspensions by member.
pub(crate) fn member_version(member: u32, version: u64) -> [u8; 12] {
    numbered(FeedNo(member), version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers() {
        let order = [
            numbered(FeedNo(1), 0),
            numbered(FeedNo(1), 255),
            numbered(FeedNo(1), 256),
            numbered(FeedNo(2), 0),
            numbered(FeedNo(256), 1),
        ];
        assert!(order.is_sorted());
        assert!(head(FeedNo(1), 0, u64::MAX) < head(FeedNo(1), 1, 0));
        assert!(numbered(FeedNo(7), u64::MAX).as_slice() < feed_end(FeedNo(7)).as_slice());
    }

    #[test]
    fn keys_read_back() {
        let index = (1 << 40) - 1;
        let key = signal(&[9; 33], FeedNo(0x0102_0304), index);
        assert_eq!(read_signal(&key).unwrap(), (FeedNo(0x0102_0304), index));
        assert_eq!(
            read_numbered(&numbered(FeedNo(3), 77)).unwrap(),
            (FeedNo(3), 77)
        );
        assert_eq!(
            read_head(&head(FeedNo(3), 4, 5)).unwrap(),
            (FeedNo(3), 4, 5)
        );
        assert!(read_signal(&key[1..]).is_err());
    }
}
