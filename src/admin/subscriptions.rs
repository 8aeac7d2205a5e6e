//! Subscriptions: `/api/v1/subscriptions`. Which events of an integration go to which destination, and how.

pub(super) mod doc;
mod dry_run;
mod order;
mod programs;
mod rendering;
mod retry;
mod selection;

use std::{collections::BTreeMap, ops::RangeInclusive};

use axum::{http::StatusCode, response::Response};
use hookmill_actors::domain::{
    backoff::{AGE_MAX_S, RetryPolicy},
    config::{Configuration, Meta, Subscription},
    ids::{DestinationId, EventId, IntegrationId, SubscriptionId},
    limits::IN_FLIGHT_MAX,
    order::Order,
    selection::Selection,
    shaping::Rate,
    transform::Transform,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Api,
    access::{Author, State},
    change::Changeable,
    fields::{boolean, line, number, string},
    form::{Change, Form},
    integrations::NAME_CHARS_MAX,
    json::{Json, quoted},
    merge::Merge,
    paging::{Params, Search},
    problem::Problem,
    resource::{IfMatch, Managed, reply, time},
    tools::Tools,
};

pub(super) use self::{dry_run::dry_run, programs::check};
use self::{retry::RetryPatch, selection::SelectionPatch};

#[expect(clippy::cast_possible_truncation, reason = "the bound is 256")]
const IN_FLIGHT: RangeInclusive<u16> = 1..=IN_FLIGHT_MAX as u16;

/// What a subscription gets that does not say otherwise: an operator's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionDefaults {
    /// Deliveries under way at once.
    pub in_flight_max: u16,
    /// When failed deliveries are tried again.
    pub retry: RetryPolicy,
}

/// Members of replies that a request cannot set.
pub(super) const READ_ONLY: [&str; 5] = ["id", "start_after", "version", "created_at", "updated_at"];

/// A subscription as replies show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subscription)]
pub(super) struct View {
    id: u32,
    integration_id: u32,
    destination_id: u32,
    name: String,
    active: bool,
    is_active: bool,
    in_flight_max: u16,
    retry: RetryPolicy,
    selection: Selection,
    order: Order,
    transform: Transform,
    headers: BTreeMap<String, String>,
    rate: Option<Rate>,
    expires_after_s: Option<u64>,
    /// Events up to this one are not its; `null` where it began with the first.
    start_after: Option<EventId>,
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// What a list may be narrowed by.
#[derive(Default, PartialEq)]
pub(super) struct Filter {
    search: Search,
    integration: Option<u32>,
    destination: Option<u32>,
    active: Option<bool>,
}

impl Managed for Subscription {
    const COLLECTION: &'static str = "subscriptions";
    const READ_ONLY: &'static [&'static str] = &READ_ONLY;
    type View = View;
    type Filter = Filter;

    fn filter(params: &mut Params) -> Result<Filter, Problem> {
        Ok(Filter {
            search: params.search()?,
            integration: params.id("integration_id")?,
            destination: params.id("destination_id")?,
            active: params.flag(["active", "is_active"])?,
        })
    }

    fn passes(&self, filter: &Filter, _tools: &Tools) -> bool {
        filter.integration.is_none_or(|id| self.integration_id.0 == id)
            && filter.search.finds(&self.name, None)
            && filter.destination.is_none_or(|id| self.destination_id.0 == id)
            && filter.active.is_none_or(|active| self.active == active)
    }

    fn view(&self, _tools: &Tools) -> View {
        View {
            id: self.id.0,
            integration_id: self.integration_id.0,
            destination_id: self.destination_id.0,
            name: self.name.clone(),
            active: self.active,
            is_active: self.active,
            in_flight_max: self.in_flight_max,
            retry: self.retry.clone(),
            selection: self.selection.clone(),
            order: self.order.clone(),
            transform: self.transform.clone(),
            headers: self.headers.clone(),
            rate: self.rate,
            expires_after_s: self.expires_after_s,
            start_after: (self.start_after != EventId::ZERO).then_some(self.start_after),
            version: self.meta.version,
            created_at: time(self.meta.created_at_ms),
            updated_at: time(self.meta.updated_at_ms),
        }
    }
}

