//! A record in the making: text by field, with the rules that all formats share.

use hashpact_core::leaf::{Basis, Classification, MediaKind};
use hashpact_core::signal::{Signal, SignalKind};

use crate::cell;
use crate::field::{Field, kind_named};
use crate::limits::{LABEL_MAX_BYTES, LABELS_MAX, REFERENCE_MAX_BYTES, SIGNALS_MAX};
use crate::links;
use crate::options::Options;
use crate::record::Record;
use crate::reject::RejectReason;
use crate::time;

#[derive(Default)]
pub(crate) struct Draft {
    record: Record,
    kind: Option<SignalKind>,
    value: Option<String>,
    quality: Option<u8>,
    class: Option<String>,
    scheme: Option<String>,
    cells: bool,
}

impl Draft {
    /// Begins a row of cells, in which text may be guarded against spreadsheets
    /// and words such as `null` stand for nothing.
    pub(crate) fn of_cells() -> Self {
        Self {
            cells: true,
            ..Self::default()
        }
    }

    /// Takes the text of one field; text that stands for nothing is skipped.
    pub(crate) fn set(&mut self, field: Field, text: &[u8]) -> Result<(), RejectReason> {
        let text = text.trim_ascii();
        if text.is_empty() || self.cells && cell::is_nothing(text) {
            return Ok(());
        }
        // Any cell may be guarded: a value in base64 can begin with `+` too.
        let text = self.unguarded(utf8(text, field.name())?);
        match field {
            Field::Signal(kind) => self.signal(kind, text)?,
            Field::Reference => {
                let reference = plain(text, field)?;
                cap(&reference, field, REFERENCE_MAX_BYTES)?;
                self.record.reference = Some(reference);
            }
            Field::PdqQuality => self.quality = Some(quality(text)?),
            Field::Kind => {
                self.kind = Some(kind_named(text).ok_or(RejectReason::UnknownKind)?);
            }
            Field::Value => self.value = Some(text.to_owned()),
            Field::Signals => {
                for spec in text
                    .split(';')
                    .map(str::trim)
                    .filter(|spec| !spec.is_empty())
                {
                    self.push(parse_spec(spec)?)?;
                }
            }
            Field::MediaKind => self.record.media_kind = Some(media_kind(text)?),
            Field::Classification => self.class = Some(plain(text, field)?),
            Field::ClassScheme => self.scheme = Some(plain(text, field)?),
            Field::Labels => {
                for label in cell::split(text) {
                    self.label(&label)?;
                }
            }
            Field::Basis => self.record.basis = Some(basis(text)?),
            Field::FirstSeen => self.record.first_seen_ms = time_of(text, field)?,
            Field::Expires => self.record.expires_ms = time_of(text, field)?,
            Field::State => state(text)?,
            Field::Ignored => {}
        }
        Ok(())
    }

    /// Takes a signal of a kind that is known; the same one again is dropped.
    pub(crate) fn signal(&mut self, kind: SignalKind, text: &str) -> Result<(), RejectReason> {
        if kind == SignalKind::Url && links::is_link(text.as_bytes()) {
            return self.push(links::signal(text.as_bytes())?);
        }
        self.push(parse_signal(kind, text)?)
    }

    /// Takes a signal; the same one again is dropped.
    pub(crate) fn push(&mut self, signal: Signal) -> Result<(), RejectReason> {
        let signals = &mut self.record.signals;
        let is_same =
            |other: &&mut Signal| other.kind() == signal.kind() && other.value() == signal.value();
        if let Some(same) = signals.iter_mut().find(is_same) {
            if same.quality() < signal.quality() {
                *same = signal;
            }
            return Ok(());
        }
        if signals.len() == SIGNALS_MAX {
            return Err(RejectReason::TooManySignals);
        }
        signals.push(signal);
        Ok(())
    }

    /// Takes a label; an empty one, or the same again, is dropped.
    pub(crate) fn label(&mut self, label: &str) -> Result<(), RejectReason> {
        let label = label.trim();
        let labels = &mut self.record.labels;
        if label.is_empty() || labels.iter().any(|other| other == label) {
            return Ok(());
        }
        if labels.len() == LABELS_MAX {
            return Err(RejectReason::TooManyLabels);
        }
        if label.chars().any(char::is_control) {
            return Err(RejectReason::ControlCharacter {
                what: Field::Labels.name(),
            });
        }
        cap(label, Field::Labels, LABEL_MAX_BYTES)?;
        labels.push(label.to_owned());
        Ok(())
    }

    /// Fills what the row left empty, checks, and gives the record out.
    pub(crate) fn finish(mut self, line: u64, options: &Options) -> Result<Record, RejectReason> {
        for (field, value) in &options.constants {
            if self.lacks(*field) {
                self.set(*field, value.as_bytes())?;
            }
        }
        self.resolve_value(options)?;
        self.record.classification = match (self.class, self.scheme) {
            (Some(class), Some(scheme)) if !class.contains(':') => {
                Some(classification(&format!("{scheme}:{class}"))?)
            }
            (Some(class), _) => Some(classification(&class)?),
            (None, _) => None,
        };
        if let Some(quality) = self.quality {
            // It belongs to one PDQ; further ones of the row bring their own.
            let mut signals = self.record.signals.iter_mut();
            if let Some(pdq) = signals.find(|signal| signal.kind() == SignalKind::Pdq)
                && pdq.quality().is_none()
            {
                *pdq = with_quality(pdq.clone(), Some(quality))?;
            }
        }
        if self.record.signals.is_empty() {
            return Err(RejectReason::NoSignal);
        }
        self.record.line = line;
        Ok(self.record)
    }

