//! Endpoints as replies show them.

use hookmill_actors::domain::{
    config::{Endpoint, EndpointSecret},
    secret::Secret,
    shaping::Rate,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{RECEIVE, shown_once};
use crate::admin::{problem::Problem, redact, resource::time};

/// An endpoint as replies show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(in crate::admin) struct View {
    id: u32,
    integration_id: u32,
    name: String,
    description: Option<String>,
    path: String,
    /// Where the provider posts to, below the public address.
    url_path: String,
    active: bool,
    is_active: bool,
    verify_signature: bool,
    signature_header: Option<String>,
    #[schema(value_type = Object)]
    verification: Map<String, Value>,
    pub(in crate::admin) secrets: Vec<SecretView>,
    body_bytes_max: Option<u32>,
    /// `null`: as long as the provider sends again.
    dedup_window_s: Option<u64>,
    /// Webhooks that are accepted; `null`: all.
    rate_limit: Option<Rate>,
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookSecret)]
pub(in crate::admin) struct SecretView {
    fingerprint: String,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// An endpoint with the secret that was made for it: this once.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookWithSecret)]
pub(in crate::admin) struct Shown {
    #[serde(flatten)]
    view: View,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl Shown {
    /// With the secret, where hookmill made it.
    pub(in crate::admin) fn new(endpoint: &Endpoint, made_secret: Option<&Secret>) -> Result<Self, Problem> {
        Ok(Self { view: View::of(endpoint), secret: shown_once(made_secret)? })
    }
}

impl View {
    /// What may be shown of an endpoint at any time.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let secret = |secret: &EndpointSecret| SecretView {
            fingerprint: secret.fingerprint.clone(),
            expires_at: secret.expires_at_ms.map(time),
        };
        View {
            id: endpoint.id.0,
            integration_id: endpoint.integration_id.0,
            name: endpoint.name.clone(),
            description: endpoint.description.clone(),
            path: endpoint.path.clone(),
            url_path: format!("{RECEIVE}{}", endpoint.path),
            active: endpoint.active,
            is_active: endpoint.active,
            verify_signature: endpoint.verify_signature,
            signature_header: endpoint.signature_header.clone(),
            verification: redact::settings(&endpoint.verification),
            secrets: endpoint.secrets.iter().map(secret).collect(),
            body_bytes_max: endpoint.body_bytes_max,
            dedup_window_s: endpoint.dedup_window_s,
            rate_limit: endpoint.rate_limit,
            version: endpoint.meta.version,
            created_at: time(endpoint.meta.created_at_ms),
            updated_at: time(endpoint.meta.updated_at_ms),
        }
    }
}
