//! The documents of an apply: found, read, put together, and known by where each thing stands.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Map, Value};

use crate::cli::{
    UsageError,
    document::{self, Form},
    verify::{is_stdin, read_secret},
};

/// Far above what anybody keeps in one folder.
const FILES_MAX: usize = 1_000;
const FOLDERS_DEEP_MAX: usize = 8;
/// Begins a secret that stands in a file.
const FILE_REFERENCE: &str = "file:";
const COLLECTIONS: [&str; 2] = ["integrations", "destinations"];

/// All documents as one.
pub(super) struct Documents {
    integrations: Vec<Thing>,
    destinations: Vec<Thing>,
}

struct Thing {
    file: PathBuf,
    /// Its place in its document.
    index: usize,
    document: Value,
}

impl Documents {
    pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            if is_stdin(path) || path.is_file() {
                files.push(path.clone());
            } else if path.is_dir() {
                let before = files.len();
                find(path, FOLDERS_DEEP_MAX, &mut files)?;
                if files.len() == before {
                    return Err(UsageError::new(format!("{} holds no .json, .toml, .yaml or .yml", path.display())));
                }
            } else {
                return Err(UsageError::new(format!("{} is not there", path.display())));
            }
        }
        let mut documents = Self { integrations: Vec::new(), destinations: Vec::new() };
        for file in files {
            documents.add(&file)?;
        }
        Ok(documents)
    }

    fn add(&mut self, file: &Path) -> anyhow::Result<()> {
        let wrong = |problem: String| UsageError::new(format!("{}: {problem}", file.display()));
        let mut document = document::object(file)?;
        // As it comes of a command before the pipe that failed; with `--prune` it would take everything away.
        if document.is_empty() && is_stdin(file) {
            return Err(UsageError::new("standard input is empty; write `integrations: []` where nothing shall stand"));
        }
        for (collection, things) in COLLECTIONS.into_iter().zip([&mut self.integrations, &mut self.destinations]) {
            let items = match document.remove(collection) {
                None => continue,
                Some(Value::Array(items)) => items,
                Some(_) => return Err(wrong(format!("`{collection}` must be a list"))),
            };
            for (index, mut item) in items.into_iter().enumerate() {
                let folder = file.parent().unwrap_or(Path::new("."));
                read_secrets(&mut item, &format!("{collection}.{index}"), folder).map_err(wrong)?;
                things.push(Thing { file: file.to_owned(), index, document: item });
            }
        }
        match document.keys().next() {
            None => Ok(()),
            Some(other) => {
                let other = crate::cli::show::escaped(other);
                Err(wrong(format!("`{other}` is not known; a document holds `integrations` and `destinations`")))
            }
        }
    }

    /// As the API takes them.
    pub(super) fn body(&self) -> Map<String, Value> {
        let all = |things: &[Thing]| things.iter().map(|thing| thing.document.clone()).collect::<Value>();
        let [integrations, destinations] = COLLECTIONS.map(str::to_owned);
        Map::from_iter([(integrations, all(&self.integrations)), (destinations, all(&self.destinations))])
    }

    /// Where in which document a pointer into the body leads.
    pub(super) fn place(&self, pointer: &str) -> Option<String> {
        let mut parts = pointer.trim_start_matches('/').splitn(3, '/');
        let collection = parts.next()?;
        let things = match collection {
            "integrations" => &self.integrations,
            "destinations" => &self.destinations,
            _ => return None,
        };
        let thing = things.get(parts.next()?.parse::<usize>().ok()?)?;
        let rest = parts.next().map(|rest| format!(".{}", rest.replace('/', "."))).unwrap_or_default();
        Some(format!("{}: {collection}.{}{rest}", thing.file.display(), thing.index))
    }
}

fn find(folder: &Path, deep: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if deep == 0 {
        return Err(UsageError::new(format!("{} is more than {FOLDERS_DEEP_MAX} folders deep", folder.display())));
    }
    let entries = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("cannot read {}", folder.display()))?;
    paths.sort();
    for path in paths {
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if is_hidden {
            continue;
        }
        if path.is_dir() {
            find(&path, deep - 1, files)?;
        } else if Form::of(&path).is_some() {
            if files.len() >= FILES_MAX {
                return Err(UsageError::new(format!("there are more than {FILES_MAX} documents")));
            }
            files.push(path);
        }
    }
    Ok(())
}

