//! The sign-state file: what this node has signed last of each of its feeds.
//!
//! It lies outside RocksDB and outside RocksDB's backups, so that a restored store
//! cannot make the node sign a second state of one size. A change is a compare and
//! swap: the caller names the state it started from, and proves with the compact
//! range of the recorded size, recomputed from its stored leaves, that the new tree
//! extends the recorded one.
//!
//! Trusted for exactly that; not against a rollback of the whole disk. The file is
//! JSON with a version, replaced by writing a new one beside it, syncing it,
//! renaming it, syncing the folder. One process holds it, by a lock on a file of
//! its own (the file itself is replaced).

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use hashpact_core::id::{Digest, FeedId};
use hashpact_core::merkle::CompactRange;
use serde::{Deserialize, Serialize};

use crate::durable::{self, Fault, folder, private};

/// The version that the file is written with.
const VERSION: u32 = 1;

/// Says why the sign-state file did not change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignStateError {
    /// Another process holds it.
    #[error("{path} is held by another process")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// There is no file where one must be.
    #[error(
        "there is no sign-state file {path}: this node publishes nothing until it is restored or overridden"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("the sign-state file {path} cannot be read: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Of a newer program.
    #[error("the sign-state file has version {found}, this program knows version {VERSION}")]
    Version {
        /// What the file says.
        found: u32,
    },
    /// A file operation failed. The new state may or may not be on disk: read it
    /// again before signing anything.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The recorded state is not the one that the caller started from.
    #[error("feed {feed} was signed at size {recorded}, the caller started from size {expected}")]
    Conflict {
        /// The feed.
        feed: FeedId,
        /// The recorded size; 0 for none.
        recorded: u64,
        /// The size that the caller named; 0 for none.
        expected: u64,
    },
    /// The new tree is smaller than the recorded one, or of an older epoch.
    #[error("feed {feed} was signed at epoch {epoch}, size {size}; the new state goes back")]
    WentBack {
        /// The feed.
        feed: FeedId,
        /// The recorded epoch.
        epoch: u32,
        /// The recorded size.
        size: u64,
    },
    /// The new tree does not contain the recorded one.
    #[error("feed {feed}: the stored leaves do not lead to the root signed at size {size}")]
    NotAnExtension {
        /// The feed.
        feed: FeedId,
        /// The recorded size.
        size: u64,
    },
}

impl SignStateError {
    /// The stable code that logs and metrics share.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "sign_state_locked",
            Self::Missing { .. } => "sign_state_missing",
            Self::Unreadable { .. } => "sign_state_unreadable",
            Self::Version { .. } => "sign_state_version",
            Self::Io { .. } => "sign_state_io",
            Self::Conflict { .. } => "sign_state_conflict",
            Self::WentBack { .. } => "sign_state_went_back",
            Self::NotAnExtension { .. } => "sign_state_not_an_extension",
        }
    }
}

/// What was signed, or is about to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedState {
    /// The feed's epoch.
    pub epoch: u32,
    /// Leaves.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

/// The open sign-state file.
pub struct SignState {
    path: PathBuf,
    pub(crate) states: BTreeMap<FeedId, SignedState>,
    fault: Fault,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    feeds: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    epoch: u32,
    size: u64,
    root: String,
}

impl SignState {
    /// Opens the file at `path`, which must exist.
    ///
    /// # Errors
    /// [`SignStateError::Missing`] when there is none: a node that has published
    /// publishes nothing until readers supply its leaves. Otherwise what the file
    /// or the disk answer.
    pub fn open(path: &Path) -> Result<Self, SignStateError> {
        let lock = lock(path)?;
        let states = read(path)?;
        Ok(Self::with(path.to_owned(), states, lock))
    }

    /// Makes an empty file at `path` for a node that has published nothing yet, or
    /// as the audited override; opens the one that is there.
    ///
    /// # Errors
    /// What the file or the disk answer.
    pub fn create(path: &Path) -> Result<Self, SignStateError> {
        let lock = lock(path)?;
        match read(path) {
            Ok(states) => Ok(Self::with(path.to_owned(), states, lock)),
            Err(SignStateError::Missing { .. }) => {
                let state = Self::with(path.to_owned(), BTreeMap::new(), lock);
                state.replace(&state.states)?;
                Ok(state)
            }
            Err(error) => Err(error),
        }
    }

    const fn with(path: PathBuf, states: BTreeMap<FeedId, SignedState>, lock: File) -> Self {
        Self {
            path,
            states,
            fault: |_| Ok(()),
            _lock: lock,
        }
    }

    /// What was recorded last of a feed.
    #[must_use]
    pub fn state(&self, feed: &FeedId) -> Option<SignedState> {
        self.states.get(feed).copied()
    }

