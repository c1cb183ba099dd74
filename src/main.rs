//! The `hashpact` program.

use std::process::ExitCode;

/// Gives memory back to the system sooner, and fragments less in a process that
/// runs for months, than the C library's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hashpact::cli::main()
}
