//! Rotation of an endpoint's secret: `POST /api/v1/webhooks/{id}/rotate-secret`.

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{
    domain::{
        activity::ActivityResult,
        config::{Endpoint, Integration},
        secret::Secret,
    },
    ports::provider::Provider,
    snapshot::UNVERIFIED,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    super::{
        Api,
        access::{Author, State},
        fields::{number, secret},
        form::Form,
        json::OptionalJson,
        problem::{Code, Problem},
        resource::{Configured, IfMatch, Managed, Segments, reply},
        tools::Tools,
    },
    SECRET_BYTES_MAX, SECRET_BYTES_MIN, SecretView, check, integration_of, provider_of, sealed, shown_once,
};

/// Secrets that verify at once; more would mean that a rotation never ends.
const SECRETS_MAX: usize = 4;
/// How long a rotated secret goes on, where nothing is said: time to change it at the provider.
const GRACE_DEFAULT_S: u64 = 24 * 3600;
const GRACE_MAX_S: u64 = 30 * 24 * 3600;
/// The new secret; shown where hookmill made it.
#[derive(Serialize, ToSchema)]
#[schema(as = RotatedSecret)]
pub(super) struct Rotated {
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    secrets: Vec<SecretView>,
    version: u64,
}

/// `POST /api/v1/webhooks/{id}/rotate-secret`: the former secret goes on for `grace_s`, 24 hours unless given.
pub(in super::super) async fn rotate_secret(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    condition: IfMatch,
    OptionalJson(body): OptionalJson,
) -> Result<Response, Problem> {
    let mut rotation = Rotation::read(body)?;
    let snapshot = api.tree.config().current();
    let current = api.find::<Endpoint>(id)?;
    let provider = provider_of(integration_of(&snapshot.configuration, current.integration_id)?, &api.tools)?;
    let made_secret = rotation.settle(provider, &api.tools)?;
    let now_ms = api.tree.ports().clock.now_ms();
    let made = api
        .update(&author, id, &condition, |current: &Endpoint, _| {
            rotation.applied_to(current, provider, now_ms, &api.tools)
        })
        .await?;
    let subject = api.subject(Endpoint::key(id));
    api.note(author, "webhook_endpoint.secret_rotated", subject, ActivityResult::Ok, String::new()).await;
    let rotated = Rotated {
        secret: shown_once(made_secret.as_ref())?,
        secrets: made.view(&api.tools).secrets,
        version: made.meta.version,
    };
    Ok(reply(StatusCode::OK, &made, &rotated))
}

/// The endpoint with that secret; the former ones go on for the usual grace.
pub(in super::super) fn rotated(
    current: &Endpoint,
    integration: &Integration,
    secret: &Secret,
    now_ms: u64,
    tools: &Tools,
) -> Result<Endpoint, Problem> {
    let rotation = Rotation { secret: Some(secret.clone()), grace_s: GRACE_DEFAULT_S };
    rotation.applied_to(current, provider_of(integration, tools)?, now_ms, tools)
}

/// A rotation as asked for.
struct Rotation {
    secret: Option<Secret>,
    grace_s: u64,
}

