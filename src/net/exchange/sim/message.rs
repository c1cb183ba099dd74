//! How large a message between simulated members is, and how long it takes to leave.

use super::calls::{Body, Message};

/// Bytes a millisecond between any two.
const BYTES_PER_MS: usize = 10_000;

impl Message {
    /// Bytes of the message itself, with gRPC's five before each.
    pub(crate) fn bytes(&self) -> usize {
        const PREFIX: usize = 5;
        match self {
            Self::Request(_, Body::Hello(bytes) | Body::Roster(bytes) | Body::Pull(bytes))
            | Self::Answer(_, bytes)
            | Self::Said(bytes) => bytes.len().saturating_add(PREFIX),
            Self::Request(_, Body::Watch) | Self::Ended(..) | Self::Cancel(_) => PREFIX,
        }
    }

    /// How long it takes to leave.
    pub(crate) fn transit_ms(&self) -> u64 {
        u64::try_from(self.bytes() / BYTES_PER_MS).unwrap_or(u64::MAX)
    }
}
