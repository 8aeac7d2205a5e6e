//! Bulk replays: what is sent again, where to, how fast, and how far that has come.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    delivery::{DeadLetter, DeadReason},
    ids::{EndpointId, EventId, IntegrationId, ReplayId, SubscriptionId},
    selection::Selection,
    standing::Standing,
};

/// Which dead letters. Every member narrows; the default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterFilter {
    /// Whose events.
    pub integration: Option<IntegrationId>,
    /// Whose deliveries.
    pub subscription: Option<SubscriptionId>,
    /// Why they are there.
    pub reason: Option<DeadReason>,
    /// They came there at this time or later, milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// They came there before this time, milliseconds since 1970.
    pub to_ms: Option<u64>,
}

impl DeadLetterFilter {
    /// Whether a letter is among them.
    pub fn passes(&self, letter: &DeadLetter) -> bool {
        self.integration.is_none_or(|wanted| letter.event.integration() == wanted)
            && self.subscription.is_none_or(|wanted| letter.subscription == wanted)
            && self.reason.is_none_or(|wanted| letter.reason == wanted)
            && self.from_ms.is_none_or(|from| letter.at_ms >= from)
            && self.to_ms.is_none_or(|to| letter.at_ms < to)
    }
}

/// Which stored events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilter {
    /// Whose.
    pub integration: IntegrationId,
    /// Whose standing `standing` is about.
    pub subscription: SubscriptionId,
    /// Patterns of the type, any of which must fit; empty: every type, and none.
    pub types: Vec<String>,
    /// Where they arrived.
    pub endpoint: Option<EndpointId>,
    /// Where they stand with `subscription`; `None`: anywhere.
    pub standing: Option<Standing>,
    /// Accepted at this time or later, by their id's time, milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Accepted before this time, by their id's time, milliseconds since 1970.
    pub to_ms: Option<u64>,
}

impl EventFilter {
    /// The patterns as a subscription has them.
    pub fn selection(&self) -> Selection {
        Selection { types: self.types.clone(), filter: None }
    }
}

/// What a replay sends again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplayQuery {
    /// Dead letters that stand there when the replay is made.
    DeadLetters(DeadLetterFilter),
    /// Events that are stored when the replay is made.
    Events(EventFilter),
}

/// Where a replay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayStatus {
    /// What it covers is being counted.
    Planning,
    /// It is counted, and waits for its start.
    Planned,
    /// It sends.
    Running,
    /// It rests until it is resumed.
    Paused,
    /// Everything it covered was sent again or skipped.
    Done,
    /// An operator ended it; what was already due is still delivered.
    Cancelled,
    /// It cannot go on.
    Failed,
}

impl ReplayStatus {
    /// Whether it will never send anything more.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }

    /// Its name, as the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Whether it does something by itself.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Planning | Self::Running)
    }
}

/// How far a scan has come: everything up to here is behind it. Events of one subscription know only `event`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReplayCursor {
    /// Whose dead letters; 0 where events are scanned.
    pub subscription: u32,
    /// The last one looked at.
    pub event: EventId,
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayCounts {
    /// Covered by the query when the replay was planned; while it is planned, so far.
    pub planned: u64,
    /// Sent again.
    pub replayed: u64,
    /// Not sent again: gone from the dead letter or from the log in the meantime, or on their way already.
    pub skipped: u64,
}

/// One delivery that a replay covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplayItem {
    /// To whom it would be sent.
    pub subscription: SubscriptionId,
    /// Which.
    pub event: EventId,
}

/// A bulk replay as it is stored. What it covers is fixed when it is made: see [`ReplayJob::upto`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayJob {
    /// Its number.
    pub id: ReplayId,
    /// Who made it: a token's name.
    pub author: String,
    /// When, milliseconds since 1970. Dead letters that came later are not part of it.
    pub created_at_ms: u64,
    /// What it sends again.
    pub query: ReplayQuery,
    /// Where to; `None`: each dead letter to its own subscription.
    pub target: Option<SubscriptionId>,
    /// Deliveries a second, at most.
    pub rate_per_s: u32,
    /// Where it stands.
    pub status: ReplayStatus,
    /// The last event that it may cover.
    pub upto: EventId,
    /// How far the scan under way has come: the plan's, then the run's.
    pub cursor: ReplayCursor,
    /// How many.
    pub counts: ReplayCounts,
    /// The first of what it covers.
    pub sample: Vec<ReplayItem>,
    /// Whether it starts as soon as it is planned.
    pub start: bool,
    /// What it waits for, or why it ended; empty where there is nothing to add.
    pub note: String,
    /// When it ended, milliseconds since 1970.
    pub ended_at_ms: Option<u64>,
}

/// The first ids that a plan shows.
pub const SAMPLE_MAX: usize = 10;
/// Bytes of all type patterns of one query: a job must stay a small value.
pub const REPLAY_TYPES_BYTES_MAX: usize = 1_024;

impl ReplayJob {
    /// The subscription that everything goes to, where there is one.
    pub fn only_target(&self) -> Option<SubscriptionId> {
        match (&self.target, &self.query) {
            (Some(target), _) => Some(*target),
            (None, ReplayQuery::DeadLetters(filter)) => filter.subscription,
            (None, ReplayQuery::Events(filter)) => Some(filter.subscription),
        }
    }

    /// How long the rest takes at its rate, seconds.
    pub fn remaining_s(&self) -> u64 {
        let settled = self.counts.replayed + self.counts.skipped;
        self.counts.planned.saturating_sub(settled).div_ceil(u64::from(self.rate_per_s.max(1)))
    }

    /// Ends it. What the plan counted and no scan found again is gone, and counts as skipped.
    pub fn end(&mut self, status: ReplayStatus, note: impl Into<String>, now_ms: u64) {
        self.status = status;
        self.note = note.into();
        self.ended_at_ms = Some(now_ms);
        if status == ReplayStatus::Done {
            self.counts.skipped = self.counts.planned.saturating_sub(self.counts.replayed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(subscription: u32, integration: u32, at_ms: u64) -> DeadLetter {
        DeadLetter {
            event: EventId::from_parts(5, IntegrationId(integration), 0),
            subscription: SubscriptionId(subscription),
            reason: DeadReason::Refused,
            error: String::new(),
            at_ms,
            attempts: 1,
        }
    }

    #[test]
    fn every_member_of_a_filter_narrows() {
        let all = DeadLetterFilter::default();
        let one = letter(3, 1, 100);
        assert!(all.passes(&one));
        for (filter, want) in [
            (DeadLetterFilter { integration: Some(IntegrationId(1)), ..all.clone() }, true),
            (DeadLetterFilter { integration: Some(IntegrationId(2)), ..all.clone() }, false),
            (DeadLetterFilter { subscription: Some(SubscriptionId(3)), ..all.clone() }, true),
            (DeadLetterFilter { subscription: Some(SubscriptionId(1)), ..all.clone() }, false),
            (DeadLetterFilter { reason: Some(DeadReason::Refused), ..all.clone() }, true),
            (DeadLetterFilter { reason: Some(DeadReason::Poison), ..all.clone() }, false),
            (DeadLetterFilter { from_ms: Some(100), ..all.clone() }, true),
            (DeadLetterFilter { from_ms: Some(101), ..all.clone() }, false),
            (DeadLetterFilter { to_ms: Some(101), ..all.clone() }, true),
            (DeadLetterFilter { to_ms: Some(100), ..all.clone() }, false),
        ] {
            assert_eq!(filter.passes(&one), want, "{filter:?}");
        }
    }
}
