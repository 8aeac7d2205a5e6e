//! New events of a server, each once and in order: from its stream, and from its list for what the stream left out.

use std::{collections::VecDeque, time::Duration};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::sleep;

use crate::cli::{
    client::{ApiError, Call, Client, is_not_found, segment},
    note, show,
};

/// Between two looks at the list, where there is no stream.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const PAGE: usize = 200;
/// What is caught up after a pause; of more, the newest.
const MISSED_MAX: usize = 10_000;
/// How often it is looked whether an event has a type by now.
const NAMED_LOOKS: u32 = 4;
const NAMED_EVERY: Duration = Duration::from_millis(100);
/// A line of the stream; events are told without their bodies.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Which events are wanted.
pub(super) struct Wanted {
    pub(super) integration: Option<u64>,
    /// Patterns with `*`; none: all.
    pub(super) types: Vec<String>,
    /// A CEL expression.
    pub(super) filter: Option<String>,
}

/// See the module.
pub(super) struct Tail<'a> {
    client: &'a Client,
    wanted: Wanted,
    /// The id of the newest event that was seen; ids are in the order of arrival.
    last: String,
    ready: VecDeque<Value>,
    source: Source,
}

enum Source {
    /// Not yet connected, or not any more.
    None,
    Stream(Box<Lines>),
    /// The server has no stream.
    List,
}

/// Why there is no next event.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the stream ended")]
    Ended,
}

impl TailError {
    /// Whether trying again is of no use.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Api(error) if is_final(error))
    }
}

/// Whether the server said something that it will say again.
pub(super) fn is_final(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused(refusal) if refusal.status.is_client_error() && refusal.status.as_u16() != 429)
}

impl<'a> Tail<'a> {
    /// From the newest event on.
    pub(super) async fn begin(client: &'a Client, wanted: Wanted) -> Result<Self, ApiError> {
        let mut tail = Self { client, wanted, last: String::new(), ready: VecDeque::new(), source: Source::None };
        let mut newest = client.json(tail.list().with("limit", "1")).await?;
        if let Some(id) = show::items(&mut newest).first().and_then(|item| item["id"].as_str()) {
            id.clone_into(&mut tail.last);
        }
        // So that what comes from now on is seen, before anybody is told that we listen.
        match tail.connect().await {
            Err(TailError::Api(error)) => Err(error),
            Ok(()) | Err(TailError::Ended) => Ok(tail),
        }
    }

    /// The connection is of no use any more.
    pub(super) fn reconnect(&mut self) {
        self.source = Source::None;
    }

    /// The next event that is wanted.
    pub(super) async fn next(&mut self) -> Result<Value, TailError> {
        loop {
            while let Some(item) = self.ready.pop_front() {
                let item = match self.named(&item).await {
                    Ok(item) => item,
                    Err(error) => {
                        self.ready.push_front(item);
                        return Err(error);
                    }
                };
                if self.takes(&item) {
                    return Ok(item);
                }
            }
            match &mut self.source {
                Source::None => self.connect().await?,
                Source::List => {
                    sleep(LOOK_EVERY).await;
                    self.catch_up().await?;
                }
                Source::Stream(lines) => match lines.next().await? {
                    Some(data) => match data["id"].as_str() {
                        Some(_) => self.see(data),
                        // It tells that it left something out.
                        None => self.catch_up().await?,
                    },
                    None => return Err(TailError::Ended),
                },
            }
        }
    }

    async fn connect(&mut self) -> Result<(), TailError> {
        self.source = match self.client.stream(self.call("/events/stream")).await {
            Ok(body) => Source::Stream(Box::new(Lines::new(body))),
            Err(error) if is_not_found(&error) => Source::List,
            Err(error) => return Err(error.into()),
        };
        // What came before the stream began to tell.
        self.catch_up().await
    }

    fn list(&self) -> Call {
        self.call("/events")
    }

    fn call(&self, path: &str) -> Call {
        let mut call = Call::get(path);
        if let Some(integration) = self.wanted.integration {
            call = call.with("integration_id", integration.to_string());
        }
        if let Some(filter) = &self.wanted.filter {
            call = call.with("where", filter.as_str());
        }
        call
    }

