//! From what is wanted and what stands to the writes between them, and to what people are shown of them.

mod settle;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hookmill_actors::{
    configuration::{ConfigError, Write},
    domain::{
        config::{Configuration, Destination, Endpoint, Integration, ResourceKey, Subscription},
        ids::{DestinationId, EndpointId, IntegrationId, SubscriptionId},
    },
    snapshot::Snapshot,
};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use self::settle::SecretChange;
use super::{
    Wanted, WantedIntegration,
    diff::{self, Difference},
    document::Documented,
    names::{by_name, name, one, twice},
};
use crate::admin::{
    Api,
    problem::{Fault, Problem},
};

/// What is done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PlannedAction)]
#[serde(rename_all = "snake_case")]
pub(super) enum Deed {
    Create,
    Update,
    Delete,
    Unchanged,
}

/// A resource of a plan.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlannedChange)]
pub(super) struct Entry {
    action: Deed,
    kind: &'static str,
    name: String,
    /// Whose part it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    integration: Option<String>,
    /// `null` where it would be made.
    id: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<Difference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<SecretChange>,
    /// Secrets that hookmill made: shown this once.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    made: Map<String, Value>,
}

/// How many there are of each.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = PlanSummary)]
pub(super) struct Summary {
    create: usize,
    update: usize,
    delete: usize,
    unchanged: usize,
}

/// See the module.
pub(super) struct Plan {
    pub(super) summary: Summary,
    pub(super) entries: Vec<Entry>,
    /// What goes before anything is made, what is made, and what can only go afterwards.
    writes: [Vec<Write>; 3],
    /// What each entry was based on.
    versions: Vec<u64>,
    /// Where the documents ask for a path.
    paths: BTreeMap<String, Place>,
}

impl Plan {
    pub(super) async fn made(api: &Api, wanted: &Wanted) -> Result<Self, Problem> {
        let mut planner = Planner::new(api, wanted.dry_run);
        planner.all(wanted).await?;
        if wanted.prune {
            planner.prune();
        }
        Ok(planner.plan)
    }

    /// The same for the same deeds to the same versions.
    pub(super) fn mark(&self) -> String {
        let mut hash = Sha256::new();
        for (entry, version) in self.entries.iter().zip(&self.versions) {
            let Entry { action, kind, name, integration, .. } = entry;
            // The version is that of what stands; what is to be made has none.
            let line = serde_json::json!([action, kind, name, integration, version]).to_string();
            hash.update(line.as_bytes());
        }
        hex::encode(&hash.finalize()[..16])
    }

    pub(super) fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes).into_iter().flatten().collect()
    }

    /// Why the configuration was not changed, with the place in the documents that stands against it.
    pub(super) fn refused(&self, error: ConfigError, configuration: &Configuration) -> Problem {
        let path = match &error {
            ConfigError::Taken { by: ResourceKey::Endpoint(by), .. } => {
                configuration.endpoints.get(by).map(|it| it.path.clone())
            }
            ConfigError::Reserved { by } => {
                configuration.deleted.get(&ResourceKey::Endpoint(*by)).and_then(|kept| kept.path.clone())
            }
            _ => None,
        };
        let place = path.and_then(|path| self.paths.get(&path));
        let problem = Problem::from(error);
        match place {
            Some(place) => Problem { faults: within(&place.pointer(), problem.clone()).faults, ..problem },
            None => problem,
        }
    }

    /// Without what only would be: the numbers and secrets of things that a dry run does not make.
    pub(super) fn shown(mut self, dry_run: bool) -> Self {
        for entry in self.entries.iter_mut().filter(|_| dry_run) {
            entry.made = Map::new();
            if entry.action == Deed::Create {
                entry.id = None;
            }
        }
        self
    }

    fn add(&mut self, entry: Entry, version: u64) {
        let count = match entry.action {
            Deed::Create => &mut self.summary.create,
            Deed::Update => &mut self.summary.update,
            Deed::Delete => &mut self.summary.delete,
            Deed::Unchanged => &mut self.summary.unchanged,
        };
        *count += 1;
        self.entries.push(entry);
        self.versions.push(version);
    }
}

