//! The ports, in memory: a log with moods, a provider of one header, a configuration of a few paths.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use hookmill::ingress::{Readiness, RefusedRequest, RefusedRequests};
use hookmill_actors::{
    domain::{
        config::{
            Configuration, Destination, Endpoint, Environment, Integration, IntegrationStatus, IntegrationType, Meta,
        },
        event::{Event, Identity, NewEvent},
        headers::HeaderBlock,
        ids::{EndpointId, EventId, IntegrationId},
        secret::{Sealed, Secret},
        shaping::Rate,
    },
    ports::{
        clock::Clock,
        event_log::{Committing, EventLog, LogError, ReadBounds, Stored, TrimRequest, Trimmed},
        provider::{
            InboundRequest, Provider, Providers, Refusal, Reply, SettingsError, SignedRequest, Verified, Verifier,
        },
        sealer::{Owner, SealError, Sealer},
        state_store::StateOp,
        transport::{Transport, Transports},
    },
    snapshot::{Compiler, Snapshot},
    testkit::stubs::TextPrograms,
};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

/// What the log does with the next events.
#[derive(Clone)]
pub(crate) enum Mood {
    Stores,
    Refuses(LogError),
    Fails(LogError),
    Waits,
}

pub(crate) struct TestLog {
    pub(crate) mood: Mutex<Mood>,
    pub(crate) events: Mutex<Vec<NewEvent>>,
    pub(crate) waiting: Mutex<Vec<oneshot::Sender<Result<EventId, LogError>>>>,
}

impl TestLog {
    pub(crate) fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn events(&self) -> Vec<NewEvent> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn until_events(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.events.lock().unwrap().len() < count {
            assert!(Instant::now() < deadline, "the log did not get {count} events");
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn release(&self) {
        for sender in self.waiting.lock().unwrap().drain(..) {
            let _ = sender.send(Ok(EventId::at_millis(7)));
        }
    }
}

#[async_trait]
impl EventLog for TestLog {
    fn append(&self, event: NewEvent) -> Result<Committing<EventId>, LogError> {
        let mood = self.mood.lock().unwrap().clone();
        if let Mood::Refuses(error) = mood {
            return Err(error);
        }
        let (sender, committing) = Committing::new();
        match mood {
            Mood::Waits => self.waiting.lock().unwrap().push(sender),
            Mood::Fails(error) => drop(sender.send(Err(error))),
            _ => drop(sender.send(Ok(EventId::at_millis(42)))),
        }
        self.events.lock().unwrap().push(event);
        Ok(committing)
    }

    fn commit(&self, _: Vec<StateOp>) -> Result<Committing<()>, LogError> {
        Err(LogError::Closed)
    }

    async fn read(&self, _: IntegrationId, _: EventId, _: ReadBounds) -> Result<Vec<Stored>, LogError> {
        Err(LogError::Closed)
    }

    async fn bytes_after(&self, _: IntegrationId, _: EventId) -> Result<u64, LogError> {
        Err(LogError::Closed)
    }

    async fn get(&self, _: EventId) -> Result<Option<Arc<Event>>, LogError> {
        Err(LogError::Closed)
    }

    async fn latest(&self, _: Option<IntegrationId>, _: EventId, _: usize) -> Result<Vec<EventId>, LogError> {
        Err(LogError::Closed)
    }

    async fn trim(&self, _: TrimRequest) -> Result<Trimmed, LogError> {
        Err(LogError::Closed)
    }

    fn last_committed(&self) -> EventId {
        EventId::ZERO
    }
}

pub(crate) struct FixedClock;

impl Clock for FixedClock {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

/// Accepts `x-signature: good`; `answers_get` in the settings makes `GET ?challenge=ok` a handshake.
pub(crate) struct TestProvider;

pub(crate) struct TestVerifier {
    answers_get: bool,
}

pub(crate) fn text(body: &str) -> Reply {
    Reply { status: 200, content_type: "text/plain", body: body.as_bytes().to_vec() }
}

impl Verifier for TestVerifier {
    fn verify(&self, request: &InboundRequest<'_>, now_ms: u64) -> Result<Verified, Refusal> {
        assert_eq!(now_ms, FixedClock.now_ms());
        assert!(request.body != b"panic", "a test wants this panic");
        let mut signatures = request.headers.all("x-signature");
        match (signatures.next(), signatures.next()) {
            (None, _) => Err(Refusal::MissingSignature("x-signature".to_owned())),
            (Some(b"good"), None) => Ok(Verified { secret_index: 0 }),
            (Some(_), None) => Err(Refusal::Mismatch),
            (Some(_), Some(_)) => Err(Refusal::Repeated("x-signature".to_owned())),
        }
    }

    fn handshake(&self, request: &InboundRequest<'_>) -> Option<Reply> {
        match request.method {
            "GET" if request.target.ends_with("?challenge=ok") => Some(text("ok")),
            "POST" if request.body == b"challenge" => Some(text("challenge accepted")),
            _ => None,
        }
    }

    fn answers_get(&self) -> bool {
        self.answers_get
    }
}

impl Provider for TestProvider {
    fn name(&self) -> &'static str {
        "test"
    }
    fn summary(&self) -> &'static str {
        "for tests"
    }
    fn verifier(&self, settings: &Map<String, Value>, _: &[Secret]) -> Result<Arc<dyn Verifier>, SettingsError> {
        Ok(Arc::new(TestVerifier { answers_get: settings.contains_key("answers_get") }))
    }
    fn identify(&self, _: &Map<String, Value>, _: &Event) -> Identity {
        Identity::default()
    }
    fn sign(
        &self,
        _: &Map<String, Value>,
        _: &Secret,
        _: &str,
        _: &[u8],
        _: u64,
    ) -> Result<SignedRequest, SettingsError> {
        Err(SettingsError::new("none", "signs nothing"))
    }
    fn sample(&self, _: &str) -> (&'static str, Vec<u8>) {
        ("text/plain", Vec::new())
    }
    fn new_secret(&self, random: &[u8; 32]) -> Secret {
        Secret::new(*random)
    }
}

pub(crate) struct TestOutside;

impl Providers for TestOutside {
    fn get(&self, _: &str) -> Option<&'static dyn Provider> {
        Some(&TestProvider)
    }
    fn names(&self) -> Vec<&'static str> {
        vec!["test"]
    }
}

