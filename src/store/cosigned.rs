//! What this node has cosigned last of each feed, as a witness: one file a feed, in a
//! folder beside the sign-state file.
//!
//! It lies outside RocksDB and outside RocksDB's backups, so that a restored store
//! cannot make the witness sign a second history. A change is a compare and swap on
//! the state that the caller started from; a state never goes back within its feed.
//! That a new one extends the old one the caller has proved.
//!
//! Trusted for exactly that; not against a rollback of the whole disk (then peers say
//! what was cosigned). A file is JSON with a version, replaced by writing a new one
//! beside it, syncing it, renaming it, syncing the folder. One process holds the folder,
//! by a lock on a file in it.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use data_encoding::BASE64;
use hashpact_core::id::{Digest, FeedId, MemberNumber};
use hashpact_core::limits::NOTE_MAX_BYTES;
use hashpact_core::witness::Cosigned;
use serde::{Deserialize, Serialize};

use crate::durable::{self, Fault, private};

/// The version that files are written with.
const VERSION: u32 = 1;
/// The end of the files' names.
const EXTENSION: &str = "json";

/// Says why a record did not change, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CosignedError {
    /// Another process holds the folder.
    #[error("{path} is held by another process")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("the witness record {path} cannot be read: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file operation failed. The new state may or may not be on disk: read it again
    /// before signing anything of the feed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The recorded state is not the one that the caller started from.
    #[error("feed {feed} was cosigned at size {recorded}, the caller started from another state")]
    Conflict {
        /// The feed.
        feed: FeedId,
        /// The recorded size; 0 for none.
        recorded: u64,
    },
    /// The new state is of an older epoch, or smaller, or another one of that size.
    #[error("feed {feed} was cosigned at epoch {epoch}, size {size}; the new state goes back")]
    WentBack {
        /// The feed.
        feed: FeedId,
        /// The recorded epoch.
        epoch: u32,
        /// The recorded size.
        size: u64,
    },
}

impl CosignedError {
    /// The stable code that logs and metrics share.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "witness_record_locked",
            Self::Unreadable { .. } => "witness_record_unreadable",
            Self::Io { .. } => "witness_record_io",
            Self::Conflict { .. } => "witness_record_conflict",
            Self::WentBack { .. } => "witness_record_went_back",
        }
    }
}

/// The open folder.
#[derive(Debug)]
pub struct CosignedStates {
    folder: PathBuf,
    states: BTreeMap<FeedId, Cosigned>,
    fault: Fault,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    publisher: u32,
    epoch: u32,
    size: u64,
    root: String,
    note: String,
}

