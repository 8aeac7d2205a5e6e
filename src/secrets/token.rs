//! API tokens: 256 random bits, so a plain SHA-256 is enough to store them by (a slow hash would only give
//! attackers a way to keep us busy).

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use hookmill_actors::domain::secret::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    private_file::{self, PrivateFileError},
    random_bytes,
};

/// Begins every token, so that a leaked one is recognised for what it is.
const PREFIX: &str = "hmk_";
const TOKEN_BYTES: usize = 32;
/// Hex digits of the checksum at its end: that of a text that only looks like a token is wrong, which spares secret
/// scanners false alarms, and a token that was cut off is told from one that is unknown.
const CHECKSUM_DIGITS: usize = 8;
/// A whole token, characters.
const TOKEN_CHARS: usize = PREFIX.len() + 2 * TOKEN_BYTES + CHECKSUM_DIGITS;
/// A preset token at least; shorter ones can be guessed.
const PRESET_CHARS_MIN: usize = 16;
/// A token at most, bytes: it travels in a header line.
pub const TOKEN_BYTES_MAX: usize = 512;
/// The file at most: a token and its line end.
const FILE_BYTES_MAX: u16 = 514;
/// In the data folder.
const ADMIN_TOKEN_FILE: &str = "admin-token";

/// Where the server of that data folder keeps the admin token that it made.
pub fn admin_token_file(data_dir: &Path) -> PathBuf {
    data_dir.join(ADMIN_TOKEN_FILE)
}

/// A token in clear: shown once to whom it is for. Wiped when dropped; nothing prints it by accident.
pub struct Token(Zeroizing<String>);

impl Token {
    /// A new token: `hmk_`, 32 random bytes and the CRC-32 of all before it, in hex: `hmk_[0-9a-f]{72}`.
    pub fn generate() -> Self {
        let bytes = Zeroizing::new(random_bytes::<TOKEN_BYTES>());
        let mut digits = Zeroizing::new([0; 2 * TOKEN_BYTES]);
        hex::encode_to_slice(bytes.as_slice(), digits.as_mut_slice()).expect("the digits take twice the bytes");
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_CHARS));
        text.push_str(PREFIX);
        text.extend(digits.iter().copied().map(char::from));
        let checksum = checksum(&text);
        text.push_str(&checksum);
        Self(text)
    }

    /// Whether a text begins as our tokens do, but is none as it stands.
    pub fn is_damaged(text: &str) -> bool {
        text.starts_with(PREFIX)
            && !(text.len() == TOKEN_CHARS
                && text
                    .split_at_checked(TOKEN_CHARS - CHECKSUM_DIGITS)
                    .is_some_and(|(body, end)| checksum(body) == end))
    }

    /// The text, for whom it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.as_bytes())
    }
}

fn checksum(text: &str) -> String {
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// What is stored of a token: its SHA-256, as hex in texts. Compared in constant time only.
#[derive(Clone)]
pub struct TokenHash([u8; 32]);

/// A text that is no token hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token hash is 64 hex digits")]
pub struct BadTokenHash;

impl TokenHash {
    /// The hash of a presented token.
    pub fn of(token: &[u8]) -> Self {
        use sha2::{Digest, Sha256};
        Self(Sha256::digest(token).into())
    }

    /// Whether this is the hash of `presented`; takes the same time wherever they differ.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.equals(&Self::of(presented))
    }

    /// Whether both are the hash of one token; takes the same time wherever they differ.
    pub fn equals(&self, other: &Self) -> bool {
        other.0.ct_eq(&self.0).into()
    }

    /// To look tokens up by. Whoever presents one does not choose its hash, so a search that is quicker for some tells
    /// him nothing.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(***)")
    }
}

impl FromStr for TokenHash {
    type Err = BadTokenHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| BadTokenHash)?;
        Ok(Self(hash))
    }
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The token that may do everything, as the start found or made it.
#[derive(Debug)]
pub struct AdminToken {
    /// What requests are compared with.
    pub hash: TokenHash,
    /// Where it came from.
    pub origin: AdminTokenOrigin,
}

/// Where the admin token came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminTokenOrigin {
    /// `HOOKMILL_ADMIN_TOKEN`.
    Preset,
    /// This file, from an earlier start.
    File(PathBuf),
    /// This file, made just now: tell the operator of it.
    Created(PathBuf),
}

/// Why there is no admin token. Never says what it is.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// It can be guessed.
    #[error(
        "{origin} has {chars} characters; at least {PRESET_CHARS_MIN} are needed, such as `openssl rand -hex 32` gives"
    )]
    TooShort {
        /// Where it stands.
        origin: String,
        /// How long it is.
        chars: usize,
    },
    /// It cannot be sent in a header, or is longer than any token.
    #[error("{0} must be at most {TOKEN_BYTES_MAX} visible ASCII characters without spaces")]
    NotVisible(String),
    /// The file is not private, or was not read or made.
    #[error("admin token: {0}")]
    File(#[from] PrivateFileError),
}

