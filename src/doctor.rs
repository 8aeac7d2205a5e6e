//! Looks at the machine, the files and the settings that a hookmill would run with, and says of each what is wrong and
//! what to do. Changes nothing but for small files that it makes and removes; works beside a running server, whose lock
//! it does not take.

mod disk;
mod files;
mod machine;
mod network;
mod sealed;

use serde::Serialize;

use crate::settings::Settings;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and may not for long, or not as well as it could.
    Warn,
    /// It does not work.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it came out.
    pub level: Level,
    /// What was found; no secret.
    pub detail: String,
    /// What to do, unless it is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Finding {
    /// It is as it should be.
    pub fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, detail: detail.into(), next: None }
    }

    fn warn(check: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, detail: detail.into(), next: Some(next.into()) }
    }

    /// It does not work.
    pub fn fail(check: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, detail: detail.into(), next: Some(next.into()) }
    }
}

/// Everything that can be looked at, in the order in which one would mend it. Blocks for the disk, about a second.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![files::data_dir(settings)];
    findings.extend(files::private_files(settings));
    findings.extend(files::store(settings));
    findings.extend(disk::file_system(settings));
    findings.push(disk::sync(settings));
    findings.push(disk::space(settings));
    findings.push(machine::clock(settings));
    findings.push(machine::open_files(settings));
    findings.push(sealed::key_ring(settings));
    findings.extend(network::listeners(settings));
    findings
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults, in a directory.
    pub(super) fn settings_in(data_dir: &std::path::Path) -> Settings {
        Settings { data_dir: data_dir.to_owned(), ..Settings::default() }
    }

    #[test]
    fn whatever_is_not_ok_says_what_to_do() {
        let root = tempfile::tempdir().expect("a folder");
        let findings = examine(&settings_in(&root.path().join("data")));
        assert!(findings.len() >= 9, "{findings:?}");
        for finding in &findings {
            assert_eq!(finding.level == Level::Ok, finding.next.is_none(), "{finding:?}");
        }
        assert!(!root.path().join("data").exists(), "a look makes nothing");
    }
}
