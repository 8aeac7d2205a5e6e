//! Runs signature test vectors: each is a configuration, a request, a time and the expected verdict.
//! The one place that knows how a vector's neutral configuration becomes our settings and secrets.

use std::{
    fmt,
    io::{self, Write},
    net::IpAddr,
    sync::Arc,
};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hookmill_actors::{
    domain::{
        event::{Arrival, Event},
        headers::HeaderBlock,
        ids::{EndpointId, EventId},
        secret::Secret,
    },
    ports::provider::{InboundRequest, Provider, Providers, Reply, SettingsError, Verifier},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::providers::registry;

/// A body of a vector is at most so long, bytes.
const BODY_BYTES_MAX: usize = 64 << 20;

/// One vector. Members that are not listed are for people.
#[derive(Deserialize)]
pub struct Vector {
    /// Its name.
    pub id: String,
    /// The scheme's name.
    pub provider: String,
    config: Map<String, Value>,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    remote_addr: IpAddr,
    body_base64: Option<String>,
    body_repeat: Option<Repeat>,
    now: u64,
    expect: Expect,
    reply: Option<WantedReply>,
    event_id: Option<String>,
    event_type: Option<String>,
    #[serde(default)]
    contested: bool,
}

/// A body that is one piece many times.
#[derive(Deserialize)]
struct Repeat {
    byte_base64: String,
    times: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Accept,
    Reject,
    Handshake,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Handshake => "handshake",
        })
    }
}

#[derive(Deserialize)]
struct WantedReply {
    status: Option<u16>,
    body: Option<String>,
    content_type: Option<String>,
}

/// What became of a vector.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Passed,
    /// Not as expected, in a matter of taste.
    Contested(String),
    /// Not as expected: `expected ..., got ...`.
    Mismatch(String),
    /// Not run.
    Skipped(String),
}

impl Vector {
    /// Runs it against a registry, at its own time.
    pub fn check(&self, providers: &dyn Providers) -> Verdict {
        let Some(provider) = providers.get(&self.provider) else {
            return Verdict::Skipped(format!("there is no provider `{}`", self.provider));
        };
        let body = match self.body() {
            Ok(body) => body,
            Err(error) => return Verdict::Skipped(format!("its body cannot be made: {error:#}")),
        };
        match self.mismatch(provider, &body) {
            None => Verdict::Passed,
            Some(difference) if self.contested => Verdict::Contested(difference),
            Some(difference) => Verdict::Mismatch(difference),
        }
    }

    /// How the outcome differs from the expected one.
    fn mismatch(&self, provider: &'static dyn Provider, body: &[u8]) -> Option<String> {
        let mut settings = self.config.clone();
        let outcome = match Self::verifier(provider, &mut settings) {
            Ok(verifier) => self.ask(&*verifier, body),
            // An endpoint without a usable secret lets nobody in.
            Err(error) if error.field.starts_with("secrets") => Outcome::Refused(error.to_string()),
            Err(error) => return Some(format!("expected {}, got settings refused: {error}", self.expect)),
        };
        match (self.expect, outcome) {
            (Expect::Accept, Outcome::Accepted) => self.identity_mismatch(provider, &settings, body),
            (Expect::Reject, Outcome::Refused(_)) => None,
            (Expect::Handshake, Outcome::Handshake(reply)) => self.reply_mismatch(&reply),
            (expected, outcome) => Some(format!("expected {expected}, got {outcome}")),
        }
    }

