//! Feeds with two histories, shown to whom the seed says, and witnesses that cosign both.

use std::collections::BTreeMap;

use hashpact_core::checkpoint::{self, Checkpoint, Origin};
use hashpact_core::id::{Digest, FeedId, SetName, UnixMillis};
use hashpact_core::leaf::{
    DESCRIBE, Describe, FeedKind, Grant, Grantee, IndexRange, PUBLISH, RETRACT, RawLeaf, Retract,
    RetractReason, Source, Terms,
};
use hashpact_core::reject::Rejection;
use hashpact_core::signal::Signal;

use super::super::coalition::{self, BEGIN};
use super::super::dice::Dice;
use super::super::script;
use super::cast::{Habit, NODES, WITNESSES};
use super::{Kit, Served, Way, coalition_name};
use crate::exchange::scenes::forged::Forged;
use crate::types::{Announcement, Head, ProofParts, PullPart, PullRequest};

/// One feed with two histories.
pub(in super::super) struct Fork {
    /// Its publisher's place.
    pub(super) at: usize,
    pub(super) feed: FeedId,
    pub(super) sides: [Forged; 2],
    /// Leaves that both have.
    pub(super) split: u64,
    /// Who may read it: places.
    pub(super) readers: Vec<usize>,
    /// The entries of each side alone.
    pub(super) entries: [Vec<u64>; 2],
    /// Sizes at which each side is shown, one after the other, and how many were.
    heads: [Vec<u64>; 2],
    shown: usize,
    /// Which sides each member is shown.
    groups: BTreeMap<usize, Vec<usize>>,
}

/// The number of an entry that only a fork has.
fn forked_entry(fork: u64, side: u64, n: u64) -> u64 {
    0xF0_0000_0000 | fork << 24 | side << 20 | n
}

/// The signal that an entry of the simulation carries.
pub(super) fn signal_of(n: u64) -> Signal {
    script::entry(n).unwrap().body.signals.remove(0)
}

pub(super) fn publish_leaf(n: u64) -> RawLeaf {
    let mut body = script::entry(n).unwrap().body;
    body.published = BEGIN;
    RawLeaf::new(PUBLISH, body.encode([9; 16]).unwrap())
}

fn retract_leaf(first: u64) -> RawLeaf {
    let retract = Retract {
        indexes: vec![IndexRange { first, count: 1 }],
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        created: BEGIN,
        identity_signature: None,
    };
    RawLeaf::new(RETRACT, retract.encode([9; 16]).unwrap())
}

fn describe(genesis: Digest, at: usize, grants: Vec<Grant>, title: &str) -> RawLeaf {
    let member = slug_of(at);
    let describe = Describe {
        genesis,
        feed_kind: FeedKind::HashSet,
        name: SetName {
            member,
            set: hashpact_core::id::Slug::parse("two-faced").unwrap(),
        },
        title: title.to_owned(),
        grants,
        terms: Terms {
            source: Source::OwnWork,
            may_share: true,
            text: String::new(),
        },
        classification_scheme: Some(hashpact_core::id::Slug::parse("tc").unwrap()),
        created: BEGIN,
        identity_signature: None,
    };
    RawLeaf::new(DESCRIBE, describe.encode([7; 16]).unwrap())
}

/// A member's permanent number, by its place.
pub(super) fn number_of(at: usize) -> u32 {
    u32::try_from(at).unwrap() + 1
}

pub(super) fn slug_of(at: usize) -> hashpact_core::id::Slug {
    coalition::slug(number_of(at)).unwrap()
}

/// A head as it is announced.
pub(super) fn told(feed: FeedId, publisher: usize, note: Vec<u8>) -> Head {
    Head {
        feed,
        publisher: coalition::member(number_of(publisher)).unwrap(),
        note: note.into(),
        cosignatures: Vec::new(),
        receipts: Vec::new(),
    }
}

/// A note that a member's feed key signs.
pub(super) fn note(seed: u64, signer: usize, feed: FeedId, size: u64, root: Digest) -> Vec<u8> {
    let origin = Origin {
        coalition: coalition_name(),
        feed,
        epoch: 0,
    };
    let key = coalition::feed_key(seed, number_of(signer), 0);
    checkpoint::sign(&Checkpoint { origin, size, root }, &key)
}

