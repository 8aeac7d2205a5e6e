//! The data directory: whose it is, who else can read it, and whether a store lies there that this hookmill knows.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Finding, chain};
use crate::{
    secrets::{admin_token_file, check_private},
    settings::Settings,
    storage::{QUARANTINE_PREFIX, store_format},
    words::counted,
};

const DATA: &str = "data directory";
const STORE: &str = "store";
/// Group and others.
const OTHERS: u32 = 0o077;
/// Files that are looked at; a store has a few hundred.
const FILES_MAX: usize = 100_000;

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether it is there, ours, nobody else's to read, and can be written.
pub(super) fn data_dir(settings: &Settings) -> Finding {
    let dir = &settings.data_dir;
    let shown = dir.display();
    let metadata = match fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return absent(dir),
        Err(error) => return Finding::fail(DATA, format!("`{shown}` cannot be read: {error}"), mend(dir)),
    };
    if !metadata.is_dir() {
        let next = "name a directory: `--data-dir`, or the setting `data_dir`";
        return Finding::fail(DATA, format!("`{shown}` is no directory"), next);
    }
    if let Err(error) = tempfile::Builder::new().prefix(".hookmill-doctor-").tempfile_in(dir) {
        return Finding::fail(DATA, format!("nothing can be written into `{shown}`: {error}"), mend(dir));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let next = format!("type `chmod 700 {shown}`: events hold what customers sent, and others can read them");
        return Finding::warn(DATA, format!("`{shown}` has mode {mode:04o}, so others can look into it"), next);
    }
    Finding::ok(DATA, format!("`{shown}` is ours alone, and can be written"))
}

fn absent(dir: &Path) -> Finding {
    let parent = dir.ancestors().skip(1).find(|parent| parent.as_os_str().is_empty() || parent.exists());
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match tempfile::Builder::new().prefix(".hookmill-doctor-").tempfile_in(parent) {
        Ok(_) => Finding::ok(DATA, format!("`{}` is not there yet; the first start makes it", dir.display())),
        Err(error) => Finding::fail(
            DATA,
            format!("`{}` is not there, and cannot be made in `{}`: {error}", dir.display(), parent.display()),
            mend(parent),
        ),
    }
}

fn mend(dir: &Path) -> String {
    format!(
        "type `chown {us} {dir} && chmod 700 {dir}`, or run hookmill as the directory's owner",
        us = us(),
        dir = dir.display()
    )
}

/// The admin token; the key ring has a check of its own.
pub(super) fn private_files(settings: &Settings) -> Option<Finding> {
    const TOKEN: &str = "admin token";
    let path = admin_token_file(&settings.data_dir);
    match check_private(&path) {
        Ok(true) => Some(Finding::ok(TOKEN, format!("`{}` can be read by us alone", path.display()))),
        Ok(false) => None,
        Err(error) => Some(Finding::fail(TOKEN, chain(&error), "mend the file's owner and mode as told")),
    }
}

/// What lies in the store's directory.
pub(super) fn store(settings: &Settings) -> Vec<Finding> {
    let dir = settings.store_dir();
    let mut findings = Vec::new();
    match store_format(&dir) {
        Ok(None) => findings.push(Finding::ok(STORE, "there is none yet; the first start makes it")),
        Ok(Some(format)) => findings.push(parts(&dir, format)),
        Err(error) => {
            findings.push(Finding::fail(STORE, chain(&error), "restore a backup, or use the hookmill that wrote it"));
        }
    }
    if let Some(finding) = strangers_files(&dir) {
        findings.push(finding);
    }
    let aside = names(&dir).into_iter().filter(|name| name.starts_with(QUARANTINE_PREFIX)).collect::<Vec<_>>();
    if !aside.is_empty() {
        findings.push(Finding::warn(
            STORE,
            format!("set aside in `{}`: {}, {}", dir.display(), counted(aside.len(), "store"), aside.join(", ")),
            "look whether anything in them is still needed, then remove them: they take space",
        ));
    }
    findings
}

