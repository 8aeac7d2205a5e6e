//! Readers of single members: each takes a value and says what is wrong with it, and what would be right.
//! No words repeat a value that may be a secret.

use std::ops::RangeInclusive;

use hookmill_actors::domain::secret::Secret;
use serde_json::{Map, Value};

use super::json::{QUOTE_CHARS_MAX, quoted};

/// The last moment of the year 9999, milliseconds since 1970.
const NEVER_MS: u64 = 253_402_300_799_999;

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Text of `chars` characters, not blank, on one line.
pub(super) fn line(chars: RangeInclusive<usize>) -> impl FnOnce(Value) -> Result<String, String> {
    move |value| {
        let text = string(value)?;
        in_range(text.chars().count(), &chars, "characters long")?;
        if text.chars().any(char::is_control) {
            return Err("must not contain control characters".to_owned());
        }
        if text.trim().is_empty() {
            return Err("must not be blank".to_owned());
        }
        Ok(text)
    }
}

/// Text of several lines, at most `chars_max` characters.
pub(super) fn prose(chars_max: usize) -> impl FnOnce(Value) -> Result<String, String> {
    move |value| {
        let text = string(value)?;
        in_range(text.chars().count(), &(0..=chars_max), "characters long")?;
        if text.chars().any(|char| char.is_control() && char != '\n' && char != '\t' && char != '\r') {
            return Err("must not contain control characters other than line ends and tabs".to_owned());
        }
        Ok(text)
    }
}

/// Text whose form others check.
pub(super) fn string(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("must be a string; it is {}", kind(&other))),
    }
}

/// A secret of `bytes` bytes. No error repeats any of it.
pub(super) fn secret(bytes: RangeInclusive<usize>) -> impl FnOnce(Value) -> Result<Secret, String> {
    move |value| {
        let secret = Secret::new(string(value)?);
        in_range(secret.expose().len(), &bytes, "bytes long")?;
        Ok(secret)
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(value),
        other => Err(format!("must be true or false; it is {}", kind(&other))),
    }
}

/// A whole number within bounds.
pub(super) fn number<N: TryFrom<u64> + Into<u64> + Copy>(
    range: RangeInclusive<N>,
) -> impl Fn(Value) -> Result<N, String> {
    let (min, max): (u64, u64) = ((*range.start()).into(), (*range.end()).into());
    move |value| match value.as_u64() {
        Some(number) if (min..=max).contains(&number) => {
            N::try_from(number).map_err(|_| format!("must be from {min} to {max}"))
        }
        _ if value.is_number() => Err(format!("must be a whole number from {min} to {max}; it is {value}")),
        _ => Err(format!("must be a whole number from {min} to {max}; it is {}", kind(&value))),
    }
}

/// A list of at most `items_max` items.
pub(super) fn list<T>(
    items_max: usize,
    read: impl Fn(Value) -> Result<T, String>,
) -> impl FnOnce(Value) -> Result<Vec<T>, String> {
    move |value| match value {
        Value::Array(items) if items.len() <= items_max => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| read(item).map_err(|detail| format!("has a wrong item {index}: it {detail}")))
            .collect(),
        Value::Array(items) => Err(format!("has {} items; at most {items_max} are allowed", items.len())),
        other => Err(format!("must be a list; it is {}", kind(&other))),
    }
}

/// A free object within bounds: `bytes_max` as compact JSON.
pub(super) fn object(bytes_max: usize, depth_max: usize) -> impl FnOnce(Value) -> Result<Map<String, Value>, String> {
    move |value| {
        let deep = depth(&value);
        let Value::Object(members) = value else {
            return Err(format!("must be an object; it is {}", kind(&value)));
        };
        if deep > depth_max {
            return Err(format!("is nested {deep} levels deep; at most {depth_max} are allowed"));
        }
        let bytes = serde_json::to_vec(&members).map_or(usize::MAX, |text| text.len());
        if bytes > bytes_max {
            return Err(format!("is {bytes} bytes as JSON; at most {bytes_max} are allowed"));
        }
        Ok(members)
    }
}

/// A moment as RFC 3339 text; milliseconds since 1970, before which nothing is told apart.
pub(super) fn moment(value: Value) -> Result<u64, String> {
    parse_moment(&string(value)?)
}

/// The same of a text.
pub(super) fn parse_moment(text: &str) -> Result<u64, String> {
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => Ok(u64::try_from(at.as_millisecond()).unwrap_or(0)),
        // jiff keeps the last hours before the year 10000 free for time zones; others write them for "never".
        Err(error) if error.is_range() && text.starts_with("9999-12-31T") => Ok(NEVER_MS),
        Err(_) => Err(format!("must be a time such as `2026-01-31T08:00:00Z`; it is `{}`", quoted(text))),
    }
}

/// A name out of a table, in lower or upper case.
pub(super) fn one_of<T: Copy>(table: &[(&'static str, T)]) -> impl FnOnce(Value) -> Result<T, String> {
    move |value| {
        let text = string(value)?;
        match table.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text)) {
            Some((_, made)) => Ok(*made),
            None => Err(not_one_of(&text, table.iter().map(|(name, _)| *name))),
        }
    }
}

/// The words for a name that is in no table.
pub(super) fn not_one_of<'a>(text: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let known = listed(names.clone());
    match nearest(text, names) {
        Some(near) => format!("`{}` is not known; did you mean `{near}`? known are {known}", quoted(text)),
        None => format!("`{}` is not known; known are {known}", quoted(text)),
    }
}

fn in_range(length: usize, range: &RangeInclusive<usize>, what: &str) -> Result<(), String> {
    if range.contains(&length) {
        return Ok(());
    }
    Err(format!("must be {} to {} {what}; it is {length}", range.start(), range.end()))
}

/// Levels of nesting; a plain value has none. The parser has bounded them.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The known name that was probably meant: at most a third of it differs.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > QUOTE_CHARS_MAX {
        return None;
    }
    known
        .map(|known| (strsim::damerau_levenshtein(&name.to_ascii_lowercase(), known), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min()
        .map(|(_, known)| known)
}

/// "`a`, `b`".
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn readers_hold_their_bounds() {
        assert!(line(1..=3)(json!("äöü")).is_ok());
        assert!(line(1..=3)(json!("abcd")).is_err());
        assert!(line(1..=3)(json!(" ")).is_err());
        assert!(line(1..=9)(json!("a\nb")).is_err());
        assert!(prose(9)(json!("a\nb")).is_ok());
        assert!(prose(9)(json!("a\u{0}b")).is_err());
        assert!(number::<u16>(1..=256)(json!(256)).is_ok());
        assert!(number::<u16>(1..=256)(json!(-1)).is_err());
        assert!(number::<u16>(1..=256)(json!(1.5)).is_err());
        assert!(list(2, number::<u64>(0..=9))(json!([1, 2, 3])).is_err());
        assert!(list(2, number::<u64>(0..=9))(json!([1, 20])).is_err_and(|text| text.contains("item 1")));
        assert!(object(100, 2)(json!({"a": {"b": 1}})).is_ok());
        assert!(object(100, 2)(json!({"a": {"b": []}})).is_err_and(|text| text.contains("3 levels")));
        assert!(object(10, 2)(json!({"a": "0123456789"})).is_err());
        assert_eq!(one_of(&[("sms", 1), ("email", 2)])(json!("EMAIL")), Ok(2));
        assert!(
            one_of(&[("sms", 1), ("email", 2)])(json!("emial"))
                .is_err_and(|text| text.contains("did you mean `email`"))
        );
    }
}
