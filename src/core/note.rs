//! Signed notes: a text and the signatures beneath it (C2SP `signed-note`).
//!
//! ```text
//! <text, one or more lines>
//!
//! — <key name> <base64 of key id (4 bytes) ‖ signature>
//! ```
//!
//! Owns: the format, key ids and verifier keys. Does not own: what a text means
//! ([`crate::checkpoint`]). A parsed note is not verified.
//!
//! Parsing is strict: what [`Note::parse`] accepts is byte for byte what
//! [`Note::format`] writes, so no byte of an accepted note can be changed without
//! the parser or a signature noticing.
//!
//! Source: C2SP `signed-note`, `tlog-cosignature`.

use data_encoding::{BASE64, HEXLOWER};

use crate::id::Digest;
use crate::keys::{Feed, PublicKey, Purpose, Witness};
use crate::limits::NOTE_MAX_BYTES;
use crate::reject::Rejection;

/// The longest name of a key: an origin has at most 182 bytes.
pub const KEY_NAME_MAX_BYTES: usize = 255;
/// The longest signature: a cosignature's time and Ed25519 signature.
pub const SIGNATURE_MAX_BYTES: usize = 8 + 64;
/// Signature lines in one note: the publisher's, with room for other tools' notes.
pub const SIGNATURES_MAX: usize = 16;

/// Begins a signature line: an em dash and a space.
const LINE_START: &str = "\u{2014} ";

/// A purpose whose keys sign notes, with its C2SP signature type.
pub trait NoteKey: Purpose {
    /// 0x01 for Ed25519 over the text, 0x04 for `cosignature/v1`.
    const SIGNATURE_TYPE: u8;
}

impl NoteKey for Feed {
    const SIGNATURE_TYPE: u8 = 0x01;
}

impl NoteKey for Witness {
    const SIGNATURE_TYPE: u8 = 0x04;
}

/// The four bytes by which a signature line names its key.
pub type KeyId = [u8; 4];

/// Computes a key's id: the first four bytes of SHA-256(name ‖ `\n` ‖ signature
/// type ‖ key). Ids can collide; they choose a key, they do not prove it.
#[must_use]
pub fn key_id<P: NoteKey>(name: &str, key: &PublicKey<P>) -> KeyId {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(b'\n');
    bytes.push(P::SIGNATURE_TYPE);
    bytes.extend(key.as_bytes());
    let [a, b, c, d, ..] = Digest::of(&bytes).0;
    [a, b, c, d]
}

/// Writes a key as other tools take it: `name+hex key id+base64(type ‖ key)`.
#[must_use]
pub fn vkey<P: NoteKey>(name: &str, key: &PublicKey<P>) -> String {
    let mut bytes = vec![P::SIGNATURE_TYPE];
    bytes.extend(key.as_bytes());
    let id = HEXLOWER.encode(&key_id(name, key));
    format!("{name}+{id}+{}", BASE64.encode(&bytes))
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub key_id: KeyId,
    /// The signature, 1 to 72 bytes.
    pub signature: Vec<u8>,
}

impl SignatureLine {
    /// Reads one line with its newline.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] or [`Rejection::Malformed`].
    pub fn parse(line: &[u8]) -> Result<Self, Rejection> {
        Rejection::cap("signature line", line.len(), LINE_MAX_BYTES)?;
        let text = std::str::from_utf8(line).map_err(|_| malformed("no UTF-8"))?;
        let line = text.strip_suffix('\n').ok_or(malformed("no newline"))?;
        let rest = line
            .strip_prefix(LINE_START)
            .ok_or(malformed("no em dash"))?;
        let (name, encoded) = rest.split_once(' ').ok_or(malformed("no signature"))?;
        check_name(name)?;
        let bytes =
            decode_base64(encoded).ok_or(malformed("a signature that is not canonical base64"))?;
        let (key_id, signature) = bytes
            .split_first_chunk::<4>()
            .ok_or(malformed("a signature without a key id"))?;
        if signature.is_empty() || signature.len() > SIGNATURE_MAX_BYTES {
            return Err(malformed("a signature of a length that none has"));
        }
        Ok(Self {
            name: name.to_owned(),
            key_id: *key_id,
            signature: signature.to_vec(),
        })
    }

    /// Writes the line, with its newline.
    #[must_use]
    pub fn format(&self) -> String {
        let mut bytes = self.key_id.to_vec();
        bytes.extend(&self.signature);
        format!("{LINE_START}{} {}\n", self.name, BASE64.encode(&bytes))
    }
}

/// The longest signature line.
const LINE_MAX_BYTES: usize =
    LINE_START.len() + KEY_NAME_MAX_BYTES + 1 + (4 + SIGNATURE_MAX_BYTES).div_ceil(3) * 4 + 1;

/// A text and its signature lines, as parsed: nothing is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What is signed: whole lines, with the last newline.
    pub text: String,
    /// At least one.
    pub signatures: Vec<SignatureLine>,
}

