//! `POST /api/v1/integrations` with everything that belongs to it: a webhook endpoint, a destination and the
//! subscription between them, all made or none, as one configuration version.

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{
    configuration::Write,
    domain::{
        config::{Destination, Endpoint, Integration, IntegrationStatus, Resource, Subscription},
        ids::{DestinationId, EndpointId, IntegrationId, SubscriptionId},
    },
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    Api,
    access::{Author, State},
    destinations, integrations,
    json::Json,
    problem::Problem,
    resource::{Managed, reply},
    subscriptions, webhooks,
};

/// Members that are resources of their own, in the order they are made.
const WEBHOOK: &str = "webhook";
const DESTINATION: &str = "destination";
const SUBSCRIPTION: &str = "subscription";

#[derive(Serialize, ToSchema)]
#[schema(as = IntegrationWithParts)]
pub(super) struct Made {
    #[serde(flatten)]
    #[schema(value_type = integrations::View)]
    integration: <Integration as Managed>::View,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<webhooks::Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<destinations::Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<subscriptions::View>)]
    subscription: Option<<Subscription as Managed>::View>,
}

/// `POST /api/v1/integrations`. With `webhook` and `destination`, which take the members of their own resources, the
/// whole way of an event is made at once; `subscription` may say how it is served.
pub(super) async fn create(
    State(api): State<Api>,
    Author(author): Author,
    Json(mut body): Json,
) -> Result<Response, Problem> {
    let parts = Parts::taken_from(&mut body)?;
    let draft = integrations::Draft::read(body, &api.tools)?;
    let after_test = draft.after_test;
    let integration = draft.into_integration(IntegrationId(api.reserve::<Integration>()), &api.tools);
    let (mut writes, mut made_webhook, mut made_destination, mut subscription) = (Vec::new(), None, None, None);
    if let Some(members) = parts.webhook {
        let draft = webhooks::Draft::read(members.of(&integration)).map_err(|problem| within(WEBHOOK, problem))?;
        let (mut endpoint, secret) =
            draft.into_endpoint(&integration, &api.tools).map_err(|problem| within(WEBHOOK, problem))?;
        endpoint.id = EndpointId(api.reserve::<Endpoint>());
        made_webhook = Some((endpoint.id, secret));
        writes.push(new(endpoint));
    }
    if let Some(members) = parts.destination {
        let body = Value::Object(members.named(&integration));
        let draft = destinations::Draft::read(body, &api.tools).map_err(|problem| within(DESTINATION, problem))?;
        let (destination, secret) = draft.into_destination(DestinationId(api.reserve::<Destination>()), &api.tools);
        let mut members = parts.subscription.unwrap_or_default().of(&integration);
        members["destination_id"] = destination.id.0.into();
        let draft = subscriptions::Draft::read(members, &api.subscription_defaults)
            .map_err(|problem| within(SUBSCRIPTION, problem))?;
        let id = SubscriptionId(api.reserve::<Subscription>());
        let made = draft.into_subscription(id, api.tree.ports().log.last_committed());
        subscriptions::check(&api, &made).await.map_err(|problem| within(SUBSCRIPTION, problem))?;
        made_destination = Some((destination.id, secret));
        writes.push(new(destination));
        writes.push(new(made));
        subscription = Some(id);
    }
    let id = integration.id;
    writes.insert(0, new(integration));
    api.write(&author, writes).await??;

    let configuration = api.tree.config().current().configuration.clone();
    let gone = || Problem::internal(&"a created resource is not there");
    let integration = configuration.integrations.get(&id).ok_or_else(gone)?;
    if after_test {
        let wanted = Integration { status: IntegrationStatus::Pending, ..Integration::clone(integration) };
        integrations::held(&api, &author, integration, wanted).await?;
    }
    let made = Made {
        integration: integration.view(&api.tools),
        webhook: match made_webhook {
            Some((id, secret)) => {
                let endpoint = configuration.endpoints.get(&id).ok_or_else(gone)?;
                Some(webhooks::Shown::new(endpoint, secret.as_ref())?)
            }
            None => None,
        },
        destination: match made_destination {
            Some((id, secret)) => {
                let destination = configuration.destinations.get(&id).ok_or_else(gone)?;
                Some(destinations::Shown::new(destination, secret.as_ref(), &api.tools)?)
            }
            None => None,
        },
        subscription: subscription.and_then(|id| configuration.subscriptions.get(&id)).map(|it| it.view(&api.tools)),
    };
    Ok(reply(StatusCode::CREATED, integration.as_ref(), &made))
}

fn new<R: Managed>(resource: R) -> Write {
    let resource: Resource = resource.into_resource();
    Write { key: resource.key(), expected_version: None, resource: Some(resource) }
}

/// The members of a part.
#[derive(Default)]
struct Members(Map<String, Value>);

impl Members {
    /// With the integration's name, where the part has none of its own.
    fn named(self, integration: &Integration) -> Map<String, Value> {
        let mut members = self.0;
        members.entry("name").or_insert_with(|| integration.name.clone().into());
        members
    }

    /// As a part of the integration.
    fn of(self, integration: &Integration) -> Value {
        let mut members = self.named(integration);
        members.insert("integration_id".to_owned(), integration.id.0.into());
        Value::Object(members)
    }
}

#[derive(Default)]
struct Parts {
    webhook: Option<Members>,
    destination: Option<Members>,
    subscription: Option<Members>,
}

impl Parts {
    fn taken_from(body: &mut Value) -> Result<Self, Problem> {
        // What is no object is refused by whoever reads the integration.
        let Value::Object(body) = body else { return Ok(Self::default()) };
        let parts = Self {
            webhook: part(body, WEBHOOK)?,
            destination: part(body, DESTINATION)?,
            subscription: part(body, SUBSCRIPTION)?,
        };
        if parts.subscription.is_some() && parts.destination.is_none() {
            let detail = "needs a `destination` beside it; for one that exists, use /api/v1/subscriptions";
            return Err(Problem::member(format!("/{SUBSCRIPTION}"), detail));
        }
        Ok(parts)
    }
}

fn part(body: &mut Map<String, Value>, name: &str) -> Result<Option<Members>, Problem> {
    match body.remove(name) {
        None => Ok(None),
        Some(Value::Object(members)) => {
            for own in ["integration_id", "destination_id"] {
                if members.contains_key(own) {
                    return Err(Problem::member(format!("/{name}/{own}"), "is given by the integration that is made"));
                }
            }
            Ok(Some(Members(members)))
        }
        Some(_) => Err(Problem::member(format!("/{name}"), "must be an object with the members of its resource")),
    }
}

/// A part's faults, with pointers from the whole body's root.
fn within(name: &str, mut problem: Problem) -> Problem {
    for fault in &mut problem.faults {
        fault.pointer.insert_str(0, &format!("/{name}"));
    }
    problem
}
