//! What this node would have answered at a moment of the past, from its feeds.
//!
//! Answered from the leaves below the heads that were here then, by the same pure
//! functions as today. Where the store cannot say any more what it held, the answer is
//! "unknown", with the reason: never a guess. What is not part of any feed is not
//! replayed: access, freezes, quarantine, and what operators decided.

use std::collections::{BTreeSet, HashMap};

use hashpact_core::id::{EntryName, MemberNumber, SetName, UnixMillis};
use hashpact_core::leaf::{self, Leaf, Publish, Stance};
use hashpact_core::signal::Signal;
use hashpact_core::standing::{self, EntryState, LiveOpinion, Standing};
use hashpact_store::{
    AsOf, FeedInfo, FeedKind, FeedNo, FeedStatus, PastFeed, PastHead, SaidOpinion,
};

use crate::error::NodeError;
use crate::lookup::qualified;
use crate::node::Node;
use crate::views;

/// Signals in one question: each is read from leaves.
pub const PAST_SIGNALS_MAX: usize = 1_000;
/// Leaves of one set that are told of one signal.
const PER_FEED: usize = 64;

/// Which moment.
#[derive(Debug, Clone)]
pub enum PastOf {
    /// All sets as they were here at a time.
    Time(UnixMillis),
    /// Some sets, each at the newest head of so many leaves at most.
    Sizes(Vec<(SetName, u64)>),
}

/// What would have been answered.
#[derive(Debug, Clone)]
pub struct Past {
    /// The sets asked about, and where each stood.
    pub sets: Vec<PastSet>,
    /// In the order of the signals.
    pub answers: Vec<PastAnswer>,
}

/// Where a set stood.
#[derive(Debug, Clone)]
pub struct PastSet {
    /// Its name.
    pub set: SetName,
    /// The head that was here: epoch, size, and when it came; none where the set was not
    /// here yet.
    pub head: Option<(u32, u64, UnixMillis)>,
    /// What cannot be said of it any more, for any signal.
    pub unknown: Vec<PastUnknown>,
}

/// Why something cannot be said any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PastUnknown {
    /// Between the head that was kept and the next one others were here, and the answer
    /// by the two is not the same.
    HeadsPruned,
    /// The leaves below that head were cut off by a roster since.
    CutOff,
    /// So many entries that stood then have no content here any more: erased, or left
    /// out when they were pulled.
    PayloadsGone(u64),
    /// So many opinions that stood then have no content here any more.
    OpinionsGone(u64),
    /// More leaves carry the signal than are looked at.
    TooMany,
    /// More was said of an entry than is looked at.
    TooManyOpinions,
}

impl PastUnknown {
    /// The stable word for it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::HeadsPruned => "heads_pruned",
            Self::CutOff => "cut_off",
            Self::PayloadsGone(_) => "payloads_gone",
            Self::OpinionsGone(_) => "opinions_gone",
            Self::TooMany => "too_many",
            Self::TooManyOpinions => "too_many_opinions",
        }
    }
}

/// What would have been answered for one signal.
#[derive(Debug, Clone, Default)]
pub struct PastAnswer {
    /// Entries that carried it.
    pub found: Vec<PastMatch>,
    /// By the names of sets, what cannot be said of this signal.
    pub unknown: Vec<(SetName, PastUnknown)>,
    /// Whether opinions on the signal itself stood then, which are not replayed.
    pub signal_opinions: bool,
}

/// An entry that carried a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastMatch {
    /// The entry.
    pub entry: EntryName,
    /// The version that carried it.
    pub index: u64,
    /// Who published it.
    pub publisher: MemberNumber,
    /// What it said.
    pub said: Box<Publish>,
    /// Such as `tc:A1`.
    pub classification: String,
    /// How it stood; `Review` where a retraction, which is held for review today, names it.
    pub standing: Standing,
    /// How many members were against.
    pub negatives: u64,
}

