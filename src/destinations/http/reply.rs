//! What a destination's answer means, and how much of it is read: enough to use the connection again and to show
//! an operator its beginning, never more.

use std::{fmt::Write, time::Duration};

use hookmill_actors::{
    domain::{limits::REPLY_EXCERPT_BYTES, secret::Secret},
    ports::transport::{AttemptReport, Timings, Verdict},
};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Response, StatusCode, Uri,
    body::{Body, Incoming},
    header::{LOCATION, RETRY_AFTER},
};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::super::retry_after;

/// Bytes of a reply that are read; beyond it the connection is dropped, which costs less than reading on.
const REPLY_BYTES_MAX: u64 = 64 << 10;
/// The verdict stands with the head, so a slow body may hold the delivery's place no longer than this.
const REPLY_BODY_WAIT: Duration = Duration::from_secs(2);

/// Stands in place of a reply that repeats a credential, as some services do with what they refuse.
const REPEATS: &str = "(not kept: it repeats a credential of the destination)";
/// Shorter texts occur by accident, and are no secrets.
const WITHHELD_BYTES_MIN: usize = 4;

/// What a destination is told, and must not be shown when it says it back.
#[derive(Default)]
pub(super) struct Withheld(Vec<Secret>);

impl Withheld {
    pub(super) fn new(secrets: impl Iterator<Item = Secret>) -> Self {
        Self(secrets.filter(|secret| secret.expose().len() >= WITHHELD_BYTES_MIN).collect())
    }

    /// Such as the pair of `Basic`, as it is sent.
    pub(super) fn add_last_word(&mut self, value: &[u8]) {
        let word = value.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        if word.len() >= WITHHELD_BYTES_MIN {
            self.0.push(Secret::new(word.to_vec()));
        }
    }

    /// Whether one of them is in it, as it is or escaped for JSON, or begins where it was cut off.
    fn occurs_in(&self, told: &[u8]) -> bool {
        let occurs = |secret: &[u8]| {
            let cut = (WITHHELD_BYTES_MIN..secret.len()).any(|length| told.ends_with(&secret[..length]));
            cut || told.windows(secret.len()).any(|window| window == secret)
        };
        self.0.iter().any(|secret| {
            let text = secret.expose_str().and_then(|text| serde_json::to_string(text).ok()).map(Zeroizing::new);
            occurs(secret.expose()) || text.is_some_and(|text| occurs(text[1..text.len() - 1].as_bytes()))
        })
    }
}

/// Judges by the status and reads the body until `deadline` at most. `now_ms` is for a `Retry-After` date.
pub(super) async fn judge(
    response: Response<Incoming>,
    timings: Timings,
    deadline: Instant,
    now_ms: u64,
    withheld: &Withheld,
) -> AttemptReport {
    let (head, body) = response.into_parts();
    let (verdict, error) = match head.status {
        status if status.is_success() => (Verdict::Delivered, None),
        StatusCode::GONE => (Verdict::Gone, Some("the destination answered 410 Gone: it wants no more".to_owned())),
        status => {
            let after = head.headers.get(RETRY_AFTER).and_then(|value| retry_after::parse(value.as_bytes(), now_ms));
            (Verdict::Retry { after }, Some(words(status, &head.headers)))
        }
    };
    let kept = if error.is_some() { REPLY_EXCERPT_BYTES } else { 0 };
    let beginning = read(body, kept, deadline.min(Instant::now() + REPLY_BODY_WAIT)).await;
    AttemptReport {
        verdict,
        status: Some(head.status.as_u16()),
        error,
        reply: match beginning.as_slice() {
            [] => None,
            told if withheld.occurs_in(told) => Some(REPEATS.to_owned()),
            told => Some(excerpt(told)),
        },
        timings,
    }
}

fn words(status: StatusCode, headers: &HeaderMap) -> String {
    // A proxy's word alone (RFC 9110, 15.5.8).
    let who = if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED { "proxy" } else { "destination" };
    let mut words = format!("the {who} answered {}", status.as_u16());
    if let Some(reason) = status.canonical_reason() {
        words.push(' ');
        words.push_str(reason);
    }
    if status.is_redirection() {
        words.push_str("; redirects are not followed");
        if let Some(host) = location_host(headers) {
            let _ = write!(words, " (this one leads to `{host}`)");
        }
    }
    words
}

/// Only the host: paths and queries of redirects hold tokens.
fn location_host(headers: &HeaderMap) -> Option<String> {
    let uri = Uri::try_from(headers.get(LOCATION)?.as_bytes()).ok()?;
    Some(uri.host()?.chars().take(100).collect())
}

/// Reads the body to its end and returns its first `kept` bytes. Gives up where it is too long, breaks or takes
/// too long; dropping it then closes the connection.
async fn read(mut body: Incoming, kept: usize, until: Instant) -> Vec<u8> {
    let mut beginning = Vec::new();
    if kept == 0 && body.size_hint().lower() > REPLY_BYTES_MAX {
        return beginning;
    }
    let mut total = 0;
    let read_all = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            beginning.extend_from_slice(&data[..data.len().min(kept - beginning.len())]);
            total += data.len() as u64;
            if total > REPLY_BYTES_MAX {
                break;
            }
        }
    };
    // What was read until then counts.
    let _ = timeout_at(until, read_all).await;
    beginning
}

/// The bytes as text of at most [`REPLY_EXCERPT_BYTES`], control characters escaped: it is shown in terminals.
fn excerpt(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        let before = text.len();
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
        if text.len() > REPLY_EXCERPT_BYTES {
            text.truncate(before);
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reply_that_repeats_a_credential_is_told_from_others() {
        let mut withheld = Withheld::new(["hush-\"hush\"", "abc"].map(Secret::new).into_iter());
        withheld.add_last_word(b"Basic dTpwbGFudGVk");
        for told in ["x hush-\"hush\" y", r#"{"a":"hush-\"hush\""}"#, "got dTpwbGFudGVk", "cut off at hush-"] {
            assert!(withheld.occurs_in(told.as_bytes()), "{told}");
        }
        for told in ["abc", "Basic", "hus", "hush hu", ""] {
            assert!(!withheld.occurs_in(told.as_bytes()), "{told}");
        }
    }

    #[test]
    fn an_excerpt_escapes_control_characters() {
        assert_eq!(excerpt(b"a\r\n\x1b[31m\x00\xff\xc3\xa9"), "a\\r\\n\\u{1b}[31m\\u{0}\u{fffd}\u{e9}");
    }

    proptest! {
        #[test]
        fn an_excerpt_is_bounded_and_clean(bytes in proptest::collection::vec(any::<u8>(), 0..2 * REPLY_EXCERPT_BYTES)) {
            let text = excerpt(&bytes);
            prop_assert!(text.len() <= REPLY_EXCERPT_BYTES);
            prop_assert!(!text.chars().any(char::is_control));
        }
    }

    #[test]
    fn a_redirect_shows_the_host_it_leads_to_and_no_more() {
        let text = |location: &'static str| {
            let headers = HeaderMap::from_iter([(LOCATION, hyper::header::HeaderValue::from_static(location))]);
            words(StatusCode::FOUND, &headers)
        };
        assert_eq!(
            text("https://user:pass@elsewhere.example/a?token=b"),
            "the destination answered 302 Found; redirects are not followed (this one leads to `elsewhere.example`)"
        );
        assert_eq!(text("/login"), "the destination answered 302 Found; redirects are not followed");
    }
}
