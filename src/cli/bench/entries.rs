//! The entries that are measured with: made from a number, the same each time.
//!
//! An entry has one SHA-256 and one PDQ signal with quality, classification, one
//! label and times, some 130 bytes of payload. Numbers from [`MISS`] on are never
//! published: they ask for what is not there.

use std::io::{self, Write};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::{Basis, Classification, MediaKind, Publish};
use hashpact_core::reject::Rejection;
use hashpact_core::signal::{Signal, SignalKind};

/// Entries from here on are in no set.
pub(super) const MISS: u64 = 1 << 48;
/// Names the values; another seed gives other ones.
const SEED: u64 = 0x68a5_4bac_7000_0001;
/// 2026-01-01, in milliseconds.
const FIRST_SEEN: u64 = 1_767_225_600_000;
/// Bits set in a PDQ value, of 256.
const BALANCED: std::ops::RangeInclusive<u32> = 100..=156;
const LABEL: &str = "bench-2026";
const CLASSES: [&str; 4] = ["A1", "A2", "B1", "B2"];

/// The columns of [`write_csv`].
const HEADER: &str =
    "sha256,pdq,pdq_quality,classification,labels,media_kind,basis,first_seen_ms\n";

/// Signals of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Sha256,
    Pdq,
}

impl Which {
    pub(super) const fn kind(self) -> SignalKind {
        match self {
            Self::Sha256 => SignalKind::Sha256,
            Self::Pdq => SignalKind::Pdq,
        }
    }
}

/// A number that looks random, the same each time.
pub(super) const fn scattered(n: u64) -> u64 {
    mixed(SEED ^ n.wrapping_mul(GOLDEN))
}

/// One of the two signals of entry `n`.
pub(super) fn signal(n: u64, which: Which) -> Result<Signal, Rejection> {
    let value = Bytes::copy_from_slice(&value(n, which));
    let quality = match which {
        Which::Sha256 => None,
        Which::Pdq => Some(quality(n)),
    };
    Signal::new(which.kind(), value, quality)
}

/// The value of one of the two signals of entry `n`.
pub(super) fn value(n: u64, which: Which) -> [u8; 32] {
    let lane: u64 = match which {
        Which::Sha256 => 0,
        Which::Pdq => 1,
    };
    let mut state = SEED ^ mixed(n.wrapping_mul(2).wrapping_add(lane));
    let mut value = [0; 32];
    loop {
        for eight in value.chunks_exact_mut(8) {
            state = state.wrapping_add(GOLDEN);
            eight.copy_from_slice(&mixed(state).to_be_bytes());
        }
        let bits: u32 = value.iter().map(|byte| byte.count_ones()).sum();
        // Of random values one in ten thousand is as unbalanced as no picture's, and
        // would be held in quarantine.
        if which != Which::Pdq || BALANCED.contains(&bits) {
            return value;
        }
    }
}

/// Entry `n` as it is handed to a node.
pub(super) fn publish(n: u64) -> Result<Publish, Rejection> {
    Ok(Publish {
        media_kind: MediaKind::Image,
        signals: vec![signal(n, Which::Sha256)?, signal(n, Which::Pdq)?],
        classification: Some(Classification::parse(class(n))?),
        labels: vec![LABEL.to_owned()],
        basis: Basis::Human,
        source_reference: String::new(),
        first_seen: Some(first_seen(n)),
        expires: None,
        replaces: Vec::new(),
        published: UnixMillis(0),
    })
}

/// Writes entries `0..count` as CSV with a header; tells `progress` how many more
/// there are from time to time.
pub(super) fn write_csv(
    count: u64,
    to: &mut impl Write,
    mut progress: impl FnMut(u64),
) -> io::Result<()> {
    const STEP: u64 = 10_000;
    to.write_all(HEADER.as_bytes())?;
    let mut hex = String::new();
    for n in 0..count {
        hex.clear();
        HEXLOWER.encode_append(&value(n, Which::Sha256), &mut hex);
        hex.push(',');
        HEXLOWER.encode_append(&value(n, Which::Pdq), &mut hex);
        let (quality, class, seen) = (quality(n), class(n), first_seen(n).0);
        writeln!(to, "{hex},{quality},{class},{LABEL},image,human,{seen}")?;
        if n % STEP == 0 {
            progress(STEP);
        }
    }
    Ok(())
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014).
const fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// 50 to 99.
fn quality(n: u64) -> u8 {
    u8::try_from(50 + n % 50).unwrap_or(50)
}

fn class(n: u64) -> &'static str {
    let at = usize::try_from(n % 4).unwrap_or(0);
    CLASSES.get(at).copied().unwrap_or("A1")
}

const fn first_seen(n: u64) -> UnixMillis {
    UnixMillis(FIRST_SEEN + n % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashpact_formats::{Format, Item, Options, Reader};

    #[test]
    fn no_entry_would_be_held_in_quarantine() {
        for n in 0..100_000 {
            for which in [Which::Sha256, Which::Pdq] {
                let signal = signal(n, which).unwrap();
                assert_eq!(hashpact_core::signal::hygiene(&signal), None, "entry {n}");
            }
        }
    }

    #[test]
    fn a_line_of_the_file_is_the_entry() {
        let mut csv = Vec::new();
        write_csv(9, &mut csv, |_| ()).unwrap();
        let reader = Reader::new(Format::Csv, csv.as_slice(), Options::default());
        let records: Vec<_> = reader
            .map(|item| match item.unwrap() {
                Item::Record(record) => record,
                Item::Reject(reject) => panic!("{:?}", reject.reason),
            })
            .collect();
        assert_eq!(records.len(), 9);
        for (n, record) in (0..).zip(records) {
            let publish = publish(n).unwrap();
            assert_eq!(record.signals, publish.signals);
            assert_eq!(record.classification, publish.classification);
            assert_eq!(record.labels, publish.labels);
            assert_eq!(record.first_seen_ms, publish.first_seen.map(|time| time.0));
        }
    }

    #[test]
    fn a_payload_has_some_130_bytes() {
        let mut publish = publish(12_345).unwrap();
        publish.published = UnixMillis(1_795_000_000_000);
        let bytes = publish.encode([7; 16]).unwrap().len();
        assert!((125..=145).contains(&bytes), "{bytes}");
    }

    #[test]
    fn values_differ_and_look_random() {
        let mut values: Vec<_> = (0..1_000)
            .flat_map(|n| [value(n, Which::Sha256), value(n, Which::Pdq)])
            .collect();
        let ones: u32 = values.iter().flatten().map(|byte| byte.count_ones()).sum();
        assert!((250_000..262_000).contains(&ones), "{ones}");
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), 2_000);
    }
}
