//! The smallest provider, sealer and programs that a tree runs with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::{
    domain::{
        config::{Integration, IntegrationStatus},
        connection_test::{Outcome, Test},
        event::{Event, Identity},
        ids::IntegrationId,
        secret::{Sealed, Secret},
        transform::Transform,
    },
    ports::{
        connection_tester::ConnectionTester,
        program::{ProgramFault, Programs, RenderFault, Rendered, Selected, Selector, Subject, Transformer},
        provider::{InboundRequest, Provider, Providers, Refusal, SettingsError, SignedRequest, Verified, Verifier},
        sealer::{Owner, SealError, Sealer},
    },
};

/// Accepts everything. An event's type is its body's text up to the first `#`, what follows is its id.
#[derive(Debug, Default)]
pub struct PlainProvider;

impl Verifier for PlainProvider {
    fn verify(&self, _request: &InboundRequest<'_>, _now_ms: u64) -> Result<Verified, Refusal> {
        Ok(Verified { secret_index: 0 })
    }
}

impl Provider for PlainProvider {
    fn name(&self) -> &'static str {
        "none"
    }

    fn summary(&self) -> &'static str {
        "accepts everything"
    }

    fn verifier(
        &self,
        _settings: &Map<String, Value>,
        _secrets: &[Secret],
    ) -> Result<Arc<dyn Verifier>, SettingsError> {
        Ok(Arc::new(Self))
    }

    fn identify(&self, _settings: &Map<String, Value>, event: &Event) -> Identity {
        let text = String::from_utf8_lossy(&event.arrival.body);
        assert!(text != "panic", "a body that no provider can read");
        let (event_type, provider_id) = match text.split_once('#') {
            Some((event_type, id)) => (event_type, Some(id.into())),
            None => (&*text, None),
        };
        Identity { event_type: Some(event_type.into()), provider_id }
    }

    fn sign(
        &self,
        _settings: &Map<String, Value>,
        _secret: &Secret,
        _id: &str,
        _body: &[u8],
        _now_ms: u64,
    ) -> Result<SignedRequest, SettingsError> {
        Ok(SignedRequest { headers: Vec::new() })
    }

    fn sample(&self, id: &str) -> (&'static str, Vec<u8>) {
        ("text/plain", id.as_bytes().to_vec())
    }

    fn new_secret(&self, random: &[u8; 32]) -> Secret {
        Secret::new(random.to_vec())
    }
}

/// Knows [`PlainProvider`] only.
#[derive(Debug, Default)]
pub struct OneProvider;

impl Providers for OneProvider {
    fn get(&self, name: &str) -> Option<&'static dyn Provider> {
        (name == "none").then_some(&PlainProvider)
    }

    fn names(&self) -> Vec<&'static str> {
        vec!["none"]
    }
}

/// Answers for every third party, after a while. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ThirdParties(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    failing: BTreeSet<IntegrationId>,
    take: Duration,
    at_once: usize,
    at_once_max: usize,
}

impl ThirdParties {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the one of this integration fails.
    pub fn fail(&self, id: IntegrationId) {
        self.answers().failing.insert(id);
    }

    /// From now on each takes so long to answer.
    pub fn take(&self, time: Duration) {
        self.answers().take = time;
    }

    /// The most that were ever asked at once.
    pub fn at_once_max(&self) -> usize {
        self.answers().at_once_max
    }
}

#[async_trait]
impl ConnectionTester for ThirdParties {
    async fn test(&self, integration: &Arc<Integration>) -> Test {
        let take = {
            let mut answers = self.answers();
            answers.at_once += 1;
            answers.at_once_max = answers.at_once_max.max(answers.at_once);
            answers.take
        };
        sleep(take).await;
        let mut answers = self.answers();
        answers.at_once -= 1;
        let (outcome, reason) = match answers.failing.contains(&integration.id) {
            true => (Outcome::Failed, "HTTP status 500"),
            false => (Outcome::Passed, "HTTP status 200"),
        };
        let duration_ms = u64::try_from(take.as_millis()).unwrap_or(u64::MAX);
        Test { at_ms: 0, outcome, reason: reason.to_owned(), status: None, duration_ms }
    }

    fn status(&self, integration: &Integration) -> IntegrationStatus {
        integration.status
    }
}

/// Seals nothing: a test's secrets are no secrets.
#[derive(Debug, Default)]
pub struct OpenSealer;

impl Sealer for OpenSealer {
    fn seal(&self, _owner: Owner, secret: &Secret) -> Sealed {
        Sealed(secret.expose_str().unwrap_or_default().to_owned())
    }

    fn open(&self, _owner: Owner, sealed: &Sealed) -> Result<Secret, SealError> {
        Ok(Secret::new(sealed.0.clone()))
    }
}

/// Programs over a body that is plain text, in a language of its own. A filter `has X` holds where the text contains
/// X, `fault` fails, `panic` panics. A key `upto X` is the text before the first X. The jq program is ignored: a
/// rendered body is the text in upper case, `fault` in it fails. Clones share the engine that renders.
#[derive(Clone, Debug, Default)]
pub struct TextPrograms {
    unavailable: Arc<AtomicBool>,
}

impl TextPrograms {
    /// From now on nothing can be rendered, or everything can again.
    pub fn set_available(&self, available: bool) {
        self.unavailable.store(!available, Ordering::Relaxed);
    }
}

struct TextSelector {
    filter: Option<String>,
    key: Option<String>,
}

fn text_of(subject: &Subject) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&subject.event.arrival.body)
}

impl Selector for TextSelector {
    fn select(&self, subject: &Subject) -> Result<Selected, ProgramFault> {
        let text = text_of(subject);
        if let Some(filter) = &self.filter {
            match filter.strip_prefix("has ") {
                Some(wanted) if text.contains(wanted) => {}
                Some(_) => return Ok(Selected::No),
                None if filter == "panic" => panic!("the filter asked for it"),
                None => return Err(ProgramFault("the filter failed".to_owned())),
            }
        }
        let key = match self.key.as_deref().map(|key| key.strip_prefix("upto ")) {
            None => None,
            Some(Some(end)) => Some(text.split(end).next().unwrap_or_default().into()),
            Some(None) => return Err(ProgramFault("the key failed".to_owned())),
        };
        Ok(Selected::Yes { key })
    }
}

struct UpperCase {
    unavailable: Arc<AtomicBool>,
}

#[async_trait]
impl Transformer for UpperCase {
    async fn render(&self, subject: &Subject) -> Result<Rendered, RenderFault> {
        if self.unavailable.load(Ordering::Relaxed) {
            return Err(RenderFault::EngineUnavailable("no process can be started".to_owned()));
        }
        let text = text_of(subject);
        if text.contains("fault") {
            return Err(ProgramFault("the program failed".to_owned()).into());
        }
        Ok(Rendered { content_type: None, headers: Vec::new(), body: Bytes::from(text.to_uppercase()) })
    }
}

impl Programs for TextPrograms {
    fn selector(&self, filter: Option<&str>, key: Option<&str>) -> Result<Arc<dyn Selector>, SettingsError> {
        Ok(Arc::new(TextSelector { filter: filter.map(str::to_owned), key: key.map(str::to_owned) }))
    }

    fn transformer(
        &self,
        transform: &Transform,
        _headers: &BTreeMap<String, String>,
    ) -> Result<Option<Arc<dyn Transformer>>, SettingsError> {
        let engine = || Arc::new(UpperCase { unavailable: self.unavailable.clone() }) as Arc<dyn Transformer>;
        Ok((*transform != Transform::None).then(engine))
    }
}
