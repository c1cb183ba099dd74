//! What people and machines do to a simulated coalition: publish, retract, rotate
//! keys, admit, suspend, crash, start again, and part the network.

use bytes::Bytes;
use hashpact_core::id::{Digest, FeedId, Slug};
use hashpact_core::leaf::{Basis, Classification, MediaKind, Publish, RetractReason};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_node::model::{Grantee, NewEntry, NewSet, Retraction, Selector, SetSource};
use hashpact_node::{ExchangeView as _, Node, NodeError};

use super::SimError;
use super::sessions::Kind;
use super::world::{Due, Weather, World};

/// One thing that is done.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A node's process is gone, and what was not synced with it.
    Crash(usize),
    /// It is started again.
    Start(usize),
    /// The network falls apart.
    Part(Vec<u8>),
    /// It is whole again.
    Heal,
    /// Entries are published in a set, by its place among the sets.
    Publish(usize, u64),
    /// Some of them are taken back.
    Retract(usize),
    /// A member that waits is admitted; the roster is published at the first node.
    Admit(usize),
    /// An administrator suspends a member; told to one node.
    Suspend(usize, usize),
    /// A member rotates its TLS and feed keys: both on the card; and when its peers
    /// have been heard of after a moment, the new ones.
    Rotate(usize),
    Rotated(usize, u64),
}

/// A set that somebody publishes, and who may read it.
#[derive(Debug, Clone)]
pub(crate) struct SimSet {
    pub(crate) publisher: usize,
    pub(crate) name: Slug,
    pub(crate) feed: FeedId,
    /// `None` is everybody.
    pub(crate) readers: Option<Vec<usize>>,
    /// Entries published so far, and how many of them were taken back.
    pub(crate) published: u64,
    pub(crate) retracted: u64,
}

/// For a card to reach every peer that is connected, and between two looks at who has
/// been heard of since, as a real node's keeper has it.
const TO_REACH_MS: u64 = 3_000;
const ROTATION_LOOK_MS: u64 = 1_000;

impl World {
    /// Begins a member's node; its first time with the documents that it was given.
    pub(crate) fn start(&mut self, at: usize, documents: &[Document]) -> Result<(), SimError> {
        let chance = self.dice.seed();
        let (now, of) = (self.now, (self.coalition.genesis, self.seed));
        let number = self.members.get(at).map(|member| member.number);
        let witness = number.and_then(|number| self.coalition.witnessing(number));
        let Some(member) = self.members.get_mut(at) else {
            return Ok(());
        };
        member.start(now, of, witness, chance)?;
        let Some(who) = self.who(at) else {
            return Ok(());
        };
        if let Some(running) = self.running(at) {
            for document in documents {
                document.give(&running.node)?;
            }
        }
        let wait = self.dice.below(2_000);
        self.later(wait, Due::Tidy(who));
        self.align_soon(at);
        let knows = self
            .running(at)
            .is_some_and(|r| r.snapshots.newest().is_some());
        if !knows {
            self.begin_loop(at, (0, Kind::Stranger));
        }
        Ok(())
    }

    pub(crate) fn take_step(&mut self, step: Step) -> Result<Option<usize>, SimError> {
        self.trace.add(self.now, &format_args!("{step:?}"));
        Ok(match step {
            Step::Crash(at) => {
                self.crashed(at);
                if let Some(member) = self.members.get_mut(at) {
                    member.run = None;
                }
                None
            }
            Step::Start(at) => {
                let runs = self.who(at).is_some();
                if !runs {
                    self.start(at, &[])?;
                }
                Some(at)
            }
            Step::Part(sides) => {
                self.sides = sides;
                self.break_apart();
                None
            }
            Step::Heal => {
                self.sides = vec![0; self.members.len()];
                None
            }
            Step::Publish(set, count) => self.publish(set, count)?,
            Step::Retract(set) => self.retract(set)?,
            Step::Admit(at) => self.enrol(at)?,
            Step::Suspend(at, told) => self.suspend(at, told)?,
            Step::Rotate(at) => {
                if let Some(member) = self.members.get_mut(at) {
                    member.card.tls = vec![member.tls, member.tls + 1];
                    let newest = member.card.feed.last().copied().unwrap_or_default();
                    member.card.feed = vec![newest, newest + 1];
                }
                let told = self.put_card(at)?;
                let said = self.now.saturating_add(TO_REACH_MS);
                self.later(TO_REACH_MS, Due::Step(Step::Rotated(at, said)));
                told
            }
            Step::Rotated(at, said) => self.rotated(at, said)?,
        })
    }

