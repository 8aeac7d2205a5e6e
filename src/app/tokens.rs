//! The API tokens of a running hookmill, and the task that now and then stores when they were used.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::{SystemClock, store::Store};
use crate::{secrets::TokenHash, tokens::TokenRegistry};

/// A crash loses what was used since; nothing depends on it.
const STORE_EVERY: Duration = Duration::from_secs(60);

/// Reads the tokens that are stored; `bootstrap` is the one that the start found or made.
pub(super) async fn open(
    bootstrap: TokenHash,
    requests_per_minute: NonZeroU32,
    store: &Store,
    clock: Arc<SystemClock>,
) -> anyhow::Result<Arc<TokenRegistry>> {
    let config = store.config.clone();
    let opened =
        tokio::task::spawn_blocking(move || TokenRegistry::open(bootstrap, requests_per_minute, config, clock)).await;
    Ok(Arc::new(opened.context("reading the tokens was cut off")?.context("the tokens cannot be read")?))
}

/// Stores when tokens were used, until the handle is dropped.
pub(super) fn store_uses_now_and_then(tokens: Arc<TokenRegistry>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(STORE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            store_uses(tokens.clone()).await;
        }
    }))
}

/// Stores when tokens were used. That it fails keeps nobody from anything.
pub(super) async fn store_uses(tokens: Arc<TokenRegistry>) {
    match tokio::task::spawn_blocking(move || tokens.store_uses()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "when tokens were last used could not be stored"),
        Err(error) => tracing::warn!(%error, "storing when tokens were last used was cut off"),
    }
}
