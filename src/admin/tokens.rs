//! API tokens: `/api/v1/tokens`. A token is shown once, in the reply that made it.

pub(super) mod doc;

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hookmill_actors::domain::config::{Configuration, Integration};
use humantime_serde::re::humantime;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Api,
    access::{Access, Author, State},
    fields::{kind, line, list as list_of, moment, one_of, string},
    form::Form,
    json::{Json, quoted},
    paging::Params,
    problem::{Code, Fault, Problem},
    resource::{Configured, Segments, json, time},
};
use crate::tokens::{KnownToken, NewToken, Role, Scope, Scopes, StoredToken, TokenError, TokenId, TokenState};

/// A name, characters.
const NAME_CHARS_MAX: usize = 64;
/// Scopes of one token.
const SCOPES_MAX: usize = 64;
/// A shorter life would be over before anybody used it.
const LIFE_MIN: Duration = Duration::from_secs(60);
/// Ten years.
const LIFE_MAX: Duration = Duration::from_secs(3_650 * 86_400);
/// States that a list may be narrowed to.
const STATES: [(&str, TokenState); 3] =
    [("active", TokenState::Active), ("expired", TokenState::Expired), ("revoked", TokenState::Revoked)];

/// A token as replies show it. What the start found or made has no number, and nothing is stored of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
struct View {
    id: Option<TokenId>,
    name: String,
    role: Role,
    #[schema(value_type = Vec<String>)]
    scopes: Scopes,
    status: TokenState,
    #[schema(format = DateTime)]
    created_at: Option<String>,
    created_by: Option<String>,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// To the minute.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TokenWithSecret)]
struct Made {
    #[serde(flatten)]
    view: View,
    /// Only here, only now.
    token: String,
}

/// `GET /api/v1/tokens`, by `status` and `role`. Whoever has scopes himself sees those that reach no further.
pub(super) async fn list(State(api): State<Api>, access: Access, mut params: Params) -> Result<Response, Problem> {
    let page = params.page()?;
    let (state, role) = (params.one_of("status", &STATES)?, params.one_of("role", &Role::NAMES)?);
    params.finish()?;
    let now_ms = api.now_ms();
    let all = api.tokens.all();
    let wanted = all.into_iter().filter(|KnownToken { token, .. }| {
        within(&access, token)
            && state.is_none_or(|state| token.state(now_ms) == state)
            && role.is_none_or(|role| token.role == role)
    });
    Ok(json(StatusCode::OK, &page.of(wanted, |known| view(known, now_ms))))
}

/// `GET /api/v1/tokens/{id}`
pub(super) async fn one(
    State(api): State<Api>,
    access: Access,
    Segments(id): Segments<u32>,
) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &view(found(&api, &access, TokenId(id))?, api.now_ms())))
}

/// `GET /api/v1/tokens/self`: who the token of this request is, and what it may do.
pub(super) async fn own(State(api): State<Api>, Access(identity): Access) -> Result<Response, Problem> {
    let now_ms = api.now_ms();
    let shown = match identity.id.and_then(|id| api.tokens.get(id)) {
        Some(known) => view(known, now_ms),
        None => View {
            id: None,
            name: identity.name.clone(),
            role: identity.role,
            scopes: identity.scopes.clone(),
            status: TokenState::Active,
            created_at: None,
            created_by: None,
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
        },
    };
    Ok(json(StatusCode::OK, &shown))
}

