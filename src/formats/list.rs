//! Plain lists: one signal a line.
//!
//! Read are a bare value, `KIND:value`, `KIND value`, and what `md5sum`,
//! `sha1sum`, `sha256sum` and `sha512sum` print, with `*` for binary, `\` for
//! escaped names, or in the BSD form of `--tag`. File names are dropped.

use std::io::Read;

use hashpact_core::signal::{Signal, SignalKind};

use crate::draft::{Draft, parse_spec, utf8};
use crate::field::kind_named;
use crate::lines::{Line, Lines};
use crate::links::is_link;
use crate::options::Options;
use crate::record::{Counters, Item, Record};
use crate::reject::{FatalError, Reject, RejectReason};

pub(crate) struct List<R> {
    lines: Lines<R>,
    line: Vec<u8>,
}

impl<R: Read> List<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            lines: Lines::new(input),
            line: Vec::new(),
        }
    }

    pub(crate) fn next(
        &mut self,
        options: &Options,
        counters: &mut Counters,
    ) -> Result<Option<Item>, FatalError> {
        loop {
            let what = self.lines.read(&mut self.line)?;
            counters.lines = self.lines.number();
            let number = counters.lines;
            let text = self.line.trim_ascii();
            let record = match what {
                Line::End => return Ok(None),
                Line::TooLong { bytes } => Err(RejectReason::LineTooLong { bytes }),
                Line::Whole if text.is_empty() => {
                    counters.blank += 1;
                    continue;
                }
                Line::Whole if text.starts_with(b"#") => {
                    counters.comments += 1;
                    continue;
                }
                Line::Whole => record(text, number, options),
            };
            return Ok(Some(match record {
                Ok(record) => Item::Record(record),
                Err(reason) => Item::Reject(Reject::new(number, reason, &self.line)),
            }));
        }
    }
}

fn record(line: &[u8], number: u64, options: &Options) -> Result<Record, RejectReason> {
    let mut draft = Draft::default();
    if let Some((name, value)) = bsd(line) {
        let kind = kind_named(utf8(name, "kind")?).ok_or(RejectReason::UnknownKind)?;
        draft.signal(kind, utf8(value, "value")?)?;
        return draft.finish(number, options);
    }
    let (first, rest) = match line.iter().position(u8::is_ascii_whitespace) {
        Some(end) => line.split_at_checked(end).unwrap_or((line, &[])),
        None => (line, &[][..]),
    };
    if is_link(first) {
        return Err(RejectReason::Link);
    }
    // What is not UTF-8 can only be a file name, which nobody reads.
    let text = utf8(first, "value")?;
    if text.contains(':') {
        draft.push(parse_spec(utf8(line, "value")?)?)?;
    } else if rest.is_empty() {
        let kind = match options.kind {
            Some(kind) => kind,
            None => guess(text)?,
        };
        draft.signal(kind, text)?;
    } else if let Some(kind) = kind_named(text) {
        draft.signal(kind, utf8(rest, "value")?.trim())?;
    } else {
        let digest = text.strip_prefix('\\').unwrap_or(text);
        let kind = match options.kind {
            Some(kind) => kind,
            None => checksum(digest)?,
        };
        draft.signal(kind, digest)?;
    }
    draft.finish(number, options)
}

/// Reads one line that `md5sum`, `sha256sum` and the like printed; its file name is
/// dropped unread.
#[must_use]
pub fn checksum_line(line: &str) -> Option<Signal> {
    let line = line.trim();
    line.contains(char::is_whitespace).then_some(())?;
    let record = record(line.as_bytes(), 1, &Options::default()).ok()?;
    record.signals.into_iter().next()
}

/// Takes `SHA256 (name) = value` apart; the name may hold anything.
fn bsd(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_prefix(b"\\").unwrap_or(line);
    let open = line.windows(2).position(|pair| pair == b" (")?;
    let close = line.windows(4).rposition(|four| four == b") = ")?;
    let kind = line.get(..open)?;
    let is_word = kind
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_/".contains(byte));
    (is_word && open < close).then_some(())?;
    Some((kind, line.get(close + 4..)?))
}

/// The kind that a checksum program's line has by its length.
fn checksum(text: &str) -> Result<SignalKind, RejectReason> {
    if !is_hex(text) {
        return Err(RejectReason::Unrecognised);
    }
    match text.len() {
        64 => Ok(SignalKind::Sha256),
        _ => guess(text),
    }
}

/// The kind that a bare value has by its length, where there is only one.
fn guess(text: &str) -> Result<SignalKind, RejectReason> {
    let digits = text.len();
    let is_hex = is_hex(text);
    match digits {
        32 if is_hex => Ok(SignalKind::Md5),
        40 if is_hex => Ok(SignalKind::Sha1),
        64 if is_hex => Err(RejectReason::AmbiguousKind { digits }),
        128 if is_hex => Ok(SignalKind::Sha512),
        288 if is_hex => Ok(SignalKind::PhotoDna),
        192 => Ok(SignalKind::PhotoDna),
        _ => Err(RejectReason::Unrecognised),
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
