//! Keys over a real store: rotations that are interrupted, keys that are missed, texts that are damaged.

use std::{fs, path::PathBuf, time::Duration};

use hookmill_actors::{
    domain::{
        config::{
            Change, Destination, DestinationStatus, Endpoint, EndpointSecret, Environment, Integration,
            IntegrationStatus, IntegrationType, Meta, Resource, ResourceKey,
        },
        ids::{DestinationId, EndpointId, IntegrationId},
        secret::{Sealed, Secret},
        shaping::DestinationLimits,
        version::Origin,
    },
    ports::{
        config_store::ConfigStore,
        sealer::{Owner, Sealer},
    },
};
use serde_json::Map;
use tempfile::TempDir;

use super::*;
use crate::{
    app::SystemClock,
    connections::{Ask, ConnectionOptions, ConnectionPorts, Connections, KeptRecords, Request},
    secrets::{KeySource, key_of},
    storage::sled_db::{CACHE_BYTES, StateDb},
};

const NOW_MS: u64 = 1_767_225_600_000;

struct World {
    root: TempDir,
}

impl World {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn key_file(&self) -> PathBuf {
        self.root.path().join("keys.toml")
    }

    fn open(&self) -> Result<(KeyKeeper, Arc<SledConfig>), KeyRingError> {
        self.open_from(KeySource::File(self.key_file()))
    }

    /// As a start does.
    fn open_from(&self, source: KeySource) -> Result<(KeyKeeper, Arc<SledConfig>), KeyRingError> {
        let state = self.root.path().join("state");
        let ring = source.open_or_create(state.exists(), NOW_MS)?;
        let config = Arc::new(SledConfig::open(StateDb::open(&state, CACHE_BYTES).unwrap()).unwrap());
        let keeper = KeyKeeper::open(Arc::new(LiveRing::new(ring, source)), config.clone())?;
        Ok((keeper, config))
    }

    fn copy_ring(&self) -> String {
        fs::read_to_string(self.key_file()).unwrap()
    }

    fn put_ring(&self, text: &str) {
        fs::write(self.key_file(), text).unwrap();
    }
}

fn secret(of: &str, id: u32, version: u64) -> Secret {
    Secret::new(format!("{of} {id} {version}"))
}

fn destination(ring: &LiveRing, id: u32, version: u64) -> Resource {
    let owner = DestinationId(id);
    let signing = secret("signing", id, version);
    let credentials = ring.seal(Owner::DestinationCredentials(owner), &secret("credentials", id, version));
    Resource::Destination(Destination {
        id: owner,
        name: format!("d{id}"),
        kind: "http".to_owned(),
        status: DestinationStatus::Active,
        status_reason: None,
        settings: Map::new(),
        signing_secret: ring.seal(Owner::SigningSecret(owner), &signing),
        signing_fingerprint: ring.fingerprint(&signing),
        credentials: Some(credentials),
        limits: DestinationLimits::default(),
        meta: Meta { version, created_at_ms: 1, updated_at_ms: version, ..Meta::default() },
    })
}

fn endpoint(ring: &LiveRing, id: u32, version: u64) -> Resource {
    let owner = Owner::EndpointSecret(IntegrationId(1));
    let secrets = ["old", "new"].map(|of| EndpointSecret {
        sealed: ring.seal(owner, &secret(of, id, version)),
        fingerprint: ring.fingerprint(&secret(of, id, version)),
        expires_at_ms: None,
    });
    Resource::Endpoint(Endpoint {
        id: EndpointId(id),
        integration_id: IntegrationId(1),
        name: String::new(),
        description: None,
        path: format!("/{id}"),
        active: true,
        verify_signature: true,
        signature_header: None,
        verification: Map::new(),
        secrets: secrets.into(),
        body_bytes_max: None,
        dedup_window_s: None,
        rate_limit: None,
        meta: Meta { version, created_at_ms: 1, updated_at_ms: version, ..Meta::default() },
    })
}