impl Fork {
    /// A feed of a member with two histories; the seed says where they part and who is
    /// shown which.
    pub(super) fn made(
        (nth, at): (u64, usize),
        genesis: Digest,
        sides: &[u8],
        dice: &mut Dice,
    ) -> Self {
        let everybody = dice.happens(600);
        let mut readers: Vec<usize> = (0..NODES).filter(|reader| *reader != at).collect();
        let grant = |grantee| Grant {
            grantee,
            relay: true,
        };
        let grants = if everybody {
            vec![grant(Grantee::All)]
        } else {
            let some = usize::try_from(dice.between(2, 5)).unwrap();
            readers = dice.some(&readers, some);
            readers.sort_unstable();
            let numbers = readers
                .iter()
                .map(|at| coalition::member(number_of(*at)).unwrap());
            numbers
                .map(|number| grant(Grantee::Member(number)))
                .collect()
        };
        let first = describe(genesis, at, grants.clone(), "A set");
        let feed = FeedId::derive(&genesis, &slug_of(at), first.payload().unwrap());
        // Rarely already the first leaf is another.
        let split = if dice.happens(150) {
            0
        } else {
            dice.between(1, 12)
        };
        let mut entries = [Vec::new(), Vec::new()];
        let mut history = |side: u64, dice: &mut Dice| {
            let mut leaves = vec![first.clone()];
            leaves.extend((1..split).map(|n| publish_leaf(forked_entry(nth, 2, n))));
            leaves.truncate(usize::try_from(split).unwrap());
            if split == 0 {
                let title = ["A set", "Another set"][usize::try_from(side).unwrap()];
                leaves.push(describe(genesis, at, grants.clone(), title));
            }
            for n in 0..dice.between(1, 30) {
                let size = leaves.len() as u64;
                if side == 0 && size > 2 && dice.happens(150) {
                    leaves.push(retract_leaf(dice.between(1, size - 1)));
                } else {
                    let entry = forked_entry(nth, side, n);
                    entries[usize::try_from(side).unwrap()].push(entry);
                    leaves.push(publish_leaf(entry));
                }
            }
            Forged {
                publisher: number_of(at),
                feed,
                leaves,
            }
        };
        let histories = [history(0, dice), history(1, dice)];
        let mut heads = [Vec::new(), Vec::new()];
        for (heads, history) in heads.iter_mut().zip(&histories) {
            let mut at = dice.between(1, history.size());
            while at < history.size() {
                heads.push(at);
                at += dice.between(1, 12);
            }
            heads.push(history.size());
        }
        let follow_partition = dice.happens(500);
        let overlap = dice.between(0, 400);
        let of_group = |member: usize, dice: &mut Dice| {
            if dice.happens(overlap) {
                return vec![0, 1];
            }
            let side = match sides.get(member) {
                Some(side @ (0 | 1)) if follow_partition => usize::from(*side),
                Some(_) | None => usize::from(dice.happens(500)),
            };
            vec![side]
        };
        let shown_to = readers.iter().copied().chain(NODES..NODES + WITNESSES);
        let groups = shown_to
            .map(|member| (member, of_group(member, dice)))
            .collect();
        Self {
            at,
            feed,
            sides: histories,
            split,
            readers,
            entries,
            heads,
            shown: 0,
            groups,
        }
    }

    /// On which side a state of the feed stands: `None` for what both have, and for what
    /// neither has.
    pub(super) fn side_of(&self, size: u64, root: Digest) -> Option<usize> {
        let on =
            |side: &Forged| size > self.split && size <= side.size() && side.root(size) == root;
        self.sides.iter().position(on)
    }

    /// Whether a state is one of the feed at all.
    pub(super) fn has(&self, size: u64, root: Digest) -> bool {
        let on = |side: &Forged| size <= side.size() && side.root(size) == root;
        self.sides.iter().any(on)
    }

    /// Heads of both sides that were shown.
    pub(super) fn heads_shown(&self) -> usize {
        let shown = self.heads.iter().map(|heads| heads.len().min(self.shown));
        shown.sum()
    }

    fn head(&self, seed: u64, side: usize) -> Option<Head> {
        let shown = self.shown.checked_sub(1)?;
        let size = self.heads[side].get(shown).or(self.heads[side].last())?;
        let root = self.sides[side].root(*size);
        let note = note(seed, self.at, self.feed, *size, root);
        Some(told(self.feed, self.at, note))
    }

