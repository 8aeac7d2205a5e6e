//! Replays and dead letters as the outside asks for them.

use std::time::Duration;

use ractor::RpcReplyPort;

use super::{Discarded, NewReplay, ReplayCommand, ReplayError, ReplayMsg, Scope};
use crate::{
    activity,
    domain::{
        ids::{EventId, ReplayId, SubscriptionId},
        replay::{DeadLetterFilter, ReplayJob},
    },
    tree::TreeHandle,
};

/// A commit takes milliseconds; a disk that hangs must not hang the API.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

impl TreeHandle {
    /// Sends a dead letter again: it leaves the dead letter for the due queue, under the same `webhook-id`, with a
    /// fresh set of attempts. Durable when this returns.
    pub async fn replay(&self, author: &str, subscription: SubscriptionId, event: EventId) -> Result<(), ReplayError> {
        self.replay_one(author, subscription, event, Scope::DeadLetter).await
    }

    /// Sends a stored event to a subscription of its integration, whether it was delivered there before or not, under
    /// the same `webhook-id`. Durable when this returns.
    pub async fn replay_event(
        &self,
        author: &str,
        subscription: SubscriptionId,
        event: EventId,
    ) -> Result<(), ReplayError> {
        self.replay_one(author, subscription, event, Scope::AnyStored).await
    }

    async fn replay_one(
        &self,
        author: &str,
        subscription: SubscriptionId,
        event: EventId,
        scope: Scope,
    ) -> Result<(), ReplayError> {
        let author = activity::author(author);
        self.ask(|reply| ReplayMsg::One { author, subscription, event, scope, reply }).await
    }

    /// Takes a letter out of the dead letter for good; what it held back goes on. Durable when this returns.
    pub async fn discard(
        &self,
        author: &str,
        subscription: SubscriptionId,
        event: EventId,
        reason: &str,
    ) -> Result<(), ReplayError> {
        let (author, reason) = (activity::author(author), reason.to_owned());
        self.ask(|reply| ReplayMsg::Discard { author, subscription, event, reason, reply }).await
    }

    /// Takes letters that pass the filter out of the dead letter, as many as one call may; `next` goes on from there.
    pub async fn discard_many(
        &self,
        author: &str,
        filter: DeadLetterFilter,
        after: Option<(SubscriptionId, EventId)>,
        reason: &str,
    ) -> Result<Discarded, ReplayError> {
        let (author, reason, filter) = (activity::author(author), reason.to_owned(), Box::new(filter));
        self.ask(|reply| ReplayMsg::DiscardMany { author, filter, after, reason, reply }).await
    }

    /// Makes a bulk replay; what it covers is fixed when this returns, and counted in the background.
    pub async fn create_replay(&self, author: &str, wanted: NewReplay) -> Result<ReplayJob, ReplayError> {
        let (author, wanted) = (activity::author(author), Box::new(wanted));
        self.ask(|reply| ReplayMsg::Create { author, wanted, reply }).await
    }

    /// Starts, pauses, resumes or cancels a bulk replay; as it stands then.
    pub async fn command_replay(
        &self,
        author: &str,
        id: ReplayId,
        command: ReplayCommand,
    ) -> Result<ReplayJob, ReplayError> {
        let author = activity::author(author);
        self.ask(|reply| ReplayMsg::Command { author, id, command, reply }).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        build: impl FnOnce(RpcReplyPort<Result<T, ReplayError>>) -> ReplayMsg,
    ) -> Result<T, ReplayError> {
        self.wires.replays.call(build, ANSWER_WAIT_MAX).await.unwrap_or(Err(ReplayError::Unavailable))
    }
}
