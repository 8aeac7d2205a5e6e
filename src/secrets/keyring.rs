//! The key ring: 32-byte keys with ids, in a file that only we may read. One key is current and seals; the others
//! still open what they sealed.
//!
//! ```toml
//! version = 1
//! current = "5f0c21aa"
//! [keys]
//! 5f0c21aa = "<base64 of 32 bytes>"
//! ```

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{
    private_file::{self, PrivateFileError},
    random_bytes,
};

/// The file's format that is written, and the only one that is read.
const VERSION: u32 = 1;
/// The file at most: room for more keys than anybody rotates through.
const FILE_BYTES_MAX: u16 = 16 << 10;
/// In the data folder, beside the store's folder and not in it: a backup of the store holds no key.
const FILE_NAME: &str = "keys.toml";
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 4;
/// Bytes of a check value: enough that a wrong key does not match by chance.
const CHECK_BYTES: usize = 16;

/// Where the ring's file is: where `HOOKMILL_KEY_FILE` says, else in the data folder.
pub fn key_file_path(data_dir: &Path, variable: Option<PathBuf>) -> PathBuf {
    variable.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| data_dir.join(FILE_NAME))
}

/// Why there is no key ring. Never says what is in the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// The store was sealed with a ring that is gone. A new one would make its secrets unreadable for good.
    #[error("the store exists, but its key file `{}` does not", .0.display())]
    Missing(PathBuf),
    /// The file is not private, or was not read or made.
    #[error("key file: {0}")]
    File(#[from] PrivateFileError),
    /// The file is damaged.
    #[error("key file `{}`: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right; nothing of the file's text.
        problem: String,
    },
    /// The store was sealed with another ring.
    #[error("the key file is not the store's: the store was sealed with key `{stored}`, and {found}")]
    WrongRing {
        /// The id of the key that the store was sealed with.
        stored: String,
        /// What the ring has instead.
        found: &'static str,
    },
}

impl KeyRingError {
    /// What to do next, for people.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::File(_) => "mend the file's owner and mode as told above, and start again",
            Self::Missing(_) | Self::Malformed { .. } | Self::WrongRing { .. } => {
                "put the store's key file back from your copy of it, or name it in HOOKMILL_KEY_FILE; without it the \
                 stored secrets cannot be opened"
            }
        }
    }
}

/// A key's short name, in the file and in every sealed text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId(pub(super) [u8; ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// One key.
pub(super) struct RingKey {
    pub(super) id: KeyId,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl RingKey {
    fn generate() -> Self {
        Self { id: KeyId(random_bytes()), bytes: Zeroizing::new(random_bytes()) }
    }

    /// A key for one purpose only (HMAC-SHA256 as a pseudo-random function, RFC 2104): what one purpose's key
    /// reveals says nothing of the others.
    pub(super) fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(hmac_sha256(&*self.bytes, purpose.as_bytes()))
    }
}

pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// The keys that secrets are sealed with. Wiped when dropped; `Debug` shows ids only.
pub struct KeyRing {
    keys: Vec<RingKey>,
    current: usize,
}

impl KeyRing {
    /// Reads the ring's file. Where there is none it is made, mode 0600, unless the store exists already.
    ///
    /// # Errors
    /// A file that others can read, is not ours, or is damaged; none beside an existing store; failing I/O.
    pub fn open_or_create(path: &Path, store_exists: bool) -> Result<Self, KeyRingError> {
        match private_file::read(path, FILE_BYTES_MAX)? {
            Some(text) => {
                Self::parse(&text).map_err(|problem| KeyRingError::Malformed { path: path.to_owned(), problem })
            }
            None if store_exists => Err(KeyRingError::Missing(path.to_owned())),
            None => {
                let ring = Self::generate();
                private_file::create(path, &ring.to_text())?;
                Ok(ring)
            }
        }
    }

    /// A ring of one new key, in memory only.
    pub fn generate() -> Self {
        Self { keys: vec![RingKey::generate()], current: 0 }
    }

    fn parse(text: &str) -> Result<Self, String> {
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
        let keys = file.keys.iter().map(|(id, key)| parse_key(id, &key.0)).collect::<Result<Vec<_>, _>>()?;
        let current = keys.iter().position(|key| key.id.to_string() == file.current);
        let Some(current) = current else {
            return Err("`current` names none of the `[keys]`".to_owned());
        };
        Ok(Self { keys, current })
    }

