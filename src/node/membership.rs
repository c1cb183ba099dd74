//! Who is who: the roster chain, the node cards and the suspensions, as accepted.
//!
//! Owns their acceptance and storage; everybody else reads one immutable state.
//! Trusts nothing that comes in: each document is verified by the core, then
//! stored, then in force. What was refused is the caller's to log and count.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hashpact_core::access::Snapshot;
use hashpact_core::card::{CardAccepted, CardBook, CardVersion, EndpointPolicy};
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::equivocation::{DocumentEvidence, Equivocation};
use hashpact_core::id::{CoalitionName, Digest, FeedId, MemberNumber, Slug};
use hashpact_core::keys::{Feed, PublicKey};
use hashpact_core::reject::Rejection;
use hashpact_core::roster::{Accepted, Member, RosterChain};
use hashpact_core::suspension::{Suspension, SuspensionBook};
use hashpact_store::Store;

use crate::clock::Clock;
use crate::error::NodeError;
use crate::hub::{Change, Hub};

/// What is in force at one moment.
#[derive(Debug, Clone)]
pub struct State {
    /// The roster chain; none before the first roster came.
    pub chain: Option<RosterChain>,
    /// All accepted node cards.
    pub cards: CardBook,
    /// All accepted suspensions.
    pub suspensions: SuspensionBook,
    /// Members that this node's operator denies.
    pub denied: BTreeSet<MemberNumber>,
}

/// The node's one view of the coalition.
pub struct Membership {
    store: Arc<Store>,
    hub: Hub,
    clock: Clock,
    genesis: Digest,
    slug: Slug,
    state: ArcSwap<State>,
    /// One change at a time; readers never wait.
    turn: Mutex<()>,
}

impl Membership {
    /// Takes back what the store holds.
    ///
    /// # Errors
    /// What the store answers, or documents in it that no longer verify.
    pub fn open(
        store: Arc<Store>,
        hub: Hub,
        clock: Clock,
        genesis: Digest,
        slug: Slug,
        policy: EndpointPolicy,
        denied: BTreeSet<MemberNumber>,
    ) -> Result<Self, NodeError> {
        let state = restore(&store, &genesis, policy, denied)?;
        if let Some(chain) = &state.chain {
            close_former(&store, chain)?;
        }
        Ok(Self {
            store,
            hub,
            clock,
            genesis,
            slug,
            state: ArcSwap::from_pointee(state),
            turn: Mutex::new(()),
        })
    }

    /// What is in force at this moment.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The digest of the coalition's genesis, which the node was given.
    #[must_use]
    pub const fn genesis(&self) -> Digest {
        self.genesis
    }

    /// The digests that feeds of the coalition may have been begun under: the genesis,
    /// and those whose place it takes.
    #[must_use]
    pub fn geneses(&self) -> Vec<Digest> {
        match &self.state().chain {
            Some(chain) => chain.geneses().collect(),
            None => vec![self.genesis],
        }
    }

    /// This node's member.
    #[must_use]
    pub const fn slug(&self) -> &Slug {
        &self.slug
    }

    /// The roster chain.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] before the first roster came.
    pub fn roster(&self) -> Result<RosterChain, NodeError> {
        self.state().chain.clone().ok_or_else(no_roster)
    }

    /// The coalition's name.
    ///
    /// # Errors
    /// As [`Membership::roster`].
    pub fn coalition(&self) -> Result<CoalitionName, NodeError> {
        let state = self.state();
        let chain = state.chain.as_ref().ok_or_else(no_roster)?;
        Ok(chain.roster().coalition.clone())
    }

    /// This node's member in the roster.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] before it is in one.
    pub fn own(&self) -> Result<MemberNumber, NodeError> {
        let state = self.state();
        let chain = state.chain.as_ref().ok_or_else(no_roster)?;
        let member = chain.roster().member_by_slug(&self.slug);
        member.map(|member| member.number).ok_or_else(|| {
            NodeError::Misuse(format!(
                "{} is not in the coalition's roster (version {}) yet",
                self.slug,
                chain.version()
            ))
        })
    }

    /// Takes a roster version in.
    ///
    /// # Errors
    /// [`NodeError::Rejected`] with the reason; what the store answers.
    pub fn accept_roster(&self, bytes: Bytes) -> Result<bool, NodeError> {
        let envelope = Envelope::decode(bytes, PayloadType::Roster)?;
        self.change(|state| {
            let now = self.clock.now();
            let raw = envelope.as_bytes().clone();
            let version = match &mut state.chain {
                None => {
                    state.chain = Some(RosterChain::begin(envelope, &self.genesis, now)?);
                    1
                }
                Some(chain) => match chain.accept(envelope, now)? {
                    Accepted::New => chain.version(),
                    Accepted::MoreSignatures { version } => version,
                    Accepted::Known => return Ok(None),
                },
            };
            self.store.put_roster(version, &raw)?;
            if let Some(chain) = &state.chain {
                close_former(&self.store, chain)?;
            }
            Ok(Some(Change::Roster))
        })
    }

