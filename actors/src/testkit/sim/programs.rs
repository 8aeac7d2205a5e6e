//! A provider and programs over bodies such as `k3:pay.ok:p17:42`: order key, type, provider's id, serial number.
//! A body that ends in `boom` makes the provider or a filter panic, one that ends in `fault` makes a program fail.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    domain::{
        event::{Event, Identity},
        secret::Secret,
        transform::Transform,
    },
    ports::{
        program::{ProgramFault, Programs, RenderFault, Rendered, Selected, Selector, Subject, Transformer},
        provider::{InboundRequest, Provider, Providers, Refusal, SettingsError, SignedRequest, Verified, Verifier},
    },
};

/// A panic that prints nothing.
pub(super) fn quiet_panic() -> ! {
    std::panic::resume_unwind(Box::new("the scenario asked for it"))
}

/// The parts of a body.
pub(super) fn part(body: &[u8], index: usize) -> Option<&str> {
    std::str::from_utf8(body).ok()?.split(':').nth(index)
}

#[derive(Debug)]
pub(super) struct SimProvider;

impl Verifier for SimProvider {
    fn verify(&self, _request: &InboundRequest<'_>, _now_ms: u64) -> Result<Verified, Refusal> {
        Ok(Verified { secret_index: 0 })
    }
}

impl Provider for SimProvider {
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
        let body = &event.arrival.body;
        if body.ends_with(b"boom") {
            quiet_panic();
        }
        Identity { event_type: part(body, 1).map(Into::into), provider_id: part(body, 2).map(Into::into) }
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

/// Knows [`SimProvider`] only.
pub(super) struct SimProviders;

impl Providers for SimProviders {
    fn get(&self, name: &str) -> Option<&'static dyn Provider> {
        (name == "none").then_some(&SimProvider)
    }

    fn names(&self) -> Vec<&'static str> {
        vec!["none"]
    }
}

/// Filters are `has TEXT`; a key expression, whatever it says, is the body's key.
pub(super) struct SimPrograms;

struct SimSelector {
    filter: Option<String>,
    keyed: bool,
}

/// Whether the filter holds.
pub(super) fn passes(filter: &str, body: &[u8]) -> bool {
    let wanted = filter.trim_start_matches("has ");
    std::str::from_utf8(body).is_ok_and(|text| text.contains(wanted))
}

impl Selector for SimSelector {
    fn select(&self, subject: &Subject) -> Result<Selected, ProgramFault> {
        let body = &subject.event.arrival.body;
        if body.ends_with(b"fault") {
            return Err(ProgramFault("the expression failed".to_owned()));
        }
        if self.filter.as_deref().is_some_and(|filter| !passes(filter, body)) {
            return Ok(Selected::No);
        }
        Ok(Selected::Yes { key: part(body, 0).filter(|_| self.keyed).map(Into::into) })
    }
}

/// The header line that names the subscription.
pub(super) const SUBSCRIPTION_HEADER: &str = "subscription";

struct SimTransformer;

#[async_trait]
impl Transformer for SimTransformer {
    async fn render(&self, subject: &Subject) -> Result<Rendered, RenderFault> {
        let body = &subject.event.arrival.body;
        if body.ends_with(b"fault") {
            return Err(ProgramFault("the program failed".to_owned()).into());
        }
        let headers = vec![(SUBSCRIPTION_HEADER.to_owned(), subject.subscription.to_string())];
        Ok(Rendered { content_type: None, headers, body: Bytes::from(body.to_ascii_uppercase()) })
    }
}

impl Programs for SimPrograms {
    fn selector(&self, filter: Option<&str>, key: Option<&str>) -> Result<Arc<dyn Selector>, SettingsError> {
        Ok(Arc::new(SimSelector { filter: filter.map(str::to_owned), keyed: key.is_some() }))
    }

    fn transformer(
        &self,
        transform: &Transform,
        _headers: &BTreeMap<String, String>,
    ) -> Result<Option<Arc<dyn Transformer>>, SettingsError> {
        Ok((*transform != Transform::None).then(|| Arc::new(SimTransformer) as Arc<dyn Transformer>))
    }
}
