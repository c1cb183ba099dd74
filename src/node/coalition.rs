//! What the node shows of the coalition: its members and its documents.

use bytes::Bytes;
use hashpact_core::card::Contact;
use hashpact_core::id::{MemberNumber, Slug};

use crate::node::Node;

/// A member as answers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// The permanent number.
    pub number: MemberNumber,
    /// The slug.
    pub slug: Slug,
    /// For people.
    pub display_name: String,
    /// Who answers around the clock, by the member's newest card.
    pub contact: Option<Contact>,
}

impl Node {
    /// A member as answers name it.
    #[must_use]
    pub fn member(&self, number: MemberNumber) -> Option<MemberView> {
        let state = self.membership().state();
        let member = state.chain.as_ref()?.roster().member(number)?;
        Some(MemberView {
            number,
            slug: member.slug.clone(),
            display_name: member.display_name.clone(),
            contact: state
                .cards
                .newest(number)
                .map(|card| card.card().contact.clone()),
        })
    }

    /// The roster chain, the newest cards and the suspensions, as received.
    #[must_use]
    pub fn roster_documents(&self) -> RosterDocuments {
        let state = self.membership().state();
        let Some(chain) = state.chain.as_ref() else {
            return RosterDocuments::default();
        };
        RosterDocuments {
            rosters: chain
                .from_version(1)
                .map(|v| v.as_bytes().clone())
                .collect(),
            node_cards: state
                .cards
                .newest_of_all()
                .map(|card| card.as_bytes().clone())
                .collect(),
            suspensions: state
                .suspensions
                .all()
                .iter()
                .map(|s| s.as_bytes().clone())
                .collect(),
        }
    }
}

/// Envelopes as received: rosters from version 1 on, then cards, then suspensions.
#[derive(Debug, Clone, Default)]
pub struct RosterDocuments {
    /// The roster chain.
    pub rosters: Vec<Bytes>,
    /// Node cards.
    pub node_cards: Vec<Bytes>,
    /// Suspensions.
    pub suspensions: Vec<Bytes>,
}