/// `POST /api/v1/tokens`: nobody gives away more than he has, nor for longer.
pub(super) async fn create(
    State(api): State<Api>,
    Access(maker): Access,
    Json(body): Json,
) -> Result<Response, Problem> {
    let new = wanted(body, api.now_ms())?;
    // What the maker does not see is refused as such, whether it is there or not.
    if new.scopes.as_ref().is_some_and(|scopes| scopes.within(&maker.scopes)) {
        exist(&new, &api.tree.config().current().configuration)?;
    }
    let (token, secret) = api.tokens.create(&maker, new).await?;
    let location = format!("/api/v1/tokens/{}", token.id.0);
    let view = view(KnownToken { token, used_at_ms: None }, api.now_ms());
    let mut response = json(StatusCode::CREATED, &Made { view, token: secret.expose().to_owned() });
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `DELETE /api/v1/tokens/{id}`: revokes it, at once. It stays in the list, for the audit log's sake.
pub(super) async fn revoke(
    State(api): State<Api>,
    access: Access,
    Author(author): Author,
    Segments(id): Segments<u32>,
) -> Result<StatusCode, Problem> {
    let id = found(&api, &access, TokenId(id))?.token.id;
    api.tokens.revoke(&author, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn found(api: &Api, access: &Access, id: TokenId) -> Result<KnownToken, Problem> {
    let known = api.tokens.get(id).filter(|known| within(access, &known.token));
    known.ok_or_else(|| Problem::not_found(id))
}

/// Whether the one could have made the other.
fn within(access: &Access, token: &StoredToken) -> bool {
    token.scopes.within(&access.0.scopes)
}

fn wanted(body: Value, now_ms: u64) -> Result<NewToken, Problem> {
    let mut form = Form::new(body)?;
    let name = form.required(&["name"], line(1..=NAME_CHARS_MAX));
    let role = form.required(&["role"], one_of(&Role::NAMES));
    let scopes = form.optional(&["scopes"], list_of(SCOPES_MAX, scope)).map(Scopes::new);
    let at = form.clearable(&["expires_at"], moment).into_option();
    let life = form.clearable(&["expires_in"], life).into_option();
    if at.is_some() && life.is_some() {
        form.fault("expires_in", "and `expires_at` both say when it ends; give one of them");
    }
    let after = |life: Duration| now_ms.saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    let expires_at_ms = at.or(life.map(after));
    form.read_only(&["id", "status", "created_at", "created_by", "last_used_at", "revoked_at", "token"]);
    form.finish(|| Some(NewToken { name: name?, role: role?, scopes, expires_at_ms }))
}

fn scope(value: Value) -> Result<Scope, String> {
    let text = string(value)?;
    text.parse().map_err(|error| format!("{error}; it is `{}`", quoted(&text)))
}

/// A text such as `30d`, or whole seconds.
fn life(value: Value) -> Result<Duration, String> {
    let read = match value {
        Value::Number(seconds) => seconds.as_u64().map(Duration::from_secs),
        Value::String(text) => humantime::parse_duration(&text).ok(),
        other => return Err(format!("must be a duration such as `\"30d\"`, or whole seconds; it is {}", kind(&other))),
    };
    match read {
        Some(life) if (LIFE_MIN..=LIFE_MAX).contains(&life) => Ok(life),
        Some(_) => Err("must be from a minute to ten years".to_owned()),
        None => Err("must be a duration such as `\"30d\"` or `\"12h\"`, or whole seconds".to_owned()),
    }
}

/// A scope for what does not exist yet would open it when it does.
fn exist(new: &NewToken, configuration: &Configuration) -> Result<(), Problem> {
    for scope in new.scopes.iter().flat_map(Scopes::iter) {
        if let Scope::Integration(id) = scope
            && Integration::find(configuration, id.0).is_none()
        {
            return Err(Problem::member("/scopes", format!("names {}, which does not exist", Integration::key(id.0))));
        }
    }
    Ok(())
}

fn view(KnownToken { token, used_at_ms }: KnownToken, now_ms: u64) -> View {
    View {
        status: token.state(now_ms),
        id: Some(token.id),
        name: token.name,
        role: token.role,
        scopes: token.scopes,
        created_at: Some(time(token.created_at_ms)),
        created_by: Some(token.created_by),
        expires_at: token.expires_at_ms.map(time),
        last_used_at: used_at_ms.map(time),
        revoked_at: token.revoked_at_ms.map(time),
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let detail = error.to_string();
        match error {
            TokenError::NotFound(_) => Self::new(Code::NotFound, detail),
            TokenError::Taken(by) => Self {
                faults: vec![Fault { pointer: "/name".to_owned(), detail: format!("is already used by {by}") }],
                ..Self::new(Code::Conflict, detail)
            },
            TokenError::TooMany(_) => Self::new(Code::Conflict, detail),
            TokenError::NameKept => Self::member("/name", detail),
            TokenError::Past => Self::member("/expires_at", detail),
            TokenError::RoleAbove { .. } => Self::new(Code::AdminRoleNeeded, detail),
            TokenError::ScopesBeyond { .. } | TokenError::OutlivesMaker => Self::new(Code::OutOfScope, detail),
            TokenError::Store(cause) => {
                tracing::error!(%cause, "a token could not be stored");
                Self::new(Code::Unavailable, "tokens cannot be stored now; the log has the cause")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wanted_is_read_whole() {
        let new = wanted(
            json!({"name": "ci", "role": "INTEGRATION_MANAGER", "scopes": ["integration:2", "environment:staging"],
                   "expires_in": "2h"}),
            1_000,
        );
        let new = new.expect("it is well formed");
        assert_eq!((new.name.as_str(), new.role, new.expires_at_ms), ("ci", Role::Manager, Some(7_201_000)));
        assert_eq!(new.scopes.expect("they were given").to_string(), "environment:staging, integration:2");
        for (end, want) in [
            (json!({"expires_in": 60}), Some(61_000)),
            (json!({"expires_in": null, "expires_at": "1970-01-01T00:01:40Z"}), Some(100_000)),
            (json!({}), None),
        ] {
            let mut body = json!({"name": "ci", "role": "viewer"});
            body.as_object_mut().expect("an object").extend(end.as_object().expect("an object").clone());
            let new = wanted(body, 1_000).expect("it is well formed");
            assert_eq!((new.expires_at_ms, new.scopes.is_none()), (want, true));
        }
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        for (members, pointer) in [
            (json!({"name": " "}), "/name"),
            (json!({"name": "x".repeat(65)}), "/name"),
            (json!({"name": "a\nb"}), "/name"),
            (json!({"role": "root"}), "/role"),
            (json!({"role": null}), "/role"),
            (json!({"scopes": "integration:1"}), "/scopes"),
            (json!({"scopes": ["integration:x"]}), "/scopes"),
            (json!({"scopes": vec!["integration:1"; 65]}), "/scopes"),
            (json!({"expires_in": "59s"}), "/expires_in"),
            (json!({"expires_in": 59}), "/expires_in"),
            (json!({"expires_in": -1}), "/expires_in"),
            (json!({"expires_in": "11y"}), "/expires_in"),
            (json!({"expires_in": "soon"}), "/expires_in"),
            (json!({"expires_in": true}), "/expires_in"),
            (json!({"expires_at": "tomorrow"}), "/expires_at"),
            (json!({"expires_in": "1h", "expires_at": "2030-01-01T00:00:00Z"}), "/expires_in"),
            (json!({"token": "hmk_mine"}), "/token"),
            (json!({"scope": []}), "/scope"),
        ] {
            let mut body = json!({"name": "ci", "role": "viewer"});
            body.as_object_mut().expect("an object").extend(members.as_object().expect("an object").clone());
            let refused = wanted(body, 1_000).expect_err(pointer);
            assert!(refused.faults.iter().any(|fault| fault.pointer == pointer), "{members}: {refused:?}");
        }
    }
}
