//! Signals: the shared item, a kind and a value.
//!
//! Owns the one table of kinds (`kind`), reading and printing of values, the
//! canonical bytes of vPDQ (`vpdq`), the key of the exact index, and the list of
//! values that identify nothing (`hygiene`). Matching is not here.
//!
//! A [`Signal`] has the length that its kind dictates. Its `Debug` shows the kind
//! only, and no error carries a value.

mod hygiene;
mod kind;
mod vpdq;

use std::fmt;

use bytes::Bytes;
use data_encoding::{BASE32, BASE32_NOPAD, BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use data_encoding::{Encoding, HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::id::Digest;
use crate::reject::Rejection;

pub use hygiene::{HygieneFlag, hygiene};
pub use kind::{KindParseError, Length, OPAQUE_MAX_BYTES, SignalKind, TextForm};
pub use vpdq::{Frame, VPDQ_FRAMES_MAX};

/// The best quality that PDQ gives.
pub const QUALITY_MAX: u8 = 100;
/// The longest text of a signal that is looked at: a vPDQ of the most frames in
/// its longest upstream form, with room for blanks.
pub const TEXT_MAX_BYTES: usize = 32 * 1024;

const WHAT: &str = "signal";

/// A kind and a value of the length that the kind dictates; for PDQ, where it is
/// known, its quality.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal {
    kind: SignalKind,
    value: Bytes,
    quality: Option<u8>,
}

impl Signal {
    /// Takes a value in canonical bytes.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for a length that the kind does not have, for a
    /// vPDQ that is not canonical, and for a quality above 100 or beside another
    /// kind than PDQ.
    pub fn new(kind: SignalKind, value: Bytes, quality: Option<u8>) -> Result<Self, Rejection> {
        if !kind.length().allows(value.len()) {
            return Err(wrong_length(kind, value.len()));
        }
        if kind == SignalKind::Vpdq {
            vpdq::check(&value)?;
        }
        if quality.is_some_and(|quality| kind != SignalKind::Pdq || quality > QUALITY_MAX) {
            let why = "only PDQ has a quality, of 0 to 100";
            return Err(Rejection::invalid(WHAT, why));
        }
        Ok(Self {
            kind,
            value,
            quality,
        })
    }

    /// Reads a value in any spelling that its kind accepts: hexadecimal in either
    /// case, base64, base32; for vPDQ its upstream forms.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] or [`Rejection::Invalid`]; neither shows the text.
    pub fn parse(kind: SignalKind, text: &str) -> Result<Self, Rejection> {
        Rejection::cap("signal text", text.len(), TEXT_MAX_BYTES)?;
        let text = text.trim();
        let value = match kind.text_form() {
            TextForm::VpdqFrames => vpdq::parse(text)?,
            TextForm::Hex | TextForm::Base64 => decode_text(kind, text)?,
        };
        Self::new(kind, value, None)
    }

    /// Reads `KIND:VALUE`, such as `PDQ:f8f8…`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and for a kind that is not known.
    pub fn parse_spec(spec: &str) -> Result<Self, Rejection> {
        let parts = spec.split_once(':');
        let (kind, text) = parts.ok_or_else(|| Rejection::invalid(WHAT, "reads KIND:VALUE"))?;
        let kind = SignalKind::parse(kind.trim())
            .map_err(|error| Rejection::invalid(WHAT, error.to_string()))?;
        Self::parse(kind, text)
    }

    /// The same signal with `quality`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_quality(self, quality: Option<u8>) -> Result<Self, Rejection> {
        Self::new(self.kind, self.value, quality)
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> SignalKind {
        self.kind
    }

    /// The canonical bytes.
    #[must_use]
    pub const fn value(&self) -> &Bytes {
        &self.value
    }

    /// PDQ's quality, 0 to 100, where it is known.
    #[must_use]
    pub const fn quality(&self) -> Option<u8> {
        self.quality
    }

    /// The one canonical text; [`parse`](Self::parse) reads it back.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self.kind.text_form() {
            TextForm::Hex => HEXLOWER.encode(&self.value),
            TextForm::Base64 => BASE64.encode(&self.value),
            TextForm::VpdqFrames => vpdq::to_text(&self.value),
        }
    }

    /// The frames of a vPDQ in order of time; none for other kinds.
    pub fn frames(&self) -> impl Iterator<Item = Frame> + '_ {
        let frames = (self.kind == SignalKind::Vpdq).then(|| vpdq::frames(&self.value));
        frames.into_iter().flatten()
    }

    /// The key of the exact index: the kind's number, then 32 bytes. Values of a
    /// fixed length up to 32 stand as they are, with zeros after; others stand by
    /// their SHA-256.
    #[must_use]
    pub fn index_key(&self) -> [u8; 33] {
        let mut key = [0; 33];
        let (kind, rest) = key.split_at_mut(1);
        kind.copy_from_slice(&[self.kind.number_byte()]);
        match (self.kind.length(), rest.get_mut(..self.value.len())) {
            (Length::Exactly(_), Some(place)) => place.copy_from_slice(&self.value),
            _ => rest.copy_from_slice(Digest::of(&self.value).as_bytes()),
        }
        key
    }
}

/// Shows the kind, never the value.
impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({}, …)", self.kind)
    }
}

