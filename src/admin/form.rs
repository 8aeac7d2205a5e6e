//! Reads a JSON object member by member and gathers all that is wrong with it, so that a client hears everything at
//! once. What nobody asked for is refused, with the nearest name that would have been right.

use serde_json::{Map, Value};

use super::{
    fields::{kind, listed, nearest},
    json::QUOTE_CHARS_MAX,
    problem::{Fault, Problem},
};

/// An object being read.
pub(super) struct Form {
    pointer: String,
    members: Map<String, Value>,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

/// What an update says of a member that may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Change<T> {
    /// Not given: it stays.
    #[default]
    Keep,
    /// `null`: it goes.
    Clear,
    /// A new value.
    Set(T),
}

impl<T: Clone> Change<T> {
    /// The new value of a resource that is being made.
    pub(super) fn into_option(self) -> Option<T> {
        match self {
            Self::Keep | Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    /// Takes effect on a resource that stands.
    pub(super) fn apply_to(&self, member: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *member = None,
            Self::Set(value) => *member = Some(value.clone()),
        }
    }
}

impl Form {
    /// Begins to read a body.
    pub(super) fn new(body: Value) -> Result<Self, Problem> {
        match body {
            Value::Object(members) => Ok(Self::within(String::new(), members)),
            other => Err(Problem::member("", format!("must be an object; it is {}", kind(&other)))),
        }
    }

    fn within(pointer: String, members: Map<String, Value>) -> Self {
        Self { pointer, members, known: Vec::new(), faults: Vec::new() }
    }

