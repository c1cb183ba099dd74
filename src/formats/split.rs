//! Splits one CSV record into cells (RFC 4180).
//!
//! Not the `csv` crate's reader, which has no bound on the length of a record: a
//! stray quote would make it read the rest of the file into memory.

use crate::limits::COLUMNS_MAX;

/// Where a cell's text stands.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    unescaped: bool,
}

/// Why a record cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SplitError {
    /// The record ends within quotes.
    Unclosed,
    /// Text follows a closing quote.
    TextAfterQuote,
    /// More cells than any file has columns.
    TooManyCells,
}

/// The cells of one record; its buffers are reused from record to record.
#[derive(Default)]
pub(crate) struct Cells {
    spans: Vec<Span>,
    unescaped: Vec<u8>,
}

impl Cells {
    /// Splits `record`; the cells are read with [`Cells::cell`].
    pub(crate) fn split(&mut self, record: &[u8], delimiter: u8) -> Result<(), SplitError> {
        self.spans.clear();
        self.unescaped.clear();
        let mut at = 0;
        loop {
            if self.spans.len() == COLUMNS_MAX {
                return Err(SplitError::TooManyCells);
            }
            let rest = record.get(at..).unwrap_or_default();
            let length = if rest.first() == Some(&b'"') {
                self.quoted(rest, at, delimiter)?
            } else {
                let length = position(rest, delimiter).unwrap_or(rest.len());
                self.spans.push(Span {
                    start: at,
                    end: at + length,
                    unescaped: false,
                });
                length
            };
            at += length;
            if at >= record.len() {
                return Ok(());
            }
            // Over the delimiter.
            at += 1;
        }
    }

    /// Takes the quoted cell that `rest` begins with; returns its length in `rest`.
    fn quoted(&mut self, rest: &[u8], at: usize, delimiter: u8) -> Result<usize, SplitError> {
        let start = self.unescaped.len();
        let mut escapes = false;
        let mut from = 1;
        loop {
            let text = rest.get(from..).unwrap_or_default();
            let quote = from + position(text, b'"').ok_or(SplitError::Unclosed)?;
            let next = rest.get(quote + 1);
            if next == Some(&b'"') {
                let part = rest.get(from..=quote).unwrap_or_default();
                self.unescaped.extend_from_slice(part);
                escapes = true;
                from = quote + 2;
                continue;
            }
            if next.is_some_and(|next| *next != delimiter) {
                return Err(SplitError::TextAfterQuote);
            }
            if escapes {
                let part = rest.get(from..quote).unwrap_or_default();
                self.unescaped.extend_from_slice(part);
                let end = self.unescaped.len();
                self.spans.push(Span {
                    start,
                    end,
                    unescaped: true,
                });
            } else {
                self.spans.push(Span {
                    start: at + 1,
                    end: at + quote,
                    unescaped: false,
                });
            }
            return Ok(quote + 1);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The text of a cell of `record`, which must be the one that was split; an
    /// empty one where there is none.
    pub(crate) fn cell<'a>(&'a self, record: &'a [u8], index: usize) -> &'a [u8] {
        let Some(span) = self.spans.get(index) else {
            return &[];
        };
        let text = if span.unescaped {
            &self.unescaped
        } else {
            record
        };
        text.get(span.start..span.end).unwrap_or_default()
    }
}

fn position(text: &[u8], byte: u8) -> Option<usize> {
    text.iter().position(|other| *other == byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(record: &str) -> Result<Vec<String>, SplitError> {
        let mut cells = Cells::default();
        cells.split(record.as_bytes(), b',')?;
        let text = |index| String::from_utf8_lossy(cells.cell(record.as_bytes(), index));
        Ok((0..cells.len())
            .map(|index| text(index).into_owned())
            .collect())
    }

    #[test]
    fn cells_are_split_as_rfc_4180_says() {
        assert_eq!(split("a,b,").unwrap(), ["a", "b", ""]);
        assert_eq!(split("").unwrap(), [""]);
        assert_eq!(split(r#""a,b",c"#).unwrap(), ["a,b", "c"]);
        assert_eq!(
            split("\"say \"\"x\"\"\",,z").unwrap(),
            ["say \"x\"", "", "z"]
        );
        assert_eq!(split("\"a\nb\",c").unwrap(), ["a\nb", "c"]);
        assert_eq!(split(r#"a"b,c"#).unwrap(), [r#"a"b"#, "c"]);
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        assert_eq!(split(r#"a,"b"#), Err(SplitError::Unclosed));
        assert_eq!(split(r#""a"b"#), Err(SplitError::TextAfterQuote));
        let many = ",".repeat(COLUMNS_MAX);
        assert_eq!(split(&many), Err(SplitError::TooManyCells));
    }
}
