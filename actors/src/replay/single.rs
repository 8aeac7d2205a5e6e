//! One delivery again, and dead letters taken away.

use super::{Discarded, ReplayError, ReplayState, Scope, look::look, scan};
use crate::{
    delivery::DeliveryMsg,
    domain::{
        activity::{ActivityResult, Author},
        delivery::{DeliveryRecord, DeliveryStatus},
        ids::{EventId, IntegrationId, SubscriptionId},
        replay::DeadLetterFilter,
    },
    metrics::add,
    ports::{
        event_log::LogError,
        state_store::{DeliveryState, StateOp},
    },
};

/// Letters taken away by one call, at most: they are one commit.
const DISCARD_MAX: usize = 256;

impl ReplayState {
    pub(super) async fn one(
        &mut self,
        author: Author,
        subscription: SubscriptionId,
        event: EventId,
        scope: Scope,
    ) -> Result<(), ReplayError> {
        let snapshot = self.wires.config.current();
        let is_dead = self.ports.state.dead_letter(subscription, event).await?.is_some();
        if scope == Scope::DeadLetter && !is_dead {
            return Err(ReplayError::NotFound { event, subscription });
        }
        let Some(configured) = snapshot.configuration.subscriptions.get(&subscription) else {
            return Err(ReplayError::SubscriptionGone(subscription));
        };
        if self.ports.log.get(event).await?.is_none() {
            return Err(ReplayError::EventGone(event));
        }
        if event.integration() != configured.integration_id {
            return Err(ReplayError::OtherIntegration { event, subscription });
        }
        if !is_dead {
            let note = self.ports.state.note(event).await?;
            let start_after = configured.start_after;
            let found = look(&*self.ports.state, subscription, start_after, event, note.as_ref()).await?;
            if found.standing.is_some_and(|standing| !standing.is_settled()) {
                return Err(ReplayError::OnItsWay { event, subscription });
            }
        }
        let now_ms = self.ports.clock.now_ms();
        let again = self.again(subscription, event, now_ms).await?;
        // What a deleted subscription still had on its way is cancelled, and this would come after that.
        if self.is_gone(subscription) {
            return Err(ReplayError::SubscriptionGone(subscription));
        }
        self.commit(vec![again]).await?;
        add(&self.wires.counters.replayed, 1);
        self.wires.retry.schedule(subscription, now_ms);
        let action = if is_dead { "dead_letter.replayed" } else { "event.replayed" };
        self.note(author, action, about(subscription, event), ActivityResult::Ok, "");
        Ok(())
    }

    pub(super) async fn discard(
        &mut self,
        author: Author,
        subscription: SubscriptionId,
        event: EventId,
        reason: String,
    ) -> Result<(), ReplayError> {
        if self.ports.state.dead_letter(subscription, event).await?.is_none() {
            return Err(ReplayError::NotFound { event, subscription });
        }
        let op = self.taken_away(subscription, event, DeliveryStatus::Discarded, reason.clone()).await?;
        self.commit(vec![op]).await?;
        add(&self.wires.counters.discarded, 1);
        self.wires.deliveries.hint(subscription, DeliveryMsg::Released { event });
        self.note(author, "dead_letter.discarded", about(subscription, event), ActivityResult::Ok, reason);
        Ok(())
    }

    pub(super) async fn discard_many(
        &mut self,
        author: Author,
        filter: &DeadLetterFilter,
        after: Option<(SubscriptionId, EventId)>,
        reason: &str,
    ) -> Result<Discarded, ReplayError> {
        let found = scan::letters(&*self.ports.state, filter, after, DISCARD_MAX).await?;
        let mut ops = Vec::with_capacity(found.letters.len());
        for letter in &found.letters {
            let status = DeliveryStatus::Discarded;
            ops.push(self.taken_away(letter.subscription, letter.event, status, reason.to_owned()).await?);
        }
        let discarded = found.letters.len() as u64;
        if discarded > 0 {
            self.commit(ops).await?;
            add(&self.wires.counters.discarded, discarded);
            for letter in &found.letters {
                self.wires.deliveries.hint(letter.subscription, DeliveryMsg::Released { event: letter.event });
            }
            let first = found.letters.first().map(|letter| letter.event.integration());
            let same = first.filter(|it| found.letters.iter().all(|letter| letter.event.integration() == *it));
            let about = (format!("{discarded} dead letters"), same);
            self.note(author, "dead_letters.discarded", about, ActivityResult::Ok, reason);
        }
        Ok(Discarded { discarded, next: found.next })
    }

    /// Whether the subscription is deleted by now.
    pub(super) fn is_gone(&self, subscription: SubscriptionId) -> bool {
        !self.wires.config.current().configuration.subscriptions.contains_key(&subscription)
    }

    /// The operation that makes a settled delivery due again, with fresh attempts and under the same id.
    pub(super) async fn again(
        &self,
        subscription: SubscriptionId,
        event: EventId,
        now_ms: u64,
    ) -> Result<StateOp, LogError> {
        let mut record = self.story(subscription, event).await?;
        // Only a dead letter may hold its order key back; what is settled has left its place.
        record.lane = record.lane.filter(|_| record.status == DeliveryStatus::Dead);
        record.status = DeliveryStatus::Retrying;
        record.attempts = 0;
        record.due_ms = Some(now_ms);
        record.replay = true;
        record.crashes = 0;
        (record.reason, record.postponed, record.discarded_at_ms) = (None, 0, None);
        Ok(StateOp::Delivery { subscription, event, record })
    }

    /// The operation that takes a dead letter away.
    pub(super) async fn taken_away(
        &self,
        subscription: SubscriptionId,
        event: EventId,
        status: DeliveryStatus,
        reason: String,
    ) -> Result<StateOp, LogError> {
        let mut record = self.story(subscription, event).await?;
        record.status = status;
        record.due_ms = None;
        record.lane = None;
        record.reason = Some(reason);
        record.discarded_at_ms = Some(self.ports.clock.now_ms());
        Ok(StateOp::Delivery { subscription, event, record })
    }

    /// What is known of a delivery so far. Where there is no record, its story is all that is missing.
    async fn story(&self, subscription: SubscriptionId, event: EventId) -> Result<DeliveryRecord, LogError> {
        Ok(match self.ports.state.delivery(subscription, event).await? {
            DeliveryState::Record(record) => record,
            DeliveryState::Delivered { .. } | DeliveryState::Unknown => {
                DeliveryRecord::new(self.wires.config.current().version())
            }
        })
    }
}

/// A delivery, as an activity's subject.
fn about(subscription: SubscriptionId, event: EventId) -> (String, Option<IntegrationId>) {
    (format!("event {event} for subscription {subscription}"), Some(event.integration()))
}
