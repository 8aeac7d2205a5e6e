//! What differs between two JSON objects, member by member. Pure.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A member that differs; `null` where it is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MemberDifference)]
pub(super) struct Difference {
    /// JSON pointer.
    pub(super) pointer: String,
    #[schema(value_type = Value)]
    pub(super) from: Value,
    #[schema(value_type = Value)]
    pub(super) to: Value,
}

/// From the one to the other, in the order of their names. Lists are compared as a whole.
pub(super) fn between(from: &Map<String, Value>, to: &Map<String, Value>) -> Vec<Difference> {
    let mut differences = Vec::new();
    compare("", from, to, &mut differences);
    differences
}

fn compare(pointer: &str, from: &Map<String, Value>, to: &Map<String, Value>, found: &mut Vec<Difference>) {
    let gone = from.keys().filter(|name| !to.contains_key(*name));
    let mut names: Vec<&String> = gone.chain(to.keys()).collect();
    names.sort_unstable();
    for name in names {
        let below = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        match (from.get(name).unwrap_or(&Value::Null), to.get(name).unwrap_or(&Value::Null)) {
            (one, other) if one == other => {}
            (Value::Object(one), Value::Object(other)) => compare(&below, one, other, found),
            (one, other) => found.push(Difference { pointer: below, from: one.clone(), to: other.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differences(from: &Value, to: &Value) -> Value {
        let members = |value: &Value| value.as_object().expect("an object").clone();
        serde_json::to_value(between(&members(from), &members(to))).expect("it is JSON")
    }

    #[test]
    fn only_what_differs_is_told() {
        let from = json!({"a": 1, "b": {"c": [1], "d": null}, "gone": "x"});
        let to = json!({"a": 1, "b": {"c": [2], "e/f": 3}, "new": true});
        assert_eq!(
            differences(&from, &to),
            json!([
                {"pointer": "/b/c", "from": [1], "to": [2]},
                {"pointer": "/b/e~1f", "from": null, "to": 3},
                {"pointer": "/gone", "from": "x", "to": null},
                {"pointer": "/new", "from": null, "to": true},
            ])
        );
        assert_eq!(differences(&from, &from), json!([]));
    }

    #[test]
    fn an_object_in_place_of_something_else_is_one_difference() {
        assert_eq!(
            differences(&json!({"a": 1}), &json!({"a": {"b": 1}})),
            json!([{"pointer": "/a", "from": 1, "to": {"b": 1}}])
        );
    }
}
