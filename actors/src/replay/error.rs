//! Why a replay or a discard was refused; nothing of it was done then.

use crate::{
    domain::{
        ids::{EventId, ReplayId, SubscriptionId},
        replay::ReplayStatus,
    },
    ports::event_log::LogError,
};

/// Why a replay or a discard was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// There is no such dead letter.
    #[error("no dead letter of event {event} for subscription {subscription}")]
    NotFound {
        /// Which.
        event: EventId,
        /// Whose.
        subscription: SubscriptionId,
    },
    /// Its subscription was deleted.
    #[error(
        "subscription {0} does not exist any more; its dead letters can be looked at, discarded, or sent to another"
    )]
    SubscriptionGone(SubscriptionId),
    /// The event is not stored any more.
    #[error("event {0} does not exist, or its retention has ended")]
    EventGone(EventId),
    /// The subscription is another integration's.
    #[error("subscription {subscription} is not one of the integration that event {event} belongs to")]
    OtherIntegration {
        /// Which.
        event: EventId,
        /// Whose.
        subscription: SubscriptionId,
    },
    /// It is delivered anyway.
    #[error("event {event} is still on its way to subscription {subscription}; it needs no replay")]
    OnItsWay {
        /// Which.
        event: EventId,
        /// Whose.
        subscription: SubscriptionId,
    },
    /// There is no such bulk replay.
    #[error("replay {0} does not exist")]
    NoJob(ReplayId),
    /// What was asked for cannot be done now.
    #[error("replay {id} is {status}; {right}", status = .status.name())]
    WrongStatus {
        /// Which.
        id: ReplayId,
        /// Where it stands.
        status: ReplayStatus,
        /// What can be done.
        right: &'static str,
    },
    /// A member of what was asked for is wrong.
    #[error("`{field}` {detail}")]
    Invalid {
        /// The member, as a path within the query: `subscription_id`.
        field: &'static str,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// So many are active or remembered already.
    #[error("there are already {0} of these replays, the most allowed; wait for one to end, or cancel one")]
    TooMany(usize),
    /// The replay actor is being restarted or has stopped.
    #[error("replays are not available now; try again")]
    Unavailable,
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}
