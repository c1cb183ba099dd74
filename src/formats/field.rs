//! The fields a column or key can stand for, and the names they go by.

use hashpact_core::signal::SignalKind;

/// What a column of a CSV file, or a key of a JSON line, gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The source's own name for the entry.
    Reference,
    /// A signal of this kind; several columns may give one.
    Signal(SignalKind),
    /// The quality of the PDQ beside it, 0 to 100.
    PdqQuality,
    /// The kind of the signal in the [`Field::Value`] column.
    Kind,
    /// A signal's value whose kind another column gives.
    Value,
    /// Signals as `KIND:value`, `;` between them, a PDQ with quality as
    /// `PDQ:value#80`. In a JSON line also a list of objects.
    Signals,
    /// `image`, `video`, `url` or `other`.
    MediaKind,
    /// The classification, with or without its scheme.
    Classification,
    /// The scheme of the classification beside it.
    ClassScheme,
    /// Labels, `;` between them.
    Labels,
    /// `human`, `automated` or `inherited`.
    Basis,
    /// When the source saw it first.
    FirstSeen,
    /// When it expires.
    Expires,
    /// Whether the entry still counts; a withdrawn one is refused.
    State,
    /// Known, and not imported.
    Ignored,
}

impl Field {
    /// Finds the field by a column's name: letter case, spaces, `-`, `_` and `.` do
    /// not matter.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let plain: String = name
            .chars()
            .filter(|character| !matches!(character, ' ' | '-' | '_' | '.'))
            .flat_map(char::to_lowercase)
            .collect();
        Some(match plain.as_str() {
            "entryid" | "id" | "sourcereference" | "reference" | "ref" | "mediaid" => {
                Self::Reference
            }
            "pdqquality" | "quality" => Self::PdqQuality,
            "kind" | "type" | "signalkind" | "signaltype" | "hashtype" => Self::Kind,
            "value" | "signalvalue" | "hashvalue" | "hash" | "signal" => Self::Value,
            "signals" | "othersignals" | "hashes" => Self::Signals,
            "mediakind" | "mediatype" | "media" => Self::MediaKind,
            "class" | "classification" | "category" => Self::Classification,
            "classscheme" | "classificationscheme" | "scheme" => Self::ClassScheme,
            "labels" | "label" | "tags" | "tag" => Self::Labels,
            "basis" => Self::Basis,
            "firstseen" | "firstseenat" | "firstseenms" => Self::FirstSeen,
            "expires" | "expiresat" | "expiry" | "expiresms" => Self::Expires,
            "state" | "status" => Self::State,
            "ignore" | "skip" | "set" | "entry" | "publisher" | "origin" => Self::Ignored,
            plain => Self::Signal(signal_column(plain)?),
        })
    }

    /// The name that error texts use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reference => "source reference",
            Self::Signal(_) => "signal",
            Self::PdqQuality => "PDQ quality",
            Self::Kind => "kind",
            Self::Value => "value",
            Self::Signals => "signals",
            Self::MediaKind => "media kind",
            Self::Classification => "classification",
            Self::ClassScheme => "classification scheme",
            Self::Labels => "labels",
            Self::Basis => "basis",
            Self::FirstSeen => "first seen time",
            Self::Expires => "expiry time",
            Self::State => "state",
            Self::Ignored => "ignored column",
        }
    }

    /// Whether more than one column may give it.
    pub(crate) const fn is_repeatable(self) -> bool {
        matches!(
            self,
            Self::Signal(_) | Self::Signals | Self::Labels | Self::Ignored
        )
    }

    /// Whether a column of it can bring a signal.
    pub(crate) const fn is_signal(self) -> bool {
        matches!(self, Self::Signal(_) | Self::Signals | Self::Value)
    }
}

/// The kind of a column such as `md5`, `sha-256 hash` or `photodna_b64`.
fn signal_column(plain: &str) -> Option<SignalKind> {
    let stem = ["hash", "hex", "b64", "base64", "sum", "digest"]
        .iter()
        .find_map(|suffix| plain.strip_suffix(suffix))
        .unwrap_or(plain);
    kind_named(stem).or_else(|| kind_named(plain))
}

/// Finds a kind of signal by one of its names.
pub(crate) fn kind_named(name: &str) -> Option<SignalKind> {
    SignalKind::parse(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_known_by_their_usual_names() {
        let md5 = kind_named("MD5").unwrap();
        for name in ["md5", "MD5", "MD5 hash", "md5_hex", "md5sum"] {
            assert_eq!(Field::parse(name), Some(Field::Signal(md5)), "{name}");
        }
        let photodna = kind_named("PHOTODNA").unwrap();
        for name in ["photodna", "PhotoDNA_b64", "pdna"] {
            assert_eq!(Field::parse(name), Some(Field::Signal(photodna)), "{name}");
        }
        for (name, kind) in [
            ("SHA-256", "SHA256"),
            ("sha1", "SHA1"),
            ("sha512", "SHA512"),
            ("pdq", "PDQ"),
            ("vpdq", "VPDQ"),
            ("url", "URL"),
            ("url_digest", "URL"),
        ] {
            let kind = kind_named(kind).unwrap();
            assert_eq!(Field::parse(name), Some(Field::Signal(kind)), "{name}");
        }
        assert_eq!(Field::parse("Category"), Some(Field::Classification));
        assert_eq!(Field::parse("entry_id"), Some(Field::Reference));
        assert_eq!(Field::parse("file name"), None);
    }
}
