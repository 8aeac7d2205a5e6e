//! The admin HTTP API, on a port of its own: what operators configure, and what became of their events.
//! It talks to the tree through [`TreeHandle`] and to nobody else. It owns connections and nothing durable: a crash
//! of a handler costs its request.
//!
//! Every request passes the gate in `auth`; every body is read by `json`, `form` and `fields`; every refusal is made in
//! `problem`. Each resource has one file: read, merge and show are pure functions there.

mod access;
mod activities;
mod apply;
mod auth;
mod backup;
mod change;
mod comment;
mod connection_tests;
mod deadletters;
mod deleted;
mod destinations;
mod events;
mod fields;
mod flow;
mod form;
mod idempotency;
mod integrations;
mod json;
mod keys;
mod merge;
mod metrics;
mod openapi;
mod original;
mod paging;
mod problem;
mod providers;
mod redact;
mod rejections;
mod replays;
mod resource;
mod restart;
mod routes;
mod serve;
mod setup;
mod status;
mod subscriptions;
mod table;
mod tasks;
#[cfg(test)]
mod testing;
mod tokens;
mod tools;
mod turns;
mod verification;
mod versions;
#[cfg(test)]
mod walkthrough;
mod webhooks;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{from_fn, from_fn_with_state},
};
use hookmill_actors::{
    ports::{provider::Providers, sealer::Sealer},
    tree::TreeHandle,
};
use ipnet::IpNet;
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use self::{
    access::{Access, Admits},
    auth::{FailedSignIns, Gate, Hosts, SignIns, TrustedProxies},
    idempotency::{Replies, ReplyPorts},
    problem::{Code, Problem},
    routes::routes,
    table::Methods,
    tools::Tools,
};
pub use self::{
    backup::{BackupAdmin, Chunks},
    keys::{KeyAdmin, KeysView, rotation_json},
    openapi::openapi_json,
    subscriptions::SubscriptionDefaults,
    tools::{DestinationRules, Keys, SecretTools},
    webhooks::BODY_BYTES_MAX as ENDPOINT_BODY_BYTES_MAX,
};
use crate::{connections::Connections, rejections::Rejections, replies::ReplyStore, tokens::TokenRegistry};

/// How the API listens.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// Where; port 0 takes a free one.
    pub address: SocketAddr,
    /// The largest body, bytes.
    pub body_bytes_max: usize,
    /// A request that is not answered by then is answered 503.
    pub request_timeout: Duration,
    /// Host names it answers to, beside loopback and the address it is bound to.
    pub allowed_hosts: Vec<String>,
    /// Proxies whose `x-forwarded-for` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8081)),
            body_bytes_max: 256 * 1024,
            request_timeout: Duration::from_secs(30),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// The members of a collection's resources that nobody sets, as replies show them: `integrations`, `webhooks`,
/// `destinations`, `subscriptions`.
pub fn read_only(collection: &str) -> &'static [&'static str] {
    use hookmill_actors::domain::config::{Destination, Endpoint, Integration, Subscription};
    use resource::Managed;
    let all = [
        (Integration::COLLECTION, Integration::READ_ONLY),
        (Endpoint::COLLECTION, Endpoint::READ_ONLY),
        (Destination::COLLECTION, Destination::READ_ONLY),
        (Subscription::COLLECTION, Subscription::READ_ONLY),
    ];
    all.into_iter().find(|(name, _)| *name == collection).map_or(&[], |(_, members)| members)
}

/// Tells why hookmill cannot take webhooks now; nothing when it can.
pub type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What the API needs of the outside.
#[derive(Clone)]
pub struct AdminPorts {
    /// The running tree.
    pub tree: TreeHandle,
    /// Seals what must not be stored in clear.
    pub sealer: Arc<dyn Sealer>,
    /// The provider registry.
    pub providers: Arc<dyn Providers>,
    /// The destination registry.
    pub destinations: Arc<dyn DestinationRules>,
    /// Who may come in.
    pub tokens: Arc<TokenRegistry>,
    /// Whether webhooks can be taken now.
    pub readiness: Readiness,
    /// Random bytes and fingerprints.
    pub secrets: Arc<dyn SecretTools>,
    /// The key ring.
    pub keys: Arc<dyn KeyAdmin>,
    /// Backups.
    pub backup: Arc<dyn BackupAdmin>,
    /// The connection tests.
    pub connections: Connections,
    /// What a subscription gets that does not say otherwise.
    pub subscription_defaults: SubscriptionDefaults,
    /// What the ingress refused.
    pub rejections: Rejections,
    /// Where replies to requests with a key are kept.
    pub replies: Arc<dyn ReplyStore>,
}

