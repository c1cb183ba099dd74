//! What an operator may set about doubts that this node has by itself.

/// An hour, in milliseconds.
const HOUR_MS: u64 = 3_600_000;

/// The settings, with their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HygieneOptions {
    /// A signal that so many of 100 distinct values match is a flood; 0 for never.
    pub flood_share_percent: u8,
    /// Of fewer distinct values none is.
    pub flood_min_values: u64,
    /// How long a flood is held at review, and a released one let alone.
    pub flood_hold_ms: u64,
    /// Whether entries of one signal whose classifications exclude each other are at most
    /// review; they are told in any case.
    pub class_conflicts_review: bool,
    /// Whether publishers are told what of their sets is held back here.
    pub tell_publishers: bool,
}

impl Default for HygieneOptions {
    fn default() -> Self {
        Self {
            flood_share_percent: 10,
            flood_min_values: 200,
            flood_hold_ms: 24 * HOUR_MS,
            class_conflicts_review: true,
            tell_publishers: true,
        }
    }
}