    /// The endpoint that a configuration describes: `secrets` are the secrets, and are taken out; all other
    /// members are settings.
    fn verifier(
        provider: &'static dyn Provider,
        settings: &mut Map<String, Value>,
    ) -> Result<Arc<dyn Verifier>, SettingsError> {
        let secrets: Vec<Secret> = match settings.remove("secrets") {
            Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).map(Secret::new).collect(),
            _ => Vec::new(),
        };
        let mut made = provider.verifier(settings, &secrets);
        // Any vector may carry these two, also where the scheme has no use for them.
        for common in ["tolerance_s", "public_url"] {
            if settings.contains_key(common) && matches!(&made, Err(error) if error.field == common) {
                settings.remove(common);
                made = provider.verifier(settings, &secrets);
            }
        }
        made
    }

    /// What an endpoint answers, in the order that the port demands.
    fn ask(&self, verifier: &dyn Verifier, body: &[u8]) -> Outcome {
        let headers = self.header_block();
        let request = InboundRequest {
            method: &self.method,
            target: &self.target,
            headers: &headers,
            body,
            peer: self.remote_addr,
        };
        if self.method == "GET" && verifier.answers_get() {
            let refused = || Outcome::Refused("no answer to this handshake".into());
            return verifier.handshake(&request).map_or_else(refused, Outcome::Handshake);
        }
        match verifier.verify(&request, self.now.saturating_mul(1_000)) {
            Err(refusal) => Outcome::Refused(refusal.to_string()),
            Ok(_) => verifier.handshake(&request).map_or(Outcome::Accepted, Outcome::Handshake),
        }
    }

    fn identity_mismatch(
        &self,
        provider: &'static dyn Provider,
        settings: &Map<String, Value>,
        body: &[u8],
    ) -> Option<String> {
        let event = Event {
            id: EventId::ZERO,
            arrival: Arrival {
                endpoint: EndpointId(0),
                received_at_ms: self.now.saturating_mul(1_000),
                accepted_version: 0,
                peer: self.remote_addr,
                hops: 0,
                query: self.target.split_once('?').map_or("", |(_, query)| query).into(),
                headers: self.header_block(),
                body: Bytes::copy_from_slice(body),
            },
        };
        let identity = provider.identify(settings, &event);
        let table = [
            ("event_id", &self.event_id, identity.provider_id.as_deref()),
            ("event_type", &self.event_type, identity.event_type.as_deref()),
        ];
        table.into_iter().find_map(|(name, expected, got)| {
            let expected = expected.as_deref()?;
            (got != Some(expected)).then(|| format!("expected {name} {expected:?}, got {got:?}"))
        })
    }

    fn reply_mismatch(&self, reply: &Reply) -> Option<String> {
        let wanted = self.reply.as_ref()?;
        let body = String::from_utf8_lossy(&reply.body);
        // Parameters such as `charset` are ours to choose.
        let media_type = reply.content_type.split(';').next().unwrap_or_default();
        if wanted.status.is_some_and(|status| status != reply.status) {
            return Some(format!("expected reply status {:?}, got {}", wanted.status, reply.status));
        }
        if wanted.body.as_ref().is_some_and(|wanted| *wanted != body) {
            return Some(format!("expected reply {:?}, got {body:?}", wanted.body));
        }
        if wanted.content_type.as_ref().is_some_and(|wanted| wanted.split(';').next() != Some(media_type)) {
            return Some(format!("expected reply type {:?}, got {:?}", wanted.content_type, reply.content_type));
        }
        None
    }

    /// Header lines as a server hands them on: without the spaces around values.
    fn header_block(&self) -> HeaderBlock {
        let trim = |value: &str| value.trim_matches([' ', '\t']).to_owned();
        let lines: Vec<(&str, String)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), trim(value))).collect();
        HeaderBlock::from_lines(lines.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    fn body(&self) -> anyhow::Result<Vec<u8>> {
        match (&self.body_base64, &self.body_repeat) {
            (Some(text), None) => Ok(BASE64_STANDARD.decode(text)?),
            (None, Some(repeat)) => {
                let piece = BASE64_STANDARD.decode(&repeat.byte_base64)?;
                let length = piece.len().checked_mul(repeat.times).filter(|length| *length <= BODY_BYTES_MAX);
                length.context("it is too long")?;
                Ok(piece.repeat(repeat.times))
            }
            (None, None) => Ok(Vec::new()),
            (Some(_), Some(_)) => anyhow::bail!("both `body_base64` and `body_repeat` are given"),
        }
    }
}

/// What an endpoint made of a request.
enum Outcome {
    Accepted,
    Refused(String),
    Handshake(Reply),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accept"),
            Self::Refused(why) => write!(f, "reject ({why})"),
            Self::Handshake(reply) => write!(f, "handshake (status {})", reply.status),
        }
    }
}

