//! Work that an actor starts and does not wait for.

use std::{pin::Pin, task::Poll};

use futures_util::poll;
use ractor::Message;

use super::mailbox::Post;

/// Does what can be done without waiting; what comes of it is the answer where that was all. The rest goes on beside
/// the actor, and what comes of it is sent to it as the message that `build` makes. Boxed, as the work would be part of
/// the future of each of thousands of actors.
pub(crate) async fn here_or_beside<F, T: Message>(
    me: &Post<T>,
    mut work: Pin<Box<F>>,
    build: impl FnOnce(F::Output) -> T + Send + 'static,
) -> Option<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    if let Poll::Ready(output) = poll!(&mut work) {
        return Some(output);
    }
    let me = me.clone();
    tokio::spawn(async move { me.cast(build(work.await)) });
    None
}
