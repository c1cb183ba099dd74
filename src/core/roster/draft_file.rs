//! A draft as a file: the next roster version while administrators sign it in turn.
//!
//! The file is trusted for nothing. Whoever reads it checks the draft against the
//! chain ([`RosterChain::check_draft`](super::RosterChain::check_draft)), and each
//! request as if the newcomer had just sent it.

use bytes::Bytes;
use prost::Message as _;

use crate::envelope::{Envelope, PayloadType};
use crate::limits::{DRAFT_MAX_BYTES, DRAFT_REQUESTS_MAX};
use crate::reject::Rejection;
use crate::wire;

/// A roster to be signed, and the enrolment requests that it takes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterDraft {
    /// The roster, with the signatures so far.
    pub roster: Envelope,
    /// The requests of those that it admits or whose identity key it changes.
    pub requests: Vec<Envelope>,
}

impl RosterDraft {
    /// Encodes the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let requests = self.requests.iter();
        let message = wire::RosterDraft {
            roster: self.roster.as_bytes().clone(),
            enrolment_requests: requests.map(|r| r.as_bytes().clone()).collect(),
        };
        message.encode_to_vec()
    }

    /// Reads a file. Checks no signature and no rule.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`], [`Rejection::Malformed`] or [`Rejection::Invalid`].
    pub fn decode(bytes: Bytes) -> Result<Self, Rejection> {
        Rejection::cap("draft", bytes.len(), DRAFT_MAX_BYTES)?;
        let message = wire::RosterDraft::decode(bytes)
            .map_err(|error| Rejection::malformed("draft", error.to_string()))?;
        if message.roster.is_empty() {
            return Err(Rejection::invalid("draft", "it has no roster"));
        }
        let requests = message.enrolment_requests;
        Rejection::cap("enrolment requests", requests.len(), DRAFT_REQUESTS_MAX)?;
        let requests = requests
            .into_iter()
            .map(|bytes| Envelope::decode(bytes, PayloadType::EnrolmentRequest));
        Ok(Self {
            roster: Envelope::decode(message.roster, PayloadType::Roster)?,
            requests: requests.collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::RosterFile;
    use crate::roster::tests::{founded, next};

    #[test]
    fn a_draft_reads_back_and_no_roster_file_is_taken_for_one() {
        let chain = founded();
        let draft = RosterDraft {
            roster: next(&chain, |_| ())
                .to_envelope()
                .unwrap()
                .finish()
                .unwrap(),
            requests: Vec::new(),
        };
        let bytes = Bytes::from(draft.encode());
        assert_eq!(RosterDraft::decode(bytes.clone()), Ok(draft));
        assert!(RosterDraft::decode(bytes.slice(..bytes.len() - 1)).is_err());
        let as_file = RosterFile::decode(bytes).unwrap();
        assert_eq!(as_file, RosterFile::default());
        let file = RosterFile {
            rosters: vec![chain.current().as_bytes().clone()],
            ..RosterFile::default()
        };
        assert!(RosterDraft::decode(file.encode().into()).is_err());
        let huge = Bytes::from(vec![0; DRAFT_MAX_BYTES + 1]);
        assert!(matches!(
            RosterDraft::decode(huge),
            Err(Rejection::TooLarge { .. })
        ));
    }
}