/// Puts in the secrets that stand in files: of the thing itself, and of its webhooks. What is wrong is told with its
/// place, which begins with `at`.
fn read_secrets(thing: &mut Value, at: &str, folder: &Path) -> Result<(), String> {
    let Value::Object(members) = thing else { return Ok(()) };
    for (name, value) in members {
        match (name.as_str(), value) {
            ("secret" | "secret_key" | "signing_secret" | "credentials", value) => {
                put_in(value, &format!("{at}.{name}"), folder)?;
            }
            ("webhooks", Value::Array(webhooks)) => {
                for (index, webhook) in webhooks.iter_mut().enumerate() {
                    read_secrets(webhook, &format!("{at}.webhooks.{index}"), folder)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn put_in(value: &mut Value, at: &str, folder: &Path) -> Result<(), String> {
    match value {
        Value::String(text) => {
            let Some(path) = text.strip_prefix(FILE_REFERENCE) else { return Ok(()) };
            let secret = read_secret(&folder.join(path)).map_err(|error| format!("{at}: {error:#}"))?;
            let secret = secret.expose_str().ok_or_else(|| format!("{at}: {path} is not UTF-8 text"))?;
            *text = secret.to_owned();
            Ok(())
        }
        Value::Object(members) => members
            .iter_mut()
            .try_for_each(|(name, value)| put_in(value, &format!("{at}.{}", crate::cli::show::escaped(name)), folder)),
        Value::Array(items) => {
            items.iter_mut().enumerate().try_for_each(|(index, value)| put_in(value, &format!("{at}.{index}"), folder))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_is_one_configuration_and_its_parts_know_where_they_stand() {
        let folder = folder(&[
            (
                "b/shop.toml",
                "[[integrations]]\nname = \"Shop\"\n[[integrations.webhooks]]\nname = \"w\"\nsecret = \"file:key\"\n",
            ),
            (
                "a.yaml",
                "destinations:\n- name: ledger\n  credentials: {token: 'file:b/key'}\nintegrations:\n- name: Sms\n",
            ),
            ("b/key", "planted\n"),
            (".hidden.yaml", "nonsense"),
            ("notes.md", "nonsense"),
        ]);
        let documents = Documents::read(&[folder.path().to_owned()]).unwrap();
        assert_eq!(
            Value::Object(documents.body()),
            json!({"integrations": [{"name": "Sms"}, {"name": "Shop", "webhooks": [{"name": "w", "secret": "planted"}]}],
                   "destinations": [{"name": "ledger", "credentials": {"token": "planted"}}]})
        );
        let place = documents.place("/integrations/1/webhooks/0/path").unwrap();
        assert!(place.ends_with("b/shop.toml: integrations.0.webhooks.0.path"), "{place}");
        assert_eq!(documents.place("/prune"), None);
    }

    #[test]
    fn what_is_no_document_is_refused_by_its_file() {
        for (name, text, words) in [
            ("a.yaml", "integration: []", "`integration` is not known"),
            ("a.toml", "integrations = 1", "must be a list"),
            ("a.json", "[]", "must be an object"),
            (
                "a.yaml",
                "integrations:\n- webhooks:\n  - secret: file:gone",
                "a.yaml: integrations.0.webhooks.0.secret: cannot open",
            ),
            ("a.yaml", "destinations:\n- credentials: {token: 'file:gone'}", "destinations.0.credentials.token: "),
            ("a.txt", "", "holds no"),
        ] {
            let folder = folder(&[(name, text)]);
            let error = Documents::read(&[folder.path().to_owned()]).err().unwrap();
            assert!(format!("{error:#}").contains(words), "{error:#}");
        }
        assert!(Documents::read(&[PathBuf::from("/no/such/thing")]).is_err());
    }
}
