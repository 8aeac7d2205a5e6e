//! Whether the key ring opens what is sealed in the store. A running server has found that at its start; without one
//! the store is opened for a moment, as a start would.

use std::sync::Arc;

use super::{Finding, chain};
use crate::{
    keys::{self, Holdings},
    secrets::{KeyRingError, KeySource, KeyVariables, LiveRing},
    settings::Settings,
    storage::{OpenError, StoreDir, sled_config::SledConfig, sled_db::StateDb, store_format},
    words::counted,
};

const KEYS: &str = "key ring";

/// See the module.
pub(super) fn key_ring(settings: &Settings) -> Finding {
    let source = match KeySource::choose(&settings.data_dir, &settings.secrets, KeyVariables::of_process()) {
        Ok(source) => source,
        Err(error) => return failed(&error),
    };
    let shown = source.to_string();
    let store_exists = matches!(store_format(&settings.store_dir()), Ok(Some(_)));
    let ring = match source.read() {
        Ok(Some(ring)) => ring,
        Ok(None) if store_exists => {
            let KeySource::File(path) = source else { return failed(&KeyRingError::Store(shown)) };
            return failed(&KeyRingError::Missing(path));
        }
        Ok(None) => return Finding::ok(KEYS, format!("{shown}: it is not there yet; the first start makes it")),
        Err(error) => return failed(&error),
    };
    let keys = counted(ring.infos().len(), "key");
    if !store_exists {
        return Finding::ok(KEYS, format!("{shown}: {keys}; there is no store yet"));
    }
    let dir = match StoreDir::open(settings.store_dir()) {
        Ok(dir) => dir,
        Err(OpenError::Locked { .. }) => {
            return Finding::ok(KEYS, format!("{shown}: {keys}; the running server has opened the store"));
        }
        Err(error) => return Finding::fail(KEYS, chain(&error), "mend the store first"),
    };
    let opened = StateDb::open(&dir.state_path(), settings.log.state_cache_bytes).and_then(SledConfig::open);
    let config = match opened {
        Ok(config) => config,
        Err(error) => return Finding::fail(KEYS, chain(&error), "restore a backup"),
    };
    match keys::inspect(&Arc::new(LiveRing::new(ring, source)), &config) {
        Ok(all) => opens(&shown, &all),
        Err(error) => failed(&error),
    }
}

fn opens(shown: &str, all: &[Holdings]) -> Finding {
    let damaged: u64 = all.iter().map(|holdings| holdings.damaged).sum();
    if damaged > 0 {
        let detail =
            format!("{shown}: moved or altered, so that it does not open: {}", counted(damaged, "stored secret"));
        return Finding::fail(KEYS, detail, "`hookmill keys rotate` names them; set them anew, or restore a backup");
    }
    let secrets: u64 = all.iter().map(Holdings::total).sum();
    Finding::ok(KEYS, format!("{shown}: it opens everything that is sealed: {}", counted(secrets, "secret")))
}

fn failed(error: &KeyRingError) -> Finding {
    Finding::fail(KEYS, chain(error), error.next_step())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{
        super::{Level, tests::settings_in},
        *,
    };

    #[test]
    fn a_ring_is_absent_right_or_another_ones() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings_in(root.path());
        assert!(key_ring(&settings).detail.contains("not there yet"));
        let source = || KeySource::choose(root.path(), &settings.secrets, KeyVariables::default()).unwrap();
        let ring = source().open_or_create(false, 1).unwrap();
        assert!(key_ring(&settings).detail.contains("no store yet"));

        let dir = StoreDir::open(settings.store_dir()).unwrap();
        dir.begun().unwrap();
        let config = SledConfig::open(StateDb::open(&dir.state_path(), 1 << 20).unwrap()).unwrap();
        assert!(key_ring(&settings).detail.contains("running server"));
        let keeper = keys::KeyKeeper::open(Arc::new(LiveRing::new(ring, source())), Arc::new(config)).unwrap();
        drop((keeper, dir));
        let fine = key_ring(&settings);
        assert!(fine.level == Level::Ok && fine.detail.contains("everything that is sealed: 0 secrets"), "{fine:?}");

        std::fs::remove_file(root.path().join("keys.toml")).unwrap();
        assert_eq!(key_ring(&settings).level, Level::Fail);
        source().open_or_create(false, 1).unwrap();
        // Nothing is sealed yet, so nothing is missed.
        assert_eq!(key_ring(&settings).level, Level::Ok);
    }
}
