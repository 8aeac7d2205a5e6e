//! Integrations: `/api/v1/integrations`. Credentials go in and never come out.

pub(super) mod doc;
mod view;

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{
    configuration::ConfigError,
    domain::{
        config::{Configuration, Environment, Integration, IntegrationStatus, IntegrationType, Meta},
        ids::IntegrationId,
        secret::Secret,
    },
    ports::sealer::Owner,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    Api,
    access::State,
    change::Changeable,
    comment,
    fields::{kind, line, object, one_of, prose, string},
    form::{Change, Form},
    merge::Merge,
    paging::{Params, Search},
    problem::{Code, Problem},
    redact,
    resource::{Configured, IfMatch, Managed, Segments, reply},
    tools::Tools,
};

pub(super) use self::view::View;

/// Names of the types, short ones too.
const TYPES: [(&str, IntegrationType); 11] = [
    ("payment_gateway", IntegrationType::PaymentGateway),
    ("sms_provider", IntegrationType::SmsProvider),
    ("email_provider", IntegrationType::EmailProvider),
    ("analytics", IntegrationType::Analytics),
    ("crm", IntegrationType::Crm),
    ("monitoring", IntegrationType::Monitoring),
    ("authentication", IntegrationType::Authentication),
    ("storage", IntegrationType::Storage),
    ("custom", IntegrationType::Custom),
    ("sms", IntegrationType::SmsProvider),
    ("email", IntegrationType::EmailProvider),
];
const STATUSES: [(&str, IntegrationStatus); 4] = [
    ("active", IntegrationStatus::Active),
    ("inactive", IntegrationStatus::Inactive),
    ("pending", IntegrationStatus::Pending),
    ("failed", IntegrationStatus::Failed),
];
/// Those that an operator sets; hookmill finds out the others.
const STATUSES_TO_SET: [(&str, IntegrationStatus); 2] =
    [("active", IntegrationStatus::Active), ("inactive", IntegrationStatus::Inactive)];
/// When a change takes force: `true` once its connection test has passed.
const ACTIVATE: [(&str, bool); 2] = [("now", false), ("after_test", true)];
/// Name, characters.
pub(super) const NAME_CHARS_MAX: usize = 255;
/// Description, characters.
pub(super) const DESCRIPTION_CHARS_MAX: usize = 1_000;
/// Configuration or credentials as JSON.
const OBJECT_BYTES_MAX: usize = 16 * 1024;
const OBJECT_DEPTH_MAX: usize = 32;
pub(super) const READ_ONLY: [&str; 10] = [
    "id",
    "version",
    "created_at",
    "updated_at",
    "last_health_check",
    "health_status",
    "last_connection_test",
    "connection_test",
    "pending_version",
    "latest_version",
];

/// What a list may be narrowed by.
#[derive(Default, PartialEq)]
pub(super) struct Filter {
    search: Search,
    kind: Option<IntegrationType>,
    status: Option<IntegrationStatus>,
    environment: Option<Environment>,
}

impl Managed for Integration {
    const COLLECTION: &'static str = "integrations";
    const READ_ONLY: &'static [&'static str] = &READ_ONLY;
    type View = View;
    type Filter = Filter;

    fn filter(params: &mut Params) -> Result<Filter, Problem> {
        Ok(Filter {
            search: params.search()?,
            kind: params.one_of("type", &TYPES)?,
            status: params.one_of("status", &STATUSES)?,
            environment: params.one_of("environment", &Environment::NAMES)?,
        })
    }

    fn passes(&self, filter: &Filter, tools: &Tools) -> bool {
        filter.kind.is_none_or(|kind| self.kind == kind)
            && filter.search.finds(&self.name, self.description.as_deref())
            && filter.status.is_none_or(|status| tools.connections.status(self) == status)
            && filter.environment.is_none_or(|environment| self.environment == environment)
    }

    fn view(&self, tools: &Tools) -> View {
        View::of(self, tools)
    }

    fn past_view(&self, tools: &Tools) -> View {
        View::configured(self, tools)
    }
}

impl Changeable for Integration {
    type Patch = Patch;

    fn read_patch(body: Value) -> Result<Patch, Problem> {
        Patch::read(body)
    }

