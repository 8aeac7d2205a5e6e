//! Destinations that do as the test says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    domain::{
        config::Destination,
        ids::{DestinationId, EventId},
        secret::Secret,
    },
    ports::{
        provider::SettingsError,
        transport::{AttemptReport, Consignment, Timings, Transport, Transports, Verdict},
    },
};

/// What a destination does with the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Answers so after a while.
    Answer(Verdict, Duration),
    /// Answers so, with this status, after a while.
    AnswerWith(u16, Verdict, Duration),
    /// Never answers.
    Hang,
    /// The transport panics.
    Panic,
}

/// One attempt as the destination saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which destination.
    pub destination: DestinationId,
    /// Which event.
    pub event: EventId,
    /// Which attempt.
    pub attempt: u32,
    /// Whether it said that it is a replay.
    pub replay: bool,
    /// When, wall clock.
    pub at_ms: u64,
    /// Whether it was taken; a script's answer, known when it begins.
    pub delivered: bool,
    /// What was sent.
    pub body: Bytes,
}

/// Decides by the consignment what happens.
pub type Script = dyn Fn(DestinationId, &Consignment) -> Step + Send + Sync;

/// All destinations of a test. Clones share what was seen.
#[derive(Clone)]
pub struct ScriptedTransports {
    script: Arc<Mutex<Arc<Script>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    under_way: Arc<Mutex<BTreeMap<DestinationId, (usize, usize)>>>,
    broken: Arc<Mutex<Option<DestinationId>>>,
}

impl Default for ScriptedTransports {
    fn default() -> Self {
        Self::new(|_, _| Step::Answer(Verdict::Delivered, Duration::from_millis(1)))
    }
}

impl ScriptedTransports {
    /// Destinations that follow the script.
    pub fn new(script: impl Fn(DestinationId, &Consignment) -> Step + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(Mutex::new(Arc::new(script))),
            seen: Arc::default(),
            under_way: Arc::default(),
            broken: Arc::default(),
        }
    }

    /// From now on they follow this one.
    pub fn set_script(&self, script: impl Fn(DestinationId, &Consignment) -> Step + Send + Sync + 'static) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
    }

    /// From now on whoever is about to make an attempt at this one panics; not the attempt.
    pub fn break_before_attempts(&self, destination: Option<DestinationId>) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = destination;
    }

    /// Every attempt so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The most attempts that were under way at once, for one destination.
    pub fn most_under_way(&self, destination: DestinationId) -> usize {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).get(&destination).map_or(0, |(_, most)| *most)
    }

    fn enter(&self, destination: DestinationId) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, most) = under_way.entry(destination).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    fn leave(&self, destination: DestinationId) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((now, _)) = under_way.get_mut(&destination) {
            *now -= 1;
        }
    }
}

impl Transports for ScriptedTransports {
    fn build(
        &self,
        destination: &Destination,
        _signing_secret: &Secret,
        _credentials: Option<&Secret>,
    ) -> Result<Arc<dyn Transport>, SettingsError> {
        Ok(Arc::new(ScriptedTransport { all: self.clone(), destination: destination.id }))
    }
}

struct ScriptedTransport {
    all: ScriptedTransports,
    destination: DestinationId,
}

#[async_trait]
impl Transport for ScriptedTransport {
    fn names_events(&self) -> bool {
        let broken = *self.all.broken.lock().unwrap_or_else(PoisonError::into_inner);
        assert_ne!(broken, Some(self.destination), "the test asked for it");
        false
    }

    async fn attempt(&self, consignment: Consignment, now_ms: u64) -> AttemptReport {
        self.all.enter(self.destination);
        let script = self.all.script.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let step = script(self.destination, &consignment);
        let body = consignment.rendered.as_ref().map_or(&consignment.event.arrival.body, |rendered| &rendered.body);
        self.all.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
            destination: self.destination,
            event: consignment.event.id,
            attempt: consignment.attempt,
            replay: consignment.replay,
            at_ms: now_ms,
            delivered: matches!(step, Step::Answer(Verdict::Delivered, _) | Step::AnswerWith(_, Verdict::Delivered, _)),
            body: body.clone(),
        });
        let (status, verdict) = match step {
            Step::Answer(verdict, after) => {
                tokio::time::sleep(after).await;
                (if verdict == Verdict::Delivered { 200 } else { 500 }, verdict)
            }
            Step::AnswerWith(status, verdict, after) => {
                tokio::time::sleep(after).await;
                (status, verdict)
            }
            Step::Hang => std::future::pending().await,
            Step::Panic => panic!("the script asked for it"),
        };
        self.all.leave(self.destination);
        let failed = verdict != Verdict::Delivered;
        AttemptReport {
            verdict,
            status: Some(status),
            error: failed.then(|| format!("answered {status}")),
            reply: None,
            timings: Timings::default(),
        }
    }
}
