//! The events of a dry run: stored ones by id, samples out of the request, or the integration's latest.

use std::{
    net::{IpAddr, Ipv4Addr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use hookmill_actors::{
    domain::{
        config::Subscription,
        event::{Arrival, Event, Identity},
        headers::HeaderBlock,
        ids::{EndpointId, EventId},
    },
    ports::{event_log::LogError, program::Subject},
    snapshot::{Naming, Snapshot},
};
use serde_json::Value;

use crate::admin::{
    Api,
    fields::{kind, list, number, string},
    form::Form,
    json::quoted,
    problem::Problem,
};

/// Events of one dry run, at most: each may run into a deadline.
const EVENTS_MAX: usize = 20;
/// Events that are taken where the request names none.
const LATEST: usize = 10;

/// Where the events come from.
pub(super) enum Sources {
    Latest,
    Stored(Vec<EventId>),
    Samples(Vec<Sample>),
}

/// A stored event that cannot be tried.
pub(super) struct Unread {
    pub(super) id: EventId,
    pub(super) because: &'static str,
    pub(super) detail: &'static str,
}

/// An event out of the request.
pub(super) struct Sample {
    event_type: Option<String>,
    provider_id: Option<String>,
    endpoint: Option<EndpointId>,
    query: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Sources {
    /// `event_ids`, `samples`, or neither.
    pub(super) fn read(form: &mut Form) -> Option<Self> {
        let ids = form.optional(
            &["event_ids"],
            list(EVENTS_MAX, |value| {
                let text = string(value)?;
                text.parse::<EventId>().map_err(|_| format!("must be an event id; it is `{}`", quoted(&text)))
            }),
        );
        let samples = form.optional(&["samples"], list(EVENTS_MAX, Sample::read));
        match (ids, samples) {
            (Some(_), Some(_)) => {
                form.fault("samples", "and `event_ids` exclude each other; give one of them");
                None
            }
            (Some(ids), None) => Some(Self::Stored(ids)),
            (None, Some(samples)) => Some(Self::Samples(samples)),
            (None, None) => Some(Self::Latest),
        }
    }

    /// Each event as programs see it, or the id of one that cannot be read and why.
    pub(super) async fn resolve(
        self,
        api: &Api,
        subscription: &Subscription,
    ) -> Result<Vec<Result<Subject, Unread>>, Problem> {
        let integration = subscription.integration_id;
        let log = &api.tree.ports().log;
        let snapshot = api.tree.config().current();
        let ids = match self {
            Self::Samples(samples) => {
                let made = samples.into_iter().map(|sample| Ok(sample.into_subject(&snapshot, subscription)));
                return Ok(made.collect());
            }
            Self::Stored(ids) => ids,
            Self::Latest => log.latest(Some(integration), EventId::MAX, LATEST).await?,
        };
        let mut subjects = Vec::with_capacity(ids.len());
        for id in ids {
            if id.integration() != integration {
                let problem = format!("names event {id}, which is not of integration {integration}");
                return Err(Problem::member("/event_ids", problem));
            }
            subjects.push(match log.get(id).await {
                Ok(Some(event)) => Ok(subject(&snapshot, subscription, event)),
                Ok(None) => {
                    Err(Unread { id, because: "missing", detail: "does not exist, or its retention has ended" })
                }
                Err(LogError::Corrupt(id)) => Err(Unread { id, because: "corrupt", detail: "its record is damaged" }),
                Err(error) => return Err(error.into()),
            });
        }
        Ok(subjects)
    }
}

impl Sample {
    fn read(value: Value) -> Result<Self, String> {
        let mut form = Form::new(value).map_err(|problem| problem.detail)?;
        let event_type = form.optional(&["type"], string);
        let provider_id = form.optional(&["provider_id"], string);
        let endpoint = form.optional(&["endpoint_id"], number(1..=u32::MAX)).map(EndpointId);
        let query = form.optional(&["query"], string).unwrap_or_default();
        let mut headers = form.optional(&["headers"], headers).unwrap_or_default();
        let text = form.optional(&["body_text"], string);
        let json = form.clearable(&["body"], Ok).into_option();
        if text.is_some() && json.is_some() {
            form.fault("body_text", "and `body` exclude each other; give one of them");
        }
        let typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if json.is_some() && !typed {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        let body = text.or_else(|| json.map(|json| json.to_string())).unwrap_or_default().into();
        form.finish(|| Some(Self { event_type, provider_id, endpoint, query, headers, body }))
            .map_err(|problem| format!("is no sample: {}", problem.detail))
    }

    fn into_subject(self, snapshot: &Snapshot, subscription: &Subscription) -> Subject {
        let of_integration = |id: &&EndpointId| {
            let endpoint = snapshot.configuration.endpoints.get(*id);
            endpoint.is_some_and(|endpoint| endpoint.integration_id == subscription.integration_id)
        };
        let endpoint = self.endpoint.or_else(|| snapshot.configuration.endpoints.keys().find(of_integration).copied());
        let event = Event {
            id: EventId::ZERO,
            arrival: Arrival {
                endpoint: endpoint.unwrap_or(EndpointId(0)),
                received_at_ms: 0,
                accepted_version: snapshot.version(),
                peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
                hops: 0,
                query: self.query.into(),
                headers: HeaderBlock::from_lines(self.headers.iter().map(|(name, value)| (&**name, value.as_bytes()))),
                body: self.body,
            },
        };
        let mut subject = subject(snapshot, subscription, Arc::new(event));
        if let Some(event_type) = self.event_type {
            subject.identity.event_type = Some(event_type.into());
        }
        if let Some(provider_id) = self.provider_id {
            subject.identity.provider_id = Some(provider_id.into());
        }
        subject
    }
}

fn headers(value: Value) -> Result<Vec<(String, String)>, String> {
    let Value::Object(members) = value else {
        return Err(format!("must be an object of names and values; it is {}", kind(&value)));
    };
    members
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(value) => Ok((name, value)),
            other => Err(format!("has `{}`, which must be a string; it is {}", quoted(&name), kind(&other))),
        })
        .collect()
}

fn subject(snapshot: &Snapshot, subscription: &Subscription, event: Arc<Event>) -> Subject {
    let integration = subscription.integration_id;
    let name = snapshot.configuration.integrations.get(&integration).map_or("", |it| it.name.as_str());
    let naming = snapshot.namings.get(&event.arrival.endpoint).cloned();
    Subject {
        identity: naming.as_ref().map(|naming| identify(naming, &event)).unwrap_or_default(),
        integration: (integration, name.into()),
        subscription: subscription.id,
        naming,
        event,
    }
}

/// A provider that panics names nothing, as at intake.
fn identify(naming: &Naming, event: &Event) -> Identity {
    catch_unwind(AssertUnwindSafe(|| naming.provider.identify(&naming.settings, event))).unwrap_or_default()
}
