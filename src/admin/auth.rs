//! The gate that every request passes: request id, host, token, time, panic; and the headers of every reply.
//! Whatever is not named as open needs a token, paths that do not exist included.

mod hosts;
mod journal;
mod sign_ins;
mod source;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use hookmill_actors::{
    activity::from_source,
    allowance::Spent,
    domain::activity::{Activity, ActivityResult},
    ports::{clock::Clock, config_store::ConfigStore},
};
use tokio::time::Instant;
use tracing::Instrument;

pub(super) use self::{hosts::Hosts, journal::SignInJournal, sign_ins::FailedSignIns, source::TrustedProxies};
use super::{
    access::Access,
    openapi,
    problem::{Code, Problem},
};
use crate::{
    rate_headers,
    tokens::{Denied, Identity, SignIn, TokenRegistry},
};

/// The TCP peer of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Paths that need no token: they say whether hookmill works, and how one talks to it, and no more.
const OPEN: [&str; 4] = ["/healthz", "/readyz", openapi::PATH, "/api/v1/docs"];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// As long as a preset token may be.
const TOKEN_BYTES_MAX: usize = crate::secrets::TOKEN_BYTES_MAX;

/// What the gate needs.
pub(super) struct Gate {
    pub(super) tokens: Arc<TokenRegistry>,
    pub(super) hosts: Hosts,
    pub(super) sign_ins: FailedSignIns,
    pub(super) proxies: TrustedProxies,
    pub(super) journal: Arc<SignInJournal>,
    pub(super) request_timeout: Duration,
    pub(super) audit: Arc<dyn ConfigStore>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The middleware around all routes.
pub(super) async fn gate(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let id = format!("{:016x}", fastrand::u64(..));
    let span = tracing::info_span!("admin", request_id = id);
    let mut response = gate.guarded(request, next).instrument(span).await;
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl Gate {
    async fn guarded(&self, mut request: Request, next: Next) -> Response {
        let started = Instant::now();
        let method = request.method().clone();
        let path = quoted_path(request.uri());
        let peer = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let source = self.proxies.source(peer, request.headers());
        let sign_in = match self.admitted(&request, source) {
            Ok(sign_in) => sign_in,
            Err(problem) => {
                if matches!(problem.code, Code::Unauthorized | Code::RateLimited)
                    && let Some(activity) = self.journal.failed(source, self.clock.now_ms())
                {
                    note(&*self.audit, vec![activity]).await;
                }
                return problem.into_response();
            }
        };
        let Some(sign_in) = sign_in else { return self.answered(request, next).await };
        let taken = match sign_in.take(Instant::now()) {
            Ok(taken) => taken,
            Err(spent) => return self.spent(&sign_in.identity, spent),
        };
        request.extensions_mut().insert(Access(sign_in.identity.clone()));
        let mut response = from_source(source, self.answered(request, next)).await;
        rate_headers::of_taken(response.headers_mut(), taken, self.clock.now_ms());
        let status = response.status();
        let author = &sign_in.identity.name;
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(%method, path, status = status.as_u16(), ms, author, from = %source, "admin request");
        if writes(&method) && (status.is_client_error() || status.is_server_error()) {
            self.note_refusal(author.clone(), &method, &path, status.as_u16(), source).await;
        }
        response
    }

    /// Not audited: whoever asks too often would fill the log with it.
    fn spent(&self, identity: &Identity, spent: Spent) -> Response {
        let name = &identity.name;
        tracing::debug!(author = name, "an admin request is one too many");
        let limit = spent.limit;
        let problem = Problem {
            retry_after_s: Some(rate_headers::seconds(spent.one_in)),
            ..Problem::new(Code::RateLimited, format!("`{name}` may make {limit} requests a minute; wait a moment"))
        };
        let mut response = problem.into_response();
        rate_headers::of_spent(response.headers_mut(), spent, self.clock.now_ms());
        response
    }

    /// Whether the request may go on, and whose it is; open paths are nobody's.
    fn admitted(&self, request: &Request, source: IpAddr) -> Result<Option<SignIn>, Problem> {
        self.hosts.check(request)?;
        if is_open(request.uri().path()) {
            return Ok(None);
        }
        let denied = match presented(request).map(|token| self.tokens.check(token)) {
            Some(Ok(sign_in)) => return Ok(Some(sign_in)),
            Some(Err(denied)) => Some(denied),
            None => None,
        };
        match self.sign_ins.failed(source, Instant::now()) {
            Ok(()) => {
                tracing::warn!(peer = %source, reason = why_denied(denied), "admin sign-in failed");
                Err(Problem::new(Code::Unauthorized, why_denied(denied)))
            }
            Err(wait) => Err(Problem {
                retry_after_s: Some(wait.as_secs() + 1),
                ..Problem::new(Code::RateLimited, "too many failed sign-ins from this address")
            }),
        }
    }

    async fn answered(&self, request: Request, next: Next) -> Response {
        let work = AssertUnwindSafe(next.run(request)).catch_unwind();
        match tokio::time::timeout(self.request_timeout, work).await {
            Ok(Ok(response)) => response,
            // The panic hook has logged where; its text may hold anything and is not repeated.
            Ok(Err(_)) => Problem::internal(&"a handler panicked").into_response(),
            Err(_) => {
                let wait = self.request_timeout.as_secs();
                let detail = format!("not done after {wait} s; a change may have been made all the same, look again");
                Problem::new(Code::Unavailable, detail).into_response()
            }
        }
    }

    async fn note_refusal(&self, actor: String, method: &Method, path: &str, status: u16, source: IpAddr) {
        let activity = Activity {
            at_ms: self.clock.now_ms(),
            actor,
            source: Some(source),
            action: "request.refused".to_owned(),
            subject: format!("{method} {path}"),
            integration: None,
            result: ActivityResult::Refused,
            detail: format!("status {status}"),
        };
        note(&*self.audit, vec![activity]).await;
    }
}

/// Appends to the audit log. What was done stands, so a failure is only logged.
pub(super) async fn note(store: &dyn ConfigStore, activities: Vec<Activity>) {
    if let Err(error) = store.record_activity(activities).await {
        tracing::error!(%error, "activities could not be stored");
    }
}

/// Tells the audit log of failed sign-ins that were counted together.
pub(super) struct SignIns {
    pub(super) journal: Arc<SignInJournal>,
    pub(super) audit: Arc<dyn ConfigStore>,
    pub(super) clock: Arc<dyn Clock>,
}

impl SignIns {
    /// Never ends.
    pub(super) async fn tell_now_and_then(&self) {
        const EVERY: Duration = Duration::from_secs(60);
        loop {
            tokio::time::sleep(EVERY).await;
            self.tell(self.journal.due(self.clock.now_ms())).await;
        }
    }

    /// At a stop.
    pub(super) async fn tell_the_rest(&self) {
        self.tell(self.journal.rest(self.clock.now_ms())).await;
    }

    async fn tell(&self, activities: Vec<Activity>) {
        if !activities.is_empty() {
            note(&*self.audit, activities).await;
        }
    }
}

fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || path.starts_with(openapi::DOCS_PREFIX)
}

fn writes(method: &Method) -> bool {
    *method != Method::GET && *method != Method::HEAD
}

/// Without the query string, which may hold anything.
fn quoted_path(uri: &Uri) -> String {
    const PATH_CHARS_MAX: usize = 128;
    uri.path().chars().take(PATH_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// Of a token that was good once, or is ours but for a slip, more is told: only who has it can ask.
fn why_denied(denied: Option<Denied>) -> String {
    match denied {
        None => "give `authorization: Bearer <token>` with a valid token".to_owned(),
        Some(denied) => format!("the token is {denied}"),
    }
}

/// The token, where there is exactly one.
fn presented(request: &Request) -> Option<&str> {
    let mut lines = request.headers().get_all(header::AUTHORIZATION).iter();
    let line = lines.next()?.to_str().ok()?;
    let (scheme, token) = line.split_once(' ')?;
    let token = token.trim();
    let sound = lines.next().is_none()
        && scheme.eq_ignore_ascii_case("bearer")
        && !token.is_empty()
        && token.len() <= TOKEN_BYTES_MAX;
    sound.then_some(token)
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::StatusCode, routing::get};
    use tower::ServiceExt;

    use super::{
        super::{
            access::Author,
            testing::{FixedClock, MemoryAudit, TOKEN, one_token, tokens_with},
        },
        *,
    };

    fn gated(audit: Arc<MemoryAudit>) -> Router {
        gated_with(audit, one_token())
    }

    fn gated_with(audit: Arc<MemoryAudit>, tokens: Arc<TokenRegistry>) -> Router {
        let gate_state = Gate {
            tokens,
            hosts: Hosts::new(Ipv4Addr::new(10, 0, 0, 7).into(), &["Hooks.Example.Com".to_owned()]),
            sign_ins: FailedSignIns::new(),
            proxies: TrustedProxies::new(vec!["192.0.2.1/32".parse().expect("a network")]),
            journal: Arc::default(),
            request_timeout: Duration::from_secs(5),
            audit,
            clock: Arc::new(FixedClock(1_000)),
        };
        Router::new()
            .route("/healthz", get(async || "alive"))
            .route("/whoami", get(async |Author(author): Author| author).post(async || StatusCode::CONFLICT))
            .route("/panic", get(async || -> StatusCode { panic!("{}", "a secret in a panic") }))
            .route("/slow", get(async || tokio::time::sleep(Duration::from_mins(1)).await))
            .layer(axum::middleware::from_fn_with_state(Arc::new(gate_state), gate))
    }

    fn request(method: &str, path: &str, host: &str, authorization: Option<&str>) -> Request {
        let mut request = axum::http::Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let mut request = request.body(Body::empty()).expect("the request is well formed");
        request.extensions_mut().insert(Peer(SocketAddr::from(([192, 0, 2, 1], 4711))));
        request
    }

    async fn status(app: &Router, request: Request) -> StatusCode {
        let response = app.clone().oneshot(request).await.expect("the router cannot fail");
        assert!(response.headers().contains_key("x-request-id"));
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        response.status()
    }

    fn bearer() -> String {
        format!("Bearer {TOKEN}")
    }

    #[tokio::test]
    async fn only_a_valid_token_passes_and_health_needs_none() {
        let app = gated(Arc::default());
        assert_eq!(status(&app, request("GET", "/healthz", "localhost", None)).await, StatusCode::OK);
        for right in [bearer(), format!("bearer {TOKEN}")] {
            assert_eq!(status(&app, request("GET", "/whoami", "localhost", Some(&right))).await, StatusCode::OK);
        }
        for path in ["/whoami", "/nothing-here", "/healthz/x"] {
            let refused = status(&app, request("GET", path, "localhost", None)).await;
            assert_eq!(refused, StatusCode::UNAUTHORIZED, "{path}");
        }
        for wrong in ["Bearer", "Bearer ", "Bearer hm_wrong", TOKEN, &format!("Basic {TOKEN}")] {
            let refused = status(&app, request("GET", "/whoami", "localhost", Some(wrong))).await;
            assert_eq!(refused, StatusCode::UNAUTHORIZED, "{wrong}");
        }
        let mut twice = request("GET", "/whoami", "localhost", Some(&bearer()));
        twice.headers_mut().append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(status(&app, twice).await, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn only_known_hosts_are_answered() {
        let app = gated(Arc::default());
        for right in ["localhost:8081", "127.0.0.1", "[::1]:8081", "10.0.0.7:8081", "hooks.example.com", "LOCALHOST."] {
            assert_eq!(status(&app, request("GET", "/healthz", right, None)).await, StatusCode::OK, "{right}");
        }
        for wrong in
            ["evil.example", "10.0.0.8", "localhost.evil.example", "localhost:x", "[::2]", "", "127.0.0.1.evil"]
        {
            let refused = status(&app, request("GET", "/healthz", wrong, None)).await;
            assert_eq!(refused, StatusCode::MISDIRECTED_REQUEST, "{wrong}");
        }
        let mut twice = request("GET", "/healthz", "localhost", None);
        twice.headers_mut().append(header::HOST, HeaderValue::from_static("localhost"));
        assert_eq!(status(&app, twice).await, StatusCode::BAD_REQUEST);
        let absolute = request("GET", "http://evil.example/healthz", "localhost", None);
        assert_eq!(status(&app, absolute).await, StatusCode::MISDIRECTED_REQUEST);
    }

    #[tokio::test]
    async fn failed_sign_ins_are_limited_and_lock_nobody_out() {
        let app = gated(Arc::default());
        for _ in 0..10 {
            assert_eq!(status(&app, request("GET", "/whoami", "localhost", None)).await, StatusCode::UNAUTHORIZED);
        }
        let refused = app.clone().oneshot(request("GET", "/whoami", "localhost", None)).await.expect("infallible");
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
        let right = status(&app, request("GET", "/whoami", "localhost", Some(&bearer()))).await;
        assert_eq!(right, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_told_what_it_has_left_and_waits_when_it_is_spent() {
        let audit = Arc::<MemoryAudit>::default();
        let app = gated_with(audit.clone(), tokens_with(60));
        let ask = async |method, path| {
            app.clone().oneshot(request(method, path, "localhost", Some(&bearer()))).await.expect("infallible")
        };
        let told = |response: &Response| {
            ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
                .map(|name| response.headers()[name].to_str().expect("a number").to_owned())
        };
        for (path, status) in [("/whoami", StatusCode::OK), ("/missing", StatusCode::NOT_FOUND)] {
            assert_eq!(ask("GET", path).await.status(), status);
        }
        // The clock of the gate stands at second 1.
        assert_eq!(told(&ask("POST", "/whoami").await), ["60", "57", "4"]);
        for _ in 0..57 {
            ask("GET", "/whoami").await;
        }
        let noted = audit.entries().len();
        let refused = ask("POST", "/whoami").await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        assert_eq!(told(&refused), ["60", "0", "61"]);
        assert_eq!(audit.entries().len(), noted, "it is not audited");
        for open in ["/healthz"] {
            let health = app.clone().oneshot(request("GET", open, "localhost", None)).await.expect("infallible");
            assert_eq!(health.status(), StatusCode::OK);
            assert!(!health.headers().contains_key("x-ratelimit-limit"));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ask("GET", "/whoami").await.status(), StatusCode::OK);
        assert_eq!(ask("GET", "/whoami").await.status(), StatusCode::TOO_MANY_REQUESTS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_a_hang_become_replies() {
        let app = gated(Arc::default());
        let response = app.clone().oneshot(request("GET", "/panic", "localhost", Some(&bearer()))).await;
        let response = response.expect("the panic is caught");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.expect("in memory");
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
        let hung = status(&app, request("GET", "/slow", "localhost", Some(&bearer()))).await;
        assert_eq!(hung, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_refused_write_is_audited_and_a_refused_read_is_not() {
        let audit = Arc::<MemoryAudit>::default();
        let app = gated(audit.clone());
        let mut forwarded = request("POST", "/whoami?token=hidden", "localhost", Some(&bearer()));
        forwarded.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("198.51.100.7"));
        status(&app, forwarded).await;
        status(&app, request("GET", "/missing", "localhost", Some(&bearer()))).await;
        let entries = audit.entries();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].action, "request.refused");
        assert_eq!(entries[0].subject, "POST /whoami");
        assert_eq!(entries[0].detail, "status 409");
        assert_eq!(entries[0].source, Some([198, 51, 100, 7].into()));
    }

    #[tokio::test]
    async fn failed_sign_ins_are_audited_together() {
        let audit = Arc::<MemoryAudit>::default();
        let app = gated(audit.clone());
        for _ in 0..50 {
            status(&app, request("GET", "/whoami", "localhost", Some("Bearer hm_wrong"))).await;
        }
        let entries = audit.entries();
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!((entries[0].action.as_str(), entries[0].source), ("sign_in.failed", Some([192, 0, 2, 1].into())));
        assert!(!format!("{entries:?}").contains("hm_wrong"));
    }
}
