//! What all configured resources share: list, show, delete, the versions they are written against, and their replies.

use std::ops::Bound;

use axum::{
    extract::{FromRequestParts, Path, RawPathParams},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use hookmill_actors::{
    activity,
    configuration::{ConfigError, Kind, Write},
    domain::{
        activity::{Activity, ActivityResult},
        config::{Configuration, Destination, Endpoint, Integration, Kept, Meta, Resource, ResourceKey, Subscription},
        ids::{DestinationId, EndpointId, IntegrationId, SubscriptionId},
    },
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Api,
    access::{Author, State, no_id},
    auth,
    paging::Params,
    problem::{Code, Problem},
    tools::Tools,
};

/// How a kind of resource stands in the configuration: alike for all four, but for its names.
pub(super) trait Configured: Clone + PartialEq + Send + Sync + 'static {
    /// For reserving ids.
    const KIND: Kind;

    /// All there are above an id, by id.
    fn all(configuration: &Configuration, after: Option<u32>) -> impl Iterator<Item = &Self>;
    /// How many there are.
    fn count(configuration: &Configuration) -> usize;
    /// One of them.
    fn find(configuration: &Configuration, id: u32) -> Option<&Self>;
    /// Its key in the configuration.
    fn key(id: u32) -> ResourceKey;
    /// Its number.
    fn id(&self) -> u32;
    /// When it was made and changed.
    fn meta(&self) -> &Meta;
    /// Goes into the configuration.
    fn into_resource(self) -> Resource;
    /// Comes out of it.
    fn from_resource(resource: Resource) -> Option<Self>;
}

macro_rules! configured {
    ($($kind:ident($id:ident) in $collection:ident,)*) => {$(
        impl Configured for $kind {
            const KIND: Kind = Kind::$kind;

            fn all(configuration: &Configuration, after: Option<u32>) -> impl Iterator<Item = &Self> {
                let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded($id(id)));
                configuration.$collection.range((from, Bound::Unbounded)).map(|(_, resource)| resource.as_ref())
            }

            fn count(configuration: &Configuration) -> usize {
                configuration.$collection.size()
            }

            fn find(configuration: &Configuration, id: u32) -> Option<&Self> {
                configuration.$collection.get(&$id(id)).map(AsRef::as_ref)
            }

            fn key(id: u32) -> ResourceKey {
                ResourceKey::$kind($id(id))
            }

            fn id(&self) -> u32 {
                self.id.0
            }

            fn meta(&self) -> &Meta {
                &self.meta
            }

            fn into_resource(self) -> Resource {
                Resource::$kind(self)
            }

            fn from_resource(resource: Resource) -> Option<Self> {
                match resource {
                    Resource::$kind(resource) => Some(resource),
                    _ => None,
                }
            }
        }
    )*};
}

configured! {
    Integration(IntegrationId) in integrations,
    Endpoint(EndpointId) in endpoints,
    Destination(DestinationId) in destinations,
    Subscription(SubscriptionId) in subscriptions,
}

/// How the API treats a kind of resource.
pub(super) trait Managed: Configured {
    /// Its collection: `integrations`.
    const COLLECTION: &'static str;
    /// Members of its view that nobody sets.
    const READ_ONLY: &'static [&'static str];
    /// As replies show it.
    type View: Serialize;
    /// What a list may be narrowed by.
    type Filter: Default + PartialEq + Send;

    /// Reads a list's filters.
    fn filter(params: &mut Params) -> Result<Self::Filter, Problem>;
    /// Whether it passes them.
    fn passes(&self, filter: &Self::Filter, tools: &Tools) -> bool;
    /// As replies show it; no secret is in it.
    fn view(&self, tools: &Tools) -> Self::View;
    /// As a version of it is shown: what is configured, and nothing of how it is now.
    fn past_view(&self, tools: &Tools) -> Self::View {
        self.view(tools)
    }
}

