//! What a call of the admin API may end with, in words for people and as an exit code for scripts.

use std::fmt::Write as _;

use hyper::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;

use crate::{
    admin::NO_SUCH_PATH,
    cli::{EXIT_FAILURE, EXIT_USAGE, show::escaped},
};

/// What was named is not there.
pub(in crate::cli) const EXIT_NOT_FOUND: u8 = 3;
/// The token is none, or may not do this.
const EXIT_DENIED: u8 = 4;
/// Something else stands against it.
pub(in crate::cli) const EXIT_CONFLICT: u8 = 5;
/// The server cannot be reached or is busy: the same may work later.
const EXIT_TRY_AGAIN: u8 = 6;

/// Faults that are listed; a reply may hold more.
const FAULTS_SHOWN: usize = 20;

/// What to do where something else answers.
const OTHER_ADDRESS: &str =
    "see that the address is the admin API's (8081 where nothing else was set), not that of the webhooks";
/// What to do where the server does not know what is asked for.
const OTHER_VERSION: &str = "the server is of another version than this program (`hookmill --version`): \
    `GET /api/v1/openapi.json` there says which; use a program of that version";

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ApiError {
    /// The server said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// There is no connection.
    #[error("{url} cannot be reached: {detail}")]
    Unreachable {
        /// The server.
        url: String,
        /// All that is known, from the outside in.
        detail: String,
    },
    /// The connection broke.
    #[error("the reply of {url} broke off: {detail}")]
    Broken {
        /// The server.
        url: String,
        /// What happened.
        detail: String,
    },
    /// It took too long.
    #[error("{url} did not answer within {after_s} s")]
    TimedOut {
        /// The server.
        url: String,
        /// How long it was waited for.
        after_s: u64,
    },
    /// What is there does not speak this API.
    #[error("{url} does not answer as hookmill's admin API does: {detail}")]
    Foreign {
        /// The server.
        url: String,
        /// Why not.
        detail: String,
    },
}

/// A refusal: problem details of the server, or what else came with an error's status.
#[derive(Debug)]
pub(in crate::cli) struct Refusal {
    pub(in crate::cli) status: StatusCode,
    code: String,
    detail: String,
    faults: Vec<Fault>,
    retry_after: Option<String>,
    request_id: Option<String>,
    /// Whether the faults say more than the detail.
    is_located: bool,
}

#[derive(Debug, Deserialize)]
struct Fault {
    pointer: String,
    detail: String,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<Fault>,
}

impl Refusal {
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(escaped);
        let problem = serde_json::from_slice::<Problem>(body).ok();
        let (code, detail, faults) = match problem {
            Some(Problem { code, title, detail, errors }) => {
                (code, if detail.is_empty() { title } else { detail }, errors)
            }
            // A proxy on the way, or another service.
            None => (String::new(), String::new(), Vec::new()),
        };
        Self {
            status,
            code,
            detail,
            faults,
            retry_after: header(RETRY_AFTER.as_str()),
            request_id: header("x-request-id"),
            is_located: false,
        }
    }

    /// Says of each fault where it stands in what people wrote.
    pub(in crate::cli) fn relocate(&mut self, place: impl Fn(&str) -> Option<String>) {
        for fault in &mut self.faults {
            if let Some(place) = place(&fault.pointer) {
                fault.pointer = place;
                self.is_located = true;
            }
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = if self.detail.is_empty() {
            format!("the server answered {}", self.status)
        } else {
            format!("{} ({}", escaped(&self.detail), self.status.as_str())
        };
        if !self.detail.is_empty() {
            if !self.code.is_empty() {
                let _ = write!(text, " {}", escaped(&self.code));
            }
            text.push(')');
        }
        // A single fault is the detail already.
        if self.faults.len() > 1 || self.is_located {
            for Fault { pointer, detail } in self.faults.iter().take(FAULTS_SHOWN) {
                let _ = write!(text, "\n  {}: {}", escaped(pointer), escaped(detail));
            }
            if let Some(more @ 1..) = self.faults.len().checked_sub(FAULTS_SHOWN) {
                let _ = write!(text, "\n  and {more} more");
            }
        }
        f.write_str(&text)
    }
}

impl ApiError {
    pub(in crate::cli) fn unreachable(url: &str, error: &hyper_util::client::legacy::Error) -> Self {
        let mut detail = String::new();
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
        while let Some(error) = cause {
            let words = error.to_string();
            if !detail.contains(&words) {
                let _ = write!(detail, "{}{words}", if detail.is_empty() { "" } else { ": " });
            }
            cause = error.source();
        }
        if detail.is_empty() {
            detail = error.to_string();
        }
        Self::Unreachable { url: url.to_owned(), detail }
    }

