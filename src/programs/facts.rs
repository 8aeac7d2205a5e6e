//! The envelope of an event as texts, the same for every engine.

use std::borrow::Cow;

use hookmill_actors::domain::headers::HeaderBlock;

/// RFC 3339 in UTC.
pub(super) fn time(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// Headers by lower-case name. A repeated header is one text, its values joined by `, ` in their order, as
/// RFC 9110 5.3 has it.
pub(super) fn headers<'a>(
    block: &'a HeaderBlock,
    wanted: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
    let mut joined: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
    for (name, value) in block {
        if !wanted(name) {
            continue;
        }
        let value = String::from_utf8_lossy(value);
        match joined.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => {
                let values = values.to_mut();
                values.push_str(", ");
                values.push_str(&value);
            }
            None => joined.push((Cow::Borrowed(name), value)),
        }
    }
    joined.into_iter()
}