/// `GET /api/v1/<collection>`
pub(super) async fn list<R: Managed>(State(api): State<Api>, params: Params) -> Result<Response, Problem> {
    listed::<R>(&api, params)
}

/// What is configured, as a list.
pub(super) fn listed<R: Managed>(api: &Api, mut params: Params) -> Result<Response, Problem> {
    let window = params.window(R::COLLECTION)?;
    let filter = R::filter(&mut params)?;
    params.finish()?;
    let snapshot = api.tree.config().current();
    let configuration = &snapshot.configuration;
    // What is not seen is not counted.
    let known = (api.sees_everything() && filter == R::Filter::default()).then(|| R::count(configuration));
    let sight = api.sight(configuration);
    let seen = R::all(configuration, window.after()).filter(|resource| sight.key(R::key(resource.id())));
    let matching = seen.filter(|resource| resource.passes(&filter, &api.tools));
    Ok(json(
        StatusCode::OK,
        &window.of(matching, known, |resource| resource.id(), |resource| resource.view(&api.tools)),
    ))
}

/// `GET /api/v1/<collection>/{id}`
pub(super) async fn one<R: Managed>(State(api): State<Api>, Segments(id): Segments<u32>) -> Result<Response, Problem> {
    let found = api.find::<R>(id)?;
    Ok(reply(StatusCode::OK, &found, &found.view(&api.tools)))
}

