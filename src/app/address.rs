//! Where a running server listens, in files of its data directory: commands on this machine ask there, whatever flags and
//! settings the server was started with.

use std::{
    fs,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::secrets::private_file;

/// An address is far shorter.
const FILE_BYTES_MAX: u64 = 64;

/// What listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// For webhooks.
    Ingress,
    /// The admin API.
    Admin,
}

impl Listener {
    fn file(self, data_dir: &Path) -> PathBuf {
        data_dir.join(match self {
            Self::Ingress => "ingress-address",
            Self::Admin => "admin-address",
        })
    }
}

/// An address, for as long as the server runs. A server that was killed leaves it; the next one replaces it.
pub(super) struct Published(PathBuf);

impl Published {
    /// A server goes on without: then commands look where the settings say.
    pub(super) fn write(data_dir: &Path, listener: Listener, address: SocketAddr) -> Self {
        let file = listener.file(data_dir);
        if let Err(error) = private_file::replace(&file, &format!("{address}\n")) {
            tracing::warn!(
                %error,
                "commands with `--data-dir` need the server's own flags, because its address could not be written"
            );
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
pub fn published(data_dir: &Path, listener: Listener) -> Option<SocketAddr> {
    let mut text = String::new();
    fs::File::open(listener.file(data_dir)).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{Listener::*, *};

    #[test]
    fn it_is_known_while_the_server_runs() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(published(dir.path(), Admin), None);
        let address = "[::1]:18081".parse().unwrap();
        let running = Published::write(dir.path(), Admin, address);
        assert_eq!((published(dir.path(), Admin), published(dir.path(), Ingress)), (Some(address), None));
        drop(running);
        assert_eq!(published(dir.path(), Admin), None);
        fs::write(Admin.file(dir.path()), "x".repeat(1_000)).unwrap();
        assert_eq!(published(dir.path(), Admin), None, "what is no address counts as none");
    }
}
