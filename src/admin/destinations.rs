//! Destinations: `/api/v1/destinations`. The signing secret is shown once, and only when hookmill made it; credentials
//! are never shown.
//!
//! What requests ask for is read in [`draft`], [`limits`] and [`credentials`]; [`test`] makes an attempt.

mod credentials;
pub(super) mod doc;
mod draft;
mod limits;
pub(super) mod test;

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{
    domain::{
        activity::ActivityResult,
        config::{Configuration, Destination, DestinationStatus},
        ids::DestinationId,
        secret::Secret,
        shaping::DestinationLimits,
    },
    ports::sealer::Owner,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::destinations::{new_signing_secret, validate_signing_secret};

use self::{credentials::tell_the_same, draft::Patch};
pub(super) use self::{
    credentials::{needed as stored_credentials, stay as credentials_stay},
    draft::Draft,
    limits::rate,
};
use super::{
    Api,
    access::{Author, State},
    change::Changeable,
    fields::secret,
    form::Form,
    json::{Json, OptionalJson},
    merge::Merge,
    paging::{Params, Search},
    problem::Problem,
    redact,
    resource::{Configured, IfMatch, Managed, Segments, reply, time},
    tools::Tools,
    webhooks::shown_once,
};

const STATUSES: [(&str, DestinationStatus); 2] =
    [("active", DestinationStatus::Active), ("paused", DestinationStatus::Paused)];
const SETTINGS_BYTES_MAX: usize = 16 * 1024;
const SETTINGS_DEPTH_MAX: usize = 8;
const SECRET_BYTES_MAX: usize = 128;
/// Members of replies that a request cannot set.
pub(super) const READ_ONLY: [&str; 7] =
    ["id", "status_reason", "credentials_problem", "signing_fingerprint", "version", "created_at", "updated_at"];

/// A destination as replies show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Destination)]
pub(super) struct View {
    id: u32,
    name: String,
    r#type: String,
    status: DestinationStatus,
    status_reason: Option<String>,
    #[schema(value_type = Object)]
    settings: Map<String, Value>,
    /// The names of what is stored, each with what stands in place of a secret.
    #[schema(value_type = Option<Object>)]
    credentials: Option<Map<String, Value>>,
    /// Why it does not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials_problem: Option<String>,
    limits: DestinationLimits,
    signing_fingerprint: String,
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A destination with the secret that was made for it: this once.
#[derive(Serialize, ToSchema)]
#[schema(as = DestinationWithSecret)]
pub(super) struct Shown {
    #[serde(flatten)]
    view: View,
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<String>,
}

impl Shown {
    /// With the secret, where hookmill made it.
    pub(super) fn new(destination: &Destination, made_secret: Option<&Secret>, tools: &Tools) -> Result<Self, Problem> {
        Ok(Self { view: destination.view(tools), signing_secret: shown_once(made_secret)? })
    }
}

/// What a list may be narrowed by.
#[derive(Default, PartialEq)]
pub(super) struct Filter {
    search: Search,
    status: Option<DestinationStatus>,
    kind: Option<String>,
}

impl Managed for Destination {
    const COLLECTION: &'static str = "destinations";
    const READ_ONLY: &'static [&'static str] = &READ_ONLY;
    type View = View;
    type Filter = Filter;

    fn filter(params: &mut Params) -> Result<Self::Filter, Problem> {
        Ok(Filter {
            search: params.search()?,
            status: params.one_of("status", &STATUSES)?,
            kind: params.line("type")?.map(|kind| kind.to_lowercase()),
        })
    }

    fn passes(&self, filter: &Self::Filter, _tools: &Tools) -> bool {
        filter.status.is_none_or(|status| self.status == status)
            && filter.kind.as_ref().is_none_or(|kind| self.kind == *kind)
            && filter.search.finds(&self.name, None)
    }

    fn view(&self, tools: &Tools) -> View {
        let (credentials, credentials_problem) = match credentials::stored(self, tools) {
            Ok(stored) => (stored.as_ref().map(credentials::shown), None),
            Err(problem) => (None, Some(problem)),
        };
        View {
            id: self.id.0,
            name: self.name.clone(),
            r#type: self.kind.clone(),
            status: self.status,
            status_reason: self.status_reason.clone(),
            settings: redact::settings(&self.settings),
            credentials,
            credentials_problem,
            limits: self.limits,
            signing_fingerprint: self.signing_fingerprint.clone(),
            version: self.meta.version,
            created_at: time(self.meta.created_at_ms),
            updated_at: time(self.meta.updated_at_ms),
        }
    }
}

/// `POST /api/v1/destinations`
pub(super) async fn create(
    State(api): State<Api>,
    Author(author): Author,
    Json(body): Json,
) -> Result<Response, Problem> {
    let draft = Draft::read(body, &api.tools)?;
    let id = DestinationId(api.reserve::<Destination>());
    let (destination, made_secret) = draft.into_destination(id, &api.tools);
    let made = api.create(&author, destination).await?;
    let shown = Shown::new(&made, made_secret.as_ref(), &api.tools)?;
    Ok(reply(StatusCode::CREATED, &made, &shown))
}

impl Changeable for Destination {
    type Patch = Patch;

    fn read_patch(body: Value) -> Result<Patch, Problem> {
        Patch::read(body)
    }

    fn merge(&self, mut patch: Merge, tools: &Tools) -> Result<Merge, Problem> {
        patch = patch.member("settings", &self.settings)?;
        for (name, limit) in [
            ("rate", json_of(&self.limits.rate)?),
            ("concurrency", json_of(&self.limits.concurrency)?),
            ("retry_budget", json_of(&self.limits.retry_budget)?),
            ("breaker", json_of(&self.limits.breaker)?),
        ] {
            patch = patch.within("limits", name, &limit)?;
        }
        // For other servers they must be given whole.
        let kind = patch.text("type").unwrap_or(&self.kind).to_lowercase();
        let is_same = patch.object("settings").is_none_or(|next| tell_the_same(self, &kind, next));
        let stands = self.credentials.as_ref().filter(|_| is_same);
        patch.credentials(Owner::DestinationCredentials(self.id), stands, tools)
    }

    fn patched(&self, patch: &Patch, _: &Configuration, tools: &Tools) -> Result<Self, Problem> {
        patch.applied_to(self, tools)
    }
}

fn json_of(limit: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(limit).map_err(|error| Problem::internal(&error))
}

/// `POST /api/v1/destinations/{id}/rotate-secret`: deliveries are signed with the new secret from now on.
pub(super) async fn rotate_secret(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    condition: IfMatch,
    OptionalJson(body): OptionalJson,
) -> Result<Response, Problem> {
    let (secret, made_secret) = rotation(body, &api.tools)?;
    let made = api
        .update(&author, id, &condition, |current: &Destination, _| {
            let mut next = current.clone();
            sign_with(&mut next, &secret, &api.tools);
            Ok(next)
        })
        .await?;
    let subject = api.subject(Destination::key(id));
    api.note(author, "destination.secret_rotated", subject, ActivityResult::Ok, String::new()).await;
    let shown = Shown::new(&made, made_secret.as_ref(), &api.tools)?;
    Ok(reply(StatusCode::OK, &made, &shown))
}

/// The secret to sign with, and the same to be shown where it was made here.
fn rotation(body: Value, tools: &Tools) -> Result<(Secret, Option<Secret>), Problem> {
    let mut form = Form::new(body)?;
    let given = form.optional(&["signing_secret"], signing_secret);
    let given = form.finish(|| Some(given))?;
    Ok(given_or_made(given, tools))
}

fn given_or_made(given: Option<Secret>, tools: &Tools) -> (Secret, Option<Secret>) {
    if let Some(secret) = given {
        return (secret, None);
    }
    let made = new_signing_secret(&tools.secrets.random());
    (made.clone(), Some(made))
}

fn sign_with(destination: &mut Destination, secret: &Secret, tools: &Tools) {
    destination.signing_secret = tools.sealer.seal(Owner::SigningSecret(destination.id), secret);
    destination.signing_fingerprint = tools.secrets.fingerprint(secret);
}

/// A key as Standard Webhooks writes it.
fn signing_secret(value: Value) -> Result<Secret, String> {
    let secret = secret(1..=SECRET_BYTES_MAX)(value)?;
    match validate_signing_secret(&secret) {
        Ok(()) => Ok(secret),
        Err(error) => Err(format!("{}; leave it out to have one made", error.problem)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::{super::testing::tools, *};

    /// 24 bytes, `planted-secret-4711-4711`.
    const PLANTED: &str = "whsec_cGxhbnRlZC1zZWNyZXQtNDcxMS00NzEx";

    fn draft(body: Value) -> Result<(Destination, Option<Secret>), Problem> {
        let tools = tools();
        Draft::read(body, &tools).map(|draft| draft.into_destination(DestinationId(5), &tools))
    }

    fn with(name: &str, value: Value) -> Value {
        let mut body = json!({"name": "ledger", "settings": {"url": "https://ledger.example/hooks"}});
        body[name] = value;
        body
    }

    fn pointers<T>(refused: Result<T, Problem>) -> Vec<String> {
        refused.err().expect("it must be refused").faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn a_made_secret_is_shown_once_and_a_given_one_never() {
        let (made, shown) = draft(with("name", json!("ledger"))).expect("it is right");
        assert_eq!((made.kind.as_str(), made.status), ("http", DestinationStatus::Active));
        let shown = shown.expect("it was made here");
        let text = shown.expose_str().expect("it is text").to_owned();
        assert!(signing_secret(json!(text)).is_ok());
        let view = serde_json::to_string(&made.view(&tools())).expect("JSON");
        assert!(!view.contains(&text) && !format!("{made:?}").contains(&text));

        let (made, shown) = draft(with("signing_secret", json!(PLANTED))).expect("it is in form");
        assert_eq!(shown, None);
        let view = serde_json::to_string(&made.view(&tools())).expect("JSON");
        assert!(!view.contains(PLANTED) && !format!("{made:?}").contains(PLANTED));
        let opened = tools().sealer.open(Owner::SigningSecret(DestinationId(5)), &made.signing_secret);
        assert_eq!(opened, Ok(Secret::new(PLANTED)));
    }

    #[test]
    fn every_wrong_member_is_named() {
        for (name, value, pointer) in [
            ("name", json!(" "), "/name"),
            ("type", json!("smtp"), "/type"),
            ("status", json!("off"), "/status"),
            ("settings", json!({"url": "ftp://x"}), "/settings/url"),
            ("settings", json!(null), "/settings"),
            ("signing_secret", json!("whsec_short"), "/signing_secret"),
            ("signing_secret", json!("cGxhbnRlZC1zZWNyZXQtNDcxMS00NzEx"), "/signing_secret"),
            ("signing_secret", json!(null), "/signing_secret"),
            ("url", json!("https://x"), "/url"),
        ] {
            let refused = draft(with(name, value.clone()));
            assert!(!format!("{:?}", refused.as_ref().err()).contains("cGxhbnRl"));
            assert_eq!(pointers(refused), [pointer], "{name}: {value}");
        }
        assert_eq!(pointers(draft(json!({}))), ["/name"]);
        assert_eq!(pointers(draft(json!({"name": "ledger"}))), ["/settings/url"], "what the type needs is named");
    }

    #[test]
    fn an_operator_s_choice_ends_hookmill_s_reason() {
        let (mut current, _) = draft(with("name", json!("ledger"))).expect("it is right");
        current.status = DestinationStatus::Paused;
        current.status_reason = Some("answered 410".to_owned());
        let patched = |body| Patch::read(body).and_then(|patch| patch.applied_to(&current, &tools()));
        assert_eq!(patched(json!({})).as_ref(), Ok(&current));
        assert_eq!(patched(json!({"status": "paused"})).as_ref(), Ok(&current));
        let next = patched(json!({"status": "ACTIVE"})).expect("it is right");
        assert_eq!((next.status, next.status_reason), (DestinationStatus::Active, None));
        assert_eq!(pointers(patched(json!({"type": "smtp"}))), ["/settings"]);
        assert_eq!(pointers(patched(json!({"type": "smtp", "settings": {}}))), ["/type"]);
        assert_eq!(pointers(patched(json!({"settings": {"url": "x"}}))), ["/settings/url"]);
        assert_eq!(pointers(patched(json!({"signing_secret": PLANTED}))), ["/signing_secret"]);
        let sent_back = json!({"settings": {"url": "https://x", "headers": {"authorization": "***"}}});
        assert_eq!(pointers(patched(sent_back)), ["/settings"]);
    }

    #[test]
    fn credentials_are_sealed_for_their_destination_and_shown_by_name() {
        let (made, _) = draft(with("credentials", json!({"token": "planted-token"}))).expect("it is right");
        let sealed = made.credentials.clone().expect("they are stored");
        let opened = tools().sealer.open(Owner::DestinationCredentials(DestinationId(5)), &sealed);
        assert_eq!(opened, Ok(Secret::new(r#"{"token":"planted-token"}"#)));
        let view = serde_json::to_value(made.view(&tools())).expect("JSON");
        assert_eq!(view["credentials"], json!({"token": "***"}));

        let patched = |body| Patch::read(body).and_then(|patch| patch.applied_to(&made, &tools()));
        assert_eq!(patched(json!({"name": "b"})).expect("it is right").credentials, made.credentials);
        assert_eq!(patched(json!({"credentials": null})).expect("it is right").credentials, None);
        assert_eq!(pointers(patched(json!({"credentials": {"tokn": "x"}}))), ["/credentials/tokn"]);
        assert_eq!(pointers(patched(json!({"credentials": {"token": "***"}}))), ["/credentials"]);
        let settings = json!({"settings": {"url": "https://ledger.example/v2?a=b"}});
        assert_eq!(patched(settings).expect("the stored ones go with it").credentials, made.credentials);
        for settings in [
            json!({"url": "https://other.example/hooks"}),
            json!({"url": "https://ledger.example:444/hooks"}),
            json!({"url": "http://ledger.example/hooks"}),
            json!({"url": "https://ledger.example/hooks", "proxy": "http://proxy.example:3128"}),
        ] {
            assert_eq!(pointers(patched(json!({"settings": settings}))), ["/credentials"], "{settings}");
        }
        for credentials in [json!({"token": "another"}), json!(null)] {
            let elsewhere = json!({"settings": {"url": "https://other.example"}, "credentials": credentials});
            assert!(patched(elsewhere).is_ok(), "{credentials}");
        }

        let mut moved = made.clone();
        moved.id = DestinationId(6);
        let view = serde_json::to_value(moved.view(&tools())).expect("JSON");
        assert!(view["credentials"].is_null() && view["credentials_problem"].is_string(), "{view}");
        let settings = Patch::read(json!({"settings": {"url": "https://x"}})).expect("it is in form");
        assert_eq!(pointers(settings.applied_to(&moved, &tools())), ["/credentials"]);
    }

    #[test]
    fn limits_are_part_of_a_destination() {
        let (made, _) = draft(with("limits", json!({"rate": {"per_second": 7}}))).expect("it is right");
        let view = serde_json::to_value(made.view(&tools())).expect("JSON");
        assert_eq!(view["limits"]["rate"], json!({"per_second": 7, "burst": null}));
        let next = Patch::read(json!({"limits": null})).and_then(|patch| patch.applied_to(&made, &tools()));
        assert_eq!(next.expect("it is right").limits, DestinationLimits::default());
        assert_eq!(pointers(draft(with("limits", json!({"rate": 7})))), ["/limits/rate"]);
    }

    #[test]
    fn a_rotation_signs_with_another_key() {
        let (mut current, _) = draft(with("signing_secret", json!(PLANTED))).expect("it is right");
        let before = current.clone();
        let (secret, shown) = rotation(json!({}), &tools()).expect("nothing is needed");
        assert_eq!(shown.as_ref(), Some(&secret));
        sign_with(&mut current, &secret, &tools());
        assert_ne!(current.signing_secret, before.signing_secret);
        assert_ne!(current.signing_fingerprint, before.signing_fingerprint);
        let (given, shown) = rotation(json!({"signing_secret": PLANTED}), &tools()).expect("it is in form");
        assert_eq!((given, shown), (Secret::new(PLANTED), None));
    }
}
