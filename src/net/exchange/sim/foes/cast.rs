//! Who is hostile in a play, and in which ways: the seed decides.

use std::collections::{BTreeMap, BTreeSet};

use super::super::dice::Dice;
use crate::types::Head;

/// One way to be hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Habit {
    /// Publishes two histories of one feed.
    Fork,
    /// Mixes the chunks of both.
    Mix,
    /// Cosigns both, as a witness.
    CosignBoth,
    /// Announces and serves not, or not all.
    Withhold,
    /// Cuts chunks and streams short.
    Truncate,
    /// Changes leaves and proofs.
    Tamper,
    /// Leaves out what lives as if it were dead.
    Elide,
    /// Leaves out retractions.
    Unretract,
    /// Says what was true once.
    Replay,
    /// Signs in others' names.
    Claim,
    /// Makes evidence against the innocent.
    Frame,
    /// Signs receipts of what it never held, and in others' names.
    LieInReceipts,
    /// Says too much at once.
    Flood,
}

impl Habit {
    /// What a member that publishes and relays may do.
    pub(super) const OF_NODES: [Self; 12] = [
        Self::Fork,
        Self::Mix,
        Self::Withhold,
        Self::Truncate,
        Self::Tamper,
        Self::Elide,
        Self::Unretract,
        Self::Replay,
        Self::Claim,
        Self::Frame,
        Self::LieInReceipts,
        Self::Flood,
    ];
    /// What a witness may do.
    pub(super) const OF_WITNESSES: [Self; 3] = [Self::CosignBoth, Self::Replay, Self::Claim];
}

/// A hostile member.
#[derive(Debug, Clone, Default)]
pub(super) struct Foe {
    pub(super) habits: BTreeSet<Habit>,
    /// Heads that went by.
    pub(super) tape: Vec<Head>,
    /// How often it has flooded.
    pub(super) flooded: u32,
}

impl Foe {
    fn with(habits: BTreeSet<Habit>) -> Self {
        Self {
            habits,
            ..Self::default()
        }
    }
}

/// Members that publish and read, by their places; the witnesses follow them.
pub(super) const NODES: usize = 7;
pub(super) const WITNESSES: usize = 4;

/// Draws one to three nodes and at most `witnesses` of the witnesses. The first of the
/// nodes forks; every habit has its turn as the seeds go on.
pub(super) fn cast(seed: u64, dice: &mut Dice, witnesses: usize) -> BTreeMap<usize, Foe> {
    let nodes: Vec<usize> = (0..NODES).collect();
    let count = usize::try_from(dice.between(1, 3)).unwrap();
    let all = Habit::OF_NODES;
    let mut foes = BTreeMap::new();
    for (n, at) in dice.some(&nodes, count).into_iter().enumerate() {
        let turn = usize::try_from(seed % all.len() as u64).unwrap() + n;
        let mut habits = BTreeSet::from([all[turn % all.len()]]);
        habits.extend(dice.some(&all, 4));
        if n == 0 {
            habits.insert(Habit::Fork);
        }
        foes.insert(at, Foe::with(habits));
    }
    let bench: Vec<usize> = (NODES..NODES + WITNESSES).collect();
    let habits = BTreeSet::from(Habit::OF_WITNESSES);
    for at in dice.some(&bench, witnesses) {
        foes.insert(at, Foe::with(habits.clone()));
    }
    foes
}
