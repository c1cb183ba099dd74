//! Whatever happens in whatever order, what one witness has signed merges: also after
//! crashes at any step, records that may or may not have become durable, and a disk
//! that was restored from any older state, where somebody within reach shows what it
//! signed before.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{FEED, base, head, proof, publisher, root};
use super::*;

/// What may happen next; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    /// A peer comes to hold another size of its history and says so.
    Grow(u8, u64),
    /// Time passes.
    Pass(u64),
    /// The oldest proof that was asked for comes, or does not.
    Answer(bool),
    /// What is to be signed next is signed and told, or the process ends before that.
    Crash,
    /// The process ends, and the disk is what it was so many records ago.
    Restore(usize),
    /// The next record fails; whether it became durable all the same.
    Fail(bool),
    /// A peer goes and comes back.
    Reconnect(u8),
    /// Another key signs from here on.
    Rekey,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4_u8, 1..4_u64).prop_map(|(peer, by)| Step::Grow(peer, by)),
        3 => (1..700_000_u64).prop_map(Step::Pass),
        8 => prop::bool::weighted(0.8).prop_map(Step::Answer),
        1 => Just(Step::Crash),
        1 => (0..6_usize).prop_map(Step::Restore),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => (0..4_u8).prop_map(Step::Reconnect),
        1 => Just(Step::Rekey),
    ];
    prop::collection::vec(step, 1..80)
}

/// Two histories of one feed that part at leaf 7, each with two readers, and one witness.
struct World {
    witness: Witness,
    now: u64,
    /// Every state that the disk was in, the newest last.
    disk: Vec<Option<Cosigned>>,
    sizes: [u64; 4],
    /// What the witness signed and told: of each reader the newest that it holds.
    shown: [Option<(u32, u64, Digest)>; 4],
    asked: Vec<(JobId, PeerId, u64, PinnedHead)>,
    fail: Option<bool>,
    /// Everything that it ever signed and told.
    signed: Vec<(u64, Digest)>,
    forks: u32,
    due: Option<u64>,
}

