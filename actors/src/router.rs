//! Learns of new commits and wakes the integrations they are for. In: the log's writer, through [`CommitBoard`].
//! Out: at most one waiting wake an integration. Buffers no event: whoever is woken reads the log from its own
//! position. A crash loses nothing: a restarted router wakes everybody.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::{
    domain::ids::{EventId, IntegrationId},
    integration::IntegrationMsg,
    ports::event_log::CommitListener,
    router::gate::Gate,
    tree::{
        mailbox::{Level, Post, Role},
        wires::{Slot, Wires},
    },
};

pub(crate) mod gate;

/// Where the log's writer notes for whom it just committed something. Bounded by the number of integrations.
#[derive(Default)]
pub struct CommitBoard {
    dirty: Mutex<BTreeSet<IntegrationId>>,
    gate: Gate,
    router: Slot<RouterMsg>,
}

impl CommitBoard {
    pub(crate) fn router(&self) -> Slot<RouterMsg> {
        self.router.clone()
    }

    fn take(&self) -> BTreeSet<IntegrationId> {
        self.gate.open();
        std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CommitListener for CommitBoard {
    fn committed(&self, integrations: &[(IntegrationId, EventId)]) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.extend(integrations.iter().map(|(integration, _)| *integration));
        drop(dirty);
        if self.gate.enter() {
            self.router.hint(RouterMsg::Committed);
        }
    }
}

/// What may be said to the router.
pub(crate) enum RouterMsg {
    /// Something was committed; the board says for whom.
    Committed,
}

pub(crate) struct RouterActor;

pub(crate) struct RouterState {
    wires: Arc<Wires>,
    level: Arc<Level>,
}

impl Actor for RouterActor {
    type Msg = RouterMsg;
    type State = RouterState;
    type Arguments = Arc<Wires>;

    async fn pre_start(&self, me: ActorRef<RouterMsg>, wires: Arc<Wires>) -> Result<Self::State, ActorProcessingErr> {
        let level = wires.mailboxes.open(Role::Router, 0);
        wires.router.set(Post::new(me, level.clone()));
        wires.board.take();
        for integration in wires.intakes.keys() {
            wires.intakes.wake(integration, || IntegrationMsg::Wake);
        }
        Ok(RouterState { wires, level })
    }

    async fn handle(
        &self,
        _me: ActorRef<RouterMsg>,
        RouterMsg::Committed: RouterMsg,
        RouterState { wires, level }: &mut RouterState,
    ) -> Result<(), ActorProcessingErr> {
        level.handled();
        for integration in wires.board.take() {
            wires.intakes.wake(integration, || IntegrationMsg::Wake);
        }
        Ok(())
    }
}
