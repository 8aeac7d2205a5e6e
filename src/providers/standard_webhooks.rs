//! Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp` and `webhook-signature`, a list of
//! `<version>,<base64>` over `<id>.<timestamp>.<body>`. `v1` is HMAC-SHA256 under what `whsec_<base64>` decodes to,
//! `v1a` is Ed25519 under `whpk_<base64>`. A key is only ever used for its own version.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::sync::Arc;

use ed25519_dalek::{Signature, VerifyingKey};
use hookmill_actors::{
    domain::{
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
pub(super) const PROVIDER: &dyn Provider = &StandardWebhooks;

/// The specification's 24 to 64 bytes, and up to the 75 that Svix lets its users set.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=75;
/// A rotation needs two; each costs an unauthenticated sender's request some 30 us a signature.
const PUBLIC_KEYS_MAX: usize = 4;
const SECRET_PREFIX: &[u8] = b"whsec_";
const PUBLIC_PREFIX: &[u8] = b"whpk_";
const PRIVATE_PREFIX: &[u8] = b"whsk_";

struct StandardWebhooks;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    tolerance_s: u64,
    public_keys: Vec<String>,
    header_prefix: HeaderPrefix,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tolerance_s: TOLERANCE_S_DEFAULT, public_keys: Vec::new(), header_prefix: HeaderPrefix::Webhook }
    }
}

impl Members for Settings {
    const MEMBERS: &'static [(&'static str, &'static str, &'static str)] = &[
        (
            "tolerance_s",
            "a number of seconds, 1 to 86400",
            r#"{"type":"integer","minimum":1,"maximum":86400,"default":300}"#,
        ),
        (
            "public_keys",
            "a list of Ed25519 public keys, each `whpk_` and base64",
            r#"{"type":"array","maxItems":4,"items":{"type":"string","pattern":"^whpk_"},"default":[]}"#,
        ),
        ("header_prefix", "`webhook` or `svix`", r#"{"enum":["webhook","svix"],"default":"webhook"}"#),
    ];
}

/// The scheme was Svix's before it was a standard, and some senders kept its names.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum HeaderPrefix {
    Webhook,
    Svix,
}

/// The three headers' names.
struct Names {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

impl HeaderPrefix {
    fn names(self) -> &'static Names {
        match self {
            Self::Webhook => {
                &Names { id: "webhook-id", timestamp: "webhook-timestamp", signature: "webhook-signature" }
            }
            Self::Svix => &Names { id: "svix-id", timestamp: "svix-timestamp", signature: "svix-signature" },
        }
    }
}

struct Compiled {
    names: &'static Names,
    tolerance: Tolerance,
    secrets: Vec<Key>,
    public_keys: Vec<VerifyingKey>,
}

impl Verifier for Compiled {
    fn verify(&self, request: &InboundRequest<'_>, now_ms: u64) -> Result<Verified, Refusal> {
        let header = signature::signature_header(request, self.names.signature)?;
        let id = signature::companion_header(request, self.names.id)?;
        if id.contains(&b'.') {
            // `a.1` at `2` and `a` at `1` with a body from `2.` on would be signed alike.
            return Err(Refusal::Malformed(format!("`{}` must not hold a full stop", self.names.id)));
        }
        let timestamp = signature::companion_header(request, self.names.timestamp)?;
        self.tolerance.check(timestamp, TimestampUnit::Seconds, now_ms)?;
        let signed = [id, b".".as_slice(), timestamp, b".", request.body];

        let (symmetric, asymmetric) = self.parse(header)?;
        if let Ok(secret_index) = signature::matching_key(&self.secrets, &signed, symmetric.as_slice()) {
            return Ok(Verified { secret_index });
        }
        if asymmetric.as_slice().is_empty() {
            return Err(Refusal::Mismatch);
        }
        let message = signed.concat();
        self.public_keys
            .iter()
            .position(|key| {
                asymmetric.as_slice().iter().any(|signature| {
                    Signature::from_slice(signature.as_bytes())
                        .is_ok_and(|signature| key.verify_strict(&message, &signature).is_ok())
                })
            })
            .map(|index| Verified { secret_index: self.secrets.len() + index })
            .ok_or(Refusal::Mismatch)
    }
}

