//! Passes over everything that is stored, a bounded step at a time, so that others read and write in between: to look
//! at it, and to put what is sealed under another key. What a pass writes keeps its place, its version and its time.

use std::ops::Bound;

use hookmill_actors::{domain::config::Change, ports::config_store::ConfigStoreError};

use super::{Document, NamedPrefix, Shared, SledConfig, malformed, parse, split_chunk, to_json};

/// Where a stored change stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is what its resource is now.
    Current,
    /// It is a version in a resource's history; the last one is also [`Standing::Current`].
    History,
}

impl Standing {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Current, Self::History];

    fn letter(self) -> u8 {
        match self {
            Self::Current => b'c',
            Self::History => b'h',
        }
    }
}

/// How far a pass has come: the key of the last chunk it saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassPlace(Vec<u8>);

/// Looks at a named value, by what follows its prefix, and may make another one of it.
pub(super) type EditNamed<'a> = &'a mut dyn FnMut(&str, &[u8]) -> Option<Vec<u8>>;

impl SledConfig {
    /// How many changes are stored, over all of [`Standing::ALL`]. Blocks for the disk.
    pub fn count_changes(&self) -> Result<u64, ConfigStoreError> {
        let mut count = 0;
        for standing in Standing::ALL {
            for key in self.0.tree.scan_prefix([standing.letter()]).keys() {
                count += u64::from(split_chunk(&self.0.guard(key)?)?.1 == 0);
            }
        }
        Ok(count)
    }

    /// Hands the next `limit` changes after `place` to `edit`, and stores those again of which it says that it altered
    /// them: all or none of the step, durable when it returns. Nobody else writes meanwhile. The place to go on from,
    /// and how many there were; `None` at the end. Blocks for the disk.
    pub fn edit_changes(
        &self,
        standing: Standing,
        place: &PassPlace,
        limit: usize,
        edit: &mut dyn FnMut(&mut Change) -> bool,
    ) -> Result<Option<(PassPlace, usize)>, ConfigStoreError> {
        let _writing = self.0.writing();
        let (documents, place) = self.0.documents_after(&[standing.letter()], place, limit)?;
        if documents.is_empty() {
            return Ok(None);
        }
        let next = (place, documents.len());
        let mut batch = sled::Batch::default();
        let mut altered = false;
        for (key, json) in documents {
            let mut change: Change = parse(&key, &json)?;
            if edit(&mut change) {
                self.0.put(&mut batch, &key, &to_json(&change)?, &change.key)?;
                altered = true;
            }
        }
        if altered {
            self.0.write(batch)?;
        }
        Ok(Some(next))
    }

    /// Hands the next `limit` values of such names after `place` to `edit`, with what follows the prefix, and stores what
    /// it gives back in their places; otherwise as [`SledConfig::edit_changes`].
    pub(crate) fn edit_named(
        &self,
        names: NamedPrefix,
        place: &PassPlace,
        limit: usize,
        edit: EditNamed<'_>,
    ) -> Result<Option<(PassPlace, usize)>, ConfigStoreError> {
        let _writing = self.0.writing();
        let prefix = names.key();
        let (documents, place) = self.0.documents_after(&prefix, place, limit)?;
        if documents.is_empty() {
            return Ok(None);
        }
        let next = (place, documents.len());
        let mut batch = sled::Batch::default();
        let mut altered = false;
        for (key, value) in documents {
            let name = key.get(prefix.len()..).and_then(|rest| std::str::from_utf8(rest).ok());
            let name = name.ok_or_else(|| malformed(&key))?;
            if let Some(value) = edit(name, &value) {
                self.0.put(&mut batch, &key, &value, &format_args!("the value of `{}{name}`", names.prefix))?;
                altered = true;
            }
        }
        if altered {
            self.0.write(batch)?;
        }
        Ok(Some(next))
    }

