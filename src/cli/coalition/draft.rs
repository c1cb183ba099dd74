//! A draft: the next version of the roster, as a file that goes from one
//! administrator to the other.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hashpact_core::enrol::VerifiedRequest;
use hashpact_core::envelope::Envelope;
use hashpact_core::id::UnixMillis;
use hashpact_core::keys::{Admin, PublicKey};
use hashpact_core::limits::{DAY_MS, DRAFT_MAX_BYTES};
use hashpact_core::reject::Rejection;
use hashpact_core::roster::{Roster, RosterAdmin, RosterDraft};

use super::args::{DEFAULT_DAYS, DraftArgs};
use super::state::State;
use crate::cli::error::CliError;
use crate::cli::new_files::at;
use crate::roster_file;

/// How long before a roster's expiry it is renewed: long enough for every
/// administrator to come back from a holiday.
pub(super) const RENEW_WINDOW_MS: u64 = 45 * DAY_MS;

/// A draft that was checked in everything but its signatures.
pub(super) struct Draft {
    /// The roster, with the signatures so far.
    pub(super) envelope: Envelope,
    /// What it says.
    pub(super) roster: Roster,
    /// The requests that it takes in.
    pub(super) requests: Vec<VerifiedRequest>,
}

impl Draft {
    /// Reads a draft and checks it as the version after the roster in force, or as the
    /// founding where there is none.
    pub(super) fn read(
        path: &Path,
        state: Option<&State>,
        now: UnixMillis,
    ) -> Result<Self, CliError> {
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(|error| {
            at(path, &error).next("hashpact coalition help lists what makes a draft")
        })?;
        let read = file
            .take(DRAFT_MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes);
        read.map_err(|error| at(path, &error))?;
        let read = RosterDraft::decode(bytes.into()).and_then(|file| Self::check(file, state, now));
        read.map_err(|rejection| {
            let error = CliError::failed(format!("{}: {rejection}", path.display()));
            let elsewhere = matches!(
                rejection,
                Rejection::VersionGap { .. } | Rejection::WrongPredecessor { .. }
            );
            if elsewhere {
                return error.next(
                    "it does not stand on the roster in force: hashpact coalition update takes \
                     a newer one; or make the change again",
                );
            }
            error
        })
    }

    fn check(file: RosterDraft, state: Option<&State>, now: UnixMillis) -> Result<Self, Rejection> {
        let roster = match state {
            Some(state) => state.chain.check_draft(&file.roster)?,
            None => Roster::read(file.roster.payload())?,
        };
        if state.is_none() && roster.version != 1 {
            return Err(Rejection::invalid(
                "draft",
                "there is no roster in the folder that it could stand on",
            ));
        }
        let requests = file.requests.into_iter();
        let requests: Vec<_> = requests
            .map(|request| VerifiedRequest::verify(request, now))
            .collect::<Result<_, _>>()?;
        for request in &requests {
            let request = request.request();
            let member = roster.member_by_slug(&request.slug);
            if member.is_none_or(|member| member.identity != request.identity) {
                return Err(Rejection::invalid(
                    "draft",
                    format!(
                        "the request of {} is not what the roster takes in",
                        request.slug
                    ),
                ));
            }
        }
        Ok(Self {
            envelope: file.roster,
            roster,
            requests,
        })
    }

    /// Writes the draft in one step.
    pub(super) fn write(&self, path: &Path) -> Result<(), CliError> {
        let requests = self.requests.iter();
        let file = RosterDraft {
            roster: self.envelope.clone(),
            requests: requests.map(|request| request.envelope().clone()).collect(),
        };
        roster_file::write_bytes(path, &file.encode()).map_err(|error| at(path, &error))
    }

    /// How many of those who must agree have: of the version in force, and of this.
    pub(super) fn approvals(&self, state: Option<&State>) -> Vec<Approval> {
        let approval = |roster: &Roster| {
            let signed = self.envelope.signers(roster.admin_keys());
            let admins = roster.admins.iter().cloned();
            let (signed, missing) = admins.partition(|admin| signed.contains(&admin.key));
            Approval {
                version: roster.version,
                needed: roster.threshold,
                signed,
                missing,
            }
        };
        let before = state.map(|state| state.chain.roster());
        let same = before.is_some_and(|before| {
            before.threshold == self.roster.threshold && before.admins == self.roster.admins
        });
        let before = before.filter(|_| !same);
        let rosters = before.into_iter().chain([&self.roster]);
        rosters.map(approval).collect()
    }

