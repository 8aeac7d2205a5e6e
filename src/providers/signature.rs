//! Checks that the schemes share: keyed hashes, encodings, header rules and timestamps.
//! Called between a sender and its reply: keys are expanded once, digests live on the stack, and every
//! comparison of a digest takes the same time wherever it differs.

use base64::{
    Engine as _,
    alphabet::{STANDARD as STANDARD_ALPHABET, URL_SAFE as URL_SAFE_ALPHABET},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, KeyInit, Mac};
use hookmill_actors::{
    domain::{headers::Single, secret::Secret},
    ports::provider::{InboundRequest, Refusal, SettingsError},
};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

/// Signatures looked at in one header: a rotation needs two, and each costs an unauthenticated sender's time.
pub(super) const SIGNATURES_MAX: usize = 16;
/// Secrets of one endpoint: each costs a hash of the body for every request that is refused.
const SECRETS_MAX: usize = 8;
/// The longest digest: that of SHA-512.
const DIGEST_BYTES_MAX: usize = 64;
/// The tolerance for timestamps where nothing is set, seconds: that of Stripe and Standard Webhooks.
pub(super) const TOLERANCE_S_DEFAULT: u64 = 300;
/// A day: a wider window would make the timestamp pointless.
const TOLERANCE_S_MAX: u64 = 86_400;

/// The hash below an HMAC (RFC 2104).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Algorithm {
    /// For providers that offer nothing better.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    /// Bytes of its digest.
    fn digest_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// A digest on the stack, made here or read from a header.
#[derive(Clone, Copy)]
pub(crate) struct Digest {
    bytes: [u8; DIGEST_BYTES_MAX],
    len: usize,
}

impl Digest {
    fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; DIGEST_BYTES_MAX];
        bytes[..digest.len()].copy_from_slice(digest);
        Self { bytes, len: digest.len() }
    }

    /// The bytes of the digest.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Whether both are the same, in constant time.
    pub(super) fn matches(&self, other: &Self) -> bool {
        self.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

/// A keyed hash, its key expanded; every message starts from a copy of it.
#[derive(Clone)]
pub(crate) enum Key {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl Key {
    /// Expands a key of any length.
    pub(crate) fn new(algorithm: Algorithm, key: &[u8]) -> Self {
        fn expand<M: KeyInit>(key: &[u8]) -> M {
            M::new_from_slice(key).expect("an HMAC takes a key of any length")
        }
        match algorithm {
            Algorithm::Sha1 => Self::Sha1(expand(key)),
            Algorithm::Sha256 => Self::Sha256(expand(key)),
            Algorithm::Sha384 => Self::Sha384(expand(key)),
            Algorithm::Sha512 => Self::Sha512(expand(key)),
        }
    }

    /// The digest of the parts, one after the other.
    pub(crate) fn digest<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        fn run<'a>(mut mac: impl Mac, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
            for part in parts {
                mac.update(part);
            }
            Digest::new(&mac.finalize().into_bytes())
        }
        match self {
            Self::Sha1(mac) => run(mac.clone(), parts),
            Self::Sha256(mac) => run(mac.clone(), parts),
            Self::Sha384(mac) => run(mac.clone(), parts),
            Self::Sha512(mac) => run(mac.clone(), parts),
        }
    }

    /// Bytes of its digests.
    pub(super) fn digest_bytes(&self) -> usize {
        match self {
            Self::Sha1(_) => Algorithm::Sha1.digest_bytes(),
            Self::Sha256(_) => Algorithm::Sha256.digest_bytes(),
            Self::Sha384(_) => Algorithm::Sha384.digest_bytes(),
            Self::Sha512(_) => Algorithm::Sha512.digest_bytes(),
        }
    }
}

/// The place of the first key that gives one of the signatures. Every key is hashed at most once.
pub(super) fn matching_key<'a, P>(keys: &[Key], parts: &P, signatures: &[Digest]) -> Result<usize, Refusal>
where
    P: IntoIterator<Item = &'a [u8]> + Clone,
{
    if signatures.is_empty() {
        return Err(Refusal::Mismatch);
    }
    keys.iter()
        .position(|key| {
            let digest = key.digest(parts.clone());
            signatures.iter().any(|signature| signature.matches(&digest))
        })
        .ok_or(Refusal::Mismatch)
}

