//! Liveness: which leaves of one feed are dead.
//!
//! A publish or opinion leaf is dead if a later retract or erase names it, or if
//! the `replaces` of a later leaf does that is not dead itself. So it is decided
//! from the end backwards. Leaves of all other kinds are never dead. Exactly the
//! dead ones may be elided, and none of them counts in standing.
//!
//! Owns the decision and its compact state. It does not own the leaves: what it
//! must know of them comes in as [`Kills`].

use std::io::Read;

use roaring::RoaringTreemap;

use crate::leaf::{IndexRange, Leaf, OPINION, PUBLISH};
use crate::reject::Rejection;

const WHAT: &str = "liveness";
/// The version byte of the stored form.
const FORM: u8 = 1;

/// What a leaf means for the liveness of others and for its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kills {
    /// A retract or erase: names these, whatever comes later.
    Always(Vec<IndexRange>),
    /// A publish or opinion with `replaces`: names these unless it is dead.
    WhileAlive(Vec<u64>),
    /// Any other leaf that is never dead: describe, unknown kinds, and void or
    /// elided leaves of the kinds that cannot die.
    Nothing,
}

impl Kills {
    /// What the leaf of kind byte `kind` means; none for a publish or opinion
    /// that replaces nothing, says nothing or is elided, which needs no record.
    #[must_use]
    pub fn of(kind: u8, leaf: &Leaf) -> Option<Self> {
        let while_alive =
            |replaces: &[u64]| (!replaces.is_empty()).then(|| Self::WhileAlive(replaces.to_vec()));
        match leaf {
            Leaf::Publish(publish) => while_alive(&publish.replaces),
            Leaf::Opinion(opinion) => while_alive(&opinion.replaces),
            Leaf::Retract(retract) => Some(Self::Always(retract.indexes.clone())),
            Leaf::Erase(erase) => Some(Self::Always(erase.indexes.clone())),
            Leaf::Void(_) | Leaf::Elided if kind == PUBLISH || kind == OPINION => None,
            Leaf::Describe(_) | Leaf::Unknown(_) | Leaf::Void(_) | Leaf::Elided => {
                Some(Self::Nothing)
            }
        }
    }
}

/// What one more leaf changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Leaves that died.
    pub newly_dead: Vec<IndexRange>,
    /// Whether leaves may have come back to life, because what had replaced them
    /// died without whoever killed it naming them too: rebuild, then compare.
    pub needs_rebuild: bool,
}

/// The dead leaves among the first [`size`](Self::size) of one feed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Liveness {
    size: u64,
    /// Named by a retract or erase.
    retracted: RoaringTreemap,
    /// Named by `replaces` of leaves that are not dead.
    replaced: RoaringTreemap,
    /// Leaves that are never dead.
    immortal: RoaringTreemap,
    /// Leaves with `replaces`, dead or not.
    replacing: RoaringTreemap,
}

impl Liveness {
    /// Of an empty feed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides it for the first `size` leaves from all of them that kill or cannot
    /// die, in descending order of their indexes.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] when the indexes do not descend from below `size`.
    pub fn rebuild(
        size: u64,
        killers: impl IntoIterator<Item = (u64, Kills)>,
    ) -> Result<Self, Rejection> {
        let mut liveness = Self {
            size,
            ..Self::default()
        };
        let mut above = size;
        for (index, kills) in killers {
            if index >= above {
                return Err(Rejection::invalid(WHAT, "indexes do not descend"));
            }
            above = index;
            liveness.take(index, kills);
        }
        Ok(liveness)
    }

    /// Counts the leaf at `index`, which is at or beyond [`size`](Self::size).
    ///
    /// `replaces_of` says what an earlier leaf replaces. It is asked only for
    /// leaves that replace something, live until this leaf, and are named by it.
    ///
    /// # Errors
    /// [`Rejection::WrongRange`] for an index that was counted before.
    pub fn apply(
        &mut self,
        index: u64,
        kind: u8,
        leaf: &Leaf,
        replaces_of: impl FnMut(u64) -> Option<Vec<u64>>,
    ) -> Result<Change, Rejection> {
        if index < self.size {
            return Err(Rejection::WrongRange {
                expected: self.size,
                got: index,
            });
        }
        self.size = index.saturating_add(1);
        let Some(kills) = Kills::of(kind, leaf) else {
            return Ok(Change::default());
        };
        let named = named_by(&kills);
        let dying = self.living(&named);
        let needs_rebuild = self.may_revive(&named, &dying, &kills, replaces_of);
        self.take(index, kills);
        Ok(Change {
            newly_dead: IndexRange::gather(&dying),
            needs_rebuild,
        })
    }