/// A set at its head, with what was dead.
struct Then {
    feed: FeedInfo,
    name: SetName,
    scheme: String,
    head: PastHead,
    past: PastFeed,
    /// The same at the next head that is kept, where heads between may be forgotten.
    next: Option<(u64, PastFeed)>,
}

impl Node {
    /// Says what would have been answered for signals at a moment of the past, by their
    /// exact values. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] for too many signals, and for a moment that has not come
    /// here; [`NodeError::NotFound`] for a set that is not here; what the store answers.
    pub fn past(&self, signals: &[Signal], of: &PastOf) -> Result<Past, NodeError> {
        if signals.len() > PAST_SIGNALS_MAX {
            return Err(NodeError::Misuse(format!(
                "{} signals in one question about the past, the limit is {PAST_SIGNALS_MAX}",
                signals.len()
            )));
        }
        if let PastOf::Time(time) = of {
            self.check_has_come(*time)?;
        }
        let mut sets = Vec::new();
        let mut then = Vec::new();
        for (feed, as_of) in self.asked_about(of)? {
            let Some(describe) = views::describe_of(&feed) else {
                continue;
            };
            let scheme = describe.classification_scheme.as_ref();
            let scheme = scheme.map(ToString::to_string).unwrap_or_default();
            self.check_is_past(&feed, as_of)?;
            let head = self.store().past_head(feed.no, as_of, self.clock().now())?;
            let mut set = PastSet {
                set: describe.name.clone(),
                head: None,
                unknown: Vec::new(),
            };
            if let Some(head) = head {
                let at = head.head.at();
                set.head = Some((at.epoch, at.size, head.head.received));
                // Of an earlier epoch there may have been more, or others.
                let stands =
                    at.size <= feed.indexed && self.store().root_at(feed.no, at.size)? == at.root;
                if stands {
                    let one = self.then(feed, (describe.name, scheme), head)?;
                    let gone = one.past.gone.len();
                    set.unknown
                        .extend((gone > 0).then_some(PastUnknown::PayloadsGone(gone)));
                    then.push(one);
                } else {
                    set.unknown.push(PastUnknown::CutOff);
                }
            }
            sets.push(set);
        }
        let opinions = self.opinions_then(of)?;
        let mut answers = Vec::new();
        for signal in signals {
            let mut answer = PastAnswer {
                signal_opinions: opinions.on_signal(self, signal)?,
                ..PastAnswer::default()
            };
            for one in &then {
                self.answer_then(signal, one, &opinions, &mut answer)?;
            }
            let cut = sets
                .iter()
                .filter(|set| set.unknown.contains(&PastUnknown::CutOff));
            answer
                .unknown
                .extend(cut.map(|set| (set.set.clone(), PastUnknown::CutOff)));
            answers.push(answer);
        }
        Ok(Past { sets, answers })
    }

    /// Refuses a moment that is not past: nobody can say what will be known then.
    fn check_has_come(&self, time: UnixMillis) -> Result<(), NodeError> {
        if time > self.clock().now() {
            let why = "that time has not come yet: nobody can say what will be known then";
            return Err(NodeError::Misuse(why.to_owned()));
        }
        Ok(())
    }

    /// Refuses to take the newest head for one that is not here yet.
    ///
    /// # Errors
    /// [`NodeError::Misuse`], with the size of the newest head that is here.
    pub(crate) fn check_is_past(&self, feed: &FeedInfo, as_of: AsOf) -> Result<(), NodeError> {
        let newest = feed.applied.map_or(0, |at| at.size);
        let what = match as_of {
            AsOf::Size(size) if size > newest && newest > 0 => format!("{size} leaves"),
            AsOf::Time(time) if time > self.clock().now() => "that time has not come".to_owned(),
            AsOf::Now | AsOf::Time(_) | AsOf::Size(_) => return Ok(()),
        };
        let name = views::describe_of(feed).map(|describe| describe.name.to_string());
        let name = name.unwrap_or_else(|| feed.id.0.short());
        Err(NodeError::Misuse(format!(
            "{what}: the newest head of {name} here is {newest}"
        )))
    }

