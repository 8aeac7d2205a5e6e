//! Sealing of secrets at rest.

use crate::domain::{
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
}
