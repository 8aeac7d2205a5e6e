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
//! | `c` kind, id | the change that a resource stands at |
//! | `h` kind, id, version, place in the commit | a change of its history |
//! | `a` number | an activity |
//! | `m` length, name | a named value of the binary |
//! | `t` number | an API token, by its hash |
//! | `u` number | when that token was last used |

mod mark;
mod tokens;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hookmill_actors::{
    domain::{
        activity::{Activity, RecordedActivity},
        config::{Change, Configuration, ResourceKey},
    },
    ports::{
        config_store::{ConfigStore, ConfigStoreError},
        event_log::LogError,
    },
};
use serde::{Deserialize, Serialize};

use self::mark::Mark;
use super::sled_db::{OpenError, StateDb, VALUE_BYTES_MAX};

/// The largest document, bytes of JSON.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

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
        let _writing = self.0.writing();
        let mut batch = sled::Batch::default();
        self.0.put(&mut batch, &meta_key(name)?, value, &format_args!("the value of `{name}`"))?;
        self.0.write(batch)
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

    async fn commit(&self, changes: Vec<Change>) -> Result<(), ConfigStoreError> {
        self.blocking(move |shared| shared.commit(&changes)).await
    }

    async fn history(&self, key: ResourceKey, limit: usize) -> Result<Vec<Change>, ConfigStoreError> {
        self.blocking(move |shared| {
            let prefix = resource_key(b'h', key);
            let documents = shared.newest_first(&prefix, None, limit)?;
            documents.into_iter().map(|(key, json)| parse(&key, &json)).collect()
        })
        .await
    }

    async fn record_activity(&self, activities: Vec<Activity>) -> Result<(), ConfigStoreError> {
        self.blocking(move |shared| shared.record_activity(&activities)).await
    }

    async fn activities(&self, before: Option<u64>, limit: usize) -> Result<Vec<RecordedActivity>, ConfigStoreError> {
        self.blocking(move |shared| {
            let end = before.map(activity_key);
            let documents = shared.newest_first(b"a", end.as_deref(), limit)?;
            let recorded = |(key, json): Document| {
                let number = activity_number(&key).ok_or_else(|| malformed(&key))?;
                Ok(RecordedActivity { number, activity: parse(&key, &json)? })
            };
            documents.into_iter().map(recorded).collect()
        })
        .await
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

    fn commit(&self, changes: &[Change]) -> Result<(), ConfigStoreError> {
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
                None => self.remove(&mut batch, &current, 0)?,
            }
            let mut history = resource_key(b'h', change.key);
            history.extend(version.to_be_bytes());
            history.extend(place.to_be_bytes());
            self.put(&mut batch, &history, &json, &change.key)?;
        }
        let tally = Tally { version, last_ids: tally.last_ids };
        self.put(&mut batch, TALLY_KEY, &to_json(&tally)?, &"the version")?;
        self.write(batch)?;
        mark.version = version;
        self.guard(mark.write(self.db.dir()))
    }

    fn tally(&self) -> Result<Tally, ConfigStoreError> {
        self.read(TALLY_KEY)?.map_or_else(|| Ok(Tally::default()), |json| parse(TALLY_KEY, &json))
    }

    fn record_activity(&self, activities: &[Activity]) -> Result<(), ConfigStoreError> {
        self.write_with_activities(sled::Batch::default(), activities)
    }

    /// Writes a batch and what the audit log says of it, both or neither.
    fn write_with_activities(&self, mut batch: sled::Batch, activities: &[Activity]) -> Result<(), ConfigStoreError> {
        let mut mark = self.writing();
        let mut number = mark.activity;
        for activity in activities {
            number += 1;
            let subject = format_args!("the activity `{}`", activity.action);
            self.put(&mut batch, &activity_key(number), &to_json(activity)?, &subject)?;
        }
        self.write(batch)?;
        mark.activity = number;
        self.guard(mark.write(self.db.dir()))
    }

    /// How far what is stored has come.
    fn found(&self) -> Result<Mark, LogError> {
        let last = self.tree.scan_prefix(b"a").keys().next_back();
        let activity = self.db.guard(last.transpose())?.and_then(|key| activity_number(&key)).unwrap_or(0);
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

    /// Adds a document to a batch, in place of the one that is there.
    fn put(
        &self,
        batch: &mut sled::Batch,
        key: &[u8],
        document: &[u8],
        subject: &dyn std::fmt::Display,
    ) -> Result<(), ConfigStoreError> {
        if document.len() > DOCUMENT_BYTES_MAX {
            let length = document.len();
            return Err(ConfigStoreError(format!(
                "{subject} takes {length} bytes as JSON; at most {DOCUMENT_BYTES_MAX} are allowed"
            )));
        }
        // An empty document still has its first chunk.
        let (first, others) = document.split_at(document.len().min(VALUE_BYTES_MAX));
        let mut count = 0;
        for chunk in std::iter::once(first).chain(others.chunks(VALUE_BYTES_MAX)) {
            batch.insert(chunk_key(key, count), chunk);
            count += 1;
        }
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

fn activity_key(number: u64) -> Vec<u8> {
    let mut key = vec![b'a'];
    key.extend(number.to_be_bytes());
    key
}

fn activity_number(key: &[u8]) -> Option<u64> {
    key.get(1..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
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

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::{
        activity::ActivityResult,
        config::{Destination, DestinationStatus, Meta, Resource},
        ids::DestinationId,
        secret::Sealed,
        shaping::DestinationLimits,
    };
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::storage::sled_db::CACHE_BYTES;

    fn open(root: &TempDir) -> SledConfig {
        SledConfig::open(StateDb::open(&root.path().join("state"), CACHE_BYTES).unwrap()).unwrap()
    }

    fn destination(id: u32, name: &str, text_bytes: usize) -> Resource {
        Resource::Destination(Destination {
            id: DestinationId(id),
            name: name.to_owned(),
            kind: "http".to_owned(),
            status: DestinationStatus::Active,
            status_reason: None,
            settings: [("text".to_owned(), "x".repeat(text_bytes).into())].into_iter().collect(),
            signing_secret: Sealed("sealed".to_owned()),
            signing_fingerprint: "f".to_owned(),
            credentials: None,
            limits: DestinationLimits::default(),
            meta: Meta { version: 1, created_at_ms: 2, updated_at_ms: 3 },
        })
    }

    fn change(version: u64, id: u32, resource: Option<Resource>) -> Change {
        let key = ResourceKey::Destination(DestinationId(id));
        Change { version, at_ms: version, author: "root".to_owned(), key, resource }
    }

    fn activity(text: &str) -> Activity {
        Activity {
            at_ms: 1,
            actor: "root".to_owned(),
            action: "destination.create".to_owned(),
            subject: "destination 1".to_owned(),
            result: ActivityResult::Ok,
            detail: text.to_owned(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn what_was_committed_is_there_after_a_reopening(
            commits in proptest::collection::vec(
                proptest::collection::btree_map(1u32..6, proptest::option::of(0usize..20_000), 1..4), 1..12),
        ) {
            let root = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut model = Configuration::default();
            let mut history = Vec::new();
            let mut config = open(&root);
            for (version, resources) in (1..).zip(commits) {
                let changes: Vec<Change> = resources.into_iter().map(|(id, text_bytes)| {
                    change(version, id, text_bytes.map(|bytes| destination(id, &format!("v{version}"), bytes)))
                }).collect();
                for change in &changes {
                    model.apply(change);
                }
                history.extend(changes.clone());
                runtime.block_on(config.commit(changes)).unwrap();
                prop_assert_eq!(&runtime.block_on(config.load()).unwrap(), &model);
                if version % 5 == 0 {
                    drop(config);
                    config = open(&root);
                }
            }
            drop(config);
            let config = open(&root);
            prop_assert_eq!(&runtime.block_on(config.load()).unwrap(), &model);
            for id in 1..6 {
                let key = ResourceKey::Destination(DestinationId(id));
                let want: Vec<Change> = history.iter().rev().filter(|change| change.key == key).cloned().collect();
                prop_assert_eq!(&runtime.block_on(config.history(key, 100)).unwrap(), &want);
                prop_assert_eq!(&runtime.block_on(config.history(key, 1)).unwrap(), &want[..want.len().min(1)]);
            }
        }
    }

    #[tokio::test]
    async fn a_deleted_resource_leaves_its_id_used() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        config.commit(vec![change(1, 9, Some(destination(9, "a", 10_000)))]).await.unwrap();
        config.commit(vec![change(2, 9, None)]).await.unwrap();
        drop(config);
        let loaded = open(&root).load().await.unwrap();
        assert!(loaded.destinations.is_empty());
        assert_eq!((loaded.version, loaded.last_ids), (2, [0, 0, 9, 0]));
    }

    #[tokio::test]
    async fn a_version_is_never_rewritten_and_a_refused_commit_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        config.commit(vec![change(4, 1, Some(destination(1, "a", 1)))]).await.unwrap();
        let before = config.load().await.unwrap();
        let again = config.commit(vec![change(4, 1, None)]).await.unwrap_err();
        assert!(again.0.contains("version 4"), "{again}");
        let mixed = vec![change(5, 1, None), change(6, 1, None)];
        assert!(config.commit(mixed).await.unwrap_err().0.contains("versions 5 and 6"));
        let large = vec![change(5, 1, None), change(5, 2, Some(destination(2, "b", DOCUMENT_BYTES_MAX)))];
        let refusal = config.commit(large).await.unwrap_err();
        assert!(refusal.0.contains("destination 2") && refusal.0.contains("65536"), "{refusal}");
        assert_eq!(config.load().await.unwrap(), before);
    }

    #[tokio::test]
    async fn activities_are_paged_newest_first_and_go_on_after_a_reopening() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        let long = "d".repeat(10_000);
        config.record_activity(vec![activity("one"), activity(&long)]).await.unwrap();
        drop(config);
        let config = open(&root);
        config.record_activity(vec![activity("three")]).await.unwrap();
        let page = config.activities(None, 2).await.unwrap();
        let shown: Vec<_> = page.iter().map(|it| (it.number, it.activity.detail.as_str())).collect();
        assert_eq!(shown, [(3, "three"), (2, long.as_str())]);
        let rest = config.activities(Some(2), 10).await.unwrap();
        assert_eq!(rest, [RecordedActivity { number: 1, activity: activity("one") }]);
        assert!(config.activities(Some(1), 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_database_that_went_back_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        config.commit(vec![change(1, 1, Some(destination(1, "a", 1)))]).await.unwrap();
        config.record_activity(vec![activity("one"), activity("two")]).await.unwrap();
        config.0.tree.remove(chunk_key(&activity_key(2), 0)).unwrap();
        drop(config);
        let db = StateDb::open(&root.path().join("state"), CACHE_BYTES).unwrap();
        let refusal = SledConfig::open(db.clone()).err().unwrap().to_string();
        assert!(refusal.contains("activity 2") && refusal.contains("--start-empty"), "{refusal}");
        db.tree("config").unwrap().clear().unwrap();
        let refusal = SledConfig::open(db).err().unwrap().to_string();
        assert!(refusal.contains("version 1"), "{refusal}");
    }

    #[test]
    fn named_values_are_replaced_whole() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        assert_eq!(config.meta_get("tokens"), Ok(None));
        let long = vec![7; 3 * VALUE_BYTES_MAX];
        config.meta_put("tokens", &long).unwrap();
        config.meta_put("tokens-2", b"other").unwrap();
        assert_eq!(config.meta_get("tokens").unwrap().unwrap(), long);
        config.meta_put("tokens", b"short").unwrap();
        assert_eq!(config.meta_get("tokens").unwrap().unwrap(), b"short");
        config.meta_put("tokens", b"").unwrap();
        assert_eq!(config.meta_get("tokens").unwrap().unwrap(), b"");
        assert_eq!(config.meta_get("tokens-2").unwrap().unwrap(), b"other");
        assert!(config.meta_put("", b"x").unwrap_err().0.contains("1 to 255"));
        assert!(config.meta_put("large", &vec![0; DOCUMENT_BYTES_MAX + 1]).unwrap_err().0.contains("65536"));
    }
}
