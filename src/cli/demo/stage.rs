//! What the demo shows: numbered steps, lines with times and rates, figures.

use std::fmt::Display;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::cli::error::CliError;
use crate::cli::output::{self, Output, count, duration, note};

/// Where a line's figure ends.
const WIDTH: usize = 78;

/// Prints what happens, and keeps every figure.
pub(super) struct Stage<'a> {
    output: &'a Output,
    started: Instant,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    steps: u32,
    figures: Map<String, Value>,
    summary: Vec<(String, String)>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        Self {
            output,
            started: Instant::now(),
            kept: Mutex::default(),
        }
    }

    /// Begins a step.
    pub(super) fn step(&self, title: impl Display) -> Result<(), CliError> {
        let number = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.steps = kept.steps.saturating_add(1);
            kept.steps
        };
        self.line("")?;
        self.line(format_args!("{number}  {title}"))
    }

    /// Says something that belongs to the step.
    pub(super) fn say(&self, text: impl Display) -> Result<(), CliError> {
        self.line(format_args!("   {text}"))
    }

    /// The same with a figure at the line's end.
    pub(super) fn told(&self, text: impl Display, figure: impl Display) -> Result<(), CliError> {
        let (text, figure) = (text.to_string(), figure.to_string());
        let used = 3 + figure.chars().count();
        let room = WIDTH.saturating_sub(used).saturating_sub(1);
        self.line(format_args!("   {text:<room$} {figure}"))
    }

    /// Keeps a figure for the JSON object.
    pub(super) fn figure(&self, name: &str, value: impl Into<Value>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.figures.insert(name.to_owned(), value.into());
    }

    /// Keeps a line for the summary.
    pub(super) fn sum(&self, what: impl Display, figure: impl Display) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.summary.push((what.to_string(), figure.to_string()));
    }

    /// The summary, and under `--json` the object.
    pub(super) fn end(&self) -> Result<(), CliError> {
        self.figure("total_ms", millis(self.started.elapsed()));
        self.line("")?;
        let mut summary = output::table(&["summary", ""], &[1]);
        let (rows, figures) = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            (kept.summary.clone(), kept.figures.clone())
        };
        for (what, figure) in rows {
            summary.add_row([what, figure]);
        }
        summary.add_row(["all of it".to_owned(), duration(self.started.elapsed())]);
        for line in summary.lines() {
            self.line(line.trim_end())?;
        }
        self.output.json(&Value::Object(figures))
    }

    /// A line on standard output, or on standard error beside the JSON object.
    pub(super) fn line(&self, text: impl Display) -> Result<(), CliError> {
        if self.output.is_json() {
            note(text);
            return Ok(());
        }
        self.output.line(text)
    }
}

/// Whole milliseconds, as figures have them.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How many in a second.
pub(super) fn per_second(number: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    let rate = u128::from(number).saturating_mul(1_000_000) / micros;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// The same in words.
pub(super) fn rate(number: u64, time: Duration) -> String {
    format!("{}/s", count(per_second(number, time)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Context;

    #[test]
    fn the_last_line_under_json_is_one_object_with_every_figure() {
        let (context, printed) = Context::for_test(true);
        let stage = Stage::new(&context.output);
        stage.step("Founding").unwrap();
        stage.figure("founding_ms", 12_u64);
        stage.end().unwrap();
        let text = printed.text();
        let object: Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(object["founding_ms"], 12);
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn lines_fit_80_columns() {
        let (context, printed) = Context::for_test(false);
        let stage = Stage::new(&context.output);
        stage.step("Founding").unwrap();
        stage
            .told(
                "northstar/packages",
                rate(1_000_000, Duration::from_secs(2)),
            )
            .unwrap();
        stage.sum("exchange of 1,000,000 entries", "500,000/s");
        stage.end().unwrap();
        let text = printed.text();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(text.contains("500,000/s"), "{text}");
    }
}
