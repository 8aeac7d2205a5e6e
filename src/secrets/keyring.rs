//! The key ring: 32-byte keys with ids. One is the primary and seals; the active ones still open what they sealed; of
//! a retired one only the id and the times are left. A ring is a value: a change makes another one, and [`file`] is
//! how it is written down.

mod file;

use std::{
    fmt::{self, Write},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use zeroize::Zeroizing;

pub(super) use self::file::FILE_BYTES_MAX;
use super::{private_file::PrivateFileError, random_bytes};

const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 4;
/// Bytes of a check value: enough that a wrong key does not match by chance.
const CHECK_BYTES: usize = 16;
/// Keys that open, at most: more than anybody rotates through before he retires some.
const KEYS_MAX: usize = 64;
/// Retired keys that are remembered; the ones retired first are forgotten.
const RETIRED_KEPT: usize = 32;

/// Why there is no key ring. Never says what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// The store was sealed with a ring that is gone. A new one would make its secrets unreadable for good.
    #[error("the store exists, but its key file `{}` does not", .0.display())]
    Missing(PathBuf),
    /// The file is not private, or was not read or made.
    #[error("key file: {0}")]
    File(#[from] PrivateFileError),
    /// The ring is damaged.
    #[error("{origin}: {problem}")]
    Malformed {
        /// Where it was read.
        origin: String,
        /// What is wrong and what would be right; nothing of its text.
        problem: String,
    },
    /// The command that prints the ring did not.
    #[error("{origin} {problem}")]
    Command {
        /// Which.
        origin: String,
        /// What went wrong; nothing that it printed.
        problem: String,
    },
    /// Two places are named for the ring.
    #[error("{0} and {1} both name the key ring; leave one of them")]
    Ambiguous(&'static str, &'static str),
    /// The store was sealed with a key that the ring has not.
    #[error("the store holds secrets sealed with key `{key}`{holdings}, and {found}")]
    WrongRing {
        /// The id of that key.
        key: String,
        /// How many and of what kind, in brackets; empty where it was not counted.
        holdings: String,
        /// What the ring has instead.
        found: String,
    },
    /// What is sealed could not be looked through.
    #[error("what is sealed in the store cannot be read: {0}")]
    Store(String),
}

impl KeyRingError {
    /// What to do next, for people.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::File(_) => "mend the file's owner and mode as told above, and start again",
            Self::Command { .. } => "run the command of `secrets.key_command` by hand, mend it, and start again",
            Self::Ambiguous(..) => "leave one of them, and start again",
            Self::Store(_) => "look at the disk, and start again",
            Self::Missing(_) | Self::Malformed { .. } | Self::WrongRing { .. } => {
                "put the ring that has this key back: your copy of the key file (or name it in HOOKMILL_KEY_FILE), or \
                 what HOOKMILL_KEYRING or `secrets.key_command` gave; `hookmill keys add --from FILE` adds the keys of \
                 an older copy to the ring. Without the key the stored secrets cannot be opened"
            }
        }
    }
}

/// Why a ring cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingChangeError {
    /// There is none of that id.
    #[error("the ring has no key `{0}`")]
    NoSuchKey(KeyId),
    /// It is there no more.
    #[error("key `{0}` is retired: its bytes are gone")]
    Retired(KeyId),
    /// Something must seal.
    #[error("key `{0}` is the primary; rotate to another one first")]
    IsPrimary(KeyId),
    /// It seals already.
    #[error("key `{0}` is the primary already")]
    AlreadyPrimary(KeyId),
    /// Another ring has another key of that id.
    #[error("both rings have a key `{0}`, and they differ")]
    Differs(KeyId),
    /// There are as many as there may be.
    #[error("the ring has {KEYS_MAX} keys, the most it holds; retire some first")]
    TooMany,
}

/// A key's short name, in the ring and in every sealed text: 8 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(super) [u8; ID_BYTES]);

/// A text that is no key id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key's id is {} lower-case hex digits, such as `5f0c21aa`", 2 * ID_BYTES)]
pub struct BadKeyId;

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = BadKeyId;

    fn from_str(text: &str) -> Result<Self, BadKeyId> {
        let mut id = [0; ID_BYTES];
        hex::decode_to_slice(text, &mut id).map_err(|_| BadKeyId)?;
        let id = Self(id);
        // Hex in capitals would be a second name of the same key.
        if id.to_string() == text { Ok(id) } else { Err(BadKeyId) }
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Seals, and opens what it sealed.
    Primary,
    /// Opens what it sealed.
    Active,
    /// Gone.
    Retired,
}