/// `POST /api/v1/subscriptions`
pub(super) async fn create(
    State(api): State<Api>,
    Author(author): Author,
    Json(body): Json,
) -> Result<Response, Problem> {
    let draft = Draft::read(body, &api.subscription_defaults)?;
    let id = SubscriptionId(api.reserve::<Subscription>());
    let last = api.tree.ports().log.last_committed();
    let subscription = draft.into_subscription(id, last);
    check(&api, &subscription).await?;
    let made = api.create(&author, subscription).await?;
    Ok(reply(StatusCode::CREATED, &made, &made.view(&api.tools)))
}

impl Changeable for Subscription {
    type Patch = Patch;

    fn read_patch(body: Value) -> Result<Patch, Problem> {
        Patch::read(body)
    }

    fn merge(&self, patch: Merge, _tools: &Tools) -> Result<Merge, Problem> {
        patch
            .within("retry", "exponential", &self.retry.exponential)?
            .member("order", &self.order)?
            .member("transform", &self.transform)?
            .member("headers", &self.headers)?
            .member("rate", &self.rate)
    }

    fn patched(&self, patch: &Patch, _: &Configuration, _: &Tools) -> Result<Self, Problem> {
        patch.applied_to(self)
    }

    /// Another change at the same time was checked by whoever makes it: no text is stored that was not.
    async fn before(
        api: &Api,
        _author: &str,
        id: u32,
        _condition: &IfMatch,
        patch: &Patch,
    ) -> Result<Option<Response>, Problem> {
        check(api, &patch.applied_to(&api.find(id)?)?).await?;
        Ok(None)
    }
}

/// Where a new subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// With the next event.
    Now,
    /// With the oldest event that is still there.
    Beginning,
    /// With the first event received at that time, milliseconds since 1970.
    At(u64),
}

impl Start {
    fn read(value: Value) -> Result<Self, String> {
        let text = string(value)?;
        match text.as_str() {
            "now" => Ok(Self::Now),
            "beginning" => Ok(Self::Beginning),
            other => match other.parse::<jiff::Timestamp>().map(|time| u64::try_from(time.as_millisecond())) {
                Ok(Ok(ms)) => Ok(Self::At(ms)),
                _ => {
                    Err(format!("must be `now`, `beginning` or an RFC 3339 time since 1970; it is `{}`", quoted(other)))
                }
            },
        }
    }

    /// The id that all of the subscription's events are above.
    fn after(self, last: EventId) -> EventId {
        match self {
            Self::Now => last,
            Self::Beginning => EventId::ZERO,
            Self::At(ms) => EventId::at_millis(ms),
        }
    }
}

/// A new subscription as asked for.
pub(super) struct Draft {
    integration: IntegrationId,
    destination: DestinationId,
    name: String,
    active: bool,
    in_flight_max: u16,
    retry: RetryPolicy,
    start: Start,
    shape: Shape,
}

impl Draft {
    pub(super) fn read(body: Value, defaults: &SubscriptionDefaults) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        form.read_only(&READ_ONLY);
        let integration = form.required(&["integration_id"], number(1..=u32::MAX)).map(IntegrationId);
        let destination = form.required(&["destination_id"], number(1..=u32::MAX)).map(DestinationId);
        let name = form.required(&["name"], line(1..=NAME_CHARS_MAX));
        let active = form.optional(&["active", "is_active"], boolean).unwrap_or(true);
        let in_flight_max = form.optional(&["in_flight_max"], number(IN_FLIGHT)).unwrap_or(defaults.in_flight_max);
        let retry = RetryPatch::read(&mut form).applied_to(&defaults.retry);
        let start = form.optional(&["start"], Start::read).unwrap_or(Start::Now);
        let shape = Shape::read(&mut form);
        form.finish(|| {
            Some(Self {
                integration: integration?,
                destination: destination?,
                name: name?,
                active,
                in_flight_max,
                retry,
                start,
                shape,
            })
        })
    }

    /// One that is only tried, with the defaults for all that programs have no part in.
    fn unnamed(integration: IntegrationId, destination: DestinationId, defaults: &SubscriptionDefaults) -> Self {
        Self {
            integration,
            destination,
            name: String::new(),
            active: true,
            in_flight_max: defaults.in_flight_max,
            retry: defaults.retry.clone(),
            start: Start::Now,
            shape: Shape::default(),
        }
    }

    pub(super) fn into_subscription(self, id: SubscriptionId, last: EventId) -> Subscription {
        let subscription = Subscription {
            id,
            integration_id: self.integration,
            destination_id: self.destination,
            name: self.name,
            active: self.active,
            in_flight_max: self.in_flight_max,
            retry: self.retry,
            start_after: self.start.after(last),
            selection: Selection::default(),
            transform: Transform::default(),
            headers: BTreeMap::new(),
            order: Order::default(),
            rate: None,
            expires_after_s: None,
            meta: Meta::default(),
        };
        self.shape.applied_to(subscription)
    }
}

