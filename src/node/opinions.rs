//! Opinions as answers tell them: who says what of an entry, and what it comes to.
//!
//! The store keeps who says what; the core says what of that counts and how an entry
//! stands; here stands whose voice this node hears, and how much of it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashpact_core::id::{EntryName, FeedId, MemberNumber, SetName, Slug, UnixMillis};
use hashpact_core::leaf::{self, Leaf, Opinion, Publish, Stance, Subject};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_core::standing::{self, EntryState, Stances, Standing};
use hashpact_store::{FeedInfo, FeedKind, FeedNo, SaidOpinion, Store, StoreError};

use crate::error::NodeError;
use crate::membership::State;
use crate::model::{NewSet, Opine, Opined, SetInfo};
use crate::node::Node;
use crate::removed::{RemovedMembers, is_removed};
use crate::words::name_of;

/// Opinions that are told of one match; of more it is said that there are.
pub const TOLD_MAX: usize = 64;
/// Opinions that are listed in one call.
pub const LISTED_MAX: usize = 1_000;
/// Leaves of own feeds that are looked at for one call.
const LOOKED_MAX: u64 = 65_536;
/// Bytes that say where a list goes on.
const AFTER_MAX_BYTES: usize = 64;

/// One opinion on a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpinionView {
    /// Who says it.
    pub member: MemberNumber,
    /// Which way.
    pub stance: Stance,
    /// How sure, 0 to 100.
    pub confidence: u8,
    /// A number of the table of reasons; 0 for none.
    pub reason_id: u32,
    /// When, by the member's clock.
    pub created: UnixMillis,
    /// What of the match it is about.
    pub about: About,
    /// The opinions feed.
    pub feed: FeedId,
    /// The leaf's index in it.
    pub index: u64,
    /// Whether it counts in doubt: what takes it back is held for review.
    pub in_doubt: bool,
}

/// What of a match an opinion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum About {
    /// The whole entry.
    Entry,
    /// The entry's signals of the kind that matched.
    Kind,
    /// The very signal, whoever carries it.
    Signal,
}

/// What members think of a match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opinions {
    /// How many members take each stance, all of them.
    pub stances: Stances,
    /// Of each opinions feed the word that counts; members in turn, those against first.
    pub told: Vec<OpinionView>,
    /// Whether there are more than are told.
    pub more: bool,
}

/// Whose opinions count here.
#[derive(Clone)]
pub(crate) struct Heard {
    state: Arc<State>,
    removed: RemovedMembers,
    /// Members whom this node has muted: what they think is muted too.
    muted: Arc<BTreeSet<MemberNumber>>,
}

impl Heard {
    /// Whether what a member thinks counts.
    pub(crate) fn counts(&self, member: MemberNumber) -> bool {
        if self.muted.contains(&member) {
            return false;
        }
        match self.removed {
            // Whoever looks at what it says may as well read what it thinks.
            RemovedMembers::Count | RemovedMembers::Review => true,
            RemovedMembers::Ignore => !is_removed(&self.state, member),
        }
    }

    /// The opinions on an entry that count here.
    pub(crate) fn on(
        &self,
        store: &Store,
        feed: &FeedId,
        first: u64,
    ) -> Result<Vec<SaidOpinion>, NodeError> {
        let mut said = store.opinions_on(feed, first)?;
        said.retain(|said| self.counts(said.member));
        Ok(said)
    }

    /// The kinds of an entry's signals that opinions dispute: by the whole entry, by
    /// themselves, or where they are on the very signal.
    pub(crate) fn disputed(
        &self,
        store: &Store,
        entry: (FeedId, u64),
        body: &Publish,
    ) -> Result<Vec<SignalKind>, NodeError> {
        let said = self.on(store, &entry.0, entry.1)?;
        let is_disputed = |kind| {
            let live = said.iter().map(SaidOpinion::live);
            let standing = standing::of_entry(entry, kind, EntryState::Live, live);
            standing == Standing::Disputed
        };
        let mut disputed = BTreeSet::new();
        if !said.is_empty() {
            let kinds: BTreeSet<SignalKind> = body.signals.iter().map(Signal::kind).collect();
            let kinds = kinds.into_iter();
            disputed.extend(kinds.filter(|kind| is_disputed(Some(kind.number()))));
        }
        for signal in &body.signals {
            if disputed.contains(&signal.kind()) || !store.may_have_opinions(&signal.index_key()) {
                continue;
            }
            let said = self.on_signal(store, signal)?;
            let live = said.iter().map(SaidOpinion::live);
            if standing::for_signal(Standing::Active, live) == Standing::Disputed {
                disputed.insert(signal.kind());
            }
        }
        Ok(disputed.into_iter().collect())
    }

