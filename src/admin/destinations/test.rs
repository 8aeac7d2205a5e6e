//! The destination test: one real attempt with a sample event that is never stored. It touches neither positions nor
//! breakers; it says what happened, and how long it took.

use std::{sync::Arc, time::Duration};

use axum::{http::StatusCode, response::Response};
use bytes::Bytes;
use hookmill_actors::{
    domain::{
        activity::ActivityResult,
        config::Destination,
        event::{Arrival, Event},
        headers::HeaderBlock,
        ids::{DestinationId, EndpointId, EventId, IntegrationId},
        limits::IDENTITY_BYTES_MAX,
    },
    ports::{
        program::Rendered,
        sealer::Owner,
        transport::{AttemptReport, Consignment, Verdict},
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    super::{
        Api,
        access::{Author, State},
        fields::{line, string},
        form::Form,
        json::{Json, OptionalJson},
        problem::{Code, Problem},
        resource::{Configured, Segments, Subject, json as json_reply},
        tools::Keys,
    },
    credentials::needed,
    draft::{Draft, refused},
};
use crate::destinations::TEST_HEADER;

/// Tests under way at once: each may hold a connection for as long as a peer likes.
pub(in crate::admin) const TESTS_MAX: usize = 4;
/// However long a destination's own timeout is, an operator hears by then.
const WAIT_MAX: Duration = Duration::from_secs(20);
const SAMPLE_TYPE: &str = "hookmill.test";
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How a test went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DestinationTest)]
pub(super) struct Outcome {
    /// `delivered`, `retry`, `gone`, `refused`; `timeout` where nothing came in the time that a test has.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    status: Option<u16>,
    error: Option<String>,
    reply: Option<String>,
    /// The id that was sent; no event has it.
    webhook_id: String,
    timings_ms: TimingsView,
}

/// Milliseconds since the attempt began.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DestinationTestTimings)]
struct TimingsView {
    connected: Option<f64>,
    answered: Option<f64>,
    total: f64,
}

/// `POST /api/v1/destinations/{id}/test`
pub(in crate::admin) async fn stored(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    OptionalJson(body): OptionalJson,
) -> Result<Response, Problem> {
    let mut form = Form::new(body)?;
    let sample = Sample::read(&mut form);
    let sample = form.finish(|| Some(sample))?;
    let destination = api.find::<Destination>(id)?;
    run(&api, author, &destination, api.subject(Destination::key(id)), sample).await
}

/// `POST /api/v1/destinations/test`: the same for a `destination` that is not stored.
pub(in crate::admin) async fn unsaved(
    State(api): State<Api>,
    Author(author): Author,
    Json(body): Json,
) -> Result<Response, Problem> {
    let mut form = Form::new(body)?;
    let sample = Sample::read(&mut form);
    let destination = form.required(&["destination"], |value| match value {
        Value::Object(mut members) => {
            members.entry("name").or_insert_with(|| "test".into());
            Ok(Value::Object(members))
        }
        _ => Err("must be an object with the members of a destination".to_owned()),
    });
    let (sample, destination) = form.finish(|| Some((sample, destination?)))?;
    let draft = Draft::read(destination, &api.tools).map_err(|mut problem| {
        for fault in &mut problem.faults {
            fault.pointer.insert_str(0, "/destination");
        }
        problem
    })?;
    let (destination, _) = draft.into_destination(DestinationId(0), &api.tools);
    run(&api, author, &destination, "a destination that is not stored".to_owned().into(), sample).await
}

async fn run(
    api: &Api,
    author: String,
    destination: &Destination,
    subject: Subject,
    sample: Sample,
) -> Result<Response, Problem> {
    let busy = || Problem::new(Code::Busy, format!("{TESTS_MAX} destination tests are under way; try again shortly"));
    let _place = api.tests.clone().try_acquire_owned().map_err(|_| busy())?;
    let now_ms = api.tree.ports().clock.now_ms();
    let consignment = sample.consignment(api, now_ms).await?;
    let id = consignment.event.id;
    let signing_secret = api
        .tools
        .sealer
        .open(Owner::SigningSecret(destination.id), &destination.signing_secret)
        .map_err(|error| Problem::internal(&error))?;
    let keys = Keys { signing_secret, credentials: needed(destination, &api.tools)? };
    let began = Instant::now();
    let attempt = api.tools.destinations.attempt(destination, keys, consignment, now_ms);
    let outcome = match tokio::time::timeout(WAIT_MAX, attempt).await {
        Ok(report) => outcome(report.map_err(refused)?, id, began.elapsed()),
        Err(_) => waited_in_vain(id),
    };
    let result = if outcome.verdict == "delivered" { ActivityResult::Ok } else { ActivityResult::Failed };
    let detail = json!({"verdict": outcome.verdict, "status": outcome.status, "error": outcome.error});
    api.note(author, "destination.tested", subject, result, detail.to_string()).await;
    Ok(json_reply(StatusCode::OK, &outcome))
}