    fn asked_about(&self, of: &PastOf) -> Result<Vec<(FeedInfo, AsOf)>, NodeError> {
        match of {
            PastOf::Sizes(sizes) => {
                let each = sizes.iter();
                each.map(|(set, size)| Ok((self.feed_of(set)?, AsOf::Size(*size))))
                    .collect()
            }
            PastOf::Time(time) => {
                let feeds = self.store().feeds().into_iter();
                let held = feeds.filter(|feed| {
                    feed.kind == FeedKind::HashSet && feed.status != FeedStatus::Dropping
                });
                Ok(held.map(|feed| (feed, AsOf::Time(*time))).collect())
            }
        }
    }

    fn then(
        &self,
        feed: FeedInfo,
        (name, scheme): (SetName, String),
        head: PastHead,
    ) -> Result<Then, NodeError> {
        let past = self.store().past_feed(feed.no, head.head.at().size)?;
        let next = match head.next.as_ref().filter(|_| !head.exact) {
            Some(next) if next.at().size <= feed.indexed => {
                let size = next.at().size;
                Some((size, self.store().past_feed(feed.no, size)?))
            }
            Some(_) | None => None,
        };
        Ok(Then {
            feed,
            name,
            scheme,
            head,
            past,
            next,
        })
    }

    /// What one set said of a signal.
    fn answer_then(
        &self,
        signal: &Signal,
        then: &Then,
        opinions: &Opinions,
        answer: &mut PastAnswer,
    ) -> Result<(), NodeError> {
        let size = then.head.head.at().size;
        let end = then.next.as_ref().map_or(size, |(next, _)| size.max(*next));
        let (no, key) = (then.feed.no, signal.index_key());
        let (carriers, more) = self.store().carriers(no, &key, end, PER_FEED)?;
        let unknown = &mut answer.unknown;
        let mut note = |why| unknown.push((then.name.clone(), why));
        if more {
            note(PastUnknown::TooMany);
        }
        let gone = then.past.gone.len();
        if gone > 0 {
            note(PastUnknown::PayloadsGone(gone));
        }
        let (mut differs, mut left_out) = (false, false);
        for index in carriers {
            let now = (index < size).then(|| stood(&then.past, index)).flatten();
            let later = then.next.as_ref();
            differs |= later.is_some_and(|(_, past)| stood(past, index) != now);
            let Some(state) = now else {
                continue;
            };
            let Leaf::Publish(said) = leaf::read(&self.store().read_leaf(no, index)?, index) else {
                continue;
            };
            let first = said.first_index(index);
            let (about, more, changed) = opinions.about(self, then, first)?;
            left_out |= more;
            differs |= changed;
            let kind = Some(signal.kind().number());
            let live = about.iter().map(|said| LiveOpinion {
                feed: said.feed,
                index: said.index,
                opinion: &said.opinion,
            });
            let words = standing::words((then.feed.id, first), kind, live.clone());
            let negatives = against(&about, &words);
            let class = said.classification.as_ref().map(ToString::to_string);
            answer.found.push(PastMatch {
                entry: EntryName {
                    set: then.name.clone(),
                    first,
                },
                index,
                publisher: then.feed.publisher,
                classification: qualified(&class.unwrap_or_default(), &then.scheme),
                standing: standing::of_entry((then.feed.id, first), kind, state, live),
                negatives,
                said,
            });
        }
        if differs {
            note(PastUnknown::HeadsPruned);
        }
        if left_out {
            note(PastUnknown::TooManyOpinions);
        }
        if opinions.gone() > 0 && !answer.found.is_empty() {
            note(PastUnknown::OpinionsGone(opinions.gone()));
        }
        Ok(())
    }

