//! Fingerprints as words, to be read out over the telephone.
//!
//! The words are those of BIP 39 in English: 2,048 words that no two of which begin
//! with the same four letters. Each stands for 11 bits of the digest, from its first
//! bit on; 12 of them are 132 bits, so that nobody finds another request with the
//! same words. They are no BIP 39 mnemonic: there is no checksum in them.

use std::fmt;
use std::str::FromStr;

use hashpact_core::id::Digest;

use super::Context;
use super::error::CliError;

/// Words of a fingerprint.
const WORDS: usize = 12;
/// Bits in a word.
const BITS: usize = 11;
/// Words in a line.
const LINE: usize = 4;

/// The words of a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<String>);

impl Fingerprint {
    /// The words that stand for a digest.
    pub(crate) fn of(digest: &Digest) -> Self {
        let list = bip39::Language::English.word_list();
        let bit = |at: usize| {
            let byte = digest.as_bytes().get(at / 8).copied().unwrap_or(0);
            usize::from(byte >> (7 - at % 8) & 1)
        };
        let word = |number: usize| {
            let bits = (0..BITS).map(|at| bit(number * BITS + at));
            let index = bits.fold(0, |index, bit| index << 1 | bit);
            list.get(index).copied().unwrap_or_default().to_owned()
        };
        Self((0..WORDS).map(word).collect())
    }

    /// Prints the words in lines.
    pub(crate) fn print(&self, context: &Context, indent: &str) -> Result<(), CliError> {
        for line in self.0.chunks(LINE) {
            context
                .output
                .line(format_args!("{indent}{}", line.join(" ")))?;
        }
        Ok(())
    }

    /// Which word differs first, from 1.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<usize> {
        let pairs = self.0.iter().zip(&other.0);
        let same = pairs.take_while(|(one, other)| one == other).count();
        (same < WORDS).then_some(same + 1)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    /// Reads the words, or all hexadecimal digits of the digest, as `--json` has them.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits: String = text.split_whitespace().collect();
        if let Ok(digest) = Digest::from_hex(&digits) {
            return Ok(Self::of(&digest));
        }
        let apart = |c: char| c.is_whitespace() || c == ',' || c == '-';
        let words = text.split(apart).filter(|word| !word.is_empty());
        let words: Vec<String> = words.map(str::to_lowercase).collect();
        let list = bip39::Language::English;
        if let Some(stranger) = words.iter().find(|word| list.find_word(word).is_none()) {
            return Err(format!("{stranger} is no word of a fingerprint"));
        }
        if words.len() != WORDS {
            return Err(format!(
                "a fingerprint has {WORDS} words, these are {}",
                words.len()
            ));
        }
        Ok(Self(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_from_its_digits_as_well() {
        let digest = Digest::of(b"a request");
        let digits = hashpact_core::enrol::fingerprint(&digest);
        for text in [
            digits,
            digest.to_string(),
            Fingerprint::of(&digest).to_string(),
        ] {
            assert_eq!(text.parse(), Ok(Fingerprint::of(&digest)), "{text}");
        }
        assert!("00ff".parse::<Fingerprint>().is_err());
    }

    #[test]
    fn a_fingerprint_is_twelve_words_from_the_first_bits_of_the_digest() {
        // BIP 39's own vector: 7f 7f 7f 7f … is "legal winner thank year wave …".
        let words = Fingerprint::of(&Digest([0x7f; 32])).to_string();
        assert!(words.starts_with("legal winner thank year wave sausage worth useful legal"));
        assert_eq!(words.split(' ').count(), 12);
    }

    #[test]
    fn fingerprints_read_back_however_they_are_spaced() {
        let of = Fingerprint::of(&Digest::of(b"request"));
        let shouted = of.to_string().to_uppercase().replace(' ', ",\n");
        assert_eq!(shouted.parse(), Ok(of.clone()));
        assert!("abandon".parse::<Fingerprint>().is_err());
        assert!(
            of.to_string()
                .replace(' ', "x ")
                .parse::<Fingerprint>()
                .is_err()
        );
    }

    #[test]
    fn the_first_word_that_differs_is_named() {
        let one = Fingerprint::of(&Digest([0; 32]));
        let mut bytes = [0; 32];
        bytes[2] = 1;
        let other = Fingerprint::of(&Digest(bytes));
        assert_eq!(one.first_difference(&one), None);
        assert_eq!(one.first_difference(&other), Some(3));
    }
}
