//! Refused requests: `/api/v1/rejections`. What was sent, why it was refused, what would make its signature hold; and
//! accepting it afterwards, which makes an event of it that counts as received when it came.

pub(super) mod doc;

use axum::{http::StatusCode, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use hookmill_actors::{
    domain::{
        activity::ActivityResult,
        config::{Configuration, Endpoint, Integration},
        event::{Arrival, NewEvent},
        headers::Single,
        ids::{EndpointId, EventId, IntegrationId},
    },
    ports::provider::InboundRequest,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    access::{Author, State, no_id},
    events::{HeaderView, headers},
    fields::{boolean, moment, number, one_of},
    form::Form,
    json::{Json, OptionalJson},
    paging::{Params, Slice},
    problem::{Code, Problem},
    redact,
    resource::{Segments, Subject, json, time},
    verification::{Facts, misfit},
};
use crate::rejections::{Entry, Rejection, RejectionError, RejectionId, Reservation};

/// What a rejection's sender was told, of the causes that are kept.
const CAUSES: [(&str, &str); 8] = [
    ("missing_signature", "missing_signature"),
    ("invalid_signature", "invalid_signature"),
    ("handshake_refused", "handshake_refused"),
    ("method_not_allowed", "method_not_allowed"),
    ("slow_request", "slow_request"),
    ("body_too_large", "body_too_large"),
    ("bad_request", "bad_request"),
    ("too_many_hops", "too_many_hops"),
];
/// Rejections that one call accepts or leaves, at most: each is a signature check and a place in the log.
const ACCEPT_MAX: usize = 100;

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RejectionItem)]
struct Item {
    id: String,
    #[schema(format = DateTime)]
    at: String,
    integration_id: u32,
    endpoint_id: u32,
    /// The code that its sender was told.
    #[schema(value_type = String)]
    cause: Box<str>,
    /// Why, for the operator.
    #[schema(value_type = String)]
    reason: Box<str>,
    peer: String,
    /// Bytes of its body that are kept.
    size: usize,
    /// Whether that is all of the body.
    body_complete: bool,
    /// The event that was made of it afterwards.
    event_id: Option<EventId>,
}

impl From<Entry> for Item {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id.to_string(),
            at: time(entry.at_ms),
            integration_id: entry.integration.0,
            endpoint_id: entry.endpoint.0,
            cause: entry.cause,
            reason: entry.reason,
            peer: entry.peer.to_string(),
            size: entry.body_bytes,
            body_complete: entry.body_whole,
            event_id: entry.accepted,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rejection)]
struct View {
    #[serde(flatten)]
    item: Item,
    #[schema(format = DateTime)]
    accepted_at: Option<String>,
    #[schema(value_type = String)]
    method: Box<str>,
    path: String,
    query: String,
    headers: Vec<HeaderView>,
    /// The body, where it is UTF-8.
    body: Option<String>,
    /// The body, where it is not UTF-8.
    body_base64: Option<String>,
}

/// Which rejections.
#[derive(Default)]
struct Filter {
    endpoint: Option<EndpointId>,
    integration: Option<IntegrationId>,
    cause: Option<&'static str>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
    accepted: Option<bool>,
}

impl Filter {
    fn passes(&self, entry: &Entry) -> bool {
        self.endpoint.is_none_or(|endpoint| entry.endpoint == endpoint)
            && self.integration.is_none_or(|integration| entry.integration == integration)
            && self.cause.is_none_or(|cause| &*entry.cause == cause)
            && self.since_ms.is_none_or(|since_ms| entry.at_ms >= since_ms)
            && self.until_ms.is_none_or(|until_ms| entry.at_ms < until_ms)
            && self.accepted.is_none_or(|accepted| entry.accepted.is_some() == accepted)
    }
}

