//! Everything that the processes of a world wrote, and what must not be in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::signals::Entry;
use super::{Member, Outcome};

/// Commands whose results are signals: what they print on standard output is what
/// was asked for.
const PRINT_SIGNALS: [&str; 3] = ["lookup", "export", "hash"];

/// What was written, and which values must not stand in it.
#[derive(Default)]
pub(crate) struct Evidence {
    pieces: Mutex<Vec<Piece>>,
    values: Mutex<Vec<Vec<u8>>>,
    keys: Mutex<Vec<PathBuf>>,
}

/// One text that a process wrote.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Where it comes from.
    pub(crate) from: String,
    /// The text.
    pub(crate) text: String,
}

impl Evidence {
    /// Keeps what a call wrote.
    pub(crate) fn keep_call(&self, outcome: &Outcome) {
        let line = outcome.line.join(" ");
        self.keep(
            format!("standard error of hashpact {line}"),
            &outcome.stderr,
        );
        let prints = outcome.line.first().map(String::as_str);
        if !prints.is_some_and(|command| PRINT_SIGNALS.contains(&command)) {
            self.keep(
                format!("standard output of hashpact {line}"),
                &outcome.stdout,
            );
        }
    }

    /// Keeps a text.
    pub(crate) fn keep(&self, from: impl Into<String>, text: &str) {
        if !text.is_empty() {
            lock(&self.pieces).push(Piece {
                from: from.into(),
                text: text.to_owned(),
            });
        }
    }

    /// Keeps what a member's node logged.
    pub(crate) fn keep_logs(&self, member: &Member) {
        let log = fs::read(member.log_file()).unwrap_or_default();
        self.keep(
            format!("log of {}", member.slug()),
            &String::from_utf8_lossy(&log),
        );
    }

    /// These values must not be written anywhere from here on.
    pub(crate) fn guard(&self, entries: &[Entry]) {
        let mut values = lock(&self.values);
        for entry in entries {
            values.extend(entry.values());
        }
    }

    /// Neither must these bytes.
    pub(crate) fn guard_value(&self, value: &[u8]) {
        lock(&self.values).push(value.to_vec());
    }

    /// The keys under `folder` must not be written anywhere.
    pub(crate) fn keep_keys_of(&self, folder: &Path) {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "key") {
                    lock(&self.keys).push(path);
                }
            }
        }
    }

    /// All texts.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        lock(&self.pieces).clone()
    }

    /// All values of signals.
    pub(crate) fn values(&self) -> Vec<Vec<u8>> {
        lock(&self.values).clone()
    }

    /// The text of all key files.
    pub(crate) fn key_files(&self) -> Vec<String> {
        let paths = lock(&self.keys);
        // A key that was moved stands under its new path as well.
        let texts = paths
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok());
        texts.collect()
    }

    /// Prints the end of every text, for whoever looks at a failed test.
    pub(crate) fn show_end(&self) {
        for piece in self.pieces().iter().rev().take(40).rev() {
            let lines: Vec<&str> = piece.text.lines().collect();
            let shown = lines.len().saturating_sub(30);
            eprintln!("--- {}", piece.from);
            lines[shown..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
