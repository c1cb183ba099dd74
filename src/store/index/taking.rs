//! What leaves that are not counted yet would take out: asked before they are, so that
//! whether it is held for review is decided before it takes effect.

use std::collections::{BTreeMap, BTreeSet};

use hashpact_core::leaf::{self, ERASE, Leaf, OPINION, PUBLISH, RETRACT, RawLeaf};
use hashpact_core::liveness::Kills;

/// Leaves that make others dead, of those that are about to be counted.
#[derive(Debug, Clone, Default)]
pub struct Taking {
    /// Retract and erase leaves.
    pub retractions: BTreeMap<u64, RawLeaf>,
    /// What publish and opinion leaves name in their `replaces`.
    pub replaces: BTreeMap<u64, Vec<u64>>,
    /// Publish and opinion leaves that are at hand whole: the store may not have them yet.
    pub versions: BTreeMap<u64, RawLeaf>,
    /// Leaves that are their record alone.
    pub elided: BTreeSet<u64>,
}

impl Taking {
    /// Whether nothing is taken out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.retractions.is_empty() && self.replaces.is_empty()
    }

    /// Looks at one leaf.
    pub(crate) fn note(&mut self, index: u64, raw: &RawLeaf) {
        if raw.is_elided() {
            self.elided.insert(index);
            return;
        }
        match raw.kind {
            RETRACT | ERASE => {
                self.retractions.insert(index, raw.clone());
            }
            PUBLISH | OPINION => {
                self.versions.insert(index, raw.clone());
                let replaces = match leaf::read(raw, index) {
                    Leaf::Publish(publish) => publish.replaces,
                    Leaf::Opinion(opinion) => opinion.replaces,
                    Leaf::Describe(_)
                    | Leaf::Retract(_)
                    | Leaf::Erase(_)
                    | Leaf::Unknown(_)
                    | Leaf::Void(_)
                    | Leaf::Elided => Vec::new(),
                };
                if !replaces.is_empty() {
                    self.replaces.insert(index, replaces);
                }
            }
            _ => {}
        }
    }

    /// The same of a row that says what a leaf kills; answers whether the leaf itself
    /// is wanted.
    pub(crate) fn note_row(&mut self, index: u64, kills: Kills) -> bool {
        match kills {
            Kills::Always(_) => true,
            Kills::WhileAlive(indexes) => {
                self.replaces.insert(index, indexes);
                false
            }
            Kills::Nothing => false,
        }
    }
}
