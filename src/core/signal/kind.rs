//! The one table of signal kinds: number, name, length, text, accepted names.

use std::fmt;

use super::vpdq::{FRAME_BYTES, VPDQ_FRAMES_MAX};

/// The longest value of an opaque kind, so that a leaf holds two of them.
pub const OPAQUE_MAX_BYTES: usize = 3_500;

/// What a signal is. The numbers are part of the protocol and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SignalKind {
    /// MD5 of the file.
    Md5 = 1,
    /// SHA-1 of the file.
    Sha1 = 2,
    /// SHA-256 of the file.
    Sha256 = 3,
    /// SHA-512 of the file.
    Sha512 = 4,
    /// Meta's perceptual hash of an image, 256 bits.
    Pdq = 5,
    /// Microsoft's perceptual hash of an image, 144 bytes.
    PhotoDna = 6,
    /// PDQ of a video's frames.
    Vpdq = 7,
    /// SHA-256 of the TMK+PDQF file of a video.
    TmkPdqf = 8,
    /// SHA-256 of one canonical expression of a URL.
    Url = 9,
    /// `NetClean`'s own, opaque.
    Netclean = 32,
    /// Videntifier's own, opaque.
    Videntifier = 33,
    /// Safer's scene-sensitive video hash over PhotoDNA, opaque.
    SsvhPdna = 34,
    /// Safer's scene-sensitive video hash, opaque.
    SsvhSaferHash = 35,
}

/// How many bytes a kind's value has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// This many.
    Exactly(usize),
    /// One to this many.
    Within {
        /// The most.
        max: usize,
    },
}

/// How a kind's value is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    /// Lower-case hexadecimal.
    Hex,
    /// Base64 with padding.
    Base64,
    /// A JSON list of `"hex,quality,seconds"`.
    VpdqFrames,
}

/// A name that no kind has. It is not repeated: a value may stand in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no signal kind has this name; known are MD5, SHA1, SHA256, SHA512, PDQ, PHOTODNA, VPDQ, TMK_PDQF, URL, NETCLEAN, VIDENTIFIER, SSVH_PDNA, SSVH_SAFER_HASH"
)]
pub struct KindParseError;

struct Row {
    kind: SignalKind,
    name: &'static str,
    length: Length,
    text: TextForm,
    /// Further names, in upper case and without `-`, `_`, `+`, `.` and blanks.
    aliases: &'static [&'static str],
}

const fn row(
    kind: SignalKind,
    name: &'static str,
    length: Length,
    text: TextForm,
    aliases: &'static [&'static str],
) -> Row {
    Row {
        kind,
        name,
        length,
        text,
        aliases,
    }
}

const OPAQUE: Length = Length::Within {
    max: OPAQUE_MAX_BYTES,
};
const VPDQ: Length = Length::Within {
    max: FRAME_BYTES * VPDQ_FRAMES_MAX,
};

/// Names as NCMEC, ThreatExchange, `StopNCII`, VICS, STIX and their clients spell them.
#[rustfmt::skip]
static TABLE: [Row; 13] = {
    use Length::Exactly;
    use SignalKind as K;
    use TextForm::{Base64, Hex, VpdqFrames};
    [
        row(K::Md5, "MD5", Exactly(16), Hex, &["HASHMD5", "HASHVIDEOMD5", "VIDEOMD5", "MD5SUM"]),
        row(K::Sha1, "SHA1", Exactly(20), Hex, &["HASHSHA1", "SHA1SUM"]),
        row(K::Sha256, "SHA256", Exactly(32), Hex, &["HASHSHA256", "HASHVIDEOSHA256", "SHA256SUM"]),
        row(K::Sha512, "SHA512", Exactly(64), Hex, &["HASHSHA512", "SHA512SUM"]),
        row(K::Pdq, "PDQ", Exactly(32), Hex, &["HASHPDQ", "IMAGEPDQ"]),
        row(K::PhotoDna, "PHOTODNA", Exactly(144), Base64, &["PDNA", "HASHPHOTODNA", "PHOTODNAB64"]),
        row(K::Vpdq, "VPDQ", VPDQ, VpdqFrames, &["HASHVPDQ", "VIDEOPDQ", "VIDEOVPDQ"]),
        row(K::TmkPdqf, "TMK_PDQF", Exactly(32), Hex, &["TMK", "HASHTMK", "HASHTMKPDQF"]),
        row(K::Url, "URL", Exactly(32), Hex, &["URLSHA256", "URLDIGEST"]),
        row(K::Netclean, "NETCLEAN", OPAQUE, Hex, &[]),
        row(K::Videntifier, "VIDENTIFIER", OPAQUE, Hex, &[]),
        row(K::SsvhPdna, "SSVH_PDNA", OPAQUE, Hex, &[]),
        row(K::SsvhSaferHash, "SSVH_SAFER_HASH", OPAQUE, Hex, &["TMKSAFERHASH"]),
    ]
};

