//! The configuration as it stands at one version, with its history and the activities up to then, while changes go on.
//!
//! What can change is copied while nobody writes; what is only ever added to (history, versions, activities) is walked
//! afterwards, up to where it had come then.

use std::{ops::Bound, sync::Arc};

use hookmill_actors::ports::config_store::ConfigStoreError;

use super::{Shared, SledConfig, activities, store_error, version_in};
use crate::storage::export::Encoder;

/// The state has a stream of its own.
const STATE: &[u8] = b"state";
/// Where sled keeps what has no tree.
const DEFAULT: &[u8] = b"__sled__default";
const STEP_KEYS: usize = 1_000;

/// The configuration at one version, as a stream; see [`crate::storage::export`].
pub struct ConfigExport {
    shared: Arc<Shared>,
    encoder: Encoder,
    version: u64,
    activity: u64,
    /// What is walked yet, the next one last, and from where.
    letters: Vec<u8>,
    next: Vec<u8>,
    ended: bool,
}

impl SledConfig {
    /// Begins an export. Blocks for the disk, and while nobody writes.
    pub fn export(&self) -> Result<ConfigExport, ConfigStoreError> {
        let shared = self.0.clone();
        let writing = shared.writing();
        let version = shared.tally()?.version;
        let activity = writing.activity;
        let mut encoder = Encoder::new();
        for name in shared.db.tree_names().map_err(store_error)? {
            if name == STATE || name == DEFAULT || name == shared.tree.name() {
                continue;
            }
            let other = shared.db.tree(&String::from_utf8_lossy(&name)).map_err(store_error)?;
            encoder.tree(&name);
            for item in &other {
                let (key, value) = shared.guard(item)?;
                encoder.record(&key, &value);
            }
        }
        encoder.tree(&shared.tree.name());
        for item in &shared.tree {
            let (key, value) = shared.guard(item)?;
            if !matches!(key.first(), Some(b'a' | b'h' | b'i' | b'p')) {
                encoder.record(&key, &value);
            }
        }
        drop(writing);
        let letters = vec![b'h', b'i', b'p', b'a'];
        Ok(ConfigExport { shared, encoder, version, activity, letters, next: Vec::new(), ended: false })
    }
}

impl ConfigExport {
    /// The configuration's version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The next bytes; `None` at the end. Blocks for the disk.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ConfigStoreError> {
        while !self.ended && !self.encoder.is_full() {
            self.step()?;
        }
        let chunk = self.encoder.take();
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn step(&mut self) -> Result<(), ConfigStoreError> {
        let Some(letter) = self.letters.last().copied() else {
            self.encoder.end();
            self.ended = true;
            return Ok(());
        };
        let from =
            if self.next.is_empty() { Bound::Included(vec![letter]) } else { Bound::Excluded(self.next.clone()) };
        let mut seen = 0;
        for item in self.shared.tree.range((from, Bound::Excluded(vec![letter + 1]))).take(STEP_KEYS) {
            let (key, value) = self.shared.guard(item)?;
            let within = match letter {
                b'a' => activities::number(&key).is_some_and(|number| number <= self.activity),
                _ => version_in(&key).is_some_and(|version| version <= self.version),
            };
            if within {
                self.encoder.record(&key, &value);
            }
            (seen, self.next) = (seen + 1, key.to_vec());
        }
        if seen < STEP_KEYS {
            self.letters.pop();
            self.next = Vec::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hookmill_actors::{
        domain::{
            activity::{ActivityBounds, ActivityFilter, ActivityPlace},
            config::ResourceKey,
            ids::DestinationId,
        },
        ports::config_store::ConfigStore,
    };

    use super::{
        super::{
            activities::tests::activity,
            tests::{change, destination, open},
        },
        *,
    };
    use crate::storage::{
        export::import,
        sled_db::{CACHE_BYTES, StateDb},
    };

    const ALL: ActivityBounds =
        ActivityBounds { before: ActivityPlace::END, found_max: usize::MAX, looked_at_max: usize::MAX };

    #[tokio::test]
    async fn what_is_exported_is_one_version_with_its_past() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        for version in 1..=9 {
            let id = u32::try_from(version % 3).unwrap() + 1;
            config.commit(vec![change(version, id, Some(destination(id, "a", 9_000)))], Vec::new()).await.unwrap();
            config.record_activity(vec![activity(&format!("{version}"))]).await.unwrap();
        }
        config.meta_put("name", b"value").unwrap();
        let all = async |config: &SledConfig| config.activities(&ActivityFilter::default(), ALL).await.unwrap();
        let (then, last) = (config.load().await.unwrap(), all(&config).await);
        let mut export = config.export().unwrap();
        assert_eq!(export.version(), 9);
        config
            .commit(vec![change(10, 1, None), change(10, 7, Some(destination(7, "b", 5)))], Vec::new())
            .await
            .unwrap();
        config.record_activity(vec![activity("late")]).await.unwrap();
        let mut stream = Vec::new();
        while let Some(chunk) = export.next_chunk().unwrap() {
            stream.extend(chunk);
        }
        let db = StateDb::open(&root.path().join("copy"), CACHE_BYTES).unwrap();
        import(&db, &mut &stream[..]).unwrap();
        let copy = SledConfig::open(db).unwrap();
        assert_eq!(copy.load().await.unwrap(), then);
        assert_eq!(all(&copy).await, last);
        assert_eq!(copy.meta_get("name").unwrap().unwrap(), b"value");
        for id in 1..=7 {
            let key = ResourceKey::Destination(DestinationId(id));
            let mut want = config.history(key, 100).await.unwrap();
            want.retain(|change| change.version <= 9);
            assert_eq!(copy.history(key, 100).await.unwrap(), want, "{key}");
        }
        copy.commit(vec![change(10, 2, None)], Vec::new()).await.unwrap();
    }
}
