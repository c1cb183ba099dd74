//! CSV and its relatives: columns by header, one record a row.

use std::io::Read;

use crate::draft::{Draft, utf8};
use crate::field::Field;
use crate::limits::{LINE_MAX_BYTES, RECORD_LINES_MAX};
use crate::lines::{Line, Lines};
use crate::options::Options;
use crate::record::{Counters, Item, Record, Warning};
use crate::reject::{FatalError, Reject, RejectReason};
use crate::split::{Cells, SplitError};

/// A column's name is shown in a warning only up to this length: shorter than the
/// value of any signal.
const SHOWN_NAME_MAX: usize = 24;

pub(crate) struct Delimited<R> {
    lines: Lines<R>,
    row: Vec<u8>,
    cells: Cells,
    header: Option<Header>,
}

struct Header {
    delimiter: u8,
    /// The columns that give something.
    columns: Vec<(usize, Field)>,
    width: usize,
}

impl<R: Read> Delimited<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            lines: Lines::new(input),
            row: Vec::new(),
            cells: Cells::default(),
            header: None,
        }
    }

    pub(crate) fn next(
        &mut self,
        options: &Options,
        counters: &mut Counters,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Item>, FatalError> {
        loop {
            let what = self.lines.read(&mut self.row)?;
            counters.lines = self.lines.number();
            let line = counters.lines;
            let item = match what {
                Line::End => return Ok(None),
                Line::TooLong { bytes } if self.header.is_some() => {
                    let reason = RejectReason::LineTooLong { bytes };
                    Item::Reject(Reject::new(line, reason, &self.row))
                }
                Line::TooLong { bytes } => {
                    let reason = RejectReason::LineTooLong { bytes };
                    return Err(FatalError::Header { line, reason });
                }
                Line::Whole if self.row.trim_ascii().is_empty() => {
                    counters.blank += 1;
                    continue;
                }
                Line::Whole if self.header.is_none() => {
                    self.begin(line, options, counters, warnings)?;
                    continue;
                }
                Line::Whole => self.row(line, options, counters)?,
            };
            return Ok(Some(item));
        }
    }

    /// Takes a line before the first row: a comment or the header.
    fn begin(
        &mut self,
        line: u64,
        options: &Options,
        counters: &mut Counters,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), FatalError> {
        if self.row.starts_with(b"#") {
            counters.comments += 1;
            return Ok(());
        }
        let delimiter = options.delimiter.unwrap_or_else(|| delimiter_of(&self.row));
        self.cells
            .split(&self.row, delimiter)
            .map_err(|error| FatalError::Header {
                line,
                reason: split_reason(error),
            })?;
        let header = if options.has_header {
            Header::named(delimiter, &self.names(), line, options, warnings)?
        } else {
            let width = self.cells.len();
            let names: Vec<String> = (1..=width).map(|number| number.to_string()).collect();
            Header::named(delimiter, &names, line, options, &mut Vec::new())?
        };
        self.header = Some(header);
        if options.has_header {
            counters.header += 1;
        } else {
            let line = (std::mem::take(&mut self.row), Line::Whole);
            self.lines.unread(vec![line]);
        }
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        (0..self.cells.len())
            .map(|index| {
                let name = self.cells.cell(&self.row, index);
                String::from_utf8_lossy(name.trim_ascii()).into_owned()
            })
            .collect()
    }

    fn row(
        &mut self,
        line: u64,
        options: &Options,
        counters: &mut Counters,
    ) -> Result<Item, FatalError> {
        let delimiter = self.header.as_ref().map_or(b',', |header| header.delimiter);
        let mut split = self.cells.split(&self.row, delimiter);
        if split == Err(SplitError::Unclosed) {
            split = self.continue_row(delimiter)?;
            counters.lines = self.lines.number();
            counters.continued += counters.lines - line;
        }
        let record = split
            .map_err(split_reason)
            .and_then(|()| self.record(line, options));
        Ok(match record {
            Ok(record) => Item::Record(record),
            Err(reason) => Item::Reject(Reject::new(line, reason, &self.row)),
        })
    }

    /// Adds lines to a row that ends within quotes. If that leads nowhere, they are
    /// given back, so that a stray quote costs one row.
    fn continue_row(&mut self, delimiter: u8) -> Result<Result<(), SplitError>, FatalError> {
        let first = self.row.len();
        let mut taken = Vec::new();
        while taken.len() < RECORD_LINES_MAX {
            let mut line = Vec::new();
            let what = self.lines.read(&mut line)?;
            if what == Line::End {
                break;
            }
            let fits = what == Line::Whole && self.row.len() + line.len() < LINE_MAX_BYTES;
            let closes = line.contains(&b'"');
            if fits {
                self.row.push(b'\n');
                self.row.extend_from_slice(&line);
            }
            taken.push((line, what));
            if !fits {
                break;
            }
            if closes {
                let split = self.cells.split(&self.row, delimiter);
                if split.is_ok() {
                    return Ok(split);
                }
                if split != Err(SplitError::Unclosed) {
                    break;
                }
            }
        }
        self.row.truncate(first);
        self.lines.unread(taken);
        Ok(Err(SplitError::Unclosed))
    }

    fn record(&self, line: u64, options: &Options) -> Result<Record, RejectReason> {
        let Some(header) = &self.header else {
            return Err(RejectReason::NoSignal);
        };
        let got = self.cells.len();
        let surplus = header.width..got;
        let is_empty = |index| self.cells.cell(&self.row, index).trim_ascii().is_empty();
        if got < header.width || !surplus.into_iter().all(is_empty) {
            let expected = header.width;
            return Err(RejectReason::CellCount { expected, got });
        }
        let mut draft = Draft::of_cells();
        for (index, field) in &header.columns {
            draft.set(*field, self.cells.cell(&self.row, *index))?;
        }
        draft.finish(line, options)
    }
}