/// `GET /api/v1/rejections`: newest first.
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let before: Option<RejectionId> = params.parsed("before", "the `next` of an earlier reply")?;
    let filter = Filter {
        endpoint: params.id("endpoint_id")?.map(EndpointId),
        integration: params.id("integration_id")?.map(IntegrationId),
        cause: params.one_of("cause", &CAUSES)?,
        since_ms: params.moment("since")?,
        until_ms: params.moment("until")?,
        accepted: params.boolean("accepted")?,
    };
    params.finish()?;
    let (rejections, eyes) = (api.rejections.clone(), api.clone());
    let wanted = move |entry: &Entry| filter.passes(entry) && eyes.sees(entry.integration);
    let (found, more) = blocking(move || Ok(rejections.list(before, limit, wanted))).await?;
    let next = found.last().filter(|_| more).map(|entry| entry.id.to_string());
    Ok(json(StatusCode::OK, &Slice::<Item> { items: found.into_iter().map(Item::from).collect(), limit, next }))
}

/// `GET /api/v1/rejections/{id}`
pub(super) async fn one(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Response, Problem> {
    let (entry, rejection) = api.rejection(&id).await?;
    let snapshot = api.tree.config().current();
    let endpoint = snapshot.configuration.endpoints.get(&rejection.endpoint).map(AsRef::as_ref);
    Ok(json(StatusCode::OK, &view(entry, &rejection, endpoint)))
}

fn view(entry: Entry, rejection: &Rejection, endpoint: Option<&Endpoint>) -> View {
    let (path, query) = rejection.target.split_once('?').unwrap_or((&rejection.target, ""));
    let (body, body_base64) = match std::str::from_utf8(&rejection.body) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(&rejection.body))),
    };
    View {
        item: entry.into(),
        accepted_at: rejection.accepted.map(|(_, at_ms)| time(at_ms)),
        method: rejection.method.clone(),
        path: path.to_owned(),
        query: redact::query(query),
        headers: headers(&rejection.headers, endpoint),
        body,
        body_base64,
    }
}

/// `GET /api/v1/rejections/{id}/explain`: whether its signature holds as of the time it came with the secrets of now, and
/// what would make it hold.
pub(super) async fn explain(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Response, Problem> {
    let (_, rejection) = api.rejection(&id).await?;
    let snapshot = api.tree.config().current();
    let (integration, endpoint) = standing(&snapshot.configuration, rejection.endpoint)?;
    let case = api.case(integration, endpoint, facts(&rejection))?;
    Ok(json(StatusCode::OK, &api.explain(case).await?))
}

#[derive(Serialize, ToSchema)]
#[schema(as = AcceptedRejection)]
struct Accepted {
    id: String,
    event_id: EventId,
    /// Whether its signature was found to hold.
    verified: bool,
}

/// `POST /api/v1/rejections/{id}/accept`: makes an event of it, once. Its signature must hold with the secrets of now,
/// as of the time it came; `"unverified": true` accepts it all the same.
pub(super) async fn accept(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<String>,
    OptionalJson(body): OptionalJson,
) -> Result<Response, Problem> {
    let id = parsed(&id)?;
    let eyes = api.clone();
    blocking(move || eyes.must_see_rejection(id)).await?;
    let mut form = Form::new(body)?;
    let unverified = form.optional(&["unverified"], boolean);
    let unverified = form.finish(|| Some(unverified.unwrap_or(false)))?;
    let accepted = api.accept(&author, id, unverified).await?;
    Ok(json(StatusCode::OK, &accepted))
}

#[derive(Serialize, ToSchema)]
#[schema(as = AcceptedRejections)]
struct AcceptedMany {
    accepted: Vec<Accepted>,
    left: Vec<Left>,
    /// Where the next call goes on; `null` at the end.
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LeftRejection)]
struct Left {
    id: String,
    code: &'static str,
    detail: String,
}

