//! Signatures on deliveries, as Standard Webhooks has them (symmetric, `v1`): HMAC-SHA256 over
//! `id.timestamp.body`, so that a receiver can tell our deliveries from anybody's. Pure.

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use hmac::{Hmac, KeyInit, Mac};
use hookmill_actors::{domain::secret::Secret, ports::provider::SettingsError};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Every signing secret begins so; the base64 of the key follows.
const PREFIX: &str = "whsec_";
/// Key lengths, bytes, that the specification allows.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// The scheme, before the base64 of the MAC.
const VERSION: &[u8] = b"v1,";
/// A signature header's length: the scheme and the base64 of 32 bytes.
pub(super) const SIGNATURE_BYTES: usize = 3 + 44;

/// Keys come from many tools, and some leave base64's padding off.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Signs for one destination. Keyed once; each signature clones the keyed state.
pub(super) struct Signer {
    keyed: Hmac<Sha256>,
}

impl Signer {
    /// Takes `whsec_` and the base64 of 24 to 64 bytes.
    pub(super) fn new(secret: &Secret) -> Result<Self, SettingsError> {
        let fault = |problem: &str| SettingsError::new("signing_secret", problem);
        let encoded = secret
            .expose_str()
            .and_then(|text| text.strip_prefix(PREFIX))
            .ok_or_else(|| fault("must be `whsec_` and a key in base64"))?;
        let key = Zeroizing::new(
            LENIENT.decode(encoded).map_err(|_| fault("what follows `whsec_` is not base64 (RFC 4648, section 4)"))?,
        );
        if !KEY_BYTES.contains(&key.len()) {
            return Err(fault(&format!("the key has {} bytes; 24 to 64 are allowed", key.len())));
        }
        Ok(Self { keyed: Hmac::new_from_slice(&key).expect("HMAC takes a key of any length") })
    }

    /// The `webhook-signature` of a delivery. `head` is `id.timestamp`, the timestamp in seconds since 1970.
    pub(super) fn sign(&self, head: &[u8], body: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut mac = self.keyed.clone();
        mac.update(head);
        mac.update(b".");
        mac.update(body);
        let mut signature = [0; SIGNATURE_BYTES];
        signature[..VERSION.len()].copy_from_slice(VERSION);
        STANDARD
            .encode_slice(mac.finalize().into_bytes(), &mut signature[VERSION.len()..])
            .expect("32 bytes are 44 of base64");
        signature
    }
}

/// Says what is wrong with a destination's signing secret; never shows any of it.
pub fn validate_signing_secret(secret: &Secret) -> Result<(), SettingsError> {
    Signer::new(secret).map(drop)
}

/// A destination's signing secret from 32 random bytes.
pub fn new_signing_secret(random: &[u8; 32]) -> Secret {
    // Room for all of it, so that no shorter copy is left behind unwiped.
    let mut text = String::with_capacity(PREFIX.len() + 44);
    text.push_str(PREFIX);
    STANDARD.encode_string(random, &mut text);
    Secret::new(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(secret: &str, head: &str, body: &str) -> String {
        let signer = Signer::new(&Secret::new(secret)).unwrap();
        String::from_utf8(signer.sign(head.as_bytes(), body.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn gives_the_specifications_example() {
        assert_eq!(
            signature(
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330",
                r#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn gives_what_pythons_hmac_gives() {
        let key: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let secret = new_signing_secret(&key);
        assert_eq!(
            signature(secret.expose_str().unwrap(), "019ab3f0-0000-7000-8000-000000010000.1767225600", r#"{"a":1}"#),
            "v1,ZiLl7pS0HKzBCBRHXOXdUXDiHvffqO1OtM8vXZ8fGcY="
        );
    }

    #[test]
    fn takes_keys_with_and_without_padding() {
        let padded = signature("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "a.1", "");
        assert_eq!(signature("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "a.1", ""), padded);
    }

    #[test]
    fn refuses_what_is_no_signing_secret_without_showing_it() {
        for secret in ["", "whsec_", "whsec_c2hvcnQ=", "c2VjcmV0", "whsec_???", &format!("whsec_{}", "QUFB".repeat(22))]
        {
            let error = validate_signing_secret(&Secret::new(secret)).unwrap_err();
            assert_eq!(error.field, "signing_secret");
            assert!(!error.problem.contains("c2"), "{error}");
        }
    }
}
