//! Opinions of this member, in a set of their own: said, changed, withdrawn.
//!
//! The last word counts, so each new one names all that were said of its subject before,
//! and one that is withdrawn is retracted with all of them: nothing earlier lives again.

use std::collections::BTreeSet;

use hashpact_core::id::{EntryName, Slug};
use hashpact_core::leaf::{
    self, FeedKind as DescribedKind, Leaf, OPINION, Opinion, RawLeaf, RetractReason, Stance,
    Subject,
};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_core::signal::SignalKind;
use hashpact_store::{FeedInfo, FeedKind};

use super::{Publisher, no_value};
use crate::error::NodeError;
use crate::model::{NewSet, Opine, OpineAbout, Opined, Retraction, Saying, SetSource};
use crate::opinions::opinion_in;
use crate::views;
use crate::words::name_of;

/// The set that a member's opinions stand in unless it names another.
pub const OPINIONS_SET: &str = "opinions";
/// Earlier versions that a new one names; what is before them is retracted, which ends a
/// chain of any length.
const REPLACES_MAX: usize = 1_000;

/// What became of one opinion on many entries.
#[derive(Debug)]
pub(crate) struct SaidOfAll {
    /// Of which it stands.
    pub stands: Vec<Subject>,
    /// Whether the set is granted to anybody.
    pub granted: bool,
}

impl Publisher {
    /// Says what this member thinks of an entry, or of a signal that it publishes;
    /// changes or withdraws what it said. The set of opinions is made on first use,
    /// granted to nobody.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] for a reason that the stance cannot have, an entry that no
    /// longer stands, somebody else's signal; [`NodeError::NotFound`]; what the store
    /// answers.
    pub fn opine(&self, opine: &Opine) -> Result<Opined, NodeError> {
        no_value("note", &opine.note)?;
        let _turn = self.opining();
        let withdraws = opine.says.is_none();
        let subject = self.subject(&opine.about, withdraws)?;
        if let Some(says) = &opine.says {
            check_reason(says)?;
        }
        let (feed, is_new) = match self.opinions_feed(opine.set.as_ref())? {
            Some(feed) => (feed, false),
            None if withdraws => return Err(nothing_said()),
            None => (self.create_opinions(opine.set.as_ref())?, true),
        };
        let before = self.said_before(&feed, &subject)?;
        let mut outcome = Opined {
            set: name_of(&feed),
            is_new,
            granted: views::describe_of(&feed).is_some_and(|d| !d.grants.is_empty()),
            index: None,
            replaced: before.as_ref().map_or(0, |(_, versions)| versions.len()),
            size: feed.applied.map_or(0, |head| head.size),
        };
        let leaves = match (&opine.says, before) {
            (None, None) => return Err(nothing_said()),
            (None, Some((_, versions))) => self.taken_back(&feed, &versions, &opine.note)?,
            (Some(says), Some((last, _))) if is_same(&last, says, &opine.note) => {
                outcome.replaced = 0;
                return Ok(outcome);
            }
            (Some(says), before) => {
                let mut replaces = before.map_or_else(Vec::new, |(_, versions)| versions);
                let mut leaves = Vec::new();
                if replaces.len() > REPLACES_MAX {
                    leaves = self.taken_back(&feed, &replaces, "")?;
                    replaces.clear();
                }
                leaves.push(self.opinion_leaf(subject, says, &opine.note, replaces)?);
                leaves
            }
        };
        let mut session = self.session(&feed)?;
        let first = session.append(&leaves)?;
        let last = u64::try_from(leaves.len()).unwrap_or(1).saturating_sub(1);
        outcome.index = Some(first.saturating_add(last));
        outcome.size = session.sign()?.size;
        Ok(outcome)
    }

    /// Says the same of many entries, under one head. Of those of which this member has
    /// said something else nothing is said.
    ///
    /// # Errors
    /// As [`opine`](Self::opine).
    pub(crate) fn opine_on_all(
        &self,
        subjects: &[Subject],
        says: &Saying,
        note: &str,
    ) -> Result<SaidOfAll, NodeError> {
        let _turn = self.opining();
        check_reason(says)?;
        let feed = match self.opinions_feed(None)? {
            Some(feed) => feed,
            None => self.create_opinions(None)?,
        };
        let granted = views::describe_of(&feed).is_some_and(|d| !d.grants.is_empty());
        let (mut leaves, mut stands) = (Vec::new(), Vec::new());
        for subject in subjects {
            let of_all = self.said_before(&feed, &whole(subject))?;
            let said = self.said_before(&feed, subject)?;
            let is_other = |(last, _): &(Opinion, Vec<u64>)| !is_same(last, says, note);
            if said.as_ref().or(of_all.as_ref()).is_some_and(is_other) {
                continue;
            }
            if said.is_none() {
                let leaf = self.opinion_leaf(subject.clone(), says, note, Vec::new())?;
                leaves.push(leaf);
            }
            stands.push(subject.clone());
        }
        self.append_and_sign(&feed, &leaves)?;
        Ok(SaidOfAll { stands, granted })
    }

