//! A node at rest that is given another genesis.
//!
//! Trusts its operator for which genesis digest is right, and the old chain for
//! nothing but who had which number. Feeds, heads and everything derived from them
//! stay as they are; roster, cards and suspensions are replaced in one step.

use std::path::Path;

use bytes::Bytes;
use hashpact_core::card::{CardBook, CardVersion, EndpointPolicy, NodeCard};
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::{Digest, Slug};
use hashpact_core::leaf::audit::{Act, OK};
use hashpact_core::reject::Rejection;
use hashpact_core::roster::{RosterChain, RosterFile};
use hashpact_store::{Store, StoreOptions, StoredDocument};

use crate::coalition::RosterDocuments;
use crate::error::NodeError;
use crate::publish::Salts;

/// The store of a node at rest, with the chain that it goes by.
pub struct ReAnchoring {
    store: Store,
    chain: RosterChain,
    cards: CardBook,
}

impl ReAnchoring {
    /// Opens the store, and verifies the chain in it from its own first version on.
    ///
    /// # Errors
    /// A store in use; one without a roster, which has nothing to be replaced.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Self, NodeError> {
        let store = Store::open(dir, options)?;
        let rosters = decode(store.rosters()?, PayloadType::Roster)?;
        let genesis = rosters
            .first()
            .map(Envelope::payload_digest)
            .ok_or_else(|| {
                let why = "this node has no roster yet: set coalition.genesis in its configuration";
                NodeError::Misuse(why.to_owned())
            })?;
        let chain = RosterChain::restore(rosters, &genesis)?;
        let mut cards = CardBook::new(EndpointPolicy::AllowLocal);
        for card in decode(store.cards()?, PayloadType::NodeCard)? {
            cards.restore(card, &chain)?;
        }
        Ok(Self {
            store,
            chain,
            cards,
        })
    }

    /// The genesis digest that the store goes by.
    #[must_use]
    pub const fn genesis(&self) -> Digest {
        self.chain.genesis()
    }

    /// The member's newest card under the chain held.
    #[must_use]
    pub fn newest_card(&self, member: &Slug) -> Option<&NodeCard> {
        let number = self.chain.roster().member_by_slug(member)?.number;
        self.cards.newest(number).map(|card| card.card())
    }

    /// Everything that is replaced, to be kept elsewhere: proofs made under the old
    /// chain need it.
    ///
    /// # Errors
    /// What the store answers.
    pub fn held(&self) -> Result<RosterDocuments, NodeError> {
        Ok(RosterDocuments {
            rosters: self.store.rosters()?,
            node_cards: self.store.cards()?,
            suspensions: self.store.suspensions()?,
        })
    }

    /// Verifies a chain from the new genesis on, and puts it in the place of the one
    /// held, in one step with what is to be recorded of it: the node's next start puts
    /// `act` into the audit feed. Says the version.
    ///
    /// # Errors
    /// [`NodeError::Rejected`] for a chain of another genesis, one that takes another's
    /// place, or cards that do not belong to it.
    pub fn replace(
        self,
        genesis: &Digest,
        new: RosterDocuments,
        mut act: Act,
    ) -> Result<u64, NodeError> {
        let rosters = new.rosters.clone();
        let chain = RosterChain::restore(decode(rosters, PayloadType::Roster)?, genesis)?;
        chain.check_takes_place_of(&self.chain)?;
        let mut cards = CardBook::new(EndpointPolicy::AllowLocal);
        for card in decode(new.node_cards, PayloadType::NodeCard)? {
            cards.restore(card, &chain)?;
        }
        let cards: Vec<_> = cards.all().map(|card| stored(card)).collect();
        act.detail("former_genesis", self.chain.genesis());
        act.detail("genesis", genesis);
        act.count("roster_version", chain.version());
        OK.clone_into(&mut act.outcome);
        let begun = self.store.audit_begun()?;
        let number = begun.last().map_or(0, |(last, _)| last.saturating_add(1));
        let payload = act.encode(Salts::default().next())?;
        let former = self.chain.genesis();
        // Again, after a crash: the old chain is kept already.
        let documents = (former != *genesis).then(|| self.held()).transpose()?;
        let documents = documents.map(|held| {
            let file = RosterFile {
                rosters: held.rosters,
                node_cards: held.node_cards,
                suspensions: held.suspensions,
            };
            file.encode()
        });
        let former = documents.as_ref().map(|file| (&former, file.as_slice()));
        self.store
            .replace_documents(&new.rosters, &cards, (number, &payload), former)?;
        Ok(chain.version())
    }
}

/// The chains that the node went by before, with their cards, for heads that were signed
/// under them.
///
/// # Errors
/// What the store answers; documents of it that do not verify.
pub(crate) fn former(store: &Store) -> Result<Vec<(RosterChain, CardBook)>, NodeError> {
    let mut all = Vec::new();
    for (genesis, documents) in store.former_documents()? {
        let file = RosterFile::decode(documents)?;
        let chain = RosterChain::restore(decode(file.rosters, PayloadType::Roster)?, &genesis)?;
        let mut cards = CardBook::new(EndpointPolicy::AllowLocal);
        for card in decode(file.node_cards, PayloadType::NodeCard)? {
            cards.restore(card, &chain)?;
        }
        all.push((chain, cards));
    }
    Ok(all)
}

fn stored(card: &CardVersion) -> StoredDocument {
    StoredDocument {
        member: card.member(),
        version: card.card().version,
        payload: card.digest(),
        envelope: card.as_bytes().clone(),
    }
}

fn decode(documents: Vec<Bytes>, kind: PayloadType) -> Result<Vec<Envelope>, Rejection> {
    let decoded = documents
        .into_iter()
        .map(|bytes| Envelope::decode(bytes, kind));
    decoded.collect()
}