    /// Makes a set and answers its place among the sets.
    pub(crate) fn make_set(
        &mut self,
        at: usize,
        name: &str,
        readers: Option<Vec<usize>>,
        relays: &[usize],
    ) -> Result<usize, SimError> {
        let slug_of = |world: &Self, at: usize| world.members.get(at).map(|m| m.slug.to_string());
        let who = |world: &Self, at: usize, relay| {
            let who = slug_of(world, at)?;
            Some(Grantee { who, relay })
        };
        let grants: Vec<Grantee> = match &readers {
            None => vec![Grantee {
                who: "all".to_owned(),
                relay: true,
            }],
            Some(readers) => readers
                .iter()
                .filter_map(|reader| who(self, *reader, relays.contains(reader)))
                .collect(),
        };
        let name = Slug::parse(name).map_err(SimError::new)?;
        self.set_clock(at);
        let running = self.running(at).ok_or_else(|| SimError::new("no node"))?;
        let info = running.node.create_set(&NewSet {
            set: name.clone(),
            title: "A set".to_owned(),
            source: SetSource::OwnWork,
            classification_scheme: "tc".to_owned(),
            grants,
        })?;
        self.settle(at)?;
        self.sets.push(SimSet {
            publisher: at,
            name,
            feed: info.feed,
            readers,
            published: 0,
            retracted: 0,
        });
        Ok(self.sets.len().saturating_sub(1))
    }

    fn publish(&mut self, set: usize, count: u64) -> Result<Option<usize>, SimError> {
        let Some(of) = self.sets.get(set).cloned() else {
            return Ok(None);
        };
        self.set_clock(of.publisher);
        let Some(running) = self.running(of.publisher) else {
            return Ok(None);
        };
        let first = u64::try_from(set).unwrap_or(0) << 32 | of.published;
        let entries = (0..count).map(|n| entry(first + n));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let published = match running.node.import(&of.name) {
            Ok(mut import) => import.push(entries).and_then(|_| import.finish()).map(drop),
            Err(error) => Err(error),
        };
        if !may_fail(published)? {
            return Ok(Some(of.publisher));
        }
        if let Some(of) = self.sets.get_mut(set) {
            of.published += count;
        }
        Ok(Some(of.publisher))
    }

    fn retract(&mut self, set: usize) -> Result<Option<usize>, SimError> {
        let Some(of) = self.sets.get(set).cloned() else {
            return Ok(None);
        };
        if of.retracted >= of.published {
            return Ok(None);
        }
        self.set_clock(of.publisher);
        let Some(running) = self.running(of.publisher) else {
            return Ok(None);
        };
        let n = u64::try_from(set).unwrap_or(0) << 32 | of.retracted;
        let retracted = running.node.retract(
            &of.name,
            &Retraction {
                reason: RetractReason::Wrong,
                note: String::new(),
                recheck: false,
                selectors: vec![(1, Selector::SourceReference(format!("ref-{n}")))],
            },
        );
        if may_fail(retracted.map(drop))?
            && let Some(of) = self.sets.get_mut(set)
        {
            of.retracted += 1;
        }
        Ok(Some(of.publisher))
    }