    /// Takes back what was said of many entries, where it is still what `is_meant`.
    ///
    /// # Errors
    /// What the store answers; a set that is closed for publishing.
    pub(crate) fn take_back_all(
        &self,
        subjects: &[Subject],
        is_meant: &dyn Fn(&Opinion) -> bool,
    ) -> Result<(), NodeError> {
        if subjects.is_empty() {
            return Ok(());
        }
        let _turn = self.opining();
        for feed in self.opinions_feeds() {
            let mut versions = Vec::new();
            for subject in subjects {
                if let Some((last, said)) = self.said_before(&feed, subject)?
                    && is_meant(&last)
                {
                    versions.extend(said);
                }
            }
            if !versions.is_empty() {
                let leaves = self.taken_back(&feed, &versions, "")?;
                self.append_and_sign(&feed, &leaves)?;
            }
        }
        Ok(())
    }

    /// What the live opinions are about that `is_meant`; none while it is not known yet
    /// what this member has said.
    ///
    /// # Errors
    /// What the store answers.
    pub(crate) fn said_so(
        &self,
        is_meant: &dyn Fn(&Opinion) -> bool,
    ) -> Result<Option<Vec<Subject>>, NodeError> {
        let mut subjects = Vec::new();
        for feed in self.opinions_feeds() {
            if self.closed(&feed.id).is_some() {
                return Ok(None);
            }
            let mut from = 0;
            while from < feed.indexed {
                let to = from.saturating_add(PAGE_LEAVES).min(feed.indexed);
                let leaves = self.store.read_leaves(feed.no, from, to)?;
                for (index, raw) in (from..).zip(&leaves) {
                    if let Some(opinion) = opinion_in(raw, index)
                        && is_meant(&opinion)
                        && !self.store.is_dead(feed.no, index)?
                    {
                        subjects.push(opinion.subject);
                    }
                }
                from = to;
            }
        }
        Ok(Some(subjects))
    }

    fn append_and_sign(&self, feed: &FeedInfo, leaves: &[RawLeaf]) -> Result<(), NodeError> {
        if leaves.is_empty() {
            return Ok(());
        }
        let mut session = self.session(feed)?;
        session.append(leaves)?;
        session.sign()?;
        Ok(())
    }

