//! What a reader yields, and how it accounts for the input.

use hashpact_core::leaf::{Basis, Classification, MediaKind};
use hashpact_core::signal::Signal;

use crate::reject::Reject;

/// One row or entry of an input file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Where it begins: the line from 1; in a VICS file the media entry from 1.
    pub line: u64,
    /// The source's own name for the entry.
    pub reference: Option<String>,
    /// At least one signal, none twice, in the order of the file.
    pub signals: Vec<Signal>,
    /// What the media is, where the file says so.
    pub media_kind: Option<MediaKind>,
    /// `A1` or `scheme:value`.
    pub classification: Option<Classification>,
    /// Labels, none empty, none twice.
    pub labels: Vec<String>,
    /// How the source came to its classification.
    pub basis: Option<Basis>,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub first_seen_ms: Option<u64>,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub expires_ms: Option<u64>,
}

/// One item of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A row that can be used.
    Record(Record),
    /// A row that cannot, with the reason.
    Reject(Reject),
}

/// How often each kind of line was met so far.
///
/// In a VICS file the media entries are counted instead of lines, and a break in
/// the document as one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// All lines.
    pub lines: u64,
    /// Lines that became (or begin) a record.
    pub records: u64,
    /// Lines that were refused.
    pub rejects: u64,
    /// Lines with nothing but blanks.
    pub blank: u64,
    /// Lines beginning with `#`.
    pub comments: u64,
    /// The line that names the columns.
    pub header: u64,
    /// Further lines of records whose quoted text has line breaks.
    pub continued: u64,
}

impl Counters {
    /// Whether every line is accounted for.
    #[must_use]
    pub const fn is_balanced(&self) -> bool {
        let accounted =
            self.records + self.rejects + self.blank + self.comments + self.header + self.continued;
        self.lines == accounted
    }
}

/// Something about the whole file that the operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Columns that are not imported: their names, or `column 3` where the name is
    /// long enough to be a signal's value.
    UnknownColumns(Vec<String>),
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownColumns(names) => {
                write!(f, "columns that are not imported: {}", names.join(", "))
            }
        }
    }
}
