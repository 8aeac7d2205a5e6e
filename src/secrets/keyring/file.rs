//! A ring as text:
//!
//! ```toml
//! version = 1
//! primary = "5f0c21aa"
//!
//! [keys.5f0c21aa]
//! created = "2026-11-27T15:34:20Z"
//! key = "<base64 of 32 bytes>"
//!
//! [keys.0a0b0c0d]
//! created = "2025-11-27T15:34:20Z"
//! retired = "2026-11-28T08:00:00Z"
//! ```

use std::{collections::BTreeMap, fmt::Write, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{ID_BYTES, KEY_BYTES, KEYS_MAX, KeyId, KeyRing, KeyRingError, RETIRED_KEPT, RetiredKey, RingKey};
use crate::secrets::private_file;

/// The format that is written, and the only one that is read.
const VERSION: u32 = 1;
/// The text at most: room for every key that a ring holds.
pub(in crate::secrets) const FILE_BYTES_MAX: u16 = 16 << 10;
/// One key's lines at most.
const ENTRY_BYTES: usize = 128;
const HEAD_BYTES: usize = 512;
const HEAD: &str = "\
# The key ring of hookmill. Whoever has this and the store can read every stored secret; without it nobody can.
# Keep a copy of it, apart from the backups of the store.
";

const _: () = assert!(HEAD_BYTES + (KEYS_MAX + RETIRED_KEPT) * ENTRY_BYTES <= FILE_BYTES_MAX as usize);

impl KeyRing {
    /// Reads a ring's text. What is wrong is told without any of the text.
    pub(in crate::secrets) fn parse(text: &str) -> Result<Self, String> {
        // The parser's own message would quote the line, and the line may hold a key.
        let file: RingFile = toml::from_str(text).map_err(|error| match error.span() {
            Some(span) => {
                let line = 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
                format!("line {line} is not as hookmill wrote it")
            }
            None => "the text is not as hookmill wrote it".to_owned(),
        })?;
        if file.version != VERSION {
            return Err(format!("format version {} is not known; this hookmill knows {VERSION}", file.version));
        }
        let (mut keys, mut retired) = (Vec::new(), Vec::new());
        for (name, entry) in &file.keys {
            match parse_key(name, entry)? {
                Entry::Key(key) => keys.push(key),
                Entry::Retired(key) => retired.push(key),
            }
        }
        if keys.len() > KEYS_MAX || retired.len() > RETIRED_KEPT {
            return Err(format!("more than {KEYS_MAX} keys, or more than {RETIRED_KEPT} retired ones"));
        }
        retired.sort_by_key(|key: &RetiredKey| (key.retired_at_ms, key.id));
        let Some(primary) = keys.iter().position(|key| key.id.to_string() == file.primary) else {
            return Err("`primary` names none of the `keys` that have a `key`".to_owned());
        };
        Ok(Self { keys, primary, retired })
    }

    /// Writes the ring into a new file, mode 0600.
    ///
    /// # Errors
    /// The file is there already; failing I/O.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyRingError> {
        Ok(private_file::create(path, &self.to_text())?)
    }

    /// The ring's text.
    pub(in crate::secrets) fn to_text(&self) -> Zeroizing<String> {
        // Made large enough at once: a buffer that grows leaves copies behind that nobody wipes.
        let entries = self.keys.len() + self.retired.len();
        let mut text = Zeroizing::new(String::with_capacity(HEAD_BYTES + entries * ENTRY_BYTES));
        text.push_str(HEAD);
        let _ = writeln!(text, "version = {VERSION}\nprimary = \"{}\"", self.primary_id());
        for key in &self.keys {
            let bytes = Zeroizing::new(BASE64.encode(key.bytes.as_slice()));
            let _ =
                writeln!(text, "\n[keys.{}]\ncreated = \"{}\"\nkey = \"{}\"", key.id, time(key.created_at_ms), *bytes);
        }
        for key in &self.retired {
            let (created, retired) = (time(key.created_at_ms), time(key.retired_at_ms));
            let _ = writeln!(text, "\n[keys.{}]\ncreated = \"{created}\"\nretired = \"{retired}\"", key.id);
        }
        text
    }
}

