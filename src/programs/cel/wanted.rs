//! What an expression looks at, so that nothing else is made for it. Pure.

/// The part of a value that is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    /// None of it.
    #[default]
    Nothing,
    /// These members, and of each this part.
    Members(Vec<(Box<str>, Wanted)>),
    /// All of it.
    All,
}

impl Wanted {
    /// Adds what lies at a path; the empty path is the value itself.
    pub(super) fn want(&mut self, path: &[&str]) {
        let Some((name, rest)) = path.split_first() else {
            *self = Self::All;
            return;
        };
        // What is wanted whole is wanted with all its members.
        if *self != Self::All {
            self.member_mut(name).want(rest);
        }
    }

    /// Adds what another expression looks at.
    fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) | (Self::All, _) => {}
            (_, Self::All) | (Self::Nothing, _) => *self = other.clone(),
            (Self::Members(_), Self::Members(theirs)) => {
                for (name, part) in theirs {
                    self.member_mut(name).add(part);
                }
            }
        }
    }

    fn member_mut(&mut self, name: &str) -> &mut Self {
        if !matches!(self, Self::Members(_)) {
            *self = Self::Members(Vec::new());
        }
        let Self::Members(members) = self else { unreachable!("it was just made so") };
        let place = members.iter().position(|(known, _)| **known == *name).unwrap_or_else(|| {
            members.push((name.into(), Self::Nothing));
            members.len() - 1
        });
        &mut members[place].1
    }

    /// The part of a member that is looked at.
    pub(super) fn member(&self, name: &str) -> &Self {
        match self {
            Self::Nothing => &Self::Nothing,
            Self::All => &Self::All,
            Self::Members(members) => {
                members.iter().find(|(known, _)| **known == *name).map_or(&Self::Nothing, |(_, part)| part)
            }
        }
    }

    /// Whether any of it is.
    pub(super) fn any(&self) -> bool {
        *self != Self::Nothing
    }
}

/// The same for each variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) event: Wanted,
    pub(super) headers: Wanted,
    pub(super) query: Wanted,
    pub(super) body: Wanted,
}

/// The variables there are.
pub(super) const VARIABLES: [&str; 4] = ["event", "headers", "query", "body"];
/// The members of `event`.
pub(super) const EVENT_MEMBERS: [&str; 9] =
    ["id", "type", "provider_id", "received_at", "integration", "endpoint_id", "query", "size", "peer"];

impl Wants {
    /// What is wanted of a variable; `None` where there is no such variable.
    pub(super) fn of(&mut self, variable: &str) -> Option<&mut Wanted> {
        match variable {
            "event" => Some(&mut self.event),
            "headers" => Some(&mut self.headers),
            "query" => Some(&mut self.query),
            "body" => Some(&mut self.body),
            _ => None,
        }
    }

    /// Adds what another expression looks at.
    pub(super) fn add(&mut self, other: &Self) {
        self.event.add(&other.event);
        self.headers.add(&other.headers);
        self.query.add(&other.query);
        self.body.add(&other.body);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths() -> impl Strategy<Value = Vec<Vec<String>>> {
        proptest::collection::vec(proptest::collection::vec("[ab]", 0..4), 0..5)
    }

    fn all(paths: &[Vec<String>]) -> Wanted {
        let mut wanted = Wanted::default();
        for path in paths {
            wanted.want(&path.iter().map(String::as_str).collect::<Vec<_>>());
        }
        wanted
    }

    proptest! {
        #[test]
        fn whatever_is_wanted_is_there_whole(paths in paths(), others in paths()) {
            let mut wanted = all(&paths);
            wanted.add(&all(&others));
            for path in paths.iter().chain(&others) {
                let end = path.iter().fold(&wanted, |part, name| part.member(name));
                prop_assert_eq!(end, &Wanted::All);
            }
        }
    }

    #[test]
    fn what_is_not_wanted_is_left_out() {
        let wanted = all(&[vec!["data".into(), "id".into()]]);
        assert_eq!(wanted.member("data").member("amount"), &Wanted::Nothing);
        assert!(!wanted.member("type").any() && wanted.member("data").any());
    }
}
