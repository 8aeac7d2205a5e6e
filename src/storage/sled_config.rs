//! The configuration in sled, with the history of every resource, the activity log, and a few named values.
//!
//! The configuration actor is its only writer of resources. Owns the tree `config`. What a call has stored survives
//! a power cut before the call returns, so a crash costs nothing. From a damaged file sled may go on with what lay
//! before the damage, so [`Mark`] tells beside it how far things had come, and a database that went back is refused.
//!
//! A document is JSON, cut into chunks under keys that follow each other, because a stored value must stay small.
//!
//! | key | document |
//! | --- | --- |
//! | `v` | the version and the highest ids given |
//! | `c` kind, id | the change that a resource stands at, or that deleted it while it may come back |
//! | `h` kind, id, version, place in the commit | a change of its history |
//! | `i` integration, version | a version of an integration, as it is told |
//! | `p` integration, version | what the integration consists of, where that changed |
//! | `a` number | an activity; `t` and `j` find it (see `activities`) |
//! | `m` length, name | a named value of the binary |
//! | `k` number | an API token, by its hash |
//! | `u` number | when that token was last used |

mod activities;
mod export;
mod mark;
mod passes;
mod replies;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use hookmill_actors::{
    domain::{
        activity::{Activity, ActivityBounds, ActivityFilter, ActivityPage},
        config::{Change, Configuration, ResourceKey},
        ids::IntegrationId,
        version::{NewVersion, Parts, Version},
    },
    ports::{
        config_store::{ConfigStore, ConfigStoreError},
        event_log::LogError,
    },
};
use serde::{Deserialize, Serialize};

use self::mark::Mark;
pub use self::{
    export::ConfigExport,
    passes::{PassPlace, Standing},
};
use super::sled_db::{OpenError, StateDb, VALUE_BYTES_MAX};

/// The largest document, bytes of JSON.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024;
/// The largest version, or list of parts: an integration's parts are bounded, and each takes less than 100 bytes.
const VERSION_BYTES_MAX: usize = 256 * 1024;

/// Keys that one batch removes.
const REMOVED_AT_ONCE: usize = 1_000;

const CHUNK_NUMBER_BYTES: usize = 2;
const TALLY_KEY: &[u8] = b"v";

/// The stored configuration. Clones share it.
#[derive(Clone)]
pub struct SledConfig(Arc<Shared>);

struct Shared {
    db: StateDb,
    tree: sled::Tree,
    /// Held from the first read of a change to its write: how far what is stored has come.
    writing: Mutex<Mark>,
}

/// A stored document: its key without the chunk's number, and its bytes.
type Document = (Vec<u8>, Vec<u8>);

/// Named values whose names begin alike and are all as long.
#[derive(Clone, Copy, Debug)]
pub struct NamedPrefix {
    /// What they begin with.
    pub prefix: &'static str,
    /// Bytes of a whole name.
    pub name_bytes: u8,
}

impl NamedPrefix {
    fn key(self) -> Vec<u8> {
        [&[b'm', self.name_bytes], self.prefix.as_bytes()].concat()
    }
}

/// What the whole configuration has of its own.
#[derive(Default, Serialize, Deserialize)]
struct Tally {
    version: u64,
    last_ids: [u32; 4],
}

impl SledConfig {
    /// Takes the database's tree over. Refuses one that has lost what was once acknowledged.
    pub fn open(db: StateDb) -> Result<Self, OpenError> {
        let tree = db.first_reads(|| db.tree("config"))?;
        let mark = Mark::read(db.dir())?;
        let shared = Shared { db, tree, writing: Mutex::new(Mark::default()) };
        let found = shared.db.first_reads(|| shared.found())?;
        found.covers(mark, shared.db.dir())?;
        *shared.writing() = found;
        Ok(Self(Arc::new(shared)))
    }

    /// A named value, as [`SledConfig::meta_put`] stored it. Blocks for the disk.
    pub fn meta_get(&self, name: &str) -> Result<Option<Vec<u8>>, ConfigStoreError> {
        self.0.read(&meta_key(name)?)
    }

    /// Stores a value of at most [`DOCUMENT_BYTES_MAX`] under a name of 1 to 255 bytes; durable when it returns.
    /// Blocks for the disk.
    pub fn meta_put(&self, name: &str, value: &[u8]) -> Result<(), ConfigStoreError> {
        self.meta_exchange(&[], name, || value)
    }

