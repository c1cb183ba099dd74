//! Publish: one version of one entry. Payloads come from anybody: each bound is checked
//! when they are decoded, and one that breaks a rule is void.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use super::rules::{self, Lines};
use crate::id::{Slug, UnixMillis};
use crate::reject::Rejection;
use crate::signal::{Signal, SignalKind, hygiene};
use crate::wire;

const WHAT: &str = "publish leaf";
/// Signals of one entry: every kind there is, some more than once.
pub const SIGNALS_MAX: usize = 32;
/// Labels of one entry.
pub const LABELS_MAX: usize = 32;
/// A label in bytes.
pub const LABEL_MAX_BYTES: usize = 64;
/// A source's own name for an entry, in bytes.
pub const SOURCE_REFERENCE_MAX_BYTES: usize = 256;

/// What a publisher says about one piece of media, in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// What the media is.
    pub media_kind: MediaKind,
    /// Signals of the media: 1 to 32, no two equal. Those of kinds that this
    /// version does not know are left out when a leaf is read, so none may be left.
    pub signals: Vec<Signal>,
    /// What it shows, in a scheme's words.
    pub classification: Option<Classification>,
    /// Further words, at most 32 of 1 to 64 bytes.
    pub labels: Vec<String>,
    /// How the publisher came to say so.
    pub basis: Basis,
    /// The source's own name for the entry, at most 256 bytes; may be empty.
    pub source_reference: String,
    /// When the media was first seen.
    pub first_seen: Option<UnixMillis>,
    /// When the entry should no longer be used.
    pub expires: Option<UnixMillis>,
    /// All earlier indexes of the same entry, ascending; empty in its first version.
    pub replaces: Vec<u64>,
    /// When this version was published, by the publisher's clock.
    pub published: UnixMillis,
}

/// What an entry's media is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// A still image.
    Image,
    /// A video.
    Video,
    /// A link.
    Url,
    /// Another file.
    Other,
}

/// How a publisher came to what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Basis {
    /// A person looked at the media.
    Human,
    /// A machine classified it.
    Automated,
    /// Taken over from somebody else; corroborates nothing.
    Inherited,
}

/// A classification: a value of a scheme, written `A1` in the feed's own scheme
/// or `scheme:value`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Classification {
    /// The scheme, where it is not the feed's.
    pub scheme: Option<Slug>,
    value: String,
}

impl Classification {
    /// Reads `value` or `scheme:value`. A value is 1 to 32 of letters, digits,
    /// `.`, `_` and `-`.
    ///
    /// # Errors
    /// [`Rejection::Invalid`].
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        let (scheme, value) = match text.split_once(':') {
            Some((scheme, value)) => (Some(Slug::parse(scheme)?), value),
            None => (None, text),
        };
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if (1..=32).contains(&value.len()) && value.bytes().all(good) {
            let value = value.to_owned();
            Ok(Self { scheme, value })
        } else {
            let why = "a value has 1 to 32 letters, digits, `.`, `_` or `-`";
            Err(Rejection::invalid("classification", why))
        }
    }

    /// The value, without its scheme.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for Classification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scheme {
            Some(scheme) => write!(f, "{scheme}:{}", self.value),
            None => f.write_str(&self.value),
        }
    }
}

impl Publish {
    /// Whether this version says less than an earlier one of its entry said: a signal
    /// that identified something is gone or identifies nothing any more, or it is about
    /// something else, sooner at its end, or only taken over from others (PROTOCOL 12.7).
    #[must_use]
    pub fn takes_from(&self, earlier: &Self) -> bool {
        let good = |signal: &&Signal| hygiene(signal).is_none();
        let said = self.signals.iter().filter(good);
        let said: BTreeSet<_> = said.map(Signal::index_key).collect();
        let mut before = earlier.signals.iter().filter(good);
        let ends_sooner = match (self.expires, earlier.expires) {
            (Some(end), Some(before)) => end < before,
            (Some(_), None) => true,
            (None, _) => false,
        };
        before.any(|signal| !said.contains(&signal.index_key()))
            || self.media_kind != earlier.media_kind
            || self.classification != earlier.classification
            || (self.basis == Basis::Inherited && earlier.basis != Basis::Inherited)
            || ends_sooner
    }