/// The signatures of one header, bounded, on the stack.
pub(super) struct Signatures {
    digests: [Digest; SIGNATURES_MAX],
    len: usize,
}

impl Signatures {
    pub(super) fn new() -> Self {
        Self { digests: [Digest { bytes: [0; DIGEST_BYTES_MAX], len: 0 }; SIGNATURES_MAX], len: 0 }
    }

    /// Adds one; one too many is refused, as no provider sends so many.
    pub(super) fn push(&mut self, digest: Digest) -> Result<(), Refusal> {
        let slot = self
            .digests
            .get_mut(self.len)
            .ok_or_else(|| Refusal::Malformed(format!("more than {SIGNATURES_MAX} signatures")))?;
        *slot = digest;
        self.len += 1;
        Ok(())
    }

    pub(super) fn as_slice(&self) -> &[Digest] {
        &self.digests[..self.len]
    }
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// Either case is read, lower case is written.
    Hex,
    /// The standard alphabet, padded (RFC 4648, section 4).
    Base64,
    /// The URL-safe alphabet (RFC 4648, section 5), read with or without padding, written without.
    Base64Url,
}

const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD_ALPHABET, GeneralPurposeConfig::new());
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE_ALPHABET,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// For keys that people paste: padding is often lost on the way.
const BASE64_LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD_ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Encoding {
    /// Reads a digest of exactly `len` bytes; `None` for any other length and anything malformed.
    pub(super) fn decode(self, text: &[u8], len: usize) -> Option<Digest> {
        debug_assert!(len <= DIGEST_BYTES_MAX, "no digest is that long");
        // One group more than a digest needs: the engine asks for room by its own estimate.
        let mut bytes = [0; DIGEST_BYTES_MAX + 3];
        if text.len() > 2 * len {
            return None;
        }
        let written = match self {
            Self::Hex => {
                hex::decode_to_slice(text, bytes.get_mut(..text.len() / 2)?).ok()?;
                text.len() / 2
            }
            Self::Base64 => BASE64.decode_slice(text, &mut bytes).ok()?,
            Self::Base64Url => BASE64_URL.decode_slice(text, &mut bytes).ok()?,
        };
        (written == len).then(|| Digest::new(&bytes[..len]))
    }

    /// Writes bytes as text.
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => BASE64.encode(bytes),
            Self::Base64Url => BASE64_URL.encode(bytes),
        }
    }
}

/// Reads a key written in standard or URL-safe base64, padded or not.
pub(super) fn base64_key(text: &[u8]) -> Option<Secret> {
    BASE64_LENIENT.decode(text).or_else(|_| BASE64_URL.decode(text)).ok().map(Secret::new)
}

/// Refuses a list of secrets that is empty, too long, or holds an empty one.
pub(super) fn check_secrets(secrets: &[Secret]) -> Result<(), SettingsError> {
    if secrets.is_empty() {
        return Err(SettingsError::new("secrets", "there is none; at least one is needed"));
    }
    if secrets.len() > SECRETS_MAX {
        let problem = format!("{} are active; at most {SECRETS_MAX} may be", secrets.len());
        return Err(SettingsError::new("secrets", problem));
    }
    match secrets.iter().position(Secret::is_empty) {
        Some(index) => Err(SettingsError::new(format!("secrets[{index}]"), "is empty")),
        None => Ok(()),
    }
}

/// The one value of the header that carries the signature; `name` in lower case.
pub(super) fn signature_header<'a>(request: &InboundRequest<'a>, name: &'a str) -> Result<&'a [u8], Refusal> {
    match request.headers.single(name) {
        Single::Value(value) if !value.is_empty() => Ok(value),
        Single::Absent | Single::Value(_) => Err(Refusal::MissingSignature(name.to_owned())),
        Single::Repeated => Err(Refusal::Repeated(name.to_owned())),
    }
}

/// The one value of a header that must come with the signature; `name` in lower case.
pub(super) fn companion_header<'a>(request: &InboundRequest<'a>, name: &'a str) -> Result<&'a [u8], Refusal> {
    match request.headers.single(name) {
        Single::Value(value) if !value.is_empty() => Ok(value),
        Single::Absent => Err(Refusal::Malformed(format!("no `{name}` header"))),
        Single::Value(_) => Err(Refusal::Malformed(format!("`{name}` is empty"))),
        Single::Repeated => Err(Refusal::Repeated(name.to_owned())),
    }
}

