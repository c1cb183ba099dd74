//! Files that travel alone: proofs and evidence.
//!
//! ```text
//! hashpact ‹kind› ‹version›\n ‖ body ‖ SHA-256 over all before it (32 bytes)
//! ```
//!
//! The digest finds damage on the way, before anything is decoded. It is nobody's
//! signature: who changes a file can write another. So the body is verified as if it
//! had no digest; and it has one spelling only, so that no byte of it says nothing.

use bytes::{Buf as _, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint};

use crate::id::Digest;
use crate::reject::Rejection;

/// The digest at the end.
const END_BYTES: usize = 32;

/// A kind of file.
pub(crate) struct Form {
    /// For error texts.
    pub(crate) what: &'static str,
    /// The first line but for the version and the newline.
    pub(crate) begins: &'static str,
    /// The version that is written and read here, one digit.
    pub(crate) version: char,
    /// The longest file.
    pub(crate) max_bytes: usize,
}

impl Form {
    /// The file around a body.
    pub(crate) fn seal(&self, body: &[u8]) -> Vec<u8> {
        let mut file = self.first_line().into_bytes();
        file.extend_from_slice(body);
        let digest = Digest::of(&file);
        file.extend_from_slice(digest.as_bytes());
        file
    }

    /// The body of a file, once size, first line and digest are right.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`]; [`Rejection::Malformed`] for another kind of file and
    /// for damage; [`Rejection::Invalid`] for another version.
    pub(crate) fn open(&self, file: &Bytes) -> Result<Bytes, Rejection> {
        Rejection::cap(self.what, file.len(), self.max_bytes)?;
        let first = self.first_line();
        if !file.starts_with(first.as_bytes()) {
            return Err(self.other(file));
        }
        let damaged = || Rejection::malformed(self.what, "its digest does not fit: it is damaged");
        let (rest, end) = file.split_last_chunk::<END_BYTES>().ok_or_else(damaged)?;
        if rest.len() < first.len() || Digest::of(rest) != Digest(*end) {
            return Err(damaged());
        }
        Ok(file.slice(first.len()..rest.len()))
    }

    fn first_line(&self) -> String {
        format!("{}{}\n", self.begins, self.version)
    }

    fn other(&self, file: &[u8]) -> Rejection {
        if file.starts_with(self.begins.as_bytes()) {
            let why = format!("of another version than {}", self.version);
            return Rejection::invalid(self.what, why);
        }
        Rejection::malformed(self.what, "it does not begin as such a file does")
    }
}

/// What a message may have of one field.
pub(crate) struct Part {
    /// The field's number.
    pub(crate) number: u32,
    /// For error texts.
    pub(crate) name: &'static str,
    /// How often it may come.
    pub(crate) count: usize,
    /// How long one may be, where it is delimited.
    pub(crate) bytes: usize,
}

impl Part {
    pub(crate) const fn new(number: u32, name: &'static str, count: usize, bytes: usize) -> Self {
        Self {
            number,
            name,
            count,
            bytes,
        }
    }
}

/// Counts and measures the fields of a message before anything is allocated for them:
/// an empty field is 2 bytes in the file and some 30 in memory.
///
/// # Errors
/// [`Rejection::TooLarge`]; [`Rejection::Malformed`] for a field that is not named.
pub(crate) fn check_parts(
    what: &'static str,
    message: &Bytes,
    parts: &[Part],
) -> Result<(), Rejection> {
    let malformed = |error: prost::DecodeError| Rejection::malformed(what, error.to_string());
    let mut counts = vec![0_usize; parts.len()];
    let mut rest = message.clone();
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(malformed)?;
        let value = decode_varint(&mut rest).map_err(malformed)?;
        let found = parts.iter().zip(&mut counts).find(|(p, _)| p.number == tag);
        let Some((part, count)) = found else {
            return Err(Rejection::malformed(what, "a field that is not known"));
        };
        *count = count.saturating_add(1);
        Rejection::cap(part.name, *count, part.count)?;
        match wire_type {
            WireType::Varint => {}
            WireType::LengthDelimited => {
                let length = usize::try_from(value).unwrap_or(usize::MAX);
                Rejection::cap(part.name, length, part.bytes)?;
                if length > rest.len() {
                    return Err(Rejection::malformed(what, "a field is cut"));
                }
                rest.advance(length);
            }
            WireType::SixtyFourBit
            | WireType::ThirtyTwoBit
            | WireType::StartGroup
            | WireType::EndGroup => {
                return Err(Rejection::malformed(what, "a field of another shape"));
            }
        }
    }
    Ok(())
}

/// Refuses another spelling than `message` gives.
///
/// # Errors
/// [`Rejection::Malformed`].
pub(crate) fn check_spelling(
    what: &'static str,
    message: &impl prost::Message,
    bytes: &[u8],
) -> Result<(), Rejection> {
    if message.encode_to_vec() == bytes {
        Ok(())
    } else {
        Err(Rejection::malformed(
            what,
            "it is not spelled as it should be",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form {
        what: "sample",
        begins: "hashpact sample ",
        version: '1',
        max_bytes: 200,
    };

    fn open(file: &[u8]) -> Result<Bytes, Rejection> {
        FORM.open(&Bytes::copy_from_slice(file))
    }

    #[test]
    fn a_file_opens_to_what_was_sealed_and_a_changed_bit_anywhere_is_noticed() {
        let file = FORM.seal(b"a body");
        assert_eq!(open(&file).unwrap(), b"a body"[..]);
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut changed = file.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&changed).is_err(), "byte {at}, bit {bit}");
            }
            assert!(open(&file[..at]).is_err(), "cut at {at}");
        }
        assert!(open(&[&file[..], b"x"].concat()).is_err());
    }

    #[test]
    fn other_versions_other_files_and_long_ones_are_told_apart() {
        let code = |file: &[u8]| open(file).unwrap_err().code();
        let mut other = FORM.seal(b"");
        let version = FORM.begins.len();
        other[version] = b'2';
        assert_eq!(code(&other), "invalid");
        assert_eq!(code(b"hashpact bundle\n"), "malformed");
        assert_eq!(code(&[b'x'; 201]), "too_large");
    }

    #[test]
    fn fields_are_counted_and_measured_before_they_are_decoded() {
        let parts = [Part::new(1, "a", 2, 3), Part::new(2, "b", 1, 0)];
        let check = |bytes: &'static [u8]| {
            let verdict = check_parts("sample", &Bytes::from_static(bytes), &parts);
            verdict.map_err(|rejection| rejection.code())
        };
        assert_eq!(check(b"\x0a\x03abc\x0a\x00\x10\x07"), Ok(()));
        assert_eq!(check(b"\x0a\x00\x0a\x00\x0a\x00"), Err("too_large"));
        assert_eq!(check(b"\x0a\x04abcd"), Err("too_large"));
        assert_eq!(check(b"\x12\x01a"), Err("too_large"));
        assert_eq!(check(b"\x0a\x03ab"), Err("malformed"));
        assert_eq!(check(b"\x18\x01"), Err("malformed"));
        assert_eq!(
            check(b"\x09\x01\x01\x01\x01\x01\x01\x01\x01"),
            Err("malformed")
        );
        assert_eq!(check(b"\x0a"), Err("malformed"));
    }
}
