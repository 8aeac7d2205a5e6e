//! Sealing: XSalsa20-Poly1305 under a key derived for the owner. It has no associated data, so the owner is bound
//! by the derivation: a text that is moved to another owner does not open.
//!
//! A sealed text is base64 of `version: u8 | key id: 4 bytes | nonce: 24 bytes | tag: 16 bytes | ciphertext`.
//! Nonces are random: at 192 bits they do not repeat (D. J. Bernstein, "Extending the Salsa20 nonce").

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hookmill_actors::{
    domain::secret::{Sealed, Secret},
    ports::sealer::{Owner, Renewed, SealError, Sealer},
};
use xsalsa20poly1305::{Nonce, Tag, XSalsa20Poly1305};

use super::{
    keyring::{KeyId, KeyRing, RingKey, hmac_sha256},
    random_bytes,
};

const VERSION: u8 = 1;
const NONCE_AT: usize = 5;
const TAG_AT: usize = NONCE_AT + XSalsa20Poly1305::NONCE_SIZE;
const TEXT_AT: usize = TAG_AT + XSalsa20Poly1305::TAG_SIZE;
/// Hex digits of a fingerprint: tells an integration's few secrets apart, and no more.
const FINGERPRINT_DIGITS: usize = 8;

impl Sealer for KeyRing {
    fn seal(&self, owner: Owner, secret: &Secret) -> Sealed {
        seal_with(self.primary(), owner, secret, random_bytes())
    }

    fn open(&self, owner: Owner, sealed: &Sealed) -> Result<Secret, SealError> {
        use xsalsa20poly1305::AeadInPlace;
        let envelope = BASE64.decode(&sealed.0).map_err(|_| SealError::Malformed)?;
        let parts = Envelope::split(&envelope).ok_or(SealError::Malformed)?;
        let key = self.key(parts.key).ok_or_else(|| SealError::UnknownKey(parts.key.to_string()))?;
        let mut text = parts.text.to_vec();
        match cipher(key, owner).decrypt_in_place_detached(&parts.nonce, &[], &mut text, &parts.tag) {
            Ok(()) => Ok(Secret::new(text)),
            Err(_) => Err(SealError::Refused),
        }
    }

    fn renew(&self, owner: Owner, sealed: &Sealed) -> Result<Option<Renewed>, SealError> {
        if key_of(&sealed.0) == Some(self.primary_id()) {
            return Ok(None);
        }
        let secret = self.open(owner, sealed)?;
        let key = self.primary();
        let nonce = renewal_nonce(key, owner, sealed);
        Ok(Some(Renewed { sealed: seal_with(key, owner, &secret, nonce), fingerprint: self.fingerprint(&secret) }))
    }
}

type NonceBytes = [u8; XSalsa20Poly1305::NONCE_SIZE];

fn seal_with(key: &RingKey, owner: Owner, secret: &Secret, nonce: NonceBytes) -> Sealed {
    use xsalsa20poly1305::AeadInPlace;
    // Made large enough at once: a buffer that grows would leave a copy of the secret behind.
    let mut envelope = Vec::with_capacity(TEXT_AT + secret.expose().len());
    envelope.push(VERSION);
    envelope.extend_from_slice(&key.id.0);
    envelope.extend_from_slice(&nonce);
    envelope.resize(TEXT_AT, 0);
    envelope.extend_from_slice(secret.expose());
    let tag = cipher(key, owner)
        .encrypt_in_place_detached(&Nonce::from(nonce), &[], &mut envelope[TEXT_AT..])
        .expect("without associated data XSalsa20-Poly1305 seals any text");
    envelope[TAG_AT..TEXT_AT].copy_from_slice(&tag);
    Sealed(BASE64.encode(envelope))
}

/// The nonce for sealing a text again. The same text always gets the same one, so that two versions that held the same
/// sealed secret do so afterwards; one nonce never covers two secrets, because one text holds one.
fn renewal_nonce(key: &RingKey, owner: Owner, sealed: &Sealed) -> NonceBytes {
    let nonces = key.derive("hookmill/renewal-nonce/v1");
    let text = hmac_sha256(&*nonces, format!("{}|{}", purpose(owner), sealed.0).as_bytes());
    *text.first_chunk().expect("a hash has more bytes than a nonce")
}

