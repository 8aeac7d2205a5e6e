//! What a token may do: its role, and the part of the configuration that it may do it to.

use std::{collections::BTreeSet, fmt, str::FromStr};

use hookmill_actors::domain::{
    config::{Environment, Integration},
    ids::IntegrationId,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::TokenId;

/// How much a token may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Makes, changes, tests, rotates, replays, discards, restarts.
    Manager,
    /// Everything: deletes integrations, governs tokens and keys too.
    Admin,
}

impl Role {
    /// Their names, with the original's spelling of the manager.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("viewer", Self::Viewer),
        ("manager", Self::Manager),
        ("admin", Self::Admin),
        ("integration_manager", Self::Manager),
    ];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Manager => "manager",
            Self::Admin => "admin",
        })
    }
}

/// A part of the configuration: an integration with all that belongs to it, or all integrations of an environment.
/// As text: `integration:7`, `environment:staging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One integration.
    Integration(IntegrationId),
    /// All that are used there, from now on too.
    Environment(Environment),
}

/// A text that is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `integration:NUMBER` or `environment:NAME` with `development`, `staging` or `production`")]
pub struct BadScope;

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integration(id) => write!(f, "integration:{}", id.0),
            Self::Environment(environment) => write!(f, "environment:{}", environment.name()),
        }
    }
}

impl FromStr for Scope {
    type Err = BadScope;

    fn from_str(text: &str) -> Result<Self, BadScope> {
        let (kind, value) = text.split_once(':').ok_or(BadScope)?;
        match kind {
            "integration" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                let id = value.parse().ok().filter(|id| *id > 0).ok_or(BadScope)?;
                Ok(Self::Integration(IntegrationId(id)))
            }
            "environment" => {
                let named = Environment::NAMES.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
                named.map(|(_, environment)| Self::Environment(environment)).ok_or(BadScope)
            }
            _ => Err(BadScope),
        }
    }
}

/// What a token is limited to; nothing named: to nothing. What any of them covers is within.
///
/// Kept as texts: in their order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// In their order, each once.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Self {
        let mut seen = BTreeSet::new();
        let mut scopes: Vec<_> = scopes.into_iter().filter(|scope| seen.insert(scope.to_string())).collect();
        scopes.sort_by_key(ToString::to_string);
        Self(scopes)
    }

    /// Whether there is no limit.
    pub fn are_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// What they are.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// Whether an integration, as it is now, is within.
    pub fn cover(&self, integration: &Integration) -> bool {
        self.cover_parts(integration.id, Some(integration.environment))
    }

    /// The same of an integration that is no longer there: its environment is not known any more.
    pub fn cover_gone(&self, integration: IntegrationId) -> bool {
        self.cover_parts(integration, None)
    }

    fn cover_parts(&self, id: IntegrationId, environment: Option<Environment>) -> bool {
        self.are_everything()
            || self.0.iter().any(|scope| match scope {
                Scope::Integration(own) => *own == id,
                Scope::Environment(own) => environment == Some(*own),
            })
    }

    /// Whether these are all among `own`, whatever is moved to another environment later.
    pub fn within(&self, own: &Self) -> bool {
        own.are_everything() || (!self.are_everything() && self.0.iter().all(|scope| own.0.contains(scope)))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.are_everything() {
            return f.write_str("everything");
        }
        f.write_str(&self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let scopes = texts.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
        scopes.map(Self::new).map_err(serde::de::Error::custom)
    }
}

/// Whose request it is, and what he may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `None`: the admin token that the start found or made.
    pub id: Option<TokenId>,
    /// The token's name: the author of what is done with it.
    pub name: String,
    /// How much.
    pub role: Role,
    /// To what.
    pub scopes: Scopes,
    /// Until when, milliseconds since 1970; `None`: until it is revoked.
    pub expires_at_ms: Option<u64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes(texts: &[&str]) -> Scopes {
        Scopes::new(texts.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn a_scope_is_one_of_two_forms() {
        for (text, shown) in [
            ("integration:7", "integration:7"),
            ("integration:007", "integration:7"),
            ("environment:STAGING", "environment:staging"),
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "integration",
            "integration:",
            "integration:0",
            "integration:+7",
            "integration:4294967296",
            "integration:7 ",
            "environment:",
            "environment:test",
            "destination:1",
            "Integration:7",
            "7",
            "*",
        ] {
            assert_eq!(wrong.parse::<Scope>(), Err(BadScope), "{wrong}");
        }
    }

    #[test]
    fn roles_are_in_order() {
        assert!(Role::Viewer < Role::Manager && Role::Manager < Role::Admin);
        for (name, role) in &Role::NAMES[..3] {
            assert_eq!(role.to_string(), *name);
            assert_eq!(serde_json::to_value(role).unwrap(), *name);
        }
    }

    #[test]
    fn nobody_has_more_than_everything_and_a_part_is_no_whole() {
        let (all, staging, both) =
            (scopes(&[]), scopes(&["environment:staging"]), scopes(&["environment:staging", "integration:3"]));
        for (wanted, own, within) in [
            (&all, &all, true),
            (&staging, &all, true),
            (&all, &staging, false),
            (&staging, &both, true),
            (&both, &staging, false),
            (&scopes(&["integration:4"]), &staging, false),
        ] {
            assert_eq!(wanted.within(own), within, "{wanted} within {own}");
        }
    }

    fn any_scope() -> impl Strategy<Value = Scope> {
        prop_oneof![
            (1u32..6).prop_map(|id| Scope::Integration(IntegrationId(id))),
            (0usize..3).prop_map(|index| Scope::Environment(Environment::NAMES[index].1)),
        ]
    }

    proptest! {
        #[test]
        fn texts_come_back_as_they_were(given in proptest::collection::vec(any_scope(), 0..8)) {
            let made = Scopes::new(given);
            let read: Scopes = serde_json::from_str(&serde_json::to_string(&made).unwrap()).unwrap();
            prop_assert_eq!(read, made);
        }

        /// Whoever makes a token gives away nothing that he does not have himself.
        #[test]
        fn what_is_within_covers_no_more(
            wanted in proptest::collection::vec(any_scope(), 0..4), own in proptest::collection::vec(any_scope(), 0..4),
            id in 1u32..6, environment in 0usize..3,
        ) {
            let (wanted, own) = (Scopes::new(wanted), Scopes::new(own));
            let (id, environment) = (IntegrationId(id), Environment::NAMES[environment].1);
            prop_assume!(wanted.within(&own));
            prop_assert!(!wanted.cover_parts(id, Some(environment)) || own.cover_parts(id, Some(environment)));
            prop_assert!(!wanted.cover_gone(id) || own.cover_gone(id));
        }
    }
}