    /// Takes a node card in.
    ///
    /// # Errors
    /// [`NodeError::Rejected`] with the reason; what the store answers.
    pub fn accept_card(&self, bytes: Bytes) -> Result<bool, NodeError> {
        let envelope = Envelope::decode(bytes, PayloadType::NodeCard)?;
        // Every peer tells every card: for one that is held no state is copied.
        if self.state().cards.holds(&envelope.payload_digest()) {
            return Ok(false);
        }
        self.change(|state| {
            let chain = state.chain.as_ref().ok_or_else(no_roster)?;
            match state.cards.accept(envelope, chain, self.clock.now())? {
                CardAccepted::Known => Ok(None),
                CardAccepted::New(card) => {
                    self.put_card(&card)?;
                    Ok(Some(Change::Card(card.member())))
                }
            }
        })
    }

    /// Takes a suspension in.
    ///
    /// # Errors
    /// [`NodeError::Rejected`] with the reason; what the store answers.
    pub fn accept_suspension(&self, bytes: Bytes) -> Result<bool, NodeError> {
        let envelope = Envelope::decode(bytes, PayloadType::Suspension)?;
        // As for cards: every peer tells every one of them.
        let state = self.state();
        let mut held = state.suspensions.all().iter();
        if held.any(|held| held.as_bytes() == envelope.as_bytes()) {
            return Ok(false);
        }
        self.change(|state| {
            let chain = state.chain.as_ref().ok_or_else(no_roster)?;
            let now = self.clock.now();
            let raw = envelope.as_bytes().clone();
            let digest = envelope.payload_digest();
            let said = Suspension::read(envelope.payload())?;
            if !state.suspensions.accept(envelope, chain, now)? {
                return Ok(None);
            }
            let (member, version) = (said.member, said.roster_version);
            self.store.put_suspension(member, version, &digest, &raw)?;
            Ok(Some(Change::Suspension))
        })
    }

    /// Changes the state as one step: verified, stored, then in force and told.
    fn change(
        &self,
        step: impl FnOnce(&mut State) -> Result<Option<Change>, NodeError>,
    ) -> Result<bool, NodeError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = (*self.state()).clone();
        let change = match step(&mut next) {
            Ok(Some(change)) => change,
            Ok(None) => return Ok(false),
            Err(error) => {
                // After a rejection the core's state is as before, but for evidence
                // of two documents of one version, which is kept.
                if matches!(error, NodeError::Rejected(_)) {
                    let met = matches!(error, NodeError::Rejected(Rejection::Equivocation { .. }));
                    let next = Arc::new(next);
                    self.state.store(Arc::clone(&next));
                    if met {
                        self.keep_met(&next)?;
                    }
                }
                return Err(error);
            }
        };
        self.state.store(Arc::new(next));
        self.hub.tell(change);
        if change != Change::Access {
            self.hub.tell(Change::Access);
        }
        Ok(true)
    }

    /// Keeps what was met of two documents of one version, for others too.
    fn keep_met(&self, state: &State) -> Result<(), NodeError> {
        let rosters = state.chain.iter().flat_map(RosterChain::evidence);
        let rosters = rosters.map(|met| (&met.held, &met.other));
        let cards = state.cards.evidence().iter();
        let cards = cards.map(|met| (&met.held, &met.other));
        for (held, other) in rosters.chain(cards) {
            let evidence = DocumentEvidence::new(held.clone(), other.clone());
            self.keep_equivocation(state, &evidence)?;
        }
        Ok(())
    }

    /// Takes evidence of two documents of one version in: checked as anybody can,
    /// and kept, one piece for each subject. Both documents stay what they were; who
    /// is in force does not change. Answers whether it was kept.
    ///
    /// # Errors
    /// [`NodeError::Rejected`] with the reason; what the store answers.
    pub fn accept_equivocation(&self, evidence: &Bytes) -> Result<bool, NodeError> {
        let evidence = DocumentEvidence::decode(evidence)?;
        self.keep_equivocation(&self.state(), &evidence)
    }

    fn keep_equivocation(
        &self,
        state: &State,
        evidence: &DocumentEvidence,
    ) -> Result<bool, NodeError> {
        let chain = state.chain.as_ref().ok_or_else(no_roster)?;
        let proven = evidence.verify(chain)?;
        let new = self
            .store
            .put_equivocation(&proven.subject(), &evidence.encode())?;
        if new && proven.is_closed() {
            tracing::info!(
                "two node cards of one version by an identity key that was replaced: whoever \
                 found it could have made them"
            );
        } else if new {
            metrics::counter!("hashpact_equivocations_total").increment(1);
            match &*proven {
                Equivocation::Roster { version } => tracing::error!(
                    version,
                    "administrators approved two rosters of one version: the first one met stays \
                     in force; ask them which one the others have"
                ),
                Equivocation::NodeCard {
                    member, version, ..
                } => tracing::error!(
                    member = member.value(),
                    version,
                    "a member signed two node cards of one version: the first one met stays in force"
                ),
            }
            self.hub.tell(Change::Equivocation);
        }
        Ok(new)
    }

    fn put_card(&self, card: &CardVersion) -> Result<(), NodeError> {
        self.store.put_card(
            card.member(),
            card.card().version,
            &card.digest(),
            card.as_bytes(),
        )?;
        Ok(())
    }

    /// The immutable snapshot that access is decided from.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let state = self.state();
        let chain = state.chain.as_ref()?;
        let own = chain.roster().member_by_slug(&self.slug)?.number;
        Some(Snapshot::new(
            own,
            chain,
            &state.suspensions,
            &state.denied,
            self.clock.now(),
        ))
    }

    /// A member as the roster has it.
    #[must_use]
    pub fn member(&self, number: MemberNumber) -> Option<Member> {
        let state = self.state();
        state.chain.as_ref()?.roster().member(number).cloned()
    }

    /// The epoch of a feed that is open.
    #[must_use]
    pub fn epoch(&self, feed: FeedId) -> u32 {
        let state = self.state();
        let chain = state.chain.as_ref();
        chain.map_or(0, |chain| chain.roster().epoch(feed))
    }

    /// Checks a verified head against the sizes and roots that the roster's
    /// revocations name.
    ///
    /// # Errors
    /// [`Rejection::NotAnExtension`].
    pub fn check_epoch_head(
        &self,
        feed: FeedId,
        epoch: u32,
        at: (u64, Digest),
    ) -> Result<(), Rejection> {
        let state = self.state();
        match state.chain.as_ref() {
            Some(chain) => chain.roster().check_epoch_head(feed, epoch, at),
            None => Ok(()),
        }
    }

    /// The keys that may sign a new head of a feed in `epoch`. Before the feed's first
    /// leaf is here its set is not known, and every feed key of the publisher is
    /// taken; the set's scope is checked when the leaf has come.
    #[must_use]
    pub fn feed_keys(
        &self,
        publisher: MemberNumber,
        set: Option<&Slug>,
        feed: FeedId,
        epoch: u32,
    ) -> Vec<PublicKey<Feed>> {
        let state = self.state();
        let Some(chain) = state.chain.as_ref() else {
            return Vec::new();
        };
        let roster = chain.roster();
        // PROTOCOL 11: heads are ordered by epoch first, so an epoch that nobody
        // opened would outrank every honest head.
        if epoch != roster.epoch(feed) {
            return Vec::new();
        }
        if let Some(set) = set {
            let at = (roster, self.clock.now());
            return state
                .cards
                .current_feed_keys(publisher, set, feed, epoch, at);
        }
        let newest = state.cards.current(publisher, roster, self.clock.now());
        let nodes = newest.into_iter().flat_map(|card| &card.card().nodes);
        nodes
            .flat_map(|node| &node.feed_keys)
            .map(|key| key.key)
            .filter(|key| !roster.is_revoked(feed, key, epoch))
            .collect()
    }
}