    fn merge(&self, patch: Merge, tools: &Tools) -> Result<Merge, Problem> {
        let patch = patch.member("configuration", &self.configuration)?;
        patch.credentials(Owner::Credentials(self.id), self.credentials.as_ref(), tools)
    }

    fn patched(&self, patch: &Patch, _: &Configuration, tools: &Tools) -> Result<Self, Problem> {
        patch.applied_to(self, tools)
    }

    /// With `activate: after_test` it is 202, and nothing is changed until the connection test of what is wanted has passed.
    async fn before(
        api: &Api,
        author: &str,
        id: u32,
        condition: &IfMatch,
        patch: &Patch,
    ) -> Result<Option<Response>, Problem> {
        if !patch.after_test {
            return Ok(None);
        }
        hold(api, author, id, condition, patch).await.map(Some)
    }
}

async fn hold(api: &Api, author: &str, id: u32, condition: &IfMatch, patch: &Patch) -> Result<Response, Problem> {
    let current = api.find::<Integration>(id)?;
    condition.check(Integration::key(id), current.meta.version)?;
    let wanted = patch.applied_to(&current, &api.tools)?;
    if wanted == current {
        return Ok(reply(StatusCode::OK, &current, &current.view(&api.tools)));
    }
    held(api, author, &current, wanted).await?;
    Ok(reply(StatusCode::ACCEPTED, &current, &current.view(&api.tools)))
}

/// Keeps a change of `current` until its connection test has passed.
pub(super) async fn held(api: &Api, author: &str, current: &Integration, wanted: Integration) -> Result<(), Problem> {
    api.must_cover(&wanted)?;
    let kept = api.tools.connections.hold(comment::origin(author), current, wanted).await;
    kept.map_err(|cause| {
        tracing::error!(cause, "a change that waits for its test could not be stored");
        Problem::new(Code::Unavailable, "the change cannot be stored now; the log has the cause")
    })
}

/// An integration with what one of all does not tell.
#[derive(Serialize, ToSchema)]
#[schema(as = IntegrationDetail)]
struct Detail {
    #[serde(flatten)]
    view: View,
    /// The newest of its versions, which also what belongs to it makes.
    latest_version: u64,
}

/// `GET /api/v1/integrations/{id}`
pub(super) async fn one(State(api): State<Api>, Segments(id): Segments<u32>) -> Result<Response, Problem> {
    let found = api.find::<Integration>(id)?;
    let newest = api.tree.ports().config.versions(found.id, None, 1).await.map_err(ConfigError::from)?;
    let latest_version = newest.first().map_or(found.meta.version, |version| version.number);
    Ok(reply(StatusCode::OK, &found, &Detail { view: found.view(&api.tools), latest_version }))
}

/// A new integration as asked for.
pub(super) struct Draft {
    name: String,
    kind: IntegrationType,
    provider: String,
    description: Option<String>,
    environment: Environment,
    configuration: Map<String, Value>,
    credentials: Option<Secret>,
    /// It is `inactive` until its connection test has passed.
    pub(super) after_test: bool,
}

impl Draft {
    pub(super) fn read(body: Value, tools: &Tools) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        form.read_only(&READ_ONLY);
        form.read_only(&["status"]);
        let name = form.required(&["name"], line(1..=NAME_CHARS_MAX));
        let kind = form.required(&["type"], one_of(&TYPES));
        let environment = form.required(&["environment"], one_of(&Environment::NAMES));
        let description = form.clearable(&["description"], prose(DESCRIPTION_CHARS_MAX));
        let provider = form.optional(&["provider"], string);
        let configuration = configuration(&mut form).into_option().unwrap_or_default();
        let credentials = form.clearable(&["credentials"], credentials).into_option();
        let after_test = form.optional(&["activate"], one_of(&ACTIVATE)).unwrap_or(false);
        let provider = chosen_provider(&mut form, provider, &configuration, tools);
        if let Err(unknown) = tools.provider(&provider) {
            form.fault("provider", unknown);
        }
        form.finish(|| {
            Some(Self {
                name: name?,
                kind: kind?,
                provider,
                description: description.into_option(),
                environment: environment?,
                configuration,
                credentials,
                after_test,
            })
        })
    }

    pub(super) fn into_integration(self, id: IntegrationId, tools: &Tools) -> Integration {
        Integration {
            id,
            name: self.name,
            kind: self.kind,
            provider: self.provider,
            description: self.description,
            environment: self.environment,
            status: if self.after_test { IntegrationStatus::Inactive } else { IntegrationStatus::Pending },
            configuration: self.configuration,
            credentials: self.credentials.map(|secret| tools.sealer.seal(Owner::Credentials(id), &secret)),
            meta: Meta::default(),
        }
    }
}

