//! Posts events to a service of this machine, signed by Standard Webhooks as destinations are.

use std::{fmt, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use hookmill_actors::{domain::secret::Secret, ports::provider::Provider};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, Uri, header};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use crate::cli::{
    UsageError,
    client::{
        ApiError, Call, Client,
        http::{self, HttpClient},
        is_not_found, segment,
    },
    show::escaped,
    verify::{now_ms, provider},
};

/// As a destination would wait.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(30);
const REPLY_BYTES_MAX: usize = 1 << 20;
/// How deliveries are signed.
const SCHEME: &str = "standard_webhooks";

/// See the module.
pub(super) struct Forwarder {
    url: Uri,
    secret: Secret,
    scheme: &'static dyn Provider,
    http: HttpClient,
}

/// An event, ready to be posted.
pub(super) struct Fetched {
    id: String,
    content_type: String,
    body: Bytes,
}

/// What became of a post.
pub(super) enum Answer {
    /// The service replied.
    Replied { status: StatusCode, took: Duration },
    /// It did not.
    Failed(String),
    /// There was nothing to post any more.
    Gone,
}

impl Forwarder {
    pub(super) fn new(url: Uri, secret: Secret) -> anyhow::Result<Self> {
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
            return Err(UsageError::new(format!("`{url}` is no URL to post to, such as http://localhost:3000/hooks")));
        }
        let scheme = provider(SCHEME)?;
        // Tried before anything is posted.
        scheme
            .sign(&Map::new(), &secret, "id", b"", now_ms())
            .map_err(|error| UsageError::new(format!("nothing can be signed with this secret: {error}")))?;
        Ok(Self { url, secret, scheme, http: http::client(None)? })
    }

    /// Its body and type; nothing where it is no longer there.
    pub(super) async fn fetched(&self, client: &Client, item: &Value) -> Result<Option<Fetched>, ApiError> {
        let id = item["id"].as_str().unwrap_or_default();
        let path = format!("/events/{}", segment(id));
        let found = async {
            let event = client.json(Call::get(path.clone())).await?;
            let body = client.bytes(Call::get(format!("{path}/body"))).await?;
            let content_type = event["content_type"].as_str().unwrap_or("application/octet-stream").to_owned();
            Ok(Fetched { id: id.to_owned(), content_type, body })
        };
        match found.await {
            Ok(event) => Ok(Some(event)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn post(&self, event: Fetched) -> Answer {
        let request = match self.request(event) {
            Ok(request) => request,
            Err(error) => return Answer::Failed(format!("{error:#}")),
        };
        let started = Instant::now();
        let exchange = async {
            let reply = self.http.request(request).await?;
            let status = reply.status();
            // Read to its end, so that the connection can be used again.
            let _ = Limited::new(reply.into_body(), REPLY_BYTES_MAX).collect().await;
            Ok::<_, hyper_util::client::legacy::Error>(status)
        };
        match timeout(REPLY_WAIT_MAX, exchange).await {
            Ok(Ok(status)) => Answer::Replied { status, took: started.elapsed() },
            Ok(Err(error)) => Answer::Failed(ApiError::unreachable(&self.url.to_string(), &error).to_string()),
            Err(_) => Answer::Failed(format!("no reply within {} s", REPLY_WAIT_MAX.as_secs())),
        }
    }

    fn request(&self, event: Fetched) -> anyhow::Result<Request<Full<Bytes>>> {
        let signed = self.scheme.sign(&Map::new(), &self.secret, &event.id, &event.body, now_ms());
        let signed = signed.map_err(|error| anyhow::anyhow!("it cannot be signed: {error}"))?;
        let mut request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, event.content_type)
            .header(header::USER_AGENT, http::USER_AGENT);
        for (name, value) in &signed.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(event.body)).context("this makes no HTTP request")
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replied { status, took } => {
                write!(f, "{} {}", status.as_str(), status.canonical_reason().unwrap_or_default())?;
                write!(f, " in {} ms", took.as_millis())
            }
            Self::Failed(problem) => f.write_str(&escaped(problem)),
            Self::Gone => f.write_str("no longer there"),
        }
    }
}
