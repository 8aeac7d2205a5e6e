use hookmill_actors::domain::{
    backoff::{Exponential, SCHEDULE_MAX, StatusPattern, WAIT_MAX_S},
    order::OnFailure,
    transform::CloudEventsMode,
};
use serde_json::json;

use super::*;

const LAST: EventId = EventId::MAX;

fn defaults() -> SubscriptionDefaults {
    SubscriptionDefaults { in_flight_max: 64, retry: RetryPolicy::default() }
}

fn draft(body: Value) -> Result<Subscription, Problem> {
    Draft::read(body, &defaults()).map(|draft| draft.into_subscription(SubscriptionId(8), LAST))
}

fn with(name: &str, value: Value) -> Value {
    let mut body = json!({"integration_id": 1, "destination_id": 2, "name": "to the ledger"});
    body[name] = value;
    body
}

fn pointers(refused: Result<Subscription, Problem>) -> Vec<String> {
    refused.expect_err("it must be refused").faults.into_iter().map(|fault| fault.pointer).collect()
}

/// For the tests of deliveries.
pub(in crate::admin) fn subscription(id: u32, integration: u32, start_after: EventId) -> Subscription {
    let body = json!({"integration_id": integration, "destination_id": 2, "name": "s"});
    let draft = Draft::read(body, &defaults()).expect("it is right");
    Subscription { start_after, ..draft.into_subscription(SubscriptionId(id), LAST) }
}

#[test]
fn the_least_is_enough_and_it_begins_now() {
    let made = draft(with("name", json!("s"))).expect("it is right");
    assert_eq!((made.active, made.in_flight_max, made.start_after), (true, 64, LAST));
    assert_eq!(made.retry, RetryPolicy::default());
}

#[test]
fn it_begins_where_it_is_told() {
    for (start, after) in [
        ("now", LAST),
        ("beginning", EventId::ZERO),
        ("2026-01-01T00:00:00Z", EventId::at_millis(1_767_225_600_000)),
        ("2026-01-01T01:00:00+01:00", EventId::at_millis(1_767_225_600_000)),
    ] {
        assert_eq!(draft(with("start", json!(start))).map(|made| made.start_after), Ok(after), "{start}");
    }
    for wrong in ["yesterday", "2026-01-01", "1969-01-01T00:00:00Z", ""] {
        assert_eq!(pointers(draft(with("start", json!(wrong)))), ["/start"], "{wrong}");
    }
}

#[test]
fn every_wrong_member_is_named() {
    for (name, value, pointer) in [
        ("integration_id", json!(0), "/integration_id"),
        ("destination_id", json!(4_294_967_296_u64), "/destination_id"),
        ("in_flight_max", json!(0), "/in_flight_max"),
        ("in_flight_max", json!(257), "/in_flight_max"),
        ("retry", json!({"schedule_s": [1, 2_592_001]}), "/retry/schedule_s"),
        ("retry", json!({"schedule_s": vec![1; 65]}), "/retry/schedule_s"),
        ("retry", json!({"retry_after_max_s": -1}), "/retry/retry_after_max_s"),
        ("retry", json!({"schedule": [1]}), "/retry/schedule"),
        ("retry", json!(null), "/retry"),
        ("start_after", json!(null), "/start_after"),
        ("retry", json!({"exponential": {"first_s": 1, "attempts_max": 3}}), "/retry/exponential/wait_max_s"),
        (
            "retry",
            json!({"exponential": {"first_s": 9, "wait_max_s": 8, "attempts_max": 3}}),
            "/retry/exponential/wait_max_s",
        ),
        ("retry", json!({"age_max_s": 0}), "/retry/age_max_s"),
        ("retry", json!({"dead_statuses": ["200"]}), "/retry/dead_statuses"),
        ("selection", json!({"types": [""]}), "/selection/types"),
        ("selection", json!({"types": "a"}), "/selection/types"),
        ("selection", json!({"filter": 1}), "/selection/filter"),
        ("selection", json!({"filtre": "true"}), "/selection/filtre"),
        ("order", json!({}), "/order/mode"),
        ("order", json!({"mode": "fifo_by_key"}), "/order/key"),
        ("order", json!({"mode": "fifo", "key": "body.a"}), "/order/key"),
        ("order", json!({"mode": "parallel", "on_failure": "skip"}), "/order/on_failure"),
        ("order", json!({"mode": "fifo", "on_failure": "stop"}), "/order/on_failure"),
        ("order", json!("fifo"), "/order"),
        ("transform", json!({"kind": "jg"}), "/transform/kind"),
        ("transform", json!({"kind": "jq"}), "/transform/program"),
        ("transform", json!({"kind": "canonical", "mode": "binary"}), "/transform/mode"),
        ("headers", json!({"x-a": 1}), "/headers"),
        ("rate", json!({"per_second": 0}), "/rate/per_second"),
        ("rate", json!({"burst": 5}), "/rate/per_second"),
        ("expires_after_s", json!(0), "/expires_after_s"),
    ] {
        assert_eq!(pointers(draft(with(name, value.clone()))), [pointer], "{name}: {value}");
    }
}