/// What handlers share. No handler takes it as it is: [`access::State`] makes an [`Api`] of it.
#[derive(Clone)]
struct Shared(Api);

/// What a handler works with.
#[derive(Clone)]
struct Api {
    tree: TreeHandle,
    tools: Tools,
    tokens: Arc<TokenRegistry>,
    readiness: Readiness,
    keys: Arc<dyn KeyAdmin>,
    backup: Arc<dyn BackupAdmin>,
    subscription_defaults: SubscriptionDefaults,
    /// Places for destination tests under way.
    tests: Arc<Semaphore>,
    /// Places for replies without an end in sight.
    streams: Arc<Semaphore>,
    rejections: Rejections,
    /// Places for explanations of signatures under way.
    explanations: Arc<Semaphore>,
    /// Places for requests that run a filter over many events.
    scans: Arc<Semaphore>,
    /// Cancelled at a stop, for replies that would not end by themselves.
    stopping: CancellationToken,
    turns: turns::Turns,
    /// Whose request it is.
    access: Option<Access>,
}

/// What is said of a path that is in no version's table but maybe a later one's.
pub(crate) const NO_SUCH_PATH: &str = "the admin API has no such path";

/// Exports and live tails at once: each holds a connection and asks the store for as long as its reader likes.
const STREAMS_MAX: usize = 32;
/// Each may hold a processor for half a second.
const SCANS_MAX: usize = 2;

impl Api {
    fn test_places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(destinations::test::TESTS_MAX))
    }

    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64 {
        self.tree.ports().clock.now_ms()
    }

    fn explanation_places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(verification::EXPLANATIONS_MAX))
    }

    fn scan_places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(SCANS_MAX))
    }

    /// A place for a request that runs a filter over many events.
    fn scan_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy =
            || Problem::new(Code::Busy, format!("{SCANS_MAX} scans with `where` are under way; try again shortly"));
        self.scans.clone().try_acquire_owned().map_err(|_| busy())
    }

    fn stream_places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(STREAMS_MAX))
    }

    /// A place for a reply that may take long, held until it is dropped.
    fn stream_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = || Problem::new(Code::Busy, format!("{STREAMS_MAX} exports and streams are open; try again later"));
        self.streams.clone().try_acquire_owned().map_err(|_| busy())
    }
}

/// A bound, not yet serving API.
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    sign_ins: SignIns,
    stopping: CancellationToken,
}