impl CosignedStates {
    /// Opens the folder, and makes it where there is none.
    ///
    /// # Errors
    /// What the files or the disk answer. ⚠ A file that cannot be read is no feed that
    /// was never cosigned.
    pub fn open(folder: &Path) -> Result<Self, CosignedError> {
        let what = "opening the witness records";
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        made.map_err(io(what))?;
        let lock = private(&folder.join("lock"), false).map_err(io(what))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = folder.to_owned();
                return Err(CosignedError::Locked { path });
            }
            Err(TryLockError::Error(source)) => return Err(CosignedError::Io { what, source }),
        }
        let mut states = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(io(what))? {
            let path = entry.map_err(io(what))?.path();
            if path.extension().is_some_and(|end| end == EXTENSION) {
                let (feed, cosigned) = read(&path)?;
                states.insert(feed, cosigned);
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            states,
            fault: |_| Ok(()),
            _lock: lock,
        })
    }

    /// What was recorded last of a feed.
    #[must_use]
    pub fn state(&self, feed: &FeedId) -> Option<&Cosigned> {
        self.states.get(feed)
    }

    /// All feeds with what was recorded last.
    pub fn states(&self) -> impl Iterator<Item = (&FeedId, &Cosigned)> {
        self.states.iter()
    }

    /// Records `new` before it is cosigned, durably; `expected` is the state that the
    /// caller started from. Only after it answers may the state be signed.
    ///
    /// # Errors
    /// [`CosignedError::Conflict`], [`CosignedError::WentBack`]; [`CosignedError::Io`]
    /// when it may or may not be recorded.
    pub fn advance(
        &mut self,
        feed: FeedId,
        expected: Option<(u32, u64, Digest)>,
        new: Cosigned,
    ) -> Result<(), CosignedError> {
        let recorded = self.states.get(&feed);
        if recorded.map(Cosigned::state) != expected {
            let recorded = recorded.map_or(0, |state| state.size);
            return Err(CosignedError::Conflict { feed, recorded });
        }
        if let Some(held) = recorded {
            let ahead = (held.epoch, held.size) < (new.epoch, new.size);
            if !ahead && held.state() != new.state() {
                return Err(CosignedError::WentBack {
                    feed,
                    epoch: held.epoch,
                    size: held.size,
                });
            }
        }
        self.replace(feed, &new)?;
        self.states.insert(feed, new);
        Ok(())
    }

    /// Reads a feed's record again, after it may or may not have changed.
    ///
    /// # Errors
    /// What the file or the disk answer.
    pub fn read_again(&mut self, feed: FeedId) -> Result<Option<&Cosigned>, CosignedError> {
        let path = self.path(feed);
        let there = path.try_exists().map_err(io("reading a witness record"))?;
        if there {
            let (_, cosigned) = read(&path)?;
            self.states.insert(feed, cosigned);
        } else {
            self.states.remove(&feed);
        }
        Ok(self.states.get(&feed))
    }

    /// Crash: before the rename the old record stands, after it the new one; either is
    /// whole. Nothing is signed before this has answered, so a state that was recorded
    /// and not signed only means that it is signed later.
    fn replace(&self, feed: FeedId, new: &Cosigned) -> Result<(), CosignedError> {
        let document = Document {
            version: VERSION,
            publisher: new.publisher.value(),
            epoch: new.epoch,
            size: new.size,
            root: new.root.to_string(),
            note: BASE64.encode(&new.note),
        };
        let what = "writing a witness record";
        let mut bytes =
            serde_json::to_vec_pretty(&document).map_err(|error| io(what)(error.into()))?;
        bytes.push(b'\n');
        durable::replace(&self.path(feed), &bytes, self.fault).map_err(io(what))
    }

    fn path(&self, feed: FeedId) -> PathBuf {
        self.folder.join(format!("{feed}.{EXTENSION}"))
    }
}