#[test]
fn what_is_read_is_a_sound_policy() {
    let body = with("retry", json!({"schedule_s": vec![WAIT_MAX_S; SCHEDULE_MAX], "retry_after_max_s": WAIT_MAX_S}));
    assert_eq!(draft(body).expect("it is just allowed").retry.validate(), Ok(()));
}

#[test]
fn an_update_leaves_alone_what_it_does_not_name() {
    let current = draft(with("retry", json!({"schedule_s": [1, 2]}))).expect("it is right");
    let patched = |body| Patch::read(body).and_then(|patch| patch.applied_to(&current));
    assert_eq!(patched(json!({})).as_ref(), Ok(&current));
    let next = patched(json!({"retry": {"retry_after_max_s": 9}, "is_active": false})).expect("it is right");
    assert_eq!((next.retry.schedule_s.as_slice(), next.retry.retry_after_max_s), ([1, 2].as_slice(), 9));
    assert!(!next.active);
    assert_eq!(patched(json!({"destination_id": 7})).map(|next| next.destination_id), Ok(DestinationId(7)));
    assert_eq!(pointers(patched(json!({"integration_id": 9}))), ["/integration_id"]);
    assert_eq!(pointers(patched(json!({"start": "beginning"}))), ["/start"]);
}

#[test]
fn all_of_it_is_read_and_shown_again() {
    let members = json!({
        "selection": {"types": ["payment.*"], "filter": "body.a == 1"},
        "order": {"mode": "fifo_by_key", "key": "body.customer", "on_failure": "park"},
        "transform": {"kind": "cloudevents", "mode": "structured"},
        "headers": {"x-type": "{{event.type}}"},
        "rate": {"per_second": 50, "burst": 100},
        "expires_after_s": 3600,
    });
    let mut body = json!({
        "integration_id": 1, "destination_id": 2, "name": "s",
        "retry": {
            "exponential": {"first_s": 2, "wait_max_s": 600, "attempts_max": 20},
            "age_max_s": 86400,
            "dead_statuses": [422, "4xx"],
        },
    });
    for (name, value) in members.as_object().expect("it is one") {
        body[name] = value.clone();
    }
    let made = draft(body).expect("it is right");
    assert_eq!(made.order.on_failure(), Some(OnFailure::Park));
    assert_eq!(made.transform, Transform::Cloudevents { mode: CloudEventsMode::Structured });
    assert_eq!(made.retry.exponential, Some(Exponential { first_s: 2, wait_max_s: 600, attempts_max: 20 }));
    assert_eq!(made.retry.dead_statuses, [StatusPattern::Status(422), StatusPattern::Class(4)]);
    assert_eq!(made.retry.validate(), Ok(()));
    let shown = serde_json::to_value(made.view(&crate::admin::testing::tools())).expect("it is JSON");
    for (name, value) in members.as_object().expect("it is one") {
        assert_eq!(&shown[name], value, "{name}");
    }

    let patched = |body| Patch::read(body).and_then(|patch| patch.applied_to(&made)).expect("it is right");
    assert_eq!(patched(json!({"name": "s"})), made);
    assert_eq!(
        patched(json!({"selection": {"filter": null}})).selection,
        Selection { types: vec!["payment.*".to_owned()], filter: None }
    );
    let cleared = patched(json!({
        "selection": null, "order": null, "transform": null, "headers": null, "rate": null, "expires_after_s": null,
        "retry": {"exponential": null, "age_max_s": null, "dead_statuses": []},
    }));
    let plain = draft(json!({"integration_id": 1, "destination_id": 2, "name": "s"})).expect("it is right");
    assert_eq!(cleared, plain);
}
