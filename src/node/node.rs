//! The node: one store, one view of the coalition, one publisher.
//!
//! What the local API and the federation service call. Blocking where it says so;
//! nothing here runs on the async reactor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hashpact_core::card::EndpointPolicy;
use hashpact_core::id::{Digest, MemberNumber, SetName, Slug, UnixMillis};
use hashpact_core::keys::{Feed, Identity, SecretKey};
use hashpact_core::roster::RosterChain;
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_store::{FeedInfo, FeedNo, Store, StoreOptions};

use crate::audit::{Audit, AuditParts, AuditSettings};
use crate::changes::Following;
use crate::clock::Clock;
use crate::error::NodeError;
use crate::hub::Hub;
use crate::hygiene::HygieneOptions;
use crate::journal::Journal;
use crate::judging::Judging;
use crate::membership::Membership;
use crate::model::{
    Erased, Erasure, ExchangeView, ExportedEntry, Grantee, Match, MatchOptions, Matched, Retracted,
    Retraction, SetInfo,
};
use crate::near::Near;
use crate::policy::Desk;
use crate::publish::{Import, Publisher, PublisherParts};
use crate::quarantine::SaidState;
use crate::receipts::Receipts;
use crate::reported::Reported;
use crate::retention::Retention;
use crate::witnessing::{WitnessOptions, Witnessing};
use crate::{export, matching, removed, sign_state, views};

/// What a node is opened with.
pub struct NodeOptions {
    /// The store's folder.
    pub store_dir: PathBuf,
    /// How the store uses the machine.
    pub store: StoreOptions,
    /// The folder of the sign-state file.
    pub sign_state_dir: PathBuf,
    /// The member.
    pub member: Slug,
    /// The node's name on the member's card.
    pub node: Slug,
    /// The digest of the coalition's genesis.
    pub genesis: Digest,
    /// Which endpoints cards may name.
    pub endpoint_policy: EndpointPolicy,
    /// Members that the operator denies.
    pub denied: BTreeSet<MemberNumber>,
    /// Signs heads.
    pub feed_key: SecretKey<Feed>,
    /// Signs mass retractions, where it is online.
    pub identity_key: Option<SecretKey<Identity>>,
    /// The clock.
    pub clock: Clock,
    /// Whether peers will be asked for this node's own heads before it publishes:
    /// true for a running node, false for a command that runs alone.
    pub connects: bool,
    /// Whether near PDQ signals are answered from memory: true for a running node. A
    /// command that runs alone sweeps the store for its one question instead.
    pub near_index: bool,
    /// When segments of the audit feed are sealed, and when they go.
    pub audit: AuditSettings,
    /// With what it witnesses.
    pub witness: Option<WitnessOptions>,
    /// What becomes of doubts that it has by itself.
    pub hygiene: HygieneOptions,
}

/// A node that is open.
pub struct Node {
    store: Arc<Store>,
    membership: Arc<Membership>,
    publisher: Arc<Publisher>,
    audit: Arc<Audit>,
    hub: Hub,
    clock: Clock,
    slug: Slug,
    name: Slug,
    started: UnixMillis,
    ready: AtomicBool,
    exchange: std::sync::OnceLock<Arc<dyn ExchangeView>>,
    roster_said: SaidState,
    /// `None` for a command that runs alone: a sweep serves its one question.
    near: Option<Arc<Near>>,
    /// The same of the frames of videos.
    near_frames: Option<Arc<Near>>,
    /// When a TLS certificate that is not this node's own runs out; 0 for none.
    certificate_expires: AtomicU64,
    /// What wants attention beside what the node sees by itself, by subject.
    notices: Mutex<BTreeMap<&'static str, String>>,
    pub(crate) removed_members: Arc<removed::Setting>,
    pub(crate) desk: Arc<Desk>,
    following: Following,
    pub(crate) counted: crate::mass::versions::Counted,
    receipts: Receipts,
    heard_of_others: crate::restored::Heard,
    pub(crate) retention: Retention,
    pub(crate) witnessing: (Option<Arc<Witnessing>>, Judging),
    pub(crate) journal: std::sync::OnceLock<Journal>,
    pub(crate) reported: Reported,
}

