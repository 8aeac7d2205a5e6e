//! Checks a stored request's signature again, as of the time it came and with the secrets of now, and explains it.

use std::net::IpAddr;

use axum::body::Bytes;
use hookmill_actors::{
    domain::{
        config::{Endpoint, Integration},
        headers::{HeaderBlock, REDACTED},
    },
    ports::{
        provider::{Refusal, SettingsError},
        sealer::Owner,
    },
    snapshot::effective_settings,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    problem::{Code, Problem},
    resource::time,
};
use crate::providers::doctor::{Case, Diagnosis, Former};

/// Larger bodies are hashed once, not once for every guess: a scheme with many settings has some thousand of them.
const GUESS_BODY_BYTES_MAX: usize = 32 << 10;
/// Explanations at once: one may take a processor for a second.
pub(super) const EXPLANATIONS_MAX: usize = 1;

/// A request as it was stored.
pub(super) struct Facts {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderBlock,
    pub(super) body: Bytes,
    pub(super) peer: IpAddr,
    /// When it came, milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// What was found out about a signature, for people and scripts.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Verification {
    provider: &'static str,
    /// The time that it was checked as of.
    #[schema(format = DateTime)]
    as_of: String,
    /// Whether the signature holds.
    pub(super) holds: bool,
    /// Which secret it was made with, where there are several kinds of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    with: Option<String>,
    /// When it says it was signed.
    #[schema(format = DateTime)]
    signed_at: Option<String>,
    /// Why it fails: `missing`, `repeated`, `malformed`, `timestamp`, `mismatch`.
    reason: Option<&'static str>,
    /// The same in words.
    detail: Option<String>,
    /// What explains it, most likely first.
    likely: Vec<String>,
}

impl Verification {
    pub(super) fn of(case: &Case, mut diagnosis: Diagnosis) -> Self {
        let unknown = case.headers.iter().filter(|(_, value)| *value == REDACTED).map(|(name, _)| name);
        if diagnosis.verdict.is_err() {
            diagnosis.causes.extend(unknown.map(|name| {
                format!(
                    "the value of `{name}` was not stored (setting `log.redacted_headers`): what it proves is not known"
                )
            }));
        }
        let refusal = diagnosis.verdict.as_ref().err();
        Self {
            provider: case.provider.name(),
            as_of: time(case.now_ms),
            holds: diagnosis.verdict.is_ok(),
            with: diagnosis.verdict.as_ref().ok().map(|it| case.which_secret(*it)).filter(|it| !it.is_empty()),
            signed_at: diagnosis.signed_at_s.map(|seconds| time(seconds.saturating_mul(1_000))),
            reason: refusal.map(Refusal::reason),
            detail: refusal.map(ToString::to_string),
            likely: diagnosis.causes,
        }
    }
}

impl Api {
    /// The endpoint's check of a request, with the secrets that are active now or were at that time.
    pub(super) fn case(&self, integration: &Integration, endpoint: &Endpoint, facts: Facts) -> Result<Case, Problem> {
        let provider =
            self.tools.provider(&integration.provider).map_err(|detail| Problem::new(Code::Conflict, detail))?;
        let (mut secrets, mut former) = (Vec::new(), Vec::new());
        for stored in &endpoint.secrets {
            let opened = self.tools.sealer.open(Owner::EndpointSecret(endpoint.integration_id), &stored.sealed);
            match stored.expires_at_ms.filter(|ended_ms| *ended_ms <= facts.at_ms) {
                Some(ended_ms) => former.extend(opened.ok().map(|secret| Former { secret, ended_ms })),
                None => secrets.push(opened.map_err(|error| Problem::internal(&error))?),
            }
        }
        Ok(Case {
            provider,
            settings: effective_settings(endpoint),
            secrets,
            former,
            headers: facts.headers,
            body: facts.body,
            method: facts.method,
            target: facts.target,
            peer: facts.peer,
            now_ms: facts.at_ms,
        })
    }

    /// Finds out whether a signature holds, and if not, why.
    pub(super) async fn explain(&self, case: Case) -> Result<Verification, Problem> {
        let busy = || Problem::new(Code::Busy, "another signature is being explained; try again shortly");
        let place = self.explanations.clone().try_acquire_owned().map_err(|_| busy())?;
        let work = tokio::task::spawn_blocking(move || {
            let diagnosis = case.diagnose(GUESS_BODY_BYTES_MAX).map(|diagnosis| Verification::of(&case, diagnosis));
            drop(place);
            diagnosis
        });
        work.await.map_err(|error| Problem::internal(&error))?.map_err(|error| misfit(&error))
    }
}

/// The endpoint's own settings do not work: nothing that the request at hand could change.
pub(super) fn misfit(error: &SettingsError) -> Problem {
    Problem::new(Code::Conflict, format!("the signature cannot be checked with the settings as they are: {error}"))
}
