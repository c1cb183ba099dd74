//! Integration tests: processes of the built binary, TLS on 127.0.0.1, RocksDB in
//! temporary folders.
//!
//! One binary holds them all, so that RocksDB is linked once. `world` makes
//! coalitions and runs their nodes; every other module is one promise of the
//! program. When a world ends, everything its processes wrote is searched for
//! signal values and keys (`secrets`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a failed unwrap is a failed test; what a test skips is said on standard error"
)]

mod audit;
mod bench;
mod bundle;
mod ceremony;
mod changes;
mod cli;
mod config;
mod crash;
mod doors;
mod erase;
mod exchange;
mod import;
mod keys;
mod leaked;
mod life;
mod metrics;
mod observer;
mod opinions;
mod outbound;
mod partition;
mod policy;
mod proofs;
mod proving;
mod quarantine;
mod receipts;
mod recheck;
mod restore;
mod scan;
mod secrets;
#[path = "../../src/skipped.rs"]
mod skipped;
mod stolen;
mod witness;
mod world;

/// The checkout that the tests run in, asked when they run: a target directory may
/// serve several checkouts.
fn checkout() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .expect("tests are run by cargo")
        .into()
}