    fn proof(side: &Forged, request: &PullRequest) -> PullPart {
        let hashes = |from, to| side.range(from, to).hashes().to_vec();
        PullPart::Proof(ProofParts {
            from: request.from,
            to: request.to,
            before: hashes(0, request.from),
            range: hashes(request.from, request.to),
            after: hashes(request.to, request.head_size),
        })
    }
}

impl Kit {
    /// Each forked feed goes on by a head; answers whether there was one to go on with.
    pub(super) fn next_heads(&mut self, at: usize) {
        for fork in self.forks.iter_mut().filter(|fork| fork.at == at) {
            fork.shown += 1;
        }
    }

    /// What a hostile member says to another of the feeds that are forked.
    pub(super) fn forks_for(&mut self, way: Way) -> Vec<Announcement> {
        let cosigns = self.has(way.at, Habit::CosignBoth);
        let mut said = Vec::new();
        for fork in &self.forks {
            let publishes = fork.at == way.at && self.has(way.at, Habit::Fork);
            if !publishes && !cosigns {
                continue;
            }
            let sides = fork.groups.get(&way.other).cloned().unwrap_or_default();
            for side in sides {
                let Some(mut head) = fork.head(self.seed, side) else {
                    continue;
                };
                if cosigns {
                    head.cosignatures = vec![self.cosignature(way, &head.note)];
                }
                let habit = if cosigns {
                    Habit::CosignBoth
                } else {
                    Habit::Fork
                };
                said.push((habit, Announcement::Head(Box::new(head))));
            }
        }
        for (habit, _) in &said {
            self.count(*habit);
        }
        said.into_iter().map(|(_, said)| said).collect()
    }

    /// The cosignature of a witness on any note, at the time of the play.
    pub(super) fn cosignature(&self, way: Way, note: &[u8]) -> bytes::Bytes {
        let body = hashpact_core::note::Note::parse(note).unwrap().text;
        let name = checkpoint::witness_name(&coalition_name(), &slug_of(way.at));
        let key = coalition::witness_key(self.seed, number_of(way.at));
        let UnixMillis(now) = BEGIN.plus(way.now);
        checkpoint::cosign(&body, &name, &key, now / 1_000).into()
    }

    /// What whoever asks a hostile member for a forked feed gets: `None` where the feed is
    /// no fork.
    pub(super) fn serve_fork(&mut self, way: Way, request: &PullRequest) -> Option<Served> {
        let nth = self
            .forks
            .iter()
            .position(|fork| fork.feed == request.feed)?;
        let not_found = || Served::Refused(Rejection::NotFound.into());
        if !self.hostile {
            return Some(not_found());
        }
        if self.does(way.at, Habit::Withhold, 250) {
            return Some(if self.dice.happens(500) {
                Served::Never
            } else {
                not_found()
            });
        }
        let mixes = self.does(way.at, Habit::Mix, 500);
        let fork = &self.forks[nth];
        let leads = |side: &&Forged| {
            request.head_size <= side.size() && side.root(request.head_size) == request.head_root
        };
        let Some(side) = fork.sides.iter().find(leads) else {
            return Some(not_found());
        };
        if request.proof_only {
            return Some(Served::Parts(vec![Fork::proof(side, request)]));
        }
        let (from, to, size) = (request.from, request.to, request.head_size);
        if !mixes || to - from < 2 {
            return Some(Served::Parts(vec![PullPart::Chunk(
                side.chunk(from, to, size),
            )]));
        }
        let cut = self.dice.between(from + 1, to - 1);
        let mut chunks = Vec::new();
        for (from, to) in [(from, cut), (cut, to)] {
            let longest = fork.sides.iter().filter(|side| size <= side.size());
            let longest: Vec<&Forged> = longest.collect();
            let of = self.dice.some(&longest, 1)[0];
            chunks.push(PullPart::Chunk(of.chunk(from, to, size)));
        }
        let order: Vec<usize> = self.dice.some(&[0, 1], 2);
        let mixed = order.into_iter().map(|n| chunks[n].clone()).collect();
        Some(Served::Parts(mixed))
    }
}
