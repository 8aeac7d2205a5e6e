//! Arguments in, exit code out; everything else is in the library.

use std::process::ExitCode;

/// mimalloc, as deliveries are made on one thread and let go on another, which glibc's heap pays for with a lock: a
/// fifth of all that a server can do. `benches/README.md` has the figures.
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hookmill::cli::main()
}