    /// Removes named values and stores another one, all or nothing, otherwise as [`SledConfig::meta_put`]. The value is
    /// made while nobody else writes: what is sealed in it is either seen by a rotation of keys or sealed with its key.
    pub fn meta_exchange<V: AsRef<[u8]>>(
        &self,
        removed: &[String],
        name: &str,
        value: impl FnOnce() -> V,
    ) -> Result<(), ConfigStoreError> {
        let _writing = self.0.writing();
        let mut batch = sled::Batch::default();
        for name in removed {
            self.0.remove(&mut batch, &meta_key(name)?, 0)?;
        }
        self.0.put(&mut batch, &meta_key(name)?, value().as_ref(), &format_args!("the value of `{name}`"))?;
        self.0.write(batch)
    }

    /// Removes named values; durable when it returns. Blocks for the disk.
    pub fn meta_remove(&self, names: &[String]) -> Result<(), ConfigStoreError> {
        let _writing = self.0.writing();
        let mut batch = sled::Batch::default();
        for name in names {
            self.0.remove(&mut batch, &meta_key(name)?, 0)?;
        }
        self.0.write(batch)
    }

    /// All values of such names, with what follows the prefix, ascending. Blocks for the disk.
    pub fn meta_list(&self, prefix: NamedPrefix) -> Result<Vec<(String, Vec<u8>)>, ConfigStoreError> {
        let start = prefix.key();
        let documents = self.0.newest_first(&start, None, usize::MAX)?;
        let named = |(key, value): Document| {
            let rest = key.get(start.len()..).and_then(|rest| std::str::from_utf8(rest).ok());
            rest.map(|rest| (rest.to_owned(), value)).ok_or_else(|| malformed(&key))
        };
        documents.into_iter().rev().map(named).collect()
    }

    /// Runs what blocks for the disk where it holds nothing up.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, ConfigStoreError> + Send + 'static,
    ) -> Result<T, ConfigStoreError> {
        let shared = self.0.clone();
        let stopped = |_| Err(ConfigStoreError("the task was stopped before it was done".to_owned()));
        tokio::task::spawn_blocking(move || work(&shared)).await.unwrap_or_else(stopped)
    }
}

#[async_trait]
impl ConfigStore for SledConfig {
    async fn load(&self) -> Result<Configuration, ConfigStoreError> {
        self.blocking(Shared::load).await
    }

    async fn commit(&self, changes: Vec<Change>, versions: Vec<NewVersion>) -> Result<(), ConfigStoreError> {
        self.blocking(move |shared| shared.commit(&changes, &versions)).await
    }

    async fn history(&self, key: ResourceKey, limit: usize) -> Result<Vec<Change>, ConfigStoreError> {
        self.blocking(move |shared| {
            let prefix = resource_key(b'h', key);
            let documents = shared.newest_first(&prefix, None, limit)?;
            documents.into_iter().map(|(key, json)| parse(&key, &json)).collect()
        })
        .await
    }

    async fn as_of(&self, keys: Vec<(ResourceKey, u64)>) -> Result<Vec<Option<Change>>, ConfigStoreError> {
        self.blocking(move |shared| {
            let standing = |(key, version): (ResourceKey, u64)| {
                let prefix = resource_key(b'h', key);
                shared.newest_upto(&prefix, version)?.map(|(key, json)| parse(&key, &json)).transpose()
            };
            keys.into_iter().map(standing).collect()
        })
        .await
    }

