//! Why a line is refused, and why a file cannot be read at all.

use std::fmt;
use std::io;

use hashpact_core::signal::SignalKind;

use crate::limits::{
    COLUMNS_MAX, LABELS_MAX, LINE_MAX_BYTES, ORIGINAL_MAX_BYTES, SIGNALS_MAX, VICS_DEPTH_MAX,
    VICS_ENTRY_MAX_BYTES,
};

/// A line or entry that was refused.
#[derive(Clone, PartialEq, Eq)]
pub struct Reject {
    /// As [`crate::Record::line`].
    pub line: u64,
    /// Why.
    pub reason: RejectReason,
    /// The line as read, at most [`ORIGINAL_MAX_BYTES`] of it. Of a VICS entry it
    /// is what would have been imported, so that no file name gets in; it is empty
    /// where the entry cannot be read.
    pub original: Vec<u8>,
}

impl Reject {
    pub(crate) fn new(line: u64, reason: RejectReason, original: &[u8]) -> Self {
        let end = original.len().min(ORIGINAL_MAX_BYTES);
        Self {
            line,
            reason,
            original: original.get(..end).unwrap_or_default().to_vec(),
        }
    }
}

/// Leaves the original out: it holds signals.
impl fmt::Debug for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reject")
            .field("line", &self.line)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Says why a line was refused, with the facts and without any value of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// Longer than [`LINE_MAX_BYTES`].
    #[error("the line has {bytes} bytes, the limit is {LINE_MAX_BYTES}")]
    LineTooLong {
        /// Its length.
        bytes: u64,
    },
    /// A VICS media entry of more bytes than the limit.
    #[error("the entry has more than {VICS_ENTRY_MAX_BYTES} bytes")]
    EntryTooLong,
    /// JSON nested deeper than the model needs.
    #[error("the entry is nested deeper than {VICS_DEPTH_MAX} levels")]
    TooDeep,
    /// Another number of cells than the header has.
    #[error("{got} cells where the header has {expected}")]
    CellCount {
        /// Columns of the header.
        expected: usize,
        /// Cells of the row.
        got: usize,
    },
    /// More cells than any file has columns.
    #[error("more than {COLUMNS_MAX} cells")]
    TooManyCells,
    /// A quoted cell that does not end within its bounds.
    #[error("a quoted cell is not closed")]
    UnclosedQuote,
    /// Text between a closing quote and the delimiter.
    #[error("text follows a closing quote")]
    TextAfterQuote,
    /// Text that is not UTF-8.
    #[error("{what} is not UTF-8")]
    NotUtf8 {
        /// The field.
        what: &'static str,
    },
    /// A control character, such as NUL.
    #[error("{what} has a control character")]
    ControlCharacter {
        /// The field.
        what: &'static str,
    },
    /// A value that its kind of signal cannot have.
    #[error("{kind}: {why}")]
    BadSignal {
        /// The kind.
        kind: SignalKind,
        /// What is wrong with it.
        why: String,
    },
    /// A value without its kind, or a kind without its value.
    #[error("{missing} is missing beside the other")]
    HalfSignal {
        /// `kind` or `value`.
        missing: &'static str,
    },
    /// A kind of signal that is not in the table.
    #[error("the kind of signal is not known")]
    UnknownKind,
    /// A bare value whose length fits more than one kind.
    #[error("{digits} hexadecimal digits can be SHA-256 or PDQ: name the kind with --kind")]
    AmbiguousKind {
        /// Its length.
        digits: usize,
    },
    /// A line of which no part looks like a signal.
    #[error("no signal is recognised in the line")]
    Unrecognised,
    /// A line that is a link, in a file that is read as a list of hashes.
    #[error("the line is a link: read the file with --format urls, which keeps digests only")]
    Link,
    /// A line of a list of links that is none, or not of a page on a host.
    #[error("not a link that an entry can be made of: {why}")]
    BadUrl {
        /// What is wrong with it.
        why: &'static str,
    },
    /// No signal in the row.
    #[error("no signal")]
    NoSignal,
    /// More signals than an entry can have.
    #[error("more than {SIGNALS_MAX} signals")]
    TooManySignals,
    /// More labels than an entry can have.
    #[error("more than {LABELS_MAX} labels")]
    TooManyLabels,
    /// Longer than its field may be.
    #[error("{what} has {bytes} bytes, the limit is {limit}")]
    FieldTooLong {
        /// The field.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not a whole number from 0 to 100.
    #[error("the PDQ quality is not a whole number from 0 to 100")]
    BadQuality,
    /// Not a value of a scheme.
    #[error("the classification is not of the form A1 or scheme:A1")]
    BadClassification,
    /// Not a time since 1970.
    #[error("{what} is not a time since 1970")]
    BadTime {
        /// The field.
        what: &'static str,
    },
    /// A word that its field does not know.
    #[error("{what} has a word that is not known")]
    UnknownWord {
        /// The field.
        what: &'static str,
    },
    /// The row says that the entry no longer counts.
    #[error("the row says that the entry is withdrawn")]
    Withdrawn,
    /// Not the JSON that it should be.
    #[error("not readable as JSON at byte {byte} of it: {why}")]
    BadJson {
        /// Where, counted from the line's or the file's beginning.
        byte: u64,
        /// What was expected.
        why: &'static str,
    },
    /// The document ends before it is complete.
    #[error("the file is cut off at byte {byte}")]
    Truncated {
        /// The length of what there is.
        byte: u64,
    },
    /// File occurrences of one media entry with different hashes.
    #[error("the entry's files have different hashes of one kind")]
    FilesDiffer,
}