    /// The opinions feeds as they stood.
    fn opinions_then(&self, of: &PastOf) -> Result<Opinions, NodeError> {
        let mut opinions = Opinions::default();
        // By sizes of sets nothing is said of when opinions came.
        let PastOf::Time(time) = of else {
            return Ok(opinions);
        };
        for feed in self.store().feeds() {
            if feed.kind != FeedKind::Opinions || feed.status == FeedStatus::Dropping {
                continue;
            }
            let head = self
                .store()
                .past_head(feed.no, AsOf::Time(*time), self.clock().now())?;
            let Some(head) = head else {
                continue;
            };
            let at = |size| Ok::<_, NodeError>((size, self.store().past_feed(feed.no, size)?));
            let next = head.next.as_ref().filter(|_| !head.exact);
            if let Some(next) = next.filter(|next| next.at().size <= feed.indexed) {
                opinions.next.insert(feed.no, at(next.at().size)?);
            }
            opinions.feeds.insert(feed.no, at(head.head.at().size)?);
        }
        Ok(opinions)
    }
}

/// How many members were against, by the words that count.
fn against(about: &[SaidOpinion], words: &[LiveOpinion<'_>]) -> u64 {
    let counts = |said: &&SaidOpinion| {
        let mut words = words.iter();
        let is_word = words.any(|word| (word.feed, word.index) == (said.feed, said.index));
        is_word && said.opinion.stance == Stance::Negative
    };
    let members: BTreeSet<MemberNumber> = about.iter().filter(counts).map(|s| s.member).collect();
    u64::try_from(members.len()).unwrap_or(u64::MAX)
}

/// How a leaf stood; none where it was dead.
fn stood(past: &PastFeed, index: u64) -> Option<EntryState> {
    if index >= past.liveness.size() {
        return None;
    }
    match (
        past.liveness.is_dead(index),
        past.without_held.is_dead(index),
    ) {
        (false, _) => Some(EntryState::Live),
        (true, false) => Some(EntryState::HeldForReview),
        (true, true) => None,
    }
}

/// Opinions feeds at their heads.
#[derive(Default)]
struct Opinions {
    feeds: HashMap<FeedNo, (u64, PastFeed)>,
    /// The same at the next head that is kept, where heads between may be forgotten.
    next: HashMap<FeedNo, (u64, PastFeed)>,
}

impl Opinions {
    /// Opinions that stood and whose content is gone, whatever they were about.
    fn gone(&self) -> u64 {
        self.feeds.values().map(|(_, past)| past.gone.len()).sum()
    }

    /// Whether something stood that was said of a signal.
    fn on_signal(&self, node: &Node, signal: &Signal) -> Result<bool, NodeError> {
        if self.feeds.is_empty() {
            return Ok(false);
        }
        let stood_then = |no, index| {
            let feed = self.feeds.get(&no);
            feed.is_some_and(|(_, past)| stood(past, index).is_some())
        };
        Ok(node.store().any_opinion_on_signal(signal, stood_then)?)
    }

    /// What was said of one entry; whether there was more than is looked at; and whether
    /// it changed where heads may be forgotten.
    fn about(
        &self,
        node: &Node,
        then: &Then,
        first: u64,
    ) -> Result<(Vec<SaidOpinion>, bool, bool), NodeError> {
        if self.feeds.is_empty() {
            return Ok((Vec::new(), false, false));
        }
        let (said, left_out) = Self::read(node, then, first, &|no| self.feeds.get(&no))?;
        if self.next.is_empty() {
            return Ok((said, left_out, false));
        }
        let next = |no| self.next.get(&no).or_else(|| self.feeds.get(&no));
        let (later, more) = Self::read(node, then, first, &next)?;
        let differs = said != later;
        Ok((said, left_out || more, differs))
    }

    fn read<'p>(
        node: &Node,
        then: &Then,
        first: u64,
        of: &dyn Fn(FeedNo) -> Option<&'p (u64, PastFeed)>,
    ) -> Result<(Vec<SaidOpinion>, bool), NodeError> {
        let size = |no| of(no).map(|(size, _)| *size);
        let stood = |no, index| of(no).is_some_and(|(_, past)| stood(past, index).is_some());
        let store = node.store();
        Ok(store.opinions_then(&then.feed.id, first, &size, &stood)?)
    }
}