/// Members that are secrets.
const SECRETS: [&str; 3] = ["secret", "signing_secret", "credentials"];

/// Goes through what is wanted.
struct Planner<'a> {
    api: &'a Api,
    dry_run: bool,
    /// The number last given to what a dry run would make.
    provisional: u32,
    snapshot: Arc<Snapshot>,
    plan: Plan,
    /// What stands, with the destinations of the documents.
    after: Configuration,
    integrations: BTreeMap<String, Vec<IntegrationId>>,
    destinations: BTreeMap<String, Vec<DestinationId>>,
    webhooks: BTreeMap<(IntegrationId, String), Vec<EndpointId>>,
    subscriptions: BTreeMap<(IntegrationId, String), Vec<SubscriptionId>>,
    /// Everything that the documents hold, or that goes already.
    seen: BTreeSet<ResourceKey>,
    /// The destinations of the documents.
    named: BTreeMap<String, DestinationId>,
    now_ms: u64,
}

/// Which part of an integration.
#[derive(Clone, Copy)]
struct Place {
    integration: usize,
    collection: &'static str,
    index: usize,
}

impl<'a> Planner<'a> {
    fn new(api: &'a Api, dry_run: bool) -> Self {
        let snapshot = api.tree.config().current();
        let all = &snapshot.configuration;
        let part = |integration, name: &String| (integration, name.clone());
        let plan = Plan {
            summary: Summary::default(),
            entries: Vec::new(),
            writes: [const { Vec::new() }; 3],
            versions: Vec::new(),
            paths: BTreeMap::new(),
        };
        Self {
            integrations: by_name(all.integrations.values().map(|it| (it.name.clone(), it.id))),
            destinations: by_name(all.destinations.values().map(|it| (it.name.clone(), it.id))),
            webhooks: by_name(all.endpoints.values().map(|it| (part(it.integration_id, &it.name), it.id))),
            subscriptions: by_name(all.subscriptions.values().map(|it| (part(it.integration_id, &it.name), it.id))),
            after: Configuration::clone(all),
            api,
            plan,
            dry_run,
            provisional: u32::MAX,
            seen: BTreeSet::new(),
            named: BTreeMap::new(),
            now_ms: api.tree.ports().clock.now_ms(),
            snapshot,
        }
    }

    /// The number of what stands, or one for what is new. A dry run uses none up: it takes them from the other end.
    fn number<R: Documented>(&mut self, current: Option<&R>) -> u32 {
        match (current, self.dry_run) {
            (Some(current), _) => current.id(),
            (None, false) => self.api.reserve::<R>(),
            (None, true) => {
                self.provisional -= 1;
                self.provisional
            }
        }
    }

    fn configuration(&self) -> &Configuration {
        &self.snapshot.configuration
    }

    async fn all(&mut self, wanted: &Wanted) -> Result<(), Problem> {
        for (index, members) in wanted.destinations.iter().enumerate() {
            self.destination(members.clone()).map_err(|problem| within(&format!("/destinations/{index}"), problem))?;
        }
        let mut names = BTreeSet::new();
        for (index, wanted) in wanted.integrations.iter().enumerate() {
            let at = format!("/integrations/{index}");
            self.integration(index, wanted, &mut names).await.map_err(|problem| match problem.faults.is_empty() {
                // The parts have said where they are.
                false if problem.faults[0].pointer.starts_with("/integrations/") => problem,
                _ => within(&at, problem),
            })?;
        }
        Ok(())
    }

    fn destination(&mut self, members: Map<String, Value>) -> Result<(), Problem> {
        let name = name(&members)?;
        if self.named.contains_key(&name) {
            return Err(twice("destination"));
        }
        let id = one(self.destinations.get(&name), "destinations", &name)?;
        let current = id.and_then(|id| self.configuration().destinations.get(&id).cloned());
        let number = self.number::<Destination>(current.as_deref());
        let settled = settle::destination(self.api, members, current.as_deref(), number)?;
        self.named.insert(name, settled.next.id);
        self.after.destinations.insert_mut(settled.next.id, Arc::new(settled.next.clone()));
        self.settle(current.as_deref(), settled, None);
        Ok(())
    }