impl AdminToken {
    /// The preset token (`HOOKMILL_ADMIN_TOKEN`), else the one in `<data_dir>/admin-token`, else a new one that is
    /// written there, mode 0600. A preset one is written nowhere.
    ///
    /// # Errors
    /// A token that is too short or cannot be sent; a file that others can read; failing I/O.
    pub fn load(data_dir: &Path, preset: Option<&Secret>) -> Result<Self, AdminTokenError> {
        if let Some(token) = preset {
            let hash = checked(token.expose(), || "HOOKMILL_ADMIN_TOKEN".to_owned())?;
            return Ok(Self { hash, origin: AdminTokenOrigin::Preset });
        }
        let path = admin_token_file(data_dir);
        if let Some(text) = private_file::read(&path, FILE_BYTES_MAX)? {
            let hash = checked(text.trim().as_bytes(), || format!("`{}`", path.display()))?;
            return Ok(Self { hash, origin: AdminTokenOrigin::File(path) });
        }
        let token = Token::generate();
        let mut line = Zeroizing::new(String::with_capacity(token.expose().len() + 1));
        line.push_str(token.expose());
        line.push('\n');
        match private_file::create(&path, &line) {
            Ok(()) => Ok(Self { hash: token.hash(), origin: AdminTokenOrigin::Created(path) }),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the preset from the process' environment. An empty variable is one, too, and is refused as too short:
    /// whoever set it meant a token.
    pub fn preset_from_environment() -> Option<Secret> {
        use std::os::unix::ffi::OsStringExt;
        let token = std::env::var_os(crate::settings::ADMIN_TOKEN_VARIABLE)?;
        Some(Secret::new(token.into_vec()))
    }
}

fn checked(token: &[u8], origin: impl Fn() -> String) -> Result<TokenHash, AdminTokenError> {
    if token.len() > TOKEN_BYTES_MAX || !token.iter().all(u8::is_ascii_graphic) {
        return Err(AdminTokenError::NotVisible(origin()));
    }
    if token.len() < PRESET_CHARS_MIN {
        return Err(AdminTokenError::TooShort { origin: origin(), chars: token.len() });
    }
    Ok(TokenHash::of(token))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use super::*;

    #[test]
    fn a_token_has_its_form_and_is_never_the_same() {
        let token = Token::generate();
        let rest = token.expose().strip_prefix("hmk_").unwrap();
        assert_eq!(rest.len(), 72);
        assert!(rest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
        assert_ne!(token.expose(), Token::generate().expose());
    }

    #[test]
    fn a_token_that_was_cut_or_changed_is_seen_to_be() {
        let token = Token::generate();
        let text = token.expose();
        assert!(!Token::is_damaged(text));
        let swapped = if text.as_bytes()[10] == b'0' { "1" } else { "0" };
        for wrong in [
            &text[..text.len() - 1],
            &text[..5],
            "hmk_",
            &format!("{text}0"),
            &format!("{}{swapped}{}", &text[..10], &text[11..]),
            &text.replace("hmk_", "hmk_\u{e4}"),
        ] {
            assert!(Token::is_damaged(wrong), "{}", wrong.len());
        }
        for other in ["", "hm_x", "preset-by-an-operator", &text[1..]] {
            assert!(!Token::is_damaged(other), "{other}");
        }
    }

    #[test]
    fn a_hash_matches_its_token_only() {
        let token = Token::generate();
        let hash = token.hash();
        assert!(hash.matches(token.expose().as_bytes()));
        assert!(!hash.matches(Token::generate().expose().as_bytes()));
        assert!(!hash.matches(b""));
        assert!(!hash.matches(&token.expose().as_bytes()[1..]));
    }

    #[test]
    fn a_hash_survives_as_text() {
        // SHA-256 of "abc", FIPS 180-2 appendix B.1.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(TokenHash::of(b"abc").to_string(), text);
        let json = serde_json::to_string(&TokenHash::of(b"abc")).unwrap();
        assert!(serde_json::from_str::<TokenHash>(&json).unwrap().matches(b"abc"));
        assert_eq!("ba78".parse::<TokenHash>().unwrap_err(), BadTokenHash);
    }

    #[test]
    fn debug_shows_nothing() {
        let token = Token::generate();
        assert_eq!(format!("{token:?} {:?}", token.hash()), "Token(***) TokenHash(***)");
    }

    #[test]
    fn the_first_start_writes_a_token_and_later_ones_take_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = AdminToken::load(&data, None).unwrap();
        let path = data.join("admin-token");
        assert_eq!(first.origin, AdminTokenOrigin::Created(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let written = fs::read_to_string(&path).unwrap();
        let token = Secret::new(written.trim());
        assert!(first.hash.matches(token.expose()));
        let second = AdminToken::load(&data, None).unwrap();
        assert_eq!(second.origin, AdminTokenOrigin::File(path.clone()));
        assert!(second.hash.matches(token.expose()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(AdminToken::load(&data, None).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_preset_token_is_taken_and_written_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let token = AdminToken::load(folder.path(), Some(&Secret::new("0123456789abcdef"))).unwrap();
        assert_eq!(token.origin, AdminTokenOrigin::Preset);
        assert!(token.hash.matches(b"0123456789abcdef"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_preset_token_that_is_weak_or_cannot_be_sent_is_refused_unseen() {
        let folder = tempfile::tempdir().unwrap();
        for (preset, want) in [
            ("", "0 characters"),
            ("short-of-sixteen"[..15].as_ref(), "15 characters"),
            ("0123456789 abcdef", "without spaces"),
            ("0123456789\u{e4}bcdef", "visible ASCII"),
            ("0123456789abcdef\n", "visible ASCII"),
        ] {
            let text = AdminToken::load(folder.path(), Some(&Secret::new(preset))).unwrap_err().to_string();
            assert!(text.contains(want) && text.contains("HOOKMILL_ADMIN_TOKEN"), "{text}");
            assert!(!text.contains("0123456789"), "{text}");
        }
    }
}
