//! Who did what, when, from where, to what, and how it ended: the entries of the activity log.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ids::IntegrationId;

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivityResult {
    /// It was done.
    Ok,
    /// It was not allowed, or what was asked for is wrong.
    Refused,
    /// It was tried and failed.
    Failed,
}

/// Who wants something done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// A token's name, or a part of hookmill.
    pub name: String,
    /// Where the request came from; `None` for hookmill itself.
    pub source: Option<IpAddr>,
}

impl Author {
    /// hookmill, of its own accord.
    pub fn hookmill() -> Self {
        Self { name: "hookmill".to_owned(), source: None }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// One action of an operator or of hookmill itself. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Who: a token's name, or a part of hookmill.
    pub actor: String,
    /// From which address; `None` where hookmill acted by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// What was done: `subscription.created`, `dead_letter.replayed`.
    pub action: String,
    /// To what: `subscription 7`.
    pub subject: String,
    /// The integration that it concerns, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<IntegrationId>,
    /// How it ended.
    pub result: ActivityResult,
    /// More of it in words; empty where there is nothing to add.
    pub detail: String,
}

/// An activity as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedActivity {
    /// Its number in the log, from 1, without gaps.
    pub number: u64,
    /// What happened.
    #[serde(flatten)]
    pub activity: Activity,
}

impl RecordedActivity {
    /// Where it stands among all.
    pub fn place(&self) -> ActivityPlace {
        ActivityPlace { at_ms: self.activity.at_ms, number: self.number }
    }
}

/// A place in the log, in the order that it is read in: by time, then by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActivityPlace {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The activity's number.
    pub number: u64,
}

impl ActivityPlace {
    /// Before every activity.
    pub const FIRST: Self = Self { at_ms: 0, number: 0 };
    /// After every activity.
    pub const END: Self = Self { at_ms: u64::MAX, number: u64::MAX };
}

impl fmt::Display for ActivityPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.at_ms, self.number)
    }
}

/// A text that is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no place in the activity log")]
pub struct BadPlace;

impl FromStr for ActivityPlace {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let (at_ms, number) = text.split_once('-').ok_or(BadPlace)?;
        let hex = |digits: &str| {
            let is_ours = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            is_ours.then(|| u64::from_str_radix(digits, 16).ok()).flatten().ok_or(BadPlace)
        };
        Ok(Self { at_ms: hex(at_ms)?, number: hex(number)? })
    }
}

/// Which activities; every member narrows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivityFilter {
    /// Those of an integration.
    pub integration: Option<IntegrationId>,
    /// Those of an actor, by its whole name.
    pub actor: Option<String>,
    /// Those whose action begins with this.
    pub action: Option<String>,
    /// Those that ended so.
    pub result: Option<ActivityResult>,
    /// Not before, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Before, milliseconds since 1970.
    pub until_ms: Option<u64>,
}

impl ActivityFilter {
    /// Whether it passes what no index answers; integration and time included.
    pub fn passes(&self, activity: &Activity) -> bool {
        self.integration.is_none_or(|integration| activity.integration == Some(integration))
            && self.actor.as_ref().is_none_or(|actor| activity.actor == *actor)
            && self.action.as_ref().is_none_or(|prefix| activity.action.starts_with(prefix.as_str()))
            && self.result.is_none_or(|result| activity.result == result)
            && self.since_ms.is_none_or(|since_ms| activity.at_ms >= since_ms)
            && self.until_ms.is_none_or(|until_ms| activity.at_ms < until_ms)
    }

    /// The places it can be passed at: from the first one, up to, without, the second one.
    pub fn span(&self) -> (ActivityPlace, ActivityPlace) {
        let at = |at_ms| ActivityPlace { at_ms, number: 0 };
        (self.since_ms.map_or(ActivityPlace::FIRST, at), self.until_ms.map_or(ActivityPlace::END, at))
    }
}

/// How far one read of the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivityBounds {
    /// Begin below this place.
    pub before: ActivityPlace,
    /// Activities that are found.
    pub found_max: usize,
    /// Activities that are looked at, whether they pass or not.
    pub looked_at_max: usize,
}

/// What one read found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivityPage {
    /// Newest first.
    pub entries: Vec<RecordedActivity>,
    /// Where the next read goes on; `None` at the end.
    pub next: Option<ActivityPlace>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back() {
        for place in [ActivityPlace::FIRST, ActivityPlace { at_ms: 1_767_225_600_000, number: 42 }, ActivityPlace::END]
        {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for wrong in ["", "-", "1", "x-1", "1-", "1-2-3", "11111111111111111-1"] {
            assert_eq!(wrong.parse::<ActivityPlace>(), Err(BadPlace), "{wrong}");
        }
    }

    #[test]
    fn every_member_of_a_filter_narrows() {
        let activity = Activity {
            at_ms: 1_000,
            actor: "ada".to_owned(),
            source: None,
            action: "replay.created".to_owned(),
            subject: String::new(),
            integration: Some(IntegrationId(3)),
            result: ActivityResult::Ok,
            detail: String::new(),
        };
        let passes = |filter: ActivityFilter| filter.passes(&activity);
        let all = ActivityFilter::default;
        assert!(passes(all()));
        for (filter, want) in [
            (ActivityFilter { integration: Some(IntegrationId(3)), ..all() }, true),
            (ActivityFilter { integration: Some(IntegrationId(4)), ..all() }, false),
            (ActivityFilter { actor: Some("ada".to_owned()), ..all() }, true),
            (ActivityFilter { actor: Some("ad".to_owned()), ..all() }, false),
            (ActivityFilter { action: Some("replay.".to_owned()), ..all() }, true),
            (ActivityFilter { action: Some("created".to_owned()), ..all() }, false),
            (ActivityFilter { result: Some(ActivityResult::Failed), ..all() }, false),
            (ActivityFilter { since_ms: Some(1_000), ..all() }, true),
            (ActivityFilter { since_ms: Some(1_001), ..all() }, false),
            (ActivityFilter { until_ms: Some(1_000), ..all() }, false),
            (ActivityFilter { until_ms: Some(1_001), ..all() }, true),
        ] {
            assert_eq!(passes(filter.clone()), want, "{filter:?}");
        }
    }
}
