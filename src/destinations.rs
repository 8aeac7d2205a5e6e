//! Where events go: the registry of destination kinds behind the port [`Transports`].
//! The tree asks it for transports, the admin API for the faults of settings. It owns what the transports of a
//! kind share (connection pools); a crash costs the attempts under way, which are made again.
//!
//! A new kind is one file with a [`Kind`] and one line in [`Destinations::new`].

mod egress;
mod http;
mod retry_after;
mod sign;

use std::sync::Arc;

use hookmill_actors::{
    domain::{config::Destination, secret::Secret},
    ports::{
        provider::SettingsError,
        transport::{Transport, Transports},
    },
};
use serde_json::{Map, Value};

pub use self::{
    egress::{Denied, Egress, OwnAddresses},
    http::HttpDefaults,
    sign::{new_signing_secret, validate_signing_secret},
};

/// One way to deliver.
trait Kind: Send + Sync {
    /// Its name in configuration.
    fn name(&self) -> &'static str;

    /// The faults of a destination's settings.
    fn validate(&self, settings: &Map<String, Value>) -> Result<(), SettingsError>;

    /// A transport for one destination; refuses what [`Kind::validate`] refuses.
    fn build(&self, settings: &Map<String, Value>, secret: &Secret) -> Result<Arc<dyn Transport>, SettingsError>;
}

/// All kinds of destinations.
pub struct Destinations {
    kinds: Vec<Box<dyn Kind>>,
}

impl Destinations {
    /// The registry, with an empty pool. Transports must be used on a tokio runtime with I/O and time.
    pub fn new(egress: Egress, http: HttpDefaults) -> Self {
        Self { kinds: vec![Box::new(http::Http::new(Arc::new(egress), http))] }
    }

    /// The kinds' names, as a destination's `type` gives them.
    pub fn names(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|kind| kind.name()).collect()
    }

    /// Checks a destination's `type` and `settings`, addresses that the egress rules deny included. Resolves no
    /// names: what a name stands for is checked at each connection.
    pub fn validate(&self, kind: &str, settings: &Map<String, Value>) -> Result<(), SettingsError> {
        self.kind(kind)?.validate(settings)
    }

    fn kind(&self, name: &str) -> Result<&dyn Kind, SettingsError> {
        self.kinds.iter().find(|kind| kind.name() == name).map(AsRef::as_ref).ok_or_else(|| {
            let name: String = name.chars().take(64).collect();
            SettingsError::new("type", format!("`{name}` is no kind of destination; use {}", self.names().join(" or ")))
        })
    }
}

impl Transports for Destinations {
    fn build(
        &self,
        destination: &Destination,
        signing_secret: &Secret,
        _credentials: Option<&Secret>,
    ) -> Result<Arc<dyn Transport>, SettingsError> {
        self.kind(&destination.kind)?.build(&destination.settings, signing_secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_told_the_known_ones() {
        let destinations = Destinations::new(Egress::default(), HttpDefaults::default());
        let error = destinations.validate("smtp", &Map::new()).unwrap_err();
        assert_eq!(error.to_string(), "`type`: `smtp` is no kind of destination; use http");
    }
}