impl Compiled {
    /// The well-formed signatures of the versions that there are keys for: `v1`, then `v1a`.
    fn parse(&self, header: &[u8]) -> Result<(Signatures, Signatures), Refusal> {
        let mut symmetric = Signatures::new();
        let mut asymmetric = Signatures::new();
        for element in header.split(|byte| *byte == b' ') {
            if let Some(text) = element.strip_prefix(b"v1,")
                && !self.secrets.is_empty()
                && let Some(digest) = Encoding::Base64.decode(text, 32)
            {
                symmetric.push(digest)?;
            } else if let Some(text) = element.strip_prefix(b"v1a,")
                && !self.public_keys.is_empty()
                && let Some(digest) = Encoding::Base64.decode(text, 64)
            {
                asymmetric.push(digest)?;
            }
        }
        if symmetric.as_slice().is_empty() && asymmetric.as_slice().is_empty() {
            let expected = match (self.secrets.is_empty(), self.public_keys.is_empty()) {
                (false, true) => "`v1,` and the base64 of 32 bytes",
                (true, false) => "`v1a,` and the base64 of 64 bytes",
                _ => "`v1,` or `v1a,` and base64",
            };
            return Err(Refusal::Malformed(format!("`{}` has no {expected}", self.names.signature)));
        }
        Ok((symmetric, asymmetric))
    }
}

/// The key that a secret's text stands for; `field` names it in errors.
fn secret_key(field: &str, secret: &Secret) -> Result<Key, SettingsError> {
    let text = secret.expose();
    if text.starts_with(PUBLIC_PREFIX) {
        // As an HMAC key, what everyone may know would sign for anyone.
        return Err(SettingsError::new(field, "is a public key (`whpk_`); it belongs into `public_keys`"));
    }
    if text.starts_with(PRIVATE_PREFIX) {
        let problem = "is the sender's private key (`whsk_`); give its public key (`whpk_`) in `public_keys`";
        return Err(SettingsError::new(field, problem));
    }
    let key = signature::base64_key(text.strip_prefix(SECRET_PREFIX).unwrap_or(text))
        .ok_or_else(|| SettingsError::new(field, "must be `whsec_` and base64"))?;
    let bytes = key.expose().len();
    if !SECRET_BYTES.contains(&bytes) {
        let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
        return Err(SettingsError::new(field, format!("decodes to {bytes} bytes; must be {least} to {most}")));
    }
    Ok(Key::new(Algorithm::Sha256, key.expose()))
}

fn public_key(index: usize, text: &str) -> Result<VerifyingKey, SettingsError> {
    let bytes = text.strip_prefix("whpk_").and_then(|text| signature::base64_key(text.as_bytes()));
    bytes
        .and_then(|bytes| VerifyingKey::from_bytes(bytes.expose().try_into().ok()?).ok())
        // A key of small order makes signatures that hold for any message.
        .filter(|key| !key.is_weak())
        .ok_or_else(|| {
            let problem = "must be `whpk_` and the base64 of a 32-byte Ed25519 key";
            SettingsError::new(format!("public_keys[{index}]"), problem)
        })
}

