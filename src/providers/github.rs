//! GitHub: `X-Hub-Signature-256: sha256=<hex>`, HMAC-SHA256 of the raw body. Nothing in it is dated. GitHub sends nothing
//! again by itself; for three days somebody may have it redeliver an event, under the same delivery id.
//! <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>

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
    signature::{self, Algorithm, Encoding, Key},
};

/// The registry's entry.
pub(super) const PROVIDER: &dyn Provider = &GitHub;

/// The older `X-Hub-Signature` (SHA-1) is never looked at: to take it would be a downgrade.
const SIGNATURE: &str = "x-hub-signature-256";
const EVENT: &str = "x-github-event";
const DELIVERY: &str = "x-github-delivery";
const PREFIX: &str = "sha256=";

struct GitHub;

struct Compiled {
    keys: Vec<Key>,
}

impl Verifier for Compiled {
    fn verify(&self, request: &InboundRequest<'_>, _: u64) -> Result<Verified, Refusal> {
        let value = signature::signature_header(request, SIGNATURE)?;
        let digest = value
            .strip_prefix(PREFIX.as_bytes())
            .and_then(|hex| Encoding::Hex.decode(hex, 32))
            .ok_or_else(|| Refusal::Malformed(format!("`{SIGNATURE}` is not `{PREFIX}` and 64 hex digits")))?;
        let secret_index = signature::matching_key(&self.keys, &[request.body], &[digest])?;
        Ok(Verified { secret_index })
    }
}

impl Provider for GitHub {
    fn name(&self) -> &'static str {
        "github"
    }

    fn summary(&self) -> &'static str {
        "GitHub: X-Hub-Signature-256, HMAC-SHA256 of the body"
    }

    fn settings_schema(&self) -> Value {
        NoMembers::schema()
    }

    fn guide(&self) -> Guide {
        Guide {
            secret: "You choose it: the field Secret of the webhook. Let hookmill make one, and enter it there; GitHub never shows it \
                     again.",
            url: "Repository or organization > Settings > Webhooks > Add webhook > Payload URL, with content type \
                     `application/json`.",
            reference: "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
        }
    }

    fn verifier(&self, settings: &Map<String, Value>, secrets: &[Secret]) -> Result<Arc<dyn Verifier>, SettingsError> {
        NoMembers::read(settings)?;
        signature::check_secrets(secrets)?;
        let keys = secrets.iter().map(|secret| Key::new(Algorithm::Sha256, secret.expose())).collect();
        Ok(Arc::new(Compiled { keys }))
    }

    fn identify(&self, _: &Map<String, Value>, event: &Event) -> Identity {
        Identity {
            event_type: payload::event_type(payload::header(event, EVENT)),
            provider_id: payload::id(payload::header(event, DELIVERY)),
        }
    }

    fn sign(
        &self,
        settings: &Map<String, Value>,
        secret: &Secret,
        id: &str,
        body: &[u8],
        _: u64,
    ) -> Result<SignedRequest, SettingsError> {
        NoMembers::read(settings)?;
        signature::check_secrets(std::slice::from_ref(secret))?;
        let digest = Key::new(Algorithm::Sha256, secret.expose()).digest([body]);
        let signature = format!("{PREFIX}{}", Encoding::Hex.encode(digest.as_bytes()));
        Ok(SignedRequest {
            headers: vec![
                (EVENT.into(), "push".into()),
                (DELIVERY.into(), id.to_owned()),
                (SIGNATURE.into(), signature),
            ],
        })
    }

    fn sample(&self, id: &str) -> (&'static str, Vec<u8>) {
        ("application/json", payload::fill(SAMPLE, id))
    }

    fn new_secret(&self, random: &[u8; 32]) -> Secret {
        Secret::new(hex::encode(random))
    }
}

const SAMPLE: &str = r#"{"ref":"refs/heads/main","before":"6113728f27ae82c7b1a177c8d03f9e96e0adf246","after":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","repository":{"id":690412871,"name":"ledger","full_name":"ashgrove/ledger","private":true,"owner":{"name":"ashgrove","login":"ashgrove","id":90417265,"type":"Organization"},"html_url":"https://github.com/ashgrove/ledger","default_branch":"main","pushed_at":1768465800},"pusher":{"name":"mira-oduya","email":"mira@ashgrove.example"},"sender":{"login":"mira-oduya","id":18772034,"type":"User","site_admin":false},"created":false,"deleted":false,"forced":false,"compare":"https://github.com/ashgrove/ledger/compare/6113728f27ae...59b20b8d5c6f","commits":[{"id":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","tree_id":"f9d2a07e9488b91af2641b26b9407fe22a451433","distinct":true,"message":"Round half to even in invoice totals","timestamp":"2026-01-15T09:30:00+01:00","author":{"name":"Mira Oduya","email":"mira@ashgrove.example","username":"mira-oduya"},"added":[],"removed":[],"modified":["src/totals.rs"]}]}"#;

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{block, post},
        *,
    };

    const BODY: &[u8] = br#"{"zen":"Keep it logically awesome."}"#;
    const SECRET: &str = "quiet-harbour-17";
    /// From Python's `hmac`.
    const HEX: &str = "1cd7a4b316ef96f8ac0078fe1244c3369e147b2393c34b92dd673641b0a1ff98";
    const SHA1: &str = "0bfd5caba971f32efc55e15a1212329c323c33fb";

    fn verify(lines: &[(&str, &str)]) -> Result<Verified, Refusal> {
        let secrets = [Secret::new("another"), Secret::new(SECRET)];
        PROVIDER.verifier(&Map::new(), &secrets).expect("compiles").verify(&post(&block(lines), BODY), 0)
    }

    #[test]
    fn holds_and_names_the_secret() {
        let signature = format!("sha256={HEX}");
        assert_eq!(verify(&[("X-Hub-Signature-256", &signature)]), Ok(Verified { secret_index: 1 }));
        let upper = format!("sha256={}", HEX.to_uppercase());
        assert_eq!(verify(&[("X-Hub-Signature-256", &upper)]), Ok(Verified { secret_index: 1 }));
    }

    #[test]
    fn refuses_what_is_not_exactly_that() {
        let good = format!("sha256={HEX}");
        let sha1 = format!("sha1={SHA1}");
        assert!(matches!(verify(&[]), Err(Refusal::MissingSignature(_))));
        assert!(matches!(verify(&[("X-Hub-Signature-256", "")]), Err(Refusal::MissingSignature(_))));
        assert!(matches!(verify(&[("X-Hub-Signature", &sha1)]), Err(Refusal::MissingSignature(_))));
        let twice = [("X-Hub-Signature-256", good.as_str()), ("x-hub-signature-256", &good)];
        assert!(matches!(verify(&twice), Err(Refusal::Repeated(_))));
        for value in [HEX, &sha1, &good[..good.len() - 2], &format!("{good}00"), &format!("SHA256={HEX}"), "sha256="] {
            assert!(matches!(verify(&[("X-Hub-Signature-256", value)]), Err(Refusal::Malformed(_))), "{value}");
        }
        let other = format!("sha256={}", "0".repeat(64));
        assert_eq!(verify(&[("X-Hub-Signature-256", &other)]), Err(Refusal::Mismatch));
    }

    #[test]
    fn identity_comes_from_the_headers() {
        let lines = [("X-GitHub-Event", "pull_request"), ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")];
        let identity = PROVIDER.identify(&Map::new(), &payload::tests::event(&lines, b"payload=%7B%7D"));
        assert_eq!(identity.event_type.as_deref(), Some("pull_request"));
        assert_eq!(identity.provider_id.as_deref(), Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"));
    }
}
