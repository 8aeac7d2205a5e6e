//! Webhook endpoints: `/api/v1/webhooks`. A secret is shown once, and only when hookmill made it.
//! What is written has been compiled before: an endpoint that could not verify anything is refused, not stored.

pub(super) mod doc;
mod path;
mod rotation;
mod view;

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{
    domain::{
        config::{Configuration, Endpoint, EndpointSecret, Integration, Meta, ResourceKey},
        ids::{EndpointId, IntegrationId},
        secret::Secret,
        shaping::Rate,
    },
    ports::{
        provider::{Provider, SettingsError},
        sealer::Owner,
    },
    snapshot::{UNVERIFIED, effective_settings},
};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use self::path::{header_name, is_its_own, path};
pub(super) use self::rotation::{rotate_secret, rotated};
use super::{
    Api,
    access::{Author, State},
    change::Changeable,
    destinations::rate,
    fields::{boolean, line, number, object, prose, secret},
    form::{Change, Form},
    integrations::{DESCRIPTION_CHARS_MAX, NAME_CHARS_MAX},
    json::Json,
    merge::Merge,
    paging::{Params, Search},
    problem::{Code, Problem},
    redact,
    resource::{Configured, Managed, reply},
    tools::Tools,
};

use self::view::SecretView;
pub(super) use self::view::{Shown, View};

/// Where the ingress finds an endpoint's path.
const RECEIVE: &str = "/webhooks/receive";
const SECRET_BYTES_MIN: usize = 8;
const SECRET_BYTES_MAX: usize = 512;
const BODY_BYTES_MIN: u32 = 1024;
/// The largest body that an endpoint may ask for.
pub const BODY_BYTES_MAX: u32 = 64 << 20;
/// No provider sends an event again after so long; the state tells ages up to 99 days apart.
const DEDUP_WINDOW_S_MAX: u64 = 90 * 24 * 3_600;
const VERIFICATION_BYTES_MAX: usize = 16 * 1024;
const VERIFICATION_DEPTH_MAX: usize = 8;
/// Members of replies that a request cannot set.
pub(super) const READ_ONLY: [&str; 6] = ["id", "url_path", "secrets", "version", "created_at", "updated_at"];

/// What a list may be narrowed by.
#[derive(Default, PartialEq)]
pub(super) struct Filter {
    search: Search,
    integration: Option<u32>,
    active: Option<bool>,
}

impl Managed for Endpoint {
    const COLLECTION: &'static str = "webhooks";
    const READ_ONLY: &'static [&'static str] = &READ_ONLY;
    type View = View;
    type Filter = Filter;

    fn filter(params: &mut Params) -> Result<Filter, Problem> {
        Ok(Filter {
            search: params.search()?,
            integration: params.id("integration_id")?,
            active: params.flag(["active", "is_active"])?,
        })
    }

    fn passes(&self, filter: &Filter, _tools: &Tools) -> bool {
        filter.integration.is_none_or(|id| self.integration_id.0 == id)
            && filter.search.finds(&self.name, self.description.as_deref())
            && filter.active.is_none_or(|active| self.active == active)
    }

    fn view(&self, _tools: &Tools) -> View {
        View::of(self)
    }
}

/// `POST /api/v1/webhooks`
pub(super) async fn create(
    State(api): State<Api>,
    Author(author): Author,
    Json(body): Json,
) -> Result<Response, Problem> {
    let draft = Draft::read(body)?;
    api.must_see("/integration_id", Integration::key(draft.integration.0))?;
    let snapshot = api.tree.config().current();
    let integration = integration_of(&snapshot.configuration, draft.integration)?;
    let (mut endpoint, made_secret) = draft.into_endpoint(integration, &api.tools)?;
    endpoint.id = EndpointId(api.reserve::<Endpoint>());
    let made = api.create(&author, endpoint).await?;
    let shown = Shown::new(&made, made_secret.as_ref())?;
    Ok(reply(StatusCode::CREATED, &made, &shown))
}

impl Changeable for Endpoint {
    type Patch = Patch;

    fn read_patch(body: Value) -> Result<Patch, Problem> {
        Patch::read(body)
    }

