//! Removes dead letters that have outlived their retention: an activity a sweep, never one a letter.

use std::time::Duration;

use ractor::{ActorRef, RpcReplyPort};

use super::{ReplayMsg, ReplayState};
use crate::{
    delivery::DeliveryMsg,
    domain::{
        activity::{ActivityResult, Author},
        delivery::{DeadLetter, DeliveryStatus},
        ids::{EventId, SubscriptionId},
    },
    metrics::add,
    ports::event_log::LogError,
};

/// Letters looked at in one step: other requests are answered between two.
const STEP_LETTERS: usize = 256;

/// A sweep under way.
pub(crate) struct Sweep {
    age_max: Duration,
    after: Option<(SubscriptionId, EventId)>,
    /// Letters from before this go, milliseconds since 1970.
    before_ms: u64,
    expired: u64,
    reply: RpcReplyPort<Result<u64, LogError>>,
}

/// When a letter's time began. A clock that was wrong when it came cannot make it older than its event.
fn since_ms(letter: &DeadLetter) -> u64 {
    letter.at_ms.max(letter.event.millis())
}

impl ReplayState {
    pub(super) async fn sweep(
        &mut self,
        me: &ActorRef<ReplayMsg>,
        age_max: Duration,
        reply: RpcReplyPort<Result<u64, LogError>>,
    ) {
        let age_ms = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
        let before_ms = self.ports.clock.now_ms().saturating_sub(age_ms);
        self.sweep_on(me, Sweep { age_max, after: None, before_ms, expired: 0, reply }).await;
    }

    pub(super) async fn sweep_on(&mut self, me: &ActorRef<ReplayMsg>, mut sweep: Sweep) {
        let swept = match self.sweep_step(&mut sweep).await {
            Ok(true) => {
                let _ = me.cast(ReplayMsg::SweepOn(sweep));
                return;
            }
            Ok(false) => Ok(sweep.expired),
            Err(error) => Err(error),
        };
        if sweep.expired > 0 {
            let kept_s = sweep.age_max.as_secs();
            let detail = format!("{} were kept for {kept_s} s, the setting `retention.dead_letters`", sweep.expired);
            let about = ("dead letters".to_owned(), None);
            self.note(Author::hookmill(), "dead_letters.expired", about, ActivityResult::Ok, detail);
        }
        drop(sweep.reply.send(swept));
    }

    /// Whether there may be more.
    async fn sweep_step(&mut self, sweep: &mut Sweep) -> Result<bool, LogError> {
        let letters = self.ports.state.dead_letters(sweep.after, STEP_LETTERS).await?;
        let more = letters.len() == STEP_LETTERS;
        sweep.after = letters.last().map(|letter| (letter.subscription, letter.event));
        let (mut ops, mut gone) = (Vec::new(), Vec::new());
        for letter in letters.iter().filter(|letter| since_ms(letter) < sweep.before_ms) {
            let reason = "its retention in the dead letter ended".to_owned();
            ops.push(self.taken_away(letter.subscription, letter.event, DeliveryStatus::Discarded, reason).await?);
            gone.push((letter.subscription, letter.event));
        }
        if !ops.is_empty() {
            self.commit(ops).await?;
            sweep.expired += gone.len() as u64;
            add(&self.wires.counters.dead_letters_expired, gone.len() as u64);
            for (subscription, event) in gone {
                self.wires.deliveries.hint(subscription, DeliveryMsg::Released { event });
            }
        }
        Ok(more)
    }
}