/// Runs a file of vectors, a line each and a last line of counts; whether none differs.
pub(super) fn run(file: &[u8], out: &mut impl Write) -> anyhow::Result<bool> {
    let vectors: Vec<Value> = serde_json::from_slice(file).context("the file is not a JSON array of vectors")?;
    let (mut passed, mut failed, mut skipped) = (0usize, 0usize, 0usize);
    for (place, value) in vectors.into_iter().enumerate() {
        let name = value.get("id").and_then(Value::as_str).map_or_else(|| format!("#{place}"), str::to_owned);
        let verdict = match serde_json::from_value::<Vector>(value) {
            Ok(vector) => vector.check(registry()),
            Err(error) => Verdict::Skipped(format!("it is not a vector: {error}")),
        };
        let count = match &verdict {
            Verdict::Passed => &mut passed,
            Verdict::Mismatch(_) => &mut failed,
            Verdict::Contested(_) | Verdict::Skipped(_) => &mut skipped,
        };
        *count += 1;
        print(&name, &verdict, out)?;
    }
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    Ok(failed == 0)
}

fn print(name: &str, verdict: &Verdict, out: &mut impl Write) -> io::Result<()> {
    match verdict {
        Verdict::Passed => writeln!(out, "ok {name}"),
        Verdict::Contested(difference) => writeln!(out, "SKIPPED {name}: contested: {difference}"),
        Verdict::Mismatch(difference) => writeln!(out, "MISMATCH {name}: {difference}"),
        Verdict::Skipped(reason) => writeln!(out, "SKIPPED {name}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vector(changes: Value) -> Value {
        let mut vector = json!({
            "id": "t/1", "provider": "none", "why": "", "config": {}, "method": "POST", "target": "/",
            "headers": [["A", " 1 "]], "remote_addr": "192.0.2.1", "body_base64": "e30=", "now": 1, "expect": "accept",
        });
        let (Value::Object(vector_members), Value::Object(changes)) = (&mut vector, changes) else {
            panic!("objects");
        };
        vector_members.extend(changes);
        vector
    }

    fn lines(vectors: &[Value]) -> (bool, Vec<String>) {
        let mut out = Vec::new();
        let is_well = run(&serde_json::to_vec(vectors).expect("json"), &mut out).expect("runs");
        (is_well, String::from_utf8(out).expect("text").lines().map(str::to_owned).collect())
    }

    #[test]
    fn a_line_for_each_and_the_counts() {
        let (is_well, lines) = lines(&[
            vector(json!({})),
            vector(json!({ "id": "t/2", "expect": "reject" })),
            vector(json!({ "id": "t/3", "expect": "reject", "contested": true })),
            vector(json!({ "id": "t/4", "provider": "no_such" })),
            vector(json!({ "id": "t/5", "event_id": "x" })),
            vector(json!({ "id": "t/6", "config": { "a": 1 }, "expect": "reject" })),
            vector(json!({ "id": "t/7", "provider": "github", "config": { "secrets": [""] }, "expect": "reject" })),
            json!({ "id": "t/8" }),
        ]);
        assert!(!is_well);
        assert_eq!(
            lines[..7],
            [
                "ok t/1",
                "MISMATCH t/2: expected reject, got accept",
                "SKIPPED t/3: contested: expected reject, got accept",
                "SKIPPED t/4: there is no provider `no_such`",
                "MISMATCH t/5: expected event_id \"x\", got None",
                "MISMATCH t/6: expected reject, got settings refused: `a`: is unknown; this provider has no settings",
                "ok t/7",
            ]
        );
        assert!(lines[7].starts_with("SKIPPED t/8: it is not a vector"));
        assert_eq!(lines[8], "2 passed, 3 failed, 3 skipped");
    }

    #[test]
    fn handshakes_are_compared_to_the_reply() {
        let hub = |reply: Value| {
            vector(json!({
                "provider": "generic_hmac", "method": "GET", "expect": "handshake", "reply": reply,
                "config": { "secrets": ["k"], "handshake": "hub.challenge", "verify_token": "t" },
                "target": "/?hub.mode=subscribe&hub.verify_token=t&hub.challenge=c",
            }))
        };
        assert!(lines(&[hub(json!({ "status": 200, "body": "c", "content_type": "text/plain" }))]).0);
        for reply in [json!({ "status": 201 }), json!({ "body": "d" }), json!({ "content_type": "text/html" })] {
            assert!(!lines(&[hub(reply)]).0);
        }
    }
}
