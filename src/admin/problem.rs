//! What a refused request hears: problem details (RFC 9457) with a stable code. Every reply of the admin API that is
//! no success is made here, so that the codes stand in one table and nothing internal is told.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hookmill_actors::{configuration::ConfigError, ports::event_log::LogError, tree::ReplayError};
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::schema::{ObjectBuilder, Type},
};

macro_rules! codes {
    ($($code:ident,)*) => {
        /// The stable code of a refusal: what a client may switch on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Code {
            $($code,)*
        }

        impl Code {
            /// Every code there is.
            pub(super) const ALL: &[Self] = &[$(Self::$code,)*];
        }
    };
}

codes! {
    InvalidJson,
    InvalidRequest,
    Unauthorized,
    ManagerRoleNeeded,
    AdminRoleNeeded,
    OutOfScope,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    InProgress,
    OutcomeUnknown,
    TaskUnderWay,
    KeyReused,
    VersionConflict,
    PayloadTooLarge,
    UnsupportedMediaType,
    HostNotAllowed,
    ValidationFailed,
    Busy,
    RateLimited,
    Internal,
    Corrupt,
    Unavailable,
}

impl Code {
    /// As sent.
    pub(super) fn name(self) -> &'static str {
        self.row().0
    }

    /// The status it is sent with.
    pub(super) fn status(self) -> StatusCode {
        self.row().1
    }

    /// What it means, in a few words.
    pub(super) fn title(self) -> &'static str {
        self.row().2
    }

    /// The table: code as sent, status, title.
    fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::InvalidJson => ("invalid_json", StatusCode::BAD_REQUEST, "The body is not acceptable JSON"),
            Self::InvalidRequest => ("invalid_request", StatusCode::BAD_REQUEST, "The request is not acceptable"),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "A valid token is needed"),
            Self::ManagerRoleNeeded => {
                ("manager_role_needed", StatusCode::FORBIDDEN, "The token's role does not allow it")
            }
            Self::AdminRoleNeeded => ("admin_role_needed", StatusCode::FORBIDDEN, "The token's role does not allow it"),
            Self::OutOfScope => ("out_of_scope", StatusCode::FORBIDDEN, "The token is for a part that this is not in"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "There is no such thing"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "The path does not know this method")
            }
            Self::RequestTimeout => ("request_timeout", StatusCode::REQUEST_TIMEOUT, "The body came too slowly"),
            Self::Conflict => ("conflict", StatusCode::CONFLICT, "Something else stands against it"),
            Self::InProgress => ("request_in_progress", StatusCode::CONFLICT, "The same request is under way"),
            Self::OutcomeUnknown => ("outcome_unknown", StatusCode::CONFLICT, "Nobody knows whether it was done"),
            Self::TaskUnderWay => ("task_under_way", StatusCode::CONFLICT, "The task is under way"),
            Self::VersionConflict => {
                ("version_conflict", StatusCode::PRECONDITION_FAILED, "It was changed in the meantime")
            }
            Self::PayloadTooLarge => ("payload_too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be JSON")
            }
            Self::HostNotAllowed => {
                ("host_not_allowed", StatusCode::MISDIRECTED_REQUEST, "The API does not answer to this host name")
            }
            Self::ValidationFailed => {
                ("validation_failed", StatusCode::UNPROCESSABLE_ENTITY, "Some members are not acceptable")
            }
            Self::KeyReused => {
                ("idempotency_key_reused", StatusCode::UNPROCESSABLE_ENTITY, "The key was given with another request")
            }
            Self::Busy => ("busy", StatusCode::TOO_MANY_REQUESTS, "Too much of this is under way"),
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong inside"),
            Self::Corrupt => ("corrupt", StatusCode::INTERNAL_SERVER_ERROR, "A stored event is damaged"),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Not possible now"),
        }
    }
}

/// A member at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Fault {
    /// JSON pointer (RFC 6901) to the member.
    pub(super) pointer: String,
    /// What is wrong and what would be right; never a secret.
    pub(super) detail: String,
}

/// A refusal on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) detail: String,
    pub(super) faults: Vec<Fault>,
    pub(super) retry_after_s: Option<u64>,
    /// Sent in place of the code's own, where a caller's contract has another for it.
    pub(super) status: Option<StatusCode>,
}

