//! The stored configuration, its history and what lies beside it.

use hookmill_actors::domain::{
    config::{Destination, DestinationStatus, Kept, Meta, Resource},
    ids::DestinationId,
    secret::Sealed,
    shaping::DestinationLimits,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::storage::sled_db::CACHE_BYTES;

pub(super) fn open(root: &TempDir) -> SledConfig {
    SledConfig::open(StateDb::open(&root.path().join("state"), CACHE_BYTES).unwrap()).unwrap()
}

pub(super) fn destination(id: u32, name: &str, text_bytes: usize) -> Resource {
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
        meta: Meta { version: 1, created_at_ms: 2, updated_at_ms: 3, applied: true },
    })
}

pub(super) fn change(version: u64, id: u32, resource: Option<Resource>) -> Change {
    let key = ResourceKey::Destination(DestinationId(id));
    Change { version, at_ms: version, author: "root".to_owned(), comment: None, key, resource, kept: None }
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
            runtime.block_on(config.commit(changes, Vec::new())).unwrap();
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
    config.commit(vec![change(1, 9, Some(destination(9, "a", 10_000)))], Vec::new()).await.unwrap();
    config.commit(vec![change(2, 9, None)], Vec::new()).await.unwrap();
    drop(config);
    let loaded = open(&root).load().await.unwrap();
    assert!(loaded.destinations.is_empty());
    assert_eq!((loaded.version, loaded.last_ids), (2, [0, 0, 9, 0]));
}

#[tokio::test]
async fn a_version_is_never_rewritten_and_a_refused_commit_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let config = open(&root);
    config.commit(vec![change(4, 1, Some(destination(1, "a", 1)))], Vec::new()).await.unwrap();
    let before = config.load().await.unwrap();
    let again = config.commit(vec![change(4, 1, None)], Vec::new()).await.unwrap_err();
    assert!(again.0.contains("version 4"), "{again}");
    let mixed = vec![change(5, 1, None), change(6, 1, None)];
    assert!(config.commit(mixed, Vec::new()).await.unwrap_err().0.contains("versions 5 and 6"));
    let large = vec![change(5, 1, None), change(5, 2, Some(destination(2, "b", DOCUMENT_BYTES_MAX)))];
    let refusal = config.commit(large, Vec::new()).await.unwrap_err();
    assert!(refusal.0.contains("destination 2") && refusal.0.contains("65536"), "{refusal}");
    assert_eq!(config.load().await.unwrap(), before);
}

#[tokio::test]
async fn a_database_that_went_back_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let config = open(&root);
    config.commit(vec![change(1, 1, Some(destination(1, "a", 1)))], Vec::new()).await.unwrap();
    config.record_activity(vec![activities::tests::activity("one"), activities::tests::activity("two")]).await.unwrap();
    config.0.tree.remove(chunk_key(&activities::key(2), 0)).unwrap();
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

