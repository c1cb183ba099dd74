//! What a roster file holds, verified, and back.

use std::path::Path;

use hashpact_core::card::{CardBook, EndpointPolicy};
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::{Slug, UnixMillis};
use hashpact_core::reject::Rejection;
use hashpact_core::roster::{Member, RosterChain, RosterFile};
use hashpact_core::suspension::SuspensionBook;

use super::ROSTER_FILE;
use crate::cli::error::CliError;
use crate::roster_file;

/// A coalition as its roster file has it.
pub(in crate::cli) struct State {
    /// Every version, each approved by the one before.
    pub(in crate::cli) chain: RosterChain,
    /// Every card of the file. Endpoints are for each node to judge.
    pub(in crate::cli) cards: CardBook,
    /// Every suspension of the file, ended ones too.
    pub(in crate::cli) suspensions: SuspensionBook,
}

impl State {
    /// Begins with a chain alone.
    pub(super) fn new(chain: RosterChain) -> Self {
        Self {
            chain,
            cards: CardBook::new(EndpointPolicy::AllowLocal),
            suspensions: SuspensionBook::default(),
        }
    }

    /// As [`read`](Self::read), of the roster in an administrators' folder; `None`
    /// before there is one.
    pub(super) fn read_in(dir: &Path) -> Result<Option<Self>, CliError> {
        let path = dir.join(ROSTER_FILE);
        if path.exists() {
            Self::read(&path).map(Some)
        } else {
            Ok(None)
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

    /// Verifies a whole roster file.
    pub(super) fn verify(file: RosterFile) -> Result<Self, Rejection> {
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
        for bytes in file.suspensions {
            let suspension = Envelope::decode(bytes, PayloadType::Suspension)?;
            state.suspensions.restore(suspension, &state.chain)?;
        }
        Ok(state)
    }

    /// The whole of it as a file.
    pub(super) fn to_file(&self) -> RosterFile {
        let rosters = self.chain.from_version(1);
        let suspensions = self.suspensions.all().iter();
        RosterFile {
            rosters: rosters.map(|v| v.as_bytes().clone()).collect(),
            node_cards: self.cards.all().map(|c| c.as_bytes().clone()).collect(),
            suspensions: suspensions.map(|s| s.as_bytes().clone()).collect(),
        }
    }

    /// Checks the whole of it once more and writes the file in one step: a crash
    /// leaves the roster before or this one.
    pub(super) fn write(&self, path: &Path) -> Result<(), CliError> {
        let fail = |why: String| CliError::failed(format!("{}: {why}", path.display()));
        let file = self.to_file();
        Self::verify(file.clone()).map_err(|error| fail(error.to_string()))?;
        roster_file::write(path, &file).map_err(|error| fail(error.to_string()))
    }

    /// A member by its slug.
    pub(super) fn member(&self, slug: &Slug) -> Result<&Member, CliError> {
        let roster = self.chain.roster();
        roster.member_by_slug(slug).ok_or_else(|| {
            CliError::failed(format!(
                "no member {slug} in roster version {}",
                roster.version
            ))
            .next("hashpact coalition show lists them")
        })
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