impl Node {
    /// Opens the store and takes back what it holds. Blocking.
    ///
    /// # Errors
    /// A store in use or damaged, a sign-state file that is missing or in use.
    pub fn open(options: NodeOptions) -> Result<Arc<Self>, NodeError> {
        let store = Arc::new(Store::open(&options.store_dir, &options.store)?);
        let hub = Hub::default();
        let membership = Arc::new(Membership::open(
            Arc::clone(&store),
            hub.clone(),
            options.clock.clone(),
            options.genesis,
            options.member.clone(),
            options.endpoint_policy,
            options.denied.clone(),
        )?);
        let publisher = Arc::new(Publisher::new(PublisherParts {
            sign_state: sign_state::open(&options.sign_state_dir, &store)?,
            store: Arc::clone(&store),
            membership: Arc::clone(&membership),
            hub: hub.clone(),
            clock: options.clock.clone(),
            slug: options.member.clone(),
            feed_key: options.feed_key,
            identity_key: options.identity_key,
        }));
        let audit = Audit::open(AuditParts {
            store: Arc::clone(&store),
            membership: Arc::clone(&membership),
            publisher: Arc::clone(&publisher),
            clock: options.clock.clone(),
            node: options.node.clone(),
            settings: options.audit,
            sign_state_dir: &options.sign_state_dir,
            fault: |_| Ok(()),
        })?;
        let index = |kind| {
            let wanted = options.near_index;
            wanted.then(|| Near::start(&store, kind)).transpose()
        };
        let near = index(SignalKind::Pdq.number_byte())?;
        let near_frames = index(hashpact_store::FRAME_KIND)?;
        let following = Following::new(&store);
        let desk = Arc::new(Desk::open(&store, options.clock.now(), options.hygiene)?);
        let witnessing = Witnessing::of(&options.sign_state_dir, options.witness)?;
        let node = Arc::new(Self {
            store,
            membership,
            publisher,
            audit,
            hub,
            started: options.clock.now(),
            clock: options.clock,
            slug: options.member,
            name: options.node,
            ready: AtomicBool::new(false),
            exchange: std::sync::OnceLock::new(),
            roster_said: SaidState::default(),
            near,
            near_frames,
            certificate_expires: AtomicU64::new(0),
            notices: Mutex::default(),
            removed_members: Arc::default(),
            desk,
            following,
            counted: <_>::default(),
            receipts: Receipts::default(),
            heard_of_others: <_>::default(),
            retention: Retention::default(),
            witnessing: (witnessing, Judging::default()),
            journal: std::sync::OnceLock::new(),
            reported: Reported::default(),
        });
        let of = Arc::downgrade(&node);
        let disputes = move |no| of.upgrade().is_none_or(|node| node.may_dispute(no));
        node.store.set_counting(disputes);
        node.follow_roster()?;
        node.settle_all()?;
        if options.near_index {
            // A command that runs alone leaves it to the node.
            node.keep_changes()?;
        }
        node.publisher.check_feeds()?;
        node.ready.store(!options.connects, Ordering::SeqCst);
        Ok(node)
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Who is who.
    #[must_use]
    pub const fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// What signs this node's own feeds.
    #[must_use]
    pub const fn publisher(&self) -> &Arc<Publisher> {
        &self.publisher
    }

    /// The record of who did what on this node.
    #[must_use]
    pub const fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    /// Where changes are told.
    #[must_use]
    pub const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The member's slug.
    #[must_use]
    pub const fn member_slug(&self) -> &Slug {
        &self.slug
    }

    /// The node's name on the member's card.
    #[must_use]
    pub const fn name(&self) -> &Slug {
        &self.name
    }

    /// When the node was opened.
    #[must_use]
    pub const fn started(&self) -> UnixMillis {
        self.started
    }

    pub(crate) const fn following(&self) -> &Following {
        &self.following
    }

    pub(crate) const fn receipts(&self) -> &Receipts {
        &self.receipts
    }

    pub(crate) const fn heard_of_others(&self) -> &crate::restored::Heard {
        &self.heard_of_others
    }

    pub(crate) const fn roster_said(&self) -> &SaidState {
        &self.roster_said
    }

    /// Says that all that readiness waits for has happened.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::SeqCst);
    }

