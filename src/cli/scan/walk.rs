//! Finding files and hashing them, on threads of their own; what waits between them is
//! bounded, so that memory does not grow with the number of files.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use walkdir::WalkDir;

use super::state::{Done, Key};
use crate::cli::error::CliError;
use crate::cli::media::{FileError, Hashed, Hasher};

/// Files that wait for a thread, and answers that wait to be asked for, for each thread.
const WAITING: usize = 4;
/// Folders that are held open at one time.
const FOLDERS_OPEN: usize = 64;

/// What is to be scanned.
pub(super) struct Walk {
    pub(super) roots: Vec<PathBuf>,
    pub(super) follow: bool,
    pub(super) one_file_system: bool,
    pub(super) threads: usize,
    pub(super) done: Done,
}

/// What came of one file, or of what is none.
pub(super) enum Event {
    /// It was read; how many were found before it.
    Hashed(PathBuf, Key, u64, Box<Hashed>),
    /// It could not be.
    Unread(PathBuf, &'static str, String),
}

/// A file that is to be hashed, with how many were found before it.
type Found = (PathBuf, Key, u64);

/// What was met, for the progress bar and the summary.
#[derive(Debug, Default)]
pub(super) struct Met {
    pub(super) files: AtomicU64,
    pub(super) earlier: AtomicU64,
    pub(super) folders: AtomicU64,
    pub(super) links: AtomicU64,
    pub(super) special: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// Counts one more; answers how many there were before.
fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

/// Begins to walk and to hash. The threads end when nobody receives any longer, or
/// when all is done, which closes the channel.
pub(super) fn start(
    walk: Walk,
    hasher: Arc<Hasher>,
    met: &Arc<Met>,
) -> Result<Receiver<Event>, CliError> {
    let waiting = walk.threads.saturating_mul(WAITING);
    let (send, events) = sync_channel(waiting);
    let (find, found) = sync_channel::<Found>(waiting);
    let found = Arc::new(Mutex::new(found));
    let fail = |error: std::io::Error| CliError::failed(format!("no thread to scan on: {error}"));
    for number in 0..walk.threads {
        let (found, hasher, met) = (Arc::clone(&found), Arc::clone(&hasher), Arc::clone(met));
        let (send, follow) = (send.clone(), walk.follow);
        let thread = thread::Builder::new().name(format!("scan-{number}"));
        let started = thread.spawn(move || {
            loop {
                let next = found.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((path, key, at)) = next else { return };
                let read = |bytes| {
                    met.bytes.fetch_add(bytes, Ordering::Relaxed);
                };
                let event = match hasher.found(&path, follow, read) {
                    Ok(hashed) => Event::Hashed(path, key, at, Box::new(hashed)),
                    Err(error) => Event::Unread(path, error.code(), error.to_string()),
                };
                if send.send(event).is_err() {
                    return;
                }
            }
        });
        started.map_err(fail)?;
    }
    let met = Arc::clone(met);
    let thread = thread::Builder::new().name("scan-walk".to_owned());
    let started = thread.spawn(move || {
        let walker = Walker {
            walk: &walk,
            met: &met,
            find,
            send,
        };
        // Whoever received them is gone.
        let _ = walk.roots.iter().try_for_each(|root| walker.root(root));
    });
    started.map_err(fail)?;
    Ok(events)
}

/// Nobody receives any longer.
struct Gone;

struct Walker<'w> {
    walk: &'w Walk,
    met: &'w Met,
    find: SyncSender<Found>,
    send: SyncSender<Event>,
}

impl Walker<'_> {
    fn root(&self, root: &Path) -> Result<(), Gone> {
        let walker = WalkDir::new(root)
            .follow_links(self.walk.follow)
            .same_file_system(self.walk.one_file_system)
            .max_open(FOLDERS_OPEN);
        for entry in walker {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.error(root, &error)?;
                    continue;
                }
            };
            let named = entry.depth() == 0;
            if entry.file_type().is_dir() {
                count(&self.met.folders);
            } else if entry.file_type().is_file() {
                match entry.metadata() {
                    Ok(metadata) => self.file(entry.into_path(), &metadata)?,
                    Err(error) => self.error(entry.path(), &error)?,
                }
            } else if entry.file_type().is_symlink() && !named {
                count(&self.met.links);
            } else if named {
                // A person named it: a link to nothing, a pipe.
                self.named(entry.into_path())?;
            } else {
                count(&self.met.special);
            }
        }
        Ok(())
    }

    /// A root that is a symbolic link to a file, or no file at all.
    fn named(&self, path: PathBuf) -> Result<(), Gone> {
        match std::fs::metadata(&path).and_then(|found| Ok((found, path.canonicalize()?))) {
            Ok((found, real)) if found.is_file() => self.file(real, &found),
            Ok((found, _)) if found.is_dir() => {
                count(&self.met.folders);
                Ok(())
            }
            Ok(_) => self.unread(path, FileError::Special),
            Err(error) => self.unread(path, error.into()),
        }
    }

    fn file(&self, path: PathBuf, metadata: &Metadata) -> Result<(), Gone> {
        if self.walk.done.is_own(metadata) {
            return Ok(());
        }
        let at = count(&self.met.files);
        let key = Key::of(&path, metadata);
        if self.walk.done.has(key) {
            count(&self.met.earlier);
            return Ok(());
        }
        self.find.send((path, key, at)).map_err(|_| Gone)
    }

    fn unread(&self, path: PathBuf, error: FileError) -> Result<(), Gone> {
        count(&self.met.files);
        let event = Event::Unread(path, error.code(), error.to_string());
        self.send.send(event).map_err(|_| Gone)
    }

    /// A folder that cannot be read, or a loop of links.
    fn error(&self, root: &Path, error: &walkdir::Error) -> Result<(), Gone> {
        count(&self.met.files);
        let path = error.path().unwrap_or(root).to_owned();
        let (code, why) = match (error.loop_ancestor(), error.io_error()) {
            (Some(_), _) => ("loop", "a symbolic link leads back to it".to_owned()),
            (None, Some(io)) => {
                let same = io.raw_os_error().map(std::io::Error::from_raw_os_error);
                let same = same.unwrap_or_else(|| io.kind().into());
                let error = FileError::Io(same);
                (error.code(), error.to_string())
            }
            (None, None) => ("unreadable", "it cannot be read".to_owned()),
        };
        let event = Event::Unread(path, code, why);
        self.send.send(event).map_err(|_| Gone)
    }
}
