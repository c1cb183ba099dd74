//! JSON Lines: one object a line, in the shape that this crate exports, or flat
//! with the names of CSV columns as keys.

use std::io::Read;

use serde_json::error::Category;
use serde_json::{Map, Value};

use crate::draft::{Draft, parse_signal, parse_spec, with_quality};
use crate::field::{Field, kind_named};
use crate::lines::{Line, Lines};
use crate::options::Options;
use crate::record::{Counters, Item, Record, Warning};
use crate::reject::{FatalError, Reject, RejectReason};

/// Unknown keys that are reported; a file with more is not of this kind.
const UNKNOWN_KEYS_MAX: usize = 64;
/// A key is shown in a warning only up to this length.
const SHOWN_KEY_MAX: usize = 24;

pub(crate) struct JsonLines<R> {
    lines: Lines<R>,
    line: Vec<u8>,
}

impl<R: Read> JsonLines<R> {
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
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Item>, FatalError> {
        loop {
            let what = self.lines.read(&mut self.line)?;
            counters.lines = self.lines.number();
            let number = counters.lines;
            let record = match what {
                Line::End => return Ok(None),
                Line::TooLong { bytes } => Err(RejectReason::LineTooLong { bytes }),
                Line::Whole if self.line.trim_ascii().is_empty() => {
                    counters.blank += 1;
                    continue;
                }
                Line::Whole => record(&self.line, number, options, warnings),
            };
            return Ok(Some(match record {
                Ok(record) => Item::Record(record),
                Err(reason) => Item::Reject(Reject::new(number, reason, &self.line)),
            }));
        }
    }
}

fn record(
    line: &[u8],
    number: u64,
    options: &Options,
    warnings: &mut Vec<Warning>,
) -> Result<Record, RejectReason> {
    let object: Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| bad_json(&error))?;
    let mut draft = Draft::default();
    for (key, value) in &object {
        match options.field(key) {
            Some(Field::Ignored) => {}
            Some(field) => set(&mut draft, field, value)?,
            None => warn(warnings, key),
        }
    }
    draft.finish(number, options)
}

/// The place and sort of an error, without the text of it, which may quote a value.
pub(crate) fn bad_json(error: &serde_json::Error) -> RejectReason {
    let why = match error.classify() {
        Category::Eof => "it ends too early",
        Category::Syntax => "a syntax error",
        Category::Data => "a value of another type than the field has",
        Category::Io => "it cannot be read",
    };
    RejectReason::BadJson {
        byte: error.column() as u64,
        why,
    }
}

fn set(draft: &mut Draft, field: Field, value: &Value) -> Result<(), RejectReason> {
    match value {
        Value::Null => Ok(()),
        Value::Bool(value) => draft.set(field, value.to_string().as_bytes()),
        Value::Number(value) => draft.set(field, value.to_string().as_bytes()),
        Value::String(value) => draft.set(field, value.as_bytes()),
        Value::Array(values) => values.iter().try_for_each(|value| match (field, value) {
            (Field::Labels, Value::String(label)) => draft.label(label),
            (Field::Signals, Value::String(spec)) => draft.push(parse_spec(spec)?),
            (Field::Signals, Value::Object(object)) => signal(draft, object),
            (Field::Signal(kind), Value::String(value)) => draft.signal(kind, value.trim()),
            _ => Err(other_type()),
        }),
        Value::Object(_) => Err(other_type()),
    }
}

/// Takes `{"kind":…,"value":…,"quality":…}`.
fn signal(draft: &mut Draft, object: &Map<String, Value>) -> Result<(), RejectReason> {
    let text = |key| object.get(key).and_then(Value::as_str);
    let missing = |missing| RejectReason::HalfSignal { missing };
    let kind = text("kind").or_else(|| text("type"));
    let kind = kind_named(kind.ok_or(missing("kind"))?).ok_or(RejectReason::UnknownKind)?;
    let value = text("value").ok_or(missing("value"))?;
    let signal = parse_signal(kind, value.trim())?;
    let quality = match object.get("quality") {
        None | Some(Value::Null) => None,
        Some(quality) => match quality.as_u64().map(u8::try_from) {
            Some(Ok(quality @ 0..=100)) => Some(quality),
            _ => return Err(RejectReason::BadQuality),
        },
    };
    draft.push(with_quality(signal, quality)?)
}

const fn other_type() -> RejectReason {
    RejectReason::BadJson {
        byte: 0,
        why: "a value of another type than the field has",
    }
}

fn warn(warnings: &mut Vec<Warning>, key: &str) {
    let shown = if key.chars().count() <= SHOWN_KEY_MAX && !key.chars().any(char::is_control) {
        key
    } else {
        "a long key"
    };
    match warnings.first_mut() {
        Some(Warning::UnknownColumns(names)) => {
            if names.len() < UNKNOWN_KEYS_MAX && !names.iter().any(|name| name == shown) {
                names.push(shown.to_owned());
            }
        }
        None => warnings.push(Warning::UnknownColumns(vec![shown.to_owned()])),
    }
}
