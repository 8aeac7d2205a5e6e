//! No check at all: for providers that sign nothing, where the path, an IP list or mutual TLS is the guard.

use std::sync::Arc;

use hookmill_actors::{
    domain::{
        event::{Event, Identity},
        secret::Secret,
    },
    ports::provider::{Guide, InboundRequest, Provider, Refusal, SettingsError, SignedRequest, Verified, Verifier},
};
use serde_json::{Map, Value};

use super::{
    members::{Members, NoMembers},
    payload,
};

/// The registry's entry.
pub(super) const PROVIDER: &dyn Provider = &Unsigned;

struct Unsigned;

/// Accepts everything.
struct Anything;

impl Verifier for Anything {
    fn verify(&self, _: &InboundRequest<'_>, _: u64) -> Result<Verified, Refusal> {
        Ok(Verified { secret_index: 0 })
    }
}

impl Provider for Unsigned {
    fn name(&self) -> &'static str {
        "none"
    }

    fn summary(&self) -> &'static str {
        "no signature: whoever knows the path is believed"
    }

    fn settings_schema(&self) -> Value {
        NoMembers::schema()
    }

    fn guide(&self) -> Guide {
        Guide {
            secret: "There is none. Whoever knows the path is believed: keep it secret, and let a proxy admit only the provider's \
                     addresses where it tells them.",
            url: "Wherever the provider lets one enter a webhook's or callback's URL.",
            reference: "https://www.standardwebhooks.com",
        }
    }

    /// Secrets are ignored: there is nothing to check with them.
    fn verifier(&self, settings: &Map<String, Value>, _: &[Secret]) -> Result<Arc<dyn Verifier>, SettingsError> {
        NoMembers::read(settings)?;
        Ok(Arc::new(Anything))
    }

    fn identify(&self, _: &Map<String, Value>, event: &Event) -> Identity {
        let [id, kind] = payload::members(&event.arrival.body, ["id", "type"]);
        Identity { event_type: payload::event_type(kind), provider_id: payload::id(id) }
    }

    fn sign(
        &self,
        settings: &Map<String, Value>,
        _: &Secret,
        _: &str,
        _: &[u8],
        _: u64,
    ) -> Result<SignedRequest, SettingsError> {
        NoMembers::read(settings)?;
        Ok(SignedRequest { headers: Vec::new() })
    }

    fn sample(&self, id: &str) -> (&'static str, Vec<u8>) {
        ("application/json", payload::fill(SAMPLE, id))
    }

    fn new_secret(&self, random: &[u8; 32]) -> Secret {
        Secret::new(hex::encode(random))
    }
}

const SAMPLE: &str = r#"{"id":"EVENT_ID","type":"device.reported","created_at":"2026-01-15T08:30:00Z","device":"meter-0042","reading":{"kwh":1873.4,"voltage":229.8}}"#;

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{block, post},
        *,
    };

    #[test]
    fn anything_goes() {
        let verifier = PROVIDER.verifier(&Map::new(), &[]).expect("compiles");
        for body in [b"".as_slice(), b"\xff\x00"] {
            assert!(verifier.verify(&post(&block(&[]), body), 0).is_ok());
        }
    }
}
