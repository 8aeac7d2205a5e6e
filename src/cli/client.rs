//! The way to a server's admin API: one request, one reply, bounded in time and size. Says of every failure what was
//! wrong and what to do next. It goes to no other host than the one it was made for: redirects are not followed.

mod error;
pub(super) mod http;

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use hookmill_actors::domain::secret::Secret;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, StatusCode, Uri,
    body::Incoming,
    header::{self, HeaderMap, HeaderValue},
};
use serde_json::Value;
use tokio::time::timeout;

pub(super) use self::error::{ApiError, EXIT_CONFLICT, EXIT_NOT_FOUND};
use self::{error::Refusal, http::HttpClient};

/// Where every path of the API begins.
const API: &str = "/api/v1";
/// The largest reply that is kept in memory: an event's body, or a page of a thousand items.
const REPLY_BYTES_MAX: usize = 128 << 20;
/// A refusal is small.
const PROBLEM_BYTES_MAX: usize = 1 << 20;

/// A server, and the right to talk to it.
#[derive(Debug)]
pub(super) struct Server {
    /// `http://host:port`, with what stands before `/api/v1`, without a slash at the end.
    pub(super) url: String,
    pub(super) token: Secret,
    /// PEM of the authorities to trust in place of the common ones.
    pub(super) authorities: Option<String>,
}

/// Talks to one server.
pub(super) struct Client {
    url: String,
    authorization: HeaderValue,
    http: HttpClient,
    wait_max: Duration,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Below `/api/v1`, segments encoded.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Option<Value>,
    /// The version that a change is based on.
    pub(super) if_version: Option<u64>,
    /// Makes a repeated `POST` one.
    pub(super) idempotency_key: Option<String>,
    /// What the author says of the change; it stays with the version.
    pub(super) comment: Option<String>,
}

impl Call {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            body: None,
            if_version: None,
            idempotency_key: None,
            comment: None,
        }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::POST, path) }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.to_owned(), value.into()));
        self
    }
}

impl Client {
    pub(super) fn new(server: &Server, wait_max: Duration) -> anyhow::Result<Self> {
        let bearer = [b"Bearer ", server.token.expose()].concat();
        let mut authorization = HeaderValue::from_bytes(&bearer)
            .ok()
            .context("the token holds characters that cannot be sent; a token is visible ASCII without spaces")?;
        authorization.set_sensitive(true);
        let http = http::client(server.authorities.as_deref())?;
        Ok(Self { url: server.url.clone(), authorization, http, wait_max })
    }

    /// The reply's JSON; `null` where there is none.
    pub(super) async fn json(&self, call: Call) -> Result<Value, ApiError> {
        let body = self.bytes(call).await?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| self.foreign("the reply is not JSON"))
    }

    /// The reply's bytes.
    pub(super) async fn bytes(&self, call: Call) -> Result<Bytes, ApiError> {
        let exchange = async {
            let body = self.begun(call).await?;
            self.collected(body, REPLY_BYTES_MAX).await
        };
        timeout(self.wait_max, exchange).await.map_err(|_| self.timed_out())?
    }

    /// A reply that goes on; only its beginning is bounded in time.
    pub(super) async fn stream(&self, call: Call) -> Result<Incoming, ApiError> {
        timeout(self.wait_max, self.begun(call)).await.map_err(|_| self.timed_out())?
    }

    async fn begun(&self, call: Call) -> Result<Incoming, ApiError> {
        let request = self.request(call)?;
        let reply = self.http.request(request).await.map_err(|error| ApiError::unreachable(&self.url, &error))?;
        if reply.status().is_success() {
            return Ok(reply.into_body());
        }
        let (head, body) = reply.into_parts();
        let body = self.collected(body, PROBLEM_BYTES_MAX).await?;
        Err(ApiError::Refused(Box::new(Refusal::read(head.status, &head.headers, &body))))
    }

    async fn collected(&self, body: Incoming, bytes_max: usize) -> Result<Bytes, ApiError> {
        match Limited::new(body, bytes_max).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(self.foreign(&format!("the reply is larger than {bytes_max} bytes")))
            }
            Err(error) => Err(ApiError::Broken { url: self.url.clone(), detail: error.to_string() }),
        }
    }

    fn request(&self, call: Call) -> Result<hyper::Request<Full<Bytes>>, ApiError> {
        let mut uri = format!("{}{API}{}", self.url, call.path);
        if !call.query.is_empty() {
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&call.query).finish();
            uri = format!("{uri}?{query}");
        }
        let uri: Uri = uri.parse().map_err(|_| self.foreign("the path makes no URL"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static(http::USER_AGENT));
        if let Some(version) = call.if_version {
            let tag = HeaderValue::try_from(format!("\"{version}\"")).expect("digits may stand in a header");
            headers.insert(header::IF_MATCH, tag);
        }
        if let Some(key) = call.idempotency_key {
            let key = HeaderValue::try_from(key).map_err(|_| self.foreign("the idempotency key is no header value"))?;
            headers.insert("idempotency-key", key);
        }
        if let Some(comment) = call.comment {
            let comment = HeaderValue::try_from(comment.into_bytes());
            headers.insert("hookmill-comment", comment.map_err(|_| self.foreign("the comment is no header value"))?);
        }
        let body = match call.body {
            Some(body) => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                body.to_string()
            }
            None => String::new(),
        };
        let mut request = hyper::Request::new(Full::from(body));
        *request.method_mut() = call.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn timed_out(&self) -> ApiError {
        ApiError::TimedOut { url: self.url.clone(), after_s: self.wait_max.as_secs() }
    }

    fn foreign(&self, detail: &str) -> ApiError {
        ApiError::Foreign { url: self.url.clone(), detail: detail.to_owned() }
    }
}

