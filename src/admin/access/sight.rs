//! What a token sees of a configuration.

use std::{cell::OnceCell, collections::HashSet};

use hookmill_actors::domain::{
    config::{Configuration, ResourceKey},
    ids::{DestinationId, IntegrationId},
};

use super::{super::problem::Problem, Access, Scopes};

/// A configuration through the eyes of a token.
pub(in super::super) struct Sight<'a> {
    scopes: Option<&'a Scopes>,
    configuration: &'a Configuration,
    users: OnceCell<Users>,
}

/// Destinations, by whom they serve.
#[derive(Default)]
struct Users {
    seen: HashSet<DestinationId>,
    unseen: HashSet<DestinationId>,
}

impl<'a> Sight<'a> {
    /// Without scopes given, nothing is seen; with none in them, everything.
    pub(super) fn new(scopes: Option<&'a Scopes>, configuration: &'a Configuration) -> Self {
        Self { scopes, configuration, users: OnceCell::new() }
    }

    fn is_whole(&self) -> bool {
        self.scopes.is_some_and(Scopes::are_everything)
    }

    /// Whether an integration that is there is seen.
    pub(in super::super) fn integration(&self, id: IntegrationId) -> bool {
        let integration = self.configuration.integrations.get(&id);
        integration.zip(self.scopes).is_some_and(|(integration, scopes)| scopes.cover(integration))
    }

    /// Whether the events of an integration are seen, which may be gone itself.
    pub(in super::super) fn events_of(&self, id: IntegrationId) -> bool {
        match self.configuration.integrations.contains_key(&id) {
            true => self.integration(id),
            false => self.scopes.is_some_and(|scopes| scopes.cover_gone(id)),
        }
    }

    /// Whether it is there and seen.
    pub(in super::super) fn key(&self, key: ResourceKey) -> bool {
        match key {
            ResourceKey::Integration(id) => self.integration(id),
            ResourceKey::Endpoint(id) => {
                self.configuration.endpoints.get(&id).is_some_and(|it| self.integration(it.integration_id))
            }
            ResourceKey::Subscription(id) => {
                self.configuration.subscriptions.get(&id).is_some_and(|it| self.integration(it.integration_id))
            }
            ResourceKey::Destination(id) => {
                self.configuration.destinations.contains_key(&id)
                    && self.scopes.is_some()
                    && (self.is_whole() || self.users().seen.contains(&id) || !self.users().unseen.contains(&id))
            }
        }
    }

    /// Refuses a change of what is not seen, or of what serves others as well.
    pub(super) fn check_change(&self, key: ResourceKey, access: &Access) -> Result<(), Problem> {
        if !self.key(key) {
            return Err(Problem::not_found(key));
        }
        match key {
            ResourceKey::Destination(id) if !self.is_whole() && self.users().unseen.contains(&id) => {
                Err(access.out_of_scope("the destination serves integrations that this token is not for"))
            }
            _ => Ok(()),
        }
    }

    fn users(&self) -> &Users {
        self.users.get_or_init(|| {
            let mut users = Users::default();
            for subscription in self.configuration.subscriptions.values() {
                let side = match self.integration(subscription.integration_id) {
                    true => &mut users.seen,
                    false => &mut users.unseen,
                };
                side.insert(subscription.destination_id);
            }
            users
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hookmill_actors::domain::{
        config::{Destination, DestinationStatus, Environment, Integration, IntegrationStatus, IntegrationType, Meta},
        ids::{EventId, SubscriptionId},
        secret::Sealed,
        shaping::DestinationLimits,
    };
    use serde_json::Map;

    use super::*;
    use crate::admin::subscriptions::tests::subscription;

    fn integration(id: u32, environment: Environment) -> Integration {
        Integration {
            id: IntegrationId(id),
            name: "i".to_owned(),
            kind: IntegrationType::Custom,
            provider: "none".to_owned(),
            description: None,
            environment,
            status: IntegrationStatus::Active,
            configuration: Map::new(),
            credentials: None,
            meta: Meta::default(),
        }
    }

    fn destination(id: u32) -> Destination {
        Destination {
            id: DestinationId(id),
            name: "d".to_owned(),
            kind: "http".to_owned(),
            status: DestinationStatus::Active,
            status_reason: None,
            settings: Map::new(),
            signing_secret: Sealed("sealed".to_owned()),
            signing_fingerprint: "f".to_owned(),
            credentials: None,
            limits: DestinationLimits::default(),
            meta: Meta::default(),
        }
    }

    /// Integration 1 in production, 2 in staging. Destination 1 serves 1, 2 serves 2, 3 serves both, 4 nobody.
    fn configuration() -> Configuration {
        let mut made = Configuration::default();
        for (id, environment) in [(1, Environment::Production), (2, Environment::Staging)] {
            made.integrations.insert_mut(IntegrationId(id), Arc::new(integration(id, environment)));
        }
        for id in 1..=4 {
            made.destinations.insert_mut(DestinationId(id), Arc::new(destination(id)));
        }
        for (id, whose, to) in [(1, 1, 1), (2, 2, 2), (3, 1, 3), (4, 2, 3)] {
            let mut it = subscription(id, whose, EventId::ZERO);
            it.destination_id = DestinationId(to);
            made.subscriptions.insert_mut(SubscriptionId(id), Arc::new(it));
        }
        made
    }

    #[test]
    fn a_destination_is_seen_with_those_it_serves_and_changed_where_it_serves_no_other() {
        let configuration = configuration();
        let one = Scopes::new(["integration:1".parse().expect("a scope")]);
        let staging = Scopes::new(["environment:staging".parse().expect("a scope")]);
        let all = Scopes::default();
        for (scopes, seen, changed) in [
            (&one, [true, false, true, true, false], [true, false, false, true, false]),
            (&staging, [false, true, true, true, false], [false, true, false, true, false]),
            (&all, [true, true, true, true, false], [true, true, true, true, false]),
        ] {
            let access = access(scopes.clone());
            let sight = Sight::new(Some(scopes), &configuration);
            for (id, (seen, changed)) in (1..).zip(seen.into_iter().zip(changed)) {
                let key = ResourceKey::Destination(DestinationId(id));
                assert_eq!(sight.key(key), seen, "{scopes}: {key}");
                assert_eq!(sight.check_change(key, &access).is_ok(), changed, "{scopes}: {key}");
            }
        }
    }

    fn access(scopes: Scopes) -> Access {
        let role = crate::tokens::Role::Manager;
        Access(Arc::new(crate::tokens::Identity { id: None, name: "t".to_owned(), role, scopes, expires_at_ms: None }))
    }

    #[test]
    fn without_a_token_nothing_is_seen() {
        let configuration = configuration();
        let sight = Sight::new(None, &configuration);
        assert!(!sight.integration(IntegrationId(1)) && !sight.events_of(IntegrationId(9)));
        for key in [
            ResourceKey::Integration(IntegrationId(1)),
            ResourceKey::Destination(DestinationId(4)),
            ResourceKey::Subscription(SubscriptionId(1)),
        ] {
            assert!(!sight.key(key), "{key}");
        }
    }

    #[test]
    fn what_is_left_of_a_deleted_integration_is_seen_by_its_number_only() {
        let configuration = configuration();
        for (scope, seen) in [("integration:9", true), ("integration:8", false), ("environment:staging", false)] {
            let scopes = Scopes::new([scope.parse().expect("a scope")]);
            let sight = Sight::new(Some(&scopes), &configuration);
            assert_eq!(sight.events_of(IntegrationId(9)), seen, "{scope}");
            assert!(!sight.integration(IntegrationId(9)), "{scope}");
        }
    }
}
