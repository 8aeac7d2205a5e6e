//! What the token of a request may do and see. Here is the one place that decides it:
//!
//! - [`super::table`] asks for the role, and refuses tokens with scopes wherever nobody has said that scopes are heeded;
//! - [`admit`] looks at what a path names, for every route alike: what a token does not see is not there;
//! - [`Api::find`] and [`Api::write`] look at what a body names;
//! - lists show what [`Sight`] sees.
//!
//! What belongs to one integration (webhooks, subscriptions, events, dead letters, replays, versions, activities, flow)
//! is seen with it. A destination may serve several: it is seen where it serves an integration that is seen, or nobody
//! yet, and changed only where it serves no other. What tells of everything at once (metrics) needs a token for
//! everything.

mod sight;
mod subject;

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::request::Parts,
};
use hookmill_actors::{
    configuration::{ConfigError, Write},
    domain::{
        activity::RecordedActivity,
        config::{Change, Configuration, Integration, Resource, ResourceKey},
        ids::{EventId, IntegrationId},
        replay::{DeadLetterFilter, ReplayJob, ReplayQuery},
    },
};

#[cfg(test)]
pub(super) use self::subject::Kind;
pub(super) use self::{
    sight::Sight,
    subject::{Admits, Subjects, admit, no_id},
};
use super::{
    Api, Shared, comment,
    problem::{Code, Problem},
};
use crate::tokens::{Identity, Role, Scopes};

/// Whose request it is; behind an open path there is none.
#[derive(Clone, Debug)]
pub(super) struct Access(pub(super) Arc<Identity>);

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let access = parts.extensions.get::<Self>().cloned();
        access.ok_or_else(|| Problem::internal(&"a handler that needs a token is behind an open path"))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Access {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

impl Access {
    /// Refuses tokens whose role is below.
    pub(super) fn needs(&self, role: Role) -> Result<(), Problem> {
        let Identity { name, role: own, .. } = &*self.0;
        if *own >= role {
            return Ok(());
        }
        let Some(code) = refusal_of(role) else { return Ok(()) };
        Err(Problem::new(code, format!("this needs a token with role `{role}`; `{name}` has role `{own}`")))
    }

    /// Refuses tokens that are limited to a part of the configuration.
    pub(super) fn needs_everything(&self) -> Result<(), Problem> {
        if self.0.scopes.are_everything() {
            return Ok(());
        }
        Err(self.out_of_scope("this concerns everything and needs a token without scopes"))
    }

    fn out_of_scope(&self, why: &str) -> Problem {
        let Identity { name, scopes, .. } = &*self.0;
        Problem::new(Code::OutOfScope, format!("{why}; `{name}` is for {scopes}"))
    }
}

/// What a token hears whose role is below this one; there is none below the lowest.
pub(super) fn refusal_of(role: Role) -> Option<Code> {
    match role {
        Role::Viewer => None,
        Role::Manager => Some(Code::ManagerRoleNeeded),
        Role::Admin => Some(Code::AdminRoleNeeded),
    }
}

/// Who made the request, for the audit log.
pub(super) struct Author(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Author {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Access(identity) = <Access as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        Ok(Self(identity.name.clone()))
    }
}

/// The API as the token of the request may use it. Takes the place of axum's `State`, which would not know whose the
/// request is, and with which no handler of the API compiles.
pub(super) struct State<T>(pub(super) T);

impl FromRequestParts<Shared> for State<Api> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, Shared(api): &Shared) -> Result<Self, Infallible> {
        Ok(Self(Api { access: parts.extensions.get::<Access>().cloned(), ..api.clone() }))
    }
}

impl Api {
    /// What the token of the request is limited to; `None` without a token, which sees nothing.
    fn scopes(&self) -> Option<&Scopes> {
        self.access.as_ref().map(|Access(identity)| &identity.scopes)
    }

    /// Whether the token of the request sees everything there is.
    pub(super) fn sees_everything(&self) -> bool {
        self.scopes().is_some_and(Scopes::are_everything)
    }

    /// Whether the token of the request is still good: for replies that take long.
    pub(super) fn is_still_admitted(&self) -> bool {
        self.access.as_ref().is_some_and(|Access(identity)| self.tokens.is_good(identity))
    }

    /// What the token of the request sees of a configuration.
    pub(super) fn sight<'a>(&'a self, configuration: &'a Configuration) -> Sight<'a> {
        Sight::new(self.scopes(), configuration)
    }

    /// Whether it sees an integration with its events, or what is left of them.
    pub(super) fn sees(&self, integration: IntegrationId) -> bool {
        self.sees_everything() || self.sight(&self.tree.config().current().configuration).events_of(integration)
    }

