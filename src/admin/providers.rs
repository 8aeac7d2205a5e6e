//! The schemes that hookmill speaks: `/api/v1/providers`. What each wants to be told, where an operator finds it, a
//! sample of what it sends, and why a signature holds or fails.

pub(super) mod doc;

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    body::Bytes,
    http::{HeaderName, StatusCode},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hookmill_actors::{domain::headers::HeaderBlock, ports::provider::Provider};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Api,
    access::State,
    fields::{kind, list, moment, object, one_of, secret, string},
    form::Form,
    json::{Json, quoted},
    problem::{Code, Problem},
    resource::{Segments, json},
};
use crate::providers::doctor::Case;

/// Header lines of a request that is to be explained.
const HEADERS_MAX: usize = 100;
/// Bytes of one header's value.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// Secrets that it may be signed with.
const SECRETS_MAX: usize = 10;
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 1..=4_096;
const SETTINGS_BYTES_MAX: usize = 16 << 10;
const METHODS: [(&str, &str); 2] = [("POST", "POST"), ("GET", "GET")];

#[derive(Serialize, ToSchema)]
#[schema(as = ProviderItem)]
struct Line {
    name: &'static str,
    summary: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ProviderList)]
struct List {
    items: Vec<Line>,
    total: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Provider)]
struct View {
    name: &'static str,
    summary: &'static str,
    /// How long it sends an event again that it got no 2xx for, seconds.
    retry_window_s: u64,
    /// An endpoint's `verification`, as a JSON Schema.
    #[schema(value_type = Value)]
    settings_schema: Value,
    guide: GuideView,
    sample: Sample,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ProviderGuide)]
struct GuideView {
    /// Where the secret is found.
    secret: &'static str,
    /// Where the endpoint's URL is entered.
    url: &'static str,
    /// The provider's own words.
    reference: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ProviderSample)]
struct Sample {
    content_type: &'static str,
    body: String,
}

/// `GET /api/v1/providers`
pub(super) async fn list_all(State(api): State<Api>) -> Result<Response, Problem> {
    let providers = api.tools.providers.names().into_iter().filter_map(|name| api.tools.providers.get(name));
    let items: Vec<Line> = providers.map(|it| Line { name: it.name(), summary: it.summary() }).collect();
    Ok(json(StatusCode::OK, &List { total: items.len(), items }))
}

/// `GET /api/v1/providers/{name}`
pub(super) async fn one(State(api): State<Api>, Segments(name): Segments<String>) -> Result<Response, Problem> {
    let provider = named(&api, &name)?;
    let guide = provider.guide();
    let (content_type, body) = provider.sample("evt_sample_1");
    let view = View {
        name: provider.name(),
        summary: provider.summary(),
        retry_window_s: provider.retry_window().as_secs(),
        settings_schema: provider.settings_schema(),
        guide: GuideView { secret: guide.secret, url: guide.url, reference: guide.reference },
        sample: Sample { content_type, body: String::from_utf8_lossy(&body).into_owned() },
    };
    Ok(json(StatusCode::OK, &view))
}

/// `POST /api/v1/providers/{name}/verify`: whether the signature of a request that is given with its secret holds, and if
/// not, why. Nothing of it is stored or logged.
pub(super) async fn verify(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    Json(body): Json,
) -> Result<Response, Problem> {
    let provider = named(&api, &name)?;
    let now_ms = api.tree.ports().clock.now_ms();
    let case = read(provider, body, now_ms)?;
    // What is wrong with what was given is told at its member.
    if let Err(error) = case.provider.verifier(&case.settings, &case.secrets) {
        let pointer = match error.field.as_str() {
            field if field.starts_with("secret") => "/secrets".to_owned(),
            field => format!("/settings/{}", field.trim_start_matches("verification.").replace('.', "/")),
        };
        return Err(Problem::member(pointer, error.problem));
    }
    Ok(json(StatusCode::OK, &api.explain(case).await?))
}

fn named(api: &Api, name: &str) -> Result<&'static dyn Provider, Problem> {
    api.tools.provider(name).map_err(|detail| Problem::new(Code::NotFound, detail))
}

fn read(provider: &'static dyn Provider, body: Value, now_ms: u64) -> Result<Case, Problem> {
    let mut form = Form::new(body)?;
    let headers = form.required(&["headers"], headers);
    let text = form.optional(&["body"], string);
    let bytes = form.optional(&["body_base64"], |value| {
        STANDARD.decode(string(value)?).map_err(|_| "must be base64 with its padding".to_owned())
    });
    if text.is_some() == bytes.is_some() {
        form.fault("body", "or `body_base64` must be given, and not both");
    }
    let one = form.optional(&["secret"], secret(SECRET_BYTES));
    let many = form.optional(&["secrets"], list(SECRETS_MAX, |value| secret(SECRET_BYTES)(value)));
    let settings = form.optional(&["settings"], object(SETTINGS_BYTES_MAX, 4)).unwrap_or_default();
    let at_ms = form.optional(&["at"], moment).unwrap_or(now_ms);
    let method = form.optional(&["method"], one_of(&METHODS)).unwrap_or("POST");
    let target = form.optional(&["target"], string).unwrap_or_else(|| "/".to_owned());
    let (headers, body) = form.finish(|| Some((headers?, text.map(String::into_bytes).or(bytes)?)))?;
    Ok(Case {
        provider,
        settings,
        secrets: one.into_iter().chain(many.unwrap_or_default()).collect(),
        former: Vec::new(),
        headers,
        body: Bytes::from(body),
        method: method.to_owned(),
        target,
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        now_ms: at_ms,
    })
}

/// An object of texts, or of lists of texts where a header comes more than once. No error repeats a value.
fn headers(value: Value) -> Result<HeaderBlock, String> {
    let Value::Object(members) = value else {
        return Err(format!("must be an object of header names and values; it is {}", kind(&value)));
    };
    let mut lines: Vec<(String, String)> = Vec::new();
    for (name, value) in members {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(format!("holds `{}`, which is no header name", quoted(&name)));
        }
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            match value {
                Value::String(text) if text.len() <= HEADER_BYTES_MAX => {
                    lines.push((name.clone(), text.trim().to_owned()));
                }
                Value::String(_) => return Err(format!("has a value of more than {HEADER_BYTES_MAX} bytes")),
                _ => return Err(format!("holds `{}`, which must be a text or a list of texts", quoted(&name))),
            }
        }
    }
    if lines.len() > HEADERS_MAX {
        return Err(format!("has {} lines; at most {HEADERS_MAX} are allowed", lines.len()));
    }
    let lines: Vec<(&str, &[u8])> = lines.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    Ok(HeaderBlock::from_lines(lines.iter().copied()))
}