    fn enrol(&mut self, at: usize) -> Result<Option<usize>, SimError> {
        if self.who(0).is_none() {
            self.later(5_000, Due::Step(Step::Admit(at)));
            return Ok(None);
        }
        let now = self.moment();
        let number = self.number(at);
        let roster = self.coalition.admit(now, number)?;
        self.set_clock(0);
        if let Some(running) = self.running(0) {
            Document::Roster(roster).give(&running.node)?;
        }
        let card = self.card(at)?;
        if let Some(running) = self.running(0) {
            Document::Card(card).give(&running.node)?;
        }
        self.later(1_000, Due::Step(Step::Start(at)));
        Ok(Some(0))
    }

    fn suspend(&mut self, at: usize, told: usize) -> Result<Option<usize>, SimError> {
        if self.who(told).is_none() {
            self.later(5_000, Due::Step(Step::Suspend(at, told)));
            return Ok(None);
        }
        let suspension = self.coalition.suspension(self.number(at), self.moment())?;
        self.set_clock(told);
        if let Some(running) = self.running(told) {
            // Where a newer roster has not come yet, it is told again later.
            let given = running.node.membership().accept_suspension(suspension);
            if !may_fail(given.map(drop))? {
                self.later(5_000, Due::Step(Step::Suspend(at, told)));
            }
        }
        self.out.insert(at);
        Ok(Some(told))
    }

    /// Signs the member's next card and gives it to its own node alone.
    fn put_card(&mut self, at: usize) -> Result<Option<usize>, SimError> {
        if let Some(member) = self.members.get_mut(at) {
            member.card.version += 1;
        }
        let card = self.card(at)?;
        self.set_clock(at);
        match self.running(at) {
            Some(running) => Document::Card(card).give(&running.node)?,
            None => self.unpublished.push((at, card)),
        }
        Ok(Some(at))
    }

    /// The member's card as it stands; the newest is what everybody is to end with.
    pub(crate) fn card(&mut self, at: usize) -> Result<Bytes, SimError> {
        use hashpact_core::envelope::{Envelope, PayloadType};
        let now = self.moment();
        let Some(member) = self.members.get(at) else {
            return Err(SimError::new("no such member"));
        };
        let bytes = self.coalition.card(member.number, &member.card, now)?;
        let envelope = Envelope::decode(bytes.clone(), PayloadType::NodeCard)?;
        self.cards.insert(at, envelope.payload_digest());
        Ok(bytes)
    }

    fn rotated(&mut self, at: usize, said: u64) -> Result<Option<usize>, SimError> {
        let on_its_way = self.unpublished.iter().any(|(of, _)| *of == at);
        if self.who(at).is_none() || on_its_way {
            // What its peers said before it had the card does not count.
            let said = self.now.saturating_add(ROTATION_LOOK_MS + TO_REACH_MS);
            self.later(ROTATION_LOOK_MS, Due::Step(Step::Rotated(at, said)));
            return Ok(None);
        }
        let moment = self.members.get(at).map(|member| member.at(said));
        let away = self.running(at).zip(moment).is_some_and(|(running, said)| {
            let peers = running.board.peers();
            peers.iter().any(|peer| peer.may_have_missed(said))
        });
        self.set_clock(at);
        if away {
            self.later(ROTATION_LOOK_MS, Due::Step(Step::Rotated(at, said)));
            return Ok(None);
        }
        let (seed, number) = (self.seed, self.number(at));
        let Some(member) = self.members.get_mut(at) else {
            return Ok(None);
        };
        member.tls += 1;
        let newest = member.card.feed.last().copied().unwrap_or_default();
        member.card.tls = vec![member.tls];
        member.card.feed = vec![newest];
        if let Some(running) = self.running(at) {
            let key = super::coalition::feed_key(seed, number, newest);
            running.node.publisher().use_feed_key(key);
            may_fail(running.node.publisher().resign_heads())?;
        }
        self.put_card(at)
    }

    /// The time at the first administrator's desk.
    fn moment(&self) -> hashpact_core::id::UnixMillis {
        super::coalition::BEGIN.plus(self.now)
    }