fn read(path: &Path) -> Result<(FeedId, Cosigned), CosignedError> {
    let unreadable = |why: String| CosignedError::Unreadable {
        path: path.to_owned(),
        why,
    };
    let name = path.file_stem().and_then(|name| name.to_str());
    let feed = name.and_then(|name| Digest::from_hex(name).ok());
    let feed = feed.ok_or_else(|| unreadable("its name is no feed id".to_owned()))?;
    let bytes = std::fs::read(path).map_err(io("reading a witness record"))?;
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if document.version != VERSION {
        let found = document.version;
        return Err(unreadable(format!(
            "it has version {found}, this program knows version {VERSION}"
        )));
    }
    let note = BASE64
        .decode(document.note.as_bytes())
        .map_err(|error| unreadable(error.to_string()))?;
    if note.len() > NOTE_MAX_BYTES {
        return Err(unreadable("its note is too long".to_owned()));
    }
    let cosigned = Cosigned {
        publisher: MemberNumber::new(document.publisher)
            .map_err(|error| unreadable(error.to_string()))?,
        epoch: document.epoch,
        size: document.size,
        root: Digest::from_hex(&document.root).map_err(|error| unreadable(error.to_string()))?,
        note: Bytes::from(note),
    };
    Ok((FeedId(feed), cosigned))
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> CosignedError {
    move |source| CosignedError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::Step;

    const FEED: FeedId = FeedId(Digest([7; 32]));

    fn state(epoch: u32, size: u64, root: u8) -> Cosigned {
        Cosigned {
            publisher: MemberNumber::new(1).unwrap(),
            epoch,
            size,
            root: Digest([root; 32]),
            note: Bytes::from_static(b"a note\n"),
        }
    }

    fn opened(folder: &Path) -> CosignedStates {
        CosignedStates::open(folder).unwrap()
    }

    #[test]
    fn what_was_recorded_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut states = opened(folder.path());
        states.advance(FEED, None, state(0, 5, 1)).unwrap();
        let first = state(0, 5, 1).state();
        states.advance(FEED, Some(first), state(0, 9, 2)).unwrap();
        drop(states);
        let states = opened(folder.path());
        assert_eq!(states.state(&FEED), Some(&state(0, 9, 2)));
        assert_eq!(states.states().count(), 1);
    }

    #[test]
    fn a_change_is_made_only_from_the_state_that_is_recorded_and_never_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut states = opened(folder.path());
        let code = |done: Result<(), CosignedError>| done.unwrap_err().code();
        states.advance(FEED, None, state(1, 5, 1)).unwrap();
        let held = Some(state(1, 5, 1).state());
        let conflict = "witness_record_conflict";
        assert_eq!(code(states.advance(FEED, None, state(1, 9, 1))), conflict);
        let other = Some(state(1, 5, 2).state());
        assert_eq!(code(states.advance(FEED, other, state(1, 9, 1))), conflict);
        let back = "witness_record_went_back";
        assert_eq!(code(states.advance(FEED, held, state(1, 4, 1))), back);
        assert_eq!(code(states.advance(FEED, held, state(0, 9, 1))), back);
        assert_eq!(code(states.advance(FEED, held, state(1, 5, 2))), back);
        // A later epoch may begin below.
        states.advance(FEED, held, state(2, 3, 3)).unwrap();
    }

    #[test]
    fn a_crash_at_any_step_leaves_the_old_record_or_the_new_one_whole() {
        fn at(place: Step, step: Step) -> std::io::Result<()> {
            if place == step {
                Err(std::io::Error::other("a crash"))
            } else {
                Ok(())
            }
        }
        let faults: [Fault; 4] = [
            |step| at(Step::Write, step),
            |step| at(Step::SyncFile, step),
            |step| at(Step::Rename, step),
            |step| at(Step::SyncFolder, step),
        ];
        for (place, fault) in faults.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let mut states = opened(folder.path());
            states.advance(FEED, None, state(0, 5, 1)).unwrap();
            states.fault = fault;
            let held = Some(state(0, 5, 1).state());
            let failed = states.advance(FEED, held, state(0, 9, 2));
            assert_eq!(failed.unwrap_err().code(), "witness_record_io");
            assert_eq!(
                states.state(&FEED),
                Some(&state(0, 5, 1)),
                "not taken for done"
            );
            let expected = if place == 3 {
                state(0, 9, 2)
            } else {
                state(0, 5, 1)
            };
            assert_eq!(states.read_again(FEED).unwrap(), Some(&expected));
            drop(states);
            assert_eq!(opened(folder.path()).state(&FEED), Some(&expected));
        }
    }

    #[test]
    fn a_damaged_record_stops_the_witness_and_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        opened(folder.path())
            .advance(FEED, None, state(0, 5, 1))
            .unwrap();
        let path = folder.path().join(format!("{FEED}.json"));
        let good = std::fs::read_to_string(&path).unwrap();
        for bad in ["", "{}", &good.replace("\"version\": 1", "\"version\": 2")] {
            std::fs::write(&path, bad).unwrap();
            let error = CosignedStates::open(folder.path()).unwrap_err();
            assert_eq!(error.code(), "witness_record_unreadable");
        }
    }

    #[test]
    fn a_second_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _states = opened(folder.path());
        let error = CosignedStates::open(folder.path()).unwrap_err();
        assert_eq!(error.code(), "witness_record_locked");
    }
}
