//! What the resources' pure parts need of the outside: registries, sealing, random bytes. No tree, no I/O.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hookmill_actors::{
    domain::{
        config::Destination,
        secret::{Sealed, Secret},
    },
    ports::{
        provider::{Provider, Providers, SettingsError},
        sealer::{Owner, Sealer},
        transport::{AttemptReport, Consignment},
    },
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    fields::{listed, nearest},
    json::quoted,
};
use crate::connections::Connections;

/// The destination registry, as the admin API sees it.
#[async_trait]
pub trait DestinationRules: Send + Sync {
    /// Checks a destination's `type`, `settings` and `credentials`; a fault names its member.
    fn validate(
        &self,
        kind: &str,
        settings: &Map<String, Value>,
        credentials: Option<&Secret>,
    ) -> Result<(), SettingsError>;

    /// One attempt, with a transport of its own.
    async fn attempt(
        &self,
        destination: &Destination,
        keys: Keys,
        consignment: Consignment,
        now_ms: u64,
    ) -> Result<AttemptReport, SettingsError>;
}

/// A destination's secrets, opened.
pub struct Keys {
    /// What its deliveries are signed with.
    pub signing_secret: Secret,
    /// What it needs to sign in.
    pub credentials: Option<Secret>,
}

/// Random bytes and fingerprints.
pub trait SecretTools: Send + Sync {
    /// 32 bytes from the operating system.
    fn random(&self) -> [u8; 32];
    /// A short hash that tells secrets apart without showing them.
    fn fingerprint(&self, secret: &Secret) -> String;
}

/// See the module.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) sealer: Arc<dyn Sealer>,
    pub(super) providers: Arc<dyn Providers>,
    pub(super) destinations: Arc<dyn DestinationRules>,
    pub(super) secrets: Arc<dyn SecretTools>,
    pub(super) connections: Connections,
}

/// A sealed secret as replies show it.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SealedCredentials)]
pub(super) struct SealedView {
    /// `null` when it does not open.
    fingerprint: Option<String>,
    /// Why it does not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Tools {
    /// The provider of that name, or the words that list the known ones.
    pub(super) fn provider(&self, name: &str) -> Result<&'static dyn Provider, String> {
        self.providers.get(name).ok_or_else(|| {
            let names = self.providers.names();
            let known = listed(names.iter().copied());
            match nearest(name, names.iter().copied()) {
                Some(near) => format!("`{}` is no provider; did you mean `{near}`? known are {known}", quoted(name)),
                None => format!("`{}` is no provider; known are {known}", quoted(name)),
            }
        })
    }

    /// Tells a sealed secret apart from others.
    pub(super) fn sealed_view(&self, owner: Owner, sealed: &Sealed) -> SealedView {
        match self.sealer.open(owner, sealed) {
            Ok(secret) => SealedView { fingerprint: Some(self.secrets.fingerprint(&secret)), problem: None },
            Err(error) => SealedView { fingerprint: None, problem: Some(error.to_string()) },
        }
    }

    /// A path that nobody can guess: 192 random bits.
    pub(super) fn new_path(&self) -> String {
        format!("/{}", URL_SAFE_NO_PAD.encode(&self.secrets.random()[..24]))
    }
}