/// What a request says of the events that are taken and of how they are sent.
#[derive(Default)]
struct Shape {
    selection: SelectionPatch,
    order: Change<Order>,
    transform: Change<Transform>,
    headers: Change<BTreeMap<String, String>>,
    rate: Change<Rate>,
    expires_after_s: Change<u64>,
}

impl Shape {
    fn read(form: &mut Form) -> Self {
        Self {
            rate: order::read_rate(form),
            expires_after_s: form.clearable(&["expires_after_s"], number(1..=AGE_MAX_S)),
            ..Self::read_programs(form)
        }
    }

    /// Only the members that programs are in.
    fn read_programs(form: &mut Form) -> Self {
        Self {
            selection: SelectionPatch::read(form),
            order: order::read(form),
            transform: rendering::read(form),
            headers: rendering::read_headers(form),
            ..Self::default()
        }
    }

    fn applied_to(&self, mut subscription: Subscription) -> Subscription {
        self.selection.apply_to(&mut subscription.selection);
        replace(&self.order, &mut subscription.order);
        replace(&self.transform, &mut subscription.transform);
        replace(&self.headers, &mut subscription.headers);
        self.rate.apply_to(&mut subscription.rate);
        self.expires_after_s.apply_to(&mut subscription.expires_after_s);
        subscription
    }
}

/// A member whose empty form is its default.
fn replace<T: Clone + Default>(change: &Change<T>, member: &mut T) {
    match change {
        Change::Keep => {}
        Change::Clear => *member = T::default(),
        Change::Set(value) => member.clone_from(value),
    }
}

/// An update as asked for.
pub(super) struct Patch {
    integration: Option<u32>,
    destination: Option<u32>,
    name: Option<String>,
    active: Option<bool>,
    in_flight_max: Option<u16>,
    retry: RetryPatch,
    shape: Shape,
}

impl Patch {
    fn read(body: Value) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        form.read_only(&READ_ONLY);
        form.read_only(&["start"]);
        let patch = Self {
            integration: form.optional(&["integration_id"], number(1..=u32::MAX)),
            destination: form.optional(&["destination_id"], number(1..=u32::MAX)),
            name: form.optional(&["name"], line(1..=NAME_CHARS_MAX)),
            active: form.optional(&["active", "is_active"], boolean),
            in_flight_max: form.optional(&["in_flight_max"], number(IN_FLIGHT)),
            retry: RetryPatch::read(&mut form),
            shape: Shape::read(&mut form),
        };
        form.finish(|| Some(patch))
    }

    /// What shall stand. Its events stay those of its integration: their order is its position.
    fn applied_to(&self, current: &Subscription) -> Result<Subscription, Problem> {
        if self.integration.is_some_and(|id| id != current.integration_id.0) {
            return Err(Problem::member("/integration_id", "cannot be changed; create another subscription"));
        }
        let mut next = current.clone();
        if let Some(name) = &self.name {
            next.name.clone_from(name);
        }
        next.destination_id = self.destination.map_or(current.destination_id, DestinationId);
        next.active = self.active.unwrap_or(current.active);
        next.in_flight_max = self.in_flight_max.unwrap_or(current.in_flight_max);
        next.retry = self.retry.applied_to(&current.retry);
        Ok(self.shape.applied_to(next))
    }
}

#[cfg(test)]
pub(super) mod tests;
