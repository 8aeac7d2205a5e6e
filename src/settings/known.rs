//! The names there are: which keys and environment variables are settings, and which was meant when one is not.
//! Pure; all of it is made from the keys of `config/default.toml`.

use std::{collections::BTreeMap, fmt::Write};

use figment::value::{Dict, Value};

use super::{ADMIN_TOKEN_VARIABLE, Fault, KEY_FILE_VARIABLE, KEY_RING_VARIABLE};

/// Begins every environment variable of hookmill.
pub(super) const PREFIX: &str = "HOOKMILL_";
/// Variables that are read elsewhere: at the start, and by the command line's client.
pub(super) const OTHER_VARIABLES: [&str; 7] = [
    ADMIN_TOKEN_VARIABLE,
    KEY_FILE_VARIABLE,
    KEY_RING_VARIABLE,
    "HOOKMILL_CONTEXT",
    "HOOKMILL_TOKEN",
    "HOOKMILL_TOKEN_FILE",
    "HOOKMILL_URL",
];

/// The settings there are, by dotted key, with their defaults.
pub(super) struct Known(BTreeMap<String, Value>);

impl Known {
    /// The keys of the defaults, each with its default.
    pub(super) fn of(defaults: &Dict) -> Self {
        Self(leaves(defaults).into_iter().map(|(key, value)| (key, value.clone())).collect())
    }

    /// The setting that an environment variable stands for.
    pub(super) fn variable(&self, variable: &str) -> Option<&str> {
        self.0.keys().find(|key| variable_of(key) == variable).map(String::as_str)
    }

    /// What to say of a variable that is no setting; never its value, which may be a misnamed secret.
    pub(super) fn unknown_variable(&self, variable: String) -> Fault {
        let settings = self.0.keys().map(|key| variable_of(key));
        let names = settings.chain(OTHER_VARIABLES.map(str::to_owned)).collect::<Vec<_>>();
        let mut problem = "this environment variable is no setting".to_owned();
        let service = variable.strip_prefix(PREFIX).is_some_and(|rest| {
            rest == "PORT" || ["PORT_", "SERVICE_HOST", "SERVICE_PORT"].iter().any(|head| rest.starts_with(head))
        });
        if service {
            // Kubernetes gives every pod such variables for each Service of its namespace.
            problem.push_str("; if Kubernetes set it for a Service named `hookmill`, set `enableServiceLinks: false`");
        } else if let Some(name) = nearest(&variable, "__", names.iter().map(String::as_str)) {
            let _ = write!(problem, "; did you mean `{name}`?");
        }
        Fault { key: variable, origin: None, problem }
    }

    /// What is wrong with a file's key, or `None` when it is a setting.
    pub(super) fn problem_with(&self, key: &str, value: &Value) -> Option<String> {
        if self.0.contains_key(key) {
            return None;
        }
        let below = format!("{key}.");
        if self.0.keys().any(|known| known.starts_with(&below)) {
            let empty_section = matches!(value, Value::Dict(..));
            return (!empty_section)
                .then(|| format!("this is a section, written `[{key}]`, and holds no value itself"));
        }
        if let Some(setting) =
            self.0.keys().find(|known| key.strip_prefix(*known).is_some_and(|rest| rest.starts_with('.')))
        {
            return Some(format!("`{setting}` is one value and has nothing below it"));
        }
        Some(match nearest(key, ".", self.0.keys().map(String::as_str)) {
            Some(name) => format!("no such setting; did you mean `{name}`?"),
            None => "no such setting".to_owned(),
        })
    }

    /// Reads a variable's text as the kind of value that the default has, so that `123` stays a text for a path.
    pub(super) fn read(&self, key: &str, text: &str) -> Value {
        match self.0.get(key) {
            Some(Value::Array(..)) => {
                let list = text.trim().trim_start_matches('[').trim_end_matches(']').split(',');
                let entries = list.map(|entry| entry.trim().trim_matches('"')).filter(|entry| !entry.is_empty());
                Value::from(entries.map(str::to_owned).collect::<Vec<_>>())
            }
            Some(Value::Num(..)) => {
                let text = text.trim();
                let number = text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from));
                number.unwrap_or_else(|_| Value::from(text))
            }
            _ => Value::from(text),
        }
    }

    /// The setting that a path into the settings lies in; the path itself where there is none.
    pub(super) fn setting_at(&self, path: &[String]) -> String {
        let ends = (1..=path.len()).rev().map(|end| path[..end].join("."));
        ends.into_iter().find(|key| self.0.contains_key(key)).unwrap_or_else(|| path.join("."))
    }
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Every value with its dotted key; an empty section is one, too.
pub(super) fn leaves(values: &Dict) -> Vec<(String, &Value)> {
    fn collect<'a>(prefix: &str, values: &'a Dict, into: &mut Vec<(String, &'a Value)>) {
        for (name, value) in values {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Dict(_, inner) if !inner.is_empty() => collect(&key, inner, into),
                _ => into.push((key, value)),
            }
        }
    }
    let mut into = Vec::new();
    collect("", values, &mut into);
    into
}

/// The candidate that was most likely meant: by the whole name, by its last part in another section, or by the
/// words of its last part in another order (`max_body_bytes`).
fn nearest<'a>(name: &str, separator: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &str| name.rsplit(separator).next().unwrap_or_default().to_owned();
    let in_order = |name: &str| {
        let mut words = name.split('_').collect::<Vec<_>>();
        words.sort_unstable();
        words.join("_")
    };
    let tail = last(name);
    let distance = |candidate: &str| {
        let other = last(candidate);
        let whole = strsim::damerau_levenshtein(name, candidate);
        let moved = strsim::damerau_levenshtein(&tail, &other);
        let shuffled = strsim::damerau_levenshtein(&in_order(&tail), &in_order(&other));
        // One more, so that a hit in the right section wins over one elsewhere.
        (whole.min(moved.min(shuffled) + 1), whole)
    };
    let nearest = candidates.min_by_key(|candidate| distance(candidate))?;
    let allowed = (tail.chars().count() / 3).max(2);
    (distance(nearest).0 <= allowed).then_some(nearest)
}