impl Rotation {
    fn read(body: Value) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        let secret = form.optional(&["secret", "secret_key"], secret(SECRET_BYTES_MIN..=SECRET_BYTES_MAX));
        let grace_s = form.optional(&["grace_s"], number(0..=GRACE_MAX_S)).unwrap_or(GRACE_DEFAULT_S);
        form.finish(|| Some(Self { secret, grace_s }))
    }

    /// Makes a secret where none was given, and returns it to be shown.
    fn settle(&mut self, provider: &dyn Provider, tools: &Tools) -> Result<Option<Secret>, Problem> {
        if provider.name() == UNVERIFIED {
            return Err(Problem::new(Code::Conflict, "the integration's provider `none` has no secrets"));
        }
        if self.secret.is_some() {
            return Ok(None);
        }
        let made = provider.new_secret(&tools.secrets.random());
        self.secret = Some(made.clone());
        Ok(Some(made))
    }

    fn applied_to(
        &self,
        current: &Endpoint,
        provider: &dyn Provider,
        now_ms: u64,
        tools: &Tools,
    ) -> Result<Endpoint, Problem> {
        let Some(secret) = &self.secret else { return Err(Problem::internal(&"a rotation without a secret")) };
        let end_ms = now_ms + self.grace_s * 1_000;
        let mut next = current.clone();
        for former in &mut next.secrets {
            former.expires_at_ms = Some(former.expires_at_ms.map_or(end_ms, |at| at.min(end_ms)));
        }
        next.secrets.retain(|former| former.expires_at_ms.is_none_or(|at| at > now_ms));
        if next.secrets.len() >= SECRETS_MAX {
            let detail = format!("{SECRETS_MAX} secrets are active already; rotate with `grace_s` 0, or wait");
            return Err(Problem::new(Code::Conflict, detail));
        }
        next.secrets.insert(0, sealed(current.integration_id, secret, tools));
        check(&next, provider, std::slice::from_ref(secret), tools)?;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            super::{integrations::tests::integration, testing::tools},
            tests::{PLANTED, endpoint, pointers, with},
        },
        *,
    };

    fn rotated(current: &Endpoint, body: Value, now_ms: u64) -> Result<(Endpoint, Option<Secret>), Problem> {
        let integration = integration(1, "generic_hmac");
        let tools = tools();
        let provider = provider_of(&integration, &tools)?;
        let mut rotation = Rotation::read(body)?;
        let shown = rotation.settle(provider, &tools)?;
        rotation.applied_to(current, provider, now_ms, &tools).map(|next| (next, shown))
    }

    #[test]
    fn a_rotation_keeps_the_former_secret_for_its_grace() {
        let current = endpoint(with("secret", json!(PLANTED)));
        let (next, shown) = rotated(&current, json!({}), 1_000).expect("nothing stands against it");
        assert!(shown.is_some());
        let expiries: Vec<Option<u64>> = next.secrets.iter().map(|secret| secret.expires_at_ms).collect();
        assert_eq!(expiries, [None, Some(1_000 + 24 * 3_600_000)]);
        assert_eq!(next.secrets[1].sealed, current.secrets[0].sealed);

        // A later rotation with a shorter grace shortens the former ones too, never lengthens.
        let (next, _) = rotated(&next, json!({"grace_s": 60}), 2_000).expect("three are allowed");
        let expiries: Vec<Option<u64>> = next.secrets.iter().map(|secret| secret.expires_at_ms).collect();
        assert_eq!(expiries, [None, Some(62_000), Some(62_000)]);
        let (last, shown) = rotated(&next, json!({"grace_s": 0, "secret": PLANTED}), 3_000).expect("it is right");
        assert_eq!((last.secrets.len(), shown), (1, None));
        let (later, _) = rotated(&next, json!({}), 62_000).expect("the former ones have expired");
        assert_eq!(later.secrets.len(), 2);
    }

    #[test]
    fn secrets_do_not_pile_up() {
        let mut current = endpoint(with("secret", json!(PLANTED)));
        for _ in 1..SECRETS_MAX {
            current = rotated(&current, json!({}), 1_000).expect("there is room").0;
        }
        let refused = rotated(&current, json!({}), 1_000).expect_err("there is none left");
        assert!(refused.code == Code::Conflict && refused.detail.contains("grace_s"));
        assert!(rotated(&current, json!({"grace_s": 0}), 1_000).is_ok());
        assert_eq!(pointers(rotated(&current, json!({"grace_s": 2_592_001}), 1)), ["/grace_s"]);
        assert_eq!(pointers(rotated(&current, json!({"secret": "not-in-form"}), 90_000_000_000)), ["/secret"]);
    }
}
