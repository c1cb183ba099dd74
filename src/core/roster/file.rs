//! The roster chain, cards and suspensions as one file.
//!
//! The file is trusted for nothing: each document in it is verified as if a peer
//! had sent it.

use bytes::Bytes;
use prost::Message as _;

use crate::limits::ROSTER_FILE_MAX_BYTES;
use crate::reject::Rejection;
use crate::wire;

/// Envelopes as received: rosters from version 1 on, then cards, then suspensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RosterFile {
    /// The roster chain, from version 1 on.
    pub rosters: Vec<Bytes>,
    /// Node cards.
    pub node_cards: Vec<Bytes>,
    /// Suspensions.
    pub suspensions: Vec<Bytes>,
}

impl RosterFile {
    /// Encodes the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = wire::RosterFile {
            rosters: self.rosters.clone(),
            node_cards: self.node_cards.clone(),
            suspensions: self.suspensions.clone(),
        };
        message.encode_to_vec()
    }

    /// Reads a file; the documents in it are not looked at.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] or [`Rejection::Malformed`].
    pub fn decode(bytes: Bytes) -> Result<Self, Rejection> {
        Rejection::cap("roster file", bytes.len(), ROSTER_FILE_MAX_BYTES)?;
        let message = wire::RosterFile::decode(bytes)
            .map_err(|error| Rejection::malformed("roster file", error.to_string()))?;
        Ok(Self {
            rosters: message.rosters,
            node_cards: message.node_cards,
            suspensions: message.suspensions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_back_as_written_and_a_broken_one_is_refused() {
        let file = RosterFile {
            rosters: vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")],
            node_cards: vec![Bytes::from_static(b"card")],
            suspensions: Vec::new(),
        };
        let bytes = Bytes::from(file.encode());
        assert_eq!(RosterFile::decode(bytes.clone()), Ok(file));
        assert!(RosterFile::decode(bytes.slice(..bytes.len() - 1)).is_err());
        let huge = Bytes::from(vec![0; ROSTER_FILE_MAX_BYTES + 1]);
        assert!(matches!(
            RosterFile::decode(huge),
            Err(Rejection::TooLarge { .. })
        ));
    }
}
