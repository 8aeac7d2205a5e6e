//! Work that an actor starts and does not wait for.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::mailbox::Way;

/// Does what can be done without waiting; what comes of it is the answer where that was all. The rest goes on beside
/// the actor, and what comes of it is sent to it as the message that `build` makes. Boxed, as the work would be part of
/// the future of each of thousands of actors.
pub(crate) fn here_or_beside<F, W: Way>(
    me: &W,
    mut work: Pin<Box<F>>,
    build: impl FnOnce(F::Output) -> W::Msg + Send + 'static,
) -> Option<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    // Nobody is to be woken: a task of its own asks again at once.
    if let Poll::Ready(output) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return Some(output);
    }
    let me = me.clone();
    tokio::spawn(async move { me.cast(build(work.await)) });
    None
}
