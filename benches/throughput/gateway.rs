//! The real `hookmill` binary in a directory of its own, set up through its admin API as an operator would.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    http,
    process::{Running, free_address, tail},
    wire::{PATH_DIGITS, Request, SECRET},
};

/// The admin API's token, handed over by the environment.
const TOKEN: &str = "throughput-admin-0123456789abcdef0123456789abcdef";
/// A store of a million events must be open by then.
const READY_WAIT_MAX: Duration = Duration::from_mins(3);
/// SIGTERM to exit.
const STOP_WAIT_MAX: Duration = Duration::from_mins(1);

/// A running gateway.
pub(crate) struct Gateway {
    /// The process.
    pub(crate) running: Running,
    /// Where webhooks go.
    pub(crate) ingress: SocketAddr,
    admin: SocketAddr,
    began: Instant,
    log: PathBuf,
}

impl Gateway {
    /// Starts `binary` on `directory` and waits until it says that it is ready.
    pub(crate) fn start(binary: &Path, directory: &Path) -> Result<(Self, Duration)> {
        ensure!(
            binary.is_file(),
            "no hookmill at {}; build it with `cargo build --release`, or name one with HOOKMILL_BIN",
            binary.display()
        );
        let log = directory.with_extension("log");
        let output = File::options().create(true).append(true).open(&log)?;
        let (ingress, admin) = (free_address()?, free_address()?);
        let mut command = Command::new(binary);
        command
            .args(["serve", "--data-dir"])
            .arg(directory)
            .args(["--ingress", &ingress.to_string(), "--admin", &admin.to_string(), "--dev"])
            .env("HOOKMILL_ADMIN_TOKEN", TOKEN)
            .env("HOOKMILL_ADMIN__REQUESTS_PER_MINUTE", "1000000")
            // Ours, and no setting of the gateway, which refuses what it does not know.
            .env_remove("HOOKMILL_BIN")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let began = Instant::now();
        let mut gateway = Self { running: Running::start(&mut command)?, ingress, admin, began, log };
        gateway.until("readiness", |gateway| matches!(http::get(gateway.admin, "/readyz"), Ok((200, _))))?;
        let took = began.elapsed();
        Ok((gateway, took))
    }

    /// An integration with one endpoint at the first path of [`crate::wire::TARGET`], and no destination.
    pub(crate) fn configure(&self) -> Result<Value> {
        let integration = self.create(
            "integrations",
            &json!({
                "name": "bench", "type": "custom", "provider": "generic_hmac", "environment": "development",
                "configuration": {}, "credentials": {"api_key": "x"},
            }),
        )?;
        let endpoint = json!({"integration_id": integration, "name": "bench", "path": path(0), "secret": SECRET});
        self.create("webhooks", &endpoint)?;
        Ok(integration)
    }

    /// Sends the integration's events to `sink`; an inactive subscription leaves them in the log.
    pub(crate) fn subscribe(
        &self,
        integration: &Value,
        sink: SocketAddr,
        in_flight: u16,
        active: bool,
        filter: Option<&str>,
    ) -> Result<()> {
        let settings = json!({"url": format!("http://{sink}/")});
        let destination =
            self.create("destinations", &json!({"name": "sink", "type": "http", "settings": settings}))?;
        let mut subscription = json!({
            "integration_id": integration, "destination_id": destination, "name": "bench",
            "in_flight_max": in_flight,
        });
        if !active {
            subscription["active"] = json!(false);
        }
        if let Some(filter) = filter {
            subscription["selection"] = json!({"filter": filter});
        }
        self.create("subscriptions", &subscription)?;
        Ok(())
    }

    /// An integration with an endpoint at that path of [`crate::wire::TARGET`], whose events all go to `url`.
    pub(crate) fn way(&self, number: u64, url: &str, in_flight: u16) -> Result<()> {
        let body = json!({
            "name": format!("bench {number}"), "type": "custom", "provider": "generic_hmac", "environment": "development",
            "webhook": {"path": path(number), "secret": SECRET},
            "destination": {"type": "http", "settings": {"url": url}},
            "subscription": {"in_flight_max": in_flight},
        });
        self.create("integrations", &body)?;
        Ok(())
    }