    fn merge(&self, patch: Merge, _tools: &Tools) -> Result<Merge, Problem> {
        patch.member("verification", &self.verification)
    }

    /// A new `secret` replaces all former ones at once.
    fn patched(&self, patch: &Patch, configuration: &Configuration, tools: &Tools) -> Result<Self, Problem> {
        patch.applied_to(self, integration_of(configuration, self.integration_id)?, tools)
    }
}

/// The text of a secret that hookmill made.
pub(super) fn shown_once(secret: Option<&Secret>) -> Result<Option<String>, Problem> {
    match secret.map(Secret::expose_str) {
        None => Ok(None),
        Some(Some(text)) => Ok(Some(text.to_owned())),
        Some(None) => Err(Problem::internal(&"a secret that hookmill made is no text")),
    }
}

/// A new endpoint as asked for.
pub(super) struct Draft {
    integration: IntegrationId,
    name: String,
    description: Option<String>,
    path: Option<String>,
    secret: Option<Secret>,
    active: bool,
    verify_signature: bool,
    signature_header: Option<String>,
    verification: Map<String, Value>,
    body_bytes_max: Option<u32>,
    dedup_window_s: Option<u64>,
    rate_limit: Option<Rate>,
}

impl Draft {
    pub(super) fn read(body: Value) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        form.read_only(&READ_ONLY);
        let integration = form.required(&["integration_id"], number(1..=u32::MAX)).map(IntegrationId);
        let name = form.required(&["name"], line(1..=NAME_CHARS_MAX));
        let fields = Fields::read(&mut form);
        form.finish(|| {
            Some(Self {
                integration: integration?,
                name: name?,
                description: fields.description.into_option(),
                path: fields.path,
                secret: fields.secret,
                active: fields.active.unwrap_or(true),
                verify_signature: fields.verify_signature.unwrap_or(true),
                signature_header: fields.signature_header.into_option(),
                verification: fields.verification.into_option().unwrap_or_default(),
                body_bytes_max: fields.body_bytes_max.into_option(),
                dedup_window_s: fields.dedup_window_s.into_option(),
                rate_limit: fields.rate_limit.into_option(),
            })
        })
    }

    /// The secret that was asked for.
    pub(super) fn given_secret(&self) -> Option<Secret> {
        self.secret.clone()
    }

    /// The endpoint, still without its id, and the secret that was made for it.
    pub(super) fn into_endpoint(
        self,
        integration: &Integration,
        tools: &Tools,
    ) -> Result<(Endpoint, Option<Secret>), Problem> {
        let provider = provider_of(integration, tools)?;
        let given = self.secret.is_some();
        let takes_secret = provider.name() != UNVERIFIED;
        if given && !takes_secret {
            return Err(Problem::member("/secret", NO_SECRET_TAKEN));
        }
        let secret = match self.secret {
            None if takes_secret && self.verify_signature => Some(provider.new_secret(&tools.secrets.random())),
            given_or_none => given_or_none,
        };
        let signature_header = self.signature_header.filter(|header| !is_its_own(provider, header));
        let endpoint = Endpoint {
            id: EndpointId(0),
            integration_id: self.integration,
            name: self.name,
            description: self.description,
            path: self.path.unwrap_or_else(|| tools.new_path()),
            active: self.active,
            verify_signature: self.verify_signature,
            signature_header,
            verification: self.verification,
            secrets: secret.iter().map(|secret| sealed(self.integration, secret, tools)).collect(),
            body_bytes_max: self.body_bytes_max,
            dedup_window_s: self.dedup_window_s,
            rate_limit: self.rate_limit,
            meta: Meta::default(),
        };
        check(&endpoint, provider, secret.as_slice(), tools)?;
        Ok((endpoint, secret.filter(|_| !given)))
    }
}

const NO_SECRET_TAKEN: &str = "is not possible: the integration's provider `none` verifies nothing";

/// Members that a new endpoint and an update have in common.
struct Fields {
    description: Change<String>,
    path: Option<String>,
    secret: Option<Secret>,
    active: Option<bool>,
    verify_signature: Option<bool>,
    signature_header: Change<String>,
    verification: Change<Map<String, Value>>,
    body_bytes_max: Change<u32>,
    dedup_window_s: Change<u64>,
    rate_limit: Change<Rate>,
}

