//! Tokens with scopes: what is outside of them is not there, whatever one asks for.

use axum::http::{StatusCode, header};
use hookmill_actors::domain::{
    headers::HeaderBlock,
    ids::{EndpointId, EventId, IntegrationId, ReplayId, SubscriptionId},
    replay::{DeadLetterFilter, EventFilter, ReplayCounts, ReplayCursor, ReplayJob, ReplayQuery, ReplayStatus},
};
use serde_json::{Value, json};

use super::{
    super::{access::Subjects, routes, table::Described},
    Answer, Running, event_id, running_with,
};
use crate::ingress::{RefusedRequest, RefusedRequests};

/// Of integration 2.
fn other_event() -> EventId {
    EventId::from_parts(5 << 26, IntegrationId(2), 5)
}

pub(super) fn job(id: u32, query: ReplayQuery) -> ReplayJob {
    ReplayJob {
        id: ReplayId(id),
        author: "admin".to_owned(),
        created_at_ms: 1,
        query,
        target: None,
        rate_per_s: 1,
        status: ReplayStatus::Done,
        upto: EventId::MAX,
        cursor: ReplayCursor::default(),
        counts: ReplayCounts::default(),
        sample: Vec::new(),
        start: false,
        note: String::new(),
        ended_at_ms: Some(2),
    }
}

pub(super) fn events_of(integration: u32) -> ReplayQuery {
    ReplayQuery::Events(EventFilter {
        integration: IntegrationId(integration),
        subscription: SubscriptionId(integration),
        types: Vec::new(),
        endpoint: None,
        standing: None,
        from_ms: None,
        to_ms: None,
    })
}

