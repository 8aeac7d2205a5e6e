//! The key ring: `/api/v1/keys`. Ids, states and times; never a key.

pub(super) mod doc;

use async_trait::async_trait;
use axum::{http::StatusCode, response::Response};
use hookmill_actors::configuration::ConfigError;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Api,
    access::{Author, State},
    form::Form,
    json::{NoMembers, OptionalJson},
    paging::Params,
    problem::{Code, Problem},
    resource::{Segments, json, time},
};
use crate::{
    keys::{Holdings, KeyReport, KeysError, Retired, Rotation, RotationState},
    secrets::{BadKeyId, KeyId, KeyState, RingChangeError},
};

/// The keys, as the admin API sees them.
#[async_trait]
pub trait KeyAdmin: Send + Sync {
    /// The ring; with what is sealed with each key, which takes a look at everything.
    async fn view(&self, count: bool) -> Result<KeysView, KeysError>;
    /// Adds a new key that opens and does not seal.
    async fn add(&self, author: &str) -> Result<KeyId, KeysError>;
    /// Reads the ring again where it comes from.
    async fn reload(&self, author: &str) -> Result<(), KeysError>;
    /// Puts another key in the primary's place, and seals everything again in the background.
    async fn rotate(&self, author: &str, to: Option<KeyId>) -> Result<Rotation, KeysError>;
    /// Retires a key that nothing is sealed with.
    async fn retire(&self, author: &str, key: KeyId) -> Result<Retired, KeysError>;
}

/// The ring.
#[derive(Clone, Debug)]
pub struct KeysView {
    /// Where it comes from.
    pub source: String,
    /// Its keys, the oldest first.
    pub keys: Vec<KeyReport>,
    /// The last rotation.
    pub rotation: Option<(Rotation, RotationState)>,
}

impl KeysView {
    /// As the API shows it.
    pub fn into_json(self) -> Value {
        serde_json::to_value(ring(self)).expect("it has text keys only")
    }
}

/// A rotation as the API shows it.
pub fn rotation_json(rotation: Rotation, state: RotationState) -> Value {
    serde_json::to_value(rotation_view((rotation, state))).expect("it has text keys only")
}

#[derive(Serialize, ToSchema)]
#[schema(as = KeyRing)]
struct Ring {
    source: String,
    keys: Vec<Key>,
    rotation: Option<RotationView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RingKey)]
struct Key {
    #[schema(value_type = String)]
    id: KeyId,
    state: KeyState,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    retired_at: Option<String>,
    /// What is sealed with it, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<Holdings>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = KeyRotation)]
struct RotationView {
    state: RotationState,
    #[schema(value_type = String)]
    to: KeyId,
    author: String,
    #[schema(format = DateTime)]
    started_at: String,
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    changes_total: u64,
    changes_done: u64,
    sealed_again: u64,
    damaged: u64,
    damaged_at: Vec<String>,
    failure: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RetiredKey)]
struct RetiredView {
    #[schema(value_type = String)]
    id: KeyId,
    state: KeyState,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// `GET /api/v1/keys`: with `sealed=true`, what is sealed with each.
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let count = params.boolean("sealed")?.unwrap_or(false);
    params.finish()?;
    Ok(json(StatusCode::OK, &ring(api.keys.view(count).await?)))
}

/// `POST /api/v1/keys`: a new key that opens and does not seal.
pub(super) async fn add(State(api): State<Api>, Author(author): Author, _: NoMembers) -> Result<Response, Problem> {
    let id = api.keys.add(&author).await?;
    let keys = api.keys.view(false).await?.keys;
    let added = keys.into_iter().find(|report| report.info.id == id);
    let added = added.ok_or_else(|| Problem::internal(&"an added key is not there"))?;
    Ok(json(StatusCode::CREATED, &key(&added)))
}

/// `POST /api/v1/keys/reload`: the ring is read again where it comes from.
pub(super) async fn reload(State(api): State<Api>, Author(author): Author, _: NoMembers) -> Result<Response, Problem> {
    api.keys.reload(&author).await?;
    Ok(json(StatusCode::OK, &ring(api.keys.view(false).await?)))
}

/// `POST /api/v1/keys/rotate`: to a new key, or to the one that `to` names. Done in the background; `GET /api/v1/keys`
/// tells how far it is.
pub(super) async fn rotate(
    State(api): State<Api>,
    Author(author): Author,
    OptionalJson(body): OptionalJson,
) -> Result<Response, Problem> {
    let mut form = Form::new(body)?;
    let to = form.optional(&["to"], |value| key_id(&value));
    let to = form.finish(|| Some(to))?;
    let rotation = api.keys.rotate(&author, to).await?;
    Ok(json(StatusCode::ACCEPTED, &rotation_view((rotation, RotationState::Running))))
}

/// `POST /api/v1/keys/{id}/retire`
pub(super) async fn retire(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<KeyId>,
    _: NoMembers,
) -> Result<Response, Problem> {
    let Retired { key: id, note } = api.keys.retire(&author, id).await?;
    let state = if note.is_some() { KeyState::Active } else { KeyState::Retired };
    Ok(json(StatusCode::OK, &RetiredView { id, state, note }))
}

fn key_id(value: &Value) -> Result<KeyId, String> {
    value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| format!("must be a key's id: {BadKeyId}"))
}

fn ring(view: KeysView) -> Ring {
    Ring { source: view.source, keys: view.keys.iter().map(key).collect(), rotation: view.rotation.map(rotation_view) }
}

fn key(report: &KeyReport) -> Key {
    Key {
        id: report.info.id,
        state: report.info.state,
        created_at: time(report.info.created_at_ms),
        retired_at: report.info.retired_at_ms.map(time),
        sealed: report.holdings,
    }
}

fn rotation_view((rotation, state): (Rotation, RotationState)) -> RotationView {
    RotationView {
        state,
        to: rotation.to,
        author: rotation.author,
        started_at: time(rotation.started_at_ms),
        finished_at: rotation.finished_at_ms.map(time),
        changes_total: rotation.changes_total,
        changes_done: rotation.changes_done,
        sealed_again: rotation.sealed_again,
        damaged: rotation.damaged,
        damaged_at: rotation.damaged_at,
        failure: rotation.failure,
    }
}

impl From<KeysError> for Problem {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Ring(RingChangeError::NoSuchKey(id)) => Self::not_found(format_args!("key `{id}`")),
            KeysError::Ring(_) | KeysError::InUse { .. } | KeysError::Busy | KeysError::ReadOnly { .. } => {
                Self::new(Code::Conflict, error.to_string())
            }
            KeysError::Source(cause) => {
                tracing::error!(%cause, "the key ring could not be used");
                Self::new(Code::Unavailable, cause.to_string())
            }
            KeysError::Store(cause) => ConfigError::Store(cause).into(),
        }
    }
}
