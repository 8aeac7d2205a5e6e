//! The admin HTTP API, on a port of its own: what operators configure, and what became of their events.
//! It talks to the tree through [`TreeHandle`] and to nobody else. It owns connections and nothing durable: a crash
//! of a handler costs its request.
//!
//! Every request passes the gate in `auth`; every body is read by `json`, `form` and `fields`; every refusal is made in
//! `problem`. Each resource has one file: read, merge and show are pure functions there.

mod auth;
mod deadletters;
mod destinations;
mod events;
mod fields;
mod flow;
mod form;
mod integrations;
mod json;
mod metrics;
mod paging;
mod problem;
mod redact;
mod replays;
mod resource;
mod restart;
mod serve;
mod setup;
mod subscriptions;
#[cfg(test)]
mod testing;
mod tools;
#[cfg(test)]
mod walkthrough;
mod webhooks;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::from_fn_with_state,
    routing::{MethodRouter, get, post},
};
use hookmill_actors::{
    ports::{provider::Providers, sealer::Sealer},
    tree::TreeHandle,
};
use tokio::{net::TcpListener, sync::Semaphore};

use self::{
    auth::{FailedSignIns, Gate, Hosts},
    problem::{Code, Problem},
    tools::Tools,
};
pub use self::{
    auth::{TokenCheck, TokenName},
    subscriptions::SubscriptionDefaults,
    tools::{DestinationRules, Keys, SecretTools},
    webhooks::BODY_BYTES_MAX as ENDPOINT_BODY_BYTES_MAX,
};

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
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8081)),
            body_bytes_max: 256 * 1024,
            request_timeout: Duration::from_secs(30),
            allowed_hosts: Vec::new(),
        }
    }
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
    pub tokens: Arc<dyn TokenCheck>,
    /// Whether webhooks can be taken now.
    pub readiness: Readiness,
    /// Random bytes and fingerprints.
    pub secrets: Arc<dyn SecretTools>,
    /// What a subscription gets that does not say otherwise.
    pub subscription_defaults: SubscriptionDefaults,
}

/// What handlers share.
#[derive(Clone)]
struct Api {
    tree: TreeHandle,
    tools: Tools,
    readiness: Readiness,
    subscription_defaults: SubscriptionDefaults,
    /// Places for destination tests under way.
    tests: Arc<Semaphore>,
}

impl Api {
    fn test_places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(destinations::test::TESTS_MAX))
    }
}

/// A bound, not yet serving API.
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

