//! Connection tests in the document.

use axum::http::StatusCode;

use super::Tested;
use crate::admin::{integrations::doc::connection_test, openapi::Doc};

pub(in crate::admin) fn test() -> Doc {
    let mut tested = connection_test();
    tested["success"] = true.into();
    tested["message"] = tested["reason"].clone();
    Doc::new("test_integration", "Tests an integration's connection now")
        .about("It is 200 whatever comes of it; `success` is `true` too where there is nothing to test.")
        .empty_body()
        .reply::<Tested>(StatusCode::OK, tested)
}