/// RFC 3339 in UTC.
pub(super) fn time(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

fn parse_time(name: &str, text: &str) -> Result<u64, String> {
    let time: Option<jiff::Timestamp> = text.parse().ok();
    time.and_then(|time| u64::try_from(time.as_millisecond()).ok())
        .ok_or_else(|| format!("`{name}` is no time such as `2026-11-27T15:34:20Z`"))
}

enum Entry {
    Key(RingKey),
    Retired(RetiredKey),
}

fn parse_key(name: &str, entry: &KeyEntry) -> Result<Entry, String> {
    let id: KeyId = name.parse().map_err(|_| format!("a key's id is not {} lower-case hex digits", 2 * ID_BYTES))?;
    let created_at_ms = parse_time("created", &entry.created)?;
    match (&entry.key, &entry.retired) {
        (Some(text), None) => {
            let mut bytes = Zeroizing::new([0; KEY_BYTES]);
            let decoded = Zeroizing::new(BASE64.decode(&text.0).map_err(|_| format!("key `{id}` is not base64"))?);
            if decoded.len() != KEY_BYTES {
                return Err(format!("key `{id}` has {} bytes; a key has {KEY_BYTES}", decoded.len()));
            }
            bytes.copy_from_slice(&decoded);
            Ok(Entry::Key(RingKey { id, created_at_ms, bytes: Arc::new(bytes) }))
        }
        (None, Some(retired)) => {
            let retired_at_ms = parse_time("retired", retired)?;
            Ok(Entry::Retired(RetiredKey { id, created_at_ms, retired_at_ms }))
        }
        _ => Err(format!("key `{id}` must have `key` or `retired`, and not both")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RingFile {
    version: u32,
    primary: String,
    keys: BTreeMap<String, KeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    created: String,
    retired: Option<String>,
    key: Option<KeyText>,
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
struct KeyText(String);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::tests::{known, made_by, rotated, steps},
        *,
    };

    proptest! {
        #[test]
        fn a_ring_survives_as_text(steps in steps()) {
            let ring = made_by(&steps);
            let text = ring.to_text();
            prop_assert!(text.len() <= usize::from(FILE_BYTES_MAX));
            let back = KeyRing::parse(&text).unwrap();
            prop_assert_eq!(back.infos(), ring.infos());
            prop_assert_eq!(back.primary_id(), ring.primary_id());
            for key in &ring.keys {
                prop_assert_eq!(&back.key(key.id).unwrap().bytes, &key.bytes);
            }
        }

        #[test]
        fn any_altered_byte_gives_another_ring_or_is_refused_without_the_key(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let ring = rotated(&known());
            let whole = ring.to_text();
            let mut bytes = whole.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
            if let Err(problem) = KeyRing::parse(&text) {
                for key in &ring.keys {
                    let secret = BASE64.encode(key.bytes.as_slice());
                    prop_assert!(!problem.contains(&secret[..8]), "{}", problem);
                }
            }
        }

        #[test]
        fn a_text_that_breaks_off_never_opens_as_a_smaller_ring(end in any::<prop::sample::Index>()) {
            let ring = made_by(&[]).with_new_key(9).unwrap().0;
            let whole = ring.to_text();
            let cut = &whole[..end.index(whole.len())];
            if let Ok(back) = KeyRing::parse(cut) {
                // Cut between two keys: `primary` still names the key that seals, and nothing is sealed anew.
                prop_assert_eq!(back.primary_id(), ring.primary_id());
            }
        }

        #[test]
        fn any_text_is_a_ring_or_refused(text in "\\PC{0,200}") {
            let _ = KeyRing::parse(&text);
        }
    }

    #[test]
    fn a_damaged_text_is_told_without_itself() {
        let key = BASE64.encode([7; 32]);
        let short = BASE64.encode([7; 31]);
        let one = |id: &str, lines: &str| format!("version = 1\nprimary = \"{id}\"\n[keys.{id}]\n{lines}\n");
        let created = "created = \"2026-01-01T00:00:00Z\"";
        let good = format!("{created}\nkey = \"{key}\"");
        assert!(KeyRing::parse(&one("0a0b0c0d", &good)).is_ok());
        let cases = [
            (String::new(), "not as hookmill wrote it"),
            (one("0a0b0c0d", &format!("{created}\nkey = {key}")), "line 5"),
            (one("0a0b0c0d", &good).replace("version = 1", "version = 2"), "format version 2"),
            (one("0a0b0c0d", &good).replace("primary = \"0a0b0c0d\"", "primary = \"0a0b0c0e\""), "`primary`"),
            (one("0a0b0c0d", &format!("{created}\nkey = \"{short}\"")), "31 bytes"),
            (one("0a0b0c0d", &format!("{created}\nkey = \"*{key}\"")), "not base64"),
            (one("0a0b0c0d", created), "`key` or `retired`"),
            (one("0a0b0c0d", &format!("{good}\nretired = \"2026-01-01T00:00:00Z\"")), "not both"),
            (one("0a0b0c0d", &format!("created = \"soon\"\nkey = \"{key}\"")), "`created` is no time"),
            (one("0a0b0c0d", &format!("{created}\nretired = \"2026-01-01T00:00:00Z\"")), "`primary`"),
            (one("x", &good), "8 lower-case hex digits"),
            (format!("version = 1\nextra = \"{key}\"\nprimary = \"x\"\n[keys]\n"), "line 2"),
            (format!("{}\n[keys.0a0b0c0d]\n{good}\n", one("0a0b0c0d", &good)), "not as hookmill wrote it"),
        ];
        for (text, want) in cases {
            let problem = KeyRing::parse(&text).unwrap_err();
            assert!(
                problem.contains(want) || (want == "not as hookmill wrote it" && problem.contains("is not as")),
                "{text}: {problem}"
            );
            assert!(!problem.contains(&key[..8]), "{problem}");
        }
    }
}
