//! `PATCH` with a JSON Merge Patch (RFC 7396): objects within are merged with what stands, where `PUT` replaces them.
//! Pure.

use hookmill_actors::domain::secret::{Sealed, Secret};
use hookmill_actors::ports::sealer::Owner;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{fields::kind, problem::Problem, tools::Tools};

/// A patch on its way to be read as an update.
pub(super) struct Merge {
    members: Map<String, Value>,
}

impl Merge {
    /// Begins with a body.
    pub(super) fn new(body: &Value) -> Result<Self, Problem> {
        match body {
            Value::Object(members) => Ok(Self { members: members.clone() }),
            other => Err(Problem::member("", format!("must be an object; it is {}", kind(other)))),
        }
    }

    /// Merges an object within with the one that stands.
    pub(super) fn member(mut self, name: &str, stands: &impl Serialize) -> Result<Self, Problem> {
        if let Some(patch) = self.members.get_mut(name).filter(|patch| patch.is_object()) {
            let mut whole = serde_json::to_value(stands).map_err(|error| Problem::internal(&error))?;
            json_patch::merge(&mut whole, patch);
            *patch = whole;
        }
        Ok(self)
    }

    /// The same within an object whose other members are left as they are given.
    pub(super) fn within(mut self, outer: &str, name: &str, stands: &impl Serialize) -> Result<Self, Problem> {
        if let Some(Value::Object(members)) = self.members.get_mut(outer) {
            let inner = Self { members: std::mem::take(members) }.member(name, stands)?;
            *members = inner.members;
        }
        Ok(self)
    }

    /// The same for credentials, which are opened for it.
    pub(super) fn credentials(mut self, owner: Owner, stands: Option<&Sealed>, tools: &Tools) -> Result<Self, Problem> {
        const NAME: &str = "credentials";
        if !self.members.get(NAME).is_some_and(Value::is_object) {
            return Ok(self);
        }
        let stands: Map<String, Value> = match stands {
            None => Map::new(),
            Some(sealed) => opened(&tools.sealer.open(owner, sealed).map_err(|error| {
                Problem::member(
                    format!("/{NAME}"),
                    format!("cannot be merged: what is stored does not open ({error}); give them whole with PUT"),
                )
            })?)?,
        };
        self = self.member(NAME, &stands)?;
        Ok(self)
    }

    /// A member as it stands by now, where it is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name).and_then(Value::as_str)
    }

    /// A member as it stands by now, where it is an object.
    pub(super) fn object(&self, name: &str) -> Option<&Map<String, Value>> {
        self.members.get(name).and_then(Value::as_object)
    }

    /// The update that it amounts to.
    pub(super) fn into_body(self) -> Value {
        Value::Object(self.members)
    }
}

fn opened(secret: &Secret) -> Result<Map<String, Value>, Problem> {
    serde_json::from_slice(secret.expose()).map_err(|_| Problem::internal(&"stored credentials are no object"))
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::ids::IntegrationId;
    use serde_json::json;

    use super::{super::testing::tools, *};

    #[test]
    fn objects_are_merged_and_all_else_is_as_given() {
        let body = json!({"name": "n", "settings": {"a": {"b": 1}, "c": null}, "limits": {"rate": {"burst": null}}});
        let merged = Merge::new(&body)
            .and_then(|merge| merge.member("settings", &json!({"a": {"b": 0, "x": 2}, "c": 3, "d": 4})))
            .and_then(|merge| merge.within("limits", "rate", &json!({"per_second": 5, "burst": 6})))
            .and_then(|merge| merge.member("other", &json!({"e": 5})));
        let want =
            json!({"name": "n", "settings": {"a": {"b": 1, "x": 2}, "d": 4}, "limits": {"rate": {"per_second": 5}}});
        assert_eq!(merged.map(Merge::into_body), Ok(want));
        let cleared =
            Merge::new(&json!({"settings": null})).and_then(|merge| merge.member("settings", &json!({"a": 1})));
        assert_eq!(cleared.map(Merge::into_body), Ok(json!({"settings": null})));
        assert!(Merge::new(&json!([1])).is_err());
    }

    #[test]
    fn credentials_are_merged_under_their_seal() {
        let tools = tools();
        let owner = Owner::Credentials(IntegrationId(1));
        let sealed = tools.sealer.seal(owner, &Secret::new(r#"{"key":"planted","id":"7"}"#));
        let merged = |owner| {
            let merge = Merge::new(&json!({"credentials": {"id": "8"}}))?;
            merge.credentials(owner, Some(&sealed), &tools).map(Merge::into_body)
        };
        assert_eq!(merged(owner), Ok(json!({"credentials": {"key": "planted", "id": "8"}})));
        let refused = merged(Owner::Credentials(IntegrationId(2))).expect_err("it is sealed for another");
        assert!(refused.faults[0].pointer == "/credentials" && !format!("{refused:?}").contains("planted"));
    }
}
