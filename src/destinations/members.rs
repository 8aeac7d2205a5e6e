//! Reads the members of a destination's settings and credentials: alike for all kinds, so that a fault always names
//! its member and what would be right. Pure.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use hookmill_actors::{domain::secret::Secret, ports::provider::SettingsError};
use serde_json::{Map, Value};

/// What timeouts may be, milliseconds.
const TIMEOUT_MS: RangeInclusive<u64> = 100..=120_000;
/// Whom a destination with TLS trusts in place of the public authorities: a few certificates, as PEM.
pub(super) const CA: &str = "ca";
const CA_BYTES: RangeInclusive<usize> = 1..=12 << 10;
/// Characters of an unknown name that are repeated.
const QUOTE_CHARS_MAX: usize = 64;
/// Credentials at most: a certificate chain with its key, as JSON.
const CREDENTIALS_BYTES_MAX: usize = 32 << 10;

/// The settings of one destination, or an object within them.
pub(super) struct Members<'a> {
    path: String,
    members: &'a Map<String, Value>,
}

impl<'a> Members<'a> {
    /// Settings of a destination of that kind; a member that is not among `known` is refused.
    pub(super) fn new(kind: &str, members: &'a Map<String, Value>, known: &[&str]) -> Result<Self, SettingsError> {
        Self::at(String::new(), &format!("a {kind} destination"), members, known)
    }

    fn at(path: String, whose: &str, members: &'a Map<String, Value>, known: &[&str]) -> Result<Self, SettingsError> {
        let this = Self { path, members };
        match members.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(this.fault(&quoted(unknown), no_such(whose, "setting", known))),
            None => Ok(this),
        }
    }

    /// An object within, with its own known members.
    pub(super) fn within(&self, name: &str, known: &[&str]) -> Result<Option<Members<'a>>, SettingsError> {
        match self.members.get(name) {
            None => Ok(None),
            Some(Value::Object(members)) => {
                Self::at(format!("{}{name}.", self.path), &format!("`{name}`"), members, known).map(Some)
            }
            Some(_) => Err(self.fault(name, "must be an object")),
        }
    }

    /// A free object of texts: names with values.
    pub(super) fn texts(&self, name: &str, items_max: usize) -> Result<Vec<(&'a str, &'a str)>, SettingsError> {
        match self.members.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Object(members)) if members.len() > items_max => {
                Err(self.fault(name, format!("has {} members; at most {items_max} are allowed", members.len())))
            }
            Some(Value::Object(members)) => members
                .iter()
                .map(|(member, value)| match value {
                    Value::String(text) => Ok((member.as_str(), text.as_str())),
                    _ => Err(self.fault(&format!("{name}.{}", quoted(member)), "must be a string")),
                })
                .collect(),
            Some(_) => Err(self.fault(name, "must be an object of names and texts")),
        }
    }

    /// A text on one line.
    pub(super) fn text(&self, name: &str, bytes: RangeInclusive<usize>) -> Result<Option<&'a str>, SettingsError> {
        let Some(text) = self.raw(name, bytes)? else { return Ok(None) };
        if text.chars().any(char::is_control) {
            return Err(self.fault(name, "must not hold control characters"));
        }
        Ok(Some(text))
    }

    /// A text on one line that must be there; `example` says what it might be.
    pub(super) fn required(
        &self,
        name: &str,
        bytes: RangeInclusive<usize>,
        example: &str,
    ) -> Result<&'a str, SettingsError> {
        self.text(name, bytes)?.ok_or_else(|| self.fault(name, format!("is missing; give {example}")))
    }

    /// A text of any lines.
    pub(super) fn raw(&self, name: &str, bytes: RangeInclusive<usize>) -> Result<Option<&'a str>, SettingsError> {
        match self.members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if bytes.contains(&text.len()) => Ok(Some(text)),
            Some(Value::String(text)) => {
                let (min, max) = (bytes.start(), bytes.end());
                Err(self.fault(name, format!("has {} bytes; {min} to {max} are allowed", text.len())))
            }
            Some(_) => Err(self.fault(name, "must be a string")),
        }
    }

    /// [`CA`], as it stands.
    pub(super) fn authorities(&self) -> Result<Option<&'a str>, SettingsError> {
        self.raw(CA, CA_BYTES)
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, SettingsError> {
        self.whole(name, "a whole number", range)
    }

    /// A time within which something must happen, in milliseconds.
    pub(super) fn timeout(&self, name: &str, default: Duration) -> Result<Duration, SettingsError> {
        let millis = self.whole(name, "a whole number of milliseconds", TIMEOUT_MS)?;
        Ok(millis.map_or(default, Duration::from_millis))
    }

    fn whole(&self, name: &str, what: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, SettingsError> {
        let Some(value) = self.members.get(name) else { return Ok(None) };
        match value.as_u64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (min, max) = (range.start(), range.end());
                Err(self.fault(name, format!("must be {what} from {min} to {max}")))
            }
        }
    }

    /// A name out of a table.
    pub(super) fn choice<T: Copy>(&self, name: &str, table: &[(&str, T)]) -> Result<Option<T>, SettingsError> {
        let Some(value) = self.members.get(name) else { return Ok(None) };
        match table.iter().find(|(known, _)| value.as_str() == Some(*known)) {
            Some((_, made)) => Ok(Some(*made)),
            None => {
                let known = table.iter().map(|(known, _)| format!("`{known}`")).collect::<Vec<_>>().join(", ");
                Err(self.fault(name, format!("must be one of {known}")))
            }
        }
    }

    /// Whether it is given at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// A fault of a member, with its whole path.
    pub(super) fn fault(&self, name: &str, problem: impl Into<String>) -> SettingsError {
        SettingsError::new(format!("{}{name}", self.path), problem)
    }
}

