//! The page that shows the document: Swagger UI out of the binary. Nothing is loaded from anywhere else, and the browser
//! is told to let nothing be.

use std::sync::{Arc, LazyLock};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use utoipa::ToSchema;
use utoipa_swagger_ui::{Config, serve};

use super::Doc;
use crate::admin::{
    problem::{Code, Problem},
    resource::Segments,
};

/// What is below it are the page's parts.
pub(in crate::admin) const PREFIX: &str = "/api/v1/docs/";
const PAGE: &str = include_str!("page.html");
/// Styles stand in attributes too, and icons in styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Nobody else is asked whether the document is valid.
static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from(super::PATH).validator_url("none").use_base_layout()));

/// `GET /api/v1/docs`
pub(in crate::admin) async fn page() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, PAGE).into_response()
}

/// `GET /api/v1/docs/{file}`
pub(in crate::admin) async fn asset(Segments(name): Segments<String>) -> Result<Response, Problem> {
    let part = serve(&name, CONFIG.clone()).map_err(|error| Problem::internal(&error))?;
    let part = part.ok_or_else(|| Problem::new(Code::NotFound, "the page has no such part"))?;
    let headers = [(header::CONTENT_TYPE, part.content_type.as_str()), (header::CONTENT_SECURITY_POLICY, POLICY)];
    let mut response = (headers, part.bytes.into_owned()).into_response();
    if part.gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

pub(in crate::admin) fn describe_page() -> Doc {
    Doc::new("show_docs", "The document as a page").text(StatusCode::OK, &["text/html"], "<!DOCTYPE html>")
}

pub(in crate::admin) fn describe_asset() -> Doc {
    Doc::new("show_docs_asset", "A part of that page").segment::<Part>("file", "index.css").text(
        StatusCode::OK,
        &["text/css", "text/javascript", "image/png"],
        "html { box-sizing: border-box; }",
    )
}

/// The parts that the page names.
#[derive(ToSchema)]
#[schema(as = DocsPart)]
#[expect(dead_code, reason = "parts are known by their file names")]
enum Part {
    #[schema(rename = "favicon-32x32.png")]
    Icon,
    #[schema(rename = "index.css")]
    Style,
    #[schema(rename = "swagger-initializer.js")]
    Initializer,
    #[schema(rename = "swagger-ui-bundle.js")]
    Bundle,
    #[schema(rename = "swagger-ui-standalone-preset.js")]
    Preset,
    #[schema(rename = "swagger-ui.css")]
    Styles,
}