    /// A member that must be there. Some members have two spellings; given both, they must be equal.
    pub(super) fn required<T>(
        &mut self,
        names: &[&'static str],
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        if let Some((name, value)) = self.take(names) {
            self.read(name, value, read)
        } else {
            self.fault(names[0], "is missing");
            None
        }
    }

    /// A member that may be left out, but not be `null`.
    pub(super) fn optional<T>(
        &mut self,
        names: &[&'static str],
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        match self.take(names)? {
            (name, Value::Null) => {
                self.fault(name, "must not be null; leave it out instead");
                None
            }
            (name, value) => self.read(name, value, read),
        }
    }

    /// A member that `null` clears.
    pub(super) fn clearable<T>(
        &mut self,
        names: &[&'static str],
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Change<T> {
        match self.take(names) {
            None => Change::Keep,
            Some((_, Value::Null)) => Change::Clear,
            Some((name, value)) => self.read(name, value, read).map_or(Change::Keep, Change::Set),
        }
    }

    /// An object within, read the same way.
    pub(super) fn nested<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match self.take(&[name])?.1 {
            Value::Object(members) => {
                let mut inner = Self::within(self.pointer_to(name), members);
                let made = read(&mut inner);
                inner.refuse_unknown();
                self.faults.append(&mut inner.faults);
                Some(made)
            }
            other => {
                self.fault(name, format!("must be an object; it is {}", kind(&other)));
                None
            }
        }
    }

    /// An object within that `null` clears; `read` gives nothing where it noted a fault.
    pub(super) fn clearable_nested<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Change<T> {
        if self.members.get(name).is_some_and(Value::is_null) {
            self.take(&[name]);
            return Change::Clear;
        }
        self.nested(name, read).flatten().map_or(Change::Keep, Change::Set)
    }

    /// Members of replies that a request cannot set.
    pub(super) fn read_only(&mut self, names: &[&'static str]) {
        for name in names {
            if self.take(&[name]).is_some() {
                self.fault(name, "cannot be set here; leave it out");
            }
        }
    }

    /// Notes that a member is wrong.
    pub(super) fn fault(&mut self, name: &str, detail: impl Into<String>) {
        let pointer = self.pointer_to(name);
        self.faults.push(Fault { pointer, detail: detail.into() });
    }

    /// All that was read, or all that is wrong with it.
    pub(super) fn finish<T>(mut self, made: impl FnOnce() -> Option<T>) -> Result<T, Problem> {
        self.refuse_unknown();
        if !self.faults.is_empty() {
            return Err(Problem::members(self.faults));
        }
        made().ok_or_else(|| Problem::internal(&"a required member was neither read nor refused"))
    }

    fn take(&mut self, names: &[&'static str]) -> Option<(&'static str, Value)> {
        self.known.extend(names);
        let mut given = names.iter().filter_map(|name| self.members.remove(*name).map(|value| (*name, value)));
        let first = given.next()?;
        let differing = given.find(|(_, value)| *value != first.1).map(|(name, _)| name);
        if let Some(other) = differing {
            self.fault(first.0, format!("and `{other}` are two spellings of one member and differ; give one of them"));
        }
        Some(first)
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        value: Value,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        read(value).map_err(|detail| self.fault(name, detail)).ok()
    }

    fn refuse_unknown(&mut self) {
        for (name, _) in std::mem::take(&mut self.members) {
            let detail = match nearest(&name, self.known.iter().copied()) {
                Some(known) => format!("is not known; did you mean `{known}`?"),
                None => format!("is not known; known are {}", listed(self.known.iter().copied())),
            };
            let cut: String = name.chars().take(QUOTE_CHARS_MAX).collect();
            self.fault(&cut, detail);
        }
    }

    fn pointer_to(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::fields::{boolean, line, list, number, secret, string},
        *,
    };

    fn faults(body: Value, read: impl FnOnce(&mut Form)) -> Vec<(String, String)> {
        let mut form = Form::new(body).expect("the body is an object");
        read(&mut form);
        match form.finish(|| Some(())) {
            Ok(()) => Vec::new(),
            Err(problem) => problem.faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect(),
        }
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let found = faults(json!({"nam": 1, "active": "yes", "count": 300, "x": 1}), |form| {
            form.required(&["name"], line(1..=10));
            form.optional(&["active"], boolean);
            form.optional(&["count"], number::<u16>(1..=256));
        });
        let found: Vec<(&str, &str)> = found.iter().map(|(pointer, text)| (pointer.as_str(), text.as_str())).collect();
        assert_eq!(
            found,
            [
                ("/name", "is missing"),
                ("/active", "must be true or false; it is a string"),
                ("/count", "must be a whole number from 1 to 256; it is 300"),
                ("/nam", "is not known; did you mean `name`?"),
                ("/x", "is not known; known are `name`, `active`, `count`"),
            ]
        );
    }

    #[test]
    fn two_spellings_may_agree_but_not_differ() {
        let both = |form: &mut Form| assert_eq!(form.optional(&["active", "is_active"], boolean), Some(true));
        assert!(faults(json!({"active": true, "is_active": true}), both).is_empty());
        let found = faults(json!({"active": true, "is_active": false}), both);
        assert_eq!(found.len(), 1);
        assert!(found[0].0 == "/active" && found[0].1.contains("`is_active`"), "{found:?}");
    }

    #[test]
    fn a_nested_fault_has_its_whole_pointer() {
        let found = faults(json!({"retry": {"schedule": [1], "a/b": 1, "wait": true}}), |form| {
            form.nested("retry", |form| {
                form.optional(&["schedule_s"], list(3, number::<u64>(0..=9)));
                form.optional(&["wait"], number::<u64>(0..=9));
            });
        });
        let pointers: Vec<&str> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/retry/wait", "/retry/a~1b", "/retry/schedule"]);
        assert!(found[2].1.contains("`schedule_s`"));
    }

    #[test]
    fn null_clears_only_what_may_be_empty() {
        let mut form = Form::new(json!({"a": null, "b": null})).expect("an object");
        assert_eq!(form.clearable(&["a"], string), Change::Clear);
        assert_eq!(form.optional(&["b"], string), None);
        assert_eq!(form.clearable(&["c"], string), Change::Keep);
        let refused = form.finish(|| Some(())).expect_err("b is null");
        assert_eq!(refused.faults.len(), 1);
        assert_eq!(refused.faults[0].pointer, "/b");
    }

    #[test]
    fn no_fault_repeats_a_secret() {
        let planted = "planted-secret-4711";
        let found = faults(json!({"secret": planted, "secrte": planted}), |form| {
            form.optional(&["secret"], secret(1..=3));
        });
        assert_eq!(found.len(), 2);
        assert!(!format!("{found:?}").contains(planted));
    }
}
