//! How the server's heap is kept by glibc, which reads its tunables once, as a program begins, and takes them in no other
//! way that is safe code. So the server begins again with them set, in the same process.
//!
//! - `hugetlb=1`: the heap asks for huge pages. With thousands of integrations it is hundreds of MiB that every event
//!   touches at other places, and the tables of small pages fit no cache: `benches/README.md` has the figures.
//! - `arena_max`: by default there may be eight arenas a core, of which each keeps what its busiest moment took. With one
//!   for two cores there is less of that, and huge pages are filled better.
//!
//! Whoever sets the variable decides, be it empty. Other C libraries do not know it.

use std::{
    env,
    io::{self, Error},
    os::unix::process::CommandExt,
    process::Command,
    thread,
};

const VARIABLE: &str = "GLIBC_TUNABLES";
const CORES_AN_ARENA: usize = 2;

/// Begins again with the tunables set, and so does not return; returns where they are set, or mean nothing.
///
/// # Errors
/// When the program cannot be begun again; it may go on as it is.
pub(super) fn tune() -> io::Result<()> {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) || env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let name = arguments.next().ok_or_else(|| Error::other("the program has no name"))?;
    let arenas = thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(CORES_AN_ARENA));
    let tunables = format!("glibc.malloc.hugetlb=1:glibc.malloc.arena_max={arenas}");
    Err(Command::new(env::current_exe()?).arg0(name).args(arguments).env(VARIABLE, tunables).exec())
}
