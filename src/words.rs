//! Counts in messages for people.

use std::fmt::Display;

/// So many of them: `1 key`, `2 keys`.
pub(crate) fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let ending = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one() {
        let told = [0u64, 1, 2].map(|count| counted(count, "key"));
        assert_eq!(told, ["0 keys", "1 key", "2 keys"]);
        assert_eq!(counted(1usize, "segment"), "1 segment");
    }
}