/// `POST /api/v1/rejections/accept`: the same for those that pass the filter and were not accepted yet, oldest first, as
/// many as one call may; `next` goes on from there, as `after`.
pub(super) async fn accept_many(
    State(api): State<Api>,
    Author(author): Author,
    Json(body): Json,
) -> Result<Response, Problem> {
    let mut form = Form::new(body)?;
    let endpoint = form.optional(&["endpoint_id"], number::<u32>(1..=u32::MAX)).map(EndpointId);
    let integration = form.optional(&["integration_id"], number::<u32>(1..=u32::MAX)).map(IntegrationId);
    let cause = form.optional(&["cause"], one_of(&CAUSES));
    let (since_ms, until_ms) = (form.optional(&["since"], moment), form.optional(&["until"], moment));
    let unverified = form.optional(&["unverified"], boolean).unwrap_or(false);
    let after = form.optional(&["after"], |value| {
        let id = value.as_str().and_then(|text| text.parse::<RejectionId>().ok());
        id.ok_or_else(|| "must be the `next` of an earlier reply".to_owned())
    });
    let filter = Filter { endpoint, integration, cause, since_ms, until_ms, accepted: Some(false) };
    let filter = form.finish(|| Some(filter))?;
    if filter.endpoint.is_none() && filter.integration.is_none() {
        let detail = "or `integration_id` must be given: accepting what was refused everywhere is nobody's intention";
        return Err(Problem::member("/endpoint_id", detail));
    }
    let (rejections, eyes) = (api.rejections.clone(), api.clone());
    let wanted = move |entry: &Entry| filter.passes(entry) && eyes.sees(entry.integration);
    let found = blocking(move || Ok(rejections.oldest(after, ACCEPT_MAX, wanted))).await?;
    let next = found.last().filter(|_| found.len() == ACCEPT_MAX).map(|entry| entry.id.to_string());
    let mut many = AcceptedMany { accepted: Vec::new(), left: Vec::new(), next };
    for entry in found {
        match api.accept(&author, entry.id, unverified).await {
            Ok(accepted) => many.accepted.push(accepted),
            // What holds for the others too ends the call; what was accepted so far is told by the list.
            Err(problem) if problem.code == Code::Unavailable => return Err(problem),
            Err(problem) => {
                let code = problem.code.name();
                many.left.push(Left { id: entry.id.to_string(), code, detail: problem.detail });
            }
        }
    }
    Ok(json(StatusCode::OK, &many))
}

impl Api {
    async fn rejection(&self, id: &str) -> Result<(Entry, Rejection), Problem> {
        let (id, rejections, eyes) = (parsed(id)?, self.rejections.clone(), self.clone());
        blocking(move || {
            let entry = rejections.entry(id).filter(|entry| eyes.sees(entry.integration));
            Ok((entry.ok_or(RejectionError::NotFound(id))?, rejections.get(id)?))
        })
        .await
    }

    fn must_see_rejection(&self, id: RejectionId) -> Result<(), RejectionError> {
        let is_seen = self.rejections.entry(id).is_some_and(|entry| self.sees(entry.integration));
        is_seen.then_some(()).ok_or(RejectionError::NotFound(id))
    }

    async fn accept(&self, author: &str, id: RejectionId, unverified: bool) -> Result<Accepted, Problem> {
        let (rejections, eyes) = (self.rejections.clone(), self.clone());
        let (reservation, rejection) = blocking(move || {
            eyes.must_see_rejection(id)?;
            Ok((rejections.reserve(id)?, rejections.get(id)?))
        })
        .await?;
        let snapshot = self.tree.config().current();
        let (integration, endpoint) = standing(&snapshot.configuration, rejection.endpoint)?;
        let verified = self.check(integration, endpoint, &rejection, unverified)?;
        let (_, query) = rejection.target.split_once('?').unwrap_or((&rejection.target, ""));
        let event = NewEvent {
            integration: integration.id,
            arrival: Arrival {
                endpoint: endpoint.id,
                received_at_ms: rejection.at_ms,
                accepted_version: snapshot.version(),
                peer: rejection.peer,
                hops: hops(&rejection),
                query: query.into(),
                headers: rejection.headers.clone(),
                body: rejection.body.clone(),
            },
        };
        let bytes = rejection.body.len() + rejection.headers.as_bytes().len();
        let ports = self.tree.ports();
        let stored = ports.log.append(event)?;
        // From here on it must be noted, whether or not the client waits for it: else it could be accepted twice.
        let now_ms = ports.clock.now_ms();
        let noted = tokio::spawn(settle(reservation, stored, now_ms));
        let event_id = noted.await.map_err(|error| Problem::internal(&error))??;
        if let Some(backlog) = snapshot.backlogs.get(&integration.id) {
            backlog.appended(bytes as u64);
        }
        let subject = Subject { text: format!("rejection {id}"), integration: Some(integration.id) };
        let how = if verified { "its signature holds now" } else { "its signature was not checked" };
        let detail = format!("as event {event_id}, received {}; {how}", time(rejection.at_ms));
        self.note(author.to_owned(), "rejection.accepted", subject, ActivityResult::Ok, detail).await;
        Ok(Accepted { id: id.to_string(), event_id, verified })
    }