    /// Whether the node answers and exchanges, and has at least what it said before that
    /// it acts on.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst) && !self.receipts.is_behind() && !self.waits_for_others()
    }

    /// Why it is not, in words.
    #[must_use]
    pub fn why_not_ready(&self) -> Vec<&'static str> {
        let reasons = [
            (
                !self.ready.load(Ordering::SeqCst),
                "the node is starting, or stopping",
            ),
            (
                self.receipts.is_behind(),
                "the store is behind this node's own receipts",
            ),
            (
                self.waits_for_others(),
                "the store was restored: what others publish is at review, until it is known to be \
                 the newest (for 10 minutes at most)",
            ),
        ];
        let reasons = reasons.into_iter().filter(|(stands, _)| *stands);
        reasons.map(|(_, why)| why).collect()
    }

    /// Says when the TLS certificate in use runs out.
    pub fn set_certificate_expires(&self, expires: Option<UnixMillis>) {
        let expires = expires.unwrap_or_default();
        self.certificate_expires.store(expires.0, Ordering::SeqCst);
    }

    /// When the TLS certificate in use runs out.
    #[must_use]
    pub fn certificate_expires(&self) -> Option<UnixMillis> {
        let expires = self.certificate_expires.load(Ordering::SeqCst);
        (expires > 0).then_some(UnixMillis(expires))
    }

    /// Shows something among what wants attention, until it is set to nothing.
    pub fn set_notice(&self, subject: &'static str, notice: Option<String>) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        match notice {
            Some(notice) => notices.insert(subject, notice),
            None => notices.remove(subject),
        };
    }

    /// What was set by [`set_notice`](Self::set_notice).
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.values().cloned().collect()
    }

    /// Lets the node show how its exchange with others stands. Once; later calls
    /// change nothing.
    pub fn set_exchange(&self, view: Arc<dyn ExchangeView>) {
        let _ = self.exchange.set(view);
    }

    /// How the exchange with others stands; `None` for a command that runs alone.
    #[must_use]
    pub fn exchange(&self) -> Option<&Arc<dyn ExchangeView>> {
        self.exchange.get()
    }

    /// Every set that this node holds, own ones first. Blocking.
    #[must_use]
    pub fn sets(&self) -> Vec<SetInfo> {
        let mut sets: Vec<SetInfo> = self
            .store
            .feeds()
            .iter()
            .filter_map(|feed| self.info_of(feed).ok())
            .collect();
        sets.sort_by(|a, b| b.own.cmp(&a.own).then_with(|| a.name.cmp(&b.name)));
        sets
    }

    /// One set. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`].
    pub fn set(&self, name: &SetName) -> Result<SetInfo, NodeError> {
        self.info_of(&self.feed_of(name)?)
    }

    /// The feed of a set.
    ///
    /// # Errors
    /// [`NodeError::NotFound`].
    pub fn feed_of(&self, name: &SetName) -> Result<FeedInfo, NodeError> {
        let mut feeds = self.store.feeds().into_iter();
        let named = |feed: &FeedInfo| views::describe_of(feed).is_some_and(|d| d.name == *name);
        feeds.find(named).ok_or_else(|| NodeError::NotFound {
            what: "set",
            name: name.to_string(),
        })
    }

    /// Changes who may read an own set. Blocking.
    ///
    /// # Errors
    /// As [`Publisher::change_grants`].
    pub fn change_grants(
        &self,
        set: &Slug,
        grant: &[Grantee],
        revoke: &[String],
    ) -> Result<SetInfo, NodeError> {
        let feed = self.publisher.own_set(set)?;
        self.info_of(&self.publisher.change_grants(&feed, grant, revoke)?)
    }

    /// Opens an own set for publishing on the operator's word. Blocking.
    ///
    /// # Errors
    /// As [`Publisher::confirm_head`].
    pub fn confirm_head(&self, set: &Slug, reason: &str) -> Result<SetInfo, NodeError> {
        let feed = self.publisher.own_set(set)?;
        self.publisher.confirm_head(&feed, reason)?;
        self.info_of(&feed)
    }

    /// Begins an import into an own set. Blocking.
    ///
    /// # Errors
    /// As [`Publisher::import`].
    pub fn import(&self, set: &Slug) -> Result<Import<'_>, NodeError> {
        self.publisher.import(set)
    }

    /// Takes entries of an own set back. Blocking.
    ///
    /// # Errors
    /// As [`Publisher::retract`].
    pub fn retract(&self, set: &Slug, retraction: &Retraction) -> Result<Retracted, NodeError> {
        self.publisher.retract(set, retraction)
    }

    /// What [`Node::retract`] would take back; changes nothing. Blocking.
    ///
    /// # Errors
    /// As [`Publisher::would_retract`].
    pub fn would_retract(
        &self,
        set: &Slug,
        retraction: &Retraction,
    ) -> Result<Retracted, NodeError> {
        self.publisher.would_retract(set, retraction)
    }

    /// What [`Node::erase`] would erase; changes nothing. Blocking.
    ///
    /// # Errors
    /// As [`Publisher::would_erase`].
    pub fn would_erase(&self, set: &Slug, erasure: &Erasure) -> Result<Erased, NodeError> {
        self.publisher.would_erase(set, erasure)
    }

    /// Erases entries of an own set. Blocking.
    ///
    /// # Errors
    /// As [`Publisher::erase`].
    pub fn erase(&self, set: &Slug, erasure: &Erasure) -> Result<Erased, NodeError> {
        self.publisher.erase(set, erasure)
    }

    /// Answers signals, in order. Blocking.
    ///
    /// # Errors
    /// More than [`lookup::LOOKUP_MAX`] signals; what the store answers.
    pub fn lookup(&self, signals: &[Signal]) -> Result<Vec<Vec<Match>>, NodeError> {
        let exact = MatchOptions::exact();
        let answers = self.matches(signals, exact)?.into_iter();
        let entries = |answer: Matched| answer.found.into_iter().map(|found| found.entry);
        Ok(answers.map(|answer| entries(answer).collect()).collect())
    }

    /// Answers signals with what carries them or, for PDQ, what is near them; in
    /// order. Blocking.
    ///
    /// # Errors
    /// More than [`lookup::LOOKUP_MAX`] signals, too large a distance; what the store
    /// answers.
    pub fn matches(
        &self,
        signals: &[Signal],
        options: MatchOptions,
    ) -> Result<Vec<Matched>, NodeError> {
        let near = matching::Indexes {
            pictures: self.near.as_deref(),
            frames: self.near_frames.as_deref(),
        };
        let whose = (self.heard(), self.removed_filter());
        matching::matches(&self.store, near, signals, options, whose)
    }

    /// Whether near matches are answered at all, and how many values are known of which
    /// near ones are not found yet; of pictures and videos together.
    #[must_use]
    pub fn near_loading(&self) -> (bool, u64) {
        let both = [&self.near, &self.near_frames];
        both.into_iter()
            .flatten()
            .fold((true, 0), |(ready, pending), near| {
                let pending = near.pending().saturating_add(pending);
                (ready && near.is_ready(), pending)
            })
    }

    /// Whether near matches may not be answered yet from what a feed has below `below`.
    pub(crate) fn near_waits(&self, feed: FeedNo, below: u64) -> bool {
        let both = [&self.near, &self.near_frames];
        both.into_iter()
            .flatten()
            .any(|near| near.waits_for(feed, below))
    }

    /// How the index of near pictures stands; `None` for a command that runs alone.
    #[must_use]
    pub fn near(&self) -> Option<&Arc<Near>> {
        self.near.as_ref()
    }

    /// Hands the entries of one set, or of every set that may be shared on, to
    /// `sink` until it answers false: those that were withdrawn too, if the first flag
    /// is set, each with its verdict, if the second is. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Terms`] where one set was named and its terms forbid it.
    pub fn export(
        &self,
        set: Option<&SetName>,
        (include_dead, verdicts): (bool, bool),
        sink: &mut dyn FnMut(Vec<ExportedEntry>) -> bool,
    ) -> Result<(), NodeError> {
        let judge = verdicts.then(|| self.judge("", "")).transpose()?;
        let feeds = match set {
            Some(name) => vec![self.feed_of(name)?],
            None => self.store.feeds(),
        };
        let heard = self.heard();
        for feed in feeds {
            let (publisher, whole) = (self.publisher_of(&feed), self.whole(&feed));
            let whose = (&publisher, &heard, judge.as_ref());
            match export::export(&self.store, &feed, &whole, whose, include_dead, sink) {
                Err(NodeError::Terms { .. }) if set.is_none() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// The slug of a feed's publisher; this member's own where no roster says.
    pub(crate) fn publisher_of(&self, feed: &FeedInfo) -> Slug {
        let member = self.member(feed.publisher);
        member.map_or_else(|| self.slug.clone(), |member| member.slug)
    }

    pub(crate) fn info_of(&self, feed: &FeedInfo) -> Result<SetInfo, NodeError> {
        let state = self.membership.state();
        let closed = if feed.own {
            self.publisher.closed(&feed.id)
        } else {
            None
        };
        let roster = state.chain.as_ref().map(RosterChain::roster);
        views::set_info(feed, roster, closed).ok_or_else(|| NodeError::NotFound {
            what: "set",
            name: feed.id.to_string(),
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for near in [&self.near, &self.near_frames].into_iter().flatten() {
            near.stop();
        }
        // What waits to be noted is written.
        drop(self.journal.take());
        self.audit.close();
    }
}
