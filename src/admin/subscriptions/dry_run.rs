//! `POST /api/v1/subscriptions/dry_run`: what a subscription would do with events, without storing or sending anything.

mod samples;

use std::sync::Arc;

use axum::{http::StatusCode, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use hookmill_actors::{
    domain::{
        config::Subscription,
        event::Event,
        ids::{DestinationId, EventId, IntegrationId, SubscriptionId},
        selection::Selection,
    },
    ports::program::{ProgramFault, Rendered, Selected, Subject},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use self::samples::{Sources, Unread};
use super::{
    Draft, Shape,
    programs::{Compiled, compile},
};
use crate::admin::{Api, access::State, fields::number, form::Form, json::Json, problem::Problem, resource::json};

/// Bytes of a rendered body that are shown.
const SHOWN_BYTES_MAX: usize = 64 << 10;

#[derive(Serialize, ToSchema)]
#[schema(as = DryRun)]
pub(super) struct View {
    items: Vec<Item>,
}

/// What becomes of one event.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = DryRunItem)]
struct Item {
    /// `null` for a sample.
    event_id: Option<EventId>,
    event_type: Option<String>,
    selected: bool,
    /// Why it is not: `type`, `filter`, `fault`, or, where it cannot be read, `missing` or
    /// `corrupt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'static str>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The order key, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// What would be sent, where it is not the arrival as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    rendered: Option<RenderedView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rendered)]
struct RenderedView {
    /// `null`: the arrival's.
    content_type: Option<String>,
    headers: Vec<HeaderView>,
    /// The body, where it is UTF-8.
    body: Option<String>,
    /// The body, where it is not.
    body_base64: Option<String>,
    /// Bytes of the whole body; no more than the beginning is shown.
    size: usize,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RenderedHeader)]
struct HeaderView {
    name: String,
    value: String,
}

/// The handler.
pub(in crate::admin) async fn dry_run(State(api): State<Api>, Json(body): Json) -> Result<Response, Problem> {
    let Request { subscription, integration, shape, sources } = Request::read(body)?;
    let base = match subscription {
        Some(id) => {
            let found = api.find::<Subscription>(id)?;
            if integration.is_some_and(|id| id != found.integration_id) {
                return Err(Problem::member("/integration_id", "is not the subscription's; leave it out"));
            }
            found
        }
        None => unsaved(integration.unwrap_or(IntegrationId(0)), &api)?,
    };
    let tried = shape.applied_to(base);
    let compiled = Arc::new(compile(&api, &tried).await?);
    let selection = Arc::new(tried.selection.clone());
    let mut items = Vec::new();
    for source in sources.resolve(&api, &tried).await? {
        items.push(match source {
            Ok(subject) => try_one(&compiled, &selection, subject).await,
            Err(Unread { id, because, detail }) => {
                Item { event_id: Some(id), because: Some(because), detail: Some(detail.to_owned()), ..Item::default() }
            }
        });
    }
    Ok(json(StatusCode::OK, &View { items }))
}

/// A subscription that is tried before it is made.
fn unsaved(integration: IntegrationId, api: &Api) -> Result<Subscription, Problem> {
    let snapshot = api.tree.config().current();
    if !api.sight(&snapshot.configuration).integration(integration) {
        return Err(Problem::member(
            "/integration_id",
            format!("names integration {integration}, which does not exist"),
        ));
    }
    let draft = Draft::unnamed(integration, DestinationId(0), &api.subscription_defaults);
    Ok(draft.into_subscription(SubscriptionId(0), EventId::ZERO))
}

struct Request {
    subscription: Option<u32>,
    integration: Option<IntegrationId>,
    shape: Shape,
    sources: Sources,
}

impl Request {
    fn read(body: Value) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        let subscription = form.optional(&["subscription_id"], number(1..=u32::MAX));
        let integration = form.optional(&["integration_id"], number(1..=u32::MAX)).map(IntegrationId);
        let shape = Shape::read_programs(&mut form);
        let sources = Sources::read(&mut form);
        if subscription.is_none() && integration.is_none() {
            form.fault("integration_id", "is missing; name it, or a `subscription_id` to begin with");
        }
        form.finish(|| Some(Self { subscription, integration, shape, sources: sources? }))
    }
}

async fn try_one(compiled: &Arc<Compiled>, selection: &Arc<Selection>, subject: Subject) -> Item {
    let event: &Event = &subject.event;
    let mut item = Item {
        event_id: (event.id != EventId::ZERO).then_some(event.id),
        event_type: subject.identity.event_type.as_deref().map(str::to_owned),
        ..Item::default()
    };
    if !selection.takes_type(subject.identity.event_type.as_deref()) {
        item.because = Some("type");
        item.detail = Some("fits none of the patterns in `selection.types`".to_owned());
        return item;
    }
    match selected(compiled, &subject).await {
        Ok(Selected::No) => {
            item.because = Some("filter");
            item.detail = Some("the filter does not hold".to_owned());
            return item;
        }
        Ok(Selected::Yes { key }) => item.key = key.map(Into::into),
        Err(ProgramFault(fault)) => return faulty(item, fault),
    }
    if let Some(transformer) = &compiled.transformer {
        match transformer.render(&subject).await {
            Ok(rendered) => item.rendered = Some(shown(rendered)),
            Err(fault) => return faulty(item, fault.to_string()),
        }
    }
    item.selected = true;
    item
}

fn faulty(item: Item, fault: String) -> Item {
    Item { because: Some("fault"), detail: Some(fault), ..item }
}

/// Off the API's one thread: an expression may work for some tens of milliseconds.
async fn selected(compiled: &Arc<Compiled>, subject: &Subject) -> Result<Selected, ProgramFault> {
    if compiled.selector.is_none() {
        return Ok(Selected::Yes { key: None });
    }
    let (compiled, subject) = (compiled.clone(), subject.clone());
    let outcome = tokio::task::spawn_blocking(move || match &compiled.selector {
        Some(selector) => selector.select(&subject),
        None => Ok(Selected::Yes { key: None }),
    });
    outcome.await.unwrap_or_else(|_| Err(ProgramFault("the expression's engine panicked".to_owned())))
}

fn shown(Rendered { content_type, headers, body }: Rendered) -> RenderedView {
    let size = body.len();
    let beginning = &body[..size.min(SHOWN_BYTES_MAX)];
    // A cut through a character leaves it out.
    let text = match std::str::from_utf8(beginning) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && size > SHOWN_BYTES_MAX => {
            std::str::from_utf8(&beginning[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    RenderedView {
        content_type,
        headers: headers.into_iter().map(|(name, value)| HeaderView { name, value }).collect(),
        body_base64: text.is_none().then(|| STANDARD.encode(beginning)),
        body: text.map(str::to_owned),
        size,
    }
}
