//! Hundreds who change one integration at once: each accepted change is a version, whole, and none is lost.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header},
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use serde_json::{Value, json};

use super::{Answer, over, sent};
use crate::storage::{sled_config::SledConfig, sled_db::StateDb};

const WRITERS: usize = 500;

/// What a writer does. The name and the description of an integration or webhook are always written together, and equal.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Whatever stands.
    Rename,
    /// Only what was read; read again until that stands.
    RenameRead,
    /// A webhook of its own.
    AddWebhook,
    /// Of all webhooks there are, one.
    RemoveWebhook(usize),
    /// The shared one.
    RenameWebhook,
    RollBack,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = proptest::prop_oneof![
        4 => proptest::strategy::Just(Deed::Rename),
        4 => proptest::strategy::Just(Deed::RenameRead),
        3 => proptest::strategy::Just(Deed::AddWebhook),
        2 => (0usize..50).prop_map(Deed::RemoveWebhook),
        3 => proptest::strategy::Just(Deed::RenameWebhook),
        1 => proptest::strategy::Just(Deed::RollBack),
    ];
    proptest::collection::vec(deed, WRITERS)
}

/// What came of it: how many versions it made, and the number, where its reply tells.
struct Outcome {
    answer: Answer,
    made: bool,
    number: Option<u64>,
}

async fn write(app: Router, writer: usize, deed: Deed) -> Outcome {
    let text = format!("writer {writer}");
    let both = json!({"name": text, "description": text});
    let answer = match deed {
        Deed::Rename => sent(&app, "PUT", "/api/v1/integrations/1", both, &[]).await,
        Deed::RenameRead => loop {
            let read = sent(&app, "GET", "/api/v1/integrations/1", Value::Null, &[]).await;
            let tag = read.headers[header::ETAG].to_str().expect("it is text").to_owned();
            let answer = sent(&app, "PUT", "/api/v1/integrations/1", both.clone(), &[("if-match", &tag)]).await;
            if answer.status != StatusCode::PRECONDITION_FAILED {
                break answer;
            }
        },
        Deed::AddWebhook => {
            let body = json!({"integration_id": 1, "name": text, "description": text, "path": format!("w{writer}")});
            sent(&app, "POST", "/api/v1/webhooks", body, &[]).await
        }
        Deed::RemoveWebhook(nth) => {
            let listed = sent(&app, "GET", "/api/v1/webhooks?limit=1000", Value::Null, &[]).await;
            let ids: Vec<u64> =
                listed.body["items"].as_array().into_iter().flatten().filter_map(|it| it["id"].as_u64()).collect();
            // The first one is shared, and stays.
            let id = ids.get(1 + nth).copied().unwrap_or(999_999);
            sent(&app, "DELETE", &format!("/api/v1/webhooks/{id}"), Value::Null, &[]).await
        }
        Deed::RenameWebhook => sent(&app, "PATCH", "/api/v1/webhooks/1", both, &[]).await,
        Deed::RollBack => {
            let path = "/api/v1/integrations/1/versions/2/rollback";
            let before = newest(&app).await;
            let answer = sent(&app, "POST", path, Value::Null, &[("if-match", &format!("\"{before}\""))]).await;
            let number = answer.body["version"].as_u64();
            let made = answer.status == StatusCode::OK && number != Some(before);
            return Outcome { made, number: number.filter(|_| made), answer };
        }
    };
    let made = answer.status.is_success();
    Outcome { made, number: answer.body["version"].as_u64().filter(|_| made), answer }
}

async fn newest(app: &Router) -> u64 {
    let listed = sent(app, "GET", "/api/v1/integrations/1/versions?limit=1", Value::Null, &[]).await;
    listed.body["items"][0]["version"].as_u64().expect("there is one")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_change_is_one_whole_version() {
    let mut runner = TestRunner::default();
    let deeds = deeds().new_tree(&mut runner).expect("nothing is rejected").current();
    let root = tempfile::tempdir().expect("a directory");
    let db = StateDb::open(&root.path().join("state"), 16 << 20).expect("it opens");
    let store = SledConfig::open(db).expect("it is whole");
    check(over(Arc::new(store), &[], Vec::new()).await.app, &deeds).await;
}

async fn check(app: Router, deeds: &[Deed]) {
    let shop = json!({"name": "first", "description": "first", "type": "custom", "environment": "production"});
    assert_eq!(sent(&app, "POST", "/api/v1/integrations", shop, &[]).await.status, StatusCode::CREATED);
    let shared = json!({"integration_id": 1, "name": "first", "description": "first", "path": "shared"});
    assert_eq!(sent(&app, "POST", "/api/v1/webhooks", shared, &[]).await.status, StatusCode::CREATED);

    let writers: Vec<_> =
        deeds.iter().enumerate().map(|(writer, deed)| tokio::spawn(write(app.clone(), writer, *deed))).collect();
    let (mut made, mut numbers) = (0, BTreeSet::from([1, 2]));
    for (writer, deed) in writers.into_iter().zip(deeds) {
        let Outcome { answer, made: one, number } = writer.await.expect("no writer panics");
        let refusals = match deed {
            // Nobody stands in the way of those who do not ask for it.
            Deed::Rename | Deed::RenameRead | Deed::AddWebhook | Deed::RenameWebhook => vec![],
            Deed::RollBack => vec![StatusCode::PRECONDITION_FAILED],
            Deed::RemoveWebhook(_) => vec![StatusCode::NOT_FOUND],
        };
        assert!(answer.status.is_success() || refusals.contains(&answer.status), "{deed:?}: {}", answer.text);
        made += usize::from(one);
        if let Some(number) = number {
            assert!(numbers.insert(number), "two were told that they made version {number}");
        }
    }
    let listed = sent(&app, "GET", "/api/v1/integrations/1/versions?limit=1000", Value::Null, &[]).await.body;
    let versions: Vec<u64> =
        listed["items"].as_array().expect("a list").iter().rev().filter_map(|it| it["version"].as_u64()).collect();
    assert_eq!(versions.len(), 2 + made, "each accepted change is a version, and nothing else is");
    assert!(numbers.iter().all(|number| versions.contains(number)), "a version that was told of is not there");
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]));

    let mut former: Option<Value> = None;
    for number in versions.iter().step_by(7).chain(versions.last()) {
        let state =
            sent(&app, "GET", &format!("/api/v1/integrations/1/versions/{number}"), Value::Null, &[]).await.body;
        let webhooks = state["webhooks"].as_array().expect("a list");
        for whole in std::iter::once(&state["integration"]).chain(webhooks) {
            assert_eq!(whole["name"], whole["description"], "half of a change at version {number}");
        }
        former = Some(state);
    }
    let last = former.expect("there are versions");
    let now = sent(&app, "GET", "/api/v1/integrations/1", Value::Null, &[]).await.body;
    assert_eq!((&last["integration"]["name"], &last["version"]), (&now["name"], &now["latest_version"]));
    let webhooks = sent(&app, "GET", "/api/v1/webhooks?limit=1000", Value::Null, &[]).await.body;
    assert_eq!(last["webhooks"], webhooks["items"]);
}