impl Provider for StandardWebhooks {
    fn name(&self) -> &'static str {
        "standard_webhooks"
    }

    fn summary(&self) -> &'static str {
        "Standard Webhooks (Svix and many others): webhook-id, webhook-timestamp, webhook-signature"
    }

    fn settings_schema(&self) -> Value {
        Settings::schema()
    }

    fn guide(&self) -> Guide {
        Guide {
            secret: "At the sender, beside the endpoint: `whsec_` and base64. For signatures of version `v1a`, the public key `whpk_` \
                     goes into `public_keys`.",
            url: "At the sender, where it lets one add a webhook endpoint.",
            reference: "https://www.standardwebhooks.com",
        }
    }

    /// `secrets` may be empty where there are `public_keys`; those are counted after the secrets.
    fn verifier(&self, settings: &Map<String, Value>, secrets: &[Secret]) -> Result<Arc<dyn Verifier>, SettingsError> {
        let settings = Settings::read(settings)?;
        let tolerance = Tolerance::new(settings.tolerance_s)?;
        if settings.public_keys.len() > PUBLIC_KEYS_MAX {
            let problem = format!("are {}; at most {PUBLIC_KEYS_MAX} may be", settings.public_keys.len());
            return Err(SettingsError::new("public_keys", problem));
        }
        if !secrets.is_empty() || settings.public_keys.is_empty() {
            signature::check_secrets(secrets)?;
        }
        let secrets = secrets
            .iter()
            .enumerate()
            .map(|(index, secret)| secret_key(&format!("secrets[{index}]"), secret))
            .collect::<Result<_, _>>()?;
        let public_keys = settings
            .public_keys
            .iter()
            .enumerate()
            .map(|(index, text)| public_key(index, text))
            .collect::<Result<_, _>>()?;
        Ok(Arc::new(Compiled { names: settings.header_prefix.names(), tolerance, secrets, public_keys }))
    }

    fn identify(&self, settings: &Map<String, Value>, event: &Event) -> Identity {
        let prefix = settings
            .get("header_prefix")
            .and_then(|prefix| HeaderPrefix::deserialize(prefix).ok())
            .unwrap_or(HeaderPrefix::Webhook);
        let [kind] = payload::members(&event.arrival.body, ["type"]);
        Identity {
            event_type: payload::event_type(kind),
            provider_id: payload::id(payload::header(event, prefix.names().id)),
        }
    }

    fn signs_id(&self, _: &Map<String, Value>) -> bool {
        true
    }

    /// Signs `v1`.
    fn sign(
        &self,
        settings: &Map<String, Value>,
        secret: &Secret,
        id: &str,
        body: &[u8],
        now_ms: u64,
    ) -> Result<SignedRequest, SettingsError> {
        let names = Settings::read(settings)?.header_prefix.names();
        signature::check_secrets(std::slice::from_ref(secret))?;
        let key = secret_key("secrets[0]", secret)?;
        let timestamp = TimestampUnit::Seconds.write(now_ms);
        let digest = key.digest([id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
        let signature = format!("v1,{}", Encoding::Base64.encode(digest.as_bytes()));
        Ok(SignedRequest {
            headers: vec![
                (names.id.into(), id.to_owned()),
                (names.timestamp.into(), timestamp),
                (names.signature.into(), signature),
            ],
        })
    }

    fn sample(&self, id: &str) -> (&'static str, Vec<u8>) {
        ("application/json", payload::fill(SAMPLE, id))
    }

    fn new_secret(&self, random: &[u8; 32]) -> Secret {
        Secret::new(format!("whsec_{}", Encoding::Base64.encode(random)))
    }
}

const SAMPLE: &str = r#"{"type":"invoice.paid","timestamp":"2026-01-15T08:30:00.412Z","data":{"id":"inv_01KF0M7R6QX3T9ZB5W2E8YHDGN","number":"2026-000142","status":"paid","currency":"EUR","subtotal":"118.00","tax":"22.42","total":"140.42","amount_paid":"140.42","customer":{"id":"cus_01KC8PZQ4V7H2N6R0XJ9DTEYWA","name":"Ashgrove Interiors Ltd","email":"accounts@ashgrove.example","country":"IE","vat_id":"IE0000000X"},"lines":[{"id":"li_1","description":"Workspace, annual","quantity":1,"unit_price":"99.00","amount":"99.00","period":{"start":"2026-01-01","end":"2026-12-31"}},{"id":"li_2","description":"Additional seat","quantity":2,"unit_price":"9.50","amount":"19.00","period":{"start":"2026-01-01","end":"2026-12-31"}}],"payment":{"id":"pay_01KF0M7QW5B8S3K1C6VNAR4TXJ","method":"sepa_debit","reference":"RF18539007547034","paid_at":"2026-01-15T08:29:58Z"},"metadata":{"order_id":"20260115-0042","source":"portal"},"hosted_url":"https://billing.example/i/2026-000142"}}"#;

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use serde_json::json;

    use super::{
        super::{
            members::tests::{assert_members_exist, map},
            tests::{block, post},
        },
        *,
    };

    const BODY: &[u8] = br#"{"type":"user.created"}"#;
    const ID: &str = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W";
    const NOW_S: u64 = 1_768_465_800;
    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    /// From Python's `hmac`: the 24 bytes over `<id>.1768465800.<body>`.
    const V1: &str = "1t04jBlXBvuXjyldo4Tjp1H4URObflUMc3ZMEOuHphk=";
    /// The same under the secret's text.
    const V1_TEXT: &str = "ovkjUgjByPAm/j8liIWBpDoVVQ/ADrk8Z+U4mU4z9tY=";

    struct Case<'a> {
        id: &'a str,
        timestamp: &'a str,
        signature: &'a str,
    }

    impl Case<'_> {
        fn verify(&self, settings: Value, secrets: &[&str]) -> Result<Verified, Refusal> {
            let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(*text)).collect();
            let verifier = PROVIDER.verifier(&map(settings), &secrets).expect("compiles");
            let lines =
                [("Webhook-Id", self.id), ("Webhook-Timestamp", self.timestamp), ("Webhook-Signature", self.signature)];
            verifier.verify(&post(&block(&lines), BODY), NOW_S * 1_000)
        }
    }

    fn at_now(signature: &str) -> Case<'_> {
        Case { id: ID, timestamp: "1768465800", signature }
    }

    fn verify(signature: &str) -> Result<Verified, Refusal> {
        at_now(signature).verify(json!({}), &[SECRET])
    }

    #[test]
    fn the_table_of_members_is_the_struct() {
        assert_members_exist::<Settings>();
    }

    #[test]
    fn any_v1_of_the_list_counts() {
        let zero = Encoding::Base64.encode(&[0; 32]);
        let long = Encoding::Base64.encode(&[0; 64]);
        for header in [
            format!("v1,{V1}"),
            format!("v1,{zero} v1,{V1}"),
            format!("v1,{V1} v1,{zero}"),
            format!("v2,{zero} v1a,{long} v1,junk  v1,{V1}"),
        ] {
            assert_eq!(verify(&header), Ok(Verified { secret_index: 0 }), "{header}");
        }
        for header in [
            V1.to_owned(),
            format!("V1,{V1}"),
            format!("v1={V1}"),
            format!("v1a,{V1}"),
            format!("v1,{zero},v1,{V1}"),
            format!("v1,{}", V1.trim_end_matches('=')),
            format!("v1,{V1}=="),
            "v1,".to_owned(),
        ] {
            assert!(matches!(verify(&header), Err(Refusal::Malformed(_))), "{header}");
        }
        assert_eq!(verify(&format!("v1,{V1_TEXT}")), Err(Refusal::Mismatch));
        assert!(matches!(verify(""), Err(Refusal::MissingSignature(_))));
    }

    #[test]
    fn what_comes_with_the_signature_must_be_in_form() {
        let signature = format!("v1,{V1}");
        for (id, timestamp) in
            [("", "1768465800"), ("msg.1", "1768465800"), (ID, ""), (ID, "1768465800.0"), (ID, "now")]
        {
            let case = Case { id, timestamp, signature: &signature };
            assert!(matches!(case.verify(json!({}), &[SECRET]), Err(Refusal::Malformed(_))), "{id} {timestamp}");
        }
        let stale = Case { id: ID, timestamp: "1768465499", signature: &signature };
        assert_eq!(stale.verify(json!({}), &[SECRET]), Err(Refusal::Timestamp { age_s: 301, tolerance_s: 300 }));
        let other = Case { id: "msg_2", timestamp: "1768465800", signature: &signature };
        assert_eq!(other.verify(json!({}), &[SECRET]), Err(Refusal::Mismatch));
    }

    #[test]
    fn a_public_key_verifies_v1a_and_nothing_else() {
        let private = SigningKey::from_bytes(&[5; 32]);
        let public = private.verifying_key().to_bytes();
        let whpk = format!("whpk_{}", Encoding::Base64.encode(&public));
        let settings = json!({ "public_keys": [whpk] });
        let message = [ID.as_bytes(), b".1768465800.", BODY].concat();
        let v1a = format!("v1a,{}", Encoding::Base64.encode(&private.sign(&message).to_bytes()));
        assert_eq!(at_now(&v1a).verify(settings.clone(), &[]), Ok(Verified { secret_index: 0 }));
        assert_eq!(at_now(&v1a).verify(settings.clone(), &[SECRET]), Ok(Verified { secret_index: 1 }));
        assert!(at_now(&v1a).verify(json!({}), &[SECRET]).is_err());
        // An HMAC under the public key's bytes, as either version.
        let forged = Key::new(Algorithm::Sha256, &public).digest([message.as_slice()]);
        for version in ["v1", "v1a"] {
            let header = format!("{version},{}", Encoding::Base64.encode(forged.as_bytes()));
            assert!(at_now(&header).verify(settings.clone(), &[]).is_err(), "{version}");
        }
        let other = SigningKey::from_bytes(&[6; 32]).sign(&message).to_bytes();
        let header = format!("v1a,{}", Encoding::Base64.encode(&other));
        assert_eq!(at_now(&header).verify(settings, &[]), Err(Refusal::Mismatch));
    }

    #[test]
    fn keys_of_the_wrong_kind_are_refused() {
        let fault = |settings: Value, secret: &str| {
            let secrets: Vec<Secret> = (!secret.is_empty()).then(|| Secret::new(secret)).into_iter().collect();
            PROVIDER.verifier(&map(settings), &secrets).err().expect("refused").to_string()
        };
        assert!(fault(json!({}), "whpk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX").contains("public key"));
        assert!(fault(json!({}), "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX").contains("private key"));
        assert!(fault(json!({}), "whsec_not base64").contains("must be `whsec_` and base64"));
        assert_eq!(fault(json!({}), "whsec_AAEC"), "`secrets[0]`: decodes to 3 bytes; must be 24 to 75");
        for key in ["whpk_AAEC", "AAEC", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"] {
            assert!(fault(json!({ "public_keys": [key] }), "").starts_with("`public_keys[0]`: must be"), "{key}");
        }
        // The identity element: everything verifies under it.
        let weak = format!("whpk_{}", Encoding::Base64.encode(&[[1].as_slice(), &[0; 31]].concat()));
        assert!(fault(json!({ "public_keys": [weak] }), "").starts_with("`public_keys[0]`"));
        assert!(PROVIDER.verifier(&Map::new(), &[Secret::new(&SECRET.as_bytes()[6..])]).is_ok(), "bare base64");
    }

    #[test]
    fn svix_names_are_a_setting() {
        let settings = map(json!({ "header_prefix": "svix" }));
        let secret = Secret::new(SECRET);
        let signed = PROVIDER.sign(&settings, &secret, ID, BODY, NOW_S * 1_000).expect("signs");
        assert_eq!(signed.headers[2], ("svix-signature".to_owned(), format!("v1,{V1}")));
        let lines: Vec<(&str, &str)> =
            signed.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let headers = block(&lines);
        let verify = |settings| {
            PROVIDER
                .verifier(settings, std::slice::from_ref(&secret))
                .expect("compiles")
                .verify(&post(&headers, BODY), NOW_S * 1_000)
        };
        assert!(verify(&settings).is_ok());
        assert!(matches!(verify(&Map::new()), Err(Refusal::MissingSignature(_))));
        let identity = PROVIDER.identify(&settings, &payload::tests::event(&lines, BODY));
        assert_eq!(identity.provider_id.as_deref(), Some(ID));
        assert_eq!(identity.event_type.as_deref(), Some("user.created"));
    }
}
