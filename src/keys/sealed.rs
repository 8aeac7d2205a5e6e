//! Where the store has sealed texts: one list, for whoever counts them and whoever seals them again.

use hookmill_actors::{
    domain::config::Change,
    ports::{
        config_store::ConfigStoreError,
        sealer::{SealedPart, sealed_parts},
    },
};

use crate::{
    connections::edit_held,
    storage::sled_config::{PassPlace, SledConfig, Standing},
};

/// A kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// What is configured, or was.
    Changes(Standing),
    /// Changes that wait for their connection test.
    HeldChanges,
    /// Replies that are given again to whoever repeats a request.
    Replies,
}

impl Place {
    pub(super) const ALL: [Self; 4] =
        [Self::Changes(Standing::Current), Self::Changes(Standing::History), Self::HeldChanges, Self::Replies];

    /// Hands what is sealed in the next `limit` documents after `place` to `edit`, with words for where it is, and
    /// stores again what it altered; see [`SledConfig::edit_changes`].
    pub(super) fn edit(
        self,
        config: &SledConfig,
        place: &PassPlace,
        limit: usize,
        edit: &mut dyn FnMut(SealedPart<'_>, &dyn Fn() -> String) -> bool,
    ) -> Result<Option<(PassPlace, usize)>, ConfigStoreError> {
        match self {
            Self::Changes(standing) => config.edit_changes(standing, place, limit, &mut |change: &mut Change| {
                let (key, version) = (change.key, change.version);
                let at = || match standing {
                    Standing::Current => key.to_string(),
                    Standing::History => format!("{key}, version {version}"),
                };
                let parts = change.resource.iter_mut().flat_map(sealed_parts);
                // Every part, not the first alone.
                parts.fold(false, |altered, part| edit(part, &at) | altered)
            }),
            Self::HeldChanges => edit_held(config, place, limit, &mut |id, part| {
                edit(part, &|| format!("integration {id}, the change that waits for its test"))
            }),
            Self::Replies => config
                .edit_replies(place, limit, &mut |part| edit(part, &|| "a reply to a request with a key".to_owned())),
        }
    }
}