    async fn versions(
        &self,
        integration: IntegrationId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Version>, ConfigStoreError> {
        self.blocking(move |shared| {
            let prefix = integration_key(b'i', integration);
            let end = before.map(|before| versioned(&prefix, before));
            let documents = shared.newest_first(&prefix, end.as_deref(), limit)?;
            documents.into_iter().map(|(key, json)| parse(&key, &json)).collect()
        })
        .await
    }

    async fn parts(&self, integration: IntegrationId, number: u64) -> Result<Option<Parts>, ConfigStoreError> {
        self.blocking(move |shared| {
            let prefix = integration_key(b'p', integration);
            shared.newest_upto(&prefix, number)?.map(|(key, json)| parse(&key, &json)).transpose()
        })
        .await
    }

    async fn forget(&self, integration: IntegrationId) -> Result<(), ConfigStoreError> {
        self.blocking(move |shared| shared.forget(integration)).await
    }

    async fn record_activity(&self, activities: Vec<Activity>) -> Result<(), ConfigStoreError> {
        self.blocking(move |shared| shared.record_activity(&activities)).await
    }

    async fn activities(
        &self,
        filter: &ActivityFilter,
        bounds: ActivityBounds,
    ) -> Result<ActivityPage, ConfigStoreError> {
        let filter = filter.clone();
        self.blocking(move |shared| shared.activities(&filter, bounds)).await
    }

    async fn forget_activities(&self, before_ms: u64) -> Result<u64, ConfigStoreError> {
        self.blocking(move |shared| shared.forget_activities(before_ms)).await
    }
}

impl Shared {
    fn load(&self) -> Result<Configuration, ConfigStoreError> {
        let mut configuration = Configuration::default();
        let mut standing: Option<Document> = None;
        let mut take = |document: Option<Document>| -> Result<(), ConfigStoreError> {
            if let Some((key, json)) = document {
                configuration.apply(&parse(&key, &json)?);
            }
            Ok(())
        };
        for item in self.tree.scan_prefix(b"c") {
            let (key, chunk) = self.guard(item)?;
            let (key, number) = split_chunk(&key)?;
            match &mut standing {
                Some((last, json)) if number > 0 && last == key => json.extend_from_slice(&chunk),
                _ => take(standing.replace((key.to_vec(), chunk.to_vec())))?,
            }
        }
        take(standing)?;
        // What was deleted last, or had the highest id, is only here.
        Tally { version: configuration.version, last_ids: configuration.last_ids } = self.tally()?;
        Ok(configuration)
    }

    fn commit(&self, changes: &[Change], versions: &[NewVersion]) -> Result<(), ConfigStoreError> {
        let Some(version) = changes.first().map(|change| change.version) else { return Ok(()) };
        let mut mark = self.writing();
        let Tally { version: stored, last_ids } = self.tally()?;
        if version <= stored {
            return Err(ConfigStoreError(format!("version {version} is not above the stored version {stored}")));
        }
        // Counts as the configuration itself does; the resources in it do not matter here.
        let mut tally = Configuration { version, last_ids, ..Configuration::default() };
        let mut batch = sled::Batch::default();
        for (place, change) in (0u16..).zip(changes) {
            if change.version != version {
                let other = change.version;
                return Err(ConfigStoreError(format!(
                    "one commit has the versions {version} and {other}; give it one"
                )));
            }
            tally.apply(change);
            let json = to_json(change)?;
            let current = resource_key(b'c', change.key);
            match change.resource {
                Some(_) => self.put(&mut batch, &current, &json, &change.key)?,
                None if change.kept.is_some() => self.put(&mut batch, &current, &json, &change.key)?,
                None => self.remove(&mut batch, &current, 0)?,
            }
            let mut history = versioned(&resource_key(b'h', change.key), version);
            history.extend(place.to_be_bytes());
            self.put(&mut batch, &history, &json, &change.key)?;
        }
        for NewVersion { version, parts } in versions {
            let subject = format_args!("version {} of integration {}", version.number, version.integration);
            let key = |letter| versioned(&integration_key(letter, version.integration), version.number);
            put_new(&mut batch, &key(b'i'), &to_json(version)?, VERSION_BYTES_MAX, &subject)?;
            if let Some(parts) = parts {
                put_new(&mut batch, &key(b'p'), &to_json(parts)?, VERSION_BYTES_MAX, &subject)?;
            }
        }
        let tally = Tally { version, last_ids: tally.last_ids };
        self.put(&mut batch, TALLY_KEY, &to_json(&tally)?, &"the version")?;
        self.write(batch)?;
        mark.version = version;
        self.guard(mark.write(self.db.dir()))
    }