#[tokio::test]
async fn versions_are_paged_newest_first_and_parts_stand_until_they_change() {
    let root = tempfile::tempdir().unwrap();
    let config = open(&root);
    let version = |integration, number, parts: Option<Parts>| NewVersion {
        version: Version {
            integration: IntegrationId(integration),
            number,
            at_ms: number,
            author: "root".to_owned(),
            comment: None,
            changed: Vec::new(),
        },
        parts,
    };
    let part = |number| vec![(ResourceKey::Integration(IntegrationId(1)), number)];
    let many = vec![(ResourceKey::Integration(IntegrationId(1)), 7); 2_000];
    for (number, versions) in [
        (1, vec![version(1, 1, Some(part(1))), version(2, 1, Some(Vec::new()))]),
        (2, vec![version(1, 2, None)]),
        (256, vec![version(1, 256, Some(many.clone()))]),
        (257, vec![version(256, 257, Some(part(257)))]),
    ] {
        config.commit(vec![change(number, 1, Some(destination(1, "a", 9)))], versions).await.unwrap();
    }
    drop(config);
    let config = open(&root);
    let numbers = async |before, limit| {
        let versions = config.versions(IntegrationId(1), before, limit).await.unwrap();
        versions.into_iter().map(|version| version.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(None, 9).await, [256, 2, 1]);
    assert_eq!(numbers(None, 2).await, [256, 2]);
    assert_eq!(numbers(Some(2), 9).await, [1]);
    for (number, want) in [(0, None), (1, Some(part(1))), (255, Some(part(1))), (u64::MAX, Some(many))] {
        assert_eq!(config.parts(IntegrationId(1), number).await.unwrap(), want, "{number}");
    }
    let key = ResourceKey::Destination(DestinationId(1));
    let stood = config.as_of([0, 1, 255, 256, u64::MAX].map(|number| (key, number)).to_vec()).await.unwrap();
    let stood: Vec<Option<u64>> = stood.into_iter().map(|change| change.map(|change| change.version)).collect();
    assert_eq!(stood, [None, Some(1), Some(2), Some(256), Some(257)]);
}

#[tokio::test]
async fn what_may_come_back_survives_a_reopening_and_its_history_can_be_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let config = open(&root);
    let (gone, other) = (IntegrationId(1), IntegrationId(2));
    let key = ResourceKey::Destination(DestinationId(1));
    let version = |integration, number, parts: Parts| NewVersion {
        version: Version {
            integration,
            number,
            at_ms: number,
            author: "root".to_owned(),
            comment: None,
            changed: Vec::new(),
        },
        parts: Some(parts),
    };
    for number in 1..=350 {
        let parts = vec![(key, number)];
        let versions = vec![version(gone, number, parts.clone()), version(other, number, Vec::new())];
        config.0.commit(&[change(number, 1, Some(destination(1, "a", 20_000)))], &versions).unwrap();
    }
    let kept = Kept { version: 351, at_ms: 5, integration: Some(gone), path: Some("/shop".to_owned()) };
    let deleted = Change { kept: Some(kept.clone()), ..change(351, 1, None) };
    config.commit(vec![deleted], Vec::new()).await.unwrap();
    drop(config);
    let config = open(&root);
    let loaded = config.load().await.unwrap();
    assert_eq!((loaded.destinations.size(), loaded.deleted.get(&key).map(|kept| &**kept)), (0, Some(&kept)));

    config.forget(gone).await.unwrap();
    assert!(config.versions(gone, None, 9).await.unwrap().is_empty());
    assert_eq!(config.parts(gone, u64::MAX).await.unwrap(), None);
    assert!(config.history(key, 9).await.unwrap().is_empty());
    assert_eq!(config.versions(other, None, 9).await.unwrap().len(), 9, "another one's stays");
    assert_eq!(config.load().await.unwrap(), loaded, "what reserves its place stays until it is removed");
    config.commit(vec![change(352, 1, None)], Vec::new()).await.unwrap();
    drop(config);
    assert_eq!(open(&root).load().await.unwrap().deleted.size(), 0);
}

#[test]
fn named_values_of_one_length_are_listed_and_removed() {
    let root = TempDir::new().unwrap();
    let config = open(&root);
    for name in ["part/2", "part/1", "part/10", "other/", "parts1"] {
        config.meta_put(name, name.as_bytes()).unwrap();
    }
    config.meta_put("part/2", &vec![7; 3 * VALUE_BYTES_MAX]).unwrap();
    let listed = || config.meta_list(NamedPrefix { prefix: "part/", name_bytes: 6 }).unwrap();
    let names = |listed: Vec<(String, Vec<u8>)>| listed.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(listed()[1].1.len(), 3 * VALUE_BYTES_MAX);
    assert_eq!(names(listed()), ["1", "2"]);
    config.meta_remove(&["part/2".to_owned()]).unwrap();
    config.meta_remove(&["part/9".to_owned()]).unwrap();
    assert_eq!((names(listed()), config.meta_get("part/2").unwrap()), (vec!["1".to_owned()], None));
}