/// What may be told of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its id.
    pub id: KeyId,
    /// What it is for.
    pub state: KeyState,
    /// When it was made, milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it was retired, milliseconds since 1970.
    pub retired_at_ms: Option<u64>,
}

/// One key.
#[derive(Clone)]
pub(super) struct RingKey {
    pub(super) id: KeyId,
    created_at_ms: u64,
    bytes: Arc<Zeroizing<[u8; KEY_BYTES]>>,
}

impl RingKey {
    fn generate(now_ms: u64) -> Self {
        Self { id: KeyId(random_bytes()), created_at_ms: now_ms, bytes: Arc::new(Zeroizing::new(random_bytes())) }
    }

    /// A key for one purpose only (HMAC-SHA256 as a pseudo-random function, RFC 2104): what one purpose's key
    /// reveals says nothing of the others.
    pub(super) fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(hmac_sha256(&**self.bytes, purpose.as_bytes()))
    }

    fn is(&self, other: &Self) -> bool {
        bool::from(self.bytes.ct_eq(&**other.bytes))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct RetiredKey {
    id: KeyId,
    created_at_ms: u64,
    retired_at_ms: u64,
}

pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// The keys that secrets are sealed with. Wiped when the last copy is dropped; `Debug` shows ids only.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<RingKey>,
    primary: usize,
    retired: Vec<RetiredKey>,
}

impl KeyRing {
    /// A ring of one new key, in memory only.
    pub fn generate(now_ms: u64) -> Self {
        Self { keys: vec![RingKey::generate(now_ms)], primary: 0, retired: Vec::new() }
    }

    pub(super) fn primary(&self) -> &RingKey {
        &self.keys[self.primary]
    }

    /// The key that seals.
    pub fn primary_id(&self) -> KeyId {
        self.primary().id
    }

    /// Whether there is a key of that id that opens.
    pub fn opens(&self, id: KeyId) -> bool {
        self.key(id).is_some()
    }

    pub(super) fn key(&self, id: KeyId) -> Option<&RingKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// What may be told of the keys, retired ones too; the oldest first.
    pub fn infos(&self) -> Vec<KeyInfo> {
        let info = |key: &RingKey| KeyInfo {
            id: key.id,
            state: if key.id == self.primary_id() { KeyState::Primary } else { KeyState::Active },
            created_at_ms: key.created_at_ms,
            retired_at_ms: None,
        };
        let retired = |key: &RetiredKey| KeyInfo {
            id: key.id,
            state: KeyState::Retired,
            created_at_ms: key.created_at_ms,
            retired_at_ms: Some(key.retired_at_ms),
        };
        let mut infos: Vec<_> = self.retired.iter().map(retired).chain(self.keys.iter().map(info)).collect();
        infos.sort_by_key(|info| (info.created_at_ms, info.id));
        infos
    }

    /// The ring with a new key, which opens but does not seal.
    pub fn with_new_key(&self, now_ms: u64) -> Result<(Self, KeyId), RingChangeError> {
        let mut key = RingKey::generate(now_ms);
        while self.knows(key.id) {
            key.id = KeyId(random_bytes());
        }
        let id = key.id;
        let mut ring = self.clone();
        ring.push(key)?;
        Ok((ring, id))
    }

    /// The ring with another one of its keys as the primary.
    pub fn with_primary(&self, id: KeyId) -> Result<Self, RingChangeError> {
        if self.primary_id() == id {
            return Err(RingChangeError::AlreadyPrimary(id));
        }
        let primary = self.keys.iter().position(|key| key.id == id).ok_or_else(|| self.lacks(id))?;
        Ok(Self { primary, ..self.clone() })
    }

    /// The ring without the bytes of one of its keys.
    pub fn with_retired(&self, id: KeyId, now_ms: u64) -> Result<Self, RingChangeError> {
        if self.primary_id() == id {
            return Err(RingChangeError::IsPrimary(id));
        }
        let at = self.keys.iter().position(|key| key.id == id).ok_or_else(|| self.lacks(id))?;
        let primary = self.primary_id();
        let mut ring = self.clone();
        let key = ring.keys.remove(at);
        ring.primary = ring.keys.iter().position(|key| key.id == primary).expect("the primary is another key");
        ring.retired.push(RetiredKey { id, created_at_ms: key.created_at_ms, retired_at_ms: now_ms });
        let surplus = ring.retired.len().saturating_sub(RETIRED_KEPT);
        ring.retired.drain(..surplus);
        Ok(ring)
    }

