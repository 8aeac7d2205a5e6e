//! Which events of its integration a subscription takes. Pure.

use serde::{Deserialize, Serialize};
use utoipa::{
    ToSchema,
    openapi::schema::{Array, ArrayBuilder, ObjectBuilder, Type},
};

/// What a subscription takes: events whose type fits a pattern, and for which the filter holds. The default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Event type patterns, any of which must fit: the provider's names, `*` for any run of characters
    /// (`payment_intent.*`). Empty: every type, and events that have none.
    #[schema(schema_with = type_patterns)]
    pub types: Vec<String>,
    /// A CEL expression that must be true: see `Programs::selector`. `None`: holds for all.
    pub filter: Option<String>,
}

/// Patterns of one subscription, at most.
pub const TYPE_PATTERNS_MAX: usize = 64;
/// Characters of one pattern, at most.
pub const TYPE_PATTERN_CHARS_MAX: usize = 128;

/// In a description.
fn type_patterns() -> Array {
    let pattern = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    let pattern = pattern.max_length(Some(TYPE_PATTERN_CHARS_MAX));
    let about = "Event type patterns, any of which must fit: the provider's names, `*` for any run of characters \
                 (`payment_intent.*`). Empty: every type, and events that have none.";
    ArrayBuilder::new().items(pattern).max_items(Some(TYPE_PATTERNS_MAX)).description(Some(about)).build()
}

impl Selection {
    /// Whether it takes everything.
    pub fn takes_all(&self) -> bool {
        self.types.is_empty() && self.filter.is_none()
    }

    /// Whether an event of this type passes the patterns; the filter is another matter.
    pub fn takes_type(&self, event_type: Option<&str>) -> bool {
        self.types.is_empty() || event_type.is_some_and(|name| self.types.iter().any(|pattern| fits(pattern, name)))
    }

    /// The patterns' faults, in words that say what would be right.
    pub fn validate_types(&self) -> Result<(), String> {
        if self.types.len() > TYPE_PATTERNS_MAX {
            return Err(format!("has {} patterns; at most {TYPE_PATTERNS_MAX} are allowed", self.types.len()));
        }
        match self.types.iter().find(|it| it.is_empty() || it.chars().count() > TYPE_PATTERN_CHARS_MAX) {
            None => Ok(()),
            Some(pattern) if pattern.is_empty() => {
                Err("has an empty pattern; leave it out, or write `*` for every named type".to_owned())
            }
            Some(_) => Err(format!("has a pattern of more than {TYPE_PATTERN_CHARS_MAX} characters")),
        }
    }
}

/// Whether a pattern fits other names than its own.
pub fn is_open(pattern: &str) -> bool {
    pattern.contains('*')
}

/// Whether `name` fits a pattern in which `*` stands for any run of characters. Takes time in proportion to the
/// product of both lengths at worst, and both are bounded.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut from) = (0, 0);
    // Where the last `*` stood, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == name[from] => {
                at += 1;
                from += 1;
            }
            _ => match &mut star {
                Some((star_at, taken)) => {
                    *taken += 1;
                    at = *star_at + 1;
                    from = *taken;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_fit_names() {
        for (pattern, name, want) in [
            ("payment.*", "payment.succeeded", true),
            ("payment.*", "payment", false),
            ("payment.*", "payment.", true),
            ("*", "anything", true),
            ("*.failed", "payment.failed", true),
            ("*.failed", "payment.failed.again", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-", false),
            ("a", "a", true),
            ("a", "A", false),
            ("**", "", true),
        ] {
            assert_eq!(fits(pattern, name), want, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_fits_itself_with_any_part_starred(name in "[a-c.]{0,12}", from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
            let (a, b) = (from.index(name.len() + 1), to.index(name.len() + 1));
            let pattern = format!("{}*{}", &name[..a.min(b)], &name[a.max(b)..]);
            prop_assert!(fits(&pattern, &name));
        }
    }

    #[test]
    fn an_event_without_a_type_passes_no_pattern() {
        let named = Selection { types: vec!["*".to_owned()], filter: None };
        assert!(!named.takes_type(None));
        assert!(Selection::default().takes_type(None));
    }
}