impl RejectReason {
    /// The stable code, for counting and for the rejects file.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LineTooLong { .. } => "line_too_long",
            Self::EntryTooLong => "entry_too_long",
            Self::TooDeep => "too_deep",
            Self::CellCount { .. } => "cell_count",
            Self::TooManyCells => "too_many_cells",
            Self::UnclosedQuote => "unclosed_quote",
            Self::TextAfterQuote => "text_after_quote",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::ControlCharacter { .. } => "control_character",
            Self::BadSignal { .. } => "bad_signal",
            Self::HalfSignal { .. } => "half_signal",
            Self::UnknownKind => "unknown_kind",
            Self::AmbiguousKind { .. } => "ambiguous_kind",
            Self::Unrecognised => "unrecognised",
            Self::Link => "link",
            Self::BadUrl { .. } => "bad_url",
            Self::NoSignal => "no_signal",
            Self::TooManySignals => "too_many_signals",
            Self::TooManyLabels => "too_many_labels",
            Self::FieldTooLong { .. } => "field_too_long",
            Self::BadQuality => "bad_quality",
            Self::BadClassification => "bad_classification",
            Self::BadTime { .. } => "bad_time",
            Self::UnknownWord { .. } => "unknown_word",
            Self::Withdrawn => "withdrawn",
            Self::BadJson { .. } => "bad_json",
            Self::Truncated { .. } => "truncated",
            Self::FilesDiffer => "files_differ",
        }
    }
}

/// Says why a file cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatalError {
    /// Reading failed; what was yielded before stands.
    #[error("reading failed at line {line}: {source}")]
    Io {
        /// The line (VICS: the entry) that could not be read.
        line: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// Text in UTF-16.
    #[error("the file is UTF-16; convert it to UTF-8")]
    Utf16,
    /// A CSV header that cannot be split.
    #[error("the header, line {line}, cannot be read: {reason}")]
    Header {
        /// Its line.
        line: u64,
        /// What is wrong.
        reason: RejectReason,
    },
    /// A CSV header without any signal in it.
    #[error(
        "none of the {columns} columns in line {line} is a signal; name one with --column NAME=FIELD"
    )]
    NoSignalColumn {
        /// The header's line.
        line: u64,
        /// How many columns there are.
        columns: usize,
    },
    /// Two columns for one field that has room for one.
    #[error("two columns give the {field}; leave one out with --column NAME=ignore")]
    ColumnTwice {
        /// The field.
        field: &'static str,
    },
}

impl FatalError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Utf16 => "utf16",
            Self::Header { .. } => "header",
            Self::NoSignalColumn { .. } => "no_signal_column",
            Self::ColumnTwice { .. } => "column_twice",
        }
    }
}
