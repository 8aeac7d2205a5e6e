//! Where the key ring comes from: a file of ours, the environment, or a command that prints it. Only the file can be
//! written; for the others an operator changes the ring where he keeps it.

use std::{
    fmt,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use hookmill_actors::domain::secret::Secret;
use zeroize::Zeroizing;

use super::{
    keyring::{FILE_BYTES_MAX, KeyRing, KeyRingError},
    private_file,
};
use crate::settings::{ADMIN_TOKEN_VARIABLE, KEY_FILE_VARIABLE, KEY_RING_VARIABLE, SecretsSettings};

/// In the data folder, beside the store's folder and not in it: a backup of the store holds no key.
const FILE_NAME: &str = "keys.toml";
/// How long a command that was killed is waited for, and how often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the environment says of the ring.
#[derive(Debug, Default)]
pub struct KeyVariables {
    /// `HOOKMILL_KEY_FILE`.
    pub file: Option<PathBuf>,
    /// `HOOKMILL_KEYRING`.
    pub ring: Option<Secret>,
}

impl KeyVariables {
    /// As the process has them; an empty one is none.
    pub fn of_process() -> Self {
        use std::os::unix::ffi::OsStringExt;
        let given = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            file: given(KEY_FILE_VARIABLE).map(Into::into),
            ring: given(KEY_RING_VARIABLE).map(|ring| Secret::new(ring.into_vec())),
        }
    }
}

/// Where the ring comes from.
#[derive(Debug)]
pub enum KeySource {
    /// A file that hookmill makes and changes.
    File(PathBuf),
    /// The text of `HOOKMILL_KEYRING`, as it was at the start.
    Environment(Secret),
    /// What a program prints.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// It must have ended by then.
        timeout: Duration,
    },
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "key file `{}`", path.display()),
            Self::Environment(_) => write!(f, "environment variable {KEY_RING_VARIABLE}"),
            Self::Command { argv, .. } => {
                write!(f, "command `{}` (secrets.key_command)", argv.first().map_or("", String::as_str))
            }
        }
    }
}

impl KeySource {
    /// The one place that is named: the environment's ring, the command, else the file.
    ///
    /// # Errors
    /// [`KeyRingError::Ambiguous`] where two are named.
    pub fn choose(data_dir: &Path, settings: &SecretsSettings, variables: KeyVariables) -> Result<Self, KeyRingError> {
        const COMMAND: &str = "`secrets.key_command`";
        let command = !settings.key_command.is_empty();
        match variables {
            KeyVariables { ring: Some(_), .. } if command => Err(KeyRingError::Ambiguous(KEY_RING_VARIABLE, COMMAND)),
            KeyVariables { ring: Some(_), file: Some(_) } => {
                Err(KeyRingError::Ambiguous(KEY_RING_VARIABLE, KEY_FILE_VARIABLE))
            }
            KeyVariables { file: Some(_), .. } if command => Err(KeyRingError::Ambiguous(KEY_FILE_VARIABLE, COMMAND)),
            KeyVariables { ring: Some(ring), .. } => Ok(Self::Environment(ring)),
            KeyVariables { .. } if command => {
                Ok(Self::Command { argv: settings.key_command.clone(), timeout: settings.key_command_timeout })
            }
            KeyVariables { file, .. } => Ok(Self::File(file.unwrap_or_else(|| data_dir.join(FILE_NAME)))),
        }
    }

    /// The ring as it is now; `None` where its file is absent.
    pub fn read(&self) -> Result<Option<KeyRing>, KeyRingError> {
        let text = match self {
            Self::File(path) => private_file::read(path, FILE_BYTES_MAX)?,
            Self::Environment(ring) => Some(self.text(ring.expose())?),
            Self::Command { argv, timeout } => Some(self.text(&self.printed(argv, *timeout)?)?),
        };
        text.map(|text| self.parse(&text)).transpose()
    }

    /// The ring as it is now. A file that is absent is made, mode 0600, unless the store exists already.
    pub fn open_or_create(&self, store_exists: bool, now_ms: u64) -> Result<KeyRing, KeyRingError> {
        match (self.read()?, self) {
            (Some(ring), _) => Ok(ring),
            (None, Self::File(path)) if !store_exists => {
                let ring = KeyRing::generate(now_ms);
                private_file::create(path, &ring.to_text())?;
                Ok(ring)
            }
            (None, Self::File(path)) => Err(KeyRingError::Missing(path.clone())),
            (None, _) => Err(self.malformed("there is none".to_owned())),
        }
    }

