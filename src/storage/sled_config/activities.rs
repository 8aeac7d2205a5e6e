//! The activity log in the configuration's tree. Read newest first, by time and then by number, which two indexes hold.
//!
//! | key | value |
//! | --- | --- |
//! | `a` number | the activity, a document in chunks |
//! | `t` milliseconds, number | nothing |
//! | `j` integration, milliseconds, number | nothing |

use hookmill_actors::{
    domain::{
        activity::{Activity, ActivityBounds, ActivityFilter, ActivityPage, ActivityPlace, RecordedActivity},
        ids::IntegrationId,
    },
    ports::config_store::ConfigStoreError,
};

use super::{Shared, malformed, parse, to_json};

/// Activities that one step forgets.
const FORGET_STEP: usize = 1_000;

pub(super) fn key(number: u64) -> Vec<u8> {
    let mut key = vec![b'a'];
    key.extend(number.to_be_bytes());
    key
}

pub(super) fn number(key: &[u8]) -> Option<u64> {
    key.get(1..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The index entry of a place: among all, or among those of an integration.
fn index_key(integration: Option<IntegrationId>, place: ActivityPlace) -> Vec<u8> {
    let mut key = match integration {
        None => vec![b't'],
        Some(integration) => [b"j".as_slice(), &integration.0.to_be_bytes()].concat(),
    };
    key.extend(place.at_ms.to_be_bytes());
    key.extend(place.number.to_be_bytes());
    key
}

fn place_of(key: &[u8]) -> Option<ActivityPlace> {
    let (rest, number) = key.split_last_chunk()?;
    let (_, at_ms) = rest.split_last_chunk()?;
    Some(ActivityPlace { at_ms: u64::from_be_bytes(*at_ms), number: u64::from_be_bytes(*number) })
}

impl Shared {
    pub(super) fn record_activity(&self, activities: &[Activity]) -> Result<(), ConfigStoreError> {
        self.write_with_activities(sled::Batch::default(), activities)
    }

    /// Writes a batch and what the audit log says of it, both or neither.
    pub(super) fn write_with_activities(
        &self,
        mut batch: sled::Batch,
        activities: &[Activity],
    ) -> Result<(), ConfigStoreError> {
        let mut mark = self.writing();
        let mut number = mark.activity;
        for activity in activities {
            number += 1;
            let subject = format_args!("the activity `{}`", activity.action);
            self.put(&mut batch, &key(number), &to_json(activity)?, &subject)?;
            let place = ActivityPlace { at_ms: activity.at_ms, number };
            batch.insert(index_key(None, place), &[]);
            if activity.integration.is_some() {
                batch.insert(index_key(activity.integration, place), &[]);
            }
        }
        self.write(batch)?;
        mark.activity = number;
        self.guard(mark.write(self.db.dir()))
    }

    pub(super) fn activities(
        &self,
        filter: &ActivityFilter,
        bounds: ActivityBounds,
    ) -> Result<ActivityPage, ConfigStoreError> {
        let mut page = ActivityPage::default();
        let (first, end) = filter.span();
        let end = end.min(bounds.before);
        if first >= end {
            return Ok(page);
        }
        let range = index_key(filter.integration, first)..index_key(filter.integration, end);
        let mut last = None;
        for (looked_at, item) in self.tree.range(range).keys().rev().enumerate() {
            if page.entries.len() >= bounds.found_max || looked_at >= bounds.looked_at_max {
                page.next = last;
                break;
            }
            let index = self.guard(item)?;
            let place = place_of(&index).ok_or_else(|| malformed(&index))?;
            last = Some(place);
            let at = key(place.number);
            // It may have been forgotten since the index was read.
            let Some(json) = self.read(&at)? else { continue };
            let activity: Activity = parse(&at, &json)?;
            if filter.passes(&activity) {
                page.entries.push(RecordedActivity { number: place.number, activity });
            }
        }
        Ok(page)
    }

    /// The last one of all stays, so that a reopening finds how far the numbers had come.
    pub(super) fn forget_activities(&self, before_ms: u64) -> Result<u64, ConfigStoreError> {
        let mark = self.writing();
        let end = index_key(None, ActivityPlace { at_ms: before_ms, number: 0 });
        let mut batch = sled::Batch::default();
        let mut forgotten = 0;
        for item in self.tree.range(index_key(None, ActivityPlace::FIRST)..end).keys().take(FORGET_STEP) {
            let index = self.guard(item)?;
            let place = place_of(&index).ok_or_else(|| malformed(&index))?;
            if place.number == mark.activity {
                continue;
            }
            let at = key(place.number);
            if let Some(json) = self.read(&at)? {
                let activity: Activity = parse(&at, &json)?;
                if activity.integration.is_some() {
                    batch.remove(index_key(activity.integration, place));
                }
                self.remove(&mut batch, &at, 0)?;
            }
            batch.remove(index);
            forgotten += 1;
        }
        if forgotten > 0 {
            self.write(batch)?;
        }
        Ok(forgotten)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use hookmill_actors::{domain::activity::ActivityResult, ports::config_store::ConfigStore};
    use proptest::prelude::*;

    use super::{
        super::{SledConfig, tests::open},
        *,
    };

    pub(in super::super) fn activity(text: &str) -> Activity {
        Activity {
            at_ms: 1,
            actor: "root".to_owned(),
            source: Some([192, 0, 2, 1].into()),
            action: "destination.create".to_owned(),
            subject: "destination 1".to_owned(),
            integration: None,
            result: ActivityResult::Ok,
            detail: text.to_owned(),
        }
    }

    const ALL: ActivityBounds =
        ActivityBounds { before: ActivityPlace::END, found_max: usize::MAX, looked_at_max: usize::MAX };

    async fn walk(config: &SledConfig, filter: &ActivityFilter, found_max: usize, looked_at_max: usize) -> Vec<u64> {
        let mut before = ActivityPlace::END;
        let mut numbers = Vec::new();
        loop {
            let page = config.activities(filter, ActivityBounds { before, found_max, looked_at_max }).await.unwrap();
            numbers.extend(page.entries.iter().map(|entry| entry.number));
            let Some(next) = page.next else { return numbers };
            assert!(next < before, "a walk goes on");
            before = next;
        }
    }

    #[tokio::test]
    async fn they_go_on_after_a_reopening_and_come_back_whole() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        let long = activity(&"d".repeat(10_000));
        config.record_activity(vec![activity("one"), long.clone()]).await.unwrap();
        drop(config);
        let config = open(&root);
        config.record_activity(vec![activity("three")]).await.unwrap();
        let all = config.activities(&ActivityFilter::default(), ALL).await.unwrap();
        assert_eq!(all.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!((&all.entries[1].activity, all.next), (&long, None));
    }

    #[tokio::test]
    async fn what_is_looked_at_is_bounded_by_the_integration_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        let of = |integration| Activity { integration: Some(IntegrationId(integration)), ..activity("x") };
        config.record_activity(vec![of(1)]).await.unwrap();
        config.record_activity(vec![of(2); 100]).await.unwrap();
        let filter = ActivityFilter { integration: Some(IntegrationId(1)), ..ActivityFilter::default() };
        let bounds = ActivityBounds { looked_at_max: 1, ..ALL };
        let page = config.activities(&filter, bounds).await.unwrap();
        assert_eq!((page.entries.len(), page.next), (1, None), "the hundred others are not looked at");
    }

    #[tokio::test]
    async fn the_old_are_forgotten_with_their_index_and_the_last_stays() {
        let root = tempfile::tempdir().unwrap();
        let config = open(&root);
        let at = |at_ms| Activity { at_ms, integration: Some(IntegrationId(1)), ..activity("x") };
        config.record_activity((1..=10).map(at).collect()).await.unwrap();
        let keys = config.0.tree.len();
        assert_eq!(config.forget_activities(6).await.unwrap(), 5);
        assert_eq!(config.0.tree.len(), keys - 15);
        assert_eq!(walk(&config, &ActivityFilter::default(), 3, 3).await, [10, 9, 8, 7, 6]);
        assert_eq!(config.forget_activities(u64::MAX).await.unwrap(), 4);
        assert_eq!(config.forget_activities(u64::MAX).await.unwrap(), 0);
        drop(config);
        let config = open(&root);
        config.record_activity(vec![at(11)]).await.unwrap();
        assert_eq!(walk(&config, &ActivityFilter::default(), 3, 3).await, [11, 10]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_walk_in_any_steps_finds_what_passes_once_newest_first(
            given in proptest::collection::vec((0u64..6, 0u32..3, any::<bool>()), 0..40),
            filter in (proptest::option::of(0u32..3), proptest::option::of(0u64..6), proptest::option::of(0u64..6), any::<bool>()),
            found_max in 1usize..5,
            looked_at_max in 1usize..5,
        ) {
            let root = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let config = open(&root);
            let made: Vec<Activity> = given.into_iter().map(|(at_ms, integration, failed)| Activity {
                at_ms,
                integration: (integration > 0).then_some(IntegrationId(integration)),
                result: if failed { ActivityResult::Failed } else { ActivityResult::Ok },
                ..activity("x")
            }).collect();
            runtime.block_on(config.record_activity(made.clone())).unwrap();
            let (integration, since_ms, until_ms, failed) = filter;
            let filter = ActivityFilter {
                integration: integration.map(IntegrationId),
                since_ms,
                until_ms,
                result: failed.then_some(ActivityResult::Failed),
                ..ActivityFilter::default()
            };
            let mut want: Vec<(u64, u64)> =
                (1..).zip(&made).filter(|(_, it)| filter.passes(it)).map(|(number, it)| (it.at_ms, number)).collect();
            want.sort_unstable_by(|a, b| b.cmp(a));
            let want: Vec<u64> = want.into_iter().map(|(_, number)| number).collect();
            prop_assert_eq!(runtime.block_on(walk(&config, &filter, found_max, looked_at_max)), want);
        }
    }
}