    /// Removes the history of whatever the integration's versions ever named; the versions last, as they name it.
    fn forget(&self, integration: IntegrationId) -> Result<(), ConfigStoreError> {
        let _writing = self.writing();
        let mut named: BTreeSet<ResourceKey> = [ResourceKey::Integration(integration)].into();
        let lists = integration_key(b'p', integration);
        let mut end = None;
        while let Some((key, json)) = self.newest_first(&lists, end.as_deref(), 1)?.pop() {
            named.extend(parse::<Parts>(&key, &json)?.into_iter().map(|(key, _)| key));
            end = Some(key);
        }
        let histories = named.into_iter().map(|key| resource_key(b'h', key));
        for prefix in histories.chain([integration_key(b'i', integration), lists]) {
            self.remove_all(&prefix)?;
        }
        self.db.sync().map_err(store_error)
    }

    /// Removes what lies under a prefix, a bounded part at a time.
    fn remove_all(&self, prefix: &[u8]) -> Result<(), ConfigStoreError> {
        loop {
            let mut batch = sled::Batch::default();
            let mut count = 0;
            for key in self.tree.scan_prefix(prefix).keys().take(REMOVED_AT_ONCE) {
                batch.remove(self.guard(key)?);
                count += 1;
            }
            self.db.check().map_err(store_error)?;
            self.guard(self.tree.apply_batch(batch))?;
            if count < REMOVED_AT_ONCE {
                return Ok(());
            }
        }
    }

    fn tally(&self) -> Result<Tally, ConfigStoreError> {
        self.read(TALLY_KEY)?.map_or_else(|| Ok(Tally::default()), |json| parse(TALLY_KEY, &json))
    }

    /// How far what is stored has come.
    fn found(&self) -> Result<Mark, LogError> {
        let last = self.tree.scan_prefix(b"a").keys().next_back();
        let activity = self.db.guard(last.transpose())?.and_then(|key| activities::number(&key)).unwrap_or(0);
        let tally = self.tally().map_err(|ConfigStoreError(cause)| LogError::Failed(cause.into()))?;
        Ok(Mark { version: tally.version, activity })
    }

    /// The document whose chunks lie under `key`.
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ConfigStoreError> {
        let mut document = None;
        for item in self.tree.range(chunk_key(key, 0)..=chunk_key(key, u16::MAX)) {
            document.get_or_insert_with(Vec::new).extend_from_slice(&self.guard(item)?.1);
        }
        Ok(document)
    }