/// Two of everything: those numbered 1 belong to integration 1 in production, those numbered 2 to integration 2 in
/// staging. Destination 3 serves both, 4 nobody. Replay 3 is over everything.
async fn two_of_everything() -> Running {
    let everything = ReplayQuery::DeadLetters(DeadLetterFilter::default());
    let jobs = vec![job(1, events_of(1)), job(2, events_of(2)), job(3, everything)];
    let run = running_with(&[other_event()], jobs).await;
    run.configure().await;
    for (path, body) in [
        ("integrations", json!({"name": "lab", "type": "CRM", "environment": "staging"})),
        ("webhooks", json!({"integration_id": 2, "name": "lab", "path": "lab"})),
        ("destinations", json!({"name": "lab", "settings": {"url": "https://lab.example"}})),
        ("subscriptions", json!({"integration_id": 2, "destination_id": 2, "name": "lab", "start": "beginning"})),
        ("destinations", json!({"name": "both", "settings": {"url": "https://both.example"}})),
        ("destinations", json!({"name": "free", "settings": {"url": "https://free.example"}})),
        ("subscriptions", json!({"integration_id": 1, "destination_id": 3, "name": "shop to both"})),
        ("subscriptions", json!({"integration_id": 2, "destination_id": 3, "name": "lab to both"})),
    ] {
        let made = run.post(&format!("/api/v1/{path}"), body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{path}: {}", made.text);
    }
    run
}

/// Whose the items of a list are.
fn owners(answer: &Answer, member: &str) -> Vec<u64> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let items = answer.body["items"].as_array().expect("a list");
    let mut owners: Vec<u64> =
        items.iter().map(|item| item.pointer(member).and_then(Value::as_u64).expect("it has an owner")).collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

const LISTS: [(&str, &str); 6] = [
    ("integrations", "/id"),
    ("webhooks", "/integration_id"),
    ("subscriptions", "/integration_id"),
    ("events", "/integration_id"),
    ("deadletters", "/integration_id"),
    ("replays", "/query/integration_id"),
];

#[tokio::test]
async fn lists_show_what_a_token_is_for() {
    let run = two_of_everything().await;
    for (name, scopes, own, other) in [
        ("shop", &["integration:1"][..], 1, 2),
        ("lab", &["environment:staging"], 2, 1),
        ("both", &["environment:staging", "environment:production"], 0, 0),
    ] {
        let (_, token) = run.token(name, "viewer", scopes).await;
        let get = async |path: String| run.send_as(Some(&token), "GET", &path, Value::Null).await;
        for (list, member) in LISTS {
            let all = get(format!("/api/v1/{list}")).await;
            let want = if own == 0 { vec![1, 2] } else { vec![own] };
            assert_eq!(owners(&all, member), want, "{name}: {list}");
            if own != 0 && !["integrations", "replays"].contains(&list) {
                let empty = get(format!("/api/v1/{list}?integration_id={other}")).await;
                assert_eq!(owners(&empty, member), Vec::<u64>::new(), "{name}: {list} of {other}");
            }
        }
        let destinations = get("/api/v1/destinations".to_owned()).await;
        let want = match own {
            0 => vec![1, 2, 3, 4],
            own => vec![own, 3, 4],
        };
        assert_eq!(owners(&destinations, "/id"), want, "{name}");
        let pending = get("/api/v1/events?status=pending".to_owned()).await;
        assert!(own == 0 || owners(&pending, "/integration_id").iter().all(|id| *id == own), "{name}");
    }
}

#[tokio::test]
async fn a_page_that_ends_on_what_is_not_seen_does_not_tell_of_it() {
    let run = two_of_everything().await;
    let (_, token) = run.token("shop", "viewer", &["integration:1"]).await;
    let page = run.send_as(Some(&token), "GET", "/api/v1/events?limit=1", Value::Null).await;
    assert_eq!(page.body["items"][0]["id"], event_id(4, 4).to_string(), "what is not seen is passed over");
    assert!(!page.text.contains(&other_event().to_string()));
}

/// A request of `route` about the things numbered `number`.
fn path_of(route: &str, number: u32) -> String {
    let event = if number == 1 { event_id(1, 1) } else { other_event() };
    let mut path = Vec::new();
    for segment in route.split('/') {
        path.push(match (segment, path.last().map(String::as_str)) {
            ("{event_id}", _) | ("{id}", Some("events")) => event.to_string(),
            ("{command}", _) => "pause".to_owned(),
            (parameter, _) if parameter.starts_with('{') => number.to_string(),
            (other, _) => other.to_owned(),
        });
    }
    path.join("/")
}

/// Whatever route names what is another's, now or later, answers as if it were not there.
#[tokio::test]
async fn what_is_anothers_is_not_there_on_any_route() {
    let run = two_of_everything().await;
    let (_, token) = run.token("shop", "admin", &["integration:1"]).await;
    let mut walked = 0;
    for (route, methods) in routes() {
        if Subjects::of(route).are_none() {
            continue;
        }
        for Described { method, .. } in methods.described() {
            let other = run.send_as(Some(&token), method.as_str(), &path_of(route, 2), json!({})).await;
            assert_eq!(
                (other.status, &other.body["code"]),
                (StatusCode::NOT_FOUND, &json!("not_found")),
                "{method} {route}: {}",
                other.text
            );
            if *method == "GET" {
                let own = run.send_as(Some(&token), "GET", &path_of(route, 1), Value::Null).await;
                assert_eq!(own.status, StatusCode::OK, "{route}: {}", own.text);
            }
            walked += 1;
        }
    }
    assert!(walked > 25, "{walked} methods");
    for path in ["integrations/2", "webhooks/2", "subscriptions/2", "destinations/2"] {
        assert_eq!(run.get(&format!("/api/v1/{path}")).await.status, StatusCode::OK, "{path} must still be there");
    }
}

#[tokio::test]
async fn what_a_body_names_must_be_seen_too() {
    let run = two_of_everything().await;
    let (_, token) = run.token("shop", "manager", &["integration:1"]).await;
    let send = async |method: &str, path: &str, body: Value| {
        run.send_as(Some(&token), method, &format!("/api/v1/{path}"), body).await
    };
    let missing = StatusCode::UNPROCESSABLE_ENTITY;
    let event = event_id(1, 1);
    for (path, body, status, pointer) in [
        ("webhooks", json!({"integration_id": 2, "name": "x", "path": "x"}), missing, "/integration_id"),
        ("subscriptions", json!({"integration_id": 2, "destination_id": 1, "name": "x"}), missing, "/integration_id"),
        ("subscriptions", json!({"integration_id": 1, "destination_id": 2, "name": "x"}), missing, "/destination_id"),
        ("subscriptions/dry_run", json!({"integration_id": 2}), missing, "/integration_id"),
        ("subscriptions/dry_run", json!({"subscription_id": 2}), StatusCode::NOT_FOUND, ""),
        (
            "replays",
            json!({"query": {"source": "events", "integration_id": 2, "subscription_id": 2}}),
            missing,
            "/query/integration_id",
        ),
        (
            "replays",
            json!({"query": {"source": "dead_letters", "integration_id": 2}}),
            missing,
            "/query/integration_id",
        ),
        (
            "replays",
            json!({"query": {"source": "dead_letters", "integration_id": 1}, "target_subscription_id": 2}),
            missing,
            "/target_subscription_id",
        ),
        (
            "deadletters/discard",
            json!({"reason": "x", "query": {"subscription_id": 2}}),
            missing,
            "/query/subscription_id",
        ),
        (&*format!("events/{event}/replay"), json!({"subscription_id": 2}), StatusCode::CONFLICT, ""),
    ] {
        let refused = send("POST", path, body.clone()).await;
        assert_eq!(refused.status, status, "{path} {body}: {}", refused.text);
        if !pointer.is_empty() {
            assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{path}: {}", refused.text);
        }
        // In the same words as of what was never there.
        let never: Value = serde_json::from_str(&body.to_string().replace('2', "777")).expect("it is JSON");
        let absent = send("POST", path, never).await;
        let with = |text: &str| text.replace("777", "2");
        assert_eq!((absent.status, with(&absent.text)), (refused.status, refused.text.clone()), "{path} {body}");
    }
    for (path, query) in [("deadletters/discard", json!({})), ("replays", json!({"source": "dead_letters"}))] {
        let body = json!({"query": query, "reason": "x"});
        let body = if path == "replays" { json!({"query": body["query"]}) } else { body };
        let refused = send("POST", path, body).await;
        assert_eq!((refused.status, &refused.body["code"]), (StatusCode::FORBIDDEN, &json!("out_of_scope")), "{path}");
    }
    let elsewhere = json!({"name": "new", "type": "CRM", "environment": "staging"});
    let refused = send("POST", "integrations", elsewhere).await;
    assert_eq!((refused.status, &refused.body["code"]), (StatusCode::FORBIDDEN, &json!("out_of_scope")));
}

#[tokio::test]
async fn a_team_works_on_its_own_part() {
    let run = two_of_everything().await;
    let (_, token) = run.token("lab", "manager", &["environment:staging"]).await;
    let send = async |method: &str, path: &str, body: Value| {
        run.send_as(Some(&token), method, &format!("/api/v1/{path}"), body).await
    };
    let whole = json!({
        "name": "new", "type": "CRM", "environment": "staging", "webhook": {"path": "new"},
        "destination": {"settings": {"url": "https://new.example"}},
    });
    let made = send("POST", "integrations", whole).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let id = &made.body["id"];
    let (webhook, destination) = (&made.body["webhook"]["id"], &made.body["destination"]["id"]);
    for (path, body) in [
        (format!("integrations/{id}"), json!({"name": "newer"})),
        (format!("webhooks/{webhook}"), json!({"name": "newer"})),
        (format!("destinations/{destination}"), json!({"name": "newer"})),
        ("subscriptions/2".to_owned(), json!({"destination_id": destination})),
        ("destinations/4".to_owned(), json!({"name": "still free"})),
    ] {
        let changed = send("PUT", &path, body).await;
        assert_eq!(changed.status, StatusCode::OK, "{path}: {}", changed.text);
    }
    // What serves others too is seen, and left alone.
    assert_eq!(send("GET", "destinations/3", Value::Null).await.status, StatusCode::OK);
    for (method, path, body) in [
        ("PUT", "destinations/3", json!({"name": "mine"})),
        ("DELETE", "destinations/3", Value::Null),
        ("POST", "destinations/3/rotate-secret", json!({})),
        ("PUT", "integrations/2", json!({"environment": "production"})),
    ] {
        let refused = send(method, path, body).await;
        assert_eq!(
            (refused.status, &refused.body["code"]),
            (StatusCode::FORBIDDEN, &json!("out_of_scope")),
            "{method} {path}: {}",
            refused.text
        );
    }
    assert_eq!(run.get("/api/v1/integrations/2").await.body["environment"], "staging");
}

#[tokio::test]
async fn an_integration_that_moves_takes_its_readers_along() {
    let run = two_of_everything().await;
    let (_, by_environment) = run.token("staging", "viewer", &["environment:staging"]).await;
    let (_, by_number) = run.token("number", "viewer", &["integration:2"]).await;
    let moved = run.put("/api/v1/integrations/2", json!({"environment": "production"})).await;
    assert_eq!(moved.status, StatusCode::OK, "{}", moved.text);
    for (token, status) in [(by_environment, StatusCode::NOT_FOUND), (by_number, StatusCode::OK)] {
        let path = format!("/api/v1/events/{}", other_event());
        for path in ["/api/v1/integrations/2", "/api/v1/webhooks/2", &path] {
            assert_eq!(run.send_as(Some(&token), "GET", path, Value::Null).await.status, status, "{path}");
        }
    }
}

#[tokio::test]
async fn an_admin_with_scopes_governs_tokens_within_them() {
    let run = two_of_everything().await;
    let (own, token) = run.token("lead", "admin", &["environment:staging"]).await;
    let (foreign, _) = run.token("shop", "viewer", &["integration:1"]).await;
    let send = async |method: &str, path: &str, body: Value| {
        run.send_as(Some(&token), method, &format!("/api/v1/{path}"), body).await
    };
    let listed = send("GET", "tokens", Value::Null).await;
    assert_eq!((&listed.body["total"], &listed.body["items"][0]["id"]), (&json!(1), &json!(own)));
    for method in ["GET", "DELETE"] {
        let refused = send(method, &format!("tokens/{foreign}"), Value::Null).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{method}");
    }
    for scopes in [json!([]), json!(["integration:1"]), json!(["integration:99"])] {
        let refused = send("POST", "tokens", json!({"name": "x", "role": "viewer", "scopes": scopes})).await;
        assert_eq!(
            (refused.status, &refused.body["code"]),
            (StatusCode::FORBIDDEN, &json!("out_of_scope")),
            "{scopes}"
        );
    }
    let heir = send("POST", "tokens", json!({"name": "heir", "role": "admin"})).await;
    assert_eq!((heir.status, &heir.body["scopes"]), (StatusCode::CREATED, &json!(["environment:staging"])));
    let location =
        heir.headers[header::LOCATION].to_str().expect("it is text").trim_start_matches("/api/v1/").to_owned();
    assert_eq!(send("DELETE", &location, Value::Null).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_tells_of_everything_needs_a_token_for_everything() {
    let run = two_of_everything().await;
    let (_, token) = run.token("team", "admin", &["integration:1"]).await;
    let refused = run.send_as(Some(&token), "GET", "/api/v1/metrics", Value::Null).await;
    assert_eq!((refused.status, &refused.body["code"]), (StatusCode::FORBIDDEN, &json!("out_of_scope")));
    let own = run.send_as(Some(&token), "GET", "/api/v1/tokens/self", Value::Null).await;
    assert_eq!(own.body["scopes"], json!(["integration:1"]));
}

fn refuse(run: &Running, number: u32) {
    run.refused.offer(&RefusedRequest {
        integration: IntegrationId(number),
        endpoint: EndpointId(number),
        at_ms: 1_767_225_600_000,
        cause: "invalid_signature",
        reason: "no active secret gives this signature",
        peer: [192, 0, 2, 1].into(),
        method: "POST",
        target: "/webhooks/receive/x",
        headers: &HeaderBlock::from_lines([("x-signature", b"none".as_slice())]),
        body: b"{}",
        body_whole: true,
    });
}

#[tokio::test]
async fn what_was_refused_and_what_was_done_is_told_of_ones_own_part() {
    let run = two_of_everything().await;
    let (_, token) = run.token("shop", "manager", &["integration:1"]).await;
    let send = async |method: &str, path: &str, body: Value| {
        run.send_as(Some(&token), method, &format!("/api/v1/{path}"), body).await
    };
    refuse(&run, 1);
    refuse(&run, 2);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let all = loop {
        let all = run.get("/api/v1/rejections").await.body["items"].as_array().expect("a list").clone();
        let noted = owners_noted(&run.get("/api/v1/activities?limit=1000").await);
        if all.len() == 2 && [Some(1), Some(2), None].iter().all(|owner| noted.contains(owner)) {
            break all;
        }
        assert!(std::time::Instant::now() < deadline, "{all:?} {noted:?}");
        tokio::task::yield_now().await;
    };
    assert_eq!(owners(&send("GET", "rejections", Value::Null).await, "/integration_id"), [1]);
    assert_eq!(owners_noted(&send("GET", "activities?limit=1000", Value::Null).await), [Some(1)]);
    assert_eq!(owners_noted(&send("GET", "activities?integration_id=2", Value::Null).await), []);
    let export = send("GET", "activities/export", Value::Null).await.text;
    assert!(!export.is_empty() && export.lines().all(|line| line.contains(r#""integration_id":1,"#)), "{export}");
    for rejection in all {
        let own = rejection["integration_id"] == 1;
        let path = format!("rejections/{}", rejection["id"].as_str().expect("an id"));
        let read = send("GET", &path, Value::Null).await.status;
        assert_eq!(read == StatusCode::OK, own, "{path}");
        for (method, below) in [("GET", "explain"), ("POST", "accept")] {
            let answer = send(method, &format!("{path}/{below}"), Value::Null).await;
            assert_eq!(answer.status == StatusCode::NOT_FOUND, !own, "{path}/{below}: {}", answer.text);
        }
    }
    let many = send("POST", "rejections/accept", json!({"integration_id": 2, "unverified": true})).await;
    assert_eq!((&many.body["accepted"], &many.body["left"]), (&json!([]), &json!([])), "{}", many.text);
}

/// Whose the activities are, each owner once; `None`: nobody's.
fn owners_noted(answer: &Answer) -> Vec<Option<u64>> {
    let items = answer.body["items"].as_array().expect("a list");
    let mut owners: Vec<_> = items.iter().map(|item| item["integration_id"].as_u64()).collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

#[tokio::test]
async fn a_filter_does_not_look_at_what_is_not_seen() {
    let run = two_of_everything().await;
    let (_, token) = run.token("shop", "viewer", &["integration:1"]).await;
    // A member that no body has: each event that is looked at is told as a fault.
    let path = "/api/v1/events?where=body.nothing%20%3D%3D%201";
    let all = run.get(path).await.body["scanned"].clone();
    let seen = run.send_as(Some(&token), "GET", path, Value::Null).await.body["scanned"].clone();
    assert_eq!((&all["events"], &seen["events"]), (&json!(5), &json!(4)));
    assert!(seen["faults"].as_u64() < all["faults"].as_u64(), "{seen} of {all}");
}

#[tokio::test]
async fn a_version_that_lies_outside_is_not_brought_back() {
    let run = two_of_everything().await;
    let (_, token) = run.token("lab", "manager", &["environment:staging"]).await;
    for environment in ["production", "staging"] {
        let moved = run.put("/api/v1/integrations/2", json!({"environment": environment})).await;
        assert_eq!(moved.status, StatusCode::OK, "{}", moved.text);
    }
    let listed = run.get("/api/v1/integrations/2/versions").await.body;
    let numbers: Vec<u64> =
        listed["items"].as_array().expect("a list").iter().filter_map(|item| item["version"].as_u64()).collect();
    for (number, status) in [(numbers[1], StatusCode::FORBIDDEN), (numbers[2], StatusCode::OK)] {
        let path = format!("/api/v1/integrations/2/versions/{number}/rollback");
        let answer = run.send_as(Some(&token), "POST", &path, json!({})).await;
        assert_eq!(answer.status, status, "{number}: {}", answer.text);
    }
    assert_eq!(run.get("/api/v1/integrations/2").await.body["environment"], "staging");
}

#[tokio::test]
async fn whoever_deleted_something_within_his_scopes_restores_it_or_purges_it() {
    let run = two_of_everything().await;
    let (_, own) = run.token("shop", "admin", &["integration:1"]).await;
    let (_, other) = run.token("lab", "admin", &["integration:2", "environment:staging"]).await;
    let send = async |token: &str, method: &str, path: &str| {
        run.send_as(Some(token), method, &format!("/api/v1/{path}"), Value::Null).await
    };
    for path in ["webhooks/1", "integrations/1"] {
        assert_eq!(send(&own, "DELETE", path).await.status, StatusCode::NO_CONTENT, "{path}");
        let never = send(&other, "GET", "webhooks/777").await.text.replace("777", "1");
        for method in ["GET", "PUT", "DELETE"] {
            let unseen = send(&other, method, path).await;
            assert_eq!(unseen.status, StatusCode::NOT_FOUND, "{method} {path}");
            assert!(unseen.text == never || !path.starts_with("webhooks"), "{}", unseen.text);
        }
        for (method, end) in [("POST", "/restore"), ("DELETE", "?purge=true")] {
            let refused = send(&other, method, &format!("{path}{end}")).await;
            assert_eq!(refused.status, StatusCode::NOT_FOUND, "{path}{end}: {}", refused.text);
        }
        let restored = send(&own, "POST", &format!("{path}/restore")).await;
        assert_eq!(restored.status, StatusCode::OK, "{path}: {}", restored.text);
        assert_eq!(send(&own, "DELETE", path).await.status, StatusCode::NO_CONTENT, "{path}");
        let purged = send(&own, "DELETE", &format!("{path}?purge=true")).await;
        assert_eq!(purged.status, StatusCode::NO_CONTENT, "{path}: {}", purged.text);
    }
}

#[tokio::test]
async fn credentials_stay_with_the_server_that_they_were_given_for() {
    let run = two_of_everything().await;
    let (_, token) = run.token("shop", "manager", &["integration:1"]).await;
    let send = async |method: &str, path: &str, body: Value| {
        run.send_as(Some(&token), method, &format!("/api/v1/{path}"), body).await
    };
    // Nobody uses it yet, so the token sees it and may change it; what is sealed in it is another's all the same.
    let settings = |url: &str| json!({"url": url, "auth": {"type": "bearer"}});
    let given = json!({"settings": settings("https://free.example/in"), "credentials": {"token": "planted-token"}});
    assert_eq!(run.put("/api/v1/destinations/4", given).await.status, StatusCode::OK);
    for (method, body) in [
        ("PUT", json!({"settings": settings("https://evil.example/in")})),
        ("PATCH", json!({"settings": {"url": "https://evil.example/in"}})),
        ("PATCH", json!({"settings": {"url": "https://evil.example/in"}, "credentials": {}})),
        ("PATCH", json!({"settings": {"proxy": "http://evil.example:3128"}})),
    ] {
        let refused = send(method, "destinations/4", body.clone()).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{method} {body}: {}", refused.text);
        let pointer = refused.body["errors"][0]["pointer"].as_str().unwrap_or_default();
        assert!(pointer.starts_with("/credentials"), "{method} {body}: {}", refused.text);
    }
    let own = json!({"settings": {"url": "https://other.example/in"}, "credentials": {"token": "own-token"}});
    assert_eq!(send("PATCH", "destinations/4", own).await.status, StatusCode::OK);
}
