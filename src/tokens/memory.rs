//! [`TokenStore`] in memory, for tests.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use hookmill_actors::{domain::activity::Activity, ports::config_store::ConfigStoreError};

use super::{KnownToken, StoredToken, TokenId, TokenStore};

/// Keeps tokens as long as it lives.
#[derive(Default)]
pub(crate) struct MemoryTokens {
    tokens: Mutex<BTreeMap<TokenId, KnownToken>>,
    activities: Mutex<Vec<Activity>>,
    /// While set, nothing is stored.
    pub(crate) fails: AtomicBool,
}

impl MemoryTokens {
    pub(crate) fn activities(&self) -> Vec<Activity> {
        self.activities.lock().expect("nobody panicked").clone()
    }

    fn check(&self) -> Result<(), ConfigStoreError> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(ConfigStoreError("the disk is full".to_owned())),
            false => Ok(()),
        }
    }
}

impl TokenStore for MemoryTokens {
    fn load(&self) -> Result<Vec<KnownToken>, ConfigStoreError> {
        Ok(self.tokens.lock().expect("nobody panicked").values().cloned().collect())
    }

    fn put(&self, token: &StoredToken, forgotten: Option<TokenId>, why: Activity) -> Result<(), ConfigStoreError> {
        self.check()?;
        let mut tokens = self.tokens.lock().expect("nobody panicked");
        if let Some(id) = forgotten {
            tokens.remove(&id);
        }
        let used_at_ms = tokens.get(&token.id).and_then(|known| known.used_at_ms);
        tokens.insert(token.id, KnownToken { token: token.clone(), used_at_ms });
        self.activities.lock().expect("nobody panicked").push(why);
        Ok(())
    }

    fn put_uses(&self, uses: &[(TokenId, u64)]) -> Result<(), ConfigStoreError> {
        self.check()?;
        let mut tokens = self.tokens.lock().expect("nobody panicked");
        for (id, at_ms) in uses {
            if let Some(known) = tokens.get_mut(id) {
                known.used_at_ms = Some(*at_ms);
            }
        }
        Ok(())
    }
}