/// The key that a text was sealed with; `None` where it is no sealed text. Whether it opens is another question.
pub fn key_of(text: &str) -> Option<KeyId> {
    let envelope = BASE64.decode(text).ok()?;
    Some(Envelope::split(&envelope)?.key)
}

impl KeyRing {
    /// A short text that tells secrets apart without showing them: 8 hex digits. Keyed with the ring's primary, so
    /// that without the ring nobody can try secrets against it; another primary gives another fingerprint.
    pub fn fingerprint(&self, secret: &Secret) -> String {
        let key = self.primary().derive("hookmill/fingerprint/v1");
        let mut digits = hex::encode(hmac_sha256(&*key, secret.expose()));
        digits.truncate(FINGERPRINT_DIGITS);
        digits
    }
}

struct Envelope<'a> {
    key: KeyId,
    nonce: Nonce,
    tag: Tag,
    text: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn split(bytes: &'a [u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk::<{ XSalsa20Poly1305::NONCE_SIZE }>()?;
        let (tag, text) = rest.split_first_chunk::<{ XSalsa20Poly1305::TAG_SIZE }>()?;
        (*version == VERSION).then_some(Self {
            key: KeyId(*key),
            nonce: Nonce::from(*nonce),
            tag: Tag::from(*tag),
            text,
        })
    }
}

fn cipher(key: &RingKey, owner: Owner) -> XSalsa20Poly1305 {
    // The cipher's trait is of an older generation than hmac's of the same name: only here in scope.
    use xsalsa20poly1305::KeyInit;
    let subkey = key.derive(&purpose(owner));
    XSalsa20Poly1305::new((&*subkey).into())
}

