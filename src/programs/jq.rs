//! jq programs. One may loop for ever or eat memory, so it never runs in this process: [`pool`] keeps a few worker
//! processes, each this binary started again as `hookmill jq-worker` with limits of its own ([`worker`]). A worker that
//! dies, or is killed at the deadline, costs the event it was working on.

mod engine;
mod fault;
mod pool;
mod process;
mod wire;
pub(crate) mod worker;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use hookmill_actors::ports::{
    program::{ProgramFault, RenderFault, Subject},
    provider::SettingsError,
};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

pub(super) use self::pool::Pool;
use super::{body, facts};

/// Bytes of one program, at most.
pub(super) const PROGRAM_BYTES_MAX: usize = 16 << 10;

/// A program that compiles.
pub(super) struct JqProgram {
    pool: Arc<Pool>,
    text: Arc<str>,
    /// So many of its events at once: others find workers, too, while this one runs into its deadline again and again.
    turns: Semaphore,
}

impl JqProgram {
    /// Checks the program in a worker.
    pub(super) fn compile(pool: &Arc<Pool>, field: &str, text: &str) -> Result<Self, SettingsError> {
        if text.len() > PROGRAM_BYTES_MAX {
            let problem = format!("is {} bytes long; at most {PROGRAM_BYTES_MAX} are allowed", text.len());
            return Err(SettingsError::new(field, problem));
        }
        if text.trim().is_empty() {
            return Err(SettingsError::new(field, "is empty; write `.` for the body as it is"));
        }
        pool.check(text).map_err(|problem| SettingsError::new(field, problem))?;
        let turns = Semaphore::new(pool.options().workers.div_ceil(2));
        Ok(Self { pool: pool.clone(), text: text.into(), turns })
    }

    /// What the program makes of an event: one JSON value.
    pub(super) async fn run(&self, subject: &Subject) -> Result<Bytes, RenderFault> {
        let input = match body::Body::of(&subject.event) {
            body::Body::Json(bytes) if body::depth(bytes) > body::DEPTH_MAX => {
                return Err(ProgramFault(body::TOO_DEEP.to_owned()).into());
            }
            body::Body::Json(bytes) if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() => {
                Cow::Borrowed(bytes)
            }
            body::Body::Json(_) | body::Body::Other => Cow::Borrowed(b"null".as_slice()),
            body::Body::Form(_) => Cow::Owned(body::value(&subject.event).unwrap_or_default().to_string().into_bytes()),
        };
        let request = wire::Request::run(&self.text, &input, &self.variables(subject));
        let _turn = self.turns.acquire().await;
        self.pool.run(request).await
    }

    /// The values of [`engine::VARIABLES`] as one JSON object; only those that the program names.
    fn variables(&self, subject: &Subject) -> Vec<u8> {
        let mut variables = Map::new();
        let arrival = &subject.event.arrival;
        if self.text.contains("$event") {
            let (id, name) = &subject.integration;
            let event = json!({
                "id": subject.event.id.to_string(),
                "type": subject.identity.event_type,
                "provider_id": subject.identity.provider_id,
                "received_at": facts::time(arrival.received_at_ms),
                "integration": { "id": id.0, "name": &**name },
                "endpoint_id": arrival.endpoint.0,
                "query": arrival.query,
                "size": arrival.body.len(),
                "peer": arrival.peer.to_string(),
            });
            variables.insert("event".to_owned(), event);
        }
        let texts = |members: &mut dyn Iterator<Item = (Cow<'_, str>, Cow<'_, str>)>| {
            Value::Object(members.map(|(name, value)| (name.into_owned(), value.into())).collect())
        };
        if self.text.contains("$headers") {
            variables.insert("headers".to_owned(), texts(&mut facts::headers(&arrival.headers, |_| true)));
        }
        if self.text.contains("$query") {
            variables.insert("query".to_owned(), texts(&mut body::form(arrival.query.as_bytes())));
        }
        if variables.is_empty() { Vec::new() } else { Value::Object(variables).to_string().into_bytes() }
    }
}
