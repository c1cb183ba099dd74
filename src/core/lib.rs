//! The pure core of hashpact: what is signed, what is proved, what is accepted.
//!
//! In scope: signals, leaves and pages, compact ranges, checkpoints and their
//! cosignatures, envelopes, the roster chain, enrolment, suspensions, node cards,
//! grants, standing, policy, evidence of forks and of two documents of one version, the
//! container of bundles, and the puller as a state machine.
//!
//! Out of scope: I/O, clocks, randomness, threads, storage. Time, random bytes
//! and bytes from outside come in as arguments; what to do goes out as values.
//!
//! Trust: nothing that comes in as bytes is trusted. A value of a type in this
//! crate that names a verified thing can be had only by verifying it.

#![forbid(unsafe_code)]
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        reason = "a test that overflows fails"
    )
)]

pub mod access;
pub mod bundle;
pub mod card;
pub mod checkpoint;
pub mod chunk;
pub mod covered;
pub mod enrol;
pub mod envelope;
pub mod equivocation;
pub mod evidence;
pub mod evidence_file;
#[cfg(test)]
mod feed_vectors;
pub mod fields;
#[cfg(test)]
mod hostile;
pub mod id;
pub mod keys;
pub mod leaf;
pub mod limits;
pub mod liveness;
pub mod merkle;
pub mod note;
pub mod page;
pub mod policy;
pub mod proof;
#[cfg(test)]
mod proof_vectors;
pub mod puller;
pub mod receipt;
#[cfg(test)]
mod refusals;
pub mod reject;
pub mod roster;
mod sealed;
pub mod signal;
pub mod standing;
pub mod suspension;
mod text;
pub mod verified;
pub mod witness;

/// Protobuf messages of what is signed, as generated.
///
/// Nothing outside this crate builds on them: conversions into the types of the
/// other modules check every rule.
#[expect(
    missing_docs,
    clippy::pedantic,
    reason = "generated code; the comments stand in the proto files"
)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/hashpact.core.v1.rs"));
}

/// This crate's folder, for tests that read files beside it. Asked when a test runs:
/// a target directory may serve several checkouts.
#[cfg(test)]
fn here() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .expect("tests are run by cargo")
        .into()
}
