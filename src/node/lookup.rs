//! Asking: who says what of a signal.
//!
//! Blocking; the local API calls it off the reactor.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use hashpact_core::id::{EntryName, FeedId, MemberNumber, SetName};
use hashpact_core::leaf::{Basis, MediaKind};
use hashpact_core::signal::Signal;
use hashpact_store::{FeedNo, FeedStatus, IndexKey, Posting, Store};

use crate::error::NodeError;
use crate::matching::PER_FEED;
use crate::model::{Match, MatchStanding};
use crate::views;

/// Signals in one call: some 20 ms of work.
pub const LOOKUP_MAX: usize = 10_000;

/// A feed, as far as answers name it.
struct Named {
    id: FeedId,
    publisher: MemberNumber,
    set: Arc<SetName>,
    scheme: String,
    frozen: bool,
}

/// Answers each signal with the live entries that carry it, in the order of
/// feeds and indexes.
///
/// # Errors
/// [`NodeError::Misuse`] for more than [`LOOKUP_MAX`] signals; what the store
/// answers.
pub(crate) fn lookup(store: &Store, signals: &[Signal]) -> Result<Vec<Vec<Match>>, NodeError> {
    if signals.len() > LOOKUP_MAX {
        return Err(NodeError::Misuse(format!(
            "{} signals in one call, the limit is {LOOKUP_MAX}; ask in several, or use the stream",
            signals.len()
        )));
    }
    let keys: Vec<IndexKey> = signals.iter().map(Signal::index_key).collect();
    let found = store.lookup_bounded(&keys, PER_FEED)?;
    let mut names = Names::new(store);
    found
        .into_iter()
        .map(|found| {
            let matches = found.postings.iter().map(|posting| names.answer(posting));
            matches.filter_map(Result::transpose).collect()
        })
        .collect()
}

/// The feeds that answers of one call name.
pub(crate) struct Names<'s> {
    store: &'s Store,
    feeds: HashMap<FeedNo, Option<Named>>,
}

impl<'s> Names<'s> {
    pub(crate) fn new(store: &'s Store) -> Self {
        Self {
            store,
            feeds: HashMap::new(),
        }
    }

    /// What a posting says, in words; `None` for a feed that says nothing.
    pub(crate) fn answer(&mut self, posting: &Posting) -> Result<Option<Match>, NodeError> {
        let feed = match self.feeds.entry(posting.feed) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(named(self.store, posting.feed)?),
        };
        Ok(feed.as_ref().map(|feed| answer(feed, posting)))
    }
}

fn answer(feed: &Named, posting: &Posting) -> Match {
    let classification = match &posting.classification {
        Some(class) => qualified(class, &feed.scheme),
        None => String::new(),
    };
    Match {
        entry: EntryName {
            set: (*feed.set).clone(),
            first: posting.first,
        },
        index: posting.index,
        feed: feed.id,
        publisher: feed.publisher,
        classification,
        basis: basis(posting.basis),
        media_kind: media_kind(posting.media_kind),
        published: posting.published,
        quality: posting.quality,
        standing: if feed.frozen || posting.held {
            MatchStanding::Review
        } else {
            MatchStanding::Active
        },
    }
}

/// A feed without a describe leaf has no entries; there is nothing to name.
fn named(store: &Store, no: FeedNo) -> Result<Option<Named>, NodeError> {
    let feed = store.feed(no)?;
    Ok(views::describe_of(&feed).map(|describe| Named {
        id: feed.id,
        publisher: feed.publisher,
        set: Arc::new(describe.name),
        scheme: describe
            .classification_scheme
            .map(|scheme| scheme.to_string())
            .unwrap_or_default(),
        frozen: feed.status == FeedStatus::Frozen,
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
