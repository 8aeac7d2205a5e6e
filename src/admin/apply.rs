//! The configuration as documents. `POST /api/v1/apply` makes what they say stand, all or nothing, as one version;
//! `GET /api/v1/export` says what stands in the same form.
//!
//! Things are known by their names: integrations and destinations by theirs, webhooks and subscriptions by theirs within
//! their integration. A document is whole: a member that it leaves out has its default. What is not chosen but came to
//! be stays: a secret, a path that was made, a state that hookmill found, where a subscription began. Applied twice, a
//! document changes nothing the second time. With `prune`, what an earlier apply made and the documents no longer hold
//! is deleted; what was made by hand stays.

mod diff;
pub(super) mod doc;
mod document;
mod names;
mod plan;

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{
    configuration::{ConfigError, Write},
    domain::config::ResourceKey,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use self::{
    document::Whole,
    plan::{Entry, Plan, Summary},
};
use super::{
    Api,
    access::{Access, Author, State},
    fields::{boolean, kind, line, list},
    form::Form,
    json::Json,
    problem::{Code, Problem},
    resource::json,
};
use crate::tokens::Role;

/// Destinations or integrations of one request, and parts of one integration.
const THINGS_MAX: usize = 1_000;
/// How often a plan is made anew when others change the configuration at the same time.
const TRIES_MAX: usize = 5;
/// A plan's mark is a hash.
const MARK_CHARS_MAX: usize = 64;

/// What is wanted.
struct Wanted {
    dry_run: bool,
    prune: bool,
    /// Only what this mark's plan says.
    plan: Option<String>,
    destinations: Vec<Map<String, Value>>,
    integrations: Vec<WantedIntegration>,
}

struct WantedIntegration {
    members: Map<String, Value>,
    webhooks: Vec<Map<String, Value>>,
    subscriptions: Vec<Map<String, Value>>,
}

#[derive(Serialize, ToSchema)]
struct Applied {
    dry_run: bool,
    /// The configuration version that stands now.
    version: u64,
    /// To be given back as `plan`, so that nothing else is done than what was shown.
    plan: String,
    summary: Summary,
    changes: Vec<Entry>,
}

/// `POST /api/v1/apply`
pub(super) async fn apply(
    State(api): State<Api>,
    Author(author): Author,
    access: Access,
    Json(body): Json,
) -> Result<Response, Problem> {
    let wanted = Wanted::read(body)?;
    let mut refused = None;
    for _ in 0..TRIES_MAX {
        let mut plan = Plan::made(&api, &wanted).await?;
        let mark = plan.mark();
        if wanted.plan.as_ref().is_some_and(|wanted| *wanted != mark) {
            let detail = "something was changed since the plan was made; make it again and look at it";
            return Err(Problem::new(Code::VersionConflict, detail));
        }
        let writes = plan.take_writes();
        if !wanted.dry_run && writes.iter().any(deletes_integration) {
            access.needs(Role::Admin)?;
        }
        let config = api.tree.config();
        let done = match (writes.is_empty(), wanted.dry_run) {
            (true, _) => Ok(Vec::new()),
            (false, true) => config.check(writes).await,
            (false, false) => api.write(&author, writes).await?,
        };
        match done {
            // Somebody else was faster.
            Err(error @ (ConfigError::Conflict { .. } | ConfigError::NotFound(_))) => refused = Some(error),
            Err(error) => return Err(plan.refused(error, &config.current().configuration)),
            Ok(_) => {
                let version = config.current().version();
                let Plan { summary, entries, .. } = plan.shown(wanted.dry_run);
                let applied = Applied { dry_run: wanted.dry_run, version, plan: mark, summary, changes: entries };
                return Ok(json(StatusCode::OK, &applied));
            }
        }
    }
    Err(refused.unwrap_or(ConfigError::Unavailable).into())
}

/// What takes a role of its own on its own path, too.
fn deletes_integration(write: &Write) -> bool {
    write.resource.is_none() && matches!(write.key, ResourceKey::Integration(_))
}

/// `GET /api/v1/export`; refused where an apply could not tell things apart.
pub(super) async fn export(State(api): State<Api>) -> Result<Response, Problem> {
    let snapshot = api.tree.config().current();
    names::check_distinct(&snapshot.configuration)?;
    Ok(json(StatusCode::OK, &Whole::of(&snapshot.configuration, &api.tools)))
}

impl Wanted {
    fn read(body: Value) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        let dry_run = form.optional(&["dry_run"], boolean).unwrap_or(false);
        let prune = form.optional(&["prune"], boolean).unwrap_or(false);
        let plan = form.optional(&["plan"], line(1..=MARK_CHARS_MAX));
        let destinations = form.optional(&["destinations"], list(THINGS_MAX, members)).unwrap_or_default();
        let integrations = form.optional(&["integrations"], list(THINGS_MAX, members)).unwrap_or_default();
        let wanted = form.finish(|| Some((dry_run, prune, plan, destinations, integrations)))?;
        let (dry_run, prune, plan, destinations, integrations) = wanted;
        let integrations = integrations.into_iter().enumerate().map(|(index, mut members)| {
            let webhooks = parts(&mut members, index, "webhooks")?;
            let subscriptions = parts(&mut members, index, "subscriptions")?;
            Ok(WantedIntegration { members, webhooks, subscriptions })
        });
        let integrations = integrations.collect::<Result<Vec<_>, Problem>>()?;
        Ok(Self { dry_run, prune, plan, destinations, integrations })
    }
}

fn members(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(members) => Ok(members),
        other => Err(format!("must be an object; it is {}", kind(&other))),
    }
}

fn parts(of: &mut Map<String, Value>, index: usize, name: &str) -> Result<Vec<Map<String, Value>>, Problem> {
    match of.remove(name) {
        None => Ok(Vec::new()),
        Some(parts) => list(THINGS_MAX, members)(parts)
            .map_err(|detail| Problem::member(format!("/integrations/{index}/{name}"), detail)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_document_is_refused_with_its_place() {
        for (body, pointer) in [
            (json!([]), ""),
            (json!({"integration": []}), "/integration"),
            (json!({"integrations": {}}), "/integrations"),
            (json!({"destinations": [1]}), "/destinations"),
            (json!({"integrations": [{}, {"webhooks": 1}]}), "/integrations/1/webhooks"),
            (json!({"integrations": [{"subscriptions": [[]]}]}), "/integrations/0/subscriptions"),
            (json!({"prune": 1}), "/prune"),
        ] {
            let refused = Wanted::read(body.clone()).err().expect("it is wrong");
            assert_eq!(refused.faults[0].pointer, pointer, "{body}");
        }
        let too_many = json!({"destinations": vec![json!({}); THINGS_MAX + 1]});
        assert!(Wanted::read(too_many).is_err());
    }
}
