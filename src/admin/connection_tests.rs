//! Connection tests as operators meet them: `POST /api/v1/integrations/{id}/test`, and the last one of each integration.

pub(super) mod doc;

use axum::{http::StatusCode, response::Response};
use hookmill_actors::domain::config::Integration;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    access::{Author, State},
    auth,
    json::NoMembers,
    problem::{Code, Problem},
    resource::{Segments, json, time},
};
use crate::connections::{Busy, Outcome, Test, tested};

/// A test as replies show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConnectionTest)]
pub(super) struct TestView {
    #[schema(format = DateTime)]
    at: String,
    outcome: Outcome,
    reason: String,
    /// HTTP's, where one came.
    status: Option<u16>,
    duration_ms: u64,
}

/// How a test went. It is 200 whatever comes of it.
#[derive(Debug, Serialize, ToSchema)]
struct Tested {
    /// `true` too where there is nothing to test, which `message` then says.
    success: bool,
    message: String,
    #[serde(flatten)]
    test: TestView,
}

impl TestView {
    pub(super) fn of(test: &Test) -> Self {
        Self {
            at: time(test.at_ms),
            outcome: test.outcome,
            reason: test.reason.clone(),
            status: test.status,
            duration_ms: test.duration_ms,
        }
    }
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Self {
        Self::new(Code::Busy, busy.to_string())
    }
}

/// `POST /api/v1/integrations/{id}/test`: asks its third party now.
pub(super) async fn test(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    _: NoMembers,
) -> Result<Response, Problem> {
    let integration = api.find::<Integration>(id)?;
    let test = api.tools.connections.test(&integration).await?;
    auth::note(&*api.tree.ports().config, vec![tested(author, integration.id, &test)]).await;
    let success = test.outcome != Outcome::Failed;
    Ok(json(StatusCode::OK, &Tested { success, message: test.reason.clone(), test: TestView::of(&test) }))
}
