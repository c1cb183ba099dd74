//! Export of entries to CSV and JSON Lines, which the readers import again.

use std::io::{self, Write};

use hashpact_core::leaf::{Basis, Classification, MediaKind};
use hashpact_core::signal::{Signal, SignalKind};
use serde::Serialize;

use crate::cell;
use crate::time;

/// One entry as it leaves the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRow {
    /// The set, such as `northstar/confirmed`.
    pub set: String,
    /// The entry's name, such as `northstar/confirmed#12345`.
    pub entry: String,
    /// The publisher's slug.
    pub publisher: String,
    /// What all feeds together say about it.
    pub state: State,
    /// The source's own name for it.
    pub reference: Option<String>,
    /// What the media is.
    pub media_kind: Option<MediaKind>,
    /// Its signals.
    pub signals: Vec<Signal>,
    /// `A1` or `scheme:value`.
    pub classification: Option<Classification>,
    /// Its labels.
    pub labels: Vec<String>,
    /// How the publisher came to say so.
    pub basis: Option<Basis>,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub first_seen_ms: Option<u64>,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub expires_ms: Option<u64>,
    /// What the exporting node's policy makes of it, where that is exported.
    pub verdict: Option<String>,
}

/// An entry's state. A reader refuses a retracted row, so that an export imported
/// elsewhere does not bring it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody objects.
    Active,
    /// Opinions contradict each other.
    Disputed,
    /// Withdrawn by its publisher.
    Retracted,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disputed => "disputed",
            Self::Retracted => "retracted",
        }
    }
}

/// Kinds with a column of their own; further signals stand in `signals`.
const COLUMNS: [(SignalKind, &str); 9] = [
    (SignalKind::Md5, "md5"),
    (SignalKind::Sha1, "sha1"),
    (SignalKind::Sha256, "sha256"),
    (SignalKind::Sha512, "sha512"),
    (SignalKind::Pdq, "pdq"),
    (SignalKind::PhotoDna, "photodna"),
    (SignalKind::Vpdq, "vpdq"),
    (SignalKind::TmkPdqf, "tmk_pdqf"),
    (SignalKind::Url, "url"),
];

/// What became of an entry, before the entry itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Change<'a> {
    /// Such as `added` or `withdrawn`.
    pub change: &'a str,
    /// The set.
    pub set: &'a str,
    /// With the set, the version of the entry; absent where the whole set is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// What the node's policy makes of the entry when it is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'a str>,
}

/// Writes entries as CSV: a header, then a row each. A cell that a spreadsheet
/// would take for a formula gets an apostrophe in front, which the reader drops.
pub struct CsvExport<W: Write> {
    csv: csv::Writer<W>,
    verdicts: bool,
}

impl<W: Write> CsvExport<W> {
    /// Begins with the header.
    ///
    /// # Errors
    /// Writing failed.
    pub fn new(output: W) -> io::Result<Self> {
        Self::begin(output, &[])
    }

    /// Begins with the header of an export with verdicts: a column `verdict` comes last.
    ///
    /// # Errors
    /// Writing failed.
    pub fn with_verdicts(output: W) -> io::Result<Self> {
        let mut export = Self {
            csv: csv::Writer::from_writer(output),
            verdicts: true,
        };
        let header = header(&[]).chain(["verdict"]);
        export.csv.write_record(header).map_err(cell::write_error)?;
        Ok(export)
    }

    /// Begins with the header of a file of changes: what became of an entry, its index and
    /// its verdict, before the columns of an export.
    ///
    /// # Errors
    /// Writing failed.
    pub fn of_changes(output: W) -> io::Result<Self> {
        Self::begin(output, &["change", "index", "verdict"])
    }

    fn begin(output: W, first: &'static [&'static str]) -> io::Result<Self> {
        let mut csv = csv::Writer::from_writer(output);
        csv.write_record(header(first)).map_err(cell::write_error)?;
        Ok(Self {
            csv,
            verdicts: false,
        })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write(&mut self, row: &ExportRow) -> io::Result<()> {
        let mut cells = cells_of(row);
        if self.verdicts {
            cells.push(row.verdict.clone().unwrap_or_default());
        }
        self.write_cells(&cells)
    }

    /// Adds a change, with the entry where it is there.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write_change(&mut self, change: Change<'_>, row: Option<&ExportRow>) -> io::Result<()> {
        let index = change.index.map(|index| index.to_string());
        let verdict = change.verdict.unwrap_or_default();
        let mut cells = vec![
            change.change.to_owned(),
            index.unwrap_or_default(),
            verdict.to_owned(),
        ];
        match row {
            Some(row) => cells.extend(cells_of(row)),
            None => {
                cells.push(change.set.to_owned());
                cells.resize(CHANGE_COLUMNS, String::new());
            }
        }
        self.write_cells(&cells)
    }

    /// Hands on what was written so far.
    ///
    /// # Errors
    /// Writing failed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.csv.flush()
    }

    fn write_cells(&mut self, cells: &[String]) -> io::Result<()> {
        let guarded = cells.iter().map(|cell| cell::guard(cell).into_owned());
        self.csv.write_record(guarded).map_err(cell::write_error)
    }

    /// Writes everything out and gives the output back.
    ///
    /// # Errors
    /// Writing failed.
    pub fn finish(self) -> io::Result<W> {
        self.csv
            .into_inner()
            .map_err(csv::IntoInnerError::into_error)
    }
}