/// The history that a reader was shown.
const fn history(peer: usize) -> u8 {
    if peer < 2 { 1 } else { 2 }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            witness: Witness::new(),
            now: 1_000,
            disk: vec![None],
            sizes: [0; 4],
            shown: [None; 4],
            asked: Vec::new(),
            fail: None,
            signed: Vec::new(),
            forks: 0,
            due: None,
        };
        world.tell(Event::Settled);
        world
    }

    /// A process begins: it reads the disk, hears everybody, and only then acts.
    fn restart(&mut self) {
        self.witness = Witness::new();
        self.asked.clear();
        self.due = None;
        if let Some(Some(cosigned)) = self.disk.last().cloned() {
            let feed = FEED;
            self.tell(Event::Held { feed, cosigned });
        }
        for peer in 0..4 {
            self.show(peer);
        }
        assert!(self.asked.is_empty(), "nothing before all were heard");
        self.tell(Event::Settled);
    }

    /// What a reader says at the start of a watch: the newest head that carries the
    /// witness's own cosignature, then the newest.
    fn show(&mut self, peer: usize) {
        let id = PeerId(peer as u64);
        let shown = |head, own| Event::Shown {
            peer: id,
            publisher: publisher(),
            head,
            base: base(),
            own,
            holds: true,
        };
        if let Some((_, size, _)) = self.shown[peer] {
            self.tell(shown(head(history(peer), size), true));
        }
        if self.sizes[peer] > 0 {
            let newest = head(history(peer), self.sizes[peer]);
            self.tell(shown(newest, false));
        }
    }

    fn tell(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.witness.handle(UnixMillis(self.now), event) {
                match action {
                    Action::Prove {
                        job,
                        peer,
                        from,
                        head,
                        ..
                    } => self.asked.push((job, peer, from, head)),
                    Action::Record { expected, new, .. } => {
                        events.push_back(self.record(expected, new));
                    }
                    Action::Sign { cosigned, .. } => self.sign(&cosigned),
                    Action::Fork { .. } => self.forks += 1,
                    Action::Refuse { .. } => panic!("no epoch begins anywhere"),
                    Action::Wake { at } => {
                        assert!(at.0 > self.now, "it never spins");
                        self.due = Some(at.0);
                    }
                }
            }
        }
    }

    fn record(&mut self, expected: Option<(u32, u64, Digest)>, new: Cosigned) -> Event {
        let held = self.disk.last().cloned().flatten();
        assert_eq!(
            held.as_ref().map(Cosigned::state),
            expected,
            "compare and swap"
        );
        let feed = FEED;
        match self.fail.take() {
            None => {
                self.disk.push(Some(new));
                Event::Recorded { feed }
            }
            Some(persisted) => {
                if persisted {
                    self.disk.push(Some(new));
                }
                match self.disk.last().cloned().flatten() {
                    Some(cosigned) => Event::Held { feed, cosigned },
                    None => Event::NotHeld { feed },
                }
            }
        }
    }

    fn sign(&mut self, cosigned: &Cosigned) {
        let held = self.disk.last().cloned().flatten().unwrap();
        assert_eq!(
            held.state(),
            cosigned.state(),
            "recorded before it is signed"
        );
        self.signed.push((cosigned.size, cosigned.root));
        for peer in 0..4 {
            let of_its_history = root(history(peer), cosigned.size) == cosigned.root;
            if of_its_history && self.sizes[peer] >= cosigned.size {
                self.shown[peer] = Some(cosigned.state());
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Grow(peer, by) => {
                let peer = usize::from(*peer);
                self.sizes[peer] += by;
                self.show(peer);
            }
            Step::Pass(ms) => {
                self.now += ms;
                if self.due.take_if(|at| *at <= self.now).is_some() {
                    self.tell(Event::Tick);
                }
            }
            Step::Answer(comes) => {
                if self.asked.is_empty() {
                    return;
                }
                let (job, peer, from, pinned) = self.asked.remove(0);
                let peer = usize::try_from(peer.0).unwrap();
                let holds = root(history(peer), pinned.size) == pinned.root
                    && self.sizes[peer] >= pinned.size;
                self.tell(if *comes && holds {
                    let parts = proof(history(peer), from, pinned.size);
                    let extension = Extension::check(parts, from, &pinned).unwrap();
                    Event::Proved { job, extension }
                } else {
                    Event::NotProved { job }
                });
            }
            Step::Crash => self.restart(),
            Step::Restore(back) => {
                let kept = self.disk.len().saturating_sub(*back).max(1);
                self.disk.truncate(kept);
                self.restart();
            }
            Step::Fail(persisted) => self.fail = Some(*persisted),
            Step::Rekey => self.tell(Event::Rekeyed),
            Step::Reconnect(peer) => {
                let id = PeerId(u64::from(*peer));
                self.asked.retain(|(_, asked, ..)| *asked != id);
                self.tell(Event::PeerGone { peer: id });
                self.show(usize::from(*peer));
            }
        }
        self.check();
    }

    /// Everything that was ever signed is of one history.
    fn check(&self) {
        let of = |history| {
            let mut all = self.signed.iter();
            all.all(|(size, signed)| root(history, *size) == *signed)
        };
        if of(1) || of(2) {
            return;
        }
        let sizes: BTreeMap<_, _> = self.signed.iter().copied().collect();
        panic!("two histories were signed: {sizes:?}");
    }
}

proptest! {
    // Hashing is slow without optimisation.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_a_witness_has_signed_merges_whatever_happens(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
    }

    #[test]
    fn where_nothing_fails_the_newest_head_is_signed(sizes in prop::collection::vec(1..9_u64, 1..20)) {
        let mut world = World::new();
        for by in sizes {
            world.step(&Step::Grow(0, by));
            world.step(&Step::Pass(PACE_MS));
            world.step(&Step::Answer(true));
            world.step(&Step::Pass(PACE_MS));
            world.step(&Step::Answer(true));
        }
        prop_assert_eq!(world.signed.last().unwrap().0, world.sizes[0]);
    }
}
