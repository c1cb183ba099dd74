//! Shares of signals, for rules that are rolled out bit by bit.
//!
//! A signal's share is a number that follows from a secret of the node and the signal,
//! and never changes: a rule for 10 per cent is for the same signals tomorrow, and those
//! of a rule for 20 per cent are among them. Without the secret nobody can tell which
//! signals they are, so a share reveals no value.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Shares that there are: a rule for all of them is for every signal.
pub const SHARES: u16 = 10_000;

/// A node's secret, for digests of signals that only it can make.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    /// Takes random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A digest of a signal's index key (kind and 32 bytes) for one purpose.
    #[must_use]
    pub fn digest(&self, purpose: &'static str, key: &[u8; 33]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        // The secret has one length, and so has the key: nothing runs into another.
        hasher.update(self.0);
        hasher.update(key);
        hasher.update(purpose.as_bytes());
        // Twice, so that no longer input follows from a digest.
        Sha256::digest(hasher.finalize()).into()
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}

/// The share of a signal, below [`SHARES`].
#[must_use]
pub fn share_of(salt: &Salt, key: &[u8; 33]) -> u16 {
    let digest = salt.digest("share", key);
    let first = digest.first_chunk::<8>().copied().unwrap_or_default();
    let share = u64::from_be_bytes(first)
        .checked_rem(u64::from(SHARES))
        .unwrap_or_default();
    u16::try_from(share).unwrap_or_default()
}
