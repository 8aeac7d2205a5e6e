//! Where a running server's admin API listens, in a file of its data directory: commands on this machine ask there,
//! whatever flags and settings the server was started with.

use std::{
    fs,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::secrets::private_file;

/// An address is far shorter.
const FILE_BYTES_MAX: u64 = 64;

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("admin-address")
}

/// The address, for as long as the server runs. A server that was killed leaves it; the next one replaces it.
pub(super) struct Published(PathBuf);

impl Published {
    /// A server goes on without: then commands ask where the settings say.
    pub(super) fn write(data_dir: &Path, address: SocketAddr) -> Self {
        let file = file(data_dir);
        if let Err(error) = private_file::replace(&file, &format!("{address}\n")) {
            tracing::warn!(%error, "commands with `--data-dir` need `--admin` or `--url`, because the address of the admin API could not be written");
        }
        Self(file)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // What cannot be removed misleads nobody: the next start replaces it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Where the server of a data directory listens, or listened when it was killed; `None` where none told.
pub fn published(data_dir: &Path) -> Option<SocketAddr> {
    let mut text = String::new();
    fs::File::open(file(data_dir)).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_while_the_server_runs() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(published(dir.path()), None);
        let address = "[::1]:18081".parse().unwrap();
        let running = Published::write(dir.path(), address);
        assert_eq!(published(dir.path()), Some(address));
        drop(running);
        assert_eq!(published(dir.path()), None);
        fs::write(file(dir.path()), "x".repeat(1_000)).unwrap();
        assert_eq!(published(dir.path()), None, "what is no address counts as none");
    }
}
