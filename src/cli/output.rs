//! What commands print: lines, tables that fit a terminal, one JSON object.
//!
//! Results go to standard output, everything else to standard error. Writing
//! never panics: a reader that went away ends the command quietly.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::error::CliError;

/// How long work goes on before a progress bar is shown.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

/// Where a command prints.
pub struct Output {
    json: bool,
    /// Of the terminal; none where it is a file or a pipe.
    columns: Option<usize>,
    writer: Mutex<Box<dyn Write + Send>>,
}

impl Output {
    /// Standard output.
    #[must_use]
    pub fn stdout(json: bool) -> Self {
        Self {
            columns: Table::new().width().map(usize::from),
            ..Self::to(json, Box::new(io::stdout()))
        }
    }

    /// Any writer.
    #[must_use]
    pub fn to(json: bool, writer: Box<dyn Write + Send>) -> Self {
        Self {
            json,
            columns: None,
            writer: Mutex::new(writer),
        }
    }

    /// As on a terminal of so many columns.
    #[cfg(test)]
    pub(crate) fn with_columns(self, columns: usize) -> Self {
        Self {
            columns: Some(columns),
            ..self
        }
    }

    /// Columns of the terminal; none where the output is a file or a pipe, whose lines
    /// may be as long as they are.
    #[must_use]
    pub const fn columns(&self) -> Option<usize> {
        self.columns
    }

    /// Whether `--json` was given: then a command prints one object and no lines.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a line for people; nothing under `--json`.
    ///
    /// # Errors
    /// [`CliError::OutputClosed`] when nobody reads, else what the write said.
    pub fn line(&self, line: impl Display) -> Result<(), CliError> {
        if self.json {
            return Ok(());
        }
        self.write(format!("{line}\n").as_bytes())
    }

    /// Prints a sentence after a mark, such as `  * `. A terminal that is narrower gets
    /// it broken at blanks, hanging below the mark.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn item(&self, mark: &str, sentence: &str) -> Result<(), CliError> {
        let indent = mark.chars().count();
        let room = self.columns.map(|columns| columns.saturating_sub(indent));
        let lines = room.map_or_else(|| vec![sentence.to_owned()], |room| broken(sentence, room));
        for (at, line) in lines.iter().enumerate() {
            let mark = if at == 0 { mark } else { "" };
            self.line(format_args!("{mark:<indent$}{line}"))?;
        }
        Ok(())
    }

    /// Prints the command's result as JSON, one object on one line; nothing
    /// without `--json`.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        if !self.json {
            return Ok(());
        }
        let mut text = serde_json::to_vec(value).map_err(CliError::failed)?;
        text.push(b'\n');
        self.write(&text)
    }

    /// Prints a table for people, broken to fit a terminal; nothing under `--json`.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn table(&self, table: &Table) -> Result<(), CliError> {
        let fitted = self.columns.map(|columns| {
            let mut table = table.clone();
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(u16::try_from(columns).unwrap_or(u16::MAX));
            table
        });
        for line in fitted.as_ref().unwrap_or(table).lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Writes bytes as they are: exports and the like.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn write(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let written = writer.write_all(bytes).and_then(|()| writer.flush());
        written.map_err(|error| {
            if error.kind() == ErrorKind::BrokenPipe {
                return CliError::OutputClosed;
            }
            CliError::failed(format!("cannot write to standard output: {error}"))
        })
    }
}

/// Says something on standard error: notes and errors, never results. A terminal that is
/// narrower gets a line broken at blanks.
pub fn note(line: impl Display) {
    let mut terminal = Table::new();
    let columns = terminal.use_stderr().width().map(usize::from);
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(io::stderr(), "{}", noted(&line.to_string(), columns));
}

/// A note as it is said on so many columns, what follows the first line set in.
fn noted(line: &str, columns: Option<usize>) -> String {
    match columns {
        Some(columns) if line.chars().count() > columns && !line.contains('\n') => {
            broken(line, columns.saturating_sub(2)).join("\n  ")
        }
        Some(_) | None => line.to_owned(),
    }
}