    /// Has a troubled time of so many milliseconds happen.
    pub(crate) fn trouble(&mut self, span: u64, joiners: &[usize], others: &[usize]) {
        self.weather = Weather {
            late_per_mille: 10,
            cut_per_10_000: 1,
        };
        let at = |world: &mut Self| world.dice.below(span);
        // In the order of their numbers, which a roster gives one after the other.
        let mut times: Vec<u64> = joiners.iter().map(|_| at(self)).collect();
        times.sort_unstable();
        for (joiner, when) in joiners.iter().zip(times) {
            self.later(when, Due::Step(Step::Admit(*joiner)));
        }
        let crashed = self.dice.some(others, others.len().div_ceil(5));
        for member in &crashed {
            let when = at(self);
            let away = self.dice.between(500, 60_000);
            self.later(when, Due::Step(Step::Crash(*member)));
            self.later(when + away, Due::Step(Step::Start(*member)));
        }
        let rotating = self.dice.some(others, others.len().div_ceil(12));
        for member in rotating {
            let when = at(self);
            self.later(when, Due::Step(Step::Rotate(member)));
        }
        for _ in 0..2 {
            let begin = self.dice.below(span / 2);
            let length = self.dice.between(5_000, span / 2);
            let sides = (0..self.members.len()).map(|_| u8::from(self.dice.happens(400)));
            let sides = sides.collect();
            self.later(begin, Due::Step(Step::Part(sides)));
            self.later(begin + length, Due::Step(Step::Heal));
        }
        for set in 0..self.sets.len() {
            for _ in 0..4 {
                let (when, count) = (at(self), self.dice.between(1, 40));
                self.later(when, Due::Step(Step::Publish(set, count)));
            }
            let when = at(self);
            self.later(when, Due::Step(Step::Retract(set)));
        }
    }

    /// The end of all trouble: everybody runs, and reaches everybody.
    pub(crate) fn calm(&mut self) -> Result<(), SimError> {
        self.weather = Weather {
            late_per_mille: 0,
            cut_per_10_000: 0,
        };
        self.sides = vec![0; self.members.len()];
        for at in 0..self.members.len() {
            let started = self.members.get(at).is_some_and(|m| m.incarnation > 0);
            if started && self.who(at).is_none() {
                self.start(at, &[])?;
            }
        }
        for (at, card) in std::mem::take(&mut self.unpublished) {
            self.set_clock(at);
            if let Some(running) = self.running(at) {
                may_fail(running.node.membership().accept_card(card).map(drop))?;
            }
        }
        for at in 0..self.members.len() {
            self.settle(at)?;
        }
        Ok(())
    }
}

/// A document as a person hands it to a node.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Roster(Bytes),
    Card(Bytes),
}

impl Document {
    fn give(&self, node: &Node) -> Result<(), SimError> {
        match self {
            Self::Roster(bytes) => node.membership().accept_roster(bytes.clone())?,
            Self::Card(bytes) => node.membership().accept_card(bytes.clone())?,
        };
        Ok(())
    }
}

/// Whether something was done; what the state of the node forbids for now is no fault.
fn may_fail(done: Result<(), NodeError>) -> Result<bool, SimError> {
    match done {
        Ok(()) => Ok(true),
        Err(
            NodeError::PublishingClosed { .. }
            | NodeError::Busy(_)
            | NodeError::Rejected(_)
            | NodeError::Misuse(_),
        ) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn entry(n: u64) -> Result<NewEntry, SimError> {
    let digest = Digest::of(&n.to_be_bytes());
    let value = Bytes::copy_from_slice(digest.as_bytes());
    Ok(NewEntry {
        body: Publish {
            media_kind: MediaKind::Image,
            signals: vec![Signal::new(SignalKind::Sha256, value, None).map_err(SimError::new)?],
            classification: Some(Classification::parse("A1").map_err(SimError::new)?),
            labels: vec!["seen".to_owned()],
            basis: Basis::Human,
            source_reference: format!("ref-{n}"),
            first_seen: None,
            expires: None,
            replaces: Vec::new(),
            published: hashpact_core::id::UnixMillis(0),
        },
        line: n,
    })
}
