//! Values that identify nothing and would match everything, or too much.

use sha2::{Digest as _, Sha512};

use super::{Signal, SignalKind};

/// A PDQ of a real image sets about half of its 256 bits: its coefficients are
/// compared with their median. Outside these bounds the image was (nearly) blank.
const PDQ_BITS: std::ops::RangeInclusive<u32> = 96..=160;
/// PDQ's authors: discard quality of 49 and below.
const QUALITY_MIN: u8 = 50;
const MD5_EMPTY: [u8; 16] = [
    0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04, 0xe9, 0x80, 0x09, 0x98, 0xec, 0xf8, 0x42, 0x7e,
];
const SHA1_EMPTY: [u8; 20] = [
    0xda, 0x39, 0xa3, 0xee, 0x5e, 0x6b, 0x4b, 0x0d, 0x32, 0x55, 0xbf, 0xef, 0x95, 0x60, 0x18, 0x90,
    0xaf, 0xd8, 0x07, 0x09,
];

const SHA256_EMPTY: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// Why a signal should not be enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HygieneFlag {
    /// The digest of an empty file.
    EmptyInput,
    /// Every byte is the same, 0x00 or 0xff.
    Uniform,
    /// A PDQ with far fewer or more than 128 bits set.
    UnbalancedPdq {
        /// Bits set.
        bits: u32,
    },
    /// A PDQ, or all frames of a vPDQ, of quality below 50.
    LowQuality {
        /// The (best) quality.
        quality: u8,
    },
}

impl HygieneFlag {
    /// The stable code for metrics and the quarantine.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::EmptyInput => "empty_input",
            Self::Uniform => "uniform_value",
            Self::UnbalancedPdq { .. } => "unbalanced_pdq",
            Self::LowQuality { .. } => "low_quality",
        }
    }
}

/// Says why `signal` identifies nothing, if so.
#[must_use]
pub fn hygiene(signal: &Signal) -> Option<HygieneFlag> {
    let value = signal.value().as_ref();
    if is_of_empty_input(signal.kind(), value) {
        return Some(HygieneFlag::EmptyInput);
    }
    if value.iter().all(|byte| *byte == 0) || value.iter().all(|byte| *byte == 0xff) {
        return Some(HygieneFlag::Uniform);
    }
    if signal.kind() == SignalKind::Vpdq {
        let best = signal.frames().map(|frame| frame.quality).max();
        return low_quality(best);
    }
    if signal.kind() != SignalKind::Pdq {
        return None;
    }
    let bits = value.iter().map(|byte| byte.count_ones()).sum();
    if PDQ_BITS.contains(&bits) {
        low_quality(signal.quality())
    } else {
        Some(HygieneFlag::UnbalancedPdq { bits })
    }
}

fn low_quality(quality: Option<u8>) -> Option<HygieneFlag> {
    let quality = quality.filter(|quality| *quality < QUALITY_MIN)?;
    Some(HygieneFlag::LowQuality { quality })
}

fn is_of_empty_input(kind: SignalKind, value: &[u8]) -> bool {
    match kind {
        SignalKind::Md5 => value == MD5_EMPTY,
        SignalKind::Sha1 => value == SHA1_EMPTY,
        SignalKind::Sha256 | SignalKind::TmkPdqf | SignalKind::Url => value == SHA256_EMPTY,
        SignalKind::Sha512 => value == Sha512::digest(b"").as_slice(),
        SignalKind::Pdq
        | SignalKind::PhotoDna
        | SignalKind::Vpdq
        | SignalKind::Netclean
        | SignalKind::Videntifier
        | SignalKind::SsvhPdna
        | SignalKind::SsvhSaferHash => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(spec: &str) -> Option<&'static str> {
        hygiene(&Signal::parse_spec(spec).unwrap()).map(HygieneFlag::code)
    }

    #[test]
    fn digests_of_nothing_are_flagged() {
        for spec in [
            "MD5:d41d8cd98f00b204e9800998ecf8427e",
            "SHA1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "SHA512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
        ] {
            assert_eq!(flag(spec), Some("empty_input"));
        }
        assert_eq!(flag("MD5:00112233445566778899aabbccddeeff"), None);
    }

    #[test]
    fn uniform_and_unbalanced_values_are_flagged() {
        assert_eq!(
            flag(&format!("PDQ:{}", "00".repeat(32))),
            Some("uniform_value")
        );
        assert_eq!(
            flag(&format!("PDQ:{}", "ff".repeat(32))),
            Some("uniform_value")
        );
        assert_eq!(
            flag(&format!("PDQ:{}", "01".repeat(32))),
            Some("unbalanced_pdq")
        );
        assert_eq!(
            flag(&format!("PDQ:{}", "7f".repeat(32))),
            Some("unbalanced_pdq")
        );
        assert_eq!(flag(&format!("PDQ:{}", "0f".repeat(32))), None);
        assert_eq!(flag(&format!("SHA256:{}", "01".repeat(32))), None);
    }

    #[test]
    fn quality_below_50_is_flagged() {
        let pdq = Signal::parse_spec(&format!("PDQ:{}", "0f".repeat(32))).unwrap();
        let with = |quality| hygiene(&pdq.clone().with_quality(Some(quality)).unwrap());
        assert_eq!(with(49), Some(HygieneFlag::LowQuality { quality: 49 }));
        assert_eq!(with(50), None);
        let vpdq = |quality| flag(&format!("VPDQ:[\"{},{quality},1.5\"]", "0f".repeat(32)));
        assert_eq!(vpdq(49), Some("low_quality"));
        assert_eq!(vpdq(50), None);
    }
}