    /// The ring with all keys of another one that it has not, to open with, and which those are. A key that was
    /// retired here comes back.
    pub fn with_keys_of(&self, other: &Self) -> Result<(Self, Vec<KeyId>), RingChangeError> {
        let mut ring = self.clone();
        let mut added = Vec::new();
        for key in &other.keys {
            match self.key(key.id) {
                Some(own) if own.is(key) => {}
                Some(own) => return Err(RingChangeError::Differs(own.id)),
                None => {
                    ring.retired.retain(|retired| retired.id != key.id);
                    ring.push(key.clone())?;
                    added.push(key.id);
                }
            }
        }
        Ok((ring, added))
    }

    fn push(&mut self, key: RingKey) -> Result<(), RingChangeError> {
        if self.keys.len() == KEYS_MAX {
            return Err(RingChangeError::TooMany);
        }
        self.keys.push(key);
        Ok(())
    }

    fn knows(&self, id: KeyId) -> bool {
        self.opens(id) || self.retired.iter().any(|key| key.id == id)
    }

    fn lacks(&self, id: KeyId) -> RingChangeError {
        if self.knows(id) { RingChangeError::Retired(id) } else { RingChangeError::NoSuchKey(id) }
    }

    /// A text for the store to keep, by which [`KeyRing::verify_check`] knows the primary again. Reveals no key.
    pub fn check_value(&self) -> String {
        check_of(self.primary())
    }

    /// Whether the ring has the very key that this check value was made of.
    ///
    /// # Errors
    /// [`KeyRingError::WrongRing`], nothing counted.
    pub fn verify_check(&self, stored: &str) -> Result<KeyId, KeyRingError> {
        let name: String = stored.split(':').nth(1).unwrap_or_default().chars().take(2 * ID_BYTES).collect();
        let wrong = |found: String| KeyRingError::WrongRing { key: name.clone(), holdings: String::new(), found };
        let Some(key) = self.keys.iter().find(|key| key.id.to_string() == name) else {
            let mut found = "the key ring has no such key".to_owned();
            if let Some(key) = self.retired.iter().find(|key| key.id.to_string() == name) {
                let _ = write!(found, ": it was retired at {}", file::time(key.retired_at_ms));
            }
            return Err(wrong(found));
        };
        if bool::from(check_of(key).as_bytes().ct_eq(stored.as_bytes())) {
            Ok(key.id)
        } else {
            Err(wrong("the key ring has another key of that id".to_owned()))
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|key| key.id.to_string()).collect::<Vec<_>>();
        f.debug_struct("KeyRing").field("keys", &ids).field("primary", &ids[self.primary]).finish_non_exhaustive()
    }
}

