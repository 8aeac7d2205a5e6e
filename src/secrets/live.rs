//! The ring in use, which a rotation replaces while everybody goes on sealing and opening.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hookmill_actors::{
    domain::secret::{Sealed, Secret},
    ports::sealer::{Owner, Renewed, SealError, Sealer},
};

use super::{keyring::KeyRing, source::KeySource};

/// A ring that can be replaced, and where it comes from.
pub struct LiveRing {
    ring: ArcSwap<KeyRing>,
    source: KeySource,
}

impl LiveRing {
    /// Takes a ring into use.
    pub fn new(ring: KeyRing, source: KeySource) -> Self {
        Self { ring: ArcSwap::from_pointee(ring), source }
    }

    /// The ring in use.
    pub fn current(&self) -> Arc<KeyRing> {
        self.ring.load_full()
    }

    /// From now on this ring seals and opens.
    pub fn replace(&self, ring: KeyRing) {
        self.ring.store(Arc::new(ring));
    }

    /// Where it comes from.
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// A short text that tells secrets apart; see [`KeyRing::fingerprint`].
    pub fn fingerprint(&self, secret: &Secret) -> String {
        self.ring.load().fingerprint(secret)
    }
}

impl Sealer for LiveRing {
    fn seal(&self, owner: Owner, secret: &Secret) -> Sealed {
        self.ring.load().seal(owner, secret)
    }

    fn open(&self, owner: Owner, sealed: &Sealed) -> Result<Secret, SealError> {
        self.ring.load().open(owner, sealed)
    }

    fn renew(&self, owner: Owner, sealed: &Sealed) -> Result<Option<Renewed>, SealError> {
        self.ring.load().renew(owner, sealed)
    }
}