    async fn integration(
        &mut self,
        index: usize,
        wanted: &WantedIntegration,
        names: &mut BTreeSet<String>,
    ) -> Result<(), Problem> {
        let name = name(&wanted.members)?;
        if !names.insert(name.clone()) {
            return Err(twice("integration"));
        }
        let id = one(self.integrations.get(&name), "integrations", &name)?;
        let current = id.and_then(|id| self.configuration().integrations.get(&id).cloned());
        let number = self.number::<Integration>(current.as_deref());
        let settled = settle::integration(self.api, wanted.members.clone(), current.as_deref(), number)?;
        let integration = settled.next.clone();
        self.settle(current.as_deref(), settled, None);

        let mut seen = BTreeSet::new();
        for (part, members) in wanted.webhooks.iter().enumerate() {
            let place = Place { integration: index, collection: "webhooks", index: part };
            self.webhook(&integration, place, members.clone(), &mut seen)
                .map_err(|problem| within(&place.pointer(), problem))?;
        }
        seen.clear();
        for (part, members) in wanted.subscriptions.iter().enumerate() {
            let place = Place { integration: index, collection: "subscriptions", index: part };
            let done = self.subscription(&integration, members.clone(), &mut seen).await;
            done.map_err(|problem| within(&place.pointer(), problem))?;
        }
        Ok(())
    }

    fn webhook(
        &mut self,
        integration: &Integration,
        place: Place,
        members: Map<String, Value>,
        seen: &mut BTreeSet<String>,
    ) -> Result<(), Problem> {
        let name = name(&members)?;
        if !seen.insert(name.clone()) {
            return Err(twice("webhook"));
        }
        let found = self.webhooks.get(&(integration.id, name.clone()));
        let id = one(found, "webhooks of this integration", &name)?;
        let current = id.and_then(|id| self.configuration().endpoints.get(&id).cloned());
        let number = self.number::<Endpoint>(current.as_deref());
        let settled = settle::webhook(self.api, integration, members, current.as_deref(), number, self.now_ms)?;
        if self.plan.paths.insert(settled.next.path.clone(), place).is_some() {
            return Err(Problem::member("/path", "is that of another webhook of the documents, too"));
        }
        self.settle(current.as_deref(), settled, Some(&integration.name));
        Ok(())
    }

    async fn subscription(
        &mut self,
        integration: &Integration,
        members: Map<String, Value>,
        seen: &mut BTreeSet<String>,
    ) -> Result<(), Problem> {
        let name = name(&members)?;
        if !seen.insert(name.clone()) {
            return Err(twice("subscription"));
        }
        let found = self.subscriptions.get(&(integration.id, name.clone()));
        let id = one(found, "subscriptions of this integration", &name)?;
        let current = id.and_then(|id| self.configuration().subscriptions.get(&id).cloned());
        let number = self.number::<Subscription>(current.as_deref());
        let destination = self.destination_of(&members)?;
        let settled =
            settle::subscription(self.api, integration, destination, members, current.as_deref(), number).await?;
        self.settle(current.as_deref(), settled, Some(&integration.name));
        Ok(())
    }

    /// The destination that a subscription names: one of the documents, or one that stands.
    fn destination_of(&self, members: &Map<String, Value>) -> Result<DestinationId, Problem> {
        let Some(Value::String(name)) = members.get("destination") else {
            return Err(Problem::member("/destination", "is missing or no string; it is a destination's name"));
        };
        if let Some(id) = self.named.get(name) {
            return Ok(*id);
        }
        one(self.destinations.get(name), "destinations", name)?.ok_or_else(|| {
            Problem::member("/destination", "names no destination of the documents, nor one that stands")
        })
    }