fn commit(config: &SledConfig, version: u64, resources: Vec<Resource>) {
    let change = |resource: Resource| Change {
        version,
        at_ms: version,
        author: "ada".to_owned(),
        comment: None,
        key: resource.key(),
        resource: Some(resource),
        kept: None,
    };
    block_on(config.commit(resources.into_iter().map(change).collect(), Vec::new())).unwrap();
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

const RESOURCES: u32 = 40;
const VERSIONS: u64 = 3;
/// Texts in the history: two of each destination, two of each endpoint.
const EVERYTHING: usize = 40 * 4 * 3;

/// Forty destinations and endpoints, three versions of each.
fn fill(keeper: &KeyKeeper, config: &SledConfig) {
    for version in 1..=VERSIONS {
        let each = (1..=RESOURCES)
            .flat_map(|id| [destination(keeper.ring(), id, version), endpoint(keeper.ring(), id, version)]);
        commit(config, version, each.collect());
    }
}

/// Opens every secret of every version with the ring in use, and looks at the fingerprints.
fn everything_opens(keeper: &KeyKeeper, config: &SledConfig) -> usize {
    let ring = keeper.ring();
    let mut opened = 0;
    for id in 1..=RESOURCES {
        for key in [ResourceKey::Destination(DestinationId(id)), ResourceKey::Endpoint(EndpointId(id))] {
            for change in block_on(config.history(key, 100)).unwrap() {
                let version = change.version;
                let mut check = |owner, sealed: &Sealed, of: &str, fingerprint: Option<&str>| {
                    let want = secret(of, id, version);
                    assert_eq!(ring.open(owner, sealed), Ok(want.clone()), "{key}, version {version}");
                    if key_of(&sealed.0) == Some(ring.current().primary_id()) {
                        let now = ring.fingerprint(&want);
                        assert!(fingerprint.is_none_or(|it| it == now), "{key}, version {version}");
                    }
                    opened += 1;
                };
                match change.resource.unwrap() {
                    Resource::Destination(it) => {
                        let print = Some(it.signing_fingerprint.as_str());
                        check(Owner::SigningSecret(it.id), &it.signing_secret, "signing", print);
                        let sealed = it.credentials.as_ref().unwrap();
                        check(Owner::DestinationCredentials(it.id), sealed, "credentials", None);
                    }
                    Resource::Endpoint(it) => {
                        for (secret, of) in it.secrets.iter().zip(["old", "new"]) {
                            let owner = Owner::EndpointSecret(it.integration_id);
                            check(owner, &secret.sealed, of, Some(&secret.fingerprint));
                        }
                    }
                    _ => unreachable!("there is nothing else"),
                }
            }
        }
    }
    opened
}

fn run(keeper: &KeyKeeper) -> RotationState {
    keeper.run_rotation(&AtomicBool::new(false), || NOW_MS + 5, |_| ()).unwrap()
}

#[test]
fn a_rotation_seals_everything_again_and_the_old_key_can_go() {
    let world = World::new();
    let (keeper, config) = world.open().unwrap();
    fill(&keeper, &config);
    let everything = everything_opens(&keeper, &config);
    assert_eq!(everything, EVERYTHING);
    let (old, old_ring) = (keeper.ring().current().primary_id(), world.copy_ring());
    let refused = keeper.retire(old, NOW_MS).unwrap_err().to_string();
    assert!(refused.contains("is the primary"), "{refused}");

    let begun = keeper.begin_rotation(None, "ada", NOW_MS).unwrap();
    assert_ne!(begun.to, old);
    assert_eq!(keeper.rotation_state(), Some(RotationState::Interrupted));
    let refused = keeper.retire(old, NOW_MS).unwrap_err().to_string();
    assert!(
        refused.contains("80 signing secrets") || refused.contains("40 signing secrets and 120 in versions"),
        "{refused}"
    );
    assert!(
        refused.contains(&old.to_string()) && refused.contains("80 endpoint secrets and 240 in versions"),
        "{refused}"
    );
    assert_eq!(everything_opens(&keeper, &config), everything, "in between");
    let mut steps = 0;
    let state = keeper.run_rotation(
        &AtomicBool::new(false),
        || NOW_MS + 5,
        |rotation| {
            steps += 1;
            assert!(rotation.changes_done <= rotation.changes_total);
        },
    );
    assert_eq!(state.unwrap(), RotationState::Done);
    assert!(steps > 4, "{steps} steps");
    let done = keeper.rotation().unwrap();
    // What stands is stored twice: as it is, and as the last version.
    let texts = u64::from(RESOURCES) * 4 * (VERSIONS + 1);
    assert_eq!((done.sealed_again, done.damaged, done.finished_at_ms), (texts, 0, Some(NOW_MS + 5)));
    assert_eq!((done.changes_done, done.changes_total), (320, 320));
    assert_eq!(everything_opens(&keeper, &config), everything);
    assert!(!keeper.needs_rotation().unwrap());

    let free: Vec<_> = keeper.list(true).unwrap().into_iter().filter(KeyReport::is_free).collect();
    assert_eq!(free.iter().map(|report| report.info.id).collect::<Vec<_>>(), [old]);
    assert_eq!(keeper.retire(old, NOW_MS + 9).unwrap().note, None);
    drop((keeper, config));
    assert!(!world.copy_ring().contains(old_ring.lines().find(|line| line.starts_with("key = ")).unwrap()));
    let (keeper, config) = world.open().unwrap();
    assert_eq!(everything_opens(&keeper, &config), everything, "after a start without the old key");
    drop((keeper, config));

    world.put_ring(&old_ring);
    let error = world.open().err().unwrap();
    let said = error.to_string();
    assert!(said.contains(&done.to.to_string()) && said.contains("no such key"), "{said}");
    assert!(said.contains("40 signing secrets") && error.next_step().contains("keys add --from"), "{said}");
}

#[test]
fn a_rotation_that_is_cut_short_anywhere_goes_on_and_loses_nothing() {
    for stop_after in 0..6 {
        let world = World::new();
        let (keeper, config) = world.open().unwrap();
        fill(&keeper, &config);
        let everything = everything_opens(&keeper, &config);
        let old = keeper.ring().current().primary_id();
        let to = keeper.begin_rotation(None, "ada", NOW_MS).unwrap().to;
        let (stop, mut steps) = (AtomicBool::new(stop_after == 0), 0);
        let state = keeper.run_rotation(
            &stop,
            || NOW_MS,
            |_| {
                steps += 1;
                stop.store(steps >= stop_after, Ordering::Relaxed);
            },
        );
        assert_eq!(state.unwrap(), RotationState::Interrupted);
        assert_eq!(everything_opens(&keeper, &config), everything, "after {stop_after} steps");
        // What a kill leaves: nothing in memory comes along.
        drop((keeper, config));
        let (keeper, config) = world.open().unwrap();
        assert!(keeper.needs_rotation().unwrap());
        assert_eq!(keeper.rotation_state(), Some(RotationState::Interrupted));
        assert_eq!(everything_opens(&keeper, &config), everything);
        assert_eq!(keeper.begin_rotation(None, "hookmill", NOW_MS).unwrap().to, to, "no third key");
        assert_eq!(run(&keeper), RotationState::Done);
        keeper.retire(old, NOW_MS).unwrap();
        assert_eq!(everything_opens(&keeper, &config), everything);
    }
}

#[test]
fn a_kill_between_ring_and_store_is_taken_up_by_the_next_start() {
    let world = World::new();
    let (keeper, config) = world.open().unwrap();
    fill(&keeper, &config);
    assert!(!keeper.needs_rotation().unwrap());
    drop((keeper, config));
    let promote = |ring: KeyRing| {
        let (ring, id) = ring.with_new_key(NOW_MS).unwrap();
        Ok::<_, KeyRingError>((ring.with_primary(id).unwrap(), id))
    };
    let to = KeySource::File(world.key_file()).update(promote).unwrap().unwrap();
    let (keeper, config) = world.open().unwrap();
    assert!(keeper.needs_rotation().unwrap());
    assert_eq!(keeper.begin_rotation(None, "hookmill", NOW_MS).unwrap().to, to);
    assert_eq!(run(&keeper), RotationState::Done);
    everything_opens(&keeper, &config);
}

#[test]
fn a_key_that_was_added_seals_only_once_it_was_rotated_to() {
    let world = World::new();
    let (keeper, config) = world.open().unwrap();
    fill(&keeper, &config);
    let primary = keeper.ring().current().primary_id();
    let added = keeper.add(NOW_MS).unwrap();
    assert_eq!(keeper.ring().current().primary_id(), primary);
    assert!(!keeper.needs_rotation().unwrap());
    assert_eq!(keeper.begin_rotation(Some(added), "ada", NOW_MS).unwrap().to, added);
    assert_eq!(run(&keeper), RotationState::Done);
    let again = keeper.begin_rotation(Some(added), "ada", NOW_MS).unwrap_err().to_string();
    assert!(again.contains("primary already"), "{again}");
    let stranger = "00000000".parse().unwrap();
    assert!(matches!(
        keeper.begin_rotation(Some(stranger), "ada", NOW_MS),
        Err(KeysError::Ring(RingChangeError::NoSuchKey(_)))
    ));
    everything_opens(&keeper, &config);
}

#[test]
fn what_is_damaged_is_told_and_holds_no_key_and_what_is_elsewhere_does() {
    let world = World::new();
    let (keeper, config) = world.open().unwrap();
    fill(&keeper, &config);
    let old = keeper.ring().current().primary_id();
    let Resource::Destination(mut moved) = destination(keeper.ring(), 7, 9) else { unreachable!("it is one") };
    moved.id = DestinationId(99);
    commit(&config, 9, vec![Resource::Destination(moved)]);
    let elsewhere = keeper.ring().seal(Owner::Credentials(IntegrationId(1)), &Secret::new("kept elsewhere"));
    config.meta_put("replies", format!("{{\"reply\":\"{{\\\"s\\\":\\\"{}\\\"}}\"}}", elsewhere.0).as_bytes()).unwrap();

    keeper.begin_rotation(None, "ada", NOW_MS).unwrap();
    assert_eq!(run(&keeper), RotationState::Done);
    let rotation = keeper.rotation().unwrap();
    assert_eq!(rotation.damaged, 4);
    assert!(rotation.damaged_at.contains(&"destination 99".to_owned()), "{:?}", rotation.damaged_at);
    assert!(rotation.damaged_at.contains(&"destination 99, version 9".to_owned()), "{:?}", rotation.damaged_at);
    let refused = keeper.retire(old, NOW_MS).unwrap_err().to_string();
    assert!(refused.starts_with("1 other text, 4 damaged texts"), "{refused}");
    config.meta_put("replies", b"{}").unwrap();
    keeper.retire(old, NOW_MS).unwrap();
}

struct Nobody;

#[async_trait::async_trait]
impl Ask for Nobody {
    async fn ask(&self, _: &Request, _: Duration) -> Result<u16, String> {
        Err("nobody is asked here".to_owned())
    }
}

fn connections(keeper: &KeyKeeper, config: &Arc<SledConfig>) -> Connections {
    let ring = keeper.ring().clone();
    let ports = ConnectionPorts {
        ask: Arc::new(Nobody),
        records: Arc::new(KeptRecords(config.clone())),
        sealer: ring.clone(),
        fingerprint: Arc::new(move |secret| ring.fingerprint(secret)),
        clock: Arc::new(SystemClock),
    };
    Connections::load(ConnectionOptions::default(), ports).unwrap()
}

fn integration(id: u32, credentials: Option<Sealed>) -> Integration {
    Integration {
        id: IntegrationId(id),
        name: format!("i{id}"),
        kind: IntegrationType::Custom,
        provider: "none".to_owned(),
        description: None,
        environment: Environment::Production,
        status: IntegrationStatus::Active,
        configuration: Map::new(),
        credentials,
        meta: Meta { version: 1, ..Meta::default() },
    }
}

#[test]
fn changes_that_wait_for_their_test_are_sealed_again_in_the_store_and_in_memory() {
    const HELD: u32 = 150;
    let wanted = |id| secret("held", id, 1);
    let all_open = |keeper: &KeyKeeper, connections: &Connections| {
        for id in 1..=HELD {
            let held = connections.held(&integration(id, None)).unwrap().integration.credentials.unwrap();
            let opened = keeper.ring().open(Owner::Credentials(IntegrationId(id)), &held);
            assert_eq!(opened, Ok(wanted(id)), "{id}");
        }
    };
    // Two changes, then three steps of held ones.
    for stop_after in [0, 1, 2, 3, 4, 99] {
        let world = World::new();
        let (keeper, config) = world.open().unwrap();
        commit(&config, 1, vec![destination(keeper.ring(), 1, 1)]);
        let serving = connections(&keeper, &config);
        for id in 1..=HELD {
            let sealed = keeper.ring().seal(Owner::Credentials(IntegrationId(id)), &wanted(id));
            block_on(serving.hold(Origin::of("ada"), &integration(id, None), integration(id, Some(sealed)))).unwrap();
        }
        let old = keeper.ring().current().primary_id();
        keeper.begin_rotation(None, "ada", NOW_MS).unwrap();
        let refused = keeper.retire(old, NOW_MS).unwrap_err().to_string();
        assert!(refused.contains("150 held changes"), "{refused}");
        let (stop, mut steps) = (AtomicBool::new(stop_after == 0), 0);
        let told = |_: &Rotation| {
            steps += 1;
            stop.store(steps >= stop_after, Ordering::Relaxed);
        };
        let state = keeper.run_rotation(&stop, || NOW_MS, told).unwrap();
        assert_eq!(state == RotationState::Done, stop_after == 99, "{steps} steps");
        all_open(&keeper, &serving);
        all_open(&keeper, &connections(&keeper, &config));
        drop((keeper, config, serving));

        let (keeper, config) = world.open().unwrap();
        let serving = connections(&keeper, &config);
        all_open(&keeper, &serving);
        if stop_after < 99 {
            keeper.begin_rotation(None, "hookmill", NOW_MS).unwrap();
            serving.reseal();
            assert_eq!(run(&keeper), RotationState::Done);
        }
        keeper.retire(old, NOW_MS).unwrap();
        all_open(&keeper, &serving);
        all_open(&keeper, &connections(&keeper, &config));
    }
}

#[test]
fn what_is_held_during_a_rotation_is_sealed_with_the_new_key() {
    let world = World::new();
    let (keeper, config) = world.open().unwrap();
    commit(&config, 1, vec![destination(keeper.ring(), 1, 1)]);
    let serving = connections(&keeper, &config);
    let (old, owner) = (keeper.ring().current().primary_id(), Owner::Credentials(IntegrationId(1)));
    let late = keeper.ring().seal(owner, &secret("held", 1, 1));
    keeper.begin_rotation(None, "ada", NOW_MS).unwrap();
    assert_eq!(run(&keeper), RotationState::Done);
    // A request that had sealed before and stores after.
    block_on(serving.hold(Origin::of("ada"), &integration(1, None), integration(1, Some(late)))).unwrap();
    keeper.retire(old, NOW_MS).unwrap();
    let held = connections(&keeper, &config).held(&integration(1, None)).unwrap().integration.credentials.unwrap();
    assert_eq!(keeper.ring().open(owner, &held), Ok(secret("held", 1, 1)));
}

#[test]
fn a_ring_that_another_writes_is_rotated_there_first() {
    let world = World::new();
    let (keeper, config) = world.open().unwrap();
    fill(&keeper, &config);
    let old = keeper.ring().current().primary_id();
    drop((keeper, config));
    let ring = world.copy_ring();
    let environment = || KeySource::Environment(Secret::new(ring.clone()));
    let (keeper, config) = world.open_from(environment()).unwrap();
    let refused = keeper.begin_rotation(None, "ada", NOW_MS).unwrap_err().to_string();
    assert!(refused.contains("HOOKMILL_KEYRING") && refused.contains("add a new key there first"), "{refused}");
    assert!(matches!(keeper.add(NOW_MS), Err(KeysError::ReadOnly { .. })));
    drop((keeper, config));

    let argv = ["cat".to_owned(), world.key_file().display().to_string()].to_vec();
    let command = || KeySource::Command { argv: argv.clone(), timeout: Duration::from_secs(5) };
    let (keeper, config) = world.open_from(command()).unwrap();
    assert!(matches!(keeper.begin_rotation(None, "ada", NOW_MS), Err(KeysError::ReadOnly { .. })));
    let next = world.root.path().join("next.toml");
    let (made, id) = keeper.ring().current().with_new_key(NOW_MS).unwrap();
    made.with_primary(id).unwrap().write_new(&next).unwrap();
    fs::rename(&next, world.key_file()).unwrap();
    assert_eq!(keeper.begin_rotation(None, "ada", NOW_MS).unwrap().to, id);
    assert_eq!(run(&keeper), RotationState::Done);
    let note = keeper.retire(old, NOW_MS).unwrap().note.unwrap();
    assert!(note.contains("take it out of the command `cat`"), "{note}");
    everything_opens(&keeper, &config);

    // A source that lost a key which is needed is not taken.
    let (foreign, _) = KeyRing::generate(NOW_MS).with_new_key(NOW_MS).unwrap();
    fs::remove_file(world.key_file()).unwrap();
    foreign.write_new(&world.key_file()).unwrap();
    let refused = keeper.reload().unwrap_err().to_string();
    assert!(refused.contains(&id.to_string()) && refused.contains("no such key"), "{refused}");
    everything_opens(&keeper, &config);
}

#[test]
fn two_rotations_at_once_are_one() {
    let world = World::new();
    let (keeper, config) = world.open().unwrap();
    fill(&keeper, &config);
    keeper.begin_rotation(None, "ada", NOW_MS).unwrap();
    let state = keeper.run_rotation(
        &AtomicBool::new(false),
        || NOW_MS,
        |_| {
            assert!(matches!(keeper.begin_rotation(None, "bob", NOW_MS), Err(KeysError::Busy)));
            assert!(matches!(keeper.add(NOW_MS), Err(KeysError::Busy)));
            assert!(matches!(keeper.run_rotation(&AtomicBool::new(false), || 0, |_| ()), Err(KeysError::Busy)));
        },
    );
    assert_eq!(state.unwrap(), RotationState::Done);
    assert_eq!(keeper.rotation_state(), Some(RotationState::Done));
}