/// The provider may stand beside the configuration or, as in the original, within it. Beside one, the configuration may
/// name a third party that there is no scheme for, such as `twilio`.
fn chosen_provider(
    form: &mut Form,
    beside: Option<String>,
    configuration: &Map<String, Value>,
    tools: &Tools,
) -> String {
    let within = match configuration.get("provider") {
        None => None,
        Some(Value::String(name)) => Some(name.clone()),
        Some(other) => {
            form.fault("configuration", format!("has a `provider` that must be a string; it is {}", kind(other)));
            None
        }
    };
    if let (Some(beside), Some(within)) = (&beside, &within)
        && beside != within
        && tools.provider(within).is_ok()
    {
        form.fault("provider", "and `configuration.provider` differ; give one of them");
    }
    beside.or(within).unwrap_or_else(|| crate::providers::DEFAULT.to_owned())
}

/// Configuration is shown to everybody who may read, so a secret in it is refused rather than stored in clear.
fn configuration(form: &mut Form) -> Change<Map<String, Value>> {
    form.clearable(&["configuration"], |value| {
        let members = object(OBJECT_BYTES_MAX, OBJECT_DEPTH_MAX)(value)?;
        match redact::secret_within(&members) {
            None => Ok(members),
            Some(place) => Err(format!(
                "holds `{}`, which looks like a secret; put it into `credentials`, or into the `secret` of a webhook",
                super::json::quoted(&place)
            )),
        }
    })
}

/// Credentials are kept as their JSON text, sealed.
fn credentials(value: Value) -> Result<Secret, String> {
    let members = object(OBJECT_BYTES_MAX, OBJECT_DEPTH_MAX)(value)?;
    if members.is_empty() {
        return Err("must not be empty; leave it out".to_owned());
    }
    serde_json::to_vec(&members).map(Secret::new).map_err(|_| "cannot be kept".to_owned())
}

/// Refuses another type or provider than the integration has.
pub(super) fn check_kept(current: &Integration, kind: IntegrationType, provider: &str) -> Result<(), Problem> {
    if kind != current.kind {
        return Err(Problem::member("/type", "cannot be changed; create another integration"));
    }
    if provider != current.provider {
        return Err(Problem::member("/provider", "cannot be changed; create another integration"));
    }
    Ok(())
}

/// A state that an operator may set.
pub(super) fn status_to_set(value: Option<Value>) -> Result<Option<IntegrationStatus>, Problem> {
    let read = |value| one_of(&STATUSES_TO_SET)(value).map_err(|detail| Problem::member("/status", detail));
    value.map(read).transpose()
}

/// An update as asked for.
pub(super) struct Patch {
    name: Option<String>,
    kind: Option<IntegrationType>,
    provider: Option<String>,
    description: Change<String>,
    environment: Option<Environment>,
    status: Option<IntegrationStatus>,
    configuration: Change<Map<String, Value>>,
    credentials: Change<Secret>,
    after_test: bool,
}