impl SignalKind {
    /// Every kind, in order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Md5,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
        Self::Pdq,
        Self::PhotoDna,
        Self::Vpdq,
        Self::TmkPdqf,
        Self::Url,
        Self::Netclean,
        Self::Videntifier,
        Self::SsvhPdna,
        Self::SsvhSaferHash,
    ];

    /// The kind of a number; none for numbers that are not known.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Reads a kind's name in any case and in the spellings of the field:
    /// `SHA-1`, `sha1`, `PhotoDNA`, `PDNA`, `HASH_PDQ`, `TMK_PDQF`.
    ///
    /// # Errors
    /// [`KindParseError`], which does not repeat the text.
    pub fn parse(name: &str) -> Result<Self, KindParseError> {
        if name.len() > 64 {
            return Err(KindParseError);
        }
        let plain = plain_name(name);
        let is_named =
            |row: &&Row| plain_name(row.name) == plain || row.aliases.contains(&plain.as_str());
        let row = TABLE.iter().find(is_named).ok_or(KindParseError)?;
        Ok(row.kind)
    }

    /// The number in leaves.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The number as the first byte of index keys.
    #[must_use]
    pub const fn number_byte(self) -> u8 {
        self as u8
    }

    /// The canonical name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// How many bytes a value has.
    #[must_use]
    pub fn length(self) -> Length {
        self.row().length
    }

    /// How a value is printed.
    #[must_use]
    pub fn text_form(self) -> TextForm {
        self.row().text
    }

    fn row(self) -> &'static Row {
        let [first, ..] = &TABLE;
        TABLE.iter().find(|row| row.kind == self).unwrap_or(first)
    }
}

impl fmt::Display for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Length {
    /// Whether a value may have this many bytes.
    #[must_use]
    pub const fn allows(self, length: usize) -> bool {
        match self {
            Self::Exactly(exact) => length == exact,
            Self::Within { max } => 1 <= length && length <= max,
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(exact) => write!(f, "{exact} bytes"),
            Self::Within { max } => write!(f, "1 to {max} bytes"),
        }
    }
}

fn plain_name(name: &str) -> String {
    let kept = name.chars().filter(|c| !"-_+. ".contains(*c));
    kept.map(|c| c.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_row_and_name() {
        for (kind, row) in SignalKind::ALL.into_iter().zip(&TABLE) {
            assert_eq!(row.kind, kind);
            assert_eq!(SignalKind::parse(kind.name()), Ok(kind));
            assert_eq!(SignalKind::from_number(kind.number()), Some(kind));
            for alias in row.aliases {
                assert_eq!(SignalKind::parse(alias), Ok(kind), "{alias}");
                assert_eq!(plain_name(alias), **alias);
            }
        }
    }

    #[test]
    fn names_are_read_as_the_field_spells_them() {
        for (name, kind) in [
            ("SHA-1", SignalKind::Sha1),
            ("sha_256", SignalKind::Sha256),
            ("PDNA", SignalKind::PhotoDna),
            ("PhotoDNA", SignalKind::PhotoDna),
            ("HASH_PDQ", SignalKind::Pdq),
            ("ImagePDQ", SignalKind::Pdq),
            ("HASH_VIDEO_MD5", SignalKind::Md5),
            ("tmk-pdqf", SignalKind::TmkPdqf),
            ("TMK+PDQF", SignalKind::TmkPdqf),
            ("TMK_SAFER_HASH", SignalKind::SsvhSaferHash),
        ] {
            assert_eq!(SignalKind::parse(name), Ok(kind), "{name}");
        }
        assert_eq!(SignalKind::parse("CRC32"), Err(KindParseError));
        assert_eq!(SignalKind::from_number(0), None);
        assert_eq!(SignalKind::from_number(10), None);
    }
}