fn check_of(key: &RingKey) -> String {
    let check = key.derive("hookmill/check/v1");
    format!("v1:{}:{}", key.id, hex::encode(&check[..CHECK_BYTES]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
pub(super) mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
    use proptest::prelude::*;

    use super::*;

    /// A ring of one known key, for texts that another program sealed.
    pub(in crate::secrets) fn known() -> KeyRing {
        let key = RingKey {
            id: "5f0c21aa".parse().unwrap(),
            created_at_ms: 0,
            bytes: Arc::new(Zeroizing::new([7; KEY_BYTES])),
        };
        KeyRing { keys: vec![key], primary: 0, retired: Vec::new() }
    }

    /// The ring with another, new key as the primary.
    pub(in crate::secrets) fn rotated(ring: &KeyRing) -> KeyRing {
        let (ring, id) = ring.with_new_key(1).unwrap();
        ring.with_primary(id).unwrap()
    }

    /// What anybody may do to a ring.
    #[derive(Clone, Debug)]
    pub(super) enum Step {
        Add,
        Promote(prop::sample::Index),
        Retire(prop::sample::Index),
    }

    pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Add),
            any::<prop::sample::Index>().prop_map(Step::Promote),
            any::<prop::sample::Index>().prop_map(Step::Retire),
        ];
        proptest::collection::vec(step, 0..40)
    }

    pub(super) fn made_by(steps: &[Step]) -> KeyRing {
        let mut ring = KeyRing::generate(1_700_000_000_000);
        for (now_ms, step) in (1_700_000_000_001..).zip(steps) {
            let pick = |index: &prop::sample::Index| ring.keys[index.index(ring.keys.len())].id;
            let next = match step {
                Step::Add => ring.with_new_key(now_ms).map(|(ring, _)| ring),
                Step::Promote(index) => ring.with_primary(pick(index)),
                Step::Retire(index) => ring.with_retired(pick(index), now_ms),
            };
            ring = next.unwrap_or(ring);
        }
        ring
    }

    proptest! {
        #[test]
        fn whatever_is_done_one_key_seals_and_none_comes_back(steps in steps()) {
            let ring = made_by(&steps);
            let infos = ring.infos();
            let primaries: Vec<_> = infos.iter().filter(|info| info.state == KeyState::Primary).collect();
            prop_assert_eq!(primaries.len(), 1);
            prop_assert_eq!(primaries[0].id, ring.primary_id());
            for info in &infos {
                prop_assert_eq!(ring.opens(info.id), info.state != KeyState::Retired);
                prop_assert_eq!(info.retired_at_ms.is_some(), info.state == KeyState::Retired);
                if info.state == KeyState::Retired {
                    prop_assert_eq!(ring.with_primary(info.id).unwrap_err(), RingChangeError::Retired(info.id));
                }
            }
        }
    }

    #[test]
    fn the_primary_is_not_retired_and_a_stranger_not_promoted() {
        let ring = known();
        let id = ring.primary_id();
        assert_eq!(ring.with_retired(id, 1).unwrap_err(), RingChangeError::IsPrimary(id));
        let stranger = KeyId([1; ID_BYTES]);
        assert_eq!(ring.with_primary(stranger).unwrap_err(), RingChangeError::NoSuchKey(stranger));
        assert_eq!(ring.with_primary(id).unwrap_err(), RingChangeError::AlreadyPrimary(id));
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let mut ring = known();
        for _ in 1..KEYS_MAX {
            ring = ring.with_new_key(1).unwrap().0;
        }
        assert_eq!(ring.with_new_key(1).unwrap_err(), RingChangeError::TooMany);
        let primary = ring.primary_id();
        for id in ring.infos().into_iter().map(|info| info.id).filter(|id| *id != primary) {
            ring = ring.with_retired(id, 2).unwrap();
        }
        assert_eq!((ring.keys.len(), ring.retired.len()), (1, RETIRED_KEPT));
    }

    #[test]
    fn an_older_ring_brings_its_keys_back_and_a_foreign_one_of_the_same_id_does_not() {
        let old = known();
        let id = old.primary_id();
        let ring = rotated(&old).with_retired(id, 5).unwrap();
        assert!(!ring.opens(id));
        let (back, added) = ring.with_keys_of(&old).unwrap();
        assert_eq!(added, [id]);
        assert_eq!(back.primary_id(), ring.primary_id());
        assert!(back.opens(id) && back.retired.is_empty());
        assert_eq!(back.with_keys_of(&old).unwrap().1, []);
        let mut foreign = KeyRing::generate(1);
        foreign.keys[0].id = id;
        assert_eq!(back.with_keys_of(&foreign).unwrap_err(), RingChangeError::Differs(id));
    }

    #[test]
    fn the_check_value_knows_its_key_whatever_seals_now() {
        let ring = known();
        assert_eq!(ring.verify_check(&ring.check_value()).unwrap(), ring.primary_id());
        let newer = rotated(&ring);
        assert_eq!(newer.verify_check(&ring.check_value()).unwrap(), ring.primary_id());
        let error = ring.verify_check(&newer.check_value()).unwrap_err();
        assert!(error.to_string().contains(&newer.primary_id().to_string()), "{error}");
        assert!(error.to_string().contains("no such key"), "{error}");
        let retired = newer.with_retired(ring.primary_id(), 1_700_000_000_000).unwrap();
        let error = retired.verify_check(&ring.check_value()).unwrap_err().to_string();
        assert!(error.contains("5f0c21aa") && error.contains("retired at 2023-11-14"), "{error}");
    }

    #[test]
    fn another_key_of_the_same_id_is_told_apart() {
        let ring = known();
        for stored in [String::new(), "v1:".to_owned(), "v1:zz:00".to_owned(), "v1".to_owned()] {
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
    fn an_id_has_one_spelling() {
        assert_eq!("5f0c21aa".parse::<KeyId>().unwrap().to_string(), "5f0c21aa");
        for wrong in ["5F0C21AA", "5f0c21a", "5f0c21aab", "", "5f0c21ag"] {
            assert_eq!(wrong.parse::<KeyId>(), Err(BadKeyId), "{wrong}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let ring = KeyRing::generate(0);
        let secret = BASE64.encode(ring.primary().bytes.as_slice());
        assert!(ring.to_text().contains(&secret));
        let text = format!("{ring:?}");
        assert!(text.contains(&ring.primary_id().to_string()) && text.len() < 80, "{text}");
    }
}
