//! The rejects file: the one place where refused lines are written down.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::cell;
use crate::limits::ORIGINAL_MAX_BYTES;
use crate::links;
use crate::reject::Reject;

/// Writes rejects as CSV with the columns `line`, `reason` and `original`.
///
/// The reason begins with its code. The original is text for people: what is not
/// printable is written as `\x` and two digits, a backslash twice, and a cell that
/// a spreadsheet would take for a formula gets an apostrophe in front.
///
/// ⚠ What looks like a link, or like a part of one, is left out of it.
pub struct RejectsWriter<W: Write> {
    csv: csv::Writer<W>,
    keep_links: bool,
}

impl<W: Write> RejectsWriter<W> {
    /// Begins the file with its header.
    ///
    /// # Errors
    /// Writing failed.
    pub fn new(output: W) -> io::Result<Self> {
        let mut csv = csv::Writer::from_writer(output);
        csv.write_record(["line", "reason", "original"])
            .map_err(cell::write_error)?;
        Ok(Self {
            csv,
            keep_links: false,
        })
    }

    /// Leaves links in what is written: the operator has asked for them.
    #[must_use]
    pub fn keep_links(mut self) -> Self {
        self.keep_links = true;
        self
    }

    /// Adds a reject.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write(&mut self, reject: &Reject) -> io::Result<()> {
        let reason = reject.reason.to_string();
        self.write_refused(reject.line, reject.reason.code(), &reason, &reject.original)
    }

    /// Adds a line that was read and refused later, by the node.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write_refused(
        &mut self,
        line: u64,
        code: &str,
        reason: &str,
        original: &[u8],
    ) -> io::Result<()> {
        let mut text = if self.keep_links {
            printable(original)
        } else {
            printable(&links::left_out(original))
        };
        if original.len() == ORIGINAL_MAX_BYTES {
            text.push_str(" [cut off here]");
        }
        let record = [
            line.to_string(),
            format!("{code}: {reason}"),
            cell::guard(&text).into_owned(),
        ];
        self.csv.write_record(&record).map_err(cell::write_error)
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

fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                character if character.is_ascii_control() => {
                    escape(&mut text, character as u32);
                }
                character => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            escape(&mut text, u32::from(*byte));
        }
    }
    text
}

fn escape(text: &mut String, byte: u32) {
    // Writing to a string does not fail.
    let _ = write!(text, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reject::RejectReason;

    #[test]
    fn originals_are_printable_and_no_formula() {
        let mut rejects = RejectsWriter::new(Vec::new()).unwrap();
        for original in [&b"=1,\"x\""[..], b"a\0\xff\\\nb"] {
            let reject = Reject::new(7, RejectReason::NoSignal, original);
            rejects.write(&reject).unwrap();
        }
        let text = String::from_utf8(rejects.finish().unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "line,reason,original",
                "7,no_signal: no signal,\"'=1,\"\"x\"\"\"",
                "7,no_signal: no signal,a\\x00\\xff\\\\\\x0ab",
            ]
        );
    }

    #[test]
    fn links_are_left_out_unless_they_are_asked_for() {
        let line = b"7;https://secret.example/a,b;A1";
        let write = |keep: bool| {
            let rejects = RejectsWriter::new(Vec::new()).unwrap();
            let mut rejects = if keep { rejects.keep_links() } else { rejects };
            let reject = Reject::new(7, RejectReason::NoSignal, line);
            rejects.write(&reject).unwrap();
            String::from_utf8(rejects.finish().unwrap()).unwrap()
        };
        assert!(!write(false).contains("secret"));
        assert!(write(false).contains("[link left out]"));
        assert!(write(true).contains("https://secret.example/a,b"));
    }

    #[test]
    fn debug_shows_no_original() {
        let reject = Reject::new(7, RejectReason::NoSignal, b"00112233");
        assert!(!format!("{reject:?}").contains("00112233"));
    }
}