fn quoted(name: &str) -> String {
    name.chars().filter(|char| !char.is_control()).take(QUOTE_CHARS_MAX).collect()
}

fn no_such(whose: &str, what: &str, known: &[&str]) -> String {
    if known.is_empty() {
        format!("{whose} has no {what}s")
    } else {
        format!("{whose} has no such {what}; it has {}", known.join(", "))
    }
}

/// What a destination needs to sign in: names with secret texts, opened. Taken out one by one; what nobody takes is
/// refused by [`Credentials::finish`].
#[derive(Default)]
pub(super) struct Credentials {
    members: BTreeMap<String, Secret>,
    asked: Vec<&'static str>,
}

impl Credentials {
    /// Reads a JSON object of texts. No error repeats any value.
    pub(super) fn read(credentials: Option<&Secret>) -> Result<Self, SettingsError> {
        let Some(credentials) = credentials else { return Ok(Self::default()) };
        let fault = |problem: &str| SettingsError::new("credentials", problem);
        if credentials.expose().len() > CREDENTIALS_BYTES_MAX {
            return Err(fault(&format!("has more than {CREDENTIALS_BYTES_MAX} bytes as JSON")));
        }
        // serde_json's own words could repeat a value.
        let members: BTreeMap<String, String> = serde_json::from_slice(credentials.expose())
            .map_err(|_| fault("must be an object whose members are texts"))?;
        let members = members.into_iter().map(|(name, value)| (name, Secret::new(value.into_bytes()))).collect();
        Ok(Self { members, asked: Vec::new() })
    }

    /// All that were given.
    pub(super) fn all(&self) -> impl Iterator<Item = &Secret> {
        self.members.values()
    }

    /// One of them, of `bytes` bytes.
    pub(super) fn take(
        &mut self,
        name: &'static str,
        bytes: RangeInclusive<usize>,
    ) -> Result<Option<Secret>, SettingsError> {
        self.asked.push(name);
        match self.members.remove(name) {
            Some(secret) if !bytes.contains(&secret.expose().len()) => {
                let (min, max) = (bytes.start(), bytes.end());
                Err(fault_of(name, format!("has {} bytes; {min} to {max} are allowed", secret.expose().len())))
            }
            taken => Ok(taken),
        }
    }

    /// One that must be there; `why` says what needs it.
    pub(super) fn need(
        &mut self,
        name: &'static str,
        bytes: RangeInclusive<usize>,
        why: &str,
    ) -> Result<Secret, SettingsError> {
        self.take(name, bytes)?.ok_or_else(|| fault_of(name, format!("is missing; {why} needs it")))
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self, kind: &str) -> Result<(), SettingsError> {
        match self.members.keys().next() {
            Some(unknown) => Err(fault_of(
                &quoted(unknown),
                no_such(&format!("a {kind} destination with these settings"), "credential", &self.asked),
            )),
            None => Ok(()),
        }
    }
}

/// A fault of one credential.
pub(super) fn fault_of(name: &str, problem: impl Into<String>) -> SettingsError {
    SettingsError::new(format!("credentials.{name}"), problem)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_are_taken_or_refused_and_never_repeated() {
        let secret = Secret::new(json!({"token": "hush-hush", "pasword": "hush-hush"}).to_string());
        let mut credentials = Credentials::read(Some(&secret)).unwrap();
        assert_eq!(credentials.take("token", 1..=99).unwrap(), Some(Secret::new("hush-hush")));
        assert_eq!(credentials.take("password", 1..=99).unwrap(), None);
        let refused = credentials.finish("nats").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`credentials.pasword`: a nats destination with these settings has no such credential; it has token, password"
        );

        for (given, bytes) in
            [(json!({"token": 17}), 1..=9), (json!(["hush-hush"]), 1..=9), (json!({"token": "hush-hush-hush"}), 1..=9)]
        {
            let secret = Secret::new(given.to_string());
            let refused = Credentials::read(Some(&secret)).and_then(|mut it| it.take("token", bytes)).unwrap_err();
            assert!(refused.field.starts_with("credentials") && !refused.problem.contains("hush"), "{refused}");
        }
        let long = Secret::new(json!({"token": "x".repeat(CREDENTIALS_BYTES_MAX)}).to_string());
        assert!(Credentials::read(Some(&long)).is_err());
        let refused = Credentials::default().need("token", 1..=9, "`auth` of type bearer").unwrap_err();
        assert_eq!(refused.to_string(), "`credentials.token`: is missing; `auth` of type bearer needs it");
    }

    #[test]
    fn a_nested_fault_has_its_whole_path() {
        let Value::Object(settings) = json!({"auth": {"type": "bearer", "heder": "x"}, "n": 5}) else { unreachable!() };
        let members = Members::new("http", &settings, &["auth", "n"]).unwrap();
        let refused = members.within("auth", &["type", "header"]).err().unwrap();
        assert_eq!(refused.to_string(), "`auth.heder`: `auth` has no such setting; it has type, header");
        assert_eq!(members.number("n", 6..=9).unwrap_err().problem, "must be a whole number from 6 to 9");
        assert_eq!(members.choice("n", &[("a", 1)]).unwrap_err().problem, "must be one of `a`");
        assert_eq!(members.text("n", 1..=9).unwrap_err().problem, "must be a string");
    }
}