/// The unit a provider writes its timestamps in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum TimestampUnit {
    /// Seconds since 1970.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds since 1970.
    #[serde(rename = "ms")]
    Milliseconds,
}

impl TimestampUnit {
    /// Writes a time as the provider does.
    pub(super) fn write(self, at_ms: u64) -> String {
        match self {
            Self::Seconds => (at_ms / 1_000).to_string(),
            Self::Milliseconds => at_ms.to_string(),
        }
    }
}

/// How far a timestamp may lie from now, either way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    seconds: u64,
}

impl Tolerance {
    /// Takes a tolerance of 1 s to a day.
    pub(super) fn new(seconds: u64) -> Result<Self, SettingsError> {
        if (1..=TOLERANCE_S_MAX).contains(&seconds) {
            Ok(Self { seconds })
        } else {
            let problem = format!("is {seconds}; must be 1 to {TOLERANCE_S_MAX} seconds");
            Err(SettingsError::new("tolerance_s", problem))
        }
    }

    /// Refuses a timestamp that is not plain decimal digits, or lies too far from `now_ms`.
    pub(super) fn check(self, text: &[u8], unit: TimestampUnit, now_ms: u64) -> Result<(), Refusal> {
        let stamp = decimal(text).ok_or_else(|| Refusal::Malformed("the timestamp is not decimal unix time".into()))?;
        let (age, allowed, per_second) = match unit {
            TimestampUnit::Seconds => (difference(now_ms / 1_000, stamp), self.seconds, 1),
            TimestampUnit::Milliseconds => (difference(now_ms, stamp), self.seconds * 1_000, 1_000),
        };
        if age.unsigned_abs() <= allowed {
            return Ok(());
        }
        // Away from zero, so that 300.5 s does not read as within 300 s.
        let age_s = age.signum().saturating_mul(age.unsigned_abs().div_ceil(per_second).try_into().unwrap_or(i64::MAX));
        Err(Refusal::Timestamp { age_s, tolerance_s: self.seconds })
    }
}