impl Fields {
    fn read(form: &mut Form) -> Self {
        let fields = Self {
            description: form.clearable(&["description"], prose(DESCRIPTION_CHARS_MAX)),
            path: form.optional(&["path"], path),
            secret: form.optional(&["secret", "secret_key"], secret(SECRET_BYTES_MIN..=SECRET_BYTES_MAX)),
            active: form.optional(&["active", "is_active"], boolean),
            verify_signature: form.optional(&["verify_signature"], boolean),
            signature_header: form.clearable(&["signature_header"], header_name),
            verification: form.clearable(&["verification"], object(VERIFICATION_BYTES_MAX, VERIFICATION_DEPTH_MAX)),
            body_bytes_max: form.clearable(&["body_bytes_max"], number(BODY_BYTES_MIN..=BODY_BYTES_MAX)),
            dedup_window_s: form.clearable(&["dedup_window_s"], number(0..=DEDUP_WINDOW_S_MAX)),
            rate_limit: form.clearable_nested("rate_limit", rate),
        };
        if let (Change::Set(header), Change::Set(verification)) = (&fields.signature_header, &fields.verification)
            && verification.get("header").is_some_and(|other| other != header.as_str())
        {
            form.fault("signature_header", "and `verification.header` differ; give one of them");
        }
        if matches!(&fields.verification, Change::Set(verification) if redact::is_redacted(verification)) {
            form.fault("verification", "holds `***`, which a reply shows in place of a secret; give the secret itself");
        }
        fields
    }
}

/// An update as asked for.
pub(super) struct Patch {
    integration: Option<u32>,
    name: Option<String>,
    fields: Fields,
}

impl Patch {
    fn read(body: Value) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        form.read_only(&READ_ONLY);
        let patch = Self {
            integration: form.optional(&["integration_id"], number(1..=u32::MAX)),
            name: form.optional(&["name"], line(1..=NAME_CHARS_MAX)),
            fields: Fields::read(&mut form),
        };
        form.finish(|| Some(patch))
    }

    fn applied_to(&self, current: &Endpoint, integration: &Integration, tools: &Tools) -> Result<Endpoint, Problem> {
        if self.integration.is_some_and(|id| id != current.integration_id.0) {
            return Err(Problem::member("/integration_id", "cannot be changed; create another webhook endpoint"));
        }
        let fields = &self.fields;
        let mut next = current.clone();
        if let Some(name) = &self.name {
            next.name.clone_from(name);
        }
        if let Some(path) = &fields.path {
            next.path.clone_from(path);
        }
        fields.description.apply_to(&mut next.description);
        fields.signature_header.apply_to(&mut next.signature_header);
        if let Ok(provider) = tools.provider(&integration.provider) {
            next.signature_header = next.signature_header.filter(|header| !is_its_own(provider, header));
        }
        fields.body_bytes_max.apply_to(&mut next.body_bytes_max);
        fields.dedup_window_s.apply_to(&mut next.dedup_window_s);
        fields.rate_limit.apply_to(&mut next.rate_limit);
        next.active = fields.active.unwrap_or(current.active);
        next.verify_signature = fields.verify_signature.unwrap_or(current.verify_signature);
        match &fields.verification {
            Change::Keep => {}
            Change::Clear => next.verification = Map::new(),
            Change::Set(verification) => next.verification.clone_from(verification),
        }
        if let Some(secret) = &fields.secret
            && !is_only_secret(current, secret, tools)
        {
            next.secrets = vec![sealed(current.integration_id, secret, tools)];
        }
        if verifies_alike(&next, current) {
            return Ok(next);
        }
        let provider = provider_of(integration, tools)?;
        if provider.name() == UNVERIFIED && fields.secret.is_some() {
            return Err(Problem::member("/secret", NO_SECRET_TAKEN));
        }
        if next.verify_signature && next.secrets.is_empty() && provider.name() != UNVERIFIED {
            let detail = "needs a secret: give `secret` too, or call `rotate-secret` first";
            return Err(Problem::member("/verify_signature", detail));
        }
        let secrets = opened(&next, tools)?;
        check(&next, provider, &secrets, tools)?;
        Ok(next)
    }
}