/// PROTOCOL 5.24: evidence by an identity key that was replaced since it was kept is told
/// to nobody any more, and has not the place of the present key's.
fn close_former(store: &Store, chain: &RosterChain) -> Result<(), NodeError> {
    let members = chain.roster().members.iter();
    for member in members.filter(|member| !member.former_identities.is_empty()) {
        let present = Equivocation::NodeCard {
            member: member.number,
            version: 0,
            replaced_in: None,
        };
        let subject = present.subject();
        let Some(bytes) = store.equivocation(&subject)? else {
            continue;
        };
        // What does not verify by this chain stays where it is.
        let Ok(kept) = DocumentEvidence::decode(&bytes).and_then(|kept| kept.verify(chain)) else {
            continue;
        };
        if kept.subject() != subject {
            store.move_equivocation(&subject, &kept.subject(), &bytes)?;
        }
    }
    Ok(())
}

fn no_roster() -> NodeError {
    NodeError::Misuse(
        "this node has no roster of the coalition yet: give it one with `hashpact roster import`, \
         or start it with a peer to ask"
            .to_owned(),
    )
}

fn restore(
    store: &Store,
    genesis: &Digest,
    policy: EndpointPolicy,
    denied: BTreeSet<MemberNumber>,
) -> Result<State, NodeError> {
    let rosters = store.rosters()?;
    let decode = |bytes: Bytes, kind| Envelope::decode(bytes, kind);
    let chain = if rosters.is_empty() {
        None
    } else {
        let envelopes: Result<Vec<_>, Rejection> = rosters
            .into_iter()
            .map(|bytes| decode(bytes, PayloadType::Roster))
            .collect();
        Some(RosterChain::restore(envelopes?, genesis)?)
    };
    let mut cards = CardBook::new(policy);
    let mut suspensions = SuspensionBook::default();
    if let Some(chain) = &chain {
        for bytes in store.cards()? {
            cards.restore(decode(bytes, PayloadType::NodeCard)?, chain)?;
        }
        for bytes in store.suspensions()? {
            suspensions.restore(decode(bytes, PayloadType::Suspension)?, chain)?;
        }
    }
    Ok(State {
        chain,
        cards,
        suspensions,
        denied,
    })
}
