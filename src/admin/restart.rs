//! `POST /api/v1/integrations/{id}/restart`: brings a failed integration back, or starts a running one again.

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{domain::ids::IntegrationId, tree::RestartError};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    access::{Author, State},
    json::NoMembers,
    problem::{Code, Problem},
    resource::{Segments, json},
};

#[derive(Serialize, ToSchema)]
pub(super) struct Restarting {
    status: &'static str,
    integration_id: IntegrationId,
}

/// What is under way ends first; nothing is lost, and events go on from where they were recorded.
pub(super) async fn restart(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    _: NoMembers,
) -> Result<Response, Problem> {
    let id = IntegrationId(id);
    api.tree.restart(&author, id).await?;
    Ok(json(StatusCode::ACCEPTED, &Restarting { status: "restarting", integration_id: id }))
}

impl From<RestartError> for Problem {
    fn from(error: RestartError) -> Self {
        match error {
            RestartError::NotFound(_) => Self::new(Code::NotFound, error.to_string()),
            RestartError::Inactive(_) | RestartError::UnderWay(_) => Self::new(Code::Conflict, error.to_string()),
            RestartError::Unavailable => Self::new(Code::Unavailable, error.to_string()),
            RestartError::Config(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use hookmill_actors::configuration::ConfigError;

    use super::*;

    #[test]
    fn a_refusal_says_what_would_be_right() {
        let id = IntegrationId(7);
        for (error, status, words) in [
            (RestartError::NotFound(id), StatusCode::NOT_FOUND, "integration 7 does not exist"),
            (RestartError::Inactive(id), StatusCode::CONFLICT, "`active`"),
            (RestartError::UnderWay(id), StatusCode::CONFLICT, "already"),
            (RestartError::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "try again"),
            (RestartError::Config(ConfigError::Unavailable), StatusCode::SERVICE_UNAVAILABLE, "try again"),
        ] {
            assert!(error.to_string().contains(words), "{error}");
            let response = axum::response::IntoResponse::into_response(Problem::from(error));
            assert_eq!(response.status(), status);
        }
    }
}