    /// Changes the ring's file: what is in it now goes into `change`, what comes out is in it when this returns. No
    /// other hookmill changes it meanwhile. `None` for a source that cannot be written; then nothing was asked.
    ///
    /// # Errors
    /// `change`'s, and then the file is as it was; or reading and writing.
    pub fn update<T, E: From<KeyRingError>>(
        &self,
        change: impl FnOnce(KeyRing) -> Result<(KeyRing, T), E>,
    ) -> Result<Option<T>, E> {
        let Self::File(path) = self else { return Ok(None) };
        let file = |error: private_file::PrivateFileError| E::from(KeyRingError::from(error));
        let _lock = private_file::lock_folder(path).map_err(file)?;
        let before = self.read()?.ok_or_else(|| KeyRingError::Missing(path.clone()))?;
        let (text_before, (after, outcome)) = (before.to_text(), change(before)?);
        let text = after.to_text();
        if text != text_before {
            private_file::replace(path, &text).map_err(file)?;
        }
        Ok(Some(outcome))
    }

    /// Whether hookmill can change the ring.
    pub fn is_writable(&self) -> bool {
        matches!(self, Self::File(_))
    }

    fn text(&self, bytes: &[u8]) -> Result<Zeroizing<String>, KeyRingError> {
        if bytes.len() > usize::from(FILE_BYTES_MAX) {
            return Err(self.malformed(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(self.malformed("it is not UTF-8 text".to_owned())),
        }
    }

    fn parse(&self, text: &str) -> Result<KeyRing, KeyRingError> {
        KeyRing::parse(text).map_err(|problem| self.malformed(problem))
    }

    fn malformed(&self, problem: String) -> KeyRingError {
        KeyRingError::Malformed { origin: self.to_string(), problem }
    }

    /// What the command prints, bounded in size and time. What it says on standard error may hold anything and goes
    /// nowhere.
    fn printed(&self, argv: &[String], timeout: Duration) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
        use std::os::unix::process::CommandExt;
        let failed = |problem: String| KeyRingError::Command { origin: self.to_string(), problem };
        let Some((program, arguments)) = argv.split_first() else { return Err(failed("names no program".to_owned())) };
        let deadline = Instant::now() + timeout;
        let mut child = Command::new(program)
            .args(arguments)
            .env_remove(ADMIN_TOKEN_VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own, so that what it starts ends with it.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(format!("could not be started: {error}")))?;
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let (send, printed) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            // Made large enough at once: a buffer that grows leaves copies behind that nobody wipes.
            let mut bytes = Zeroizing::new(Vec::with_capacity(usize::from(FILE_BYTES_MAX) + 1));
            let read = stdout.take(u64::from(FILE_BYTES_MAX) + 1).read_to_end(&mut bytes);
            let _ = send.send(read.map(|_| bytes));
        });
        let late = || failed(format!("did not end within {} s", timeout.as_secs_f32()));
        let answer = match printed.recv_timeout(timeout) {
            Err(_) => Err(late()),
            Ok(Err(error)) => Err(failed(format!("could not be read: {error}"))),
            Ok(Ok(bytes)) if bytes.len() > usize::from(FILE_BYTES_MAX) => {
                Err(failed(format!("prints more than {FILE_BYTES_MAX} bytes")))
            }
            Ok(Ok(bytes)) => match ended(&mut child, deadline) {
                Some(status) if status.success() => Ok(bytes),
                Some(status) => Err(failed(format!("ended with {status}"))),
                None => Err(late()),
            },
        };
        if answer.is_err() {
            end(&mut child);
        }
        answer
    }
}