/// Makes a table of plain columns; the columns in `right` (from 0) are aligned right.
#[must_use]
pub fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.iter().map(Cell::new));
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A number with separators: `12,345,678`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len().wrapping_sub(index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with what it counts: `1 leaf`, `12,345 leaves`.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A number of bytes in binary units: `1.2 MiB`.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "one digit after the point is shown"
)]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1_024 {
        return format!("{number} B");
    }
    let mut value = number as f64;
    let mut shown = "B";
    for unit in UNITS {
        if value < 1_023.95 {
            break;
        }
        value /= 1_024.0;
        shown = unit;
    }
    format!("{value:.1} {shown}")
}

/// A duration at the precision that matters: `840 ms`, `12.3 s`, `4 min 10 s`.
#[must_use]
pub fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match seconds {
        0 => format!("{} ms", elapsed.as_millis()),
        1..=99 => format!("{:.1} s", elapsed.as_secs_f64()),
        100..=7_199 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// A time in UTC to the second: `2026-11-22 06:40:00Z`; `never` for 0.
#[must_use]
pub fn time(unix_ms: u64) -> String {
    let known = i64::try_from(unix_ms).ok().filter(|millis| *millis > 0);
    let time = known.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    time.map_or_else(
        || "never".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
    )
}

/// A time for programs, as RFC 3339: `2026-11-22T06:40:00Z`; none for 0.
#[must_use]
pub fn stamp(unix_ms: u64) -> Option<String> {
    let known = i64::try_from(unix_ms).ok().filter(|millis| *millis > 0)?;
    let time = jiff::Timestamp::from_millisecond(known).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A progress bar on standard error that shows itself after a second, and only
/// to people at a terminal.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    shown: bool,
}

impl Progress {
    /// Counts bytes up to `total`, where that is known.
    #[must_use]
    pub fn bytes(total: Option<u64>) -> Self {
        Self::new(
            total,
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        )
    }

    /// Counts things up to `total`, where that is known.
    #[must_use]
    pub fn count(total: Option<u64>) -> Self {
        Self::new(
            total,
            "{msg} {wide_bar} {human_pos}/{human_len} {per_sec:.0} {eta}",
        )
    }

    /// Adds to what is done.
    pub fn add(&mut self, done: u64) {
        self.bar.inc(done);
        if !self.shown && self.started.elapsed() >= PROGRESS_AFTER {
            self.shown = true;
            if io::stderr().is_terminal() {
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
        }
    }

    /// Says how much is done in all.
    pub fn set(&mut self, done: u64) {
        self.add(done.saturating_sub(self.bar.position()));
    }

    /// How much is done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.bar.position()
    }

    /// Says how much there is in all.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Names what is being done.
    pub fn name(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// Prints in between, with the bar out of the way.
    pub fn around<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    fn new(total: Option<u64>, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            started: Instant::now(),
            shown: false,
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A name without what a terminal would take for a command.
pub(crate) fn plain(name: &str) -> String {
    let plain = |letter: char| {
        if letter.is_control() {
            '\u{fffd}'
        } else {
            letter
        }
    };
    name.chars().map(plain).collect()
}

/// A sentence in lines of at most `room` characters, broken at blanks. A word that is
/// longer stands alone.
fn broken(sentence: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in sentence.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A name of at most `columns` characters, cut in the middle: a path says most by its
/// end. Without what a terminal would take for a command.
pub(crate) fn fitted(name: &str, columns: usize) -> String {
    let name = plain(name);
    let letters = name.chars().count();
    if letters <= columns {
        return name;
    }
    let kept = columns.saturating_sub(1);
    let start = kept / 3;
    let end = letters.saturating_sub(kept.saturating_sub(start));
    let head: String = name.chars().take(start).collect();
    let tail: String = name.chars().skip(end).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_note_is_broken_to_a_terminal_and_whole_elsewhere() {
        let line = "not replayed: near values, access, freezes";
        assert_eq!(noted(line, None), line);
        assert_eq!(noted(line, Some(80)), line);
        let narrow = "not replayed: near\n  values, access,\n  freezes";
        assert_eq!(noted(line, Some(20)), narrow);
    }

    #[test]
    fn a_reader_that_went_away_ends_the_command_quietly() {
        let output = Output::to(false, Box::new(Closed));
        assert_eq!(output.line("x"), Err(CliError::OutputClosed));
        assert_eq!(CliError::OutputClosed.to_string(), "");
    }

    #[test]
    fn numbers_read_well() {
        let counts = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ];
        for (number, text) in counts {
            assert_eq!(count(number), text);
        }
        let counted = [0, 1, 2_000].map(|number| counted(number, "leaf", "leaves"));
        assert_eq!(counted, ["0 leaves", "1 leaf", "2,000 leaves"]);
        let sizes = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
        ];
        for (number, text) in sizes {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(duration(Duration::from_millis(840)), "840 ms");
        assert_eq!(duration(Duration::from_secs(250)), "4 min 10 s");
    }

    #[test]
    fn long_names_are_cut_in_the_middle_and_no_name_drives_a_terminal() {
        assert_eq!(fitted("short", 5), "short");
        assert_eq!(fitted("abcdefghij", 7), "ab…ghij");
        assert_eq!(fitted(&"x".repeat(100), 26).chars().count(), 26);
        assert_eq!(fitted("a\x1b[2Jb\n", 26), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(fitted("abc", 1), "…");
    }

    #[test]
    fn sentences_are_broken_for_a_terminal_and_whole_in_a_file() {
        let key = "0".repeat(64);
        let sentence = format!("west has a new identity key {key}; before, {key}");
        let lines = broken(&sentence, 76);
        assert!(lines.len() == 3 && lines.iter().all(|line| line.len() <= 76));
        assert_eq!(lines.join(" "), sentence);
        let printed = crate::cli::Printed::default();
        let output = Output::to(false, Box::new(printed.clone()));
        output.item("  * ", &sentence).unwrap();
        assert_eq!(printed.text(), format!("  * {sentence}\n"));
        let printed = crate::cli::Printed::default();
        let output = Output::to(false, Box::new(printed.clone())).with_columns(80);
        output.item("  * ", &sentence).unwrap();
        let text = printed.text();
        assert!(text.starts_with("  * west"), "{text}");
        assert!(
            text.lines().skip(1).all(|line| line.starts_with("    ")),
            "{text}"
        );
    }

    #[test]
    fn times_are_in_utc() {
        assert_eq!(time(1_790_000_000_123), "2026-09-21 14:13:20Z");
        assert_eq!(time(0), "never");
        assert_eq!(time(u64::MAX), "never");
        let stamped = stamp(1_790_000_000_123);
        assert_eq!(stamped.as_deref(), Some("2026-09-21T14:13:20Z"));
        assert_eq!(stamp(0), None);
    }

    #[test]
    fn tables_keep_to_a_terminal_and_are_whole_elsewhere() {
        let name = "x".repeat(200);
        let mut table = table(&["feed", "entries"], &[1]);
        table.add_row([name.clone(), count(1_000_000)]);
        let pipe = crate::cli::Printed::default();
        let output = Output::to(false, Box::new(pipe.clone()));
        output.table(&table).unwrap();
        assert!(pipe.text().contains(&name));
        let terminal = crate::cli::Printed::default();
        let output = Output::to(false, Box::new(terminal.clone())).with_columns(80);
        output.table(&table).unwrap();
        let shown = terminal.text();
        let fits = |line: &str| line.chars().count() <= 80;
        assert!(!shown.contains(&name) && shown.lines().all(fits), "{shown}");
    }
}
