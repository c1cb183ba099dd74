//! Doubts that this node has by itself: they hold an entry at review, whatever a policy
//! says, and are told with every match.

use std::collections::HashMap;

use hashpact_core::policy::{Classed, Verdict, corroborates, in_conflict};
use hashpact_core::signal::Signal;

use super::Judge;
use crate::model::{IndexKey, Matched};

/// What this node doubts of one match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doubts {
    /// As many members say of the very signal what excludes its classification.
    pub class_conflict: bool,
    /// The signal matches too much of what is asked.
    pub flood: bool,
    class_conflict_counts: bool,
}

impl Doubts {
    /// Their stable codes.
    pub fn codes(self) -> impl Iterator<Item = &'static str> {
        let class_conflict = self.class_conflict.then_some("class_conflict");
        class_conflict
            .into_iter()
            .chain(self.flood.then_some("flood"))
    }

    pub(super) const fn ceiling(self) -> Verdict {
        if self.flood || (self.class_conflict && self.class_conflict_counts) {
            Verdict::Review
        } else {
            Verdict::Enforce
        }
    }
}

impl Judge<'_> {
    /// What is doubted of each match, in order; of those beyond the list nothing.
    #[must_use]
    pub fn doubts(&self, signal: &Signal, matched: &Matched) -> Vec<Doubts> {
        let found = &matched.found;
        let first = found.first().map(|found| &found.entry.classification);
        let one_class = found
            .iter()
            .all(|found| Some(&found.entry.classification) == first);
        if one_class && self.floods.is_empty() {
            return Vec::new();
        }
        let flooded = |key: &IndexKey| {
            let flood = self.floods.get(key);
            flood.is_some_and(|flood| self.now < flood.until)
        };
        let class_conflict_counts = self.class_conflicts_count;
        let mut doubts: Vec<Doubts> = found
            .iter()
            .map(|found| Doubts {
                flood: flooded(&found.key),
                class_conflict: false,
                class_conflict_counts,
            })
            .collect();
        if one_class {
            return doubts;
        }
        let mut of_key: HashMap<&IndexKey, Vec<usize>> = HashMap::new();
        for (place, found) in found.iter().enumerate() {
            of_key.entry(&found.key).or_default().push(place);
        }
        for places in of_key.into_values().filter(|places| places.len() > 1) {
            let said = places.iter().filter_map(|place| found.get(*place));
            let said: Vec<Classed<'_>> = said
                .map(|found| Classed {
                    member: found.entry.publisher,
                    classification: &found.entry.classification,
                    corroborates: corroborates(signal.kind(), found.entry.basis),
                })
                .collect();
            for (place, conflict) in places.iter().zip(in_conflict(&said)) {
                if let Some(doubts) = doubts.get_mut(*place) {
                    doubts.class_conflict = conflict;
                }
            }
        }
        doubts
    }
}
