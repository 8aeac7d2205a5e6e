//! The file of contexts: read whole, written whole, mode 0600.

use std::{
    collections::BTreeMap,
    env, fmt,
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::UsageError;
use crate::secrets::private_file;

/// The known servers, and the one in use.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<String>,
    #[serde(default)]
    pub(super) contexts: BTreeMap<String, Stored>,
}

/// A server as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    pub(super) url: String,
    pub(super) token: Zeroizing<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<PathBuf>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Contexts {
    /// None where the user has no folder for configuration, as a service's has none.
    pub(super) fn load() -> anyhow::Result<Self> {
        file().map_or_else(|| Ok(Self::default()), |file| Self::load_from(&file))
    }

    /// Changes the file; two commands at once wait for each other.
    pub(super) fn change(change: impl FnOnce(&mut Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let file = file().ok_or_else(|| UsageError::new("neither XDG_CONFIG_HOME nor HOME is an absolute path"))?;
        Self::change_in(&file, change)
    }

    fn load_from(file: &Path) -> anyhow::Result<Self> {
        let Some(text) = private_file::read(file, u16::MAX)? else { return Ok(Self::default()) };
        // The parser's own words repeat the line, which may hold a token.
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
            UsageError::new(format!("{} cannot be read at line {line}: {}", file.display(), error.message()))
        })
    }

    fn change_in(file: &Path, change: impl FnOnce(&mut Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let folder = file.parent().context("the file of contexts has no folder")?;
        private_file::make_folder(folder)?;
        let guard = File::options().create(true).truncate(false).write(true).open(file.with_extension("lock"));
        let guard = guard.with_context(|| format!("cannot write into {}", folder.display()))?;
        guard.lock().context("cannot lock the file of contexts")?;
        let mut contexts = Self::load_from(file)?;
        change(&mut contexts)?;
        let text = Zeroizing::new(toml::to_string(&contexts).context("the contexts cannot be written as TOML")?);
        Ok(private_file::replace(file, &text)?)
    }

    /// Whether there is one of that name.
    pub(super) fn known(&self, name: &str) -> anyhow::Result<()> {
        if self.contexts.contains_key(name) {
            return Ok(());
        }
        Err(UsageError::new(format!("there is no context `{name}`; `hookmill context list` shows which there are")))
    }
}

/// `$XDG_CONFIG_HOME/hookmill/contexts.toml`, else `~/.config/hookmill/contexts.toml`.
fn file() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    Some(folder?.join("hookmill").join("contexts.toml"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn stored(token: &str) -> Stored {
        Stored { url: "https://h".to_owned(), token: token.to_owned().into(), ca_file: None }
    }

    #[test]
    fn what_is_stored_is_private_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hookmill/contexts.toml");
        assert!(Contexts::load_from(&file).unwrap().contexts.is_empty());
        for name in ["a", "b"] {
            let add = |contexts: &mut Contexts| {
                contexts.contexts.insert(name.to_owned(), stored("planted-token"));
                Ok(())
            };
            Contexts::change_in(&file, add).unwrap();
        }
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let contexts = Contexts::load_from(&file).unwrap();
        assert_eq!(contexts.contexts.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(contexts.contexts["a"].token.as_str(), "planted-token");
        assert!(!format!("{contexts:?}").contains("planted"));
    }

    #[test]
    fn a_refused_change_changes_nothing_and_a_broken_file_tells_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("contexts.toml");
        Contexts::change_in(&file, |contexts| {
            contexts.contexts.insert("a".to_owned(), stored("t"));
            Ok(())
        })
        .unwrap();
        assert!(Contexts::change_in(&file, |contexts| contexts.known("b")).is_err());
        assert!(Contexts::load_from(&file).unwrap().known("a").is_ok());
        private_file::replace(&file, "[contexts.a]\nurl = \"u\"\ntoken = planted-token\n").unwrap();
        let error = format!("{:#}", Contexts::load_from(&file).unwrap_err());
        assert!(error.contains("line 3") && !error.contains("planted"), "{error}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Contexts::load_from(&file).unwrap_err().to_string().contains("chmod 600"));
    }
}
