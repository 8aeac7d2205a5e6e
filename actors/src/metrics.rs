//! Counts. Everybody adds to shared atomics, so that counting costs nothing; the metrics actor looks at them once a
//! second and answers questions about totals and rates. It looks after the destinations' gates as well: hints those
//! whose turn came by time alone, and tells of breakers. A crash of it loses the rates of a few seconds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    delivery::DeliveryMsg,
    domain::{
        activity::{Activity, ActivityResult},
        config::ResourceKey,
        ids::DestinationId,
    },
    flow::News,
    ports::clock::Clock,
    tree::wires::Wires,
};

pub mod gauges;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Running totals since start.
        #[derive(Default, Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// The totals at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads all of them.
            pub fn totals(&self) -> Totals {
                Totals { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Webhooks answered 2xx.
    accepted,
    /// Webhooks refused for want of a signature.
    missing_signature,
    /// Webhooks refused for their signature.
    invalid_signature,
    /// Requests to paths that are not there or not active.
    unknown_path,
    /// Requests refused for their form: too large, too slow, not HTTP.
    bad_request,
    /// Webhooks answered 503: the sender must come back.
    unavailable,
    /// Webhooks answered 503 because their integration's backlog is full.
    backlog_full,
    /// Webhooks answered 429 because their endpoint takes no more.
    rate_limited,
    /// Refused webhooks that were kept, to be looked at and accepted afterwards.
    rejections_kept,
    /// Refused webhooks that were not kept: too many came at once.
    rejections_dropped,
    /// Dedup keys forgotten within their window, because there were too many.
    dedup_forgotten,
    /// Events taken in.
    taken_in,
    /// Attempts made.
    attempts,
    /// Attempts that failed.
    attempts_failed,
    /// Deliveries that succeeded.
    delivered,
    /// Deliveries that wait for another attempt, counted each time.
    retried,
    /// Deliveries that entered the dead letter.
    dead,
    /// Events that a subscription's selection left out.
    filtered,
    /// Events that a subscription left out as duplicates.
    duplicates,
    /// Deliveries that were not made within the time they were worth it.
    expired,
    /// Deliveries given up because a program or a provider failed on them.
    program_faults,
    /// Deliveries that wait because their transformation's engine was unavailable, counted each time.
    engine_unavailable,
    /// Deliveries that wait behind a failed one of their order key, counted each time.
    parked,
    /// Deliveries given up because hookmill crashed with them again and again.
    poison,
    /// Times that a destination's circuit breaker opened.
    breaker_opened,
    /// Times that one closed.
    breaker_closed,
    /// Retries that waited for their destination's retry budget, counted each time.
    retry_budget_waits,
    /// Deliveries sent again by an operator.
    replayed,
    /// Dead letters taken away by an operator.
    discarded,
    /// Dead letters taken away by the end of their retention.
    dead_letters_expired,
    /// Actors restarted, after a crash or because an operator asked for it.
    restarts,
    /// Deliveries that rest because their actor kept crashing.
    deliveries_failed,
    /// Integrations that failed: their actor kept crashing.
    integrations_failed,
}

/// One more, or several.
pub fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

/// What the metrics actor tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Report {
    /// Totals since start.
    pub totals: Totals,
    /// Webhooks accepted a second, over the last few seconds.
    pub accepted_per_s: f64,
    /// Deliveries a second, over the last few seconds.
    pub delivered_per_s: f64,
}

/// What may be said to the metrics actor.
pub(crate) enum MetricsMsg {
    /// The timer: look at the counters.
    Tick,
    /// Tell.
    Report(RpcReplyPort<Report>),
}

pub(crate) struct MetricsActor;

pub(crate) struct MetricsState {
    clock: Arc<dyn Clock>,
    wires: Arc<Wires>,
    /// The configuration whose destinations and subscriptions are known here.
    version: u64,
    samples: std::collections::VecDeque<(Instant, Totals)>,
}

const TICK: Duration = Duration::from_secs(1);
/// Rates are over so many ticks.
const SAMPLES: usize = 5;

impl Actor for MetricsActor {
    type Msg = MetricsMsg;
    type State = MetricsState;
    type Arguments = (Arc<dyn Clock>, Arc<Wires>);

    async fn pre_start(
        &self,
        me: ActorRef<MetricsMsg>,
        (clock, wires): Self::Arguments,
    ) -> Result<MetricsState, ActorProcessingErr> {
        me.send_interval(TICK, || MetricsMsg::Tick);
        wires.metrics.set(me);
        let samples = [(Instant::now(), wires.counters.totals())].into();
        Ok(MetricsState { clock, wires, version: 0, samples })
    }

    async fn handle(
        &self,
        _me: ActorRef<MetricsMsg>,
        msg: MetricsMsg,
        state: &mut MetricsState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            MetricsMsg::Tick => {
                state.sample();
                state.look_after_gates();
            }
            MetricsMsg::Report(reply) => drop(reply.send(state.report())),
        }
        Ok(())
    }
}

impl MetricsState {
    fn sample(&mut self) {
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((Instant::now(), self.wires.counters.totals()));
    }

    fn look_after_gates(&mut self) {
        let wires = &self.wires;
        let snapshot = wires.config.current();
        if self.version != snapshot.version() {
            self.version = snapshot.version();
            let configuration = &snapshot.configuration;
            wires.gates.retain(|id| configuration.destinations.contains_key(&id));
            wires.gauges.retain(|id| configuration.subscriptions.contains_key(&id));
        }
        let swept = wires.gates.sweep(Instant::now());
        add(&wires.counters.breaker_opened, swept.opened);
        add(&wires.counters.breaker_closed, swept.closed);
        for subscription in swept.hints {
            wires.deliveries.hint(subscription, DeliveryMsg::Room);
        }
        if !swept.news.is_empty() {
            let snapshot = wires.config.current();
            for (destination, news) in swept.news {
                let integration = snapshot.integration_of(ResourceKey::Destination(destination));
                wires.record(Activity { integration, ..told(destination, news, self.clock.now_ms()) });
            }
        }
    }

    fn report(&self) -> Report {
        let totals = self.wires.counters.totals();
        let (since, before) = self.samples.front().copied().unwrap_or((Instant::now(), totals));
        let seconds = since.elapsed().as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds are far below 2^52")]
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Report {
            totals,
            accepted_per_s: rate(totals.accepted, before.accepted),
            delivered_per_s: rate(totals.delivered, before.delivered),
        }
    }
}

/// A breaker's news for the log and for the audit log.
fn told(destination: DestinationId, news: News, at_ms: u64) -> Activity {
    let (action, result, detail) = match news {
        News::Opened { times } => {
            tracing::warn!(
                destination = destination.0,
                times,
                "destination keeps failing; its circuit breaker is open"
            );
            let detail =
                format!("it keeps failing and is left alone for a while; opened {times} times since last told");
            ("destination.breaker_opened", ActivityResult::Failed, detail)
        }
        News::Closed { times } => {
            tracing::info!(
                destination = destination.0,
                times,
                "destination is well again; its circuit breaker is closed"
            );
            let detail = format!("its probes succeeded; opened {times} more times since last told");
            ("destination.breaker_closed", ActivityResult::Ok, detail)
        }
    };
    Activity {
        at_ms,
        actor: "hookmill".to_owned(),
        source: None,
        action: action.to_owned(),
        subject: format!("destination {destination}"),
        integration: None,
        result,
        detail,
    }
}
