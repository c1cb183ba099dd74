//! Readers and writers of the files in which hash lists travel.
//!
//! In scope: CSV, JSON Lines, plain lists (also what `md5sum` and its relatives
//! print), lists of links, VICS JSON 1.x and 2.0 and MISP warninglists in; CSV and JSON Lines out; the rejects file.
//! All of it streams: memory does not grow with the file, a line or an entry.
//!
//! Out of scope: opening files, duplicates, what an entry means. The caller hands
//! in a [`std::io::Read`] and takes [`Item`]s.
//!
//! Trust: none in the input. Every line (of VICS: every media entry) ends as
//! exactly one record or one reject, or is counted as header, comment or blank;
//! see [`Counters::is_balanced`]. A row with one bad signal is refused whole: half
//! a row is often a shifted row, and it can be mended and imported again.
//!
//! ⚠ Of a link only its digest leaves this crate; a reject holds no link either, unless
//! the caller asks for it.
//!
//! Signal values stand in [`Record::signals`] and [`Reject::original`] only, never
//! in a reason, a warning, an error or a `Debug` form. File names, paths and EXIF
//! of VICS files and of checksum lists are never taken out of the input.

#![forbid(unsafe_code)]

mod cell;
mod delimited;
mod detect;
mod draft;
mod export;
mod field;
mod jsonl;
mod limits;
mod lines;
mod links;
mod list;
mod options;
mod reader;
mod record;
mod reject;
mod rejects;
mod split;
mod time;
mod urls;
mod vics;
mod warninglist;

pub use detect::{Format, detect};
pub use export::{Change, CsvExport, ExportRow, JsonExport, State};
pub use field::Field;
pub use limits::{DETECT_BYTES, LINE_MAX_BYTES, ORIGINAL_MAX_BYTES};
pub use list::checksum_line;
pub use options::{Options, OptionsError};
pub use reader::Reader;
pub use record::{Counters, Item, Record, Warning};
pub use reject::{FatalError, Reject, RejectReason};
pub use rejects::RejectsWriter;
pub use warninglist::{
    Skipped, WARNINGLIST_MAX_BYTES, WARNINGLIST_VALUES_MAX, Warninglist, WarninglistError,
    warninglist,
};
