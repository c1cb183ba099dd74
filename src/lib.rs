//! The hashpact program: its configuration and its commands.
//!
//! Everything else stands in crates of its own: `hashpact-core` (what is signed
//! and proved), `hashpact-matching` (which values are near which), `hashpact-store`,
//! `hashpact-node`, `hashpact-net`, `hashpact-api` and `hashpact-formats`.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod keyfile;
pub mod roster_file;
#[cfg(test)]
mod skipped;