    /// Documents whose key begins with `prefix` and lies below `end`, with their keys, the last one first.
    fn newest_first(&self, prefix: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<Document>, ConfigStoreError> {
        let mut documents = Vec::new();
        let mut chunks: Vec<sled::IVec> = Vec::new();
        if limit == 0 {
            return Ok(documents);
        }
        let items: Box<dyn Iterator<Item = _>> = match end {
            Some(end) => Box::new(self.tree.range(prefix..end).rev()),
            None => Box::new(self.tree.scan_prefix(prefix).rev()),
        };
        for item in items {
            let (chunked, chunk) = self.guard(item)?;
            let (key, number) = split_chunk(&chunked)?;
            chunks.push(chunk);
            if number == 0 {
                let document = chunks.drain(..).rev().flat_map(|chunk| chunk.to_vec()).collect();
                documents.push((key.to_vec(), document));
                if documents.len() == limit {
                    break;
                }
            }
        }
        Ok(documents)
    }

    /// The last document under a prefix and a version, up to this version.
    fn newest_upto(&self, prefix: &[u8], version: u64) -> Result<Option<Document>, ConfigStoreError> {
        let end = match version.checked_add(1) {
            Some(next) => versioned(prefix, next),
            None => [prefix, &[u8::MAX; 24]].concat(),
        };
        Ok(self.newest_first(prefix, Some(&end), 1)?.pop())
    }

    /// Adds a document to a batch, in place of the one that is there.
    fn put(
        &self,
        batch: &mut sled::Batch,
        key: &[u8],
        document: &[u8],
        subject: &dyn std::fmt::Display,
    ) -> Result<(), ConfigStoreError> {
        let count = put_new(batch, key, document, DOCUMENT_BYTES_MAX, subject)?;
        self.remove(batch, key, count)
    }

    /// Removes a stored document's chunks from a number on.
    fn remove(&self, batch: &mut sled::Batch, key: &[u8], from: u16) -> Result<(), ConfigStoreError> {
        for item in self.tree.range(chunk_key(key, from)..=chunk_key(key, u16::MAX)).keys() {
            batch.remove(self.guard(item)?);
        }
        Ok(())
    }

    fn write(&self, batch: sled::Batch) -> Result<(), ConfigStoreError> {
        self.db.check().map_err(store_error)?;
        self.guard(self.tree.apply_batch(batch))?;
        self.db.sync().map_err(store_error)
    }

    fn guard<T, E: std::fmt::Display>(&self, answer: Result<T, E>) -> Result<T, ConfigStoreError> {
        self.db.guard(answer).map_err(store_error)
    }

    fn writing(&self) -> MutexGuard<'_, Mark> {
        // The numbers in it are set last, so what panicked under it left nothing half done.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a document to a batch under a key that has none; returns the number of its chunks.
fn put_new(
    batch: &mut sled::Batch,
    key: &[u8],
    document: &[u8],
    bytes_max: usize,
    subject: &dyn std::fmt::Display,
) -> Result<u16, ConfigStoreError> {
    if document.len() > bytes_max {
        let length = document.len();
        return Err(ConfigStoreError(format!(
            "{subject} takes {length} bytes as JSON; at most {bytes_max} are allowed"
        )));
    }
    // An empty document still has its first chunk.
    let (first, others) = document.split_at(document.len().min(VALUE_BYTES_MAX));
    let mut count = 0;
    for chunk in std::iter::once(first).chain(others.chunks(VALUE_BYTES_MAX)) {
        batch.insert(chunk_key(key, count), chunk);
        count += 1;
    }
    Ok(count)
}

fn integration_key(letter: u8, id: IntegrationId) -> Vec<u8> {
    let mut bytes = vec![letter];
    bytes.extend(id.0.to_be_bytes());
    bytes
}

fn versioned(prefix: &[u8], version: u64) -> Vec<u8> {
    [prefix, &version.to_be_bytes()].concat()
}

fn resource_key(letter: u8, key: ResourceKey) -> Vec<u8> {
    let (kind, id) = match key {
        ResourceKey::Integration(id) => (0, id.0),
        ResourceKey::Endpoint(id) => (1, id.0),
        ResourceKey::Destination(id) => (2, id.0),
        ResourceKey::Subscription(id) => (3, id.0),
    };
    let mut bytes = vec![letter, kind];
    bytes.extend(id.to_be_bytes());
    bytes
}

/// The configuration's version in a key of the history, or of an integration's versions and their parts.
fn version_in(key: &[u8]) -> Option<u64> {
    let at = match key.first()? {
        b'h' => 6,
        b'i' | b'p' => 5,
        _ => return None,
    };
    key.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn meta_key(name: &str) -> Result<Vec<u8>, ConfigStoreError> {
    match u8::try_from(name.len()) {
        Ok(length) if length > 0 => Ok([&[b'm', length], name.as_bytes()].concat()),
        _ => Err(ConfigStoreError(format!("a name has {} bytes; 1 to 255 are allowed", name.len()))),
    }
}

fn chunk_key(key: &[u8], number: u16) -> Vec<u8> {
    [key, &number.to_be_bytes()].concat()
}

/// A document's key, and which of its chunks this is.
fn split_chunk(key: &[u8]) -> Result<(&[u8], u16), ConfigStoreError> {
    let (document, number) = key.split_last_chunk::<CHUNK_NUMBER_BYTES>().ok_or_else(|| malformed(key))?;
    Ok((document, u16::from_be_bytes(*number)))
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, ConfigStoreError> {
    serde_json::to_vec(value).map_err(|error| ConfigStoreError(error.to_string()))
}

/// Says where, not what: a document may hold what nobody should see.
fn parse<T: for<'de> Deserialize<'de>>(key: &[u8], json: &[u8]) -> Result<T, ConfigStoreError> {
    serde_json::from_slice(json).map_err(|_| malformed(key))
}

fn malformed(key: &[u8]) -> ConfigStoreError {
    ConfigStoreError(format!("the document at `{}` is malformed", key.escape_ascii()))
}

fn store_error(error: LogError) -> ConfigStoreError {
    match error {
        LogError::Failed(cause) => ConfigStoreError(cause.to_string()),
        other => ConfigStoreError(other.to_string()),
    }
}
