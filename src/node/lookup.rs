//! Answers in words: what a posting says, and of which set and publisher.
//!
//! Blocking; the local API calls it off the reactor.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use hashpact_core::id::{EntryName, FeedId, MemberNumber, SetName};
use hashpact_core::leaf::{self, Basis, Leaf, MediaKind};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_core::standing::EntryState;
use hashpact_store::{FeedNo, IndexKey, Posting, SaidOpinion, Store, StoreError};

use crate::error::NodeError;
use crate::model::Match;
use crate::opinions::{Heard, weigh};
use crate::views;

/// Signals in one call: some 20 ms of work.
pub const LOOKUP_MAX: usize = 10_000;

/// Leaves read in one call for what postings do not say: some 1 s.
const LEAVES_MAX: usize = 10_000;

/// A feed, as far as answers name it.
struct Named {
    id: FeedId,
    publisher: MemberNumber,
    set: Arc<SetName>,
    scheme: String,
    in_doubt: bool,
}

/// The feeds that answers of one call name.
pub(crate) struct Names<'s> {
    store: &'s Store,
    feeds: HashMap<FeedNo, Option<Named>>,
    /// Leaves that may still be read.
    leaves: usize,
    heard: Heard,
}

/// By what signal a posting was met.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Met<'o> {
    /// Its kind.
    pub(crate) kind: SignalKind,
    /// The opinions on the very signal.
    pub(crate) opinions: &'o [SaidOpinion],
}

impl<'s> Names<'s> {
    pub(crate) fn new(store: &'s Store, heard: Heard) -> Self {
        Self {
            store,
            feeds: HashMap::new(),
            leaves: LEAVES_MAX,
            heard,
        }
    }

    /// The opinions that count on the signal of a key; nearly always none, which costs
    /// nothing.
    pub(crate) fn on_signal(
        &self,
        key: &IndexKey,
        signal: impl FnOnce() -> Option<Signal>,
    ) -> Result<Vec<SaidOpinion>, NodeError> {
        if !self.store.may_have_opinions(key) {
            return Ok(Vec::new());
        }
        match signal() {
            Some(signal) => self.heard.on_signal(self.store, &signal),
            None => Ok(Vec::new()),
        }
    }

    /// What a posting says, in words; `None` for a feed that says nothing.
    pub(crate) fn answer(
        &mut self,
        posting: &Posting,
        met: Met<'_>,
    ) -> Result<Option<Match>, NodeError> {
        let class = match &posting.classification {
            Some(class) => Arc::clone(class),
            None => self.class_in_leaf(posting)?,
        };
        let feed = match self.feeds.entry(posting.feed) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(named(self.store, posting.feed)?),
        };
        let Some(feed) = feed else {
            return Ok(None);
        };
        let opinions = self.heard.on(self.store, &feed.id, posting.first)?;
        Ok(Some(answer(feed, posting, &class, &opinions, met)))
    }

    /// The classification of a leaf that has none of the dictionary's codes, which are
    /// so many for all publishers together.
    fn class_in_leaf(&mut self, posting: &Posting) -> Result<Arc<str>, NodeError> {
        let none: Arc<str> = Arc::from("");
        let Some(left) = self.leaves.checked_sub(1) else {
            return Ok(none);
        };
        self.leaves = left;
        let raw = match self.store.read_leaf(posting.feed, posting.index) {
            // The feed went meanwhile, or the leaf was cut off.
            Err(StoreError::UnknownFeed(_) | StoreError::OutOfRange { .. }) => return Ok(none),
            other => other?,
        };
        Ok(match leaf::read(&raw, posting.index) {
            Leaf::Publish(publish) => publish
                .classification
                .map_or(none, |class| class.to_string().into()),
            Leaf::Describe(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => none,
        })
    }
}

fn answer(
    feed: &Named,
    posting: &Posting,
    class: &str,
    opinions: &[SaidOpinion],
    met: Met<'_>,
) -> Match {
    // What is retracted for good has no posting that is found.
    let state = if feed.in_doubt || posting.held {
        EntryState::HeldForReview
    } else {
        EntryState::Live
    };
    let entry = (feed.id, posting.first);
    let (standing, opinions) = weigh(entry, met.kind.number(), state, (opinions, met.opinions));
    Match {
        entry: EntryName {
            set: (*feed.set).clone(),
            first: posting.first,
        },
        index: posting.index,
        feed: feed.id,
        publisher: feed.publisher,
        classification: qualified(class, &feed.scheme),
        basis: basis(posting.basis),
        media_kind: media_kind(posting.media_kind),
        published: posting.published,
        quality: posting.quality,
        standing,
        opinions,
    }
}

/// A feed without a describe leaf has no entries; there is nothing to name.
fn named(store: &Store, no: FeedNo) -> Result<Option<Named>, NodeError> {
    let feed = match store.feed(no) {
        // It was dropped meanwhile: one feed's end spoils nobody's answer.
        Err(StoreError::UnknownFeed(_)) => return Ok(None),
        other => other?,
    };
    Ok(views::describe_of(&feed).map(|describe| Named {
        id: feed.id,
        publisher: feed.publisher,
        set: Arc::new(describe.name),
        scheme: describe
            .classification_scheme
            .map(|scheme| scheme.to_string())
            .unwrap_or_default(),
        in_doubt: feed.is_in_doubt(),
    }))
}

/// `A1` of a set of the scheme `tc` is `tc:A1` to everybody.
pub(crate) fn qualified(classification: &str, scheme: &str) -> String {
    if classification.is_empty() || scheme.is_empty() || classification.contains(':') {
        classification.to_owned()
    } else {
        format!("{scheme}:{classification}")
    }
}

/// By the numbers of the proto; the store writes no others.
const fn basis(number: u8) -> Basis {
    match number {
        2 => Basis::Automated,
        3 => Basis::Inherited,
        _ => Basis::Human,
    }
}

/// By the numbers of the proto; the store writes no others.
const fn media_kind(number: u8) -> MediaKind {
    match number {
        1 => MediaKind::Image,
        2 => MediaKind::Video,
        3 => MediaKind::Url,
        _ => MediaKind::Other,
    }
}
