//! Where events go: the registry of destination kinds behind the port [`Transports`].
//! The tree asks it for transports, the admin API for the faults of settings. It owns what the transports of a
//! kind share (connection pools); a crash costs the attempts under way, which are made again.
//!
//! A new kind is one file with a [`Kind`] and one line in [`Destinations::new`].

mod egress;
mod file;
mod header_rules;
mod http;
mod link;
mod members;
mod nats;
mod parcel;
mod probe;
mod redis_stream;
mod report;
mod retry_after;
mod sign;
mod store;
mod trace;
mod url;

use std::{path::PathBuf, sync::Arc};

use hookmill_actors::{
    domain::{config::Destination, secret::Secret},
    ports::{
        provider::SettingsError,
        transport::{Transport, Transports},
    },
};
use serde_json::{Map, Value};

use self::{egress::connector::Connector, link::Dialer, members::Credentials};
pub use self::{
    egress::{Denied, Egress, OwnAddresses},
    http::HttpDefaults,
    probe::{Asking, Prober, basic_authorization, bearer, status_words},
    sign::{new_signing_secret, validate_signing_secret},
};

/// The header that a destination test carries, with the value `true`.
pub const TEST_HEADER: &str = header_rules::TEST;

/// One way to deliver.
trait Kind: Send + Sync {
    /// Its name in configuration.
    fn name(&self) -> &'static str;

    /// The faults of a destination's settings, and of the credentials that go with them.
    fn validate(&self, settings: &Map<String, Value>, credentials: Credentials) -> Result<(), SettingsError>;

    /// A transport for one destination; refuses what [`Kind::validate`] refuses. Connects to nothing yet.
    fn build(
        &self,
        settings: &Map<String, Value>,
        credentials: Credentials,
        signing_secret: &Secret,
    ) -> Result<Arc<dyn Transport>, SettingsError>;
}

/// All kinds of destinations.
pub struct Destinations {
    kinds: Vec<Box<dyn Kind>>,
    prober: Prober,
}

impl Destinations {
    /// The registry, with empty pools. Transports must be used on a tokio runtime with I/O and time. `files` is the
    /// folder that `file` destinations may write below, where there is one.
    pub fn new(egress: Egress, defaults: HttpDefaults, files: Option<PathBuf>) -> Self {
        let egress = Arc::new(egress);
        let prober = Prober::new(egress.clone());
        let connector = Connector::new(Arc::clone(&egress));
        let dialer = Dialer::new(egress.clone(), connector.clone(), defaults);
        Self {
            kinds: vec![
                Box::new(http::Http::new(egress, connector, defaults)),
                Box::new(redis_stream::RedisStream::new(dialer.clone())),
                Box::new(nats::Nats::new(dialer)),
                Box::new(file::Files::new(files)),
                Box::new(store::Store),
            ],
            prober,
        }
    }

    /// Asks third parties within the same egress rules.
    pub fn prober(&self) -> Prober {
        self.prober.clone()
    }

    /// The kinds' names, as a destination's `type` gives them.
    pub fn names(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|kind| kind.name()).collect()
    }

    /// Checks a destination's `type`, `settings` and `credentials`, addresses that the egress rules deny included.
    /// Resolves no names: what a name stands for is checked at each connection. A fault of credentials has a field
    /// that begins with `credentials`.
    pub fn validate(
        &self,
        kind: &str,
        settings: &Map<String, Value>,
        credentials: Option<&Secret>,
    ) -> Result<(), SettingsError> {
        self.kind(kind)?.validate(settings, Credentials::read(credentials)?)
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
        credentials: Option<&Secret>,
    ) -> Result<Arc<dyn Transport>, SettingsError> {
        let kind = self.kind(&destination.kind)?;
        kind.build(&destination.settings, Credentials::read(credentials)?, signing_secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_told_the_known_ones() {
        let destinations = Destinations::new(Egress::default(), HttpDefaults::default(), None);
        let error = destinations.validate("smtp", &Map::new(), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`type`: `smtp` is no kind of destination; use http or redis_stream or nats or file or store"
        );
    }
}