    /// Whether its signature was found to hold; an error where it may not be accepted.
    fn check(
        &self,
        integration: &Integration,
        endpoint: &Endpoint,
        rejection: &Rejection,
        unverified: bool,
    ) -> Result<bool, Problem> {
        let refused = |detail: String| Err(Problem::new(Code::Conflict, detail));
        if &*rejection.method != "POST" {
            return refused(format!("a `{}` is no webhook", rejection.method));
        }
        if !rejection.body_whole {
            return refused("its body was not kept whole (setting `rejections.body_bytes_max`)".to_owned());
        }
        let case = self.case(integration, endpoint, facts(rejection))?;
        let verifier = case.provider.verifier(&case.settings, &case.secrets).map_err(|error| misfit(&error))?;
        let request = InboundRequest {
            method: &case.method,
            target: &case.target,
            headers: &case.headers,
            body: &case.body,
            peer: case.peer,
        };
        if verifier.handshake(&request).is_some() {
            return refused("it is a handshake, which is answered and not stored".to_owned());
        }
        match verifier.verify(&request, case.now_ms) {
            Ok(_) => Ok(true),
            Err(_) if unverified || !endpoint.verify_signature => Ok(false),
            Err(refusal) => refused(format!(
                "its signature does not hold with the secrets of now: {refusal}; `explain` says more, and \
                 `\"unverified\": true` accepts it all the same"
            )),
        }
    }
}

/// Waits for the event to be on disk, and notes it.
async fn settle(
    reservation: Reservation,
    stored: impl Future<Output = Result<EventId, hookmill_actors::ports::event_log::LogError>>,
    now_ms: u64,
) -> Result<EventId, Problem> {
    let event = stored.await?;
    blocking(move || reservation.accepted(event, now_ms)).await?;
    Ok(event)
}

/// The endpoint it was sent to, as it stands.
fn standing(configuration: &Configuration, id: EndpointId) -> Result<(&Integration, &Endpoint), Problem> {
    let gone = || Problem::new(Code::Conflict, format!("webhook endpoint {id}, which it was sent to, was deleted"));
    let endpoint = configuration.endpoints.get(&id).ok_or_else(gone)?;
    let integration = configuration.integrations.get(&endpoint.integration_id).ok_or_else(gone)?;
    Ok((integration, endpoint))
}

fn facts(rejection: &Rejection) -> Facts {
    Facts {
        method: rejection.method.to_string(),
        target: rejection.target.to_string(),
        headers: rejection.headers.clone(),
        body: rejection.body.clone(),
        peer: rejection.peer,
        at_ms: rejection.at_ms,
    }
}

/// As the ingress reads it; what it refused for its form counts as none.
fn hops(rejection: &Rejection) -> u8 {
    match rejection.headers.single("hookmill-hops") {
        Single::Value(value) => std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        Single::Absent | Single::Repeated => 0,
    }
}

fn parsed(id: &str) -> Result<RejectionId, Problem> {
    id.parse().map_err(|_| no_id())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RejectionError> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| Problem::internal(&error))?;
    done.map_err(|error| match error {
        RejectionError::NotFound(_) => Problem::new(Code::NotFound, error.to_string()),
        RejectionError::Accepted { .. } | RejectionError::UnderWay(_) => {
            Problem::new(Code::Conflict, error.to_string())
        }
        RejectionError::Io { .. } => Problem::internal(&error),
    })
}