    fn to_text(&self) -> Zeroizing<String> {
        let head_bytes = 512;
        let line_bytes = 2 * ID_BYTES + KEY_BYTES.div_ceil(3) * 4 + 8;
        // Made large enough at once: a buffer that grows leaves copies behind that nobody wipes.
        let mut text = Zeroizing::new(String::with_capacity(head_bytes + self.keys.len() * line_bytes));
        text.push_str(
            "# The key ring of hookmill. Whoever has this file and the store can read every stored secret; without it\n\
             # nobody can. Keep a copy of it, apart from the backups of the store.\n",
        );
        let _ = write!(text, "version = {VERSION}\ncurrent = \"{}\"\n\n[keys]\n", self.current().id);
        for key in &self.keys {
            let bytes = Zeroizing::new(BASE64.encode(key.bytes.as_slice()));
            let _ = writeln!(text, "{} = \"{}\"", key.id, *bytes);
        }
        text
    }

    pub(super) fn current(&self) -> &RingKey {
        &self.keys[self.current]
    }

    pub(super) fn key(&self, id: KeyId) -> Option<&RingKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// A text for the store to keep, by which [`KeyRing::verify_check`] knows this ring again. Reveals no key.
    pub fn check_value(&self) -> String {
        check_of(self.current())
    }

    /// Whether a store that holds this check value was sealed with a key of this ring. A ring whose current key
    /// is newer than the store's passes; the store may then keep the new check value.
    ///
    /// # Errors
    /// [`KeyRingError::WrongRing`].
    pub fn verify_check(&self, stored: &str) -> Result<(), KeyRingError> {
        let name = stored.split(':').nth(1).unwrap_or_default();
        let wrong = |found| KeyRingError::WrongRing { stored: name.chars().take(2 * ID_BYTES).collect(), found };
        let Some(key) = self.keys.iter().find(|key| key.id.to_string() == name) else {
            return Err(wrong("the key file has no such key"));
        };
        if bool::from(check_of(key).as_bytes().ct_eq(stored.as_bytes())) {
            Ok(())
        } else {
            Err(wrong("the key file has another key of that id"))
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|key| key.id.to_string()).collect::<Vec<_>>();
        f.debug_struct("KeyRing").field("keys", &ids).field("current", &ids[self.current]).finish()
    }
}

fn check_of(key: &RingKey) -> String {
    let check = key.derive("hookmill/check/v1");
    format!("v1:{}:{}", key.id, hex::encode(&check[..CHECK_BYTES]))
}

