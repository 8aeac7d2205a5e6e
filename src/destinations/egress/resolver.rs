//! Names to addresses. Each lookup blocks a thread of the runtime's blocking pool for as long as the system's
//! resolver likes, so lookups are bounded in number, and those who ask for the same name meanwhile share one:
//! a name server that hangs delays the destinations it serves, and at worst new names, but takes no more threads.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Semaphore, watch};

/// Lookups at once.
const LOOKUPS_MAX: usize = 32;
/// Addresses of one name that are looked at; a name server may send hundreds.
const ADDRESSES_MAX: usize = 16;

/// A lookup's result, shared by all who wait for it.
type Answer = Result<Arc<[IpAddr]>, Arc<io::Error>>;
type Pending = watch::Receiver<Option<Answer>>;

/// Resolves with the system's resolver. Clones share their lookups. Nothing is cached: the system's resolver may.
#[derive(Clone)]
pub(super) struct Resolver {
    running: Arc<Mutex<HashMap<Arc<str>, Pending>>>,
    slots: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new() -> Self {
        Self { running: Arc::default(), slots: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// The name's addresses, at least one.
    pub(super) async fn lookup(&self, host: &str) -> Answer {
        let mut pending = self.pending(host);
        match pending.wait_for(Option::is_some).await.map(|answer| answer.clone()) {
            Ok(Some(answer)) => answer,
            _ => Err(Arc::new(io::Error::other("the lookup was abandoned"))),
        }
    }

    /// Joins the lookup that is under way for this name, or begins one. It goes on when its askers give up.
    fn pending(&self, host: &str) -> Pending {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // A closed channel is a lookup that died with its runtime.
        if let Some(pending) = running.get(host).filter(|pending| pending.has_changed().is_ok()) {
            return pending.clone();
        }
        let host: Arc<str> = host.into();
        let (answer, pending) = watch::channel(None);
        running.insert(Arc::clone(&host), pending.clone());
        drop(running);

        let this = self.clone();
        tokio::spawn(async move {
            let found = this.ask_system(Arc::clone(&host)).await;
            this.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
            answer.send_replace(Some(found));
        });
        pending
    }

    async fn ask_system(&self, host: Arc<str>) -> Answer {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(io::Error::other)?;
        let lookup = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            let found: Arc<[IpAddr]> = (&*host, 0).to_socket_addrs()?.map(|at| at.ip()).take(ADDRESSES_MAX).collect();
            if found.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(found) }
        });
        Ok(lookup.await.map_err(io::Error::other)??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finds_localhost_and_says_when_a_name_is_unknown() {
        let resolver = Resolver::new();
        assert!(resolver.lookup("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        assert!(resolver.lookup("no-such-name.invalid").await.is_err());
        assert!(resolver.running.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn those_who_ask_for_the_same_name_share_one_lookup() {
        let resolver = Resolver::new();
        let held = Arc::clone(&resolver.slots).acquire_many_owned(u32::try_from(LOOKUPS_MAX).unwrap()).await.unwrap();
        let pending: Vec<_> = (0..100).map(|_| resolver.pending("localhost")).collect();
        assert_eq!(resolver.running.lock().unwrap().len(), 1);
        drop(held);
        for mut answer in pending {
            assert!(answer.wait_for(Option::is_some).await.unwrap().as_ref().unwrap().is_ok());
        }
    }

    #[test]
    fn a_lookup_that_died_with_its_runtime_is_begun_anew() {
        let resolver = Resolver::new();
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let first = runtime();
        {
            let _inside = first.enter();
            drop(resolver.pending("localhost"));
        }
        drop(first);
        assert!(runtime().block_on(resolver.lookup("localhost")).is_ok());
    }
}