impl Header {
    fn named(
        delimiter: u8,
        names: &[String],
        line: u64,
        options: &Options,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, FatalError> {
        let mut columns: Vec<(usize, Field)> = Vec::new();
        let mut unknown = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match options.field(name) {
                Some(Field::Ignored) => {}
                Some(field) => {
                    let twice = columns.iter().any(|(_, other)| *other == field);
                    if twice && !field.is_repeatable() {
                        let field = field.name();
                        return Err(FatalError::ColumnTwice { field });
                    }
                    columns.push((index, field));
                }
                None => unknown.push(shown_name(index, name)),
            }
        }
        if !columns.iter().any(|(_, field)| field.is_signal()) {
            let columns = names.len();
            return Err(FatalError::NoSignalColumn { line, columns });
        }
        if !unknown.is_empty() {
            warnings.push(Warning::UnknownColumns(unknown));
        }
        Ok(Self {
            delimiter,
            columns,
            width: names.len(),
        })
    }
}

/// Whether a line is a header with a signal in it, for detection.
pub(crate) fn is_header(line: &[u8]) -> bool {
    let mut cells = Cells::default();
    if cells.split(line, delimiter_of(line)).is_err() {
        return false;
    }
    (0..cells.len()).any(|index| {
        utf8(cells.cell(line, index).trim_ascii(), "")
            .ok()
            .and_then(Field::parse)
            .is_some_and(Field::is_signal)
    })
}

/// The most frequent of the usual delimiters; `,` where there is none.
fn delimiter_of(header: &[u8]) -> u8 {
    let count = |delimiter: &u8| header.split(|byte| byte == delimiter).count();
    // `max_by_key` takes the last of equals, so the most usual stands last.
    let usual = [b'|', b'\t', b';', b','];
    usual.into_iter().max_by_key(count).unwrap_or(b',')
}

fn shown_name(index: usize, name: &str) -> String {
    let short = name.chars().count() <= SHOWN_NAME_MAX;
    if short && !name.is_empty() && !name.chars().any(char::is_control) {
        name.to_owned()
    } else {
        format!("column {}", index + 1)
    }
}

fn split_reason(error: SplitError) -> RejectReason {
    match error {
        SplitError::Unclosed => RejectReason::UnclosedQuote,
        SplitError::TextAfterQuote => RejectReason::TextAfterQuote,
        SplitError::TooManyCells => RejectReason::TooManyCells,
    }
}
