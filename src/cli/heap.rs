//! How the server's heap is kept. mimalloc reads its options from the environment, as a program begins, and takes them in
//! no other way that is safe code. So the server begins again with them set, in the same process.
//!
//! Both keep memory low where there are thousands of integrations: `benches/README.md` has the figures.

use std::{
    env,
    io::{self, Error},
    os::unix::process::CommandExt,
    process::Command,
};

/// Each option and what it is set to. Whoever sets one decides about all.
const OPTIONS: [(&str, &str); 2] = [
    // What is let go goes back to the system at once.
    ("MIMALLOC_PURGE_DELAY", "0"),
    // What is reserved is taken as it is needed.
    ("MIMALLOC_ARENA_EAGER_COMMIT", "0"),
];

/// Begins again with the options set, and so does not return; returns where any of them is set.
///
/// # Errors
/// When the program cannot be begun again; it may go on as it is.
pub(super) fn tune() -> io::Result<()> {
    if OPTIONS.iter().any(|(name, _)| env::var_os(name).is_some()) {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let name = arguments.next().ok_or_else(|| Error::other("the program has no name"))?;
    Err(Command::new(env::current_exe()?).arg0(name).args(arguments).envs(OPTIONS).exec())
}
