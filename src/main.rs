//! The `hashpact` program.

use std::process::ExitCode;

/// Gives memory back to the system sooner, and fragments less in a process that
/// runs for months, than the C library's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The allocator's settings, which it looks for under this name when it starts: what a
/// bulk load needed goes back to the system within a second instead of ten, from a
/// thread of its own. `_RJEM_MALLOC_CONF` in the environment changes them.
#[expect(
    unsafe_code,
    reason = "no other way leads to them; the name is taken by nothing else"
)]
#[used]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 59] = b"background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    hashpact::cli::main()
}