/// Nothing but ASCII digits, and no more than fit.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// `now - then`, at the bounds of `i64` where it does not fit.
fn difference(now: u64, then: u64) -> i64 {
    now.checked_signed_diff(then).unwrap_or(if now > then { i64::MAX } else { -i64::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALGORITHMS: [Algorithm; 4] = [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];
    const ENCODINGS: [Encoding; 3] = [Encoding::Hex, Encoding::Base64, Encoding::Base64Url];

    #[test]
    fn gives_the_digests_of_rfc_2202_and_rfc_4231() {
        // Test case 2 of both: key "Jefe".
        let expected = [
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ];
        for (algorithm, hex) in ALGORITHMS.into_iter().zip(expected) {
            let digest = Key::new(algorithm, b"Jefe").digest([b"what do ya want ".as_slice(), b"for nothing?"]);
            assert_eq!(Encoding::Hex.encode(digest.as_bytes()), hex, "{algorithm:?}");
        }
    }

    proptest! {
        #[test]
        fn a_digest_survives_its_encodings(key in any::<Vec<u8>>(), message in any::<Vec<u8>>(), algorithm in 0usize..4) {
            let digest = Key::new(ALGORITHMS[algorithm], &key).digest([message.as_slice()]);
            for encoding in ENCODINGS {
                let text = encoding.encode(digest.as_bytes());
                let back = encoding.decode(text.as_bytes(), digest.as_bytes().len()).expect("decodes");
                prop_assert!(back.matches(&digest));
                prop_assert!(encoding.decode(text.as_bytes(), digest.as_bytes().len() - 1).is_none());
            }
        }

        #[test]
        fn any_bytes_decode_or_not(text in proptest::collection::vec(any::<u8>(), 0..200), len in 1usize..=64) {
            for encoding in ENCODINGS {
                if let Some(digest) = encoding.decode(&text, len) {
                    prop_assert_eq!(digest.as_bytes().len(), len);
                }
            }
        }

        #[test]
        fn a_timestamp_holds_exactly_within_its_tolerance(now_s in 100_000u64..1 << 40, age in -100_000i64..100_000, seconds in 1u64..=86_400) {
            let stamp = now_s.saturating_add_signed(-age);
            let tolerance = Tolerance::new(seconds).expect("in bounds");
            let want = age.unsigned_abs() <= seconds;
            for unit in [TimestampUnit::Seconds, TimestampUnit::Milliseconds] {
                let text = unit.write(stamp * 1_000);
                prop_assert_eq!(tolerance.check(text.as_bytes(), unit, now_s * 1_000).is_ok(), want);
            }
        }
    }

    #[test]
    fn only_plain_digits_are_a_timestamp() {
        let tolerance = Tolerance::new(300).expect("in bounds");
        let now_ms = 1_700_000_000_000;
        let check = |text: &str| tolerance.check(text.as_bytes(), TimestampUnit::Seconds, now_ms);
        assert_eq!(check("1700000000"), Ok(()));
        for text in [
            "",
            "-1700000000",
            "+1700000000",
            "1700000000.0",
            "0x6553f100",
            "1.7e9",
            "soon",
            " 1700000000",
            "1700000000 ",
            "1700000000,1700000000",
            "99999999999999999999999",
            "١٧٠٠٠٠٠٠٠٠",
        ] {
            assert!(matches!(check(text), Err(Refusal::Malformed(_))), "{text}");
        }
        assert_eq!(
            check("1700000000000"),
            Err(Refusal::Timestamp { age_s: 1_700_000_000 - 1_700_000_000_000, tolerance_s: 300 })
        );
        assert!(matches!(check(&u64::MAX.to_string()), Err(Refusal::Timestamp { .. })));
    }

    #[test]
    fn half_a_second_beyond_is_shown_as_beyond() {
        let refusal = Tolerance::new(300).expect("in bounds").check(
            b"1700000000000",
            TimestampUnit::Milliseconds,
            1_700_000_300_500,
        );
        assert_eq!(refusal, Err(Refusal::Timestamp { age_s: 301, tolerance_s: 300 }));
    }

    #[test]
    fn a_tolerance_is_bounded() {
        assert!(Tolerance::new(0).is_err());
        assert!(Tolerance::new(86_400).is_ok());
        assert!(Tolerance::new(86_401).is_err());
    }

    #[test]
    fn base64_is_canonical_or_refused() {
        let text = Encoding::Base64.encode(&[7; 32]);
        assert!(Encoding::Base64.decode(text.as_bytes(), 32).is_some());
        assert!(Encoding::Base64.decode(text.trim_end_matches('=').as_bytes(), 32).is_none(), "padding is part of it");
        // The same 32 bytes with bits set that belong to no byte.
        let loose = text.replace("c=", "d=");
        assert_ne!(loose, text);
        assert!(Encoding::Base64.decode(loose.as_bytes(), 32).is_none());
    }

    #[test]
    fn the_first_key_that_fits_is_named() {
        let keys = [Key::new(Algorithm::Sha256, b"new"), Key::new(Algorithm::Sha256, b"old")];
        let good = keys[1].digest([b"body".as_slice()]);
        let bad = keys[1].digest([b"other".as_slice()]);
        assert_eq!(matching_key(&keys, &[b"bo".as_slice(), b"dy"], &[bad, good]), Ok(1));
        assert_eq!(matching_key(&keys, &[b"body".as_slice()], &[bad]), Err(Refusal::Mismatch));
        assert_eq!(matching_key(&keys, &[b"body".as_slice()], &[]), Err(Refusal::Mismatch));
    }

    #[test]
    fn too_many_signatures_are_refused() {
        let mut signatures = Signatures::new();
        for _ in 0..SIGNATURES_MAX {
            assert!(signatures.push(Digest::new(&[1; 32])).is_ok());
        }
        assert!(signatures.push(Digest::new(&[1; 32])).is_err());
        assert_eq!(signatures.as_slice().len(), SIGNATURES_MAX);
    }

    #[test]
    fn empty_secrets_are_refused() {
        let secret = |text: &str| Secret::new(text);
        assert!(check_secrets(&[secret("a"), secret("b")]).is_ok());
        assert_eq!(check_secrets(&[]).expect_err("none").field, "secrets");
        assert_eq!(check_secrets(&[secret("a"), secret("")]).expect_err("empty").field, "secrets[1]");
        assert!(check_secrets(&vec![secret("a"); SECRETS_MAX + 1]).is_err());
    }
}