/// A URL of a server as people write it, made canonical.
pub(super) fn server_url(text: &str) -> Result<String, String> {
    let trimmed = text.trim().trim_end_matches('/');
    let trimmed = trimmed.strip_suffix(API).unwrap_or(trimmed).trim_end_matches('/');
    let wrong = |why: &str| Err(format!("`{text}` is no server's URL: {why}, such as https://hooks.example.com:8081"));
    let Ok(uri) = trimmed.parse::<Uri>() else { return wrong("it must be a URL") };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return wrong("it must begin with http:// or https://");
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => wrong("it must hold no user or password"),
        Some(authority) if !authority.host().is_empty() && uri.query().is_none() => Ok(trimmed.to_owned()),
        _ => wrong("it must be a host with nothing but a path behind it"),
    }
}

/// Whether a token would travel in clear over a network.
pub(super) fn is_in_clear(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback());
    uri.scheme_str() == Some("http") && !is_here
}

/// One segment of a path, encoded.
pub(super) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// PEM of authorities from a file.
pub(super) fn read_authorities(file: &Path) -> anyhow::Result<String> {
    const BYTES_MAX: u64 = 1 << 20;
    let bytes = super::verify::read(file, BYTES_MAX)?;
    String::from_utf8(bytes).ok().with_context(|| format!("{} is not PEM", file.display()))
}

/// Whether a refusal says that there is no such thing.
pub(super) fn is_not_found(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_s_url_is_a_host_and_maybe_a_path() {
        for (given, taken) in [
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("https://h.example/", "https://h.example"),
            ("https://h.example/hooks/api/v1/", "https://h.example/hooks"),
            (" http://[::1]:8081/api/v1", "http://[::1]:8081"),
        ] {
            assert_eq!(server_url(given).as_deref(), Ok(taken));
        }
        for wrong in ["h.example", "ftp://h", "http://", "https://u:p@h", "http://h/?a=1", ""] {
            assert!(server_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_loopback_may_hear_a_token_in_clear() {
        assert!(is_in_clear("http://h.example") && is_in_clear("http://10.0.0.1:8081"));
        for fine in ["https://h.example", "http://localhost:1", "http://127.0.0.9", "http://[::1]:8081"] {
            assert!(!is_in_clear(fine), "{fine}");
        }
    }

    #[test]
    fn a_segment_stays_one() {
        assert_eq!(segment("a/b ?#%é"), "a%2Fb%20%3F%23%25%C3%A9");
        assert_eq!(segment("01a20fd6-af3c_7.~"), "01a20fd6-af3c_7.~");
    }
}
