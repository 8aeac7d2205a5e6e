//! The kind `file`: each event becomes a line of JSON in a file below the folder that the operator allows
//! (`destinations.file_directory`); no such folder, no such destinations.
//!
//! A line: `id`, `type` (where it is known), `integration`, `received_at` (RFC 3339), `attempt`, `content_type`,
//! `traceparent`, `body` (a text; bytes that are no UTF-8 stand in `body_base64` instead), `headers` (those that the
//! subscription adds, where there are any) and `replay` (on what an operator asked for again).
//!
//! Where files may be is in [`place`], how lines get into them in [`appender`].

mod appender;
mod place;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use hookmill_actors::{
    domain::secret::Secret,
    ports::{
        provider::SettingsError,
        transport::{AttemptReport, Consignment, Timings, Transport},
    },
};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use self::{
    appender::{Appender, Policy, Sync},
    place::Place,
};
use super::{
    Kind,
    members::{Credentials, Members},
    parcel::Parcel,
    report,
};

const NAME: &str = "file";
const PATH: &str = "path";
/// What a rotation may be, bytes and seconds; a smaller file would be renamed all the time.
const ROTATE_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 40);
const ROTATE_SECONDS: std::ops::RangeInclusive<u64> = 60..=31 * 24 * 3600;
const KEEP: std::ops::RangeInclusive<u64> = 1..=1_000;
const KEEP_DEFAULT: u64 = 10;
const SYNCS: [(&str, Sync); 3] = [("always", Sync::Always), ("interval", Sync::Interval), ("never", Sync::Never)];
const TIMEOUT: Duration = Duration::from_secs(15);

/// The kind `file`.
pub(super) struct Files {
    directory: Option<PathBuf>,
    /// One appender a file, whatever destinations write to it: two would tear each other's lines.
    appenders: Mutex<HashMap<Place, Weak<Appender>>>,
}

impl Files {
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, appenders: Mutex::default() }
    }

    fn settings(
        &self,
        settings: &Map<String, Value>,
        credentials: Credentials,
    ) -> Result<(Place, Policy, Duration), SettingsError> {
        let known = [PATH, "rotate_bytes", "rotate_every_s", "keep", "fsync", "timeout_ms"];
        let members = Members::new(NAME, settings, &known)?;
        credentials.finish(NAME)?;
        let Some(directory) = &self.directory else {
            let problem = "no files may be written here; the operator of this hookmill allows it with the setting \
                           `destinations.file_directory`";
            return Err(SettingsError::new("type", problem));
        };
        let path = members.required(PATH, 1..=place::PATH_BYTES_MAX, "a file's name, such as shop/events.jsonl")?;
        let place = Place::new(directory, path).map_err(|problem| members.fault(PATH, problem))?;
        let policy = Policy {
            rotate_bytes: members.number("rotate_bytes", ROTATE_BYTES)?,
            rotate_every_ms: members.number("rotate_every_s", ROTATE_SECONDS)?.map(|seconds| seconds * 1000),
            keep: u32::try_from(members.number("keep", KEEP)?.unwrap_or(KEEP_DEFAULT)).unwrap_or(u32::MAX),
            sync: members.choice("fsync", &SYNCS)?.unwrap_or(Sync::Interval),
        };
        Ok((place, policy, members.timeout("timeout_ms", TIMEOUT)?))
    }

    fn appender(&self, place: Place) -> Arc<Appender> {
        let mut appenders = self.appenders.lock().unwrap_or_else(PoisonError::into_inner);
        appenders.retain(|_, appender| appender.strong_count() > 0);
        if let Some(appender) = appenders.get(&place).and_then(Weak::upgrade) {
            return appender;
        }
        let appender = Arc::new(Appender::new(place.clone()));
        appenders.insert(place, Arc::downgrade(&appender));
        appender
    }
}

impl Kind for Files {
    fn name(&self) -> &'static str {
        NAME
    }

    fn validate(&self, settings: &Map<String, Value>, credentials: Credentials) -> Result<(), SettingsError> {
        self.settings(settings, credentials).map(drop)
    }

    fn build(
        &self,
        settings: &Map<String, Value>,
        credentials: Credentials,
        _signing_secret: &Secret,
    ) -> Result<Arc<dyn Transport>, SettingsError> {
        let (place, policy, timeout) = self.settings(settings, credentials)?;
        Ok(Arc::new(FileTransport { appender: self.appender(place), policy, timeout }))
    }
}

/// One destination.
struct FileTransport {
    appender: Arc<Appender>,
    policy: Policy,
    timeout: Duration,
}

#[derive(Serialize)]
struct Line<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'a str>,
    integration: u32,
    received_at: String,
    attempt: u32,
    content_type: String,
    traceparent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replay: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

/// The line of an event, with its end. JSON escapes line ends, so there is no other in it.
fn line(parcel: &Parcel<'_>) -> Vec<u8> {
    let event = &parcel.consignment.event;
    let body = std::str::from_utf8(parcel.body).ok();
    let at = i64::try_from(event.arrival.received_at_ms).unwrap_or(i64::MAX);
    let line = Line {
        id: event.id.to_string(),
        r#type: parcel.consignment.event_type.as_deref(),
        integration: event.id.integration().0,
        received_at: jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::MAX).to_string(),
        attempt: parcel.consignment.attempt,
        content_type: parcel.content_type_text(),
        traceparent: parcel.trace().to_string(),
        headers: parcel.headers_object(),
        replay: parcel.consignment.replay,
        body,
        body_base64: body.is_none().then(|| STANDARD.encode(parcel.body)),
    };
    let mut text = serde_json::to_vec(&line).expect("texts and numbers are written to memory without failing");
    text.push(b'\n');
    text
}

#[async_trait]
impl Transport for FileTransport {
    async fn attempt(&self, consignment: Consignment, now_ms: u64) -> AttemptReport {
        let (began, mut timings) = (Instant::now(), Timings::default());
        let line = line(&Parcel::new(&consignment));
        let appended = timeout_at(began + self.timeout, self.appender.append(line, self.policy, now_ms)).await;
        match appended {
            Ok(Ok(())) => {
                timings.answered = Some(began.elapsed());
                report::delivered(timings)
            }
            Ok(Err(words)) => report::failed(report::RETRY, words, timings),
            Err(_) => report::timed_out(self.timeout, timings),
        }
    }
}

#[cfg(test)]
mod tests;
