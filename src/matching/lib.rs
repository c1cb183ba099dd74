//! What matches what: near-duplicate PDQ values, PDQ of images, videos as sets of frames, URLs as expressions.
//!
//! Owns the algorithms and their bounds. Does no I/O, asks no clock, and knows nothing of feeds, members or verdicts:
//! it maps values to values, and the node looks up what is said about them. Bytes from outside (images, text forms,
//! URLs) are capped before they are decoded; no input makes it panic. `docs/MATCHING.md` says what matches what.

#![forbid(unsafe_code)]

pub mod pdq;
pub mod url;
pub mod vpdq;

/// This crate's folder, for tests that read files beside it.
#[cfg(test)]
fn here() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .expect("tests are run by cargo")
        .into()
}
