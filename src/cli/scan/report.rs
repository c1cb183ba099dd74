//! What a scan prints: what is known as it is found, what could not be read, and the
//! sum of it all.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::walk::Met;
use crate::cli::error::CliError;
use crate::cli::lookup::answer::ItemObject;
use crate::cli::output::{Output, Progress, bytes, counted, note, plain};

/// Errors that are shown to people; more are counted.
const ERRORS_SHOWN: u64 = 1_000;

/// How many of what.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) asked: u64,
    pub(super) known: u64,
    /// Pictures and videos that were asked for by their digests only, by reason.
    pub(super) not_seen: BTreeMap<&'static str, u64>,
    /// Files and folders that could not be read, by reason; and lines of hashes.
    pub(super) unread: BTreeMap<&'static str, u64>,
    /// Items of which near matches may be missing.
    pub(super) incomplete: u64,
}

#[derive(Serialize)]
struct Unread<'a> {
    item: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_bytes: Option<String>,
    #[serde(rename = "unread")]
    why: Why<'a>,
}

#[derive(Serialize)]
struct Why<'a> {
    code: &'a str,
    error: &'a str,
}

#[derive(Serialize)]
struct Summary<'a> {
    summary: Sums<'a>,
}

#[derive(Serialize)]
struct Sums<'a> {
    /// Files found, and what else could not be read: earlier + asked + unread, but for
    /// hashes that were read.
    files: u64,
    folders: u64,
    bytes: u64,
    asked: u64,
    known: u64,
    not_seen: &'a BTreeMap<&'static str, u64>,
    unread: &'a BTreeMap<&'static str, u64>,
    symbolic_links: u64,
    special_files: u64,
    near_incomplete: u64,
    earlier: Earlier,
}

#[derive(Serialize)]
struct Earlier {
    files: u64,
    known: u64,
}

impl Report {
    /// Says what came of an item; of what is not known only where `all` is asked for.
    pub(super) fn item(
        &mut self,
        item: &ItemObject,
        all: bool,
        (output, progress): (&Output, &Progress),
    ) -> Result<(), CliError> {
        self.asked += 1;
        self.known += u64::from(item.known);
        if let Some(why) = &item.not_seen {
            *self.not_seen.entry(why.code).or_default() += 1;
        }
        if item.known || all {
            progress.around(|| {
                item.lines(output)?;
                output.json(item)
            })?;
        }
        Ok(())
    }

    /// Says what could not be read.
    pub(super) fn unread(
        &mut self,
        (item, path): (&str, Option<&Path>),
        (code, error): (&'static str, &str),
        (output, progress): (&Output, &Progress),
    ) -> Result<(), CliError> {
        *self.unread.entry(code).or_default() += 1;
        progress.around(|| {
            if output.is_json() {
                return output.json(&Unread {
                    item,
                    item_bytes: path.and_then(not_text),
                    why: Why { code, error },
                });
            }
            match self.unread.values().sum::<u64>() {
                ..ERRORS_SHOWN => note(format_args!("error: {}: {error}", plain(item))),
                ERRORS_SHOWN => note("error: and more; the summary counts them"),
                _ => {}
            }
            Ok(())
        })
    }

    /// Prints the sum.
    pub(super) fn end(
        &self,
        met: &Met,
        earlier_known: u64,
        output: &Output,
    ) -> Result<(), CliError> {
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        output.json(&Summary {
            summary: Sums {
                files: of(&met.files),
                folders: of(&met.folders),
                bytes: of(&met.bytes),
                asked: self.asked,
                known: self.known,
                not_seen: &self.not_seen,
                unread: &self.unread,
                symbolic_links: of(&met.links),
                special_files: of(&met.special),
                near_incomplete: self.incomplete,
                earlier: Earlier {
                    files: of(&met.earlier),
                    known: earlier_known,
                },
            },
        })?;
        output.line(format_args!(
            "{} asked for ({}): {} known",
            counted(self.asked, "item", "items"),
            bytes(of(&met.bytes)),
            self.known
        ))?;
        let mut aside = vec![
            (of(&met.earlier), "done by an earlier run".to_owned()),
            (earlier_known, "of them known".to_owned()),
            (of(&met.links), "not followed: symbolic links".to_owned()),
            (of(&met.special), "not read: special files".to_owned()),
        ];
        let reasons = self.not_seen.iter();
        aside.extend(reasons.map(|(code, n)| (*n, format!("by digests only: {code}"))));
        let reasons = self.unread.iter();
        aside.extend(reasons.map(|(code, n)| (*n, format!("not read: {code}"))));
        for (number, what) in aside.into_iter().filter(|(number, _)| *number > 0) {
            output.line(format_args!("{number:>12}  {what}"))?;
        }
        Ok(())
    }
}

/// The bytes of a path that is no text, for programs that look for the file.
pub(super) fn not_text(path: &Path) -> Option<String> {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    path.to_str().is_none().then(|| HEXLOWER.encode(bytes))
}
