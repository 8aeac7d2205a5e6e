//! Stripe: `Stripe-Signature: t=<unix>,v1=<hex>[,v1=<hex>]`, HMAC-SHA256 of `<t>.<body>`. The key is the whole
//! text `whsec_...`, not what it decodes to. While a secret is rolled there is one `v1` for each.
//! <https://docs.stripe.com/webhooks#verify-manually>

mod canonical;

use std::sync::Arc;

use hookmill_actors::{
    domain::{
        canonical::CanonicalEvent,
        event::{Event, Identity},
        secret::Secret,
    },
    ports::provider::{Guide, InboundRequest, Provider, Refusal, SettingsError, SignedRequest, Verified, Verifier},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    members::Members,
    payload,
    signature::{self, Algorithm, Encoding, Key, Signatures, TOLERANCE_S_DEFAULT, TimestampUnit, Tolerance},
};

/// The registry's entry.
pub(super) const PROVIDER: &dyn Provider = &Stripe;

const SIGNATURE: &str = "stripe-signature";

struct Stripe;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    tolerance_s: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tolerance_s: TOLERANCE_S_DEFAULT }
    }
}

impl Members for Settings {
    const MEMBERS: &'static [(&'static str, &'static str, &'static str)] = &[(
        "tolerance_s",
        "a number of seconds, 1 to 86400",
        r#"{"type":"integer","minimum":1,"maximum":86400,"default":300}"#,
    )];
}

struct Compiled {
    keys: Vec<Key>,
    tolerance: Tolerance,
}

impl Verifier for Compiled {
    fn verify(&self, request: &InboundRequest<'_>, now_ms: u64) -> Result<Verified, Refusal> {
        let header = signature::signature_header(request, SIGNATURE)?;
        let (timestamp, signatures) = parse(header)?;
        self.tolerance.check(timestamp, TimestampUnit::Seconds, now_ms)?;
        let signed = [timestamp, b".".as_slice(), request.body];
        let secret_index = signature::matching_key(&self.keys, &signed, signatures.as_slice())?;
        Ok(Verified { secret_index })
    }
}

/// Takes the header apart. Keys other than `t` and `v1` are ignored: `v0` is a test scheme that must never count.
fn parse(header: &[u8]) -> Result<(&[u8], Signatures), Refusal> {
    let mut timestamp = None;
    let mut signatures = Signatures::new();
    for element in header.split(|byte| *byte == b',') {
        if let Some(value) = element.strip_prefix(b"t=") {
            if timestamp.replace(value).is_some() {
                return Err(Refusal::Malformed(format!("`{SIGNATURE}` has more than one `t=`")));
            }
        } else if let Some(digest) = element.strip_prefix(b"v1=").and_then(|hex| Encoding::Hex.decode(hex, 32)) {
            signatures.push(digest)?;
        }
    }
    let timestamp = timestamp.ok_or_else(|| Refusal::Malformed(format!("`{SIGNATURE}` has no `t=`")))?;
    if signatures.as_slice().is_empty() {
        return Err(Refusal::Malformed(format!("`{SIGNATURE}` has no `v1=` of 64 hex digits")));
    }
    Ok((timestamp, signatures))
}

impl Provider for Stripe {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn summary(&self) -> &'static str {
        "Stripe: Stripe-Signature, HMAC-SHA256 of the timestamp and the body"
    }

    fn settings_schema(&self) -> Value {
        Settings::schema()
    }

    fn guide(&self) -> Guide {
        Guide {
            secret: "Dashboard > Developers > Webhooks > the endpoint > Signing secret: `whsec_` and letters. Each endpoint there has \
                     its own.",
            url: "Dashboard > Developers > Webhooks > Add endpoint > Endpoint URL; or the member `url` of \
                     `POST /v1/webhook_endpoints`.",
            reference: "https://docs.stripe.com/webhooks#verify-official-libraries",
        }
    }

    fn verifier(&self, settings: &Map<String, Value>, secrets: &[Secret]) -> Result<Arc<dyn Verifier>, SettingsError> {
        let tolerance = Tolerance::new(Settings::read(settings)?.tolerance_s)?;
        signature::check_secrets(secrets)?;
        let keys = secrets.iter().map(|secret| Key::new(Algorithm::Sha256, secret.expose())).collect();
        Ok(Arc::new(Compiled { keys, tolerance }))
    }

    fn identify(&self, _: &Map<String, Value>, event: &Event) -> Identity {
        let [id, kind] = payload::members(&event.arrival.body, ["id", "type"]);
        Identity { event_type: payload::event_type(kind), provider_id: payload::id(id) }
    }

    /// Its id is a member of the body. What it sends again differs in `pending_webhooks`.
    fn signs_id(&self, _: &Map<String, Value>) -> bool {
        true
    }

    fn canonicalize(&self, _: &Map<String, Value>, event: &Event) -> Option<CanonicalEvent> {
        canonical::of(&event.arrival.body)
    }

    fn sign(
        &self,
        settings: &Map<String, Value>,
        secret: &Secret,
        _: &str,
        body: &[u8],
        now_ms: u64,
    ) -> Result<SignedRequest, SettingsError> {
        Settings::read(settings)?;
        signature::check_secrets(std::slice::from_ref(secret))?;
        let timestamp = TimestampUnit::Seconds.write(now_ms);
        let digest = Key::new(Algorithm::Sha256, secret.expose()).digest([timestamp.as_bytes(), b".", body]);
        let value = format!("t={timestamp},v1={}", Encoding::Hex.encode(digest.as_bytes()));
        Ok(SignedRequest { headers: vec![(SIGNATURE.into(), value)] })
    }

    fn sample(&self, id: &str) -> (&'static str, Vec<u8>) {
        ("application/json; charset=utf-8", payload::fill(SAMPLE, id))
    }

    fn new_secret(&self, random: &[u8; 32]) -> Secret {
        Secret::new(format!("whsec_{}", Encoding::Base64Url.encode(random)))
    }
}