/// Whether nothing changed that a verifier is made from: a name can be changed though a key is missing.
fn verifies_alike(next: &Endpoint, current: &Endpoint) -> bool {
    next.verify_signature == current.verify_signature
        && next.signature_header == current.signature_header
        && next.verification == current.verification
        && next.secrets == current.secrets
}

/// Whether the given secret is what stands already: sent again, it is no change.
fn is_only_secret(current: &Endpoint, secret: &Secret, tools: &Tools) -> bool {
    let [one] = current.secrets.as_slice() else { return false };
    let opened = tools.sealer.open(Owner::EndpointSecret(current.integration_id), &one.sealed);
    one.expires_at_ms.is_none() && opened.is_ok_and(|opened| opened.expose().ct_eq(secret.expose()).into())
}

fn integration_of(configuration: &Configuration, id: IntegrationId) -> Result<&Integration, Problem> {
    configuration.integrations.get(&id).map(AsRef::as_ref).ok_or_else(|| {
        Problem::member("/integration_id", format!("names {}, which does not exist", ResourceKey::Integration(id)))
    })
}

fn provider_of(integration: &Integration, tools: &Tools) -> Result<&'static dyn Provider, Problem> {
    let unknown = |problem| {
        Problem::member("/integration_id", format!("names {}: {problem}", Integration::key(integration.id.0)))
    };
    tools.provider(&integration.provider).map_err(unknown)
}

fn sealed(integration: IntegrationId, secret: &Secret, tools: &Tools) -> EndpointSecret {
    EndpointSecret {
        sealed: tools.sealer.seal(Owner::EndpointSecret(integration), secret),
        fingerprint: tools.secrets.fingerprint(secret),
        expires_at_ms: None,
    }
}

fn opened(endpoint: &Endpoint, tools: &Tools) -> Result<Vec<Secret>, Problem> {
    let owner = Owner::EndpointSecret(endpoint.integration_id);
    let open = |secret: &EndpointSecret| tools.sealer.open(owner, &secret.sealed);
    endpoint.secrets.iter().map(open).collect::<Result<_, _>>().map_err(|error| {
        Problem::new(Code::Conflict, format!("its stored secret cannot be checked: {error}; give a new `secret`"))
    })
}

/// Makes the verifier and throws it away: what it refuses is not stored. Without a secret, one in the provider's
/// form stands in, so that the settings are checked all the same.
fn check(endpoint: &Endpoint, provider: &dyn Provider, secrets: &[Secret], tools: &Tools) -> Result<(), Problem> {
    let stand_in = if secrets.is_empty() && provider.name() != UNVERIFIED {
        Some(provider.new_secret(&tools.secrets.random()))
    } else {
        None
    };
    let secrets = stand_in.as_ref().map_or(secrets, std::slice::from_ref);
    match provider.verifier(&effective_settings(endpoint), secrets) {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(endpoint, error)),
    }
}

