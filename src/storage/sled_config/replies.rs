//! Replies that are given again: named values, whose names are numbers.

use hookmill_actors::ports::{
    config_store::ConfigStoreError,
    sealer::{Owner, SealedPart},
};

use super::{NamedPrefix, PassPlace, SledConfig, to_json};
use crate::replies::{ReplyStore, StoredReply};

const NAMES: NamedPrefix = NamedPrefix { prefix: "reply/", name_bytes: 22 };

fn name(number: u64) -> String {
    format!("{}{number:016x}", NAMES.prefix)
}

fn number(name: &str) -> Option<u64> {
    u64::from_str_radix(name, 16).ok()
}

impl ReplyStore for SledConfig {
    fn all(&self) -> Result<Vec<(u64, StoredReply)>, String> {
        let listed = self.meta_list(NAMES).map_err(|error| error.to_string())?;
        let read = |(name, json): (String, Vec<u8>)| {
            // One that cannot be read is as good as none.
            Some((number(&name)?, serde_json::from_slice(&json).ok()?))
        };
        Ok(listed.into_iter().filter_map(read).collect())
    }

    fn put(&self, forgotten: &[u64], number: u64, reply: &dyn Fn() -> StoredReply) -> Result<(), String> {
        let forgotten: Vec<String> = forgotten.iter().copied().map(name).collect();
        let json = || to_json(&reply()).expect("texts and numbers");
        self.meta_exchange(&forgotten, &name(number), json).map_err(|error| error.to_string())
    }

    fn remove(&self, numbers: &[u64]) -> Result<(), String> {
        let names: Vec<String> = numbers.iter().copied().map(name).collect();
        self.meta_remove(&names).map_err(|error| error.to_string())
    }
}

impl SledConfig {
    /// Hands what is sealed in the next `limit` kept replies after `place` to `edit`, and stores again what it altered;
    /// see [`SledConfig::edit_changes`].
    pub fn edit_replies(
        &self,
        place: &PassPlace,
        limit: usize,
        edit: &mut dyn FnMut(SealedPart<'_>) -> bool,
    ) -> Result<Option<(PassPlace, usize)>, ConfigStoreError> {
        self.edit_named(NAMES, place, limit, &mut |name, json| {
            let owner = Owner::Reply(number(name)?);
            let mut reply: StoredReply = serde_json::from_slice(json).ok()?;
            let sealed = &mut reply.sealed;
            edit(SealedPart { owner, sealed, fingerprint: None }).then(|| to_json(&reply).expect("texts and numbers"))
        })
    }
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::secret::Sealed;

    use super::{super::tests::open, *};

    #[test]
    fn replies_are_kept_by_number_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        let reply =
            |key: &str| StoredReply { token: None, key: key.to_owned(), at_ms: 7, sealed: Sealed("sealed".to_owned()) };
        for (number, key) in [(1, "a"), (2, "b"), (u64::MAX, "c")] {
            config.put(&[], number, &|| reply(key)).unwrap();
        }
        config.put(&[1], 2, &|| reply("d")).unwrap();
        assert_eq!(config.all().unwrap(), [(2, reply("d")), (u64::MAX, reply("c"))]);
        config.remove(&[2, 3]).unwrap();
        drop(config);
        assert_eq!(open(&root).all().unwrap(), [(u64::MAX, reply("c"))]);
    }
}