impl Patch {
    fn read(body: Value) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        form.read_only(&READ_ONLY);
        let patch = Self {
            name: form.optional(&["name"], line(1..=NAME_CHARS_MAX)),
            kind: form.optional(&["type"], one_of(&TYPES)),
            provider: form.optional(&["provider"], string),
            description: form.clearable(&["description"], prose(DESCRIPTION_CHARS_MAX)),
            environment: form.optional(&["environment"], one_of(&Environment::NAMES)),
            status: form.optional(&["status"], one_of(&STATUSES_TO_SET)),
            configuration: configuration(&mut form),
            credentials: form.clearable(&["credentials"], credentials),
            after_test: form.optional(&["activate"], one_of(&ACTIVATE)).unwrap_or(false),
        };
        form.finish(|| Some(patch))
    }

    /// What shall stand. An integration keeps its type and provider: its endpoints' secrets have their form.
    fn applied_to(&self, current: &Integration, tools: &Tools) -> Result<Integration, Problem> {
        let mut next = current.clone();
        let provider = self.provider.as_ref().unwrap_or(&current.provider);
        check_kept(current, self.kind.unwrap_or(current.kind), provider)?;
        match &self.configuration {
            Change::Keep => {}
            Change::Clear => next.configuration = Map::new(),
            Change::Set(configuration) => {
                // One that there is no scheme for only says which third party it is.
                let names_another = |name: &str| name != current.provider && tools.provider(name).is_ok();
                if configuration.get("provider").is_some_and(|it| it.as_str().is_none_or(names_another)) {
                    let detail = format!("must stay `{}`, or be left out", current.provider);
                    return Err(Problem::member("/configuration/provider", detail));
                }
                next.configuration.clone_from(configuration);
            }
        }
        if let Some(name) = &self.name {
            next.name.clone_from(name);
        }
        next.environment = self.environment.unwrap_or(current.environment);
        next.status = self.status.unwrap_or(current.status);
        self.description.apply_to(&mut next.description);
        match &self.credentials {
            Change::Keep => {}
            Change::Clear => next.credentials = None,
            Change::Set(secret) => next.credentials = Some(tools.sealer.seal(Owner::Credentials(current.id), secret)),
        }
        Ok(next)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::{super::testing::tools, *};

    const PLANTED: &str = "planted-secret-4711";

    /// For the tests of what belongs to an integration.
    pub(in super::super) fn integration(id: u32, provider: &str) -> Integration {
        let tools = tools();
        let draft = Draft::read(json!({"name": "shop", "type": "custom", "environment": "production"}), &tools);
        let made = draft.expect("the draft is right").into_integration(IntegrationId(id), &tools);
        Integration { provider: provider.to_owned(), ..made }
    }

    fn draft(body: Value) -> Result<Integration, Problem> {
        let tools = tools();
        Draft::read(body, &tools).map(|draft| draft.into_integration(IntegrationId(3), &tools))
    }

    fn with(name: &str, value: Value) -> Value {
        let mut body = json!({"name": "shop", "type": "PAYMENT_GATEWAY", "environment": "production"});
        body[name] = value;
        body
    }

    fn pointers(refused: Result<Integration, Problem>) -> Vec<String> {
        refused.expect_err("it must be refused").faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn the_least_is_enough_and_both_spellings_count() {
        let made = draft(json!({"name": "shop", "type": "PAYMENT_GATEWAY", "environment": "PRODUCTION"}));
        let made = made.expect("all that is needed is there");
        assert_eq!((made.kind, made.status), (IntegrationType::PaymentGateway, IntegrationStatus::Pending));
        assert_eq!(made.provider, "generic_hmac");
        for (spelling, kind) in [("SMS", IntegrationType::SmsProvider), ("email", IntegrationType::EmailProvider)] {
            assert_eq!(draft(with("type", json!(spelling))).map(|made| made.kind), Ok(kind));
        }
        let within = draft(with("configuration", json!({"provider": "none"}))).expect("the provider is known");
        assert_eq!(within.provider, "none");
    }

    #[test]
    fn every_wrong_member_is_named() {
        for (name, value, pointer) in [
            ("name", json!(""), "/name"),
            ("name", json!("x".repeat(256)), "/name"),
            ("name", json!(7), "/name"),
            ("type", json!("payments"), "/type"),
            ("environment", json!("prod"), "/environment"),
            ("description", json!("x".repeat(1_001)), "/description"),
            ("provider", json!("strype"), "/provider"),
            ("status", json!("active"), "/status"),
            ("configuration", json!([]), "/configuration"),
            ("configuration", json!({"a": "x".repeat(16 * 1024)}), "/configuration"),
            ("configuration", json!({"webhook_secret": "x"}), "/configuration"),
            ("credentials", json!({}), "/credentials"),
            ("credentials", json!("x"), "/credentials"),
            ("nmae", json!("x"), "/nmae"),
        ] {
            assert_eq!(pointers(draft(with(name, value.clone()))), [pointer], "{name}: {value}");
        }
        assert_eq!(pointers(draft(json!({}))), ["/name", "/type", "/environment"]);
        let unknown = draft(with("provider", json!("generic_hmca"))).expect_err("no such provider");
        assert!(unknown.detail.contains("did you mean `generic_hmac`"), "{}", unknown.detail);
        let mut differing = with("provider", json!("none"));
        differing["configuration"] = json!({"provider": "generic_hmac"});
        let differing = draft(differing).expect_err("they differ");
        assert!(differing.detail.contains("`/provider`") && differing.detail.contains("`configuration.provider`"));
    }

    fn patched(current: &Integration, body: Value) -> Result<Integration, Problem> {
        Patch::read(body)?.applied_to(current, &tools())
    }

    #[test]
    fn an_update_leaves_alone_what_it_does_not_name() {
        let mut body = with("credentials", json!({"api_key": PLANTED}));
        body["description"] = json!("d");
        body["configuration"] = json!({"base_url": "https://x"});
        let current = draft(body).expect("it is right");
        assert_eq!(patched(&current, json!({})).as_ref(), Ok(&current));
        let same = json!({"type": "payment_gateway", "provider": "generic_hmac"});
        assert_eq!(patched(&current, same).as_ref(), Ok(&current));

        let next = patched(&current, json!({"name": "new", "status": "INACTIVE"})).expect("it is right");
        assert_eq!((next.name.as_str(), next.status), ("new", IntegrationStatus::Inactive));
        assert_eq!((&next.description, &next.credentials), (&current.description, &current.credentials));

        let cleared = json!({"description": null, "configuration": null, "credentials": null});
        let next = patched(&current, cleared).expect("these may be empty");
        assert_eq!((next.description, next.credentials, next.configuration.len()), (None, None, 0));
    }

    #[test]
    fn an_update_is_refused_with_its_member() {
        let current = integration(3, "generic_hmac");
        for (body, pointer) in [
            (json!({"name": null}), "/name"),
            (json!({"type": "crm"}), "/type"),
            (json!({"provider": "none"}), "/provider"),
            (json!({"configuration": {"provider": "none"}}), "/configuration/provider"),
            (json!({"status": "failed"}), "/status"),
            (json!({"id": 3}), "/id"),
        ] {
            assert_eq!(pointers(patched(&current, body.clone())), [pointer], "{body}");
        }
    }

    #[test]
    fn credentials_are_sealed_for_their_integration_and_never_shown() {
        let made = draft(with("credentials", json!({"api_key": PLANTED}))).expect("it is right");
        let tools = tools();
        let sealed = made.credentials.as_ref().expect("they were given");
        let opened = tools.sealer.open(Owner::Credentials(IntegrationId(3)), sealed).expect("the owner opens it");
        assert_eq!(opened.expose_str(), Some(r#"{"api_key":"planted-secret-4711"}"#));

        let shown = serde_json::to_value(made.view(&tools)).expect("a view is JSON");
        assert!(shown["credentials"]["fingerprint"].is_string());
        assert!(!shown.to_string().contains(PLANTED));
        assert!(!format!("{made:?}").contains(PLANTED));
        let refused = draft(with("credentials", json!({"a": PLANTED.repeat(2_000)}))).expect_err("it is too large");
        assert!(!format!("{refused:?}").contains(PLANTED));
        let refused = draft(with("configuration", json!({"api_key": PLANTED}))).expect_err("it is in the open");
        assert!(!format!("{refused:?}").contains(PLANTED));
        let moved = Integration { id: IntegrationId(4), ..made };
        let shown = serde_json::to_value(moved.view(&tools)).expect("a view is JSON");
        assert!(shown["credentials"]["fingerprint"].is_null() && shown["credentials"]["problem"].is_string());
    }

    #[test]
    fn a_view_has_the_contract_s_members() {
        let shown = serde_json::to_value(integration(3, "none").view(&tools())).expect("a view is JSON");
        let names: Vec<&str> = shown.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "configuration",
                "connection_test",
                "created_at",
                "credentials",
                "description",
                "environment",
                "health_status",
                "id",
                "last_connection_test",
                "last_health_check",
                "name",
                "pending_version",
                "provider",
                "status",
                "type",
                "updated_at",
                "version",
            ]
        );
        assert_eq!((&shown["type"], &shown["credentials"]), (&json!("custom"), &Value::Null));
    }
}
