//! Places at a server: about as many attempts under way at once as idle connections are kept to it.
//!
//! Thousands of destinations may be paths of one server. Were all their attempts made at once, most would open a
//! connection for themselves and close it again, which costs both sides more than a short wait for one that is open.
//! The wait is short in any case: whoever gets no place by then goes without, so attempts that hang hold up no others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use hyper::{Uri, http::uri::Authority};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::client::IDLE_CONNECTIONS_MAX;

/// How long an attempt waits for a place.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(20);
/// Servers that nobody delivers to any more are looked for when there are so many.
const PRUNE_FROM: usize = 64;

/// The servers that one client reaches.
#[derive(Default)]
pub(super) struct Servers(Mutex<Known>);

#[derive(Default)]
struct Known {
    places: HashMap<Authority, Weak<Semaphore>>,
    prune_at: usize,
}

impl Servers {
    /// The places at the server of a URL; the same for all URLs with its host and port.
    pub(super) fn places(&self, uri: &Uri) -> Places {
        let Some(authority) = uri.authority() else { return Places::default() };
        let known = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = known.places.get(authority).and_then(Weak::upgrade) {
            return Places(places);
        }
        if known.places.len() >= known.prune_at.max(PRUNE_FROM) {
            known.places.retain(|_, places| places.strong_count() > 0);
            known.prune_at = 2 * known.places.len();
        }
        let places = Places::default();
        known.places.insert(authority.clone(), Arc::downgrade(&places.0));
        places
    }
}

/// What the attempts to one server share.
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(IDLE_CONNECTIONS_MAX)))
    }
}

impl Places {
    /// A place until it is dropped; `None` after the wait, when one goes without.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = self.0.clone().try_acquire_owned() {
            return Some(place);
        }
        timeout(WAIT_MAX, self.0.clone().acquire_owned()).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    fn left(places: &Places) -> usize {
        places.0.available_permits()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_place_waits_briefly_and_goes_without() {
        let places = Places::default();
        let mut taken = Vec::new();
        for _ in 0..IDLE_CONNECTIONS_MAX {
            taken.push(places.take().await.expect("there is a place"));
        }
        let began = Instant::now();
        assert!(places.take().await.is_none());
        assert_eq!(began.elapsed(), WAIT_MAX);
        taken.pop();
        assert!(places.take().await.is_some());
        assert_eq!(began.elapsed(), WAIT_MAX, "a free place is taken at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_comes_free_goes_to_who_waits() {
        let places = Places::default();
        let mut taken = Vec::new();
        for _ in 0..IDLE_CONNECTIONS_MAX {
            taken.push(places.take().await);
        }
        let free = async {
            tokio::time::sleep(WAIT_MAX / 2).await;
            taken.pop();
        };
        let (place, ()) = tokio::join!(places.take(), free);
        assert!(place.is_some());
    }

    #[tokio::test]
    async fn urls_of_one_server_share_its_places_and_others_have_their_own() {
        let servers = Servers::default();
        let orders = servers.places(&uri("http://example.test:8080/orders"));
        let _place = orders.take().await;
        let bills = servers.places(&uri("http://example.test:8080/bills?late=true"));
        let other_port = servers.places(&uri("http://example.test:8081/orders"));
        assert_eq!(
            [left(&orders), left(&bills), left(&other_port)],
            [IDLE_CONNECTIONS_MAX - 1, IDLE_CONNECTIONS_MAX - 1, IDLE_CONNECTIONS_MAX]
        );
    }

    #[test]
    fn servers_that_nobody_delivers_to_are_forgotten() {
        let servers = Servers::default();
        let kept: Vec<_> = (0..PRUNE_FROM).map(|at| servers.places(&uri(&format!("http://kept-{at}.test/")))).collect();
        for at in 0..10 * PRUNE_FROM {
            drop(servers.places(&uri(&format!("http://gone-{at}.test/"))));
        }
        assert!(servers.0.lock().unwrap().places.len() <= 2 * PRUNE_FROM);
        drop(kept);
    }
}