    /// Whether an administrator of the version in force, or of this one, has this key.
    pub(super) fn is_asked(&self, state: Option<&State>, key: &PublicKey<Admin>) -> bool {
        let before = state
            .into_iter()
            .flat_map(|state| state.chain.roster().admin_keys());
        before
            .chain(self.roster.admin_keys())
            .any(|admin| admin == *key)
    }
}

/// How far the administrators of one version have agreed.
pub(super) struct Approval {
    /// Whose administrators.
    pub(super) version: u64,
    /// How many it takes.
    pub(super) needed: usize,
    /// Who has signed.
    pub(super) signed: Vec<RosterAdmin>,
    /// Who has not.
    pub(super) missing: Vec<RosterAdmin>,
}

impl Approval {
    /// Whether enough have.
    pub(super) fn is_enough(&self) -> bool {
        self.signed.len() >= self.needed
    }
}

/// The next version, while it is changed.
pub(super) struct Sheet {
    /// The roster in force.
    pub(super) state: State,
    /// What comes after it.
    pub(super) roster: Roster,
    /// What newcomers sent.
    pub(super) requests: Vec<VerifiedRequest>,
    /// When it is.
    pub(super) now: UnixMillis,
    path: PathBuf,
}

impl Sheet {
    /// Goes on with the unsigned draft that is there, or begins one.
    pub(super) fn open(args: &DraftArgs, now: UnixMillis) -> Result<Self, CliError> {
        let state = in_force(&args.folder.dir)?;
        let version = state.chain.version().saturating_add(1);
        let path = draft_path(&args.folder.dir, args.draft.as_deref(), version);
        let mut sheet = if path.exists() {
            let draft = Draft::read(&path, Some(&state), now)?;
            let admins = state.chain.roster().admin_keys();
            let signed = draft
                .envelope
                .signers(admins.chain(draft.roster.admin_keys()));
            if !signed.is_empty() {
                return Err(CliError::failed(format!(
                    "{} was signed already; a change would void the signatures",
                    path.display()
                ))
                .next("publish it first, remove the file, or give another with --draft"));
            }
            Self {
                roster: draft.roster,
                requests: draft.requests,
                state,
                now,
                path,
            }
        } else {
            let life = life(&state, now);
            let roster = Roster::after(state.chain.current(), state.chain.genesis(), now, life);
            Self {
                state,
                roster,
                requests: Vec::new(),
                now,
                path,
            }
        };
        if let Some(days) = args.days {
            sheet.roster.expires = sheet.roster.issued.plus(u64::from(days) * DAY_MS);
        }
        Ok(sheet)
    }

    /// Encodes the draft, checks it as every reader will, and writes the file.
    pub(super) fn close(self) -> Result<(State, Draft, PathBuf), CliError> {
        let refused = |rejection: Rejection| CliError::failed(format!("refused: {rejection}"));
        let roster = self.roster.to_envelope().and_then(|draft| draft.finish());
        let file = RosterDraft {
            roster: roster.map_err(refused)?,
            requests: self.requests.iter().map(|r| r.envelope().clone()).collect(),
        };
        let draft = Draft::check(file, Some(&self.state), self.now).map_err(refused)?;
        draft.write(&self.path)?;
        Ok((self.state, draft, self.path))
    }
}

/// The roster in force, where there must be one.
pub(super) fn in_force(dir: &Path) -> Result<State, CliError> {
    State::read_in(dir)?.ok_or_else(|| {
        CliError::failed(format!("{} has no {}", dir.display(), super::ROSTER_FILE))
            .next("give the folder with --dir; hashpact coalition init founds a coalition")
    })
}

/// The draft's file: the one that was given, or the version's in the folder.
pub(super) fn draft_path(dir: &Path, given: Option<&Path>, version: u64) -> PathBuf {
    given.map_or_else(
        || dir.join(format!("roster-v{version}.draft")),
        Path::to_owned,
    )
}

/// A change leaves the day of expiry as it is, unless it is time to renew.
fn life(state: &State, now: UnixMillis) -> u64 {
    let left = state.chain.roster().expires.since(now);
    if left > RENEW_WINDOW_MS {
        left
    } else {
        u64::from(DEFAULT_DAYS) * DAY_MS
    }
}
