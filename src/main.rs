//! Arguments in, exit code out; everything else is in the library.

use std::process::ExitCode;

/// mimalloc, as what is allocated on one thread and let go on another costs glibc's heap a lock: with thousands of
/// integrations about a fifth of what the server can do. `benches/README.md` has the figures, and what it costs in
/// memory.
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hookmill::cli::main()
}
