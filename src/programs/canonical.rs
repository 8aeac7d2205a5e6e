//! The canonical event as the JSON that destinations get: the provider's facts in one form, with the whole body below.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hookmill_actors::{
    domain::canonical::{CanonicalEvent, Money},
    ports::program::{ProgramFault, Subject},
};
use serde::Serialize;

use super::{
    cloudevents::{Data, UNNAMED, data},
    facts,
};

#[derive(Serialize)]
struct Document<'a> {
    id: String,
    /// Canonical where the provider's name has one, else that.
    r#type: &'a str,
    provider: Option<&'static str>,
    provider_type: Option<&'a str>,
    provider_id: Option<&'a str>,
    reference: Option<&'a str>,
    amount: Option<&'a Money>,
    recipient: Option<&'a str>,
    reason: Option<&'a str>,
    occurred_at: Option<String>,
    received_at: String,
    integration: Integration<'a>,
    #[serde(flatten)]
    data: Data<'a>,
}

#[derive(Serialize)]
struct Integration<'a> {
    id: u32,
    name: &'a str,
}

/// The document of an event; one that its provider has no canonical name for keeps the provider's.
pub(super) fn document(subject: &Subject) -> Result<Vec<u8>, ProgramFault> {
    let event = subject.event.as_ref();
    let canonical = match &subject.naming {
        None => None,
        Some(naming) => catch_unwind(AssertUnwindSafe(|| naming.provider.canonicalize(&naming.settings, event)))
            .map_err(|_| {
                ProgramFault(format!("provider `{}` failed to make its canonical event", naming.provider.name()))
            })?,
    };
    let provider_type = subject.identity.event_type.as_deref();
    let canonical = canonical.unwrap_or_else(|| CanonicalEvent::named(provider_type.unwrap_or(UNNAMED)));
    let document = Document {
        id: event.id.to_string(),
        r#type: &canonical.name,
        provider: subject.naming.as_ref().map(|naming| naming.provider.name()),
        provider_type,
        provider_id: subject.identity.provider_id.as_deref(),
        reference: canonical.reference.as_deref(),
        amount: canonical.amount.as_ref(),
        recipient: canonical.recipient.as_deref(),
        reason: canonical.reason.as_deref(),
        occurred_at: canonical.occurred_at_ms.map(facts::time),
        received_at: facts::time(event.arrival.received_at_ms),
        integration: Integration { id: subject.integration.0.0, name: &subject.integration.1 },
        data: data(subject).1,
    };
    serde_json::to_vec(&document).map_err(|error| ProgramFault(format!("no canonical event: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hookmill_actors::{ports::provider::Providers, snapshot::Naming};
    use serde_json::{Value, json};

    use super::{super::testing::subject, *};
    use crate::providers::registry;

    fn made(provider: &str, event_type: Option<&str>, body: &[u8]) -> Value {
        let mut subject = subject(body);
        subject.identity.event_type = event_type.map(Into::into);
        let provider = registry().get(provider).expect("it is registered");
        subject.naming = Some(Naming { provider, settings: Arc::default() });
        serde_json::from_slice(&document(&subject).expect("it is made")).expect("it is JSON")
    }

    #[test]
    fn the_sample_of_a_provider_becomes_canonical() {
        let provider = registry().get("stripe").expect("it is registered");
        let (_, body) = provider.sample("evt_1");
        let event = made("stripe", Some("payment_intent.succeeded"), &body);
        assert_eq!(event["type"], "payment.succeeded");
        assert_eq!(event["amount"], json!({"minor": 4990, "currency": "EUR"}));
        assert_eq!(event["reference"], "pi_3SpQ7mLk2eZvKYlo1aXc8Rt0");
        assert_eq!(event["occurred_at"], "2026-01-15T08:30:00Z");
        assert_eq!(event["provider_type"], "payment_intent.succeeded");
        assert_eq!(event["data"]["id"], "evt_1");
    }

    #[test]
    fn what_has_no_canonical_name_passes_under_its_own() {
        let event = made("github", Some("push"), br#"{"ref":"refs/heads/main"}"#);
        assert_eq!((&event["type"], &event["amount"]), (&json!("push"), &Value::Null));
        assert_eq!(event["data"]["ref"], "refs/heads/main");
        assert_eq!(made("none", None, b"\xff")["type"], "hookmill.event");
        assert_eq!(made("none", None, b"\xff")["data_base64"], "/w==");
    }
}