    /// All feeds with what was recorded last.
    pub fn states(&self) -> impl Iterator<Item = (FeedId, SignedState)> + '_ {
        self.states.iter().map(|(feed, state)| (*feed, *state))
    }

    /// Records `new` before it is signed, durably. Only after it answers may the
    /// state be signed.
    ///
    /// `expected` is the state that the caller read when it began; `at_recorded`
    /// is the compact range from 0 to the recorded size, recomputed from the stored
    /// leaves (empty when nothing is recorded). The same state again is accepted:
    /// a node may sign the identical head again.
    ///
    /// # Errors
    /// [`SignStateError::Conflict`], [`SignStateError::WentBack`],
    /// [`SignStateError::NotAnExtension`]; [`SignStateError::Io`] when it may or
    /// may not be recorded.
    pub fn advance(
        &mut self,
        feed: &FeedId,
        expected: Option<SignedState>,
        new: SignedState,
        at_recorded: &CompactRange,
    ) -> Result<(), SignStateError> {
        let recorded = self.state(feed);
        if recorded != expected {
            return Err(SignStateError::Conflict {
                feed: *feed,
                recorded: recorded.map_or(0, |state| state.size),
                expected: expected.map_or(0, |state| state.size),
            });
        }
        if let Some(recorded) = recorded {
            extends(feed, recorded, new, at_recorded)?;
        }
        if recorded == Some(new) {
            return Ok(());
        }
        let mut states = self.states.clone();
        states.insert(*feed, new);
        self.replace(&states)?;
        self.states = states;
        Ok(())
    }

    /// Records the first state of a later epoch, durably, before it is signed. The
    /// roster says how many leaves the epoch begins with, so the size may go back;
    /// `at_new` is the compact range from 0 to it, recomputed from the stored leaves.
    ///
    /// # Errors
    /// [`SignStateError::WentBack`] unless the epoch is a later one;
    /// [`SignStateError::NotAnExtension`] when the leaves do not lead to the root;
    /// [`SignStateError::Io`] when it may or may not be recorded.
    pub fn open_epoch(
        &mut self,
        feed: &FeedId,
        new: SignedState,
        at_new: &CompactRange,
    ) -> Result<(), SignStateError> {
        if let Some(recorded) = self.state(feed)
            && recorded.epoch >= new.epoch
        {
            return Err(SignStateError::WentBack {
                feed: *feed,
                epoch: recorded.epoch,
                size: recorded.size,
            });
        }
        if at_new.begin() != 0 || at_new.end() != new.size || at_new.root() != Some(new.root) {
            return Err(SignStateError::NotAnExtension {
                feed: *feed,
                size: new.size,
            });
        }
        let mut states = self.states.clone();
        states.insert(*feed, new);
        self.replace(&states)?;
        self.states = states;
        Ok(())
    }

    /// Crash: before the rename the old file stands, after it the new one; either
    /// is whole. Nothing is signed before this has answered, so a state that was
    /// recorded and not signed only means that the same one is signed later, or
    /// that a longer one is.
    pub(crate) fn replace(
        &self,
        states: &BTreeMap<FeedId, SignedState>,
    ) -> Result<(), SignStateError> {
        let bytes = encode(states)?;
        durable::replace(&self.path, &bytes, self.fault).map_err(io("writing the sign-state file"))
    }
}

impl std::fmt::Debug for SignState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignState")
            .field("path", &self.path)
            .field("states", &self.states)
            .finish_non_exhaustive()
    }
}

/// The new tree must extend the recorded one.
fn extends(
    feed: &FeedId,
    recorded: SignedState,
    new: SignedState,
    at_recorded: &CompactRange,
) -> Result<(), SignStateError> {
    if new.size < recorded.size || new.epoch < recorded.epoch {
        return Err(SignStateError::WentBack {
            feed: *feed,
            epoch: recorded.epoch,
            size: recorded.size,
        });
    }
    let same_leaves = at_recorded.begin() == 0
        && at_recorded.end() == recorded.size
        && at_recorded.root() == Some(recorded.root);
    let same_size_same_root = new.size != recorded.size || new.root == recorded.root;
    if same_leaves && same_size_same_root {
        Ok(())
    } else {
        Err(SignStateError::NotAnExtension {
            feed: *feed,
            size: recorded.size,
        })
    }
}

fn read(path: &Path) -> Result<BTreeMap<FeedId, SignedState>, SignStateError> {
    let unreadable = |why: String| SignStateError::Unreadable {
        path: path.to_owned(),
        why,
    };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(SignStateError::Missing {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(io("reading the sign-state file")(error)),
    };
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(1) => {}
        Some(other) => {
            return Err(SignStateError::Version {
                found: u32::try_from(other).unwrap_or(u32::MAX),
            });
        }
        None => return Err(unreadable("it has no version".to_owned())),
    }
    let document: Document =
        serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))?;
    document
        .feeds
        .into_iter()
        .map(|(feed, entry)| {
            let feed = Digest::from_hex(&feed).map_err(|error| unreadable(error.to_string()))?;
            let root =
                Digest::from_hex(&entry.root).map_err(|error| unreadable(error.to_string()))?;
            let state = SignedState {
                epoch: entry.epoch,
                size: entry.size,
                root,
            };
            Ok((FeedId(feed), state))
        })
        .collect()
}

fn encode(states: &BTreeMap<FeedId, SignedState>) -> Result<Vec<u8>, SignStateError> {
    let entry = |state: &SignedState| Entry {
        epoch: state.epoch,
        size: state.size,
        root: state.root.to_string(),
    };
    let document = Document {
        version: VERSION,
        feeds: states
            .iter()
            .map(|(feed, state)| (feed.to_string(), entry(state)))
            .collect(),
    };
    let mut bytes = serde_json::to_vec_pretty(&document)
        .map_err(|error| io("encoding the sign-state file")(error.into()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn lock(path: &Path) -> Result<File, SignStateError> {
    let what = "locking the sign-state file";
    std::fs::create_dir_all(folder(path)).map_err(io(what))?;
    let file = private(&path.with_extension("lock"), false).map_err(io(what))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SignStateError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(SignStateError::Io { what, source }),
    }
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> SignStateError {
    move |source| SignStateError::Io { what, source }
}

#[cfg(test)]
#[path = "sign_state_tests.rs"]
mod tests;