    /// Reads from the list what is newer than the last one seen.
    async fn catch_up(&mut self) -> Result<(), TailError> {
        let mut missed: Vec<Value> = Vec::new();
        let mut before = None::<String>;
        loop {
            let mut call = self.list().with("limit", PAGE.to_string());
            if let Some(before) = &before {
                call = call.with("before", before);
            }
            let mut page = self.client.json(call).await?;
            let items = show::items(&mut page);
            let count = items.len();
            let is_newer = |item: &Value| item["id"].as_str().is_some_and(|id| *id > *self.last);
            let newer: Vec<Value> = items.into_iter().take_while(is_newer).collect();
            let has_older = newer.len() < count;
            missed.extend(newer);
            before = page["next"].as_str().map(str::to_owned);
            if has_older || before.is_none() || self.last.is_empty() {
                break;
            }
            if missed.len() >= MISSED_MAX {
                note(format_args!("more than {MISSED_MAX} events arrived meanwhile; the older ones are left out"));
                break;
            }
        }
        missed.into_iter().rev().for_each(|item| self.see(item));
        Ok(())
    }

    fn see(&mut self, item: Value) {
        let Some(id) = item["id"].as_str() else { return };
        if *id > *self.last {
            id.clone_into(&mut self.last);
            self.ready.push_back(item);
        }
    }

    /// An event is there a moment before its type is known. Some never have one.
    async fn named(&self, item: &Value) -> Result<Value, TailError> {
        let mut item = item.clone();
        for _ in 0..NAMED_LOOKS {
            if item["event_type"].is_string() {
                break;
            }
            sleep(NAMED_EVERY).await;
            let Some(id) = item["id"].as_str() else { break };
            match self.client.json(Call::get(format!("/events/{}", segment(id)))).await {
                Ok(event) => item["event_type"] = event["event_type"].clone(),
                Err(error) if is_not_found(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(item)
    }

    fn takes(&self, item: &Value) -> bool {
        let of_integration =
            self.wanted.integration.is_none_or(|id| item["integration_id"].as_u64().is_none_or(|it| it == id));
        let event_type = item["event_type"].as_str().unwrap_or_default();
        of_integration && (self.wanted.types.is_empty() || self.wanted.types.iter().any(|it| fits(it, event_type)))
    }
}

/// Whether a text has the form of a pattern, in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// The data of server-sent events.
struct Lines {
    body: Incoming,
    read: Vec<u8>,
}

impl Lines {
    fn new(body: Incoming) -> Self {
        Self { body, read: Vec::new() }
    }

    /// The next one's data; `null` where it is no JSON; nothing at the end.
    async fn next(&mut self) -> Result<Option<Value>, TailError> {
        loop {
            if let Some(data) = message(&mut self.read) {
                return Ok(Some(data));
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(TailError::Ended);
            }
            match self.body.frame().await {
                None | Some(Err(_)) => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        // Line ends may be either; a lone carriage return is not sent by our server.
                        self.read.extend(data.iter().filter(|byte| **byte != b'\r'));
                    }
                }
            }
        }
    }
}

/// Takes the first whole message that has data out of what was read.
fn message(read: &mut Vec<u8>) -> Option<Value> {
    loop {
        let end = read.windows(2).position(|pair| pair == b"\n\n")?;
        let message: Vec<u8> = read.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&message);
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data:")).collect();
        if !lines.is_empty() {
            let data = lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n");
            return Some(serde_json::from_str(&data).unwrap_or(Value::Null));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pattern_s_star_stands_for_anything() {
        for (pattern, text, want) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b.c", true),
            ("*", "", true),
            ("*.failed", "payment.failed", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "ace", true),
            ("a*c*e", "aec", false),
            ("a.*", "b.a.c", false),
        ] {
            assert_eq!(fits(pattern, text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let whole =
            ": hello\n\nid: 1\nevent: event\ndata: {\"id\":\ndata: \"e-1\"}\n\ndata: {\"id\":\"e-2\"}\n\ndata: x\n\nda";
        let mut read = Vec::new();
        let mut told = Vec::new();
        for byte in whole.bytes() {
            read.push(byte);
            told.extend(message(&mut read));
        }
        assert_eq!(told, [json!({"id": "e-1"}), json!({"id": "e-2"}), Value::Null]);
        assert_eq!(read, b"da");
    }
}