    /// Shows every stored document as it is, whatever it is: changes, activities, named values. Blocks for the disk.
    pub fn each_document(&self, mut show: impl FnMut(&[u8])) -> Result<(), ConfigStoreError> {
        const STEP: usize = 256;
        let mut place = PassPlace::default();
        loop {
            let (documents, next) = self.0.documents_after(&[], &place, STEP)?;
            if documents.is_empty() {
                return Ok(());
            }
            for (_, document) in &documents {
                show(document);
            }
            place = next;
        }
    }
}

impl Shared {
    /// Documents whose key begins with `prefix` and lies after `place`, in the order of their keys, and the place
    /// after them.
    fn documents_after(
        &self,
        prefix: &[u8],
        place: &PassPlace,
        limit: usize,
    ) -> Result<(Vec<Document>, PassPlace), ConfigStoreError> {
        let start = match &place.0[..] {
            [] => Bound::Included(prefix),
            place => Bound::Excluded(place),
        };
        let mut documents: Vec<Document> = Vec::new();
        let mut end = place.clone();
        for item in self.tree.range::<&[u8], _>((start, Bound::Unbounded)) {
            let (chunked, chunk) = self.guard(item)?;
            let (key, number) = split_chunk(&chunked)?;
            let full = documents.len() == limit;
            match documents.last_mut() {
                _ if !chunked.starts_with(prefix) => break,
                Some((last, document)) if number > 0 && last == key => document.extend_from_slice(&chunk),
                _ if full => break,
                _ => documents.push((key.to_vec(), chunk.to_vec())),
            }
            end = PassPlace(chunked.to_vec());
        }
        Ok((documents, end))
    }
}

#[cfg(test)]
mod tests {
    use hookmill_actors::{
        domain::{
            config::{Resource, ResourceKey},
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

    #[tokio::test]
    async fn a_pass_sees_every_change_once_and_alters_it_where_it_stands() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        for version in 1..=9 {
            let id = u32::try_from(version % 4).unwrap() + 1;
            let text_bytes = usize::try_from(version).unwrap() * 2_500;
            config.commit(vec![change(version, id, Some(destination(id, "a", text_bytes)))], Vec::new()).await.unwrap();
        }
        config.commit(vec![change(10, 1, None)], Vec::new()).await.unwrap();
        config.meta_put("token", b"named").unwrap();
        config.record_activity(vec![activity("done")]).await.unwrap();
        let before = config.load().await.unwrap();
        assert_eq!(config.count_changes().unwrap(), 3 + 10);
        let mut seen = Vec::new();
        for standing in Standing::ALL {
            let mut place = PassPlace::default();
            let mut edit = |change: &mut Change| {
                seen.push((standing, change.version));
                let Some(Resource::Destination(it)) = &mut change.resource else { return false };
                it.signing_fingerprint = "g".to_owned();
                true
            };
            while let Some((next, count)) = config.edit_changes(standing, &place, 4, &mut edit).unwrap() {
                assert!((1..=4).contains(&count));
                place = next;
            }
        }
        let history: Vec<u64> = seen.iter().filter(|(at, _)| *at == Standing::History).map(|(_, v)| *v).collect();
        assert_eq!(history.iter().sum::<u64>(), 55, "{history:?}");
        assert_eq!(seen.len(), 13);
        drop(config);
        let config = open(&root);
        let after = config.load().await.unwrap();
        assert_eq!((after.version, after.last_ids), (before.version, before.last_ids));
        for (id, destination) in &after.destinations {
            let former = &before.destinations[id];
            assert_eq!(destination.signing_fingerprint, "g");
            assert_eq!((&destination.meta, &destination.settings), (&former.meta, &former.settings));
        }
        let versions = config.history(ResourceKey::Destination(DestinationId(2)), 10).await.unwrap();
        let text: Vec<String> = versions.iter().map(|it| serde_json::to_string(it).unwrap()).collect();
        assert!(text.iter().all(|text| text.contains("\"signing_fingerprint\":\"g\"")), "{text:?}");
        let mut documents = Vec::new();
        config.each_document(|document| documents.push(document.to_vec())).unwrap();
        assert!(documents.len() > 15, "changes, activity, named value, tally");
        assert!(documents.contains(&b"named".to_vec()));
    }
}
