//! Sealing of secrets at rest.

use crate::domain::{
    config::{EndpointSecret, Resource},
    ids::{DestinationId, IntegrationId},
    secret::{Sealed, Secret},
};

/// Whom a sealed text belongs to. A text sealed for one owner does not open for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An integration's credentials.
    Credentials(IntegrationId),
    /// A secret of one of an integration's endpoints.
    EndpointSecret(IntegrationId),
    /// A destination's signing secret.
    SigningSecret(DestinationId),
    /// What a destination needs to sign in.
    DestinationCredentials(DestinationId),
    /// A reply that is given again, by its number.
    Reply(u64),
}

/// Why a sealed text did not open. Never says what was in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key ring has no key of that id.
    #[error("the key ring has no key `{0}`; was the key file replaced?")]
    UnknownKey(String),
    /// Wrong key, wrong owner or altered text.
    #[error("a sealed secret does not open: the key differs, or it was moved or altered")]
    Refused,
    /// Not a sealed text at all, or of a newer format.
    #[error("not a sealed secret of a known format")]
    Malformed,
}

/// Seals and opens secrets with the key ring.
pub trait Sealer: Send + Sync {
    /// Seals under a key derived for the owner, with a fresh nonce.
    fn seal(&self, owner: Owner, secret: &Secret) -> Sealed;
    /// Opens what was sealed for the same owner.
    fn open(&self, owner: Owner, sealed: &Sealed) -> Result<Secret, SealError>;
    /// Seals again what another key than the one that seals now has sealed; `None` where there is nothing to do, as
    /// for everybody who has one key only.
    fn renew(&self, owner: Owner, sealed: &Sealed) -> Result<Option<Renewed>, SealError> {
        let _ = (owner, sealed);
        Ok(None)
    }
}

/// A secret sealed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// With the key that seals now.
    pub sealed: Sealed,
    /// What tells the secret apart under that key.
    pub fingerprint: String,
}

/// A sealed text within a resource.
pub struct SealedPart<'a> {
    /// Whom it is sealed for.
    pub owner: Owner,
    /// The text.
    pub sealed: &'a mut Sealed,
    /// What tells it apart, where the resource keeps that.
    pub fingerprint: Option<&'a mut String>,
}

impl SealedPart<'_> {
    /// Seals it again, where another key than the one that seals now has sealed it; whether it did.
    pub fn renew(&mut self, sealer: &dyn Sealer) -> Result<bool, SealError> {
        let Some(renewed) = sealer.renew(self.owner, self.sealed)? else { return Ok(false) };
        *self.sealed = renewed.sealed;
        if let Some(fingerprint) = &mut self.fingerprint {
            **fingerprint = renewed.fingerprint;
        }
        Ok(true)
    }
}

/// All that is sealed in a resource.
pub fn sealed_parts(resource: &mut Resource) -> Vec<SealedPart<'_>> {
    match resource {
        Resource::Integration(it) => {
            let owner = Owner::Credentials(it.id);
            it.credentials.iter_mut().map(|sealed| SealedPart { owner, sealed, fingerprint: None }).collect()
        }
        Resource::Endpoint(it) => {
            let owner = Owner::EndpointSecret(it.integration_id);
            let parts = it.secrets.iter_mut().map(|EndpointSecret { sealed, fingerprint, .. }| SealedPart {
                owner,
                sealed,
                fingerprint: Some(fingerprint),
            });
            parts.collect()
        }
        Resource::Destination(it) => {
            let signing = SealedPart {
                owner: Owner::SigningSecret(it.id),
                sealed: &mut it.signing_secret,
                fingerprint: Some(&mut it.signing_fingerprint),
            };
            let owner = Owner::DestinationCredentials(it.id);
            let credentials = it.credentials.iter_mut().map(|sealed| SealedPart { owner, sealed, fingerprint: None });
            std::iter::once(signing).chain(credentials).collect()
        }
        Resource::Subscription(_) => Vec::new(),
    }
}

/// Seals again whatever of a resource another key than the one that seals now has sealed; whether anything was. What
/// does not open stays as it is: it is told where it is used.
pub fn renew(sealer: &dyn Sealer, resource: &mut Resource) -> bool {
    let renewed = |mut part: SealedPart<'_>| part.renew(sealer).unwrap_or(false);
    // Every part, not the first alone.
    sealed_parts(resource).into_iter().map(renewed).fold(false, |any, one| any | one)
}