    /// Encodes the payload, with fresh random bytes as `salt`.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for a broken rule, [`Rejection::TooLarge`].
    pub fn encode(&self, salt: [u8; 16]) -> Result<Bytes, Rejection> {
        if self.signals.is_empty() {
            return Err(Rejection::invalid(WHAT, "no signal"));
        }
        self.check()?;
        let classification = self.classification.as_ref();
        rules::encode(&wire::Publish {
            salt: Bytes::copy_from_slice(&salt),
            media_kind: match self.media_kind {
                MediaKind::Image => wire::MediaKind::Image,
                MediaKind::Video => wire::MediaKind::Video,
                MediaKind::Url => wire::MediaKind::Url,
                MediaKind::Other => wire::MediaKind::Other,
            }
            .into(),
            signals: self.signals.iter().map(signal_to_wire).collect(),
            classification: classification
                .map(Classification::to_string)
                .unwrap_or_default(),
            labels: self.labels.clone(),
            basis: match self.basis {
                Basis::Human => wire::Basis::Human,
                Basis::Automated => wire::Basis::Automated,
                Basis::Inherited => wire::Basis::Inherited,
            }
            .into(),
            source_reference: self.source_reference.clone(),
            first_seen_ms: self.first_seen.unwrap_or_default().0,
            expires_ms: self.expires.unwrap_or_default().0,
            replaces: self.replaces.clone(),
            published_ms: self.published.0,
        })
    }

    /// The index of the entry's first version, when this version is at `index`.
    #[must_use]
    pub fn first_index(&self, index: u64) -> u64 {
        self.replaces.first().copied().unwrap_or(index)
    }

    pub(super) fn read(payload: &Bytes, index: u64) -> Result<Self, Rejection> {
        let message: wire::Publish = rules::decode(WHAT, payload)?;
        rules::salt(WHAT, &message.salt)?;
        if message.signals.is_empty() || message.signals.len() > SIGNALS_MAX {
            let why = format!("{} signals, 1 to {SIGNALS_MAX}", message.signals.len());
            return Err(Rejection::invalid(WHAT, why));
        }
        let media_kind = match message.media_kind() {
            wire::MediaKind::Image => Some(MediaKind::Image),
            wire::MediaKind::Video => Some(MediaKind::Video),
            wire::MediaKind::Url => Some(MediaKind::Url),
            wire::MediaKind::Other => Some(MediaKind::Other),
            wire::MediaKind::Unspecified => None,
        };
        let basis = match message.basis() {
            wire::Basis::Human => Some(Basis::Human),
            wire::Basis::Automated => Some(Basis::Automated),
            wire::Basis::Inherited => Some(Basis::Inherited),
            wire::Basis::Unspecified => None,
        };
        let signals = message.signals.iter().filter_map(signal_from_wire);
        let time = |millis: u64| (millis > 0).then_some(UnixMillis(millis));
        let publish = Self {
            media_kind: rules::enumerated("media kind", media_kind)?,
            signals: signals.collect::<Result<_, _>>()?,
            classification: match message.classification.as_str() {
                "" => None,
                text => Some(Classification::parse(text)?),
            },
            labels: message.labels,
            basis: rules::enumerated("basis", basis)?,
            source_reference: message.source_reference,
            first_seen: time(message.first_seen_ms),
            expires: time(message.expires_ms),
            replaces: message.replaces,
            published: UnixMillis(message.published_ms),
        };
        publish.check()?;
        let end = publish.replaces.last().map(|last| last.saturating_add(1));
        rules::before(WHAT, end, index)?;
        Ok(publish)
    }

    fn check(&self) -> Result<(), Rejection> {
        if self.signals.len() > SIGNALS_MAX || self.labels.len() > LABELS_MAX {
            let why = format!("at most {SIGNALS_MAX} signals and {LABELS_MAX} labels");
            return Err(Rejection::invalid(WHAT, why));
        }
        let mut rest = self.signals.as_slice();
        while let [signal, others @ ..] = rest {
            let is_same = |o: &Signal| o.kind() == signal.kind() && o.value() == signal.value();
            if others.iter().any(is_same) {
                return Err(Rejection::invalid(WHAT, "one signal twice"));
            }
            rest = others;
        }
        for label in &self.labels {
            rules::text("label", label, LABEL_MAX_BYTES, Lines::One)?;
            if label.is_empty() {
                return Err(Rejection::invalid("label", "is empty"));
            }
        }
        let reference = self.source_reference.as_str();
        rules::text(
            "source reference",
            reference,
            SOURCE_REFERENCE_MAX_BYTES,
            Lines::One,
        )?;
        rules::ascending(WHAT, &self.replaces)
    }
}

pub(super) fn signal_to_wire(signal: &Signal) -> wire::Signal {
    wire::Signal {
        kind: signal.kind().number(),
        value: signal.value().clone(),
        quality_plus_one: signal
            .quality()
            .map_or(0, |q| u32::from(q).saturating_add(1)),
    }
}

/// Reads a signal; none for a kind that this version does not know.
pub(super) fn signal_from_wire(message: &wire::Signal) -> Option<Result<Signal, Rejection>> {
    let kind = SignalKind::from_number(message.kind)?;
    let quality = message.quality_plus_one.checked_sub(1).map(|quality| {
        // A quality of more than a byte is refused with those above 100.
        u8::try_from(quality).unwrap_or(u8::MAX)
    });
    Some(Signal::new(kind, message.value.clone(), quality))
}