/// Decodes hexadecimal, else base64 (either alphabet), else base32. Where the
/// kind's length is fixed the number of digits tells them apart; where it is not,
/// an even number of hexadecimal digits is hexadecimal, which is canonical then.
fn decode_text(kind: SignalKind, text: &str) -> Result<Bytes, Rejection> {
    let spellings: [&Encoding; 7] = [
        &HEXLOWER_PERMISSIVE,
        &BASE64,
        &BASE64_NOPAD,
        &BASE64URL,
        &BASE64URL_NOPAD,
        &BASE32,
        &BASE32_NOPAD,
    ];
    let mut other_length = None;
    for spelling in spellings {
        let decoded = if spelling.bit_width() == 5 {
            spelling.decode(text.to_ascii_uppercase().as_bytes())
        } else {
            spelling.decode(text.as_bytes())
        };
        match decoded {
            Ok(value) if kind.length().allows(value.len()) => return Ok(value.into()),
            Ok(value) => other_length = other_length.or(Some(value.len())),
            Err(_) => {}
        }
    }
    Err(other_length.map_or_else(
        || {
            Rejection::invalid(
                WHAT,
                format!("{kind}: neither hexadecimal, base64 nor base32"),
            )
        },
        |length| wrong_length(kind, length),
    ))
}

fn wrong_length(kind: SignalKind, length: usize) -> Rejection {
    let why = format!("{kind} has {}, this has {length}", kind.length());
    Rejection::invalid(WHAT, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PDQ: &str = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22";

    fn parse(spec: &str) -> Signal {
        Signal::parse_spec(spec).unwrap()
    }

    #[test]
    fn spellings_of_one_value_are_one_signal() {
        let sha1 = parse("sha1:0123456789abcdef0123456789abcdef01234567");
        assert_eq!(
            sha1,
            parse("SHA-1:0123456789ABCDEF0123456789ABCDEF01234567")
        );
        assert_eq!(sha1, parse("SHA1:AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH"));
        assert_eq!(sha1, parse("SHA1:ASNFZ4mrze8BI0VniavN7wEjRWc="));
        let pdq = parse(&format!("HASH_PDQ: {} ", PDQ.to_uppercase()));
        let base64 = BASE64.encode(pdq.value());
        assert_eq!(pdq, parse(&format!("pdq:{base64}")));
        assert_eq!(pdq.to_text(), PDQ);
    }

    #[test]
    fn photodna_is_read_in_base64_and_in_hexadecimal() {
        let value: Vec<u8> = (0..144).collect();
        let signal = parse(&format!("PDNA:{}", BASE64.encode(&value)));
        let hex = HEXLOWER.encode(&value);
        assert_eq!(signal, parse(&format!("PhotoDNA:{hex}")));
        assert_eq!(signal.to_text().len(), 192);
    }

    #[test]
    fn wrong_lengths_and_letters_are_refused_without_the_value() {
        for spec in [
            "MD5:00112233445566778899aabbccddee",
            "MD5:zz112233445566778899aabbccddee££",
            "MD5:",
            "NETCLEAN:",
        ] {
            let error = Signal::parse_spec(spec).unwrap_err();
            assert_eq!(error.code(), "invalid");
            assert!(!error.to_string().contains("112233"), "{error}");
        }
        assert!(Signal::parse_spec("00112233445566778899aabbccddeeff").is_err());
        let unknown = Signal::parse_spec("00112233445566778899aabbccddeeff:MD5").unwrap_err();
        assert!(!unknown.to_string().contains("0011"), "{unknown}");
    }

    #[test]
    fn only_pdq_has_a_quality_up_to_100() {
        let pdq = parse(&format!("PDQ:{PDQ}"));
        assert!(pdq.clone().with_quality(Some(100)).is_ok());
        assert!(pdq.with_quality(Some(101)).is_err());
        let md5 = parse("MD5:00112233445566778899aabbccddeeff");
        assert!(md5.with_quality(Some(1)).is_err());
    }

    #[test]
    fn debug_shows_no_value() {
        let shown = format!("{:?}", parse(&format!("PDQ:{PDQ}")));
        assert_eq!(shown, "Signal(PDQ, …)");
    }

    #[test]
    fn index_keys_of_different_signals_differ() {
        let short = parse("NETCLEAN:00");
        let longer = parse("NETCLEAN:0000");
        assert_ne!(short.index_key(), longer.index_key());
        let md5 = parse("MD5:00112233445566778899aabbccddeeff");
        assert_eq!(md5.index_key()[..17], [&[1], &md5.value()[..]].concat());
        assert_eq!(md5.index_key()[17..], [0; 16]);
        let sha512 = Signal::new(SignalKind::Sha512, vec![1; 64].into(), None).unwrap();
        assert_eq!(sha512.index_key()[1..], *Digest::of(&[1; 64]).as_bytes());
    }

    fn any_signal() -> impl Strategy<Value = Signal> {
        let kinds = prop::sample::select(SignalKind::ALL.to_vec());
        (kinds, prop::collection::vec(any::<u8>(), 37 * 3)).prop_map(|(kind, bytes)| {
            let value = match kind.length() {
                Length::Exactly(length) => bytes.into_iter().cycle().take(length).collect(),
                Length::Within { .. } if kind == SignalKind::Vpdq => canonical_vpdq(&bytes),
                Length::Within { .. } => bytes,
            };
            Signal::new(kind, value.into(), None).unwrap()
        })
    }

    fn canonical_vpdq(bytes: &[u8]) -> Vec<u8> {
        let frames = bytes.chunks(37).map(|chunk| Frame {
            pdq: chunk[..32].try_into().unwrap(),
            quality: chunk[32] % 101,
            at_ms: u32::from_be_bytes(chunk[33..].try_into().unwrap()),
        });
        vpdq::to_bytes(frames.collect()).unwrap().to_vec()
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back(signal in any_signal()) {
            let read = Signal::parse(signal.kind(), &signal.to_text()).unwrap();
            prop_assert_eq!(read, signal);
        }

        #[test]
        fn no_text_panics(kind in prop::sample::select(SignalKind::ALL.to_vec()), text in ".{0,300}") {
            let _ = Signal::parse(kind, &text);
        }
    }
}