    fn unguarded<'a>(&self, text: &'a str) -> &'a str {
        if self.cells {
            cell::unguard(text)
        } else {
            text
        }
    }

    fn lacks(&self, field: Field) -> bool {
        let record = &self.record;
        match field {
            Field::MediaKind => record.media_kind.is_none(),
            Field::Classification => self.class.is_none(),
            Field::ClassScheme => self.scheme.is_none(),
            Field::Labels => record.labels.is_empty(),
            Field::Basis => record.basis.is_none(),
            Field::FirstSeen => record.first_seen_ms.is_none(),
            Field::Expires => record.expires_ms.is_none(),
            Field::Kind => self.kind.is_none() && self.value.is_some(),
            Field::Reference
            | Field::Signal(_)
            | Field::PdqQuality
            | Field::Value
            | Field::Signals
            | Field::State
            | Field::Ignored => false,
        }
    }

    /// Brings the columns `kind` and `value` together.
    fn resolve_value(&mut self, options: &Options) -> Result<(), RejectReason> {
        let Some(value) = self.value.take() else {
            return match self.kind {
                Some(_) => Err(RejectReason::HalfSignal { missing: "value" }),
                None => Ok(()),
            };
        };
        match self.kind.or(options.kind) {
            Some(kind) => self.signal(kind, &value),
            None if value.contains(':') => self.push(parse_spec(&value)?),
            None => Err(RejectReason::HalfSignal { missing: "kind" }),
        }
    }
}

fn cap(text: &str, field: Field, limit: usize) -> Result<(), RejectReason> {
    let (what, bytes) = (field.name(), text.len());
    if bytes > limit {
        return Err(RejectReason::FieldTooLong { what, bytes, limit });
    }
    Ok(())
}

/// Reads a signal's value; the reason names the kind and not the value.
pub(crate) fn parse_signal(kind: SignalKind, text: &str) -> Result<Signal, RejectReason> {
    Signal::parse(kind, text).map_err(|rejection| RejectReason::BadSignal {
        kind,
        why: without_kind(&rejection.to_string(), kind),
    })
}

/// What a rejection says of a value, without the kind that the reason names itself.
fn without_kind(why: &str, kind: SignalKind) -> String {
    let why = why.strip_prefix("signal: ").unwrap_or(why);
    let why = why.strip_prefix(kind.name()).unwrap_or(why);
    why.trim_start_matches([':', ' ']).to_owned()
}

/// Reads `KIND:value`, for a PDQ also `PDQ:value#quality`.
pub(crate) fn parse_spec(spec: &str) -> Result<Signal, RejectReason> {
    let (name, value) = spec.split_once(':').ok_or(RejectReason::Unrecognised)?;
    let kind = kind_named(name.trim()).ok_or(RejectReason::UnknownKind)?;
    let (value, note) = match value.rsplit_once('#') {
        Some((value, note)) if kind == SignalKind::Pdq => (value, Some(quality(note)?)),
        _ => (value, None),
    };
    with_quality(parse_signal(kind, value.trim())?, note)
}

/// The signal with its quality.
pub(crate) fn with_quality(signal: Signal, quality: Option<u8>) -> Result<Signal, RejectReason> {
    signal
        .with_quality(quality)
        .map_err(|_| RejectReason::BadQuality)
}

pub(crate) fn utf8<'a>(text: &'a [u8], what: &'static str) -> Result<&'a str, RejectReason> {
    std::str::from_utf8(text).map_err(|_| RejectReason::NotUtf8 { what })
}

/// Takes text as it is, without control characters.
fn plain(text: &str, field: Field) -> Result<String, RejectReason> {
    if text.chars().any(char::is_control) {
        return Err(RejectReason::ControlCharacter { what: field.name() });
    }
    Ok(text.to_owned())
}

fn quality(text: &str) -> Result<u8, RejectReason> {
    let text = text.strip_suffix(".0").unwrap_or(text);
    match text.parse() {
        Ok(quality @ 0..=100) => Ok(quality),
        _ => Err(RejectReason::BadQuality),
    }
}

fn time_of(text: &str, field: Field) -> Result<Option<u64>, RejectReason> {
    let what = field.name();
    let time = time::parse(text).ok_or(RejectReason::BadTime { what })?;
    Ok(Some(time).filter(|time| *time > 0))
}

fn classification(text: &str) -> Result<Classification, RejectReason> {
    Classification::parse(text).map_err(|_| RejectReason::BadClassification)
}

fn media_kind(text: &str) -> Result<MediaKind, RejectReason> {
    let word = text.to_ascii_lowercase();
    Ok(match word.split('/').next().unwrap_or_default() {
        "image" | "images" | "photo" | "picture" => MediaKind::Image,
        "video" | "videos" | "movie" => MediaKind::Video,
        "url" | "link" => MediaKind::Url,
        "other" | "audio" | "text" | "application" | "file" => MediaKind::Other,
        _ => {
            return Err(RejectReason::UnknownWord {
                what: Field::MediaKind.name(),
            });
        }
    })
}

fn basis(text: &str) -> Result<Basis, RejectReason> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "human" | "manual" | "reviewed" => Basis::Human,
        "automated" | "automatic" | "auto" => Basis::Automated,
        "inherited" => Basis::Inherited,
        _ => {
            return Err(RejectReason::UnknownWord {
                what: Field::Basis.name(),
            });
        }
    })
}

fn state(text: &str) -> Result<(), RejectReason> {
    match text.to_ascii_lowercase().as_str() {
        "active" | "live" | "disputed" | "received" => Ok(()),
        "retracted" | "withdrawn" | "deleted" | "removed" | "erased" | "replaced" | "expired"
        | "inactive" | "revoked" => Err(RejectReason::Withdrawn),
        _ => Err(RejectReason::UnknownWord {
            what: Field::State.name(),
        }),
    }
}