    /// What a script may switch on.
    pub(in crate::cli) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(refusal) => match refusal.status.as_u16() {
                400 | 405 | 411 | 413 | 415 | 421 | 422 => EXIT_USAGE,
                // Something else that answers there knows nothing of what there is.
                404 | 410 if refusal.request_id.is_none() => EXIT_FAILURE,
                404 | 410 => EXIT_NOT_FOUND,
                401 | 403 => EXIT_DENIED,
                409 | 412 | 428 => EXIT_CONFLICT,
                408 | 429 | 502..=504 => EXIT_TRY_AGAIN,
                _ => EXIT_FAILURE,
            },
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Broken { .. } => EXIT_TRY_AGAIN,
            Self::Foreign { .. } => EXIT_FAILURE,
        }
    }

    /// What to do now.
    pub(in crate::cli) fn next_step(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.next_step(),
            Self::Unreachable { url, detail } if url.starts_with("https:") && detail.contains("InvalidContentType") => {
                "there is no TLS at that address; if it is hookmill's own, without a proxy before it, begin it with \
                 `http://`"
                    .to_owned()
            }
            Self::Unreachable { detail, .. } if detail.contains("certificate") => {
                "if the server's certificate is of an authority of your own, name that with `--ca FILE`".to_owned()
            }
            Self::Unreachable { .. } => {
                "see that hookmill runs there and that the address is its admin API's; `hookmill context list` shows \
                 which servers are known"
                    .to_owned()
            }
            Self::TimedOut { .. } => {
                "a change may have been made all the same: look before you repeat it; `--timeout` waits longer"
                    .to_owned()
            }
            Self::Broken { .. } => "a change may have been made all the same: look before you repeat it".to_owned(),
            Self::Foreign { .. } => OTHER_ADDRESS.to_owned(),
        }
    }
}

impl Refusal {
    fn next_step(&self) -> String {
        let words = match self.status.as_u16() {
            401 => {
                "the server does not know this token; make one with `hookmill tokens create`, and give it with \
                    `hookmill context add` or HOOKMILL_TOKEN_FILE"
            }
            403 => "use a token whose role and scope allow it; `hookmill tokens list` shows which there are",
            // The admin API names each request.
            404 | 405 | 410 if self.request_id.is_none() => OTHER_ADDRESS,
            404 if self.detail == NO_SUCH_PATH => OTHER_VERSION,
            404 | 410 => "the `list` command of the same resource shows what there is",
            409 => "change or remove what stands against it, then run it again",
            412 | 428 => "get it again, look at what was changed, and repeat the change with its new version",
            413 => "make it smaller, or raise `admin.body_bytes_max` of the server",
            421 => "add the host name to `admin.allowed_hosts` of the server",
            400 | 422 => "correct what is named above and run it again; `--help` has examples",
            405 | 415 => OTHER_VERSION,
            429 | 408 | 502..=504 => match &self.retry_after {
                Some(wait) => return format!("run it again in {wait} s"),
                None => "run it again in a moment",
            },
            _ => match &self.request_id {
                Some(id) => return format!("the server's log has the cause, under request {id}"),
                None => "see the server's log",
            },
        };
        words.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(status: u16, body: &Value) -> ApiError {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, 7.into());
        headers.insert("x-request-id", "00ff".parse().expect("a header"));
        let status = StatusCode::from_u16(status).expect("a status");
        ApiError::Refused(Box::new(Refusal::read(status, &headers, body.to_string().as_bytes())))
    }

    #[test]
    fn each_kind_of_refusal_has_its_exit_code() {
        for (status, code) in [
            (400, 2),
            (422, 2),
            (404, 3),
            (401, 4),
            (403, 4),
            (409, 5),
            (412, 5),
            (429, 6),
            (503, 6),
            (500, 1),
            (418, 1),
        ] {
            assert_eq!(refused(status, &json!({})).exit_code(), code, "{status}");
        }
        assert_eq!(ApiError::TimedOut { url: String::new(), after_s: 1 }.exit_code(), EXIT_TRY_AGAIN);
    }

    #[test]
    fn several_faults_are_listed_and_one_is_the_detail() {
        let one = json!({"detail": "`/name` is missing", "code": "validation_failed",
                         "errors": [{"pointer": "/name", "detail": "is missing"}]});
        assert_eq!(refused(422, &one).to_string(), "`/name` is missing (422 validation_failed)");
        let two = json!({"detail": "2 members are not acceptable; `errors` lists them", "code": "validation_failed",
                         "errors": [{"pointer": "/a", "detail": "x"}, {"pointer": "/b", "detail": "\u{1b}[2J"}]});
        let text = refused(422, &two).to_string();
        assert!(text.ends_with("(422 validation_failed)\n  /a: x\n  /b: \\u{1b}[2J"), "{text}");
    }

    #[test]
    fn what_is_no_problem_document_is_told_by_its_status() {
        let error = ApiError::Refused(Box::new(Refusal::read(
            StatusCode::BAD_GATEWAY,
            &HeaderMap::new(),
            b"<html>nginx</html>",
        )));
        assert_eq!(error.to_string(), "the server answered 502 Bad Gateway");
        assert_eq!(error.next_step(), "run it again in a moment");
    }

    #[test]
    fn what_is_not_found_may_be_the_server_s_address_or_its_version() {
        let problem = json!({"detail": "integration 9 does not exist", "code": "not_found"});
        assert!(refused(404, &problem).next_step().contains("`list`"));
        assert_eq!(refused(404, &json!({"detail": NO_SUCH_PATH})).next_step(), OTHER_VERSION);
        let ingress = Refusal::read(StatusCode::NOT_FOUND, &HeaderMap::new(), problem.to_string().as_bytes());
        assert_eq!(ingress.next_step(), OTHER_ADDRESS);
        let url = "https://127.0.0.1:8081".to_owned();
        let detail = "received corrupt message of type InvalidContentType".to_owned();
        assert!(ApiError::Unreachable { url, detail }.next_step().contains("http://"));
    }

    #[test]
    fn the_next_step_is_told() {
        assert_eq!(refused(503, &json!({})).next_step(), "run it again in 7 s");
        assert!(refused(500, &json!({})).next_step().contains("request 00ff"));
        assert!(refused(401, &json!({})).next_step().contains("HOOKMILL_TOKEN_FILE"));
    }
}