fn ended(child: &mut Child, deadline: Instant) -> Option<std::process::ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Kills it with everything it started.
fn end(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    // It may have ended by itself; then there is nobody to kill.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use super::*;

    fn file(path: &Path) -> KeySource {
        KeySource::choose(path, &SecretsSettings::default(), KeyVariables::default()).unwrap()
    }

    fn command(script: &str) -> KeySource {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        KeySource::Command { argv, timeout: Duration::from_millis(400) }
    }

    #[test]
    fn the_first_start_makes_a_private_file_and_later_ones_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let source = file(&folder.path().join("data"));
        let ring = source.open_or_create(false, 7).unwrap();
        assert_eq!(fs::metadata(folder.path().join("data/keys.toml")).unwrap().mode() & 0o7777, 0o600);
        let again = source.open_or_create(true, 8).unwrap();
        assert_eq!(ring.to_text(), again.to_text());
    }

    #[test]
    fn a_missing_file_beside_a_store_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let source = file(folder.path());
        let error = source.open_or_create(true, 0).unwrap_err();
        assert!(matches!(error, KeyRingError::Missing(_)));
        assert!(error.next_step().contains("HOOKMILL_KEY_FILE"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_others_can_read_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let source = file(folder.path());
        source.open_or_create(false, 0).unwrap();
        fs::set_permissions(folder.path().join("keys.toml"), fs::Permissions::from_mode(0o640)).unwrap();
        let text = source.open_or_create(true, 0).unwrap_err().to_string();
        assert!(text.contains("chmod 600"), "{text}");
    }

    #[test]
    fn one_place_is_named_or_none() {
        let with = |ring: bool, file: bool, command: bool| {
            let variables =
                KeyVariables { ring: ring.then(|| Secret::new("x")), file: file.then(|| PathBuf::from("/run/keys")) };
            let settings = SecretsSettings {
                key_command: if command { vec!["kms".to_owned()] } else { Vec::new() },
                ..SecretsSettings::default()
            };
            KeySource::choose(Path::new("data"), &settings, variables).map(|source| source.to_string())
        };
        assert_eq!(with(false, false, false).unwrap(), "key file `data/keys.toml`");
        assert_eq!(with(false, true, false).unwrap(), "key file `/run/keys`");
        assert_eq!(with(true, false, false).unwrap(), "environment variable HOOKMILL_KEYRING");
        assert_eq!(with(false, false, true).unwrap(), "command `kms` (secrets.key_command)");
        for (ring, file, command) in [(true, true, false), (true, false, true), (false, true, true)] {
            assert!(matches!(with(ring, file, command), Err(KeyRingError::Ambiguous(..))));
        }
    }

    #[test]
    fn an_update_is_whole_or_leaves_everything() {
        let folder = tempfile::tempdir().unwrap();
        let source = file(folder.path());
        let before = source.open_or_create(false, 0).unwrap();
        let refused = source.update(|_| Err::<(KeyRing, ()), _>(KeyRingError::Store("no".to_owned())));
        assert!(refused.is_err());
        assert_eq!(source.read().unwrap().unwrap().to_text(), before.to_text());
        let id = source.update::<_, KeyRingError>(|ring| Ok(ring.with_new_key(5).unwrap())).unwrap().unwrap();
        assert!(source.read().unwrap().unwrap().opens(id));
        assert_eq!(fs::metadata(folder.path().join("keys.toml")).unwrap().mode() & 0o7777, 0o600);
        let environment = KeySource::Environment(Secret::new(before.to_text().as_bytes()));
        assert!(environment.update::<(), KeyRingError>(|_| unreachable!("it is not asked")).unwrap().is_none());
    }

    #[test]
    fn many_updates_at_once_lose_none() {
        let folder = tempfile::tempdir().unwrap();
        let source = file(folder.path());
        source.open_or_create(false, 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        source.update::<_, KeyRingError>(|ring| Ok(ring.with_new_key(5).unwrap())).unwrap().unwrap();
                    }
                });
            }
        });
        assert_eq!(source.read().unwrap().unwrap().infos().len(), 21);
    }

    #[test]
    fn a_command_prints_the_ring() {
        let folder = tempfile::tempdir().unwrap();
        let ring = KeyRing::generate(3);
        let path = folder.path().join("ring");
        fs::write(&path, ring.to_text().as_bytes()).unwrap();
        let source = command(&format!("cat {}; echo noise >&2", path.display()));
        assert_eq!(source.read().unwrap().unwrap().to_text(), ring.to_text());
        let source = KeySource::Environment(Secret::new(ring.to_text().as_bytes()));
        assert_eq!(source.read().unwrap().unwrap().to_text(), ring.to_text());
    }

    #[test]
    fn a_command_that_fails_hangs_or_floods_is_told_without_what_it_printed() {
        for (script, want) in [
            ("echo planted-secret; exit 3", "exit status: 3"),
            ("echo planted-secret; sleep 60", "did not end within 0.4 s"),
            ("exec >&-; sleep 60", "did not end within 0.4 s"),
            ("(sleep 60; echo late)& echo planted-secret", "did not end within 0.4 s"),
            ("yes planted-secret", "more than 16384 bytes"),
            ("printf '\\377'", "not UTF-8"),
            ("echo planted-secret", "not as hookmill wrote it"),
            ("true", "not as hookmill wrote it"),
        ] {
            let began = Instant::now();
            let text = command(script).read().unwrap_err().to_string();
            assert!(text.contains(want) && text.contains("`sh`"), "{script}: {text}");
            assert!(!text.contains("planted"), "{text}");
            assert!(began.elapsed() < Duration::from_secs(5), "{script}");
        }
        let source = KeySource::Command { argv: vec!["/nonexistent/kms".to_owned()], timeout: Duration::from_secs(1) };
        let text = source.read().unwrap_err().to_string();
        assert!(text.contains("could not be started") && text.contains("/nonexistent/kms"), "{text}");
    }
}
