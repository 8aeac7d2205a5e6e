//! The scheduler's tasks: when they run, that none overlaps with itself, what they do, and that it is remembered.

use std::time::Duration;

use hookmill_actors::{
    domain::{
        backoff::RetryPolicy,
        config::{IntegrationStatus, Resource, ResourceKey},
        delivery::DeliveryStatus,
        ids::{EventId, IntegrationId},
        shaping::{BreakerPolicy, DestinationLimits},
        task::{Task, TaskArguments, TaskRun, TaskStatus},
    },
    ports::{state_store::StateStore, transport::Verdict},
    scheduler::{Schedule, TaskError, TaskOptions},
    testkit::scripted_transport::{ScriptedTransports, Step},
    tree::TreeOptions,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    limiting::limit,
    world::{World, quick_retries},
};

const ROUND: Task = Task::TestAllActiveIntegrations;
const SWEEP: Task = Task::ProcessPendingWebhookEvents;
/// A look at what is due, and the run.
const SOON: Duration = Duration::from_secs(3);

fn delivering() -> ScriptedTransports {
    ScriptedTransports::new(|_, _| Step::Answer(Verdict::Delivered, Duration::from_millis(1)))
}

async fn world_with(change: impl FnOnce(&mut TaskOptions)) -> World {
    let mut tasks = TaskOptions::default();
    change(&mut tasks);
    World::start_with(delivering(), TreeOptions { tasks, ..TreeOptions::default() }).await
}