    /// The opinions on a signal that count here.
    pub(crate) fn on_signal(
        &self,
        store: &Store,
        signal: &Signal,
    ) -> Result<Vec<SaidOpinion>, NodeError> {
        let mut said = store.opinions_on_signal(signal)?.said;
        said.retain(|said| self.counts(said.member));
        Ok(said)
    }
}

/// How an entry stands for one kind of its signals, by the opinions on it and on the
/// signal by which it was met; with these, as they are told.
pub(crate) fn weigh(
    entry: (FeedId, u64),
    kind: u32,
    state: EntryState,
    (on_entry, on_signal): (&[SaidOpinion], &[SaidOpinion]),
) -> (Standing, Opinions) {
    let live = || on_entry.iter().map(SaidOpinion::live);
    let of_entry = standing::of_entry(entry, Some(kind), state, live());
    let standing = standing::for_signal(of_entry, on_signal.iter().map(SaidOpinion::live));
    if on_entry.is_empty() && on_signal.is_empty() {
        return (standing, Opinions::default());
    }
    let words = standing::words(entry, Some(kind), live());
    let chosen: BTreeSet<_> = words.iter().map(|word| (word.feed, word.index)).collect();
    let on_entry = on_entry
        .iter()
        .filter(|said| chosen.contains(&(said.feed, said.index)));
    (standing, told(on_entry.chain(on_signal)))
}

fn told<'a>(said: impl Iterator<Item = &'a SaidOpinion>) -> Opinions {
    let mut by_member: BTreeMap<MemberNumber, Vec<OpinionView>> = BTreeMap::new();
    for said in said {
        let member = by_member.entry(said.member).or_default();
        member.push(OpinionView::of(said));
    }
    let mut opinions = Opinions::default();
    let mut all = Vec::new();
    for views in by_member.values_mut() {
        views.sort_by_key(|view| (std::cmp::Reverse(view.stance), view.feed, view.about));
        let takes = |stance| u64::from(views.iter().any(|view| view.stance == stance));
        let stances = &mut opinions.stances;
        stances.positive = stances.positive.saturating_add(takes(Stance::Positive));
        stances.seed = stances.seed.saturating_add(takes(Stance::Seed));
        stances.negative = stances.negative.saturating_add(takes(Stance::Negative));
        all.extend(std::mem::take(views).into_iter().enumerate());
    }
    // ⚠ However many feeds one member writes, the others' words are told.
    all.sort_by_key(|(turn, view)| (*turn, std::cmp::Reverse(view.stance), view.member));
    opinions.more = all.len() > TOLD_MAX;
    all.truncate(TOLD_MAX);
    opinions.told = all.into_iter().map(|(_, view)| view).collect();
    opinions
}

impl OpinionView {
    fn of(said: &SaidOpinion) -> Self {
        let about = match said.opinion.subject {
            Subject::Entry { kind: None, .. } => About::Entry,
            Subject::Entry { kind: Some(_), .. } => About::Kind,
            Subject::OwnSignal(_) => About::Signal,
        };
        Self {
            member: said.member,
            stance: said.opinion.stance,
            confidence: said.opinion.confidence,
            reason_id: said.opinion.reason_id,
            created: said.opinion.created,
            about,
            feed: said.feed,
            index: said.index,
            in_doubt: said.in_doubt,
        }
    }
}

/// Which opinions to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All that are held.
    All,
    /// Those on one entry.
    Entry(EntryName),
    /// Those on the entries of one set.
    Set(SetName),
    /// Those of this member.
    Own,
}

