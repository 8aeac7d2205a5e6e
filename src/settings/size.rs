//! Sizes in settings: bytes as a number, or a text such as `64 MiB`. Used as `#[serde(with = "size")]`.
//!
//! Units are powers of 1,024 and spelled so (`KiB`, `MiB`, `GiB`, `TiB`): `MB` is refused rather than guessed at.

use std::fmt;

use serde::{Deserializer, Serializer, de};

const UNITS: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// What a text must look like.
const EXPECTED: &str = "a size in bytes, such as 65536 or \"64 KiB\" (B, KiB, MiB, GiB, TiB)";

/// Reads a size text: digits, optional spaces, optional unit in any case.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// Writes a size in the largest unit that divides it.
pub fn format(bytes: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| bytes != 0 && bytes.is_multiple_of(*factor);
    match UNITS.iter().rev().find(fits) {
        Some((unit, factor)) => format!("{} {unit}", bytes / factor),
        None => "0 B".to_owned(),
    }
}

/// Writes the size as a text.
pub(super) fn serialize<T, S>(size: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    T: Copy + TryInto<u64>,
    S: Serializer,
{
    let bytes = (*size).try_into().map_err(|_| serde::ser::Error::custom("a size does not fit 64 bits"))?;
    serializer.serialize_str(&format(bytes))
}

/// Takes a number of bytes or a size text.
pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: TryFrom<u64>,
    D: Deserializer<'de>,
{
    let bytes = deserializer.deserialize_any(SizeVisitor)?;
    T::try_from(bytes).map_err(|_| de::Error::invalid_value(de::Unexpected::Unsigned(bytes), &EXPECTED))
}

struct SizeVisitor;

impl de::Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in any::<u64>()) {
            prop_assert_eq!(parse(&format(bytes)), Some(bytes));
        }
    }

    #[test]
    fn reads_numbers_and_units() {
        for (text, want) in [("0", 0), ("65536", 65_536), ("64 KiB", 65_536), ("1mib", 1 << 20), (" 2 GiB ", 2 << 30)] {
            assert_eq!(parse(text), Some(want), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_would_have_to_guess() {
        for text in ["", "MiB", "1 MB", "1.5 MiB", "-1", "1 MiB of it", "99999999999 GiB", "18446744073709551616"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
