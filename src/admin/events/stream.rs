//! `GET /api/v1/events/stream`: events as they come, as server-sent events. It reads the log from where its reader has
//! come, never a queue: so a slow reader loses nothing and costs no memory, and one that comes back goes on with
//! `Last-Event-ID`.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use hookmill_actors::{
    domain::{event::Identity, ids::EventId},
    ports::{
        event_log::LogError,
        state_store::{Note, NoteFilter},
    },
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{Item, scan::Where, whole_item};
use crate::admin::{
    Api,
    access::State,
    paging::Params,
    problem::{Code, Problem},
};

/// How often the log is asked whether there is more.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// A reader hears something at least so often.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Ids read at once.
const IDS_AT_ONCE: usize = 64;
/// An event is told once intake has named it, but waits for that no longer than this.
const NAMED_WITHIN_MS: u64 = 2_000;
const LAST_EVENT_ID: &str = "last-event-id";

/// The handler. `after`, or the header `Last-Event-ID`, says where to go on; else it begins with what comes from now on.
pub(in crate::admin) async fn stream(
    State(api): State<Api>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let noted = super::note_filter(&mut params)?;
    let filter = super::read_where(&api, &mut params).await?;
    let after = params.parsed("after", "an event id")?;
    params.finish()?;
    let after = match (headers.get(LAST_EVENT_ID), after) {
        (Some(last), _) => Some(last_event_id(last)?),
        (None, after) => after,
    };
    let tail = Tail {
        after: after.unwrap_or_else(|| api.tree.ports().log.last_committed()),
        told_at: Instant::now(),
        noted,
        filter,
        _place: api.stream_place()?,
        api,
    };
    let lines = stream::try_unfold(tail, |mut tail| async move {
        let chunk = tail.next().await.inspect_err(|error| tracing::warn!(%error, "a stream of events breaks off"))?;
        Ok::<_, LogError>(chunk.map(|chunk| (chunk, tail)))
    });
    // The first bytes go at once, so that a client knows that it is connected.
    let hello = stream::once(async { Ok(Bytes::from_static(b"retry: 2000\n\n")) });
    let mut response = Body::from_stream(stream::StreamExt::chain(hello, lines)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // A proxy that gathers the reply would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn last_event_id(value: &HeaderValue) -> Result<EventId, Problem> {
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.ok_or_else(|| Problem::new(Code::InvalidRequest, "`last-event-id` must be an event id, as the stream told it"))
}

/// A reader's place in the log.
struct Tail {
    api: Api,
    noted: NoteFilter,
    filter: Option<Where>,
    after: EventId,
    told_at: Instant,
    /// Held for as long as the stream is open.
    _place: OwnedSemaphorePermit,
}

impl Tail {
    /// What to tell next; `None` at a stop.
    async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        let log = self.api.tree.ports().log.clone();
        loop {
            // Whoever has lost his token hears no more, however long ago he asked.
            if !self.api.is_still_admitted() {
                return Ok(None);
            }
            let mut told = String::new();
            let last = log.last_committed();
            let mut pause = POLL_EVERY;
            if last > self.after {
                let ids = log.following(self.noted.integration, self.after, IDS_AT_ONCE).await?;
                let (count, mut is_waiting) = (ids.len(), false);
                for id in ids {
                    if !self.tell(id, &mut told).await? {
                        is_waiting = true;
                        break;
                    }
                    self.after = id;
                }
                match (is_waiting, count) {
                    (true, _) => {}
                    (false, IDS_AT_ONCE) => pause = Duration::ZERO,
                    // What lies between is of other integrations, and need not be walked over again.
                    (false, _) => self.after = self.after.max(last),
                }
            }
            if told.is_empty() && self.told_at.elapsed() >= HEARTBEAT_EVERY {
                // With the place, so that what was filtered out is not looked at again after a reconnection.
                told = format!(": nothing new\nid: {}\n\n", self.api.place_of(self.after));
            }
            if !told.is_empty() {
                self.told_at = Instant::now();
                return Ok(Some(told.into()));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.api.stopping.cancelled() => return Ok(None),
            }
        }
    }

    /// Writes an event that passes; `false` where it must wait for its name.
    async fn tell(&self, id: EventId, told: &mut String) -> Result<bool, LogError> {
        if !self.api.sees(id.integration()) {
            return Ok(true);
        }
        let ports = self.api.tree.ports();
        let note = ports.state.note(id).await?;
        if note.is_none() && ports.state.intake(id.integration()).await? < id {
            let age_ms = ports.clock.now_ms().saturating_sub(id.millis());
            if age_ms < NAMED_WITHIN_MS {
                return Ok(false);
            }
        }
        let event = match ports.log.get(id).await {
            Ok(Some(event)) => event,
            // It was trimmed meanwhile, or nobody can read it.
            Ok(None) | Err(LogError::Corrupt(_)) => return Ok(true),
            Err(error) => return Err(error),
        };
        let endpoint = Some(event.arrival.endpoint);
        let named = Note { endpoint, ..note.clone().unwrap_or_default() };
        if !self.noted.passes(&Note { event: id, ..named.clone() }) || !self.passes(event.clone(), named).await {
            return Ok(true);
        }
        let item: Item = whole_item(&event, note);
        if let Ok(json) = serde_json::to_string(&item) {
            // JSON has no line breaks in it.
            told.extend(["id: ", &id.to_string(), "\nevent: event\ndata: ", &json, "\n\n"]);
        }
        Ok(true)
    }

    async fn passes(&self, event: Arc<hookmill_actors::domain::event::Event>, note: Note) -> bool {
        let Some(filter) = self.filter.clone() else { return true };
        let identity = Identity { event_type: note.event_type, provider_id: note.provider_id };
        let work = tokio::task::spawn_blocking(move || filter.passes(event, identity));
        work.await.ok().flatten().unwrap_or(false)
    }
}