impl AdminServer {
    /// Takes the address, so that a taken port is known before anything else starts.
    pub async fn bind(options: AdminOptions, ports: AdminPorts) -> io::Result<Self> {
        let listener = TcpListener::bind(options.address).await?;
        let address = listener.local_addr()?;
        let gate = Gate {
            tokens: ports.tokens,
            hosts: Hosts::new(address.ip(), &options.allowed_hosts),
            sign_ins: FailedSignIns::new(),
            request_timeout: options.request_timeout,
            audit: ports.tree.ports().config.clone(),
            clock: ports.tree.ports().clock.clone(),
        };
        let tools = Tools {
            sealer: ports.sealer,
            providers: ports.providers,
            destinations: ports.destinations,
            secrets: ports.secrets,
        };
        let api = Api {
            tree: ports.tree,
            tools,
            readiness: ports.readiness,
            subscription_defaults: ports.subscription_defaults,
            tests: Api::test_places(),
        };
        Ok(Self { listener, address, router: router(routes(), api, gate, options.body_bytes_max) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` resolves, then finishes what is under way, for a bounded time.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        serve::until(self.listener, self.router, shutdown).await;
    }
}

fn router<S: Clone + Send + Sync + 'static>(
    table: impl IntoIterator<Item = (&'static str, MethodRouter<S>)>,
    state: S,
    gate: Gate,
    body_bytes_max: usize,
) -> Router {
    let mut router = Router::new();
    for (path, methods) in table {
        router = router.route(path, methods.clone());
        // The original's paths end with a slash.
        router = router.route(&format!("{path}/"), methods);
    }
    router
        .fallback(async || Problem::new(Code::NotFound, "the admin API has no such path"))
        .method_not_allowed_fallback(async |request: Request| {
            Problem::new(Code::MethodNotAllowed, format!("`{}` is not possible here; see `allow`", request.method()))
        })
        .with_state(state)
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(from_fn_with_state(Arc::new(gate), auth::gate))
}

/// Every path there is; what is not here is 404, and only health is open.
fn routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    use hookmill_actors::domain::config::{Destination, Endpoint, Integration, Subscription};
    use resource::{delete, list, one};
    vec![
        ("/healthz", get(metrics::alive)),
        ("/readyz", get(metrics::ready)),
        ("/api/v1/integrations", get(list::<Integration>).post(setup::create)),
        ("/api/v1/integrations/{id}", get(one::<Integration>).put(integrations::update).delete(delete::<Integration>)),
        ("/api/v1/integrations/{id}/flow", get(flow::of_integration)),
        ("/api/v1/integrations/{id}/restart", post(restart::restart)),
        ("/api/v1/integrations/{id}/versions", get(integrations::versions)),
        ("/api/v1/webhooks", get(list::<Endpoint>).post(webhooks::create)),
        ("/api/v1/webhooks/{id}", get(one::<Endpoint>).put(webhooks::update).delete(delete::<Endpoint>)),
        ("/api/v1/webhooks/{id}/rotate-secret", post(webhooks::rotate_secret)),
        ("/api/v1/destinations", get(list::<Destination>).post(destinations::create)),
        ("/api/v1/destinations/{id}", get(one::<Destination>).put(destinations::update).delete(delete::<Destination>)),
        ("/api/v1/destinations/{id}/flow", get(flow::one)),
        ("/api/v1/destinations/{id}/rotate-secret", post(destinations::rotate_secret)),
        ("/api/v1/destinations/{id}/test", post(destinations::test::stored)),
        ("/api/v1/destinations/test", post(destinations::test::unsaved)),
        ("/api/v1/subscriptions", get(list::<Subscription>).post(subscriptions::create)),
        ("/api/v1/subscriptions/dry_run", post(subscriptions::dry_run)),
        (
            "/api/v1/subscriptions/{id}",
            get(one::<Subscription>).put(subscriptions::update).delete(delete::<Subscription>),
        ),
        ("/api/v1/events", get(events::list)),
        ("/api/v1/events/{id}", get(events::one)),
        ("/api/v1/events/{id}/body", get(events::body)),
        ("/api/v1/events/{id}/replay", post(events::replay)),
        ("/api/v1/deadletters", get(deadletters::list)),
        ("/api/v1/deadletters/discard", post(deadletters::discard_many)),
        ("/api/v1/deadletters/{subscription_id}/{event_id}", get(deadletters::one)),
        ("/api/v1/deadletters/{subscription_id}/{event_id}/replay", post(deadletters::replay)),
        ("/api/v1/deadletters/{subscription_id}/{event_id}/discard", post(deadletters::discard)),
        ("/api/v1/replays", get(replays::list).post(replays::create)),
        ("/api/v1/replays/{id}", get(replays::one)),
        ("/api/v1/replays/{id}/{command}", post(replays::command)),
        ("/api/v1/metrics", get(metrics::report)),
        ("/api/v1/activities", get(metrics::activities)),
    ]
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Response, StatusCode, header},
    };
    use tower::ServiceExt;

    use super::{
        testing::{FixedClock, MemoryAudit, OneToken, TOKEN},
        *,
    };

    fn app() -> Router {
        let gate = Gate {
            tokens: Arc::new(OneToken),
            hosts: Hosts::new([127, 0, 0, 1].into(), &[]),
            sign_ins: FailedSignIns::new(),
            request_timeout: Duration::from_secs(5),
            audit: Arc::new(MemoryAudit::default()),
            clock: Arc::new(FixedClock(0)),
        };
        let echo = async |json::Json(body): json::Json| body.to_string();
        router([("/api/v1/things", get(async || "listed").post(echo))], (), gate, 100)
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
    fn every_path_is_versioned_or_health() {
        for (path, _) in routes() {
            assert!(path.starts_with("/api/v1/") || ["/healthz", "/readyz"].contains(&path), "{path}");
        }
    }
}