/// The columns of an export, after others.
fn header(first: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    let before = ["set", "entry", "publisher", "state", "source_reference"];
    let kinds = COLUMNS.iter().map(|(_, name)| *name);
    let after = [
        "pdq_quality",
        "signals",
        "media_kind",
        "classification",
        "labels",
        "basis",
        "first_seen",
        "expires",
    ];
    let first = first.iter().copied();
    first.chain(before).chain(kinds).chain(after)
}

/// Columns of a file of changes: three, five and eight beside the kinds'.
const CHANGE_COLUMNS: usize = 16 + COLUMNS.len();

fn cells_of(row: &ExportRow) -> Vec<String> {
    let mut cells = vec![
        row.set.clone(),
        row.entry.clone(),
        row.publisher.clone(),
        row.state.name().to_owned(),
        row.reference.clone().unwrap_or_default(),
    ];
    let mut rest: Vec<&Signal> = row.signals.iter().collect();
    let mut quality = None;
    for (kind, _) in COLUMNS {
        let first = rest.iter().position(|signal| signal.kind() == kind);
        let signal = first.map(|index| rest.remove(index));
        if kind == SignalKind::Pdq {
            quality = signal.and_then(Signal::quality);
        }
        cells.push(signal.map(Signal::to_text).unwrap_or_default());
    }
    let rest: Vec<String> = rest.into_iter().map(spec).collect();
    cells.extend([
        quality
            .map(|quality| quality.to_string())
            .unwrap_or_default(),
        rest.join(";"),
        row.media_kind
            .map(media_name)
            .unwrap_or_default()
            .to_owned(),
        row.classification
            .as_ref()
            .map(Classification::to_string)
            .unwrap_or_default(),
        cell::join(&row.labels),
        row.basis.map(basis_name).unwrap_or_default().to_owned(),
        row.first_seen_ms.and_then(time::format).unwrap_or_default(),
        row.expires_ms.and_then(time::format).unwrap_or_default(),
    ]);
    cells
}

/// Writes entries as JSON Lines: an object a line.
pub struct JsonExport<W: Write> {
    output: W,
}

impl<W: Write> JsonExport<W> {
    /// Writes to `output`, which should be buffered.
    pub const fn new(output: W) -> Self {
        Self { output }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write(&mut self, row: &ExportRow) -> io::Result<()> {
        serde_json::to_writer(&mut self.output, &JsonRow::of(row))?;
        self.output.write_all(b"\n")
    }

    /// Adds a change, with the entry where it is there, as `entry`.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write_change(&mut self, change: Change<'_>, row: Option<&ExportRow>) -> io::Result<()> {
        let line = JsonChange {
            change,
            entry: row.map(JsonRow::of),
        };
        serde_json::to_writer(&mut self.output, &line)?;
        self.output.write_all(b"\n")
    }

    /// Hands on what was written so far.
    ///
    /// # Errors
    /// Writing failed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// Writes everything out and gives the output back.
    ///
    /// # Errors
    /// Writing failed.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}

impl<'a> JsonRow<'a> {
    fn of(row: &'a ExportRow) -> Self {
        let signals = row.signals.iter().map(|signal| JsonSignal {
            kind: signal.kind().name(),
            value: signal.to_text(),
            quality: signal.quality(),
        });
        Self {
            set: &row.set,
            entry: &row.entry,
            publisher: &row.publisher,
            state: row.state.name(),
            source_reference: row.reference.as_deref(),
            media_kind: row.media_kind.map(media_name),
            signals: signals.collect(),
            classification: row.classification.as_ref().map(Classification::to_string),
            labels: &row.labels,
            basis: row.basis.map(basis_name),
            first_seen: row.first_seen_ms.and_then(time::format),
            expires: row.expires_ms.and_then(time::format),
            verdict: row.verdict.as_deref(),
        }
    }
}

/// A line of a file of changes.
#[derive(Serialize)]
struct JsonChange<'a> {
    #[serde(flatten)]
    change: Change<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<JsonRow<'a>>,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    set: &'a str,
    entry: &'a str,
    publisher: &'a str,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_reference: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_kind: Option<&'a str>,
    signals: Vec<JsonSignal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classification: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    labels: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    basis: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonSignal {
    kind: &'static str,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<u8>,
}

/// `KIND:value`, for a PDQ with quality `PDQ:value#quality`. A vPDQ has neither
/// `;` nor a line break in its text.
fn spec(signal: &Signal) -> String {
    let quality = signal.quality();
    let quality = quality.map(|quality| format!("#{quality}"));
    let quality = quality.unwrap_or_default();
    format!("{}:{}{quality}", signal.kind(), signal.to_text())
}

const fn media_name(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "image",
        MediaKind::Video => "video",
        MediaKind::Url => "url",
        MediaKind::Other => "other",
    }
}

const fn basis_name(basis: Basis) -> &'static str {
    match basis {
        Basis::Human => "human",
        Basis::Automated => "automated",
        Basis::Inherited => "inherited",
    }
}
