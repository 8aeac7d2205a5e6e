//! Reads a provider's settings from the members an operator wrote, and says which one is wrong and what
//! would be right. A value is never shown: it may be a secret in the wrong place.

use hookmill_actors::ports::provider::SettingsError;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Settings whose members are all optional: `#[serde(default, deny_unknown_fields)]`.
pub(super) trait Members: DeserializeOwned {
    /// Every member with what it must be, as the end of "must be ...", and as a JSON Schema.
    const MEMBERS: &'static [(&'static str, &'static str, &'static str)];

    /// All members as the JSON Schema of an object.
    fn schema() -> Value {
        let property = |(name, right, schema): &(&str, &str, &str)| {
            let mut schema: Map<String, Value> = serde_json::from_str(schema).unwrap_or_default();
            schema.insert("description".to_owned(), (*right).into());
            ((*name).to_owned(), Value::Object(schema))
        };
        let properties: Map<String, Value> = Self::MEMBERS.iter().map(property).collect();
        serde_json::json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        })
    }

    /// Reads them, or names the first member at fault.
    fn read(settings: &Map<String, Value>) -> Result<Self, SettingsError> {
        for (name, value) in settings {
            let Some((_, right, _)) = Self::MEMBERS.iter().find(|(member, ..)| member == name) else {
                return Err(SettingsError::new(name.as_str(), unknown(name, Self::MEMBERS)));
            };
            // Alone, so that a fault can only be this member's.
            let alone = Map::from_iter([(name.clone(), value.clone())]);
            if Self::deserialize(Value::Object(alone)).is_err() {
                return Err(SettingsError::new(name.as_str(), format!("must be {right}")));
            }
        }
        Self::deserialize(Value::Object(settings.clone()))
            .map_err(|_| SettingsError::new("verification", "its members do not fit together"))
    }
}

/// Settings of a scheme that has none.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoMembers {}

impl Members for NoMembers {
    const MEMBERS: &'static [(&'static str, &'static str, &'static str)] = &[];
}

fn unknown(name: &str, members: &[(&str, &str, &str)]) -> String {
    let nearest = members
        .iter()
        .map(|(member, ..)| (strsim::jaro_winkler(name, member), *member))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, member)) => format!("is unknown; `{member}` is near"),
        None if members.is_empty() => "is unknown; this provider has no settings".into(),
        None => {
            let names: Vec<String> = members.iter().map(|(member, ..)| format!("`{member}`")).collect();
            format!("is unknown; there are {}", names.join(", "))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Settings as an object, for the providers' tests.
    pub(in super::super) fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => panic!("settings are an object"),
        }
    }

    /// Fails where the table of members and the struct are not the same.
    pub(in super::super) fn assert_members_exist<T: Members>() {
        assert!(T::deserialize(json!({})).is_ok(), "every member is optional");
        for (name, _, schema) in T::MEMBERS {
            assert!(serde_json::from_str::<Map<String, Value>>(schema).is_ok(), "`{name}` has no schema");
            let Err(error) = T::deserialize(json!({ *name: { "no such": "shape" } })) else {
                panic!("`{name}` takes anything");
            };
            assert!(!error.to_string().starts_with("unknown field"), "`{name}` is no member: {error}");
        }
        let Err(error) = T::deserialize(json!({ "no such member": 1 })) else {
            panic!("unknown members are taken");
        };
        assert_eq!(error.to_string().matches('`').count(), 2 + 2 * T::MEMBERS.len(), "a member is not listed: {error}");
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        header: String,
        tolerance_s: u64,
    }

    impl Members for Sample {
        const MEMBERS: &'static [(&'static str, &'static str, &'static str)] = &[
            ("header", "the name of a header", r#"{"type":"string"}"#),
            ("tolerance_s", "a number of seconds", r#"{"type":"integer"}"#),
        ];
    }

    #[test]
    fn the_table_is_checked_against_the_struct() {
        assert_members_exist::<Sample>();
    }

    #[test]
    fn names_the_member_and_what_would_be_right() {
        let fault = |value| Sample::read(&map(value)).expect_err("refused").to_string();
        assert_eq!(fault(json!({ "tolerance": 3 })), "`tolerance`: is unknown; `tolerance_s` is near");
        assert_eq!(fault(json!({ "qqq": 3 })), "`qqq`: is unknown; there are `header`, `tolerance_s`");
        assert_eq!(fault(json!({ "tolerance_s": "s3cret" })), "`tolerance_s`: must be a number of seconds");
        assert_eq!(fault(json!({ "header": "X", "tolerance_s": -1 })), "`tolerance_s`: must be a number of seconds");
        assert_eq!(Sample::read(&map(json!({ "header": "X" }))), Ok(Sample { header: "X".into(), tolerance_s: 0 }));
    }
}
