//! Credit of one: a wake may wait in a mailbox once, never twice. Pure.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Shared by whoever wakes and whoever is woken.
///
/// The woken side opens the gate *before* it looks for work, so that a wake for what came later passes again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Whether the caller may send the wake: nobody else's is waiting.
    pub(crate) fn enter(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The wake was taken out of the mailbox.
    pub(crate) fn open(&self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_one_in_until_it_is_opened_again() {
        let gate = Gate::default();
        assert!(gate.enter());
        assert!(!gate.enter());
        gate.open();
        assert!(gate.enter());
    }
}
