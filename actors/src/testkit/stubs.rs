//! The smallest provider and sealer that a tree runs with.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{
    domain::{
        event::{Event, Identity},
        secret::{Sealed, Secret},
    },
    ports::{
        provider::{InboundRequest, Provider, Providers, Refusal, SettingsError, SignedRequest, Verified, Verifier},
        sealer::{Owner, SealError, Sealer},
    },
};

/// Accepts everything; names an event after its body.
#[derive(Debug, Default)]
pub struct PlainProvider;

impl Verifier for PlainProvider {
    fn verify(&self, _request: &InboundRequest<'_>, _now_ms: u64) -> Result<Verified, Refusal> {
        Ok(Verified { secret_index: 0 })
    }
}

impl Provider for PlainProvider {
    fn name(&self) -> &'static str {
        "none"
    }

    fn summary(&self) -> &'static str {
        "accepts everything"
    }

    fn verifier(
        &self,
        _settings: &Map<String, Value>,
        _secrets: &[Secret],
    ) -> Result<Arc<dyn Verifier>, SettingsError> {
        Ok(Arc::new(Self))
    }

    fn identify(&self, _settings: &Map<String, Value>, event: &Event) -> Identity {
        let text = String::from_utf8_lossy(&event.arrival.body);
        assert!(text != "panic", "a body that no provider can read");
        Identity { event_type: Some(text.into()), provider_id: None }
    }

    fn sign(
        &self,
        _settings: &Map<String, Value>,
        _secret: &Secret,
        _id: &str,
        _body: &[u8],
        _now_ms: u64,
    ) -> Result<SignedRequest, SettingsError> {
        Ok(SignedRequest { headers: Vec::new() })
    }

    fn sample(&self, id: &str) -> (&'static str, Vec<u8>) {
        ("text/plain", id.as_bytes().to_vec())
    }

    fn new_secret(&self, random: &[u8; 32]) -> Secret {
        Secret::new(random.to_vec())
    }
}

/// Knows [`PlainProvider`] only.
#[derive(Debug, Default)]
pub struct OneProvider;

impl Providers for OneProvider {
    fn get(&self, name: &str) -> Option<&'static dyn Provider> {
        (name == "none").then_some(&PlainProvider)
    }

    fn names(&self) -> Vec<&'static str> {
        vec!["none"]
    }
}

/// Seals nothing: a test's secrets are no secrets.
#[derive(Debug, Default)]
pub struct OpenSealer;

impl Sealer for OpenSealer {
    fn seal(&self, _owner: Owner, secret: &Secret) -> Sealed {
        Sealed(secret.expose_str().unwrap_or_default().to_owned())
    }

    fn open(&self, _owner: Owner, sealed: &Sealed) -> Result<Secret, SealError> {
        Ok(Secret::new(sealed.0.clone()))
    }
}