/// `DELETE /api/v1/<collection>/{id}`
pub(super) async fn delete<R: Managed>(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    condition: IfMatch,
) -> Result<StatusCode, Problem> {
    api.delete::<R>(&author, id, &condition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How often an unconditional change is tried again when others change the same resource at the same time.
const TRIES_MAX: usize = 5;

impl Api {
    /// The resource as configured now.
    pub(super) fn find<R: Managed>(&self, id: u32) -> Result<R, Problem> {
        let snapshot = self.tree.config().current();
        let seen = self.sight(&snapshot.configuration).key(R::key(id));
        let found = R::find(&snapshot.configuration, id).filter(|_| seen).cloned();
        found.ok_or_else(|| self.missing(R::key(id)))
    }

    /// Says that a resource is not there, and where it is deleted, how it comes back.
    pub(super) fn missing(&self, key: ResourceKey) -> Problem {
        let config = self.tree.config();
        let kept = config.current().configuration.deleted.get(&key).cloned();
        let Some(kept) = kept.filter(|kept| self.sees_deleted(key, kept)) else { return Problem::not_found(key) };
        let until = time(kept.at_ms.saturating_add(config.deletion_grace_ms()));
        Problem::new(Code::NotFound, format!("{key} is deleted; `POST .../restore` brings it back until {until}"))
    }

    /// Whether it sees what is left of something deleted: as it sees what is left of its integration.
    pub(super) fn sees_deleted(&self, key: ResourceKey, kept: &Kept) -> bool {
        match key {
            ResourceKey::Integration(id) => self.sees(id),
            _ => kept.integration.is_some_and(|id| self.sees(id)),
        }
    }

    /// A number that no resource of that kind ever had.
    pub(super) fn reserve<R: Managed>(&self) -> u32 {
        match self.tree.config().reserve(R::KIND) {
            ResourceKey::Integration(id) => id.0,
            ResourceKey::Endpoint(id) => id.0,
            ResourceKey::Destination(id) => id.0,
            ResourceKey::Subscription(id) => id.0,
        }
    }

    /// Stores a new resource; its id was reserved.
    pub(super) async fn create<R: Managed>(&self, author: &str, resource: R) -> Result<R, Problem> {
        let key = R::key(resource.id());
        let write = Write { key, expected_version: None, resource: Some(resource.into_resource()) };
        self.written(author, write).await??.ok_or_else(|| Problem::internal(&"a created resource is not there"))
    }

    /// Changes a resource: `change` makes of it what shall stand.
    pub(super) async fn update<R: Managed>(
        &self,
        author: &str,
        id: u32,
        condition: &IfMatch,
        change: impl Fn(&R, &Configuration) -> Result<R, Problem> + Send + Sync,
    ) -> Result<R, Problem> {
        self.write_against(author, id, condition, |current, configuration| change(current, configuration).map(Some))
            .await?
            .ok_or_else(|| Problem::internal(&"an updated resource is not there"))
    }

    /// Deletes a resource.
    pub(super) async fn delete<R: Managed>(&self, author: &str, id: u32, condition: &IfMatch) -> Result<(), Problem> {
        self.write_against::<R>(author, id, condition, |_, _| Ok(None)).await.map(drop)
    }

    async fn write_against<R: Managed>(
        &self,
        author: &str,
        id: u32,
        condition: &IfMatch,
        change: impl Fn(&R, &Configuration) -> Result<Option<R>, Problem> + Send + Sync,
    ) -> Result<Option<R>, Problem> {
        let mut conflict = None;
        let _turn = self.turns.wait(R::key(id)).await;
        for _ in 0..TRIES_MAX {
            let snapshot = self.tree.config().current();
            let current = R::find(&snapshot.configuration, id).ok_or_else(|| self.missing(R::key(id)))?;
            let version = current.meta().version;
            condition.check(R::key(id), version)?;
            let wanted = change(current, &snapshot.configuration)?;
            if wanted.as_ref() == Some(current) {
                return Ok(wanted);
            }
            let resource = wanted.map(R::into_resource);
            let write = Write { key: R::key(id), expected_version: Some(version), resource };
            match self.written(author, write).await? {
                Err(ConfigError::Conflict { actual, .. }) => {
                    condition.check(R::key(id), actual)?;
                    conflict = Some(ConfigError::Conflict { key: R::key(id), expected: version, actual });
                }
                other => return Ok(other?),
            }
        }
        Err(conflict.unwrap_or(ConfigError::Unavailable).into())
    }

    async fn written<R: Managed>(&self, author: &str, write: Write) -> Result<Result<Option<R>, ConfigError>, Problem> {
        let key = write.key;
        Ok(self.write(author, vec![write]).await?.map(|changes| {
            let stands = changes.into_iter().find(|change| change.key == key).and_then(|change| change.resource);
            stands.and_then(R::from_resource)
        }))
    }

    /// Appends to the audit log what the configuration does not record by itself.
    pub(super) async fn note(
        &self,
        actor: String,
        action: &str,
        subject: impl Into<Subject>,
        result: ActivityResult,
        detail: String,
    ) {
        let ports = self.tree.ports();
        let Subject { text: subject, integration } = subject.into();
        let activity = Activity {
            at_ms: ports.clock.now_ms(),
            actor,
            source: activity::source(),
            action: action.to_owned(),
            subject,
            integration,
            result,
            detail,
        };
        auth::note(&*ports.config, vec![activity]).await;
    }

    /// A resource as an activity's subject.
    pub(super) fn subject(&self, key: ResourceKey) -> Subject {
        let snapshot = self.tree.config().current();
        Subject { text: key.to_string(), integration: snapshot.integration_of(key) }
    }
}

/// What an activity is about.
pub(super) struct Subject {
    /// In words: `subscription 7`.
    pub(super) text: String,
    /// The integration it concerns, where it is one.
    pub(super) integration: Option<IntegrationId>,
}

impl From<String> for Subject {
    fn from(text: String) -> Self {
        Self { text, integration: None }
    }
}

/// What a write was based on: the `If-Match` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// No header, or `*`: whatever stands.
    Anything,
    /// One of these versions.
    Versions(Vec<u64>),
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::from_headers(&parts.headers)
    }
}