impl Transports for TestOutside {
    fn build(&self, _: &Destination, _: &Secret, _: Option<&Secret>) -> Result<Arc<dyn Transport>, SettingsError> {
        Err(SettingsError::new("none", "delivers nothing"))
    }
}

impl Sealer for TestOutside {
    fn seal(&self, _: Owner, _: &Secret) -> Sealed {
        Sealed(String::new())
    }
    fn open(&self, _: Owner, _: &Sealed) -> Result<Secret, SealError> {
        Ok(Secret::new(*b"secret"))
    }
}

pub(crate) struct TestReadiness(pub(crate) Mutex<Vec<String>>);

impl Readiness for TestReadiness {
    fn reasons(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) fn endpoint(id: u32, path: &str) -> Endpoint {
    Endpoint {
        dedup_window_s: None,
        rate_limit: None,
        id: EndpointId(id),
        integration_id: IntegrationId(1),
        name: path.to_owned(),
        description: None,
        path: path.to_owned(),
        active: true,
        verify_signature: true,
        signature_header: None,
        verification: Map::new(),
        secrets: Vec::new(),
        body_bytes_max: None,
        meta: Meta::default(),
    }
}

pub(crate) fn snapshot() -> Snapshot {
    let integration = Integration {
        id: IntegrationId(1),
        name: "one".to_owned(),
        kind: IntegrationType::Custom,
        provider: "test".to_owned(),
        description: None,
        environment: Environment::Staging,
        status: IntegrationStatus::Active,
        configuration: Map::new(),
        credentials: None,
        meta: Meta::default(),
    };
    let mut small = endpoint(3, "/small");
    small.body_bytes_max = Some(10);
    let mut greeted = endpoint(4, "/greeted");
    greeted.verification.insert("answers_get".to_owned(), json!(true));
    let mut inactive = endpoint(5, "/inactive");
    inactive.active = false;
    let mut limited = endpoint(6, "/limited");
    limited.rate_limit = Some(Rate { per_second: 1, burst: Some(3) });
    let mut named = endpoint(7, "/named");
    named.signature_header = Some("X-Signature".to_owned());
    let endpoints =
        [endpoint(1, "/orders"), endpoint(2, "/deep/er.path_~-1"), small, greeted, inactive, limited, named];
    let configuration = Configuration {
        version: 17,
        integrations: [(integration.id, integration.into())].into_iter().collect(),
        endpoints: endpoints.into_iter().map(|endpoint| (endpoint.id, endpoint.into())).collect(),
        ..Configuration::default()
    };
    let outside = Arc::new(TestOutside);
    let compiler = Compiler {
        providers: outside.clone(),
        transports: outside.clone(),
        sealer: outside,
        programs: Arc::new(TextPrograms::default()),
    };
    compiler.compile(Arc::new(configuration), &Snapshot::default(), 0)
}

/// A refused request as it was handed in.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) endpoint: EndpointId,
    pub(crate) cause: &'static str,
    pub(crate) reason: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderBlock,
    pub(crate) body: Vec<u8>,
    pub(crate) body_whole: bool,
}

#[derive(Default)]
pub(crate) struct TestRefused(Mutex<Vec<Offered>>);

impl TestRefused {
    pub(crate) fn take(&self) -> Vec<Offered> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl RefusedRequests for TestRefused {
    fn offer(&self, refused: &RefusedRequest<'_>) {
        self.0.lock().unwrap().push(Offered {
            endpoint: refused.endpoint,
            cause: refused.cause,
            reason: refused.reason.to_owned(),
            method: refused.method.to_owned(),
            target: refused.target.to_owned(),
            headers: refused.headers.clone(),
            body: refused.body.to_vec(),
            body_whole: refused.body_whole,
        });
    }
}