    /// Takes over what was settled of one resource.
    fn settle<R: Documented>(&mut self, current: Option<&R>, settled: settle::Settled<R>, part_of: Option<&str>) {
        let settle::Settled { next, secrets, made } = settled;
        let key = R::key(next.id());
        self.seen.insert(key);
        let action = match current {
            None => Deed::Create,
            Some(current) if *current == next => Deed::Unchanged,
            Some(_) => Deed::Update,
        };
        let document = |resource: &R| {
            let mut document = resource.document(&self.after, &self.api.tools);
            // They are told apart, and only by what becomes of them.
            document.retain(|name, _| !SECRETS.contains(&name.as_str()));
            document
        };
        let entry = Entry {
            action,
            kind: R::KIND_NAME,
            name: next.name().to_owned(),
            integration: part_of.map(str::to_owned),
            id: Some(next.id()),
            members: diff::between(&current.map(document).unwrap_or_default(), &document(&next)),
            secrets,
            made,
        };
        let version = current.map(|current| current.meta().version);
        if action != Deed::Unchanged {
            let write = Write { key, expected_version: version, resource: Some(next.into_resource()) };
            self.plan.writes[1].push(write);
        }
        self.plan.add(entry, version.unwrap_or_default());
    }

    /// What an earlier apply made and nothing holds any more.
    fn prune(&mut self) {
        let snapshot = self.snapshot.clone();
        let configuration = &snapshot.configuration;
        let owner = |id: IntegrationId| configuration.integrations.get(&id).map(|it| it.name.clone());
        let goes: BTreeSet<IntegrationId> = configuration
            .integrations
            .values()
            .filter(|it| it.meta.applied && !self.seen.contains(&ResourceKey::Integration(it.id)))
            .map(|it| it.id)
            .collect();
        // An integration takes all of its parts along, those too that were made by hand: they are told.
        for subscription in configuration.subscriptions.values() {
            let with_it = goes.contains(&subscription.integration_id);
            self.remove::<Subscription>(subscription, owner(subscription.integration_id), with_it, 0);
        }
        for endpoint in configuration.endpoints.values() {
            let with_it = goes.contains(&endpoint.integration_id);
            self.remove::<Endpoint>(endpoint, owner(endpoint.integration_id), with_it, 0);
        }
        for integration in configuration.integrations.values() {
            self.remove::<Integration>(integration, None, false, 0);
        }
        // The subscriptions that left a destination have left it by then.
        for destination in configuration.destinations.values() {
            self.remove::<Destination>(destination, None, false, 2);
        }
    }

    fn remove<R: Documented>(&mut self, resource: &R, integration: Option<String>, in_any_case: bool, when: usize) {
        let key = R::key(resource.id());
        if !(in_any_case || resource.meta().applied) || self.seen.contains(&key) {
            return;
        }
        let version = resource.meta().version;
        self.plan.writes[when].push(Write { key, expected_version: Some(version), resource: None });
        let entry = Entry {
            action: Deed::Delete,
            kind: R::KIND_NAME,
            name: resource.name().to_owned(),
            integration,
            id: Some(resource.id()),
            members: Vec::new(),
            secrets: Vec::new(),
            made: Map::new(),
        };
        self.plan.add(entry, version);
    }
}

impl Place {
    fn pointer(self) -> String {
        format!("/integrations/{}/{}/{}", self.integration, self.collection, self.index)
    }
}

/// A part's faults, with pointers from the whole body's root.
fn within(at: &str, problem: Problem) -> Problem {
    if problem.faults.is_empty() {
        return Problem { detail: format!("`{at}`: {}", problem.detail), ..problem };
    }
    let moved = |fault: Fault| Fault { pointer: format!("{at}{}", fault.pointer), detail: fault.detail };
    let faults: Vec<Fault> = problem.faults.into_iter().map(moved).collect();
    let Problem { detail, faults, .. } = Problem::members(faults);
    Problem { detail, faults, ..Problem::new(problem.code, "") }
}