fn parse_key(id: &str, text: &str) -> Result<RingKey, String> {
    let mut key = RingKey { id: KeyId([0; ID_BYTES]), bytes: Zeroizing::new([0; KEY_BYTES]) };
    if hex::decode_to_slice(id, &mut key.id.0).is_err() || key.id.to_string() != id {
        return Err(format!("a key's id is not {} lower-case hex digits", 2 * ID_BYTES));
    }
    let bytes = Zeroizing::new(BASE64.decode(text).map_err(|_| format!("key `{id}` is not base64"))?);
    if bytes.len() != KEY_BYTES {
        return Err(format!("key `{id}` has {} bytes; a key has {KEY_BYTES}", bytes.len()));
    }
    key.bytes.copy_from_slice(&bytes);
    Ok(key)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RingFile {
    version: u32,
    current: String,
    keys: BTreeMap<String, KeyText>,
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
struct KeyText(String);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
pub(super) mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use super::*;

    /// A ring of one known key, for texts that another program sealed.
    pub(in crate::secrets) fn known() -> KeyRing {
        let key = BASE64.encode([7; KEY_BYTES]);
        KeyRing::parse(&format!("version = 1\ncurrent = \"5f0c21aa\"\n[keys]\n5f0c21aa = \"{key}\"\n")).unwrap()
    }

    /// The ring with another, new key as the current one.
    pub(in crate::secrets) fn rotated(ring: &KeyRing) -> KeyRing {
        let mut rotated = KeyRing::parse(&ring.to_text()).unwrap();
        rotated.keys.push(RingKey::generate());
        rotated.current = rotated.keys.len() - 1;
        rotated
    }

    #[test]
    fn the_first_start_makes_a_private_file_and_later_ones_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = key_file_path(&folder.path().join("data"), None);
        let ring = KeyRing::open_or_create(&path, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let again = KeyRing::open_or_create(&path, true).unwrap();
        assert_eq!(ring.to_text(), again.to_text());
        again.verify_check(&ring.check_value()).unwrap();
    }

    #[test]
    fn a_missing_file_beside_a_store_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let error = KeyRing::open_or_create(&path, true).unwrap_err();
        assert!(matches!(error, KeyRingError::Missing(_)));
        assert!(error.next_step().contains("HOOKMILL_KEY_FILE"));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_others_can_read_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        KeyRing::open_or_create(&path, false).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let text = KeyRing::open_or_create(&path, true).unwrap_err().to_string();
        assert!(text.contains("chmod 600"), "{text}");
    }

    #[test]
    fn the_variable_names_the_file() {
        let data = Path::new("data");
        assert_eq!(key_file_path(data, Some("/run/keys".into())), PathBuf::from("/run/keys"));
        assert_eq!(key_file_path(data, Some("".into())), key_file_path(data, None));
        assert_eq!(key_file_path(data, None), PathBuf::from("data/keys.toml"));
    }

    #[test]
    fn a_damaged_file_is_told_without_its_text() {
        let key = BASE64.encode([7; 32]);
        let short = BASE64.encode([7; 31]);
        let cases = [
            (String::new(), "not as hookmill wrote it"),
            (format!("version = 1\ncurrent = \"0a0b0c0d\"\n[keys]\n0a0b0c0d = {key}\n"), "line 4"),
            (format!("version = 2\ncurrent = \"0a0b0c0d\"\n[keys]\n0a0b0c0d = \"{key}\"\n"), "format version 2"),
            (format!("version = 1\ncurrent = \"0a0b0c0e\"\n[keys]\n0a0b0c0d = \"{key}\"\n"), "`current`"),
            (format!("version = 1\ncurrent = \"0a0b0c0d\"\n[keys]\n0a0b0c0d = \"{short}\"\n"), "31 bytes"),
            (format!("version = 1\ncurrent = \"0a0b0c0d\"\n[keys]\n0a0b0c0d = \"*{key}\"\n"), "not base64"),
            (format!("version = 1\ncurrent = \"x\"\n[keys]\nx = \"{key}\"\n"), "8 lower-case hex digits"),
            (format!("version = 1\nextra = \"{key}\"\ncurrent = \"x\"\n[keys]\n"), "line 2"),
        ];
        for (text, want) in cases {
            let problem = KeyRing::parse(&text).unwrap_err();
            assert!(problem.contains(want), "{problem} lacks {want}");
            assert!(!problem.contains(&key[..8]), "{problem}");
        }
    }

    #[test]
    fn a_check_value_tells_rings_apart() {
        let ring = KeyRing::generate();
        let newer = rotated(&ring);
        newer.verify_check(&ring.check_value()).unwrap();
        assert_ne!(newer.check_value(), ring.check_value());
        for stored in [KeyRing::generate().check_value(), newer.check_value(), String::new(), "v1".to_owned()] {
            assert!(matches!(ring.verify_check(&stored), Err(KeyRingError::WrongRing { .. })), "{stored}");
        }
        let mut altered = ring.check_value();
        altered.pop();
        assert!(ring.verify_check(&altered).unwrap_err().to_string().contains("another key of that id"));
    }

    #[test]
    fn a_check_value_stays_the_same_over_releases() {
        // Computed with Python's hmac.
        assert_eq!(known().check_value(), "v1:5f0c21aa:4c84a4d28e79233c447c1dc6f8cce26c");
    }

    #[test]
    fn debug_shows_no_key() {
        let ring = KeyRing::generate();
        let secret = BASE64.encode(ring.current().bytes.as_slice());
        assert!(ring.to_text().contains(&secret));
        let text = format!("{ring:?}");
        assert!(text.contains(&ring.current().id.to_string()) && text.len() < 80, "{text}");
    }
}
