//! VICS JSON 1.x and 2.0, as far as a hash set needs it.
//!
//! The document is walked member by member ([`walk`]); one media entry at a time,
//! of bounded size, is given to serde. Only the fields of [`Media`] are taken out:
//! file names, paths and EXIF have no field here.

mod media;
mod tokens;
mod walk;

use std::io::Read;

use crate::options::Options;
use crate::record::{Counters, Item, Record};
use crate::reject::{FatalError, Reject, RejectReason};
use media::{Media, country_of};
use tokens::Broken;
use walk::{Found, Walk};

pub(crate) struct Vics<R> {
    walk: Walk<R>,
    country: Option<String>,
    done: bool,
}

impl<R: Read> Vics<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            walk: Walk::new(input),
            country: None,
            done: false,
        }
    }

    pub(crate) fn next(
        &mut self,
        options: &Options,
        counters: &mut Counters,
    ) -> Result<Option<Item>, FatalError> {
        while !self.done {
            let found = self.walk.next();
            let entry = counters.lines + 1;
            let record = match found {
                Ok(Found::End) => {
                    self.done = true;
                    break;
                }
                Ok(Found::Context(context)) => {
                    self.country = country_of(&context);
                    continue;
                }
                Ok(Found::Entry) => self.entry(entry, options),
                Ok(Found::TooLong) => Err((RejectReason::EntryTooLong, Vec::new())),
                Ok(Found::TooDeep) => Err((RejectReason::TooDeep, Vec::new())),
                Ok(Found::NoObject) => Err((no_object(self.walk.at()), Vec::new())),
                Err(Broken::Utf16) => return Err(FatalError::Utf16),
                Err(Broken::Io(source)) => {
                    self.done = true;
                    let line = entry;
                    return Err(FatalError::Io { line, source });
                }
                Err(Broken::End) => {
                    self.done = true;
                    let byte = self.walk.at();
                    Err((RejectReason::Truncated { byte }, Vec::new()))
                }
                Err(Broken::Syntax(why)) => {
                    self.done = true;
                    let byte = self.walk.at();
                    Err((RejectReason::BadJson { byte, why }, Vec::new()))
                }
            };
            counters.lines = entry;
            return Ok(Some(match record {
                Ok(record) => Item::Record(record),
                Err((reason, original)) => Item::Reject(Reject::new(entry, reason, &original)),
            }));
        }
        Ok(None)
    }

    /// Reads the entry that the walk stands at; a refused one comes with what would
    /// have been imported of it.
    fn entry(&self, entry: u64, options: &Options) -> Result<Record, (RejectReason, Vec<u8>)> {
        let media: Media = serde_json::from_slice(self.walk.entry())
            .map_err(|error| (crate::jsonl::bad_json(&error), Vec::new()))?;
        let country = options.vics_country.as_deref().or(self.country.as_deref());
        media
            .record(entry, country, options)
            .map_err(|reason| (reason, serde_json::to_vec(&media).unwrap_or_default()))
    }
}

const fn no_object(byte: u64) -> RejectReason {
    RejectReason::BadJson {
        byte,
        why: "a media entry is an object",
    }
}
