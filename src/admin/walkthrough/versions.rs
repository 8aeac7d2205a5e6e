//! The history of an integration, as a client meets it.

use axum::http::{StatusCode, header};
use serde_json::{Value, json};

use super::{Answer, Running, running};

const VERSIONS: &str = "/api/v1/integrations/1/versions";

impl Running {
    async fn roll_back(&self, number: u64, headers: &[(&str, &str)]) -> Answer {
        self.send_with("POST", &format!("{VERSIONS}/{number}/rollback"), Value::Null, headers).await
    }

    /// A version's state without what each change stamps.
    async fn state(&self, number: u64) -> Value {
        let answer = self.get(&format!("{VERSIONS}/{number}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let mut state = answer.body;
        for member in ["version", "at", "author", "comment", "changes"] {
            state.as_object_mut().expect("an object").remove(member);
        }
        let lists = ["webhooks", "destinations", "subscriptions"];
        let mut resources: Vec<&mut Value> = Vec::new();
        for (name, member) in state.as_object_mut().expect("an object") {
            if lists.contains(&name.as_str()) {
                resources.extend(member.as_array_mut().expect("a list"));
            } else {
                resources.push(member);
            }
        }
        for resource in resources.into_iter().filter(|resource| !resource.is_null()) {
            let members = resource.as_object_mut().expect("an object");
            for member in ["version", "updated_at", "start_after"] {
                members.remove(member);
            }
        }
        state
    }
}

#[tokio::test]
async fn every_change_of_what_belongs_together_is_a_version() {
    let run = running().await;
    run.configure().await;
    let comment = [("hookmill-comment", "a slower ledger")];
    let limits = json!({"limits": {"rate": {"per_second": 2}}});
    assert_eq!(run.send_with("PUT", "/api/v1/destinations/1", limits, &comment).await.status, StatusCode::OK);
    let listed = run.get(VERSIONS).await;
    assert_eq!(listed.headers[header::ETAG], "\"5\"");
    let items = listed.body["items"].as_array().expect("a list");
    let numbers: Vec<&Value> = items.iter().map(|item| &item["version"]).collect();
    // The destination belonged to nobody when it was made.
    assert_eq!(numbers, [5, 4, 2, 1]);
    assert_eq!(items[0]["comment"], "a slower ledger");
    assert_eq!(items[0]["changes"], json!([{"kind": "destination", "id": 1, "change": "updated"}]));
    assert_eq!(items[2]["changes"], json!([{"kind": "webhook", "id": 1, "change": "created"}]));
    assert_eq!(items[2]["comment"], json!(null));
    assert_eq!(run.get("/api/v1/integrations/1").await.body["latest_version"], 5);

    let page = run.get(&format!("{VERSIONS}?limit=3")).await.body;
    assert_eq!((page["items"].as_array().map(Vec::len), &page["next"]), (Some(3), &json!("2")));
    let rest = run.get(&format!("{VERSIONS}?limit=3&before=2")).await.body;
    assert_eq!((&rest["items"][0]["version"], &rest["next"]), (&json!(1), &json!(null)));

    let early = run.get(&format!("{VERSIONS}/2")).await.body;
    assert_eq!((&early["webhooks"][0]["path"], &early["destinations"]), (&json!("/shop"), &json!([])));
    let late = run.get(&format!("{VERSIONS}/4")).await.body;
    assert_eq!(
        (&late["subscriptions"][0]["name"], &late["destinations"][0]["limits"]["rate"]),
        (&json!("all"), &json!(null))
    );
    for missing in [3, 6, u64::MAX] {
        let answer = run.get(&format!("{VERSIONS}/{missing}")).await;
        assert_eq!((answer.status, &answer.body["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{missing}");
    }
    for (value, says) in [("", "is empty"), ("a\tb", "printable")] {
        let refused = run.send_with("PUT", "/api/v1/destinations/1", json!({}), &[("hookmill-comment", value)]).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.text.contains(says), "{}", refused.text);
    }
}

#[tokio::test]
async fn versions_differ_by_a_patch_that_shows_no_secret() {
    let run = running().await;
    run.configure().await;
    let before = run.put("/api/v1/integrations/1", json!({"credentials": {"key": "planted-one"}})).await;
    assert_eq!(before.status, StatusCode::OK, "{}", before.text);
    let changes = json!({"name": "store", "credentials": {"key": "planted-two"}});
    assert_eq!(run.put("/api/v1/integrations/1", changes).await.status, StatusCode::OK);
    let diff = run.get(&format!("{VERSIONS}/6/diff")).await;
    assert_eq!((&diff.body["version"], &diff.body["against"]), (&json!(6), &json!(5)));
    let want = json!([
        {"op": "replace", "path": "/integration/credentials", "value": "changed"},
        {"op": "replace", "path": "/integration/name", "value": "store"},
    ]);
    assert_eq!(diff.body["patch"], want);
    assert!(!diff.text.contains("planted") && !diff.text.contains("fingerprint"), "{}", diff.text);
    let back = run.get(&format!("{VERSIONS}/5/diff?against=6")).await.body;
    assert_eq!(back["patch"][1], json!({"op": "replace", "path": "/integration/name", "value": "shop"}));
    assert_eq!(run.get(&format!("{VERSIONS}/6/diff?against=6")).await.body["patch"], json!([]));

    // Sealed anew, it is the same secret.
    let same = json!({"credentials": {"key": "planted-two"}, "description": "d"});
    assert_eq!(run.put("/api/v1/integrations/1", same).await.status, StatusCode::OK);
    let diff = run.get(&format!("{VERSIONS}/7/diff")).await.body;
    assert_eq!(diff["patch"], json!([{"op": "replace", "path": "/integration/description", "value": "d"}]));

    let rotated = run.post("/api/v1/webhooks/1/rotate-secret", Value::Null).await;
    assert_eq!(rotated.status, StatusCode::OK);
    let diff = run.get(&format!("{VERSIONS}/8/diff")).await;
    let patch = diff.body["patch"].to_string();
    assert!(patch.contains("/webhooks/1/secrets") && patch.contains("\"changed\""), "{patch}");

    let settings = |token: &str| json!({"settings": {"url": "https://x.example", "headers": {"authorization": token}}});
    assert_eq!(run.put("/api/v1/destinations/1", settings("planted-three")).await.status, StatusCode::OK);
    assert_eq!(run.put("/api/v1/destinations/1", settings("planted-four")).await.status, StatusCode::OK);
    let diff = run.get(&format!("{VERSIONS}/10/diff")).await.body;
    let want = json!([{"op": "replace", "path": "/destinations/1/settings/headers/authorization", "value": "changed"}]);
    assert_eq!(diff["patch"], want);
    let first = run.get(&format!("{VERSIONS}/1/diff")).await.body;
    assert_eq!((&first["against"], &first["patch"][0]["path"]), (&json!(null), &json!("/integration")));
    assert_eq!(run.get(&format!("{VERSIONS}/6/diff?against=3")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_rollback_brings_everything_back_as_one_version() {
    let run = running().await;
    run.configure().await;
    run.put("/api/v1/integrations/1", json!({"credentials": {"key": "planted-one"}})).await;
    let want = run.state(5).await;
    let sealed = |number: u64| {
        let changes = run.config.changes();
        let resources = changes.into_iter().filter(|change| change.version == number);
        format!("{:?}", resources.map(|change| change.resource).collect::<Vec<_>>())
    };
    let first = sealed(5);

    run.put("/api/v1/integrations/1", json!({"name": "store", "credentials": {"key": "planted-two"}})).await;
    run.put("/api/v1/webhooks/1", json!({"path": "moved"})).await;
    run.post("/api/v1/webhooks", json!({"integration_id": 1, "name": "late", "path": "shop"})).await;
    run.send("DELETE", "/api/v1/subscriptions/1", Value::Null, None).await;
    run.put("/api/v1/destinations/1", json!({"name": "books"})).await;
    run.post("/api/v1/destinations", json!({"name": "new", "settings": {"url": "https://new.example"}})).await;
    let other = json!({"integration_id": 1, "destination_id": 2, "name": "later"});
    assert_eq!(run.post("/api/v1/subscriptions", other).await.status, StatusCode::CREATED);

    let stale = run.roll_back(5, &[("if-match", "\"5\"")]).await;
    assert_eq!((stale.status, &stale.body["code"]), (StatusCode::PRECONDITION_FAILED, &json!("version_conflict")));
    let newest = run.get(VERSIONS).await.headers[header::ETAG].to_str().expect("text").to_owned();
    let back = run.roll_back(5, &[("if-match", &newest)]).await;
    assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    assert_eq!((&back.body["version"], &back.body["comment"]), (&json!(13), &json!("rollback to 5")));
    assert_eq!(back.headers[header::ETAG], "\"13\"");
    assert_eq!(run.state(13).await, want);
    for (path, status) in [
        ("/api/v1/webhooks/1", StatusCode::OK),
        ("/api/v1/webhooks/2", StatusCode::NOT_FOUND),
        ("/api/v1/subscriptions/1", StatusCode::OK),
        ("/api/v1/subscriptions/2", StatusCode::NOT_FOUND),
        // Made since, and nobody else's.
        ("/api/v1/destinations/2", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(run.get(path).await.status, status, "{path}");
    }
    let came_back = run.get("/api/v1/subscriptions/1").await.body;
    assert!(came_back["start_after"].is_string(), "what came in the meantime was not for it: {came_back}");
    let credentials =
        |text: &str| text.split("credentials: ").nth(1).map(|rest| rest.split(',').next().map(str::to_owned));
    assert_eq!(credentials(&sealed(13)), credentials(&first));

    let again = run.roll_back(5, &[]).await;
    assert_eq!((again.status, &again.body["version"]), (StatusCode::OK, &json!(13)), "nothing differs");
    assert_eq!(run.roll_back(3, &[]).await.status, StatusCode::NOT_FOUND);
    let activities = run.get("/api/v1/activities?limit=1000").await;
    assert!(activities.text.contains("integration.rolled_back") && !activities.text.contains("planted"));
}

#[tokio::test]
async fn a_rollback_that_would_break_what_is_shared_changes_nothing() {
    let run = running().await;
    run.configure().await;
    run.post("/api/v1/integrations", json!({"name": "b", "type": "custom", "environment": "staging"})).await;
    run.post("/api/v1/subscriptions", json!({"integration_id": 2, "destination_id": 1, "name": "b"})).await;
    run.put("/api/v1/destinations/1", json!({"name": "books"})).await;
    run.put("/api/v1/integrations/1", json!({"name": "store"})).await;
    let shared = run.roll_back(4, &[]).await;
    assert_eq!((shared.status, &shared.body["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    assert!(shared.text.contains("destination 1 is also used by subscription 2"), "{}", shared.text);
    assert_eq!(run.get("/api/v1/integrations/1").await.body["name"], "store");
    let of_the_other = run.get("/api/v1/integrations/2/versions").await.body;
    assert_eq!(of_the_other["items"][0]["changes"][0]["kind"], "destination");

    // A path that somebody else has taken since.
    run.put("/api/v1/webhooks/1", json!({"path": "moved"})).await;
    run.post("/api/v1/webhooks", json!({"integration_id": 2, "name": "b", "path": "shop"})).await;
    let number = of_the_other["items"][0]["version"].as_u64().expect("a number");
    let taken = run.roll_back(number, &[]).await;
    assert_eq!((taken.status, &taken.body["errors"][0]["pointer"]), (StatusCode::CONFLICT, &json!("/path")));
    assert_eq!(run.get("/api/v1/webhooks/1").await.body["path"], "/moved");
}

#[tokio::test]
async fn a_deleted_integration_comes_back_with_all_that_it_had() {
    let run = running().await;
    run.configure().await;
    let want = run.state(4).await;
    assert_eq!(run.send("DELETE", "/api/v1/integrations/1", Value::Null, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(run.get(&format!("{VERSIONS}/5")).await.body["integration"], json!(null));
    let deletion = run.roll_back(5, &[]).await;
    assert_eq!(deletion.status, StatusCode::CONFLICT);
    assert!(deletion.text.contains("is its deletion"), "{}", deletion.text);
    let back = run.roll_back(4, &[]).await;
    assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    assert_eq!(run.state(6).await, want);
}
