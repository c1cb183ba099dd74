//! Where the salts of leaves come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashpact_core::id::Digest;

/// Gives the 16 bytes that keep the digest of an erased payload from saying anything.
#[derive(Debug, Clone, Default)]
pub struct Salts(Source);

#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    System,
    Seeded(u64, Arc<AtomicU64>),
}

impl Salts {
    /// Salts that follow from a seed, for simulations. ⚠ Never where others hold the
    /// leaves: whoever knows the seed can tell what was erased.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(seed, Arc::default()))
    }

    pub(crate) fn next(&self) -> [u8; 16] {
        match &self.0 {
            Source::System => rand::random(),
            Source::Seeded(seed, count) => {
                let count = count.fetch_add(1, Ordering::SeqCst);
                let digest = Digest::of(&[seed.to_be_bytes(), count.to_be_bytes()].concat());
                let salt = digest.0.first_chunk().copied();
                salt.unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_follow_from_a_seed_only_where_one_is_given() {
        let (one, other) = (Salts::seeded(7), Salts::seeded(7));
        let first = one.next();
        assert_eq!(first, other.next());
        assert_ne!(first, one.next());
        assert_ne!(first, Salts::seeded(8).next());
        assert_ne!(Salts::default().next(), Salts::default().next());
    }
}
