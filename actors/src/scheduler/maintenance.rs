//! The tasks that keep hookmill itself in order: what has outlived its retention goes, backlogs are measured.

use std::time::Duration;

use serde_json::{Value, json};

use super::Work;
use crate::{
    backlog,
    delivery::DeliveryMsg,
    domain::{
        activity::{Activity, ActivityResult},
        ids::{EventId, IntegrationId},
    },
    metrics::add,
    ports::{
        event_log::{LogError, ReadBounds, TrimRequest, id_of},
        state_store::Remembered,
    },
    replay::ReplayMsg,
    tree::{Ports, wires::Wires},
};

/// Millions of dead letters take minutes.
const LETTERS_WAIT_MAX: Duration = Duration::from_hours(1);

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Finished events are removed after this; what is unfinished then goes to the dead letter.
    pub age_max: Duration,
    /// The oldest finished events are removed while the log is larger, bytes.
    pub bytes_max: u64,
    /// An integration whose unfinished events hold more than this accepts nothing for now, bytes.
    pub backlog_bytes_max: u64,
    /// Beyond so many dedup keys the oldest are forgotten.
    pub dedup_keys_max: u64,
    /// Dead letters are taken away after this, from when they came there.
    pub dead_letters_age_max: Duration,
    /// Activities are forgotten after this.
    pub activities_age_max: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let bytes_max = 10 << 30;
        Self {
            age_max: Duration::from_secs(30 * 24 * 3600),
            bytes_max,
            backlog_bytes_max: bytes_max / 4,
            dedup_keys_max: 3_000_000,
            dead_letters_age_max: Duration::from_secs(30 * 24 * 3600),
            activities_age_max: Duration::from_secs(400 * 24 * 3600),
        }
    }
}

impl Work {
    /// Removes what has outlived its retention. An object: `events`, `kept` (payloads), `bytes`.
    pub(super) async fn trim(&self) -> Result<Value, LogError> {
        let Some(now_ms) = self.trusted_now_ms() else {
            tracing::warn!("the wall clock jumped; retention and expiry rest until it has been steady for an hour");
            return Ok(rests());
        };
        let received_before_ms = now_ms.saturating_sub(millis(self.retention.age_max));
        let before = EventId::at_millis(received_before_ms);
        for subscription in self.wires.deliveries.keys() {
            self.wires.deliveries.hint(subscription, DeliveryMsg::Expire { before });
        }
        let finished_upto = finished_upto(&self.ports, &self.wires).await?;
        let request = TrimRequest { finished_upto, received_before_ms, bytes_max: self.retention.bytes_max };
        let trimmed = self.ports.log.trim(request).await?;
        if trimmed.events > 0 {
            let (events, kept, bytes) = (trimmed.events, trimmed.kept, trimmed.bytes);
            tracing::info!(events, kept, bytes, "trimmed the event log");
        }
        Ok(json!({"events": trimmed.events, "kept": trimmed.kept, "bytes": trimmed.bytes}))
    }

    /// Measures the backlogs that may be too large, or all that may have changed. An object: the integrations that became
    /// `full`, and that were `cleared`.
    pub(super) async fn measure_backlogs(&self) -> Result<Value, LogError> {
        let bytes_max = self.retention.backlog_bytes_max;
        let snapshot = self.wires.config.current();
        let turns = backlog::measure(&self.ports, &snapshot, bytes_max, self.thorough).await?;
        for turn in &turns {
            self.tell(turn, bytes_max);
        }
        let those =
            |full| turns.iter().filter(|turn| turn.full == full).map(|turn| turn.integration).collect::<Vec<_>>();
        Ok(json!({"full": those(true), "cleared": those(false)}))
    }

    fn tell(&self, turn: &backlog::Turn, bytes_max: u64) {
        let backlog::Turn { integration, full, bytes } = *turn;
        let (action, result, detail) = if full {
            tracing::error!(
                integration = integration.0,
                bytes,
                bytes_max,
                "an integration's backlog has reached its share of the log; its endpoints answer 503"
            );
            let detail = format!("its unfinished events hold {bytes} bytes of the log, more than {bytes_max}");
            ("integration.backlog_full", ActivityResult::Failed, detail)
        } else {
            tracing::info!(integration = integration.0, bytes, "an integration's backlog has room again");
            ("integration.backlog_cleared", ActivityResult::Ok, format!("its unfinished events hold {bytes} bytes"))
        };
        self.wires.record(Activity {
            at_ms: self.ports.clock.now_ms(),
            actor: "hookmill".to_owned(),
            source: None,
            action: action.to_owned(),
            subject: format!("integration {integration}"),
            integration: Some(integration),
            result,
            detail,
        });
    }

