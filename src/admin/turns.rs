//! Whoever changes a resource without a condition waits for its turn, so that hundreds who do it at once are all served,
//! one after the other, instead of finding each other's changes in the way.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use hookmill_actors::domain::config::ResourceKey;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// More places than requests are usually under way: two resources seldom share one.
const PLACES: usize = 64;

/// The places that resources are changed at; each lets in one after the other, in order.
#[derive(Clone)]
pub(super) struct Turns(Arc<[Arc<Mutex<()>>]>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..PLACES).map(|_| Arc::default()).collect())
    }
}

impl Turns {
    /// Waits until the change of a resource may begin; it has ended once what is returned is dropped.
    pub(super) async fn wait(&self, key: ResourceKey) -> OwnedMutexGuard<()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let places = self.0.len() as u64;
        let place = usize::try_from(hasher.finish() % places).unwrap_or(0);
        self.0[place].clone().lock_owned().await
    }
}