    /// What the opinion is about, as it stands here.
    fn subject(&self, about: &OpineAbout, withdraws: bool) -> Result<Subject, NodeError> {
        let (entry, kind) = match about {
            OpineAbout::Entry { entry, kind } => (entry, *kind),
            OpineAbout::Gone { .. } if !withdraws => {
                let why = "name the entry by its set, MEMBER/SET#INDEX; by its feed alone an \
                           opinion can only be withdrawn";
                return Err(NodeError::Misuse(why.to_owned()));
            }
            OpineAbout::Gone { feed, first, kind } => {
                return Ok(Subject::Entry {
                    feed: *feed,
                    first: *first,
                    kind: kind.map(SignalKind::number),
                });
            }
            OpineAbout::Signal(signal) => {
                // ⚠ Somebody else's would be handed to all readers of the opinion.
                let own = self.membership.own()?;
                if !withdraws && !self.store.publishers_of(signal)?.contains(&own) {
                    let why = "only a signal that this member publishes itself can be named; \
                               of somebody else's name the entry, with --kind where only one \
                               kind of its signals is meant";
                    return Err(NodeError::Misuse(why.to_owned()));
                }
                return Ok(Subject::OwnSignal(signal.clone()));
            }
        };
        let not_found = || NodeError::NotFound {
            what: "entry",
            name: entry.to_string(),
        };
        let feeds = self.store.feeds();
        let mut named = feeds
            .iter()
            .filter(|feed| views::describe_of(feed).is_some_and(|d| d.name == entry.set));
        let feed = named.next().ok_or_else(not_found)?;
        let number = kind.map(SignalKind::number);
        let subject = |first| Subject::Entry {
            feed: feed.id,
            first,
            kind: number,
        };
        if entry.first >= feed.indexed {
            return Err(not_found());
        }
        let raw = self.store.read_leaf(feed.no, entry.first)?;
        let first = match leaf::read(&raw, entry.first) {
            Leaf::Publish(publish) => publish.first_index(entry.first),
            // Erased, or withdrawn before this node came: its first index is as named.
            Leaf::Elided if withdraws => return Ok(subject(entry.first)),
            Leaf::Describe(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => return Err(not_found()),
        };
        if !withdraws {
            self.check_stands(feed, first, entry, kind)?;
        }
        Ok(subject(first))
    }

    /// Refuses an entry that no longer stands, and a kind of signal that it has not.
    fn check_stands(
        &self,
        feed: &FeedInfo,
        first: u64,
        entry: &EntryName,
        kind: Option<SignalKind>,
    ) -> Result<(), NodeError> {
        let latest = self.store.latest_version(feed.no, first)?;
        if self.store.is_dead(feed.no, latest)? && !self.store.is_held(feed.no, latest)? {
            return Err(NodeError::Misuse(format!(
                "{entry} no longer stands: there is nothing to say of it; --withdraw takes back \
                 what was said"
            )));
        }
        let Some(kind) = kind else {
            return Ok(());
        };
        let has_kind = match leaf::read(&self.store.read_leaf(feed.no, latest)?, latest) {
            Leaf::Publish(publish) => publish.signals.iter().any(|s| s.kind() == kind),
            Leaf::Describe(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => false,
        };
        if has_kind {
            Ok(())
        } else {
            Err(NodeError::Misuse(format!(
                "{entry} has no signal of kind {kind}"
            )))
        }
    }

    /// The own set of opinions to write to: the one named, else the only one, else the
    /// one that is called `opinions`.
    fn opinions_feed(&self, set: Option<&Slug>) -> Result<Option<FeedInfo>, NodeError> {
        let mut feeds = self.opinions_feeds();
        let named = |feed: &FeedInfo, set: &str| {
            views::describe_of(feed).is_some_and(|d| d.name.set.as_str() == set)
        };
        if let Some(set) = set {
            return Ok(feeds.into_iter().find(|feed| named(feed, set.as_str())));
        }
        if feeds.len() < 2 {
            return Ok(feeds.pop());
        }
        let usual = feeds.into_iter().find(|feed| named(feed, OPINIONS_SET));
        usual.map(Some).ok_or_else(|| {
            let why = "this member has several sets of opinions; say with --set which one";
            NodeError::Misuse(why.to_owned())
        })
    }

    fn opinions_feeds(&self) -> Vec<FeedInfo> {
        let mut feeds = self.feeds();
        feeds.retain(|feed| feed.kind == FeedKind::Opinions && feed.describe.is_some());
        feeds
    }

    fn create_opinions(&self, set: Option<&Slug>) -> Result<FeedInfo, NodeError> {
        let set = match set {
            Some(set) => set.clone(),
            None => {
                Slug::parse(OPINIONS_SET).map_err(|error| NodeError::Internal(error.to_string()))?
            }
        };
        self.create(
            &NewSet {
                set,
                title: format!("opinions of {}", self.slug),
                source: SetSource::OwnWork,
                classification_scheme: String::new(),
                grants: Vec::new(),
            },
            DescribedKind::Opinions,
        )
    }

    /// The last word about a subject, and all indexes that it was said at.
    fn said_before(
        &self,
        feed: &FeedInfo,
        subject: &Subject,
    ) -> Result<Option<(Opinion, Vec<u64>)>, NodeError> {
        let Some(said) = self.store.last_word(feed.no, subject)? else {
            return Ok(None);
        };
        let raw = self.store.read_leaf(feed.no, said.index)?;
        Ok(opinion_in(&raw, said.index).map(|opinion| {
            let mut versions = opinion.replaces.clone();
            versions.push(said.index);
            (opinion, versions)
        }))
    }

    fn opinion_leaf(
        &self,
        subject: Subject,
        says: &Saying,
        note: &str,
        replaces: Vec<u64>,
    ) -> Result<RawLeaf, NodeError> {
        let opinion = Opinion {
            subject,
            stance: says.stance,
            confidence: says.confidence,
            reason_id: says.reason.id,
            note: note.to_owned(),
            replaces,
            created: self.clock.now(),
        };
        Ok(RawLeaf::new(OPINION, opinion.encode(self.salt())?))
    }

    fn taken_back(
        &self,
        feed: &FeedInfo,
        versions: &[u64],
        note: &str,
    ) -> Result<Vec<RawLeaf>, NodeError> {
        let retraction = Retraction {
            reason: RetractReason::Other,
            note: note.to_owned(),
            recheck: false,
            selectors: Vec::new(),
        };
        let versions: BTreeSet<u64> = versions.iter().copied().collect();
        self.retract_leaves(feed, &retraction, &versions)
    }
}

fn check_reason(says: &Saying) -> Result<(), NodeError> {
    let reason = says.reason;
    if reason.stances.contains(&says.stance) {
        return Ok(());
    }
    let stances: Vec<&str> = reason.stances.iter().map(|stance| stance.name()).collect();
    Err(NodeError::Misuse(format!(
        "{} is a reason for {}, not for {}; hashpact opine --reasons lists them",
        reason.name,
        stances.join(" or "),
        says.stance.name()
    )))
}

fn is_same(last: &Opinion, says: &Saying, note: &str) -> bool {
    let said: (Stance, u8, u32) = (last.stance, last.confidence, last.reason_id);
    said == (says.stance, says.confidence, says.reason.id) && last.note == note
}

/// The whole entry, where a subject is one kind of its signals.
fn whole(subject: &Subject) -> Subject {
    match subject {
        Subject::Entry { feed, first, .. } => Subject::Entry {
            feed: *feed,
            first: *first,
            kind: None,
        },
        Subject::OwnSignal(_) => subject.clone(),
    }
}

fn nothing_said() -> NodeError {
    let why = "this member has no opinion there that could be withdrawn; hashpact opinions --mine \
               lists what it has";
    NodeError::Misuse(why.to_owned())
}