fn parts(dir: &Path, format: u32) -> Finding {
    let missing = ["log", "state"].into_iter().find(|part| !dir.join(part).is_dir());
    if let Some(part) = missing {
        return Finding::fail(STORE, format!("`{}` is missing", dir.join(part).display()), "restore a backup");
    }
    let segments =
        names(&dir.join("log")).iter().filter(|name| Path::new(name).extension().is_some_and(|it| it == "seg")).count();
    Finding::ok(STORE, format!("format {format}, {} in `{}`", counted(segments, "segment"), dir.display()))
}

/// A server that once ran as somebody else leaves files that the right one cannot write.
fn strangers_files(dir: &Path) -> Option<Finding> {
    let is_strange = |metadata: &Metadata| metadata.uid() != us();
    let mut pending = vec![dir.to_owned()];
    let (mut looked, mut strange) = (0, Vec::<PathBuf>::new());
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            looked += 1;
            if looked > FILES_MAX {
                break;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if is_strange(&metadata) {
                strange.push(entry.path());
            }
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    let first = strange.first()?;
    Some(Finding::fail(
        STORE,
        format!("not hookmill's own: {}, such as `{}`", counted(strange.len(), "file"), first.display()),
        format!("stop hookmill, then type `chown -R {} {}`", us(), dir.display()),
    ))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{
        super::{Level, tests::settings_in},
        *,
    };

    #[test]
    fn a_directory_is_ours_absent_open_or_none() {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings_in(&root.path().join("a/data"));
        assert_eq!(data_dir(&settings).level, Level::Ok);
        assert!(!settings.data_dir.exists(), "nothing is made");
        fs::create_dir_all(&settings.data_dir).unwrap();
        for (mode, level, word) in [(0o700, Level::Ok, "ours alone"), (0o755, Level::Warn, "0755")] {
            fs::set_permissions(&settings.data_dir, fs::Permissions::from_mode(mode)).unwrap();
            let finding = data_dir(&settings);
            assert_eq!((finding.level, finding.detail.contains(word)), (level, true), "{finding:?}");
        }
        assert_eq!(fs::read_dir(&settings.data_dir).unwrap().count(), 0, "nothing is left");
        settings.data_dir = root.path().join("file");
        fs::write(&settings.data_dir, "x").unwrap();
        assert_eq!(data_dir(&settings).level, Level::Fail);
    }

    #[test]
    fn a_store_is_absent_known_newer_or_has_lost_parts() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings_in(root.path());
        let dir = settings.store_dir();
        let first = |settings: &Settings| store(settings).remove(0);
        assert!(first(&settings).detail.contains("there is none yet"));
        fs::create_dir_all(dir.join("log")).unwrap();
        fs::write(dir.join("FORMAT"), "hookmill store 1\n").unwrap();
        assert!(first(&settings).detail.contains("state` is missing"));
        fs::create_dir_all(dir.join("state")).unwrap();
        fs::write(dir.join("log/1.seg"), "x").unwrap();
        assert_eq!(store(&settings), [Finding::ok(STORE, format!("format 1, 1 segment in `{}`", dir.display()))]);
        fs::create_dir_all(dir.join("quarantine-20260101T000000Z")).unwrap();
        assert_eq!(store(&settings)[1].level, Level::Warn);
        fs::write(dir.join("FORMAT"), "hookmill store 99\n").unwrap();
        let finding = first(&settings);
        assert!(finding.level == Level::Fail && finding.detail.contains("99"), "{finding:?}");
    }

    #[test]
    fn a_token_that_others_can_read_fails() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings_in(root.path());
        assert_eq!(private_files(&settings), None);
        let path = admin_token_file(root.path());
        fs::write(&path, "hm_planted").unwrap();
        for (mode, level) in [(0o600, Level::Ok), (0o640, Level::Fail)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let finding = private_files(&settings).unwrap();
            assert_eq!(finding.level, level);
            assert!(!finding.detail.contains("planted"));
        }
    }
}
