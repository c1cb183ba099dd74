//! The fields of a VICS media entry that are imported.

use std::fmt;

use hashpact_core::signal::SignalKind;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::draft::Draft;
use crate::field::{Field, kind_named};
use crate::options::Options;
use crate::record::Record;
use crate::reject::RejectReason;

/// What is taken out of an entry; everything else in it is skipped by serde.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Media {
    #[serde(rename = "MediaID", skip_serializing_if = "Loose::is_none")]
    id: Loose,
    #[serde(skip_serializing_if = "Loose::is_none")]
    category: Loose,
    #[serde(rename = "MD5", skip_serializing_if = "Loose::is_none")]
    md5: Loose,
    #[serde(rename = "SHA1", skip_serializing_if = "Loose::is_none")]
    sha1: Loose,
    #[serde(rename = "SHA256", skip_serializing_if = "Loose::is_none")]
    sha256: Loose,
    #[serde(rename = "PhotoDNA", skip_serializing_if = "Loose::is_none")]
    photodna: Loose,
    #[serde(skip_serializing_if = "Loose::is_none")]
    mime_type: Loose,
    #[serde(skip_serializing_if = "Loose::is_none")]
    tags: Loose,
    #[serde(skip_serializing_if = "Loose::is_none")]
    series: Loose,
    #[serde(skip_serializing_if = "Loose::is_none")]
    victim_identified: Loose,
    #[serde(skip_serializing_if = "Loose::is_none")]
    offender_identified: Loose,
    #[serde(skip_serializing_if = "Loose::is_none")]
    is_distributed: Loose,
    #[serde(skip_serializing_if = "Option::is_none")]
    alternative_hashes: Option<Vec<AlternativeHash>>,
    #[serde(rename = "MediaFiles", skip_serializing_if = "Option::is_none")]
    files: Option<Vec<MediaFile>>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
struct AlternativeHash {
    hash_name: Loose,
    hash_value: Loose,
}

/// A file occurrence: its hash, and nothing that says where it lay.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct MediaFile {
    #[serde(rename = "MD5", skip_serializing_if = "Loose::is_none")]
    md5: Loose,
    #[serde(rename = "SHA1", skip_serializing_if = "Loose::is_none")]
    sha1: Loose,
}

impl Media {
    pub(super) fn record(
        &self,
        entry: u64,
        country: Option<&str>,
        options: &Options,
    ) -> Result<Record, RejectReason> {
        let mut draft = Draft::default();
        draft.set(Field::Reference, self.id.bytes())?;
        draft.set(Field::Signal(SignalKind::Md5), self.md5.bytes())?;
        draft.set(Field::Signal(SignalKind::Sha1), self.sha1.bytes())?;
        draft.set(Field::Signal(SignalKind::Sha256), self.sha256.bytes())?;
        draft.set(Field::Signal(SignalKind::PhotoDna), self.photodna.bytes())?;
        for hash in self.alternative_hashes.iter().flatten() {
            // Names that are not in the table belong to tools, not to the exchange.
            if let Some(kind) = hash.hash_name.text().and_then(kind_named) {
                draft.set(Field::Signal(kind), hash.hash_value.bytes())?;
            }
        }
        if self.md5.is_none() {
            let hash = self.of_files(|file| &file.md5)?;
            draft.set(Field::Signal(SignalKind::Md5), hash.as_bytes())?;
        }
        if self.sha1.is_none() {
            let hash = self.of_files(|file| &file.sha1)?;
            draft.set(Field::Signal(SignalKind::Sha1), hash.as_bytes())?;
        }
        self.describe(&mut draft, country)?;
        draft.finish(entry, options)
    }

    /// The hash that all file occurrences share.
    fn of_files(&self, hash: impl Fn(&MediaFile) -> &Loose) -> Result<&str, RejectReason> {
        let files = self.files.iter().flatten();
        let mut hashes = files.filter_map(|file| hash(file).text());
        let Some(first) = hashes.next() else {
            return Ok("");
        };
        if hashes.any(|other| !other.eq_ignore_ascii_case(first)) {
            return Err(RejectReason::FilesDiffer);
        }
        Ok(first)
    }

    fn describe(&self, draft: &mut Draft, country: Option<&str>) -> Result<(), RejectReason> {
        if let Some(category) = self.category.text() {
            let what = Field::Classification.name();
            let number: u32 = category
                .parse()
                .map_err(|_| RejectReason::UnknownWord { what })?;
            let class = match country {
                Some(country) => format!("vics-{country}:{number}"),
                None => format!("vics:{number}"),
            };
            draft.set(Field::Classification, class.as_bytes())?;
        }
        if let Some(mime) = self.mime_type.text() {
            let known = mime.starts_with("image/") || mime.starts_with("video/");
            if known {
                draft.set(Field::MediaKind, mime.as_bytes())?;
            }
        }
        for tag in self.tags.text().unwrap_or_default().split([';', ',']) {
            draft.label(tag)?;
        }
        if let Some(series) = self.series.text() {
            draft.label(&format!("series:{series}"))?;
        }
        for (flag, label) in [
            (&self.victim_identified, "victim-identified"),
            (&self.offender_identified, "offender-identified"),
            (&self.is_distributed, "distributed"),
        ] {
            if flag.is_true() {
                draft.label(label)?;
            }
        }
        Ok(())
    }
}

/// The country in a context such as `…/DataModels/2.0.xml/US/$metadata#Media`.
pub(super) fn country_of(context: &str) -> Option<String> {
    let (_, path) = context.split_once(".xml/")?;
    let (country, _) = path.split_once('/')?;
    let is_word = country.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let fits = is_word && (1..=16).contains(&country.len());
    fits.then(|| country.to_ascii_lowercase())
}

/// Text that may come as a string, a number, a boolean or null.
#[derive(Default)]
struct Loose(Option<String>);

impl Loose {
    const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    fn text(&self) -> Option<&str> {
        let text = self.0.as_deref().map(str::trim);
        text.filter(|text| !text.is_empty() && !text.eq_ignore_ascii_case("null"))
    }

    fn bytes(&self) -> &[u8] {
        self.text().unwrap_or_default().as_bytes()
    }

    fn is_true(&self) -> bool {
        self.text()
            .is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true"))
    }
}

impl Serialize for Loose {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl Visitor<'_> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, a boolean or null")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose(Some(text.to_owned())))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Loose, E> {
        Ok(Loose(Some(text)))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Loose, E> {
        Ok(Loose(Some(value.to_string())))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Loose, E> {
        Ok(Loose(Some(value.to_string())))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Loose, E> {
        Ok(Loose(Some(value.to_string())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Loose, E> {
        Ok(Loose(Some(value.to_string())))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Loose, E> {
        Ok(Loose(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_country_is_read_from_the_context() {
        let base = "http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml";
        let us = country_of(&format!("{base}/US/$metadata#Media"));
        assert_eq!(us.as_deref(), Some("us"));
        let none = "http://github.com/ICMEC/ProjectVic/DataModels/1.3.xml#Media";
        assert_eq!(country_of(none), None);
    }
}