/// One opinion, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedOpinion {
    /// The entry, where the opinion is on one.
    pub entry: Option<Entry>,
    /// Who says it.
    pub member: Slug,
    /// The set of opinions that it stands in.
    pub set: String,
    /// The leaf's index in it.
    pub index: u64,
    /// What it says.
    pub opinion: Opinion,
    /// Whether it counts in doubt.
    pub in_doubt: bool,
    /// Whether it counts here: not one on a signal that its writer does not publish, nor
    /// of a member that was removed, where such ones are ignored.
    pub counts: bool,
}

/// The entry that an opinion is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `member/set#index`; of a set that is not held, its feed in place of its name.
    pub name: String,
    /// Whether its set is held here.
    pub held: bool,
}

/// Some opinions, and where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpinionList {
    /// In order.
    pub opinions: Vec<ListedOpinion>,
    /// What to ask after; `None` at the end.
    pub next: Option<Vec<u8>>,
}

impl Node {
    /// Whose opinions count here, as things stand.
    pub(crate) fn heard(&self) -> Heard {
        let state = self.membership().state();
        Heard {
            muted: Arc::new(self.muted_members(&state)),
            state,
            removed: self.removed_members.get(),
        }
    }

    /// The live opinions on an entry that count here, by its feed and first index: of
    /// each opinions feed the last word about the whole of it and about each kind of its
    /// signals ([`Store::opinions_on`]). Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn opinions_on(&self, feed: &FeedId, first: u64) -> Result<Vec<SaidOpinion>, NodeError> {
        self.heard().on(self.store(), feed, first)
    }

    /// The live opinions on a signal that count here: of members that publish it
    /// themselves. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn opinions_on_signal(&self, signal: &Signal) -> Result<Vec<SaidOpinion>, NodeError> {
        self.heard().on_signal(self.store(), signal)
    }

    /// Makes an own set. Blocking.
    ///
    /// # Errors
    /// As [`Publisher::create_set`](crate::publish::Publisher::create_set).
    pub fn create_set(&self, new: &NewSet) -> Result<SetInfo, NodeError> {
        self.info_of(&self.publisher().create_set(new)?)
    }

    /// Makes an own set of opinions. Blocking.
    ///
    /// # Errors
    /// As [`Publisher::create_set`](crate::publish::Publisher::create_set).
    pub fn create_opinions_set(&self, new: &NewSet) -> Result<SetInfo, NodeError> {
        self.info_of(&self.publisher().create_opinions_set(new)?)
    }

    /// Says, changes or withdraws an opinion of this member. Blocking.
    ///
    /// # Errors
    /// As [`Publisher::opine`](crate::publish::Publisher::opine).
    pub fn opine(&self, opine: &Opine) -> Result<Opined, NodeError> {
        self.publisher().opine(opine)
    }

    /// Lists live opinions, from after where an earlier answer ended, some `limit` of
    /// them, at most [`LISTED_MAX`] and what else is on the last one's entry. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`] for a set that is not held; what the store answers.
    pub fn list_opinions(
        &self,
        which: &Which,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<OpinionList, NodeError> {
        if after.is_some_and(|after| after.len() > AFTER_MAX_BYTES) {
            let why = "what a list goes on after is as an earlier answer gave it";
            return Err(NodeError::Misuse(why.to_owned()));
        }
        let limit = limit.clamp(1, LISTED_MAX);
        let (said, next) = match which {
            Which::All => self.listed(None, after, limit)?,
            Which::Set(name) => {
                let feed = self.feed_of(name)?;
                self.listed(Some(&feed.id), after, limit)?
            }
            Which::Entry(name) => {
                let feed = self.feed_of(&name.set)?;
                (self.store().opinions_on(&feed.id, name.first)?, None)
            }
            Which::Own => self.own_opinions(after, limit)?,
        };
        let heard = self.heard();
        let mut opinions = Vec::with_capacity(said.len());
        for said in said {
            opinions.extend(self.in_words(said, &heard)?);
        }
        Ok(OpinionList { opinions, next })
    }

    fn listed(
        &self,
        about: Option<&FeedId>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, NodeError> {
        let listed = self.store().list_opinions(about, after, limit)?;
        Ok((listed.said, listed.next))
    }

    /// This member's opinions, in the order in which they were said.
    fn own_opinions(&self, after: Option<&[u8]>, limit: usize) -> Result<Page, NodeError> {
        let mut feeds: Vec<FeedInfo> = self.publisher().feeds();
        feeds.retain(|feed| feed.kind == FeedKind::Opinions);
        feeds.sort_by_key(|feed| feed.id);
        let begin = after.and_then(place).unwrap_or_default();
        let (mut said, mut looked) = (Vec::new(), 0_u64);
        for feed in feeds.iter().filter(|feed| feed.id.as_bytes() >= &begin.0) {
            let from = if feed.id.as_bytes() == &begin.0 {
                begin.1
            } else {
                0
            };
            for index in from..feed.indexed {
                if said.len() >= limit || looked >= LOOKED_MAX {
                    let next = [feed.id.as_bytes().as_slice(), &index.to_be_bytes()].concat();
                    return Ok((said, Some(next)));
                }
                looked = looked.saturating_add(1);
                said.extend(self.store().opinion_at(feed.no, index)?);
            }
        }
        Ok((said, None))
    }

    /// An opinion as it is listed, with its note; `None` where it went meanwhile.
    fn in_words(
        &self,
        said: SaidOpinion,
        heard: &Heard,
    ) -> Result<Option<ListedOpinion>, NodeError> {
        let Some((opinion, set)) = self.opinion_leaf(said.feed_no, said.index)? else {
            return Ok(None);
        };
        let (entry, published) = match &opinion.subject {
            Subject::Entry { feed, first, .. } => (Some(self.entry_name(feed, *first)), true),
            Subject::OwnSignal(signal) => {
                let said_of = self.store().opinions_on_signal(signal)?.said;
                let this =
                    |other: &SaidOpinion| (other.feed, other.index) == (said.feed, said.index);
                (None, said_of.iter().any(this))
            }
        };
        let member = self.member(said.member);
        Ok(Some(ListedOpinion {
            entry,
            member: member.map_or_else(|| self.member_slug().clone(), |member| member.slug),
            set,
            index: said.index,
            in_doubt: said.in_doubt,
            counts: published && heard.counts(said.member),
            opinion,
        }))
    }

    fn opinion_leaf(&self, no: FeedNo, index: u64) -> Result<Option<(Opinion, String)>, NodeError> {
        let feed = match self.store().feed(no) {
            Err(StoreError::UnknownFeed(_)) => return Ok(None),
            other => other?,
        };
        let raw = match self.store().read_leaf(no, index) {
            Err(StoreError::UnknownFeed(_) | StoreError::OutOfRange { .. }) => return Ok(None),
            other => other?,
        };
        Ok(opinion_in(&raw, index).map(|opinion| (opinion, name_of(&feed))))
    }

    fn entry_name(&self, feed: &FeedId, first: u64) -> Entry {
        let no = self.store().feed_no(feed);
        let held = no.and_then(|no| self.store().feed(no).ok());
        Entry {
            name: held.as_ref().map_or_else(
                || format!("{feed}#{first}"),
                |feed| format!("{}#{first}", name_of(feed)),
            ),
            held: held.is_some(),
        }
    }
}

/// Some opinions, and where to go on.
type Page = (Vec<SaidOpinion>, Option<Vec<u8>>);

/// Where a list of own opinions goes on: feed and index.
fn place(after: &[u8]) -> Option<([u8; 32], u64)> {
    let (feed, index) = after.split_first_chunk::<32>()?;
    let index: [u8; 8] = index.try_into().ok()?;
    Some((*feed, u64::from_be_bytes(index)))
}

/// The opinion that a leaf is, if it is one.
pub(crate) fn opinion_in(raw: &leaf::RawLeaf, index: u64) -> Option<Opinion> {
    match leaf::read(raw, index) {
        Leaf::Opinion(opinion) => Some(*opinion),
        Leaf::Describe(_)
        | Leaf::Publish(_)
        | Leaf::Retract(_)
        | Leaf::Erase(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => None,
    }
}
