//! Entries with signals that are made up, the same ones every time.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// An entry of one SHA-256 and one PDQ signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The source's reference.
    pub(crate) reference: String,
    /// The classification.
    pub(crate) classification: &'static str,
    sha256: [u8; 32],
    pdq: [u8; 32],
}

impl Entry {
    /// The entry `number` of the family `family`.
    pub(crate) fn new(family: &str, number: usize) -> Self {
        let value = |kind: &str| Sha256::digest(format!("{family} {number} {kind}")).into();
        Self {
            reference: format!("{family}-{number}"),
            classification: ["A1", "A2", "B1", "B2"][number % 4],
            sha256: value("sha256"),
            pdq: value("pdq"),
        }
    }

    /// The SHA-256 as commands take it.
    pub(crate) fn spec(&self) -> String {
        format!("SHA256:{}", self.sha256())
    }

    /// The SHA-256 in hexadecimal.
    pub(crate) fn sha256(&self) -> String {
        HEXLOWER.encode(&self.sha256)
    }

    /// The PDQ in hexadecimal.
    pub(crate) fn pdq(&self) -> String {
        HEXLOWER.encode(&self.pdq)
    }

    /// Both values.
    pub(crate) fn values(&self) -> [Vec<u8>; 2] {
        [self.sha256.to_vec(), self.pdq.to_vec()]
    }

    /// The same with another classification.
    pub(crate) fn classified(&self, classification: &'static str) -> Self {
        Self {
            classification,
            ..self.clone()
        }
    }
}

/// The entries of a family with these numbers.
pub(crate) fn entries(family: &str, numbers: std::ops::Range<usize>) -> Vec<Entry> {
    numbers.map(|number| Entry::new(family, number)).collect()
}

/// These entries as a CSV file.
pub(crate) fn csv(entries: &[Entry]) -> String {
    let mut text = "id,sha256,pdq,pdq_quality,classification\n".to_owned();
    for entry in entries {
        let (sha256, pdq) = (entry.sha256(), entry.pdq());
        writeln!(
            text,
            "{},{sha256},{pdq},90,{}",
            entry.reference, entry.classification
        )
        .unwrap();
    }
    text
}
