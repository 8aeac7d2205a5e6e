//! Tests of connections: of one integration, or of all that are not switched off, so many at once and until a deadline.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::details::that_fit;
use crate::{
    domain::{
        config::{Integration, IntegrationStatus},
        connection_test::{Outcome, Test},
        ids::IntegrationId,
    },
    tree::{Ports, wires::Wires},
};

/// Characters of an integration's name and of a message in a detail.
const TEXT_CHARS_MAX: usize = 160;

/// Tests one integration. An object with the members of a reply to a test by hand.
pub(super) async fn test_one(ports: &Ports, wires: &Wires, id: IntegrationId) -> Result<Value, String> {
    let found = wires.config.current().configuration.integrations.get(&id).cloned();
    let integration = found.ok_or_else(|| format!("integration {id} is deleted"))?;
    let test = ports.connections.test(&integration).await;
    Ok(json!({
        "integration_id": id,
        "success": test.outcome != Outcome::Failed,
        "message": test.reason,
        "outcome": test.outcome,
        "status": test.status,
        "duration_ms": test.duration_ms,
    }))
}

/// Tests all that are not switched off. An object: `total`, and of them `successful`, `failed` and `skipped` (those that
/// have nothing to test, or were not tested in time), with `details` of as many as there is room for.
pub(super) async fn test_all(ports: &Ports, wires: &Wires, at_once: usize, deadline: Duration) -> Value {
    let ends = Instant::now() + deadline;
    let snapshot = wires.config.current();
    let all = snapshot.configuration.integrations.values();
    let wanted: Vec<Arc<Integration>> =
        all.filter(|integration| integration.status != IntegrationStatus::Inactive).cloned().collect();
    drop(snapshot);
    let mut found: BTreeMap<IntegrationId, Test> = BTreeMap::new();
    let tester = &ports.connections;
    let one = |integration: &Arc<Integration>| {
        let integration = integration.clone();
        async move { (integration.id, tester.test(&integration).await) }
    };
    // Boxed: as many as there are, each would be part of the future of the whole.
    let mut tests = stream::iter(wanted.iter().map(one)).buffer_unordered(at_once).boxed();
    while let Ok(Some((id, test))) = timeout_at(ends, tests.next()).await {
        found.insert(id, test);
    }
    told(&wanted, &found)
}

/// How a test ended, those first that need somebody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Failed,
    Skipped,
    Successful,
}

impl End {
    fn of(test: Option<&Test>) -> Self {
        match test.map(|test| test.outcome) {
            Some(Outcome::Failed) => Self::Failed,
            Some(Outcome::Passed) => Self::Successful,
            Some(Outcome::NothingToTest) | None => Self::Skipped,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Successful => "successful",
        }
    }
}

fn told(wanted: &[Arc<Integration>], found: &BTreeMap<IntegrationId, Test>) -> Value {
    let mut ends: Vec<(End, &Integration)> =
        wanted.iter().map(|integration| (End::of(found.get(&integration.id)), &**integration)).collect();
    ends.sort_by_key(|(end, integration)| (*end, integration.id));
    let count = |wanted: End| ends.iter().filter(|(end, _)| *end == wanted).count();
    let details = ends.iter().map(|(end, integration)| {
        let test = found.get(&integration.id);
        json!({
            "integration_id": integration.id,
            "name": cut(&integration.name),
            "status": end.name(),
            "message": cut(test.map_or("not tested: the time for all tests was over", |test| &test.reason)),
        })
    });
    let (details, details_left_out) = that_fit(details);
    json!({
        "total": ends.len(),
        "successful": count(End::Successful),
        "failed": count(End::Failed),
        "skipped": count(End::Skipped),
        "details_left_out": details_left_out,
        "details": details,
    })
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
