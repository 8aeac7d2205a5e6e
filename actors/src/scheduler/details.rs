//! What a run says it did: lists as long as there is room for, and names as replies have them.

use serde::Serialize;
use serde_json::Value;

use super::RESULT_BYTES_MAX;

/// Bytes of a result that are left to what is no list.
const SUMMARY_BYTES: usize = 1 << 10;

/// The first of these that there is room for, and how many are left out.
pub(super) fn that_fit<T: Serialize>(items: impl IntoIterator<Item = T>) -> (Vec<Value>, usize) {
    let mut room = RESULT_BYTES_MAX - SUMMARY_BYTES;
    let (mut fitting, mut left_out) = (Vec::new(), 0);
    for item in items {
        let item = serde_json::to_value(item).unwrap_or_default();
        let bytes = item.to_string().len() + 1;
        if left_out > 0 || bytes > room {
            left_out += 1;
        } else {
            room -= bytes;
            fitting.push(item);
        }
    }
    (fitting, left_out)
}

/// A name as replies have it.
pub(super) fn name_of(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let (fitting, left_out) = that_fit((0..1_000).map(|_| "x".repeat(96)));
        assert_eq!(fitting.len() + left_out, 1_000);
        assert!(left_out > 0 && json!({"events": fitting}).to_string().len() <= RESULT_BYTES_MAX);
        assert_eq!(that_fit([1, 2]), (vec![json!(1), json!(2)], 0));
    }
}
