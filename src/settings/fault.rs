//! What can be wrong with settings, told so that it can be mended without reading on.

use std::{fmt, io, path::PathBuf};

/// Where a setting was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `config/default.toml`.
    Default,
    /// The file named by `--config`.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One fault of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The dotted key, or the environment variable where it is no setting at all.
    pub key: String,
    /// Where it was set, unless it is the default.
    pub origin: Option<Origin>,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "`{}` ({origin}): {}", self.key, self.problem),
            None => write!(f, "`{}`: {}", self.key, self.problem),
        }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file named by `--config` is not there. Never taken for an empty one.
    #[error("settings file `{}` does not exist", .0.display())]
    Absent(PathBuf),
    /// The file named by `--config` cannot be read.
    #[error("settings file `{}` cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file named by `--config` is no TOML.
    #[error("settings file `{}` is not TOML: line {line}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        problem: String,
    },
    /// At least one setting is wrong.
    #[error("{}", in_words(.0))]
    Faults(Vec<Fault>),
}

impl SettingsError {
    /// What to do next, for people.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Absent(_) | Self::Unreadable { .. } => {
                "name a readable TOML file, or leave `--config` out to run on the defaults"
            }
            Self::Syntax { .. } | Self::Faults(_) => {
                "`hookmill config default` prints every setting with its explanation; `hookmill config check` checks"
            }
        }
    }
}

fn in_words(faults: &[Fault]) -> String {
    use fmt::Write;
    match faults {
        [fault] => format!("setting {fault}"),
        faults => faults.iter().fold(format!("{} settings are wrong", faults.len()), |mut text, fault| {
            let _ = write!(text, "\n  {fault}");
            text
        }),
    }
}