const SAMPLE: &str = r#"{
  "id": "EVENT_ID",
  "object": "event",
  "api_version": "2025-09-30.clover",
  "created": 1768465800,
  "data": {
    "object": {
      "id": "pi_3SpQ7mLk2eZvKYlo1aXc8Rt0",
      "object": "payment_intent",
      "amount": 4990,
      "amount_capturable": 0,
      "amount_received": 4990,
      "automatic_payment_methods": { "allow_redirects": "always", "enabled": true },
      "capture_method": "automatic_async",
      "client_secret": null,
      "confirmation_method": "automatic",
      "created": 1768465795,
      "currency": "eur",
      "customer": "cus_TfK2n8WqXyB41z",
      "description": "Order 20260115-0042",
      "last_payment_error": null,
      "latest_charge": "ch_3SpQ7mLk2eZvKYlo1b7Nq2Vd",
      "livemode": false,
      "metadata": { "order_id": "20260115-0042", "shop": "ashgrove" },
      "payment_method": "pm_1SpQ7lLk2eZvKYloDhTq0x9P",
      "payment_method_types": ["card", "link"],
      "receipt_email": null,
      "setup_future_usage": null,
      "statement_descriptor_suffix": null,
      "status": "succeeded"
    }
  },
  "livemode": false,
  "pending_webhooks": 1,
  "request": { "id": "req_h4UuYk2jW0Zb7C", "idempotency_key": "1f0f3a52-6a86-4b0e-9d0c-3b7f0c9a4f11" },
  "type": "payment_intent.succeeded"
}"#;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            members::tests::{assert_members_exist, map},
            tests::{block, post},
        },
        *,
    };

    const BODY: &[u8] = br#"{"id":"evt_1","type":"charge.failed"}"#;
    const SECRET: &str = "whsec_c3RyaXBlLXRlc3Qta2V5";
    const NOW_S: u64 = 1_768_465_800;
    /// From Python's `hmac`: the text of the secret over `1768465800.<body>`.
    const HEX: &str = "16179afc7d38097ead63797d3a810f9ca3fd991a73e104a0757fa9d64f6a2935";
    /// The same with what the secret decodes to.
    const HEX_DECODED: &str = "11909569bf889600b3d24ce2202f995df39995b29a23f944e2374b1be7f05213";

    fn verify(header: &str, now_s: u64) -> Result<Verified, Refusal> {
        let secrets = [Secret::new("whsec_other"), Secret::new(SECRET)];
        let verifier = PROVIDER.verifier(&map(json!({ "tolerance_s": 60 })), &secrets).expect("compiles");
        verifier.verify(&post(&block(&[("Stripe-Signature", header)]), BODY), now_s * 1_000 + 999)
    }

    #[test]
    fn the_table_of_members_is_the_struct() {
        assert_members_exist::<Settings>();
    }

    #[test]
    fn any_v1_counts_in_any_order() {
        let zero = "0".repeat(64);
        for header in [
            format!("t={NOW_S},v1={HEX}"),
            format!("v1={HEX},t={NOW_S}"),
            format!("t={NOW_S},v1={zero},v1={HEX},v0={zero}"),
            format!("t={NOW_S},v1=junk,v1={HEX},novalue,x=y"),
            format!("t={NOW_S},v1={}", HEX.to_uppercase()),
        ] {
            assert_eq!(verify(&header, NOW_S), Ok(Verified { secret_index: 1 }), "{header}");
        }
    }

    #[test]
    fn refuses_what_is_not_signed_so() {
        let malformed = [
            format!("v1={HEX}"),
            format!("t={NOW_S}"),
            format!("t={NOW_S},v0={HEX}"),
            format!("t={NOW_S},t={NOW_S},v1={HEX}"),
            format!("t={NOW_S}, v1={HEX}"),
            format!("t={NOW_S};v1={HEX}"),
            format!("t={NOW_S}.0,v1={HEX}"),
            format!("t={NOW_S},v1={}", &HEX[1..]),
            format!("t={NOW_S},v1={HEX}00"),
            HEX.to_owned(),
            format!("t={NOW_S}{}", format!(",v1={HEX}").repeat(17)),
        ];
        for header in malformed {
            assert!(matches!(verify(&header, NOW_S), Err(Refusal::Malformed(_))), "{header}");
        }
        let moved = NOW_S + 1;
        for header in [format!("t={NOW_S},v1={HEX_DECODED}"), format!("t={moved},v1={HEX}")] {
            assert_eq!(verify(&header, NOW_S), Err(Refusal::Mismatch), "{header}");
        }
        assert!(matches!(verify("", NOW_S), Err(Refusal::MissingSignature(_))));
    }

    #[test]
    fn the_tolerance_holds_both_ways() {
        let header = format!("t={NOW_S},v1={HEX}");
        assert!(verify(&header, NOW_S + 60).is_ok());
        assert!(verify(&header, NOW_S - 60).is_ok());
        assert_eq!(verify(&header, NOW_S + 61), Err(Refusal::Timestamp { age_s: 61, tolerance_s: 60 }));
        assert_eq!(verify(&header, NOW_S - 61), Err(Refusal::Timestamp { age_s: -61, tolerance_s: 60 }));
    }

    #[test]
    fn the_sample_is_of_a_real_events_size() {
        let (_, body) = PROVIDER.sample("evt_3SpQ7mLk2eZvKYlo1kV0wq7M");
        assert!((1_000..2_000).contains(&body.len()), "{} bytes", body.len());
    }
}