fn outcome(report: AttemptReport, id: EventId, took: Duration) -> Outcome {
    let (verdict, after) = match report.verdict {
        Verdict::Delivered => ("delivered", None),
        Verdict::Retry { after } => ("retry", after),
        Verdict::Gone => ("gone", None),
        Verdict::Refused => ("refused", None),
    };
    Outcome {
        verdict,
        retry_after_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        status: report.status,
        error: report.error,
        reply: report.reply,
        webhook_id: id.to_string(),
        timings_ms: TimingsView {
            connected: report.timings.connected.map(millis),
            answered: report.timings.answered.map(millis),
            total: millis(took),
        },
    }
}

fn waited_in_vain(id: EventId) -> Outcome {
    Outcome {
        verdict: "timeout",
        retry_after_ms: None,
        status: None,
        error: Some(format!("no outcome within {} s, which is as long as a test may take", WAIT_MAX.as_secs())),
        reply: None,
        webhook_id: id.to_string(),
        timings_ms: TimingsView { connected: None, answered: None, total: millis(WAIT_MAX) },
    }
}

/// With microseconds as decimals.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// What is sent.
#[derive(Debug, PartialEq)]
struct Sample {
    /// A stored event, to be sent as it arrived.
    event: Option<EventId>,
    event_type: Option<String>,
    content_type: Option<String>,
    body: Option<Vec<u8>>,
}

impl Sample {
    fn read(form: &mut Form) -> Self {
        let sample = Self {
            event: form.optional(&["event_id"], |value| {
                string(value)?.parse().map_err(|_| "must be an event's id".to_owned())
            }),
            event_type: form.optional(&["event_type"], line(1..=IDENTITY_BYTES_MAX)),
            content_type: form.optional(&["content_type"], line(1..=255)),
            body: form.optional(&["body"], |value| {
                let body = match value {
                    Value::String(text) => text.into_bytes(),
                    other => other.to_string().into_bytes(),
                };
                if body.len() > BODY_BYTES_MAX {
                    return Err(format!("has {} bytes; at most {BODY_BYTES_MAX} are allowed", body.len()));
                }
                Ok(body)
            }),
        };
        if sample.event.is_some() && (sample.body.is_some() || sample.content_type.is_some()) {
            form.fault("event_id", "stands beside a `body` or `content_type`; give one or the other");
        }
        sample
    }

    /// Under an id that no event has.
    async fn consignment(self, api: &Api, now_ms: u64) -> Result<Consignment, Problem> {
        let ports = api.tree.ports();
        let (integration, mut event_type, arrival) = match self.event {
            Some(id) => {
                let missing = || Problem::new(Code::NotFound, format!("event {id} is not there, or no longer"));
                let event = ports.log.get(id).await?.ok_or_else(missing)?;
                let note = ports.state.note(id).await?;
                let event_type = note.and_then(|note| note.event_type);
                (id.integration(), event_type, Arrival { received_at_ms: now_ms, ..event.arrival.clone() })
            }
            None => {
                let body = self.body.unwrap_or_else(|| sample_body(now_ms));
                let content_type = self.content_type.unwrap_or_else(|| "application/json".to_owned());
                (IntegrationId(0), Some(SAMPLE_TYPE.into()), arrival(&content_type, body, now_ms))
            }
        };
        if let Some(asked) = self.event_type {
            event_type = Some(asked.into());
        }
        let random: [u8; 32] = api.tools.secrets.random();
        let sequence = EventId::at_millis(now_ms).sequence() + u128::from(u16::from_be_bytes([random[0], random[1]]));
        let id = EventId::from_parts(sequence, integration, u16::from_be_bytes([random[2], random[3]]));
        let rendered = Rendered {
            content_type: None,
            headers: vec![(TEST_HEADER.to_owned(), "true".to_owned())],
            body: arrival.body.clone(),
        };
        Ok(Consignment {
            event: Arc::new(Event { id, arrival }),
            attempt: 1,
            replay: false,
            event_type,
            rendered: Some(Arc::new(rendered)),
        })
    }
}

fn sample_body(now_ms: u64) -> Vec<u8> {
    let at = super::super::resource::time(now_ms);
    json!({"type": SAMPLE_TYPE, "message": "A test of this destination. No event has this id.", "at": at})
        .to_string()
        .into_bytes()
}

fn arrival(content_type: &str, body: Vec<u8>, now_ms: u64) -> Arrival {
    Arrival {
        endpoint: EndpointId(0),
        received_at_ms: now_ms,
        accepted_version: 0,
        peer: std::net::Ipv4Addr::LOCALHOST.into(),
        hops: 0,
        query: "".into(),
        headers: HeaderBlock::from_lines([("content-type", content_type.as_bytes())]),
        body: Bytes::from(body),
    }
}
