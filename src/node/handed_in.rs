//! Rosters, cards and suspensions that are handed in: each is judged by itself, and what
//! was new is named, so that a record says which they were.

use bytes::Bytes;
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::MemberNumber;
use hashpact_core::roster::RosterChain;

use crate::coalition::RosterDocuments;
use crate::error::NodeError;
use crate::model::RosterImport;
use crate::node::Node;

impl Node {
    /// Hands documents to the node, which verifies each. Blocking.
    ///
    /// # Errors
    /// What the store answers. Documents that are refused are listed.
    pub fn import_roster(&self, documents: RosterDocuments) -> Result<RosterImport, NodeError> {
        let mut outcome = RosterImport::default();
        for bytes in documents.rosters {
            let before = outcome.accepted;
            outcome.note(self.membership().accept_roster(bytes.clone()))?;
            outcome.name("roster", PayloadType::Roster, bytes, before);
        }
        for bytes in documents.node_cards {
            let before = outcome.accepted;
            outcome.note(self.membership().accept_card(bytes.clone()))?;
            outcome.name("card", PayloadType::NodeCard, bytes, before);
        }
        for bytes in documents.suspensions {
            let before = outcome.accepted;
            outcome.note(self.membership().accept_suspension(bytes.clone()))?;
            outcome.name("suspension", PayloadType::Suspension, bytes, before);
        }
        self.follow_roster()?;
        if outcome.accepted > 0 {
            // Whoever was removed may dispute nothing any more.
            self.recheck_conflicts();
        }
        let state = self.membership().state();
        let new = |digest| outcome.taken_in.contains(&("suspension", digest));
        let suspended = state.suspensions.all().iter();
        let suspended = suspended.filter(|held| new(held.digest()));
        let member = |number: MemberNumber| {
            Some(state.chain.as_ref()?.roster().member(number)?.slug.clone())
        };
        outcome.suspended = suspended
            .filter_map(|held| member(held.suspension().member))
            .collect();
        outcome.version = state.chain.as_ref().map_or(0, RosterChain::version);
        Ok(outcome)
    }
}

impl RosterImport {
    /// Counts one document; a failure of ours goes on.
    fn note(&mut self, result: Result<bool, NodeError>) -> Result<(), NodeError> {
        match result {
            Ok(true) => self.accepted += 1,
            Ok(false) => self.known += 1,
            Err(error @ (NodeError::Rejected(_) | NodeError::Misuse(_))) => {
                self.refused.push(error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Names a document that is new: the last one noted, if it is.
    fn name(&mut self, what: &'static str, kind: PayloadType, bytes: Bytes, accepted: u32) {
        if self.accepted == accepted {
            return;
        }
        if let Ok(envelope) = Envelope::decode(bytes, kind) {
            self.taken_in.push((what, envelope.payload_digest()));
        }
    }
}
