//! Destinations with moods: quick, slow, failing, hanging, gone, panicking; or taking an event and saying that they
//! did not.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    programs::{SUBSCRIPTION_HEADER, quiet_panic},
    watch::Watch,
};
use crate::{
    domain::{
        config::Destination,
        ids::{DestinationId, SubscriptionId},
        secret::Secret,
    },
    ports::{
        provider::SettingsError,
        transport::{AttemptReport, Consignment, Timings, Transport, Transports, Verdict},
    },
};

/// How a destination behaves for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Quick,
    Slow,
    /// Now and then anything.
    Moody,
    /// Every answer is this.
    Answers(u16),
    /// Times out, having taken the event or not.
    Hangs,
    Panics,
}

/// All destinations of a run.
#[derive(Clone)]
pub(super) struct SimDestinations {
    watch: Arc<Watch>,
    moods: Arc<Mutex<BTreeMap<DestinationId, Mood>>>,
    rng: Arc<Mutex<fastrand::Rng>>,
}

/// The total timeout of every destination.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One attempt's course.
struct Course {
    answers_after: Duration,
    /// It is taken at half that time.
    takes: bool,
    /// 0: none came.
    status: u16,
    panics: bool,
    retry_after: Option<Duration>,
}

impl SimDestinations {
    pub(super) fn new(watch: Arc<Watch>, rng: fastrand::Rng) -> Self {
        Self { watch, moods: Arc::default(), rng: Arc::new(Mutex::new(rng)) }
    }

    pub(super) fn set_mood(&self, destination: DestinationId, mood: Mood) {
        self.moods.lock().unwrap_or_else(PoisonError::into_inner).insert(destination, mood);
    }

    /// All are well.
    pub(super) fn heal(&self) {
        self.moods.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn course(&self, destination: DestinationId) -> Course {
        let moods = self.moods.lock().unwrap_or_else(PoisonError::into_inner);
        let mood = moods.get(&destination).copied().unwrap_or(Mood::Quick);
        drop(moods);
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = |from: u64, to: u64, rng: &mut fastrand::Rng| Duration::from_millis(rng.u64(from..=to));
        let quick = millis(0, 10, &mut rng);
        let answer = |status: u16| Course {
            answers_after: quick,
            takes: status < 300,
            status,
            panics: false,
            retry_after: None,
        };
        let mood = match mood {
            Mood::Moody => *rng
                .choice([Mood::Quick, Mood::Quick, Mood::Slow, Mood::Answers(500), Mood::Answers(503), Mood::Hangs])
                .get_or_insert(Mood::Quick),
            mood => mood,
        };
        match mood {
            Mood::Quick | Mood::Moody => answer(200),
            Mood::Slow => Course { answers_after: millis(100, 3_000, &mut rng), ..answer(200) },
            Mood::Answers(status) => {
                let asks = matches!(status, 429 | 503) && rng.bool();
                Course { retry_after: asks.then(|| Duration::from_secs(rng.u64(1..=20))), ..answer(status) }
            }
            Mood::Hangs => Course { answers_after: TIMEOUT, takes: rng.bool(), ..answer(0) },
            Mood::Panics => Course { panics: true, takes: rng.bool(), ..answer(500) },
        }
    }
}

impl Transports for SimDestinations {
    fn build(
        &self,
        destination: &Destination,
        _signing_secret: &Secret,
        _credentials: Option<&Secret>,
    ) -> Result<Arc<dyn Transport>, SettingsError> {
        Ok(Arc::new(SimTransport { all: self.clone(), destination: destination.id }))
    }
}

struct SimTransport {
    all: SimDestinations,
    destination: DestinationId,
}

impl SimTransport {
    fn sender(&self, consignment: &Consignment) -> Option<SubscriptionId> {
        let headers = consignment.rendered.as_ref().map(|rendered| &rendered.headers);
        let named = headers.and_then(|lines| lines.iter().find(|(name, _)| name == SUBSCRIPTION_HEADER));
        match named {
            Some((_, id)) => id.parse().ok().map(SubscriptionId),
            None => self.all.watch.only_subscription(self.destination),
        }
    }
}

#[async_trait]
impl Transport for SimTransport {
    fn names_events(&self) -> bool {
        self.destination.0.is_multiple_of(2)
    }

    async fn attempt(&self, consignment: Consignment, now_ms: u64) -> AttemptReport {
        let watch = &self.all.watch;
        let event = consignment.event.clone();
        let Some(subscription) = self.sender(&consignment) else {
            watch.breaks(format!("destination {} got event {} from nobody", self.destination, event.id));
            return report(0, None);
        };
        if let Some(rendered) = &consignment.rendered
            && rendered.body != event.arrival.body.to_ascii_uppercase()
        {
            watch.breaks(format!("subscription {subscription}, event {}: it was rendered otherwise", event.id));
        }
        watch.attempt_begins(subscription, &event, consignment.attempt, consignment.replay, now_ms);
        let course = self.all.course(self.destination);
        tokio::time::sleep(course.answers_after / 2).await;
        if course.takes {
            watch.taken(subscription, event.id, consignment.replay);
        }
        tokio::time::sleep(course.answers_after / 2).await;
        if course.panics {
            watch.attempt_ends(subscription, event.id, None, true);
            quiet_panic();
        }
        let report = report(course.status, course.retry_after);
        let bad = matches!(course.status, 0 | 500..);
        watch.attempt_ends(subscription, event.id, Some(report.verdict == Verdict::Delivered), bad);
        report
    }
}

fn report(status: u16, after: Option<Duration>) -> AttemptReport {
    let verdict = match status {
        200..=299 => Verdict::Delivered,
        410 => Verdict::Gone,
        _ => Verdict::Retry { after },
    };
    AttemptReport {
        verdict,
        status: (status > 0).then_some(status),
        error: (verdict != Verdict::Delivered).then(|| format!("answered {status}")),
        reply: None,
        timings: Timings::default(),
    }
}