impl AdminServer {
    /// Takes the address, so that a taken port is known before anything else starts.
    pub async fn bind(options: AdminOptions, ports: AdminPorts) -> io::Result<Self> {
        let listener = TcpListener::bind(options.address).await?;
        let address = listener.local_addr()?;
        let gate = Gate {
            tokens: ports.tokens.clone(),
            hosts: Hosts::new(address.ip(), &options.allowed_hosts),
            sign_ins: FailedSignIns::new(),
            proxies: TrustedProxies::new(options.trusted_proxies.clone()),
            journal: Arc::default(),
            request_timeout: options.request_timeout,
            audit: ports.tree.ports().config.clone(),
            clock: ports.tree.ports().clock.clone(),
        };
        let stopping = CancellationToken::new();
        let replies =
            ReplyPorts { store: ports.replies, sealer: ports.sealer.clone(), clock: ports.tree.ports().clock.clone() };
        let replies = tokio::task::spawn_blocking(move || Replies::load(replies)).await?.map_err(io::Error::other)?;
        let tools = Tools {
            sealer: ports.sealer,
            providers: ports.providers,
            destinations: ports.destinations,
            secrets: ports.secrets,
            connections: ports.connections,
        };
        let api = Api {
            tree: ports.tree,
            tools,
            tokens: ports.tokens,
            readiness: ports.readiness,
            keys: ports.keys,
            backup: ports.backup,
            subscription_defaults: ports.subscription_defaults,
            tests: Api::test_places(),
            turns: turns::Turns::default(),
            streams: Api::stream_places(),
            rejections: ports.rejections,
            explanations: Api::explanation_places(),
            scans: Api::scan_places(),
            stopping: stopping.clone(),
            access: None,
        };
        let sign_ins = SignIns { journal: gate.journal.clone(), audit: gate.audit.clone(), clock: gate.clock.clone() };
        let router = router(routes(), Shared(api), gate, replies, options.body_bytes_max);
        Ok(Self { listener, address, router, sign_ins, stopping })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` resolves, then finishes what is under way, for a bounded time.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let shutdown = async {
            shutdown.await;
            self.stopping.cancel();
        };
        tokio::select! {
            () = serve::until(self.listener, self.router, shutdown) => {}
            () = self.sign_ins.tell_now_and_then() => {}
        }
        self.sign_ins.tell_the_rest().await;
    }
}

fn router<S: Admits>(
    table: impl IntoIterator<Item = (&'static str, Methods<S>)>,
    state: S,
    gate: Gate,
    replies: Replies,
    body_bytes_max: usize,
) -> Router {
    let mut router = Router::new();
    for (path, methods) in table {
        router = methods.put_on(router, path, &state);
    }
    router
        .fallback(async || Problem::new(Code::NotFound, NO_SUCH_PATH))
        .method_not_allowed_fallback(async |request: Request| {
            Problem::new(Code::MethodNotAllowed, format!("`{}` is not possible here; see `allow`", request.method()))
        })
        .with_state(state)
        .layer(from_fn(comment::layer))
        .layer(from_fn_with_state(replies, idempotency::layer))
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(from_fn_with_state(Arc::new(gate), auth::gate))
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Method, Response, StatusCode, header},
    };
    use tower::ServiceExt;

    use super::{
        testing::{FixedClock, MemoryAudit, TOKEN, no_replies, one_token},
        *,
    };
    use crate::tokens::Role::{Manager, Viewer};

    /// Serves what belongs to nobody.
    impl Admits for () {
        async fn look_at(&self, _: &Access, _: access::Kind, _: &str, _: &Method) -> Result<(), Problem> {
            Ok(())
        }
    }

    fn app() -> Router {
        let gate = Gate {
            tokens: one_token(),
            hosts: Hosts::new([127, 0, 0, 1].into(), &[]),
            sign_ins: FailedSignIns::new(),
            proxies: TrustedProxies::default(),
            journal: Arc::default(),
            request_timeout: Duration::from_secs(5),
            audit: Arc::new(MemoryAudit::default()),
            clock: Arc::new(FixedClock(0)),
        };
        let thing = || openapi::Doc::new("thing", "A thing");
        let echo = async |json::Json(body): json::Json| body.to_string();
        router(
            [("/api/v1/things", table::get(Viewer, async || "listed", thing).post(Manager, echo, thing))],
            (),
            gate,
            no_replies(),
            100,
        )
    }

    async fn send(method: &str, path: &str, body: String) -> Response<Body> {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .expect("the request is well formed");
        app().oneshot(request).await.expect("the router cannot fail")
    }

    #[tokio::test]
    async fn a_trailing_slash_makes_no_difference() {
        for path in ["/api/v1/things", "/api/v1/things/"] {
            assert_eq!(send("GET", path, String::new()).await.status(), StatusCode::OK, "{path}");
            assert_eq!(send("POST", path, "{}".to_owned()).await.status(), StatusCode::OK, "{path}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_and_what_is_not_possible_are_problems_too() {
        let missing = send("GET", "/api/v1/nothing", String::new()).await;
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        assert_eq!(missing.headers()[header::CONTENT_TYPE], "application/problem+json");
        let refused = send("DELETE", "/api/v1/things", String::new()).await;
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(refused.headers()[header::ALLOW], "GET,HEAD,POST");
        let preflight = send("OPTIONS", "/api/v1/things", String::new()).await;
        assert_eq!(preflight.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(!preflight.headers().keys().any(|name| name.as_str().starts_with("access-control-")));
    }

    #[tokio::test]
    async fn a_body_is_bounded() {
        let just = format!("\"{}\"", "x".repeat(98));
        assert_eq!(send("POST", "/api/v1/things", just.clone()).await.status(), StatusCode::OK);
        let refused = send("POST", "/api/v1/things", format!("{just} ")).await;
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn whoever_may_delete_may_restore() {
        let table = routes();
        let need = |path: &str, method: &Method| {
            let (_, methods) = table.iter().find(|(known, _)| *known == path).expect("it is there");
            methods.described().iter().find(|it| it.method == *method).map(|it| it.need)
        };
        let restores: Vec<&str> = table.iter().filter_map(|(path, _)| path.strip_suffix("/restore")).collect();
        assert!(restores.len() >= 2, "{restores:?}");
        for path in restores {
            assert_eq!(need(&format!("{path}/restore"), &Method::POST), need(path, &Method::DELETE), "{path}");
        }
    }

    #[test]
    fn every_path_is_versioned_or_health_or_the_original_s() {
        for (path, _) in routes() {
            let known = ["/api/v1/", "/integration-management/"].iter().any(|prefix| path.starts_with(prefix));
            assert!(known || ["/healthz", "/readyz"].contains(&path), "{path}");
        }
    }
}