/// Names the member of the request that the provider's words are about.
fn refused(endpoint: &Endpoint, error: SettingsError) -> Problem {
    let field = error.field.strip_prefix("verification.").unwrap_or(&error.field);
    let pointer = match field {
        "header" if endpoint.signature_header.is_some() => "/signature_header".to_owned(),
        "verification" => "/verification".to_owned(),
        field if field.starts_with("secret") => "/secret".to_owned(),
        field => format!("/verification/{}", field.replace('.', "/")),
    };
    Problem::member(pointer, error.problem)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{integrations::tests::integration, testing::tools},
        *,
    };

    pub(super) const PLANTED: &str = "whsec_planted-secret-4711";

    fn configuration() -> Configuration {
        let integrations = [integration(1, "generic_hmac"), integration(2, "none"), integration(3, "gone")];
        let integrations = integrations.into_iter().map(|it| (it.id, it.into())).collect();
        Configuration { integrations, ..Configuration::default() }
    }

    fn draft(body: Value) -> Result<(Endpoint, Option<Secret>), Problem> {
        let draft = Draft::read(body)?;
        let configuration = configuration();
        let integration = integration_of(&configuration, draft.integration)?;
        draft.into_endpoint(integration, &tools())
    }

    pub(super) fn with(name: &str, value: Value) -> Value {
        let mut body = json!({"integration_id": 1, "name": "orders"});
        body[name] = value;
        body
    }

    pub(super) fn pointers<T>(refused: Result<T, Problem>) -> Vec<String> {
        refused.err().expect("it must be refused").faults.into_iter().map(|fault| fault.pointer).collect()
    }

    pub(super) fn endpoint(body: Value) -> Endpoint {
        draft(body).expect("it is right").0
    }

    #[test]
    fn the_least_is_enough_and_its_secret_is_shown_once() {
        let (made, shown) = draft(with("name", json!("orders"))).expect("all that is needed is there");
        assert!(made.active && made.verify_signature);
        assert_eq!(made.path.len(), 33, "{}", made.path);
        let shown = shown.expect("it was made here");
        let text = shown.expose_str().expect("it is text");
        assert!(text.starts_with("whsec_"));
        assert_eq!(made.secrets.len(), 1);
        assert!(!serde_json::to_string(&made.view(&tools())).expect("JSON").contains(text));
        assert!(!format!("{made:?}").contains(text));
    }

    #[test]
    fn a_given_secret_is_sealed_and_never_shown() {
        for name in ["secret", "secret_key"] {
            let (made, shown) = draft(with(name, json!(PLANTED))).expect("the secret is right");
            assert_eq!(shown, None);
            let view = serde_json::to_string(&made.view(&tools())).expect("JSON");
            assert!(!view.contains("planted") && !format!("{made:?}").contains("planted"));
            let opened = opened(&made, &tools()).expect("it was sealed for its integration");
            assert_eq!(opened, [Secret::new(PLANTED)]);
        }
        let mut differing = with("secret", json!(PLANTED));
        differing["secret_key"] = json!("whsec_planted-too");
        let refused = Draft::read(differing).err().expect("they differ");
        assert!(refused.detail.contains("`secret_key`") && !format!("{refused:?}").contains("planted"));
        let refused = draft(with("secret", json!("wrong-planted"))).expect_err("the provider wants another form");
        assert_eq!(refused.faults[0].pointer, "/secret");
        assert!(!format!("{refused:?}").contains("planted"));
    }

    #[test]
    fn every_wrong_member_is_named() {
        for (name, value, pointer) in [
            ("integration_id", json!(9), "/integration_id"),
            ("integration_id", json!(3), "/integration_id"),
            ("integration_id", json!("1"), "/integration_id"),
            ("name", json!(null), "/name"),
            ("path", json!("/a//b"), "/path"),
            ("path", json!(null), "/path"),
            ("secret", json!("short"), "/secret"),
            ("secret", json!("x".repeat(513)), "/secret"),
            ("active", json!(1), "/active"),
            ("signature_header", json!("X Signature"), "/signature_header"),
            ("verification", json!({"tolerance": 3}), "/verification/tolerance"),
            ("verification", json!([]), "/verification"),
            ("verification", json!({"token": "***"}), "/verification"),
            ("body_bytes_max", json!(1_023), "/body_bytes_max"),
            ("body_bytes_max", json!(67_108_865), "/body_bytes_max"),
            ("dedup_window_s", json!(-1), "/dedup_window_s"),
            ("rate_limit", json!(10), "/rate_limit"),
            ("rate_limit", json!({"per_second": 0}), "/rate_limit/per_second"),
            ("rate_limit", json!({"per_second": 1, "burst": 0}), "/rate_limit/burst"),
            ("rate_limit", json!({"per_second": 1, "per_minute": 60}), "/rate_limit/per_minute"),
            ("dedup_window_s", json!(7_776_001), "/dedup_window_s"),
            ("url_path", json!("/x"), "/url_path"),
            ("sercet", json!("whsec_12345678"), "/sercet"),
        ] {
            assert_eq!(pointers(draft(with(name, value.clone()))), [pointer], "{name}: {value}");
        }
        let mut differing = with("signature_header", json!("X-A"));
        differing["verification"] = json!({"header": "X-B"});
        assert_eq!(pointers(draft(differing)), ["/signature_header"]);
    }

    #[test]
    fn accepting_unsigned_requests_is_explicit_and_its_settings_are_still_checked() {
        let (made, shown) = draft(with("verify_signature", json!(false))).expect("it may be chosen");
        assert_eq!((made.secrets.len(), shown), (0, None));
        let mut body = with("verify_signature", json!(false));
        body["verification"] = json!({"x": 1});
        assert_eq!(pointers(draft(body)), ["/verification/x"]);
        let mut of_none = with("integration_id", json!(2));
        let (made, shown) = draft(of_none.clone()).expect("provider none needs no secret");
        assert_eq!((made.secrets.len(), shown), (0, None));
        of_none["secret"] = json!(PLANTED);
        assert_eq!(pointers(draft(of_none)), ["/secret"]);
    }

    fn patched(current: &Endpoint, body: Value) -> Result<Endpoint, Problem> {
        Patch::read(body)?.applied_to(current, &integration(1, "generic_hmac"), &tools())
    }

    #[test]
    fn an_update_leaves_alone_what_it_does_not_name() {
        let mut body = with("secret", json!(PLANTED));
        body["description"] = json!("d");
        body["signature_header"] = json!("X-Signature");
        let current = endpoint(body);
        assert_eq!(patched(&current, json!({})).as_ref(), Ok(&current));
        assert_eq!(patched(&current, json!({"secret": PLANTED, "integration_id": 1})).as_ref(), Ok(&current));
        let next = patched(&current, json!({"path": "new", "is_active": false})).expect("it is right");
        assert_eq!((next.path.as_str(), next.active), ("/new", false));
        assert_eq!((&next.secrets, &next.signature_header), (&current.secrets, &current.signature_header));
        let next = patched(&current, json!({"dedup_window_s": 0})).expect("it may be switched off");
        assert_eq!(next.dedup_window_s, Some(0));
        let next = patched(&next, json!({"dedup_window_s": null})).expect("it may be the provider's");
        assert_eq!(next.dedup_window_s, None);
        let next = patched(&next, json!({"rate_limit": {"per_second": 5}})).expect("it may be limited");
        assert_eq!(next.rate_limit, Some(Rate { per_second: 5, burst: None }));
        assert_eq!(patched(&next, json!({"name": "n"})).expect("a name").rate_limit, next.rate_limit);
        assert_eq!(patched(&next, json!({"rate_limit": null})).expect("no limit").rate_limit, None);
        let cleared = json!({"description": null, "signature_header": null, "body_bytes_max": null});
        let next = patched(&current, cleared).expect("these may be empty");
        assert_eq!((next.description, next.signature_header), (None, None));
        let next = patched(&current, json!({"secret": "whsec_another-planted"})).expect("it is right");
        assert_eq!(next.secrets.len(), 1);
        assert_ne!(next.secrets, current.secrets);
    }

    #[test]
    fn an_update_is_refused_with_its_member() {
        let current = endpoint(with("secret", json!(PLANTED)));
        for (body, pointer) in [
            (json!({"integration_id": 2}), "/integration_id"),
            (json!({"verification": {"tolerance": 1}}), "/verification/tolerance"),
            (json!({"secret": "not-in-form"}), "/secret"),
            (json!({"secret": null}), "/secret"),
        ] {
            assert_eq!(pointers(patched(&current, body.clone())), [pointer], "{body}");
        }
        let unsigned = endpoint(with("verify_signature", json!(false)));
        assert_eq!(pointers(patched(&unsigned, json!({"verify_signature": true}))), ["/verify_signature"]);
    }

    #[test]
    fn a_name_can_be_changed_though_the_key_is_gone() {
        let mut current = endpoint(with("secret", json!(PLANTED)));
        current.secrets[0].sealed.0 = "broken".to_owned();
        assert!(patched(&current, json!({"name": "new"})).is_ok());
        let refused = patched(&current, json!({"verification": {"tolerance_s": 9}})).expect_err("it cannot be checked");
        assert_eq!(refused.code, Code::Conflict);
        assert!(patched(&current, json!({"secret": PLANTED})).is_ok());
    }
}