    /// Forgets dedup keys that are too many, or also those whose window is over. An object: `outdated`, `displaced`.
    pub(super) async fn forget_keys(&self) -> Result<Value, LogError> {
        let Some(now_ms) = self.trusted_now_ms() else { return Ok(rests()) };
        let (state, keys_max) = (&self.ports.state, self.retention.dedup_keys_max);
        let keys = state.counts().await?.dedup_keys;
        if keys == 0 || !self.thorough && keys <= keys_max {
            return Ok(json!({"outdated": 0, "displaced": 0}));
        }
        let snapshot = self.wires.config.current();
        let start = |window_ms: u64| EventId::at_millis(now_ms.saturating_sub(window_ms));
        let namings = snapshot.namings.iter();
        let after = namings.map(|(endpoint, naming)| (*endpoint, start(naming.dedup_window_ms))).collect();
        let forgotten = state.forget_seen(Remembered { after, keys_max }).await?;
        if forgotten.displaced > 0 {
            add(&self.wires.counters.dedup_forgotten, forgotten.displaced);
            tracing::warn!(
                keys = forgotten.displaced,
                keys_max,
                "there are too many dedup keys; the oldest were forgotten, so a late resend may be delivered again"
            );
        }
        Ok(json!({"outdated": forgotten.outdated, "displaced": forgotten.displaced}))
    }

    /// Takes dead letters away that have outlived their retention. An object: `forgotten`.
    pub(super) async fn forget_dead_letters(&self) -> Result<Value, String> {
        if self.trusted_now_ms().is_none() {
            return Ok(rests());
        }
        let age_max = self.retention.dead_letters_age_max;
        let swept = self.wires.replays.call(|reply| ReplayMsg::Sweep { age_max, reply }, LETTERS_WAIT_MAX).await;
        let forgotten = swept.ok_or("the replay actor did not end it; what is left goes next time")?;
        Ok(json!({"forgotten": forgotten.map_err(|error| error.to_string())?}))
    }

    /// Forgets activities that have outlived their retention. An object: `forgotten`.
    pub(super) async fn forget_activities(&self) -> Result<Value, LogError> {
        let Some(now_ms) = self.trusted_now_ms() else { return Ok(rests()) };
        let before_ms = now_ms.saturating_sub(millis(self.retention.activities_age_max));
        let mut forgotten = 0;
        loop {
            match self.ports.config.forget_activities(before_ms).await {
                Ok(0) => break,
                Ok(went) => forgotten += went,
                Err(error) => return Err(LogError::Failed(error.to_string().into())),
            }
        }
        if forgotten > 0 {
            tracing::info!(forgotten, "activities have outlived their retention");
        }
        Ok(json!({"forgotten": forgotten}))
    }

    fn trusted_now_ms(&self) -> Option<u64> {
        let now_ms = self.ports.clock.now_ms();
        self.wires.clock_trust.holds(now_ms).then_some(now_ms)
    }
}

/// The result of what is not done while the wall clock is in doubt.
fn rests() -> Value {
    json!({"rests": "the wall clock jumped; it must have been steady for an hour"})
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The last event before the first that some intake or subscription still has to read or has open.
///
/// A subscription that is made while the trim runs, to begin with the oldest events, begins with the oldest that are
/// left, as it would had it been made a moment later.
pub(crate) async fn finished_upto(ports: &Ports, wires: &Wires) -> Result<EventId, LogError> {
    let mut upto = ports.log.last_committed();
    let snapshot = wires.config.current();
    for integration in snapshot.configuration.integrations.keys() {
        let after = backlog::unfinished_after(ports, &snapshot, *integration).await?;
        upto = upto.min(before_next(ports, *integration, after).await?);
    }
    Ok(upto)
}

async fn before_next(ports: &Ports, integration: IntegrationId, after: EventId) -> Result<EventId, LogError> {
    let next = ports.log.read(integration, after, ReadBounds { events_max: 1, bytes_max: 1 }).await?;
    Ok(match next.first() {
        Some(stored) => EventId::from_u128(id_of(stored).as_u128().saturating_sub(1)),
        None => EventId::MAX,
    })
}
