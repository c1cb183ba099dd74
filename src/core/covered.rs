//! How far a node acted on a feed, since when: what its receipts said, one after another.
//!
//! A later receipt replaces the one before, but not the time at which an earlier leaf
//! was covered first. So the steps are kept, in a bounded number: when there are too
//! many, every other one of the older half goes. What is said of a leaf is then "since
//! this time at the latest", and whether that is all that is known.

use crate::id::UnixMillis;

/// Steps that are kept of one node and feed.
pub const STEPS_MAX: usize = 256;

/// One receipt, as far as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The epoch of the head.
    pub epoch: u32,
    /// Leaves below it.
    pub size: u64,
    /// Since when the node acts on them.
    pub since: UnixMillis,
    /// Whether steps right before this one were let go.
    pub thinned: bool,
}

/// Since when a leaf is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// At the latest since then, by the node's clock.
    pub at: UnixMillis,
    /// Whether an earlier receipt may have covered it that is no longer kept.
    pub thinned: bool,
}

/// The steps of one node and feed, in the order of epochs and sizes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps(Vec<Step>);

impl Steps {
    /// Takes steps back that were kept.
    #[must_use]
    pub fn of(mut steps: Vec<Step>) -> Self {
        steps.sort_by_key(|step| (step.epoch, step.size));
        let mut steps = Self(steps);
        steps.thin();
        steps
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Step] {
        &self.0
    }

    /// Takes the newest word of the node. What it said of more leaves before is void: it
    /// does not act on those any more.
    pub fn note(&mut self, epoch: u32, size: u64, since: UnixMillis) {
        self.0
            .retain(|step| (step.epoch, step.size) <= (epoch, size));
        if let Some(last) = self.0.last_mut()
            && (last.epoch, last.size) == (epoch, size)
        {
            // Said again it dates nothing anew; a node that lost its store says later.
            last.since = last.since.max(since);
            return;
        }
        self.0.push(Step {
            epoch,
            size,
            since,
            thinned: false,
        });
        self.thin();
    }

    /// Since when the leaf `index` is acted on, by the newest word or one before it.
    /// `good` says up to which size an epoch stands: what a roster cut off is not acted
    /// on.
    #[must_use]
    pub fn since(&self, index: u64, good: impl Fn(u32) -> u64) -> Option<Since> {
        let covers = |step: &&Step| step.size.min(good(step.epoch)) > index;
        let first = self.0.iter().find(covers)?;
        let earliest = self.0.iter().filter(covers).map(|step| step.since).min();
        Some(Since {
            at: earliest.unwrap_or(first.since),
            thinned: first.thinned,
        })
    }

    fn thin(&mut self) {
        while self.0.len() > STEPS_MAX {
            let half = self.0.len() / 2;
            let mut place = 0_usize;
            let mut gone = false;
            self.0.retain_mut(|step| {
                let goes = place < half && place % 2 == 1;
                place = place.saturating_add(1);
                step.thinned |= gone;
                gone = goes;
                !goes
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(_: u32) -> u64 {
        u64::MAX
    }

    #[test]
    fn a_later_receipt_keeps_the_time_at_which_an_earlier_leaf_was_covered() {
        let mut steps = Steps::default();
        steps.note(0, 10, UnixMillis(100));
        steps.note(0, 20, UnixMillis(200));
        let since = |steps: &Steps, index| steps.since(index, whole).map(|since| since.at.0);
        let all = [9, 10, 20].map(|index| since(&steps, index));
        assert_eq!(all, [Some(100), Some(200), None]);
        // Said again, as a node does that renews its word; then by one that was restored.
        steps.note(0, 20, UnixMillis(200));
        assert_eq!(since(&steps, 15), Some(200));
        steps.note(0, 20, UnixMillis(300));
        assert_eq!(
            [9, 15].map(|index| since(&steps, index)),
            [Some(100), Some(300)]
        );
    }

    #[test]
    fn a_node_that_went_back_acts_on_less_and_again_later() {
        let mut steps = Steps::default();
        steps.note(0, 10, UnixMillis(100));
        steps.note(0, 20, UnixMillis(200));
        steps.note(0, 15, UnixMillis(300));
        assert_eq!(steps.since(17, whole), None);
        steps.note(0, 20, UnixMillis(400));
        assert_eq!(steps.since(17, whole).unwrap().at, UnixMillis(400));
        assert_eq!(steps.since(5, whole).unwrap().at, UnixMillis(100));
    }

    #[test]
    fn what_a_roster_cut_off_was_never_acted_on() {
        let mut steps = Steps::default();
        steps.note(0, 20, UnixMillis(100));
        let good = |epoch| if epoch == 0 { 12 } else { u64::MAX };
        assert_eq!(steps.since(15, good), None);
        assert_eq!(steps.since(11, good).unwrap().at, UnixMillis(100));
        steps.note(1, 18, UnixMillis(300));
        assert_eq!(steps.since(15, good).unwrap().at, UnixMillis(300));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        // What is said of a leaf is never earlier than the truth, and exact unless it
        // says that steps were let go.
        #[test]
        fn a_bounded_history_is_late_at_most_and_says_so(
            grows in proptest::collection::vec((1_u64..50, 1_u64..1_000), 1..700),
        ) {
            let (mut steps, mut all) = (Steps::default(), Vec::new());
            let (mut size, mut at) = (0, 0);
            for (more, later) in grows {
                (size, at) = (size + more, at + later);
                steps.note(0, size, UnixMillis(at));
                all.push((size, at));
            }
            prop_assert!(steps.all().len() <= STEPS_MAX);
            for (size, truth) in all {
                let index = size - 1;
                let said = steps.since(index, whole).unwrap();
                prop_assert!(said.at.0 >= truth);
                prop_assert!(said.thinned || said.at.0 == truth);
            }
            prop_assert_eq!(Steps::of(steps.all().to_vec()), steps);
        }
    }
}
