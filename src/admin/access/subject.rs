//! What a path names. Every route is looked at alike, so none can forget it: a parameter is known by the name before
//! it, as `integrations/{id}`, or by its own, as `{event_id}`.

use axum::{
    extract::{RawPathParams, Request, State, rejection::RawPathParamsRejection},
    http::Method,
    middleware::Next,
    response::Response,
};
use hookmill_actors::{
    configuration::ConfigError,
    domain::{
        config::ResourceKey,
        ids::{DestinationId, EndpointId, EventId, IntegrationId, ReplayId, SubscriptionId},
    },
};

use super::{
    super::{
        Api, Shared,
        problem::{Code, Problem},
    },
    Access,
};

/// What a parameter stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Integration,
    Endpoint,
    Destination,
    Subscription,
    Event,
    Replay,
}

/// The parameters of a route that name something which belongs to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Subjects(Vec<(String, Kind)>);

impl Subjects {
    /// Of a route as axum writes it.
    pub(in super::super) fn of(route: &str) -> Self {
        let segments: Vec<&str> = route.split('/').collect();
        let mut found = Vec::new();
        for pair in segments.windows(2) {
            let Some(name) = pair[1].strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else { continue };
            let kind = match (pair[0], name) {
                (_, "event_id") | ("events", _) => Some(Kind::Event),
                ("integrations", _) | (_, "integration_id") => Some(Kind::Integration),
                ("webhooks", _) | (_, "webhook_id" | "endpoint_id") => Some(Kind::Endpoint),
                ("destinations", _) | (_, "destination_id") => Some(Kind::Destination),
                ("subscriptions", _) | (_, "subscription_id") => Some(Kind::Subscription),
                ("replays", _) => Some(Kind::Replay),
                _ => None,
            };
            found.extend(kind.map(|kind| (name.to_owned(), kind)));
        }
        // What became of an event is seen with the event, whether its subscription is still there or not.
        if found.iter().any(|(_, kind)| *kind == Kind::Event) {
            found.retain(|(_, kind)| *kind == Kind::Event);
        }
        Self(found)
    }

    /// Whether the path names nothing that belongs to anybody.
    pub(in super::super) fn are_none(&self) -> bool {
        self.0.is_empty()
    }
}

/// Knows what there is, and what a token sees of it.
pub(in super::super) trait Admits: Clone + Send + Sync + 'static {
    /// Refuses what the token does not see as what is not there, and changes of that before anybody reads them. What is
    /// only read is looked for by whoever shows it.
    fn look_at(
        &self,
        access: &Access,
        kind: Kind,
        value: &str,
        method: &Method,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
}

/// Lets a request pass whose path names only what is there and what its token sees.
pub(in super::super) async fn admit<S: Admits>(
    State((state, subjects)): State<(S, Subjects)>,
    access: Access,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let params = params.map_err(|_| no_id())?;
    for (name, kind) in &subjects.0 {
        let value = params.iter().find(|(given, _)| given == name).map(|(_, value)| value);
        state.look_at(&access, *kind, value.unwrap_or_default(), request.method()).await?;
    }
    Ok(next.run(request).await)
}

impl Admits for Shared {
    async fn look_at(&self, access: &Access, kind: Kind, value: &str, method: &Method) -> Result<(), Problem> {
        let api = Api { access: Some(access.clone()), ..self.0.clone() };
        let is_read = [Method::GET, Method::HEAD].contains(method);
        if is_read && api.sees_everything() {
            return Ok(());
        }
        let number = || value.parse::<u32>().map_err(|_| no_id());
        let key = match kind {
            Kind::Event => {
                let id: EventId = value.parse().map_err(|_| no_id())?;
                return match api.sees(id.integration()) {
                    true => Ok(()),
                    false => Err(super::super::events::gone(id)),
                };
            }
            Kind::Replay => {
                let id = ReplayId(number()?);
                let job = api.tree.ports().state.job(id).await?;
                return match job.is_some_and(|job| api.sees_replay(&job)) {
                    true => Ok(()),
                    false => Err(Problem::not_found(format!("replay {id}"))),
                };
            }
            Kind::Integration => ResourceKey::Integration(IntegrationId(number()?)),
            Kind::Endpoint => ResourceKey::Endpoint(EndpointId(number()?)),
            Kind::Destination => ResourceKey::Destination(DestinationId(number()?)),
            Kind::Subscription => ResourceKey::Subscription(SubscriptionId(number()?)),
        };
        let snapshot = api.tree.config().current();
        let sight = api.sight(&snapshot.configuration);
        // What is deleted may be restored or purged by who is for it.
        if snapshot.configuration.deleted.get(&key).is_some_and(|kept| api.sees_deleted(key, kept)) {
            return Ok(());
        }
        if is_read {
            // The history of an integration that is gone may still be read by who is for it.
            let gone = matches!(key, ResourceKey::Integration(id) if sight.events_of(id));
            return if gone || sight.key(key) { Ok(()) } else { Err(Problem::not_found(key)) };
        }
        if let ResourceKey::Integration(id) = key
            && api.sees_everything()
            && !sight.key(key)
        {
            // As long as it has versions it may be rolled back to one.
            let versions = api.tree.ports().config.versions(id, None, 1).await.map_err(ConfigError::from)?;
            return if versions.is_empty() { Err(Problem::not_found(key)) } else { Ok(()) };
        }
        sight.check_change(key, access)
    }
}

/// What is said of a path that cannot name anything.
pub(in super::super) fn no_id() -> Problem {
    Problem::new(Code::NotFound, "the path holds an id that is none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_known_by_what_stands_before_it_or_by_its_name() {
        for (route, want) in [
            ("/api/v1/integrations", vec![]),
            ("/api/v1/integrations/{id}", vec![("id", Kind::Integration)]),
            ("/api/v1/integrations/{id}/versions/{version}", vec![("id", Kind::Integration)]),
            ("/other/integrations/{integration_id}/test", vec![("integration_id", Kind::Integration)]),
            ("/api/v1/webhooks/{id}/rotate-secret", vec![("id", Kind::Endpoint)]),
            ("/api/v1/destinations/test", vec![]),
            ("/api/v1/destinations/{id}/test", vec![("id", Kind::Destination)]),
            ("/api/v1/events/{id}/body", vec![("id", Kind::Event)]),
            ("/api/v1/deadletters/{subscription_id}/{event_id}/replay", vec![("event_id", Kind::Event)]),
            ("/api/v1/replays/{id}/{command}", vec![("id", Kind::Replay)]),
            ("/api/v1/tokens/{id}", vec![]),
        ] {
            let want = want.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
            assert_eq!(Subjects::of(route), Subjects(want), "{route}");
        }
    }
}
