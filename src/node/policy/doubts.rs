//! Doubts that this node has by itself: they hold an entry at review, whatever a policy
//! says, and are told with every match.

use std::collections::HashMap;

use hashpact_core::policy::{Classed, Verdict, in_conflict};

use super::Judge;
use super::judge::standing_ceiling;
use crate::model::{IndexKey, Matched};

/// What this node doubts of one match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doubts {
    /// As many members say of the very signal what excludes its classification.
    pub class_conflict: bool,
    /// The signal matches too much of what is asked.
    pub flood: bool,
    /// Other members who say so. They are to a policy as if they had disputed the entry:
    /// what it makes of one negative opinion, it makes of one of them.
    pub(super) against: u64,
    /// Its own publisher says both.
    by_itself: bool,
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
        if self.flood || self.by_itself {
            Verdict::Review
        } else {
            Verdict::Enforce
        }
    }
}

impl Judge<'_> {
    /// What is doubted of each match, in order; of those beyond the list nothing.
    #[must_use]
    pub fn doubts(&self, matched: &Matched) -> Vec<Doubts> {
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
        let counts = self.class_conflicts_count;
        let mut doubts: Vec<Doubts> = found
            .iter()
            .map(|found| Doubts {
                flood: flooded(&found.key),
                ..Doubts::default()
            })
            .collect();
        if one_class {
            return doubts;
        }
        let mut of_key: HashMap<&IndexKey, Vec<usize>> = HashMap::new();
        for (place, found) in found.iter().enumerate() {
            // ⚠ What nobody acts on here speaks against nobody.
            let acted_on = standing_ceiling(found.entry.standing) == Verdict::Enforce
                && !self.mutes.set(&found.entry.entry.set, self.now);
            if acted_on {
                of_key.entry(&found.key).or_default().push(place);
            }
        }
        for places in of_key.into_values().filter(|places| places.len() > 1) {
            let said = places.iter().filter_map(|place| found.get(*place));
            let said: Vec<Classed<'_>> = said
                .map(|found| Classed {
                    member: found.entry.publisher,
                    classification: &found.entry.classification,
                })
                .collect();
            for (place, conflict) in places.iter().zip(in_conflict(&said)) {
                if let Some((doubts, conflict)) = doubts.get_mut(*place).zip(conflict) {
                    doubts.class_conflict = true;
                    doubts.against = if counts { conflict.members } else { 0 };
                    doubts.by_itself = counts && conflict.by_itself;
                }
            }
        }
        doubts
    }
}