/// How long a client should wait for a part that is being restarted.
const RETRY_AFTER_S: u64 = 1;

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        let retry_after_s = (code == Code::Unavailable).then_some(RETRY_AFTER_S);
        Self { code, detail: detail.into(), faults: Vec::new(), retry_after_s, status: None }
    }

    /// The status it is sent with.
    pub(super) fn sent_as(&self) -> StatusCode {
        self.status.unwrap_or(self.code.status())
    }

    /// As it is sent.
    pub(super) fn body(&self) -> ProblemBody {
        ProblemBody {
            r#type: "about:blank",
            title: self.code.title(),
            status: self.sent_as().as_u16(),
            detail: self.detail.clone(),
            code: self.code.name(),
            errors: self.faults.clone(),
        }
    }

    pub(super) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{what} does not exist"))
    }

    /// One member is at fault; `pointer` such as `/name`.
    pub(super) fn member(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::members(vec![Fault { pointer: pointer.into(), detail: detail.into() }])
    }

    /// These members are at fault.
    pub(super) fn members(faults: Vec<Fault>) -> Self {
        let detail = match faults.as_slice() {
            [one] => format!("`{}` {}", one.pointer, one.detail),
            several => format!("{} members are not acceptable; `errors` lists them", several.len()),
        };
        Self { faults, ..Self::new(Code::ValidationFailed, detail) }
    }

    /// The cause is logged, under the request's id; the client hears nothing of it.
    pub(super) fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "an admin request failed");
        Self::new(Code::Internal, "the log has the cause, under this reply's `x-request-id`")
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::NotFound(_) | ConfigError::NoVersion { .. } => Self::new(Code::NotFound, error.to_string()),
            ConfigError::Conflict { .. }
            | ConfigError::InUse { .. }
            | ConfigError::Shared { .. }
            | ConfigError::IsDeletion { .. }
            | ConfigError::Full { .. }
            | ConfigError::KeptFull(_)
            | ConfigError::TooMany(_) => Self::new(Code::Conflict, error.to_string()),
            ConfigError::Taken { field, by } => Self {
                faults: vec![Fault { pointer: format!("/{field}"), detail: format!("is already used by {by}") }],
                ..Self::new(Code::Conflict, error.to_string())
            },
            ConfigError::Reserved { by } => Self {
                faults: vec![Fault {
                    pointer: "/path".to_owned(),
                    detail: format!("is reserved for webhook endpoint {by}, which is deleted and may come back"),
                }],
                ..Self::new(
                    Code::Conflict,
                    format!(
                        "{error}; `DELETE /api/v1/webhooks/{by}?purge=true` frees it, `POST .../restore` brings it back"
                    ),
                )
            },
            ConfigError::Dangling { field, target } => {
                Self::member(format!("/{field}"), format!("names {target}, which does not exist"))
            }
            ConfigError::Store(cause) => {
                tracing::error!(%cause, "the configuration could not be stored");
                Self::new(Code::Unavailable, "the configuration cannot be stored now; the log has the cause")
            }
            ConfigError::Unavailable => Self::new(Code::Unavailable, error.to_string()),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        match error {
            LogError::QueueFull
            | LogError::DiskFull
            | LogError::Stalled
            | LogError::Closed
            | LogError::TooLarge { .. } => Self::new(Code::Unavailable, error.to_string()),
            LogError::Failed(cause) => {
                tracing::error!(%cause, "the event log failed");
                Self::new(Code::Unavailable, "the event log failed; hookmill's log has the cause")
            }
            LogError::Corrupt(_) => Self::new(Code::Corrupt, error.to_string()),
        }
    }
}

impl From<ReplayError> for Problem {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::NotFound { .. } | ReplayError::EventGone(_) | ReplayError::NoJob(_) => {
                Self::new(Code::NotFound, error.to_string())
            }
            ReplayError::SubscriptionGone(_)
            | ReplayError::OnItsWay { .. }
            | ReplayError::WrongStatus { .. }
            | ReplayError::TooMany(_) => Self::new(Code::Conflict, error.to_string()),
            ReplayError::OtherIntegration { .. } => Self::member("/subscription_id", error.to_string()),
            ReplayError::Invalid { field: field @ ("target_subscription_id" | "rate_per_s"), detail } => {
                Self::member(format!("/{field}"), detail)
            }
            ReplayError::Invalid { field, detail } => Self::member(format!("/query/{field}"), detail),
            ReplayError::Unavailable => Self::new(Code::Unavailable, error.to_string()),
            ReplayError::Log(error) => error.into(),
        }
    }
}

/// Problem details (RFC 9457), as they are sent.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    #[schema(value_type = String)]
    r#type: &'static str,
    #[schema(value_type = String)]
    title: &'static str,
    status: u16,
    /// For people; it may change.
    detail: String,
    /// For programs: docs/errors.md lists them all.
    #[schema(schema_with = code_schema)]
    code: &'static str,
    /// The members at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
}

fn code_schema() -> utoipa::openapi::schema::Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(Code::ALL.iter().map(|code| code.name()))).build()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let mut response = (self.sent_as(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        // For whoever says the same in the words of another contract.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_code_with_its_status() {
        let documented = crate::documented_codes("## The admin API");
        let coded: std::collections::BTreeMap<String, u16> =
            Code::ALL.iter().map(|code| (code.row().0.to_owned(), code.row().1.as_u16())).collect();
        assert_eq!(documented, coded, "docs/errors.md and `Code` differ");
    }

    #[test]
    fn no_two_refusals_share_a_code_and_all_are_errors() {
        let mut names: Vec<&str> = Code::ALL.iter().map(|code| code.row().0).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| code.row().1.is_client_error() || code.row().1.is_server_error()));
    }

    #[tokio::test]
    async fn a_refusal_names_its_members_and_how_to_go_on() {
        let response = Problem::member("/name", "must be a string").into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.expect("the body is in memory");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("the body is JSON");
        assert_eq!(body["code"], "validation_failed");
        assert_eq!(body["status"], 422);
        assert_eq!(body["type"], "about:blank");
        assert_eq!(body["errors"][0]["pointer"], "/name");
        assert_eq!(body["detail"], "`/name` must be a string");

        let response = Problem::new(Code::Unauthorized, "").into_response();
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        let response = Problem::from(ConfigError::Unavailable).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn the_inside_is_not_told() {
        let store = hookmill_actors::ports::config_store::ConfigStoreError("/var/lib/x: EIO".to_owned());
        for problem in [
            Problem::internal(&"/var/lib/x: EIO"),
            ConfigError::Store(store).into(),
            LogError::Failed("/var/lib/x: EIO".into()).into(),
        ] {
            assert!(!format!("{problem:?}").contains("EIO"), "{problem:?}");
        }
    }
}
