//! What a roster file holds, verified, and back.

use std::path::Path;

use hashpact_core::card::{CardBook, EndpointPolicy};
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::UnixMillis;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::{RosterChain, RosterFile};

use crate::cli::error::CliError;
use crate::roster_file;

/// A coalition as its roster file has it.
pub(super) struct State {
    /// Every version, each approved by the one before.
    pub(super) chain: RosterChain,
    /// Every card of the file. Endpoints are for each node to judge.
    pub(super) cards: CardBook,
    /// Suspensions as they came.
    pub(super) suspensions: Vec<bytes::Bytes>,
}

impl State {
    /// Begins with a chain alone.
    pub(super) fn new(chain: RosterChain) -> Self {
        Self {
            chain,
            cards: CardBook::new(EndpointPolicy::AllowLocal),
            suspensions: Vec::new(),
        }
    }

    /// Reads and verifies a roster file. Its genesis is what it says itself: whoever
    /// reads it compares the digest.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let fail = |why: String| CliError::failed(format!("{}: {why}", path.display()));
        let file = roster_file::read(path).map_err(|error| {
            fail(error.to_string()).next("hashpact coalition init makes a roster")
        })?;
        Self::verify(file).map_err(|error| fail(error.to_string()))
    }

    fn verify(file: RosterFile) -> Result<Self, Rejection> {
        let rosters = file.rosters.into_iter();
        let rosters = rosters
            .map(|bytes| Envelope::decode(bytes, PayloadType::Roster))
            .collect::<Result<Vec<_>, _>>()?;
        let genesis = rosters.first().map(Envelope::payload_digest);
        let genesis = genesis.ok_or_else(|| Rejection::invalid("roster file", "it is empty"))?;
        let mut state = Self::new(RosterChain::restore(rosters, &genesis)?);
        for bytes in file.node_cards {
            let card = Envelope::decode(bytes, PayloadType::NodeCard)?;
            state.cards.restore(card, &state.chain)?;
        }
        state.suspensions = file.suspensions;
        Ok(state)
    }

    /// Writes the file in one step.
    pub(super) fn write(&self, path: &Path) -> Result<(), CliError> {
        let rosters = self.chain.from_version(1);
        let file = RosterFile {
            rosters: rosters.map(|v| v.as_bytes().clone()).collect(),
            node_cards: self.cards.all().map(|c| c.as_bytes().clone()).collect(),
            suspensions: self.suspensions.clone(),
        };
        roster_file::write(path, &file)
            .map_err(|error| CliError::failed(format!("{}: {error}", path.display())))
    }
}

/// A time for people.
pub(super) fn day(time: UnixMillis) -> String {
    let millis = i64::try_from(time.0).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => time.strftime("%Y-%m-%d").to_string(),
        Err(_) => "never".to_owned(),
    }
}
