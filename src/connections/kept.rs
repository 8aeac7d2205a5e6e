//! Standings and held changes in the store: named values of the configuration, one an integration.

use std::sync::Arc;

use hookmill_actors::{
    domain::ids::IntegrationId,
    ports::{config_store::ConfigStoreError, sealer::SealedPart},
};

use super::{Record, Records};
use crate::storage::sled_config::{NamedPrefix, PassPlace, SledConfig};

/// All names are as long.
const NAMES: NamedPrefix = NamedPrefix { prefix: "connection/", name_bytes: 21 };

fn name(id: IntegrationId) -> String {
    format!("{}{:010}", NAMES.prefix, id.0)
}

/// What connection tests keep, in the configuration's store.
pub struct KeptRecords(pub Arc<SledConfig>);

impl Records for KeptRecords {
    fn all(&self) -> Result<Vec<(IntegrationId, Vec<u8>)>, String> {
        let listed = self.0.meta_list(NAMES).map_err(|error| error.to_string())?;
        let named = |(rest, record): (String, Vec<u8>)| Some((IntegrationId(rest.parse().ok()?), record));
        Ok(listed.into_iter().filter_map(named).collect())
    }

    fn put(&self, id: IntegrationId, record: &dyn Fn() -> Vec<u8>) -> Result<(), String> {
        self.0.meta_exchange(&[], &name(id), record).map_err(|error| error.to_string())
    }

    fn remove(&self, id: IntegrationId) -> Result<(), String> {
        self.0.meta_remove(&[name(id)]).map_err(|error| error.to_string())
    }
}

/// Hands what is sealed in held changes to `edit`, over the next `limit` records after `place`, and stores again where
/// it altered something; see [`SledConfig::edit_changes`]. A record that cannot be read is as good as none.
pub fn edit_held(
    config: &SledConfig,
    place: &PassPlace,
    limit: usize,
    edit: &mut dyn FnMut(IntegrationId, SealedPart<'_>) -> bool,
) -> Result<Option<(PassPlace, usize)>, ConfigStoreError> {
    config.edit_named(NAMES, place, limit, &mut |_, json| {
        let mut record: Record = serde_json::from_slice(json).ok()?;
        let held = record.held.as_mut()?;
        let id = held.integration.id;
        edit(id, held.sealed_part()?).then(|| record.to_json())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_all_as_long() {
        for id in [1, 4_711, u32::MAX] {
            assert_eq!(name(IntegrationId(id)).len(), usize::from(NAMES.name_bytes));
        }
    }
}