impl World {
    async fn run(&self, task: Task, arguments: TaskArguments) -> TaskRun {
        let begun = self.handle().run_task("deploy", task, arguments).await.expect("it may begin");
        for _ in 0..2_000 {
            let runs = self.handle().task_runs(task);
            let run = runs.iter().find(|run| run.id == begun.id).expect("it is remembered");
            if run.status != TaskStatus::Running {
                return TaskRun::clone(run);
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("the run did not end");
    }

    async fn found(&self, task: Task, arguments: TaskArguments) -> Value {
        let run = self.run(task, arguments).await;
        assert_eq!((run.status, &run.error), (TaskStatus::Succeeded, &None), "{run:?}");
        run.result.expect("it succeeded")
    }

    async fn switch(&self, id: IntegrationId, status: IntegrationStatus) {
        let change = |resource: &mut Resource| {
            let Resource::Integration(integration) = resource else { unreachable!() };
            integration.status = status;
        };
        self.update(ResourceKey::Integration(id), change).await;
    }
}

fn of(event: EventId) -> TaskArguments {
    TaskArguments { event: Some(event), ..TaskArguments::default() }
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_at_its_times_put_off_within_the_bound() {
    let put_off_max = Duration::from_secs(40);
    let world = world_with(|tasks| tasks.put_off_max = put_off_max).await;
    sleep(Duration::from_hours(3)).await;
    let runs = world.handle().task_runs(SWEEP);
    assert_eq!(runs.len(), 36);
    let period_ms = 5 * 60 * 1_000;
    let mut put_off: Vec<u64> = runs.iter().map(|run| run.started_at_ms % period_ms).collect();
    assert!(put_off.iter().all(|ms| *ms <= 41_000), "{put_off:?}");
    put_off.dedup();
    assert!(put_off.len() > 5, "they are put off by chance: {put_off:?}");
    assert_eq!(world.handle().task_runs(ROUND).len(), 0);
    sleep(Duration::from_hours(3) + put_off_max + SOON).await;
    assert_eq!(world.handle().task_runs(ROUND).len(), 1);
    assert!(runs.iter().all(|run| run.author.is_none() && run.status == TaskStatus::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_longer_than_its_period_is_not_begun_twice() {
    let world = world_with(|tasks| {
        tasks.test_all_active_integrations = "*/5 * * * *".parse().expect("a schedule");
        tasks.put_off_max = Duration::ZERO;
    })
    .await;
    world.integration().await;
    world.third_parties.take(Duration::from_mins(12));
    sleep(Duration::from_mins(5) + SOON).await;
    let task = world.handle().task(ROUND);
    let last = task.last.expect("it has begun");
    assert_eq!((task.under_way, last.status), (1, TaskStatus::Running));
    let refused = world.handle().run_task("deploy", ROUND, TaskArguments::default()).await;
    assert_eq!(refused, Err(TaskError::UnderWay { task: ROUND, run: Some(last.id) }));
    sleep(Duration::from_mins(9)).await;
    assert_eq!(world.handle().task_runs(ROUND).len(), 1, "two times passed meanwhile");
    sleep(Duration::from_mins(7)).await;
    assert_eq!(world.handle().task_runs(ROUND).len(), 2, "the next time after it ended");
}

#[tokio::test(start_paused = true)]
async fn all_that_are_on_are_tested_so_many_at_once_and_until_the_deadline() {
    let world = world_with(|tasks| {
        tasks.tests_concurrent_max = 4;
        tasks.tests_deadline = Duration::from_secs(25);
    })
    .await;
    let mut ids = Vec::new();
    for _ in 0..11 {
        ids.push(world.integration().await);
    }
    world.switch(ids[0], IntegrationStatus::Inactive).await;
    world.third_parties.fail(ids[3]);
    world.third_parties.take(Duration::from_secs(10));
    let found = world.found(ROUND, TaskArguments::default()).await;
    assert_eq!(world.third_parties.at_once_max(), 4);
    let counts = ["total", "successful", "failed", "skipped", "details_left_out"].map(|name| found[name].as_u64());
    assert_eq!(counts, [Some(10), Some(7), Some(1), Some(2), Some(0)], "the last two were not reached: {found}");
    let details = found["details"].as_array().expect("a list");
    assert_eq!(details.len(), 10);
    assert_eq!((&details[0]["integration_id"], &details[0]["status"]), (&json!(ids[3]), &json!("failed")));
    assert_eq!(details[1]["status"], "skipped");
    let one = TaskArguments { integration: Some(ids[3]), ..TaskArguments::default() };
    assert_eq!(world.found(Task::TestIntegrationConnection, one).await["success"], false);
    let unknown = TaskArguments { integration: Some(IntegrationId(99)), ..TaskArguments::default() };
    let refused = world.handle().run_task("deploy", Task::TestIntegrationConnection, unknown).await;
    assert_eq!(refused, Err(TaskError::NoIntegration(IntegrationId(99))));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_told_with_what_it_waits_for() {
    let world = world_with(|_| {}).await;
    world.transports.set_script(|_, consignment| match &consignment.event.arrival.body[..] {
        b"payment.failed" => Step::Answer(Verdict::Retry { after: None }, Duration::from_millis(1)),
        _ => Step::Answer(Verdict::Delivered, Duration::from_millis(1)),
    });
    let integration = world.integration().await;
    let running = world.subscription(integration, quick_retries(&[600])).await;
    let paused = world.subscription_with(integration, RetryPolicy::default(), |it| it.active = false).await;
    let done = world.post(integration, "payment.succeeded").await;
    let failed = world.post(integration, "payment.failed").await;
    world.until(running, &[done], DeliveryStatus::Delivered).await;
    world.until(running, &[failed], DeliveryStatus::Retrying).await;
    sleep(SOON).await;
    let found = world.found(SWEEP, TaskArguments::default()).await;
    assert_eq!((&found["looked_at"], &found["woken"], &found["under_way"]), (&json!(3), &json!(0), &json!(0)));
    assert_eq!(found["waiting"], json!({"activation": 2, "retry": 1}), "{found}");
    let events = found["events"].as_array().expect("a list");
    let told: Vec<_> = events.iter().map(|it| (&it["event_id"], &it["subscription_id"], &it["waiting_for"])).collect();
    let (done_id, failed_id, activation, retry) = (json!(done), json!(failed), json!("activation"), json!("retry"));
    assert_eq!(
        told,
        [
            (&done_id, &json!(paused), &activation),
            (&failed_id, &json!(running), &retry),
            (&failed_id, &json!(paused), &activation),
        ]
    );
    let one = world.found(SWEEP, TaskArguments { limit: Some(1), ..TaskArguments::default() }).await;
    assert_eq!((one["events"].as_array().map(Vec::len), &one["looked_at"]), (Some(1), &json!(2)), "one of each");

    let resume = |resource: &mut Resource| {
        let Resource::Subscription(it) = resource else { unreachable!() };
        it.active = true;
    };
    world.update(ResourceKey::Subscription(paused), resume).await;
    world.until(paused, &[done], DeliveryStatus::Delivered).await;
    let one = world.found(Task::ProcessWebhookEvent, of(done)).await;
    assert_eq!((&one["status"], &one["woken"]), (&json!("success"), &json!(0)));
    let unknown = EventId::from_parts(1, integration, 1);
    let refused = world.handle().run_task("deploy", Task::ProcessWebhookEvent, of(unknown)).await;
    assert_eq!(refused, Err(TaskError::NoEvent(unknown)));
}

#[tokio::test(start_paused = true)]
async fn the_retry_of_an_event_that_is_asked_for_is_made_now_and_no_other() {
    let world = world_with(|_| {}).await;
    world.transports.set_script(|_, consignment| {
        let verdict = if consignment.attempt < 3 { Verdict::Retry { after: None } } else { Verdict::Delivered };
        Step::Answer(verdict, Duration::from_millis(1))
    });
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[600, 600])).await;
    let (one, other) = (world.post(integration, "a").await, world.post(integration, "b").await);
    world.until(subscription, &[one, other], DeliveryStatus::Retrying).await;
    sleep(SOON).await;
    for attempts in [2, 3] {
        let found = world.found(Task::ProcessWebhookEvent, of(one)).await;
        assert_eq!((&found["status"], &found["woken"]), (&json!("processing"), &json!(1)), "{found}");
        assert_eq!(found["deliveries"][0]["next_attempt_in_s"], 0, "{found}");
        sleep(SOON).await;
        let made = world.arrivals(subscription);
        assert_eq!(made.iter().filter(|event| **event == one).count(), attempts);
    }
    assert_eq!(world.status(subscription, one).await, DeliveryStatus::Delivered);
    assert_eq!(world.arrivals(subscription).iter().filter(|event| **event == other).count(), 1, "it has its time");
    let found = world.found(Task::ProcessWebhookEvent, of(one)).await;
    assert_eq!((&found["status"], &found["woken"]), (&json!("success"), &json!(0)), "{found}");
    world.until(subscription, &[other], DeliveryStatus::Delivered).await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_asked_for_still_waits_for_its_destination() {
    let world = world_with(|_| {}).await;
    world.transports.set_script(|_, consignment| {
        let verdict = if consignment.attempt == 1 { Verdict::Retry { after: None } } else { Verdict::Delivered };
        Step::Answer(verdict, Duration::from_millis(1))
    });
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[6_000])).await;
    let breaker = BreakerPolicy { consecutive_failures: 1, open_s: 100, ..BreakerPolicy::default() };
    limit(&world, subscription, DestinationLimits { breaker, ..DestinationLimits::default() }).await;
    let event = world.post(integration, "a").await;
    world.until(subscription, &[event], DeliveryStatus::Retrying).await;
    sleep(SOON).await;
    assert_eq!(world.found(Task::ProcessWebhookEvent, of(event)).await["woken"], 1);
    sleep(SOON).await;
    let found = world.found(Task::ProcessWebhookEvent, of(event)).await;
    assert_eq!((&found["woken"], &found["deliveries"][0]["waiting_for"]), (&json!(0), &json!("breaker")), "{found}");
    assert_eq!(world.arrivals(subscription).len(), 1);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.status(subscription, event).await, DeliveryStatus::Delivered, "once the breaker lets it");
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_remembered_after_a_crash_and_what_was_under_way_was_interrupted() {
    let world = world_with(|_| {}).await;
    world.integration().await;
    let swept = world.run(SWEEP, TaskArguments::default()).await;
    let trimmed = world.run(Task::TrimEventLog, TaskArguments::default()).await;
    world.third_parties.take(Duration::from_hours(1));
    let round = world.handle().run_task("deploy", ROUND, TaskArguments::default()).await.expect("it may begin");
    sleep(SOON).await;
    let world = world.crash_and_restart().await;
    assert_eq!(*world.handle().task_runs(SWEEP)[0], swept);
    assert_eq!(*world.handle().task_runs(Task::TrimEventLog)[0], trimmed);
    let last = world.handle().task(ROUND).last.expect("it had begun");
    assert_eq!((last.id, last.status, last.ended_at_ms), (round.id, TaskStatus::Interrupted, None));
    sleep(SOON).await;
    let kept = world.state.task_runs().await.expect("the state answers");
    assert!(kept.iter().any(|run| run.id == round.id && run.status == TaskStatus::Interrupted));
    let next = world.run(SWEEP, TaskArguments::default()).await;
    assert!(next.id > round.id, "no number is given twice");
    sleep(SOON).await;
    let told = world.config.newest_activities(100);
    let asked: Vec<_> = told.iter().filter(|entry| entry.activity.action == "task.run").collect();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|entry| entry.activity.actor == "deploy"));
}

#[tokio::test(start_paused = true)]
async fn maintenance_is_shown_and_remembered_only_where_somebody_asked() {
    let world = world_with(|tasks| tasks.process_pending_webhook_events = Schedule::never()).await;
    sleep(Duration::from_mins(2)).await;
    let task = world.handle().task(Task::MeasureBacklogs);
    let last = task.last.expect("it has run");
    assert_eq!((last.status, last.is_kept()), (TaskStatus::Succeeded, false));
    assert_eq!(task.next_at_ms, Some(last.started_at_ms + 2_000));
    assert_eq!(world.handle().task_runs(Task::MeasureBacklogs), []);
    assert_eq!(world.state.task_runs().await.expect("the state answers").len(), 0);
    world.run(Task::ForgetDedupKeys, TaskArguments::default()).await;
    assert_eq!(world.handle().task_runs(Task::ForgetDedupKeys).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_configured_and_what_came_is_counted_under_the_original_s_names() {
    let world = world_with(|_| {}).await;
    world.transports.set_script(|_, consignment| match &consignment.event.arrival.body[..] {
        b"payment.failed" => Step::Answer(Verdict::Retry { after: None }, Duration::from_millis(1)),
        _ => Step::Answer(Verdict::Delivered, Duration::from_millis(1)),
    });
    let (one, other) = (world.integration().await, world.integration().await);
    world.switch(other, IntegrationStatus::Inactive).await;
    let subscription = world.subscription(one, quick_retries(&[2 * 24 * 3600])).await;
    let old = world.post_many(one, 3).await;
    world.until(subscription, &old, DeliveryStatus::Delivered).await;
    sleep(Duration::from_hours(25)).await;
    let new = world.post(one, "payment.succeeded").await;
    let failed = world.post(one, "payment.failed").await;
    world.until(subscription, &[new], DeliveryStatus::Delivered).await;
    world.until(subscription, &[failed], DeliveryStatus::Retrying).await;
    sleep(SOON).await;
    let counted = world.found(Task::CollectIntegrationMetrics, TaskArguments::default()).await;
    assert_eq!(
        counted,
        json!({
            "integrations_by_status": {"active": 1, "inactive": 1},
            "integrations_by_type": {"custom": 2},
            "total_webhooks": 2,
            "active_webhooks": 1,
            "total_webhook_events": 5,
            "processed_webhook_events": 4,
            "pending_webhook_events": 1,
            "webhook_events_last_24h": 2,
        })
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_nobody_was_woken_for_is_found_and_goes_on() {
    let world = World::start_deaf(delivering()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    sleep(SOON).await;
    let events = world.post_many(integration, 2).await;
    sleep(SOON).await;
    assert_eq!(world.delivered(subscription), [], "nobody has heard of them");
    let found = world.found(SWEEP, TaskArguments::default()).await;
    assert_eq!((&found["looked_at"], &found["woken"]), (&json!(2), &json!(2)), "{found}");
    assert_eq!(found["events"][0]["waiting_for"], Value::Null);
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    let third = world.post(integration, "payment.succeeded").await;
    sleep(SOON).await;
    let one = world.found(Task::ProcessWebhookEvent, of(third)).await;
    assert_eq!((&one["status"], &one["woken"]), (&json!("pending"), &json!(1)), "{one}");
    world.until(subscription, &[third], DeliveryStatus::Delivered).await;
}
