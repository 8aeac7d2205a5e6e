//! What became of an event for one subscription.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ids::{EventId, SubscriptionId},
    limits::ATTEMPTS_KEPT,
};

/// One try of a delivery, as remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began, milliseconds since 1970.
    pub at_ms: u64,
    /// How long it took, milliseconds.
    pub duration_ms: u32,
    /// The destination's status, where it answered.
    pub status: Option<u16>,
    /// Why it failed, in words; `None` for a success.
    pub error: Option<String>,
    /// The beginning of the reply's body, as text.
    pub reply: Option<String>,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// Not yet tried, or under way.
    Pending,
    /// Failed; the next attempt has its time.
    Retrying,
    /// A 2xx came back.
    Delivered,
    /// In the dead letter.
    Dead,
    /// The subscription went away before it was delivered.
    Cancelled,
    /// Waits behind a failed event of its order key.
    Parked,
    /// Taken out of the dead letter by an operator, or by the end of its retention.
    Discarded,
}

/// A delivery that did not succeed at its first try: kept under its own key from its first failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Attempts made since it was accepted or last replayed.
    pub attempts: u32,
    /// The latest attempts, oldest first, at most [`ATTEMPTS_KEPT`].
    pub latest: Vec<Attempt>,
    /// When the next attempt is due, milliseconds since 1970, while retrying.
    pub due_ms: Option<u64>,
    /// The configuration version its subscription had at the first read.
    pub matched_version: u64,
    /// Whether the attempts under way are a replay.
    #[serde(default)]
    pub replay: bool,
    /// Its order key, hashed, where the subscription keeps an order.
    #[serde(default)]
    pub lane: Option<u64>,
    /// Starts after a crash that found it unsettled: an event that takes the process down is known by these.
    #[serde(default)]
    pub crashes: u8,
    /// Why it was discarded, or why the attempt that is due was not made earlier, for people.
    #[serde(default)]
    pub reason: Option<String>,
    /// Times in a row that it could not be prepared, as its transformation's engine was unavailable.
    #[serde(default)]
    pub postponed: u32,
    /// When it was discarded, milliseconds since 1970.
    #[serde(default)]
    pub discarded_at_ms: Option<u64>,
}

impl DeliveryRecord {
    /// A delivery of which nothing has been tried yet.
    pub fn new(matched_version: u64) -> Self {
        Self {
            status: DeliveryStatus::Pending,
            attempts: 0,
            latest: Vec::new(),
            due_ms: None,
            matched_version,
            replay: false,
            lane: None,
            crashes: 0,
            reason: None,
            postponed: 0,
            discarded_at_ms: None,
        }
    }

    /// Its next attempt is due at `at_ms`, milliseconds since 1970, where it waits for one later than that; whether it did.
    pub fn bring_forward(&mut self, at_ms: u64) -> bool {
        let is_waiting = matches!(self.status, DeliveryStatus::Pending | DeliveryStatus::Retrying);
        let is_later = is_waiting && self.due_ms.is_some_and(|due_ms| due_ms > at_ms);
        if is_later {
            self.due_ms = Some(at_ms);
        }
        is_later
    }

    /// Notes an attempt.
    pub fn push(&mut self, attempt: Attempt) {
        self.attempts += 1;
        if self.latest.len() == ATTEMPTS_KEPT {
            self.latest.remove(0);
        }
        self.latest.push(attempt);
    }
}

/// Why a delivery is in the dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// The last attempt of the retry schedule failed.
    AttemptsExhausted,
    /// It can never succeed: the destination's settings or the stored event forbid it.
    Refused,
    /// It was unfinished when its retention ended.
    Expired,
    /// Its stored bytes failed their checksum; they were not delivered.
    Corrupt,
    /// The subscription's filter or key expression failed on it.
    FilterFailed,
    /// The subscription's transformation failed on it.
    TransformFailed,
    /// The provider could not read it.
    ProviderFailed,
    /// It was under way at several crashes in a row.
    Poison,
}

/// A delivery that needs an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event.
    pub event: EventId,
    /// The subscription that could not be served.
    pub subscription: SubscriptionId,
    /// Why.
    pub reason: DeadReason,
    /// The last failure in words.
    pub error: String,
    /// When it came here, milliseconds since 1970.
    pub at_ms: u64,
    /// Attempts made.
    pub attempts: u32,
}

/// How far a subscription has come: everything up to `read_upto` is settled or has a due entry, save `open`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The last event read.
    pub read_upto: EventId,
    /// Events up to it with neither outcome nor due entry, ascending; at most `IN_FLIGHT_MAX`.
    pub open: Vec<EventId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_latest_attempts_and_counts_all() {
        let mut record = DeliveryRecord::new(1);
        for at_ms in 0..20 {
            record.push(Attempt { at_ms, duration_ms: 1, status: Some(500), error: None, reply: None });
        }
        assert_eq!(record.attempts, 20);
        assert_eq!(record.latest.len(), ATTEMPTS_KEPT);
        assert_eq!(record.latest.last().map(|attempt| attempt.at_ms), Some(19));
    }
}