    /// Sends signed webhooks until one is accepted. Returns how long after the start of the process that was.
    pub(crate) fn first_accept(&mut self) -> Result<Duration> {
        let request = Request::new(&self.ingress.to_string(), 1_536)?;
        self.until("an accepted webhook", |gateway| {
            matches!(http::exchange(gateway.ingress, request.bytes()), Ok((200..300, _)))
        })?;
        Ok(self.began.elapsed())
    }

    /// Stops it as an operator does. Returns how long that took.
    pub(crate) fn stop(self) -> Result<Duration> {
        let (status, took) = self.running.terminate(STOP_WAIT_MAX)?;
        ensure!(status.success(), "hookmill ended with {status} after SIGTERM; its log:\n{}", tail(&self.log, 20));
        Ok(took)
    }

    fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) -> Result<()> {
        let until = Instant::now() + READY_WAIT_MAX;
        while !reached(self) {
            if let Some(status) = self.running.ended()? {
                bail!("hookmill ended with {status} before {what}; its log:\n{}", tail(&self.log, 20));
            }
            if Instant::now() >= until {
                bail!("no {what} within {READY_WAIT_MAX:?}; hookmill's log:\n{}", tail(&self.log, 20));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Its admin API, for threads of their own.
    pub(crate) fn admin(&self) -> Admin {
        Admin(self.admin)
    }

    /// Creates a resource and returns its id.
    pub(crate) fn create(&self, resource: &str, json: &Value) -> Result<Value> {
        let path = format!("/api/v1/{resource}");
        let (status, body) = http::post_json(self.admin, &path, TOKEN, json)?;
        ensure!(status == 201, "POST {path} answered {status}: {}", String::from_utf8_lossy(&body));
        let created: Value = serde_json::from_slice(&body).with_context(|| format!("the answer of POST {path}"))?;
        created.get("id").cloned().with_context(|| format!("no `id` in the answer of POST {path}: {created}"))
    }
}

/// A gateway's admin API.
#[derive(Clone, Copy)]
pub(crate) struct Admin(SocketAddr);

impl Admin {
    /// What a `GET` below `/api/v1` answers.
    pub(crate) fn get(self, path: &str) -> Result<Value> {
        let path = format!("/api/v1{path}");
        let (status, body) = http::get_with_token(self.0, &path, TOKEN)?;
        ensure!(status == 200, "GET {path} answered {status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).with_context(|| format!("the answer of GET {path}"))
    }
}

/// An endpoint's path, as [`crate::wire::TARGET`] and its number make it.
pub(crate) fn path(number: u64) -> String {
    format!("/bench-{number:0PATH_DIGITS$}")
}

/// Where the binary is: named by the environment, else the one cargo built beside this program.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("HOOKMILL_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_hookmill")), PathBuf::from)
}

/// Bytes of all files below a directory, MiB.
#[expect(clippy::cast_precision_loss, reason = "file sizes stay far below 2^52")]
pub(crate) fn size_mib(directory: &Path) -> Result<f64> {
    fn bytes(directory: &Path) -> Result<u64> {
        let mut sum = 0;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // A running gateway may remove a file between its listing and here.
            let Ok(metadata) = entry.metadata() else { continue };
            sum += if metadata.is_dir() { bytes(&entry.path())? } else { metadata.len() };
        }
        Ok(sum)
    }
    Ok(bytes(directory)? as f64 / (1_024.0 * 1_024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_as_large_as_its_files() {
        let directory = tempfile::tempdir().expect("a place for temporary files");
        fs::create_dir(directory.path().join("a")).expect("writable");
        fs::write(directory.path().join("a/b"), vec![0; 1_024 * 1_024]).expect("writable");
        fs::write(directory.path().join("c"), vec![0; 512 * 1_024]).expect("writable");
        assert!((size_mib(directory.path()).expect("readable") - 1.5).abs() < 0.01);
    }

    #[test]
    fn a_gateway_that_ends_at_once_is_told_with_its_log() {
        let directory = tempfile::tempdir().expect("a place for temporary files");
        let binary = directory.path().join("broken");
        fs::write(&binary, "#!/bin/sh\necho 'cannot open the store'\nexit 3\n").expect("writable");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&binary, mode).expect("ours");
        let error = Gateway::start(&binary, &directory.path().join("data")).err().expect("it ends").to_string();
        assert!(error.contains("exit status: 3") && error.contains("cannot open the store"), "{error}");
    }
}