/// Stored texts depend on these words: they never change under the same version.
fn purpose(owner: Owner) -> String {
    match owner {
        Owner::Credentials(id) => format!("hookmill/seal/v{VERSION}/integration/{id}/credentials"),
        Owner::EndpointSecret(id) => format!("hookmill/seal/v{VERSION}/integration/{id}/endpoint-secret"),
        Owner::SigningSecret(id) => format!("hookmill/seal/v{VERSION}/destination/{id}/signing-secret"),
        Owner::DestinationCredentials(id) => format!("hookmill/seal/v{VERSION}/destination/{id}/credentials"),
        Owner::Reply(number) => format!("hookmill/seal/v{VERSION}/reply/{number}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use hookmill_actors::domain::ids::{DestinationId, IntegrationId};
    use proptest::prelude::*;

    use super::{
        super::keyring::tests::{known, rotated},
        *,
    };

    /// Few ids, so that owners of different kinds often share one.
    fn owners() -> impl Strategy<Value = Owner> {
        (0..3u32, 0..3).prop_map(|(id, kind)| match kind {
            0 => Owner::Credentials(IntegrationId(id)),
            1 => Owner::EndpointSecret(IntegrationId(id)),
            _ => Owner::SigningSecret(DestinationId(id)),
        })
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..200)
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_for_its_owner_only(owner in owners(), other in owners(), secret in bytes()) {
            let ring = KeyRing::generate(0);
            let secret = Secret::new(secret);
            let sealed = ring.seal(owner, &secret);
            prop_assert_eq!(ring.open(owner, &sealed), Ok(secret));
            if other != owner {
                prop_assert_eq!(ring.open(other, &sealed), Err(SealError::Refused));
            }
        }

        #[test]
        fn any_altered_bit_is_refused(owner in owners(), secret in bytes(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let ring = KeyRing::generate(0);
            let sealed = ring.seal(owner, &Secret::new(secret));
            let mut envelope = BASE64.decode(&sealed.0).unwrap();
            let at = at.index(envelope.len());
            envelope[at] ^= 1u8 << bit;
            let opened = ring.open(owner, &Sealed(BASE64.encode(&envelope)));
            match at {
                0 => prop_assert_eq!(opened, Err(SealError::Malformed)),
                1..NONCE_AT => prop_assert!(matches!(opened, Err(SealError::UnknownKey(_)))),
                _ => prop_assert_eq!(opened, Err(SealError::Refused)),
            }
        }

        #[test]
        fn any_text_opens_or_is_refused(text in "\\PC{0,120}") {
            let ring = KeyRing::generate(0);
            prop_assert!(ring.open(Owner::Credentials(IntegrationId(1)), &Sealed(text)).is_err());
        }
    }

    const OWNER: Owner = Owner::EndpointSecret(IntegrationId(7));

    #[test]
    fn a_text_that_libsodium_sealed_opens() {
        // Sealed with PyNaCl, the subkey made with Python's hmac: the format holds over releases.
        let sealed = "AV8MIaoAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcHha/qwcvO+uybSSGY5tLI3rKiWHxB4cHcd0os5w==";
        assert_eq!(known().open(OWNER, &Sealed(sealed.to_owned())), Ok(Secret::new("whsec_example")));
        assert_eq!(known().fingerprint(&Secret::new("whsec_example")), "3591f6fa");
    }

    #[test]
    fn another_ring_does_not_open() {
        let sealed = KeyRing::generate(0).seal(OWNER, &Secret::new("whsec_x"));
        assert!(matches!(KeyRing::generate(0).open(OWNER, &sealed), Err(SealError::UnknownKey(_))));
    }

    #[test]
    fn another_key_of_the_same_id_is_refused() {
        let ring = KeyRing::generate(0);
        let other = KeyRing::generate(0);
        let sealed = ring.seal(OWNER, &Secret::new("whsec_x"));
        let mut envelope = BASE64.decode(&sealed.0).unwrap();
        envelope[1..NONCE_AT].copy_from_slice(&other.primary().id.0);
        assert_eq!(other.open(OWNER, &Sealed(BASE64.encode(envelope))), Err(SealError::Refused));
    }

    #[test]
    fn an_old_key_still_opens_and_the_new_one_seals() {
        let ring = KeyRing::generate(0);
        let old = ring.seal(OWNER, &Secret::new("old"));
        let newer = rotated(&ring);
        assert_eq!(newer.open(OWNER, &old), Ok(Secret::new("old")));
        let new = newer.seal(OWNER, &Secret::new("new"));
        assert!(matches!(ring.open(OWNER, &new), Err(SealError::UnknownKey(_))));
    }

    #[test]
    fn what_an_old_key_sealed_is_renewed_once() {
        let ring = KeyRing::generate(0);
        let secret = Secret::new("old");
        let old = ring.seal(OWNER, &secret);
        assert_eq!(ring.renew(OWNER, &old), Ok(None), "the primary sealed it");
        let newer = rotated(&ring);
        let renewed = newer.renew(OWNER, &old).unwrap().unwrap();
        assert_eq!(key_of(&renewed.sealed.0), Some(newer.primary_id()));
        assert_eq!(newer.open(OWNER, &renewed.sealed), Ok(secret.clone()));
        assert_eq!(renewed.fingerprint, newer.fingerprint(&secret));
        assert_eq!(newer.renew(OWNER, &old), Ok(Some(renewed.clone())), "what was equal stays equal");
        let other = newer.renew(OWNER, &ring.seal(OWNER, &secret)).unwrap().unwrap();
        assert_ne!(other.sealed, renewed.sealed);
        assert_eq!(newer.renew(OWNER, &renewed.sealed), Ok(None));
        assert_eq!(newer.renew(Owner::EndpointSecret(IntegrationId(8)), &old), Err(SealError::Refused));
        let stranger = KeyRing::generate(0);
        assert!(matches!(stranger.renew(OWNER, &old), Err(SealError::UnknownKey(_))));
    }

    #[test]
    fn the_key_of_a_text_is_told_without_opening_it() {
        let ring = known();
        let sealed = ring.seal(OWNER, &Secret::new("x"));
        assert_eq!(key_of(&sealed.0), Some(ring.primary_id()));
        for other in ["", "AV8MIao", "AV8MIaoAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcHha", "words of an operator"] {
            assert_eq!(key_of(other), None, "{other}");
        }
    }

    #[test]
    fn no_two_seals_are_alike_and_none_shows_the_secret() {
        let ring = KeyRing::generate(0);
        let secret = Secret::new("correct horse battery staple");
        let (one, two) = (ring.seal(OWNER, &secret), ring.seal(OWNER, &secret));
        assert_ne!(one, two);
        let envelope = BASE64.decode(&one.0).unwrap();
        assert!(!envelope.windows(7).any(|window| window == b"correct"));
    }

    #[test]
    fn a_fingerprint_tells_secrets_and_rings_apart() {
        let ring = KeyRing::generate(0);
        let of = |text: &str| ring.fingerprint(&Secret::new(text));
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
        assert_ne!(of("a"), KeyRing::generate(0).fingerprint(&Secret::new("a")));
        assert_eq!(of("a").len(), FINGERPRINT_DIGITS);
    }
}