    /// Whether it sees an entry of the audit log: what concerns no integration is for those who see everything.
    pub(super) fn sees_activity(&self, entry: &RecordedActivity) -> bool {
        self.sees_everything() || entry.activity.integration.is_some_and(|integration| self.sees(integration))
    }

    /// Where a list goes on after an event that the token of the request may not know.
    pub(super) fn place_of(&self, event: EventId) -> EventId {
        match self.sees(event.integration()) {
            true => event,
            false => EventId::from_parts(event.sequence(), IntegrationId(0), 0),
        }
    }

    /// Whether it sees a replay.
    pub(super) fn sees_replay(&self, job: &ReplayJob) -> bool {
        if self.sees_everything() {
            return true;
        }
        let snapshot = self.tree.config().current();
        let sight = self.sight(&snapshot.configuration);
        match &job.query {
            ReplayQuery::Events(filter) => sight.events_of(filter.integration),
            ReplayQuery::DeadLetters(DeadLetterFilter { integration: Some(id), .. }) => sight.events_of(*id),
            ReplayQuery::DeadLetters(DeadLetterFilter { subscription: Some(id), .. }) => {
                sight.key(ResourceKey::Subscription(*id))
            }
            ReplayQuery::DeadLetters(_) => false,
        }
    }

    /// Refuses dead letters of others: what is done to many at once must name an integration or a subscription.
    pub(super) fn must_see_letters(&self, filter: &DeadLetterFilter) -> Result<(), Problem> {
        if let Some(subscription) = filter.subscription {
            self.must_see("/query/subscription_id", ResourceKey::Subscription(subscription))?;
        }
        if let Some(integration) = filter.integration.filter(|id| !self.sees(*id)) {
            return Err(missing("/query/integration_id", ResourceKey::Integration(integration)));
        }
        match (&self.access, filter.subscription.is_some() || filter.integration.is_some()) {
            (Some(access), false) if !self.sees_everything() => {
                Err(access.out_of_scope("`query` must name an `integration_id` or a `subscription_id`"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a member that names what the token of the request does not see, in the words for what is not there.
    /// Where the token sees everything, whoever needs it looks for himself.
    pub(super) fn must_see(&self, pointer: &str, key: ResourceKey) -> Result<(), Problem> {
        let snapshot = self.tree.config().current();
        match self.sees_everything() || self.sight(&snapshot.configuration).key(key) {
            true => Ok(()),
            false => Err(missing(pointer, key)),
        }
    }

    /// Refuses an integration that would be outside of the token's scopes as it is to stand.
    pub(super) fn must_cover(&self, integration: &Integration) -> Result<(), Problem> {
        match &self.access {
            Some(access) if !access.0.scopes.cover(integration) => {
                Err(access.out_of_scope("the integration would be one that this token is not for"))
            }
            Some(_) => Ok(()),
            None => Err(Problem::internal(&"a write without a token")),
        }
    }

    /// The only way to change the configuration: all of it or nothing, with the request's comment. Refuses what lies outside of the token's scopes;
    /// the inner result is the configuration's answer.
    pub(super) async fn write(
        &self,
        author: &str,
        writes: Vec<Write>,
    ) -> Result<Result<Vec<Change>, ConfigError>, Problem> {
        if !self.sees_everything() {
            self.check_writes(&writes, &self.tree.config().current().configuration)?;
        }
        Ok(self.tree.config().write_as(comment::origin(author), writes).await)
    }

    fn check_writes(&self, writes: &[Write], configuration: &Configuration) -> Result<(), Problem> {
        let sight = self.sight(configuration);
        let Some(access) = &self.access else { return Err(Problem::internal(&"a write without a token")) };
        // What these writes make is seen by them.
        let made = |key| writes.iter().any(|write| write.key == key && write.expected_version.is_none());
        for write in writes {
            if write.expected_version.is_some() {
                sight.check_change(write.key, access)?;
            }
            match &write.resource {
                Some(Resource::Integration(integration)) => self.must_cover(integration)?,
                Some(Resource::Endpoint(endpoint)) => {
                    let integration = ResourceKey::Integration(endpoint.integration_id);
                    if !made(integration) && !sight.key(integration) {
                        return Err(missing("/integration_id", integration));
                    }
                }
                Some(Resource::Subscription(subscription)) => {
                    for (pointer, key) in [
                        ("/integration_id", ResourceKey::Integration(subscription.integration_id)),
                        ("/destination_id", ResourceKey::Destination(subscription.destination_id)),
                    ] {
                        if !made(key) && !sight.key(key) {
                            return Err(missing(pointer, key));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The words for a member that names what is not there.
fn missing(pointer: &str, key: ResourceKey) -> Problem {
    Problem::member(pointer, format!("names {key}, which does not exist"))
}