impl IfMatch {
    fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let malformed =
            || Problem::new(Code::InvalidRequest, "`if-match` must be the `etag` of an earlier reply, such as `\"7\"`");
        let mut versions = Vec::new();
        for line in headers.get_all(header::IF_MATCH) {
            let line = line.to_str().map_err(|_| malformed())?.trim();
            if line == "*" {
                return Ok(Self::Anything);
            }
            for tag in line.split(',') {
                let tag = tag.trim().strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                versions.push(tag.and_then(|tag| tag.parse().ok()).ok_or_else(malformed)?);
            }
        }
        Ok(if versions.is_empty() { Self::Anything } else { Self::Versions(versions) })
    }

    /// The versions it names; `None` where any will do.
    pub(super) fn versions(self) -> Option<Vec<u64>> {
        match self {
            Self::Anything => None,
            Self::Versions(versions) => Some(versions),
        }
    }

    pub(super) fn check(&self, key: ResourceKey, actual: u64) -> Result<(), Problem> {
        match self {
            Self::Versions(versions) if !versions.contains(&actual) => Err(Problem::new(
                Code::VersionConflict,
                format!("{key} is at version {actual}; read it again and repeat the change"),
            )),
            _ => Ok(()),
        }
    }
}

/// The path's parameters; what has not their form is not there.
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = RawPathParams::from_request_parts(parts, state).await.map_err(|_| no_id())?;
        // A number is digits alone, which `parse` takes with a sign too.
        if raw.iter().any(|(_, value)| value.starts_with('+')) {
            return Err(no_id());
        }
        let Path(segments) = Path::from_request_parts(parts, state).await.map_err(|_| no_id())?;
        Ok(Self(segments))
    }
}

/// A resource with its version as `etag`.
pub(super) fn reply<R: Managed>(status: StatusCode, resource: &R, view: &impl Serialize) -> Response {
    let mut response = json(status, view);
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", resource.meta().version)) {
        headers.insert(header::ETAG, tag);
    }
    if status == StatusCode::CREATED
        && let Ok(location) = HeaderValue::from_str(&format!("/api/v1/{}/{}", R::COLLECTION, resource.id()))
    {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// A JSON reply.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// RFC 3339 in UTC.
pub(super) fn time(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::ids::IntegrationId;

    use super::*;

    fn if_match(lines: &[&'static str]) -> Result<IfMatch, Problem> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_MATCH, HeaderValue::from_static(line));
        }
        IfMatch::from_headers(&headers)
    }

    #[test]
    fn a_condition_is_an_etag_or_nothing() {
        assert_eq!(if_match(&[]), Ok(IfMatch::Anything));
        assert_eq!(if_match(&["*"]), Ok(IfMatch::Anything));
        assert_eq!(if_match(&["\"7\""]), Ok(IfMatch::Versions(vec![7])));
        assert_eq!(if_match(&["\"7\", \"8\"", "\"9\""]), Ok(IfMatch::Versions(vec![7, 8, 9])));
        for wrong in ["7", "W/\"7\"", "\"x\"", "", "\"7\","] {
            assert_eq!(if_match(&[wrong]).map_err(|problem| problem.code), Err(Code::InvalidRequest), "{wrong}");
        }
    }

    #[test]
    fn a_stale_condition_is_refused() {
        let key = ResourceKey::Integration(IntegrationId(3));
        assert_eq!(IfMatch::Anything.check(key, 9), Ok(()));
        assert_eq!(IfMatch::Versions(vec![8, 9]).check(key, 9), Ok(()));
        let refused = IfMatch::Versions(vec![8]).check(key, 9).expect_err("8 is stale");
        assert_eq!(refused.code, Code::VersionConflict);
        assert_eq!(refused.detail, "integration 3 is at version 9; read it again and repeat the change");
    }

    #[test]
    fn times_are_utc_text() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_767_225_600_123), "2026-01-01T00:00:00.123Z");
        assert!(time(u64::MAX).starts_with("9999-"));
    }
}
