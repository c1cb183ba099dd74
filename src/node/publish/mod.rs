//! Publishing: the only code of the node that signs heads of its own sets. (Those of
//! the audit feed are made in `audit/write.rs`, by the same discipline.)
//!
//! The discipline, in this order and no other: append leaves (synced) → recompute
//! the root from what was stored → compare-and-swap in the sign-state file → sign →
//! store → announce. Acknowledged means: covered by a stored, signed head.
//!
//! A feed is closed until all that can be reached have said that they hold no newer
//! head of it than this node does: a restored backup must never fork a feed.

mod append;
mod confirm;
mod epoch;
mod erase;
mod gate;
mod import;
mod opine;
mod resign;
mod retract;
mod salts;
mod session;
mod sets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use hashpact_core::id::{FeedId, Slug};
use hashpact_core::keys::{Feed, Identity, SecretKey};
use hashpact_core::leaf::audit::holds_value;
use hashpact_store::sign_state::SignState;
use hashpact_store::{FeedInfo, Store};

pub use self::confirm::{AskedPeer, Awaited, Contact, PeerKey, Round};
pub(crate) use self::confirm::{Said, Waiting};
pub use self::gate::Gate;
pub use self::import::Import;
pub use self::opine::OPINIONS_SET;
pub use self::salts::Salts;
pub(crate) use self::session::Session;
pub(crate) use self::sets::read_describe;

use crate::clock::Clock;
use crate::error::NodeError;
use crate::hub::Hub;
use crate::membership::Membership;
use crate::views;
use crate::words::name_of;

/// What publishing needs; one a node.
pub struct Publisher {
    pub(crate) store: Arc<Store>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) hub: Hub,
    pub(crate) clock: Clock,
    pub(crate) slug: Slug,
    feed_key: ArcSwap<SecretKey<Feed>>,
    /// Absent where the identity key is kept offline: mass retractions wait then.
    pub(crate) identity_key: Option<SecretKey<Identity>>,
    sign_state: Mutex<SignState>,
    gates: Mutex<HashMap<FeedId, Gate>>,
    /// What peers have said of own feeds.
    said: Mutex<Said>,
    /// One opinion at a time: each names what was said before it.
    opining: Mutex<()>,
    salts: ArcSwap<Salts>,
}

/// What a [`Publisher`] is made of.
pub struct PublisherParts {
    /// The store.
    pub store: Arc<Store>,
    /// Who is who.
    pub membership: Arc<Membership>,
    /// Where changes are told.
    pub hub: Hub,
    /// The clock.
    pub clock: Clock,
    /// The member's slug.
    pub slug: Slug,
    /// Signs heads.
    pub feed_key: SecretKey<Feed>,
    /// Signs mass retractions, where it is online.
    pub identity_key: Option<SecretKey<Identity>>,
    /// What was signed last.
    pub sign_state: SignState,
}

impl Publisher {
    /// Puts a publisher together; every feed is closed until
    /// [`Publisher::check_feeds`].
    #[must_use]
    pub fn new(parts: PublisherParts) -> Self {
        Self {
            store: parts.store,
            membership: parts.membership,
            hub: parts.hub,
            clock: parts.clock,
            slug: parts.slug,
            feed_key: ArcSwap::from_pointee(parts.feed_key),
            identity_key: parts.identity_key,
            sign_state: Mutex::new(parts.sign_state),
            gates: Mutex::new(HashMap::new()),
            said: Mutex::default(),
            opining: Mutex::default(),
            salts: ArcSwap::default(),
        }
    }

    /// Takes salts from elsewhere than the system: a simulation's.
    pub fn set_salts(&self, salts: Salts) {
        self.salts.store(Arc::new(salts));
    }

    /// 16 bytes for a leaf's salt.
    pub(crate) fn salt(&self) -> [u8; 16] {
        self.salts.load().next()
    }

    /// The own feeds, as they stand.
    #[must_use]
    pub fn feeds(&self) -> Vec<FeedInfo> {
        let mut feeds = self.store.feeds();
        feeds.retain(|feed| feed.own);
        feeds
    }

    fn sign_state(&self) -> MutexGuard<'_, SignState> {
        // A panic while the lock was held left the file as it was before or after.
        self.sign_state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<FeedId, Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opining(&self) -> MutexGuard<'_, ()> {
        self.opining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a feed is closed for publishing; `None` when it is open.
    #[must_use]
    pub fn closed(&self, feed: &FeedId) -> Option<String> {
        match self.gates().get(feed) {
            Some(Gate::Open) => {}
            Some(gate) => return Some(gate.reason()),
            None => return Some("it was not checked yet; try again".to_owned()),
        }
        self.is_unlisted(feed).then(|| {
            "this node's feed key is not on the node card in force, so peers would refuse what it \
             signs: put the former key file back, or wait until the card names this one \
             (`hashpact card show`, `hashpact status`)"
                .to_owned()
        })
    }

    /// Whether the node card in force does not name the feed key for a feed. ⚠ Who hears
    /// heads by such a key leaves the peer alone for longer and longer.
    fn is_unlisted(&self, feed: &FeedId) -> bool {
        let (state, own) = (self.membership.state(), self.membership.own());
        let (Some(chain), Ok(own)) = (state.chain.as_ref(), own) else {
            return false;
        };
        // Without a card nobody knows the node.
        let card = state.cards.current(own, chain.roster(), self.clock.now());
        let no = card.and_then(|_| self.store.feed_no(feed));
        let Some(held) = no.and_then(|no| self.store.feed(no).ok()) else {
            return false;
        };
        let set = views::describe_of(&held).map(|describe| describe.name.set);
        let epoch = chain.roster().epoch(*feed);
        let keys = self.membership.feed_keys(own, set.as_ref(), *feed, epoch);
        !keys.contains(&self.feed_key())
    }

    fn require_open(&self, feed: &FeedInfo) -> Result<(), NodeError> {
        match self.closed(&feed.id) {
            None => Ok(()),
            Some(why) => Err(NodeError::PublishingClosed {
                set: name_of(feed),
                why,
            }),
        }
    }
}

/// ⚠ What goes to all readers stays with them for ever, beyond any erasure.
///
/// # Errors
/// [`NodeError::Misuse`] for a text that holds what reads as a signal's value.
fn no_value(what: &str, text: &str) -> Result<(), NodeError> {
    if holds_value(text) {
        return Err(NodeError::Misuse(format!(
            "the {what} holds what reads as a signal's value, and every reader would have it for \
             ever: name a case or a ticket"
        )));
    }
    Ok(())
}