    /// How many leaves were counted.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Says that the feed has `size` leaves, the further ones all being publish or
    /// opinion leaves that replace nothing.
    pub fn extend_plain(&mut self, size: u64) {
        self.size = self.size.max(size);
    }

    /// Whether the leaf at `index` is dead.
    #[must_use]
    pub fn is_dead(&self, index: u64) -> bool {
        (self.retracted.contains(index) || self.replaced.contains(index))
            && !self.immortal.contains(index)
    }

    /// Whether a retract or erase killed the leaf at `index`.
    #[must_use]
    pub fn is_retracted(&self, index: u64) -> bool {
        self.retracted.contains(index) && !self.immortal.contains(index)
    }

    /// Whether the leaf at `index` may be served without its payload to a puller
    /// of `head_size` leaves: leaves at or beyond that size justify nothing.
    #[must_use]
    pub fn may_elide(&self, index: u64, head_size: u64) -> bool {
        self.size <= head_size && self.is_dead(index)
    }

    /// Whether no leaf was ever named by another.
    #[must_use]
    pub fn is_all_alive(&self) -> bool {
        self.retracted.is_empty() && self.replaced.is_empty()
    }

    /// How many leaves are dead.
    #[must_use]
    pub fn dead_count(&self) -> u64 {
        self.dead().len()
    }

    /// The leaves that a retract or erase killed.
    #[must_use]
    pub fn retracted(&self) -> RoaringTreemap {
        &self.retracted - &self.immortal
    }

    /// How many of these are not dead.
    #[must_use]
    pub fn count_living(&self, leaves: &RoaringTreemap) -> u64 {
        leaves.difference_len(&self.dead())
    }

    /// The dead leaves.
    #[must_use]
    pub fn dead(&self) -> RoaringTreemap {
        let mut dead = &self.retracted | &self.replaced;
        dead -= &self.immortal;
        dead
    }

    /// The elided leaves that nothing justifies, once all leaves of the head that
    /// was pulled are counted. They are neither enforced nor receipted.
    #[must_use]
    pub fn unjustified(&self, elided: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let unjustified = elided.into_iter().filter(|index| !self.is_dead(*index));
        unjustified.collect()
    }

