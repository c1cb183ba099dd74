//! How many leaves of each sort a feed has.

/// How many leaves of each sort are indexed. Dead ones are counted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeedCounts {
    /// Describe leaves.
    pub describe: u64,
    /// Publish leaves with their payload.
    pub publish: u64,
    /// Retract leaves.
    pub retract: u64,
    /// Opinion leaves with their payload.
    pub opinion: u64,
    /// Erase leaves.
    pub erase: u64,
    /// Leaves of kinds that this program does not know.
    pub unknown: u64,
    /// Leaves that break a rule.
    pub void: u64,
    /// Leaves held as their record alone when they were indexed.
    pub elided: u64,
    /// Postings written.
    pub postings: u64,
    /// How many of them are frames of videos. What was let in later than its leaf came is
    /// in neither.
    pub frames: u64,
}

impl FeedCounts {
    pub(crate) fn read(counts: &[u64]) -> Self {
        let at = |n: usize| counts.get(n).copied().unwrap_or(0);
        Self {
            describe: at(0),
            publish: at(1),
            retract: at(2),
            opinion: at(3),
            erase: at(4),
            unknown: at(5),
            void: at(6),
            elided: at(7),
            postings: at(8),
            frames: at(9),
        }
    }

    /// These and `more` together.
    pub(crate) fn plus(self, more: &Self) -> Self {
        let sums = self.to_row().into_iter().zip(more.to_row());
        let sums: Vec<u64> = sums.map(|(a, b)| a.saturating_add(b)).collect();
        Self::read(&sums)
    }

    pub(crate) fn to_row(self) -> Vec<u64> {
        vec![
            self.describe,
            self.publish,
            self.retract,
            self.opinion,
            self.erase,
            self.unknown,
            self.void,
            self.elided,
            self.postings,
            self.frames,
        ]
    }
}
