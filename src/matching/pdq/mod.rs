//! PDQ: 256 bits per image, alike images differ in few of them.

pub mod bench;
pub mod hash;
pub mod index;

mod value;

pub use index::{DistanceTooLarge, PdqIndex, Stats};
pub use value::distance;

/// Distance up to which two PDQ values count as the same picture, by the algorithm's authors.
pub const DEFAULT_DISTANCE: u32 = 31;

/// Largest distance that may be asked for. Unrelated pictures are 128 ± 8 apart; beyond 64 an answer means nothing.
pub const MAX_DISTANCE: u32 = 64;