    /// What died and what came back to life since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> (Vec<IndexRange>, Vec<IndexRange>) {
        let (after, before) = (self.dead(), earlier.dead());
        let died = IndexRange::gather(&after - &before);
        (died, IndexRange::gather(&before - &after))
    }

    /// Writes the state for the store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        bytes.extend_from_slice(&self.size.to_be_bytes());
        for set in self.sets() {
            // Writing to memory cannot fail.
            let _ = set.serialize_into(&mut bytes);
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`Rejection::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Rejection> {
        let wrong = || Rejection::malformed(WHAT, "not the stored form");
        let (form, rest) = bytes.split_first().ok_or_else(wrong)?;
        let (size, mut rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
        if *form != FORM {
            return Err(wrong());
        }
        let mut next = || read_set(&mut rest);
        let liveness = Self {
            size: u64::from_be_bytes(*size),
            retracted: next()?,
            replaced: next()?,
            immortal: next()?,
            replacing: next()?,
        };
        if rest.is_empty() {
            Ok(liveness)
        } else {
            Err(wrong())
        }
    }

    fn sets(&self) -> [&RoaringTreemap; 4] {
        [
            &self.retracted,
            &self.replaced,
            &self.immortal,
            &self.replacing,
        ]
    }

    /// Takes what the leaf at `index` kills, given all that comes after it.
    fn take(&mut self, index: u64, kills: Kills) {
        match kills {
            Kills::Always(ranges) => {
                self.immortal.insert(index);
                for range in ranges {
                    self.retracted.insert_range(range.first..range.end());
                }
            }
            Kills::WhileAlive(replaces) => {
                if !self.is_dead(index) {
                    self.replaced.extend(replaces);
                }
                self.replacing.insert(index);
            }
            Kills::Nothing => {
                self.immortal.insert(index);
            }
        }
    }

    /// Those of `named` that are alive and can die.
    fn living(&self, named: &RoaringTreemap) -> RoaringTreemap {
        let mut living = named - &self.retracted;
        living -= &self.replaced;
        living -= &self.immortal;
        living
    }

    /// Whether something that a dying leaf had replaced is not dead any more.
    fn may_revive(
        &self,
        named: &RoaringTreemap,
        dying: &RoaringTreemap,
        kills: &Kills,
        mut replaces_of: impl FnMut(u64) -> Option<Vec<u64>>,
    ) -> bool {
        // A leaf that replaces nothing revives nothing by dying.
        let replacing = dying & &self.replacing;
        let stays_dead = |index: u64| named.contains(index) || self.retracted.contains(index);
        replacing.iter().any(|index| match replaces_of(index) {
            Some(replaces) => !replaces.into_iter().all(stays_dead),
            None => !matches!(kills, Kills::Nothing),
        })
    }
}

fn named_by(kills: &Kills) -> RoaringTreemap {
    match kills {
        Kills::Always(ranges) => {
            let mut named = RoaringTreemap::new();
            for range in ranges {
                named.insert_range(range.first..range.end());
            }
            named
        }
        Kills::WhileAlive(replaces) => replaces.iter().copied().collect(),
        Kills::Nothing => RoaringTreemap::new(),
    }
}

fn read_set(bytes: &mut impl Read) -> Result<RoaringTreemap, Rejection> {
    RoaringTreemap::deserialize_from(bytes)
        .map_err(|_| Rejection::malformed(WHAT, "not the stored form"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A leaf of the model: what it kills, and whether it can die.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Model {
        Publish(Vec<u64>),
        Retract(Vec<u64>),
        Describe,
        Elided,
    }

    impl Model {
        fn kills(&self) -> Option<Kills> {
            match self {
                Self::Publish(replaces) if replaces.is_empty() => None,
                Self::Publish(replaces) => Some(Kills::WhileAlive(replaces.clone())),
                Self::Retract(named) => {
                    Some(Kills::Always(IndexRange::gather(named.iter().copied())))
                }
                Self::Describe => Some(Kills::Nothing),
                Self::Elided => None,
            }
        }
    }

    fn number(index: usize) -> u64 {
        index.try_into().unwrap()
    }

    /// The rule as it is written, without regard to cost.
    fn naive(leaves: &[Model]) -> BTreeSet<u64> {
        fn is_dead(leaves: &[Model], index: usize) -> bool {
            matches!(leaves[index], Model::Publish(_) | Model::Elided)
                && (index + 1..leaves.len()).any(|later| match &leaves[later] {
                    Model::Retract(named) => named.contains(&number(index)),
                    Model::Publish(replaces) => {
                        replaces.contains(&number(index)) && !is_dead(leaves, later)
                    }
                    Model::Describe | Model::Elided => false,
                })
        }
        let dead = (0..leaves.len()).filter(|index| is_dead(leaves, *index));
        dead.map(number).collect()
    }

    fn rebuilt(leaves: &[Model]) -> Liveness {
        let killers = leaves.iter().enumerate().rev();
        let killers = killers.filter_map(|(index, leaf)| Some((number(index), leaf.kills()?)));
        Liveness::rebuild(number(leaves.len()), killers).unwrap()
    }

    fn dead(liveness: &Liveness) -> BTreeSet<u64> {
        liveness.dead().into_iter().collect()
    }

    fn feed() -> impl Strategy<Value = Vec<Model>> {
        let leaf = (0..10_u8, prop::collection::btree_set(0_usize..14, 0..5));
        prop::collection::vec(leaf, 0..14).prop_map(|leaves| {
            let models = leaves
                .into_iter()
                .enumerate()
                .map(|(index, (kind, named))| {
                    let named: Vec<u64> = named
                        .into_iter()
                        .filter(|n| *n < index)
                        .map(number)
                        .collect();
                    match kind {
                        0 => Model::Describe,
                        1 | 2 if !named.is_empty() => Model::Retract(named),
                        _ => Model::Publish(named),
                    }
                });
            models.collect()
        })
    }

    /// Counts a leaf as `apply` does, from the model.
    fn apply(liveness: &mut Liveness, leaves: &[Model], index: usize) -> Change {
        let leaf = &leaves[index];
        let Some(kills) = leaf.kills() else {
            liveness.extend_plain(number(index) + 1);
            return Change::default();
        };
        let named = named_by(&kills);
        let dying = liveness.living(&named);
        let replaces_of = |earlier: u64| match &leaves[usize::try_from(earlier).unwrap()] {
            Model::Publish(replaces) => Some(replaces.clone()),
            Model::Retract(_) | Model::Describe | Model::Elided => None,
        };
        let needs_rebuild = liveness.may_revive(&named, &dying, &kills, replaces_of);
        liveness.size = number(index) + 1;
        liveness.take(number(index), kills);
        Change {
            newly_dead: IndexRange::gather(&dying),
            needs_rebuild,
        }
    }

    #[test]
    fn a_killer_that_is_dead_does_not_kill() {
        // 1 replaces 0, 2 replaces only 1: 0 lives again.
        let leaves = [
            Model::Publish(vec![]),
            Model::Publish(vec![0]),
            Model::Publish(vec![1]),
        ];
        assert_eq!(dead(&rebuilt(&leaves)), BTreeSet::from([1]));
        let mut liveness = rebuilt(&leaves[..2]);
        assert!(apply(&mut liveness, &leaves, 2).needs_rebuild);
    }

    #[test]
    fn a_third_version_that_names_both_needs_no_rebuild() {
        let leaves = [
            Model::Publish(vec![]),
            Model::Publish(vec![0]),
            Model::Publish(vec![0, 1]),
            Model::Retract(vec![0, 1, 2]),
        ];
        let mut liveness = Liveness::new();
        for index in 0..leaves.len() {
            assert!(!apply(&mut liveness, &leaves, index).needs_rebuild);
        }
        assert_eq!(dead(&liveness), BTreeSet::from([0, 1, 2]));
    }

    #[test]
    fn describe_retract_and_erase_never_die() {
        let leaves = [
            Model::Describe,
            Model::Publish(vec![]),
            Model::Retract(vec![0, 1]),
            Model::Retract(vec![2]),
        ];
        let liveness = rebuilt(&leaves);
        assert_eq!(dead(&liveness), BTreeSet::from([1]));
        assert_eq!(liveness.unjustified([0, 1, 2]), [0, 2]);
    }

    #[test]
    fn only_leaves_below_the_head_justify_eliding() {
        let liveness = rebuilt(&[Model::Publish(vec![]), Model::Retract(vec![0])]);
        assert!(liveness.may_elide(0, 2));
        assert!(!liveness.may_elide(0, 1));
        assert!(!liveness.may_elide(1, 2));
    }

    #[test]
    fn a_leaf_is_counted_once_and_in_order() {
        let mut liveness = Liveness::new();
        let count = |liveness: &mut Liveness| liveness.apply(0, 9, &Leaf::Unknown(9), |_| None);
        assert!(count(&mut liveness).is_ok());
        assert_eq!(count(&mut liveness).unwrap_err().code(), "wrong_range");
        let killers = [(0, Kills::Nothing), (1, Kills::Nothing)];
        assert!(Liveness::rebuild(2, killers).is_err());
    }

    #[test]
    fn void_and_elided_leaves_kill_nothing() {
        let void = Leaf::Void(Rejection::NotFound);
        for leaf in [&void, &Leaf::Elided] {
            assert_eq!(Kills::of(PUBLISH, leaf), None);
            assert_eq!(Kills::of(crate::leaf::RETRACT, leaf), Some(Kills::Nothing));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn rebuilding_is_the_rule_as_written(leaves in feed()) {
            let liveness = rebuilt(&leaves);
            prop_assert_eq!(dead(&liveness), naive(&leaves));
            prop_assert_eq!(liveness.dead_count(), number(naive(&leaves).len()));
            prop_assert_eq!(Liveness::from_bytes(&liveness.to_bytes()).unwrap(), liveness);
        }

        #[test]
        fn leaf_by_leaf_is_rebuilding_where_no_rebuild_is_asked_for(leaves in feed()) {
            let mut liveness = Liveness::new();
            for index in 0..leaves.len() {
                let before = liveness.clone();
                let change = apply(&mut liveness, &leaves, index);
                if change.needs_rebuild {
                    liveness = rebuilt(&leaves[..=index]);
                }
                prop_assert_eq!(dead(&liveness), naive(&leaves[..=index]));
                let (died, revived) = liveness.since(&before);
                if !change.needs_rebuild {
                    prop_assert_eq!(change.newly_dead, died);
                    prop_assert!(revived.is_empty());
                }
            }
        }

        #[test]
        fn every_permitted_elided_pull_ends_as_the_full_replay(leaves in feed(), mask in any::<u16>()) {
            let full = rebuilt(&leaves);
            let mut pulled = leaves.clone();
            let mut elided = Vec::new();
            for (index, leaf) in pulled.iter_mut().enumerate() {
                if mask & (1 << index) != 0 && full.may_elide(number(index), full.size()) {
                    *leaf = Model::Elided;
                    elided.push(number(index));
                }
            }
            let partial = rebuilt(&pulled);
            prop_assert_eq!(dead(&partial), dead(&full));
            prop_assert!(partial.unjustified(elided).is_empty());
        }

        #[test]
        fn eliding_what_lives_is_seen(leaves in feed()) {
            let full = rebuilt(&leaves);
            let living = (0..leaves.len()).filter(|at| !full.is_dead(number(*at)));
            for at in living {
                let mut pulled = leaves.clone();
                // What is elided keeps its kind, and so cannot die either.
                pulled[at] = match &leaves[at] {
                    Model::Publish(_) | Model::Elided => Model::Elided,
                    Model::Retract(_) | Model::Describe => Model::Describe,
                };
                prop_assert_eq!(rebuilt(&pulled).unjustified([number(at)]), [number(at)]);
            }
        }

        #[test]
        fn no_stored_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Liveness::from_bytes(&bytes);
        }
    }
}