impl Note {
    /// Reads a note of at most [`NOTE_MAX_BYTES`].
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] before anything is read, [`Rejection::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        Rejection::cap("note", bytes.len(), NOTE_MAX_BYTES)?;
        let all = std::str::from_utf8(bytes).map_err(|_| malformed("no UTF-8"))?;
        if all.chars().any(|c| c.is_control() && c != '\n') {
            return Err(malformed("a control character"));
        }
        // The last empty line ends the text; the text keeps its own newline.
        let (before, lines) = all.rsplit_once("\n\n").ok_or(malformed("no empty line"))?;
        if before.is_empty() {
            return Err(malformed("no text"));
        }
        let count = lines.split_inclusive('\n').count();
        Rejection::cap("signatures of a note", count, SIGNATURES_MAX)?;
        let signatures = lines
            .split_inclusive('\n')
            .map(|line| SignatureLine::parse(line.as_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        if signatures.is_empty() {
            return Err(malformed("no signature"));
        }
        Ok(Self {
            text: format!("{before}\n"),
            signatures,
        })
    }

    /// Writes the note.
    #[must_use]
    pub fn format(&self) -> String {
        let lines = self.signatures.iter().map(SignatureLine::format);
        format!("{}\n{}", self.text, lines.collect::<String>())
    }
}

/// Decodes the one spelling that encoding gives: the decoder alone would accept
/// padding in the middle.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    (BASE64.encode(&bytes) == text).then_some(bytes)
}

/// Refuses a key name that C2SP does not allow: empty, with a space or a plus.
fn check_name(name: &str) -> Result<(), Rejection> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > KEY_NAME_MAX_BYTES || name.contains(bad) {
        Err(malformed(
            "a key name that is empty, too long, or has a space or +",
        ))
    } else {
        Ok(())
    }
}

fn malformed(why: &'static str) -> Rejection {
    Rejection::malformed("note", why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::SecretKey;

    fn note() -> Note {
        let line = |name: &str, n: u8| SignatureLine {
            name: name.to_owned(),
            key_id: [n; 4],
            signature: vec![n; 64],
        };
        Note {
            text: "a.example/log\n7\n\nmore\n".to_owned(),
            signatures: vec![line("a.example/log", 1), line("w.example", 2)],
        }
    }

    #[test]
    fn a_note_reads_back_as_written() {
        let text = note().format();
        assert!(text.contains("\nmore\n\n\u{2014} a.example/log AQEBAQEB"));
        assert_eq!(Note::parse(text.as_bytes()), Ok(note()));
    }

    #[test]
    fn key_ids_and_vkeys_are_those_of_c2sp() {
        let key = SecretKey::<Feed>::from_seed(&[1; 32]).public();
        let mut bytes = b"a.example/log\n\x01".to_vec();
        bytes.extend(key.as_bytes());
        let id = key_id("a.example/log", &key);
        assert_eq!(id, Digest::of(&bytes).0[..4]);
        let vkey = vkey("a.example/log", &key);
        assert!(vkey.starts_with(&format!("a.example/log+{}+A", HEXLOWER.encode(&id))));
        let witness = SecretKey::<Witness>::from_seed(&[1; 32]).public();
        assert_ne!(key_id("a.example/log", &witness), id);
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let good = note().format();
        let line = note().signatures[0].format();
        let unpadded = good.trim_end().trim_end_matches('=').to_owned() + "\n";
        for bad in [
            String::new(),
            "\n".to_owned(),
            "text\n".to_owned(),
            "text\n\n".to_owned(),
            format!("\n\n{line}"),
            format!("text\n{line}"),
            good.trim_end().to_owned(),
            format!("{good}\n"),
            format!("{good} "),
            format!("{good}more\n"),
            good.replace("\n7\n", "\r\n7\n"),
            good.replace("\n7\n", "\n\t7\n"),
            good.replace("\u{2014} ", "- "),
            good.replace("\u{2014} ", "\u{2014}  "),
            good.replace("w.example", "w+example"),
            good.replace("w.example", "w\u{a0}example"),
            unpadded,
            "text\n\n\u{2014} name AQEB\n".to_owned(),
            "text\n\n\u{2014} name AQEBAQ==\n".to_owned(),
            "text\n\n\u{2014} name AQE=AQEBAQ==\n".to_owned(),
            // Trailing bits that are not zero.
            "text\n\n\u{2014} name AQEBAQF=\n".to_owned(),
        ] {
            assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Note::parse(&[good.as_bytes(), b"\xff"].concat()).is_err());
    }

    #[test]
    fn sizes_are_capped_before_anything_is_read() {
        let large = vec![0xff; NOTE_MAX_BYTES + 1];
        assert_eq!(Note::parse(&large).map_err(|r| r.code()), Err("too_large"));
        let mut many = note();
        many.text = "t\n".to_owned();
        many.signatures = vec![
            SignatureLine {
                name: "n".to_owned(),
                key_id: [0; 4],
                signature: vec![1],
            };
            SIGNATURES_MAX + 1
        ];
        let verdict = Note::parse(many.format().as_bytes());
        assert_eq!(verdict.map_err(|r| r.code()), Err("too_large"));
        let verdict = SignatureLine::parse(&[b'a'; LINE_MAX_BYTES + 1]);
        assert_eq!(verdict.map_err(|r| r.code()), Err("too_large"));
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_what_would_be_written(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = note().format().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(note) = Note::parse(&bytes) {
                prop_assert_eq!(note.format().into_bytes(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Note::parse(&bytes);
            let _ = SignatureLine::parse(&bytes);
        }
    }
}
