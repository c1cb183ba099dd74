//! What a node keeps of what is done on it and of what it answers, and for how long.

use serde::Serialize;

/// `[audit]`: the record of who did what on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Acts in a segment before it is sealed.
    pub segment_leaves: u64,
    /// A segment's age before it is sealed.
    pub segment_days: u64,
    /// How long a sealed segment is kept; 0 for ever.
    pub retain_days: u64,
    /// Segments that are kept at most, whatever their age.
    pub segments_max: u64,
}

/// `[receipts]`: what is agreed about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipts {
    /// After how long another member's receipt of an own set is overdue.
    pub overdue_after_s: u64,
}

/// `[match_journal]`: what is kept of answers that somebody acts on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MatchJournal {
    /// Answers that are kept at most; 0 turns it off, and forgets those there are.
    pub max_entries: u64,
    /// How long one is kept.
    pub keep_days: u64,
}
