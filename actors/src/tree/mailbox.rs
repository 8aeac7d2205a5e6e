//! How full mailboxes are. ractor's have no bound, so every message to the actors on an event's way is sent by a
//! [`Post`], which counts it in; the actor counts it out as it takes it up. What bounds a mailbox is credit: each role
//! says which. A level above the bound is a fault of hookmill; it is counted and shown. A delivery's messages wait in the
//! mailbox of its integration's actor and are counted for themselves.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ractor::{ActorRef, Message, MessagingErr, RpcReplyPort, rpc::CallResult};
use serde::Serialize;
use utoipa::ToSchema;

/// Who has a mailbox that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MailboxRole)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// One wake: the commit board lets no second one through before it is taken up.
    Router,
    /// One wake: the timetable is written by others under a lock, and its timer passes the same gate.
    Retry,
    /// A wake, a read and a timer; and of each subscription one restart.
    Integration,
    /// The end of each attempt and commit under way, and one of each other message.
    Delivery,
}

const ROLES: [Role; 4] = [Role::Router, Role::Retry, Role::Integration, Role::Delivery];

impl Role {
    /// How many messages may wait at once.
    const fn bound(self) -> i64 {
        match self {
            Self::Router | Self::Retry => 1,
            Self::Integration => 64,
            // 256 attempts, as many commits, and the rest.
            Self::Delivery => 576,
        }
    }
}

/// One actor's mailbox.
#[derive(Debug)]
pub(crate) struct Level {
    kind: Arc<Kind>,
    owner: u32,
    waiting: AtomicI64,
    highest: AtomicI64,
    bound: AtomicI64,
}

impl Level {
    /// The bound grows with those who may send, as an integration's with its subscriptions.
    pub(crate) fn allow(&self, more: usize) {
        self.bound.store(self.kind.role.bound() + i64::try_from(more).unwrap_or(i64::MAX / 2), Relaxed);
    }

    /// The actor takes a message up.
    pub(crate) fn handled(&self) {
        let waiting = self.waiting.fetch_sub(1, Relaxed);
        debug_assert!(waiting > 0, "a message to the {:?} actor was not sent by its post", self.kind.role);
    }

    /// A message is on its way.
    pub(crate) fn sent(&self) {
        let waiting = self.waiting.fetch_add(1, Relaxed) + 1;
        if waiting > self.highest.fetch_max(waiting, Relaxed) {
            self.kind.highest.fetch_max(waiting, Relaxed);
        }
        if waiting > self.bound.load(Relaxed) {
            self.kind.passed.fetch_add(1, Relaxed);
        }
    }

    /// There was nobody to take it.
    pub(crate) fn not_sent(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }
}

/// All mailboxes of one role.
#[derive(Debug)]
struct Kind {
    role: Role,
    highest: AtomicI64,
    passed: AtomicU64,
    levels: Mutex<Vec<Weak<Level>>>,
}

/// All mailboxes that are counted.
#[derive(Clone, Debug)]
pub(crate) struct Mailboxes(Arc<[Arc<Kind>; 4]>);

impl Default for Mailboxes {
    fn default() -> Self {
        let kind = |role| {
            Arc::new(Kind { role, highest: AtomicI64::new(0), passed: AtomicU64::new(0), levels: Mutex::default() })
        };
        Self(Arc::new(ROLES.map(kind)))
    }
}

/// How full a role's mailboxes are and were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Mailbox)]
pub struct MailboxView {
    /// Whose.
    pub role: Role,
    /// How many there are.
    pub actors: usize,
    /// Messages that wait in the fullest one.
    pub waiting_max: i64,
    /// The integration or subscription whose that is; 0 for the router and the retry actor.
    pub fullest: u32,
    /// The most that ever waited in one.
    pub highest: i64,
    /// How many may wait in one; of integrations' with many subscriptions, the largest.
    pub bound: i64,
    /// Messages that were sent above the bound: always 0, or hookmill has a fault.
    pub passed: u64,
}

impl Mailboxes {
    /// A new actor's mailbox. `owner`: its integration's or subscription's number.
    pub(crate) fn open(&self, role: Role, owner: u32) -> Arc<Level> {
        let kind = &self.0[role as usize];
        let level = Arc::new(Level {
            kind: kind.clone(),
            owner,
            waiting: AtomicI64::new(0),
            highest: AtomicI64::new(0),
            bound: AtomicI64::new(role.bound()),
        });
        let mut levels = kind.levels.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of actors that are gone are dropped each time the list would grow.
        if levels.len() == levels.capacity() {
            levels.retain(|level| level.strong_count() > 0);
        }
        levels.push(Arc::downgrade(&level));
        level
    }

    /// How full they are.
    pub(crate) fn views(&self) -> Vec<MailboxView> {
        self.0.iter().map(|kind| kind.view()).collect()
    }
}

impl Kind {
    fn view(&self) -> MailboxView {
        let mut view = MailboxView {
            role: self.role,
            actors: 0,
            waiting_max: 0,
            fullest: 0,
            highest: self.highest.load(Relaxed),
            bound: self.role.bound(),
            passed: self.passed.load(Relaxed),
        };
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        for level in levels.iter().filter_map(Weak::upgrade) {
            let waiting = level.waiting.load(Relaxed);
            view.actors += 1;
            view.bound = view.bound.max(level.bound.load(Relaxed));
            if waiting > view.waiting_max {
                (view.waiting_max, view.fullest) = (waiting, level.owner);
            }
        }
        view
    }
}

/// A way to somebody who takes messages.
pub(crate) trait Way: Clone + Send + Sync + 'static {
    /// What may be sent.
    type Msg: Send + 'static;

    /// Sends; one that is gone takes nothing.
    fn cast(&self, msg: Self::Msg);

    /// Sends later; counted when it is sent.
    fn send_after(&self, wait: Duration, build: impl FnOnce() -> Self::Msg + Send + 'static) {
        let way = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            way.cast(build());
        });
    }
}

/// The way to an actor: an [`ActorRef`] that counts what it sends.
pub(crate) struct Post<T: Message> {
    actor: ActorRef<T>,
    /// `None` where nobody counts: off the way of events.
    level: Option<Arc<Level>>,
}

impl<T: Message> Clone for Post<T> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), level: self.level.clone() }
    }
}

impl<T: Message> From<ActorRef<T>> for Post<T> {
    fn from(actor: ActorRef<T>) -> Self {
        Self { actor, level: None }
    }
}

impl<T: Message> Post<T> {
    /// From now on every message must go this way.
    pub(crate) fn new(actor: ActorRef<T>, level: Arc<Level>) -> Self {
        Self { actor, level: Some(level) }
    }

    /// To whom.
    pub(crate) fn actor(&self) -> &ActorRef<T> {
        &self.actor
    }

    /// Asks and waits for the answer.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        build: impl FnOnce(RpcReplyPort<R>) -> T,
        wait_max: Option<Duration>,
    ) -> Result<CallResult<R>, MessagingErr<T>> {
        if let Some(level) = &self.level {
            level.sent();
        }
        let answer = self.actor.call(build, wait_max).await;
        if answer.is_err() {
            self.not_sent();
        }
        answer
    }

    fn not_sent(&self) {
        if let Some(level) = &self.level {
            level.not_sent();
        }
    }
}

impl<T: Message> Way for Post<T> {
    type Msg = T;

    fn cast(&self, msg: T) {
        if let Some(level) = &self.level {
            level.sent();
        }
        if self.actor.cast(msg).is_err() {
            self.not_sent();
        }
    }
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr};

    use super::*;

    struct Counting;

    impl Actor for Counting {
        type Msg = u32;
        type State = Arc<Level>;
        type Arguments = Arc<Level>;

        async fn pre_start(&self, _: ActorRef<u32>, level: Arc<Level>) -> Result<Arc<Level>, ActorProcessingErr> {
            Ok(level)
        }

        async fn handle(&self, _: ActorRef<u32>, _: u32, level: &mut Arc<Level>) -> Result<(), ActorProcessingErr> {
            level.handled();
            Ok(())
        }
    }

    fn view(mailboxes: &Mailboxes, role: Role) -> MailboxView {
        mailboxes.views()[role as usize]
    }

    #[tokio::test]
    async fn what_waits_is_counted_in_and_out_and_a_passed_bound_is_told() {
        let mailboxes = Mailboxes::default();
        let level = mailboxes.open(Role::Retry, 9);
        let (actor, ended) = Actor::spawn(None, Counting, level.clone()).await.expect("it starts");
        let post = Post::new(actor.clone(), level.clone());
        // One thread: the actor takes nothing up before this task waits.
        post.cast(1);
        assert_eq!(view(&mailboxes, Role::Retry).passed, 0);
        post.cast(2);
        post.cast(3);
        let full =
            MailboxView { role: Role::Retry, actors: 1, waiting_max: 3, fullest: 9, highest: 3, bound: 1, passed: 2 };
        assert_eq!(view(&mailboxes, Role::Retry), full);
        actor.drain().expect("it runs");
        ended.await.expect("it ends");
        let empty = MailboxView { waiting_max: 0, fullest: 0, ..full };
        assert_eq!(view(&mailboxes, Role::Retry), empty);
        post.cast(4);
        assert_eq!(view(&mailboxes, Role::Retry), empty, "nobody is there to take it");
        drop((post, level));
        assert_eq!(view(&mailboxes, Role::Retry), MailboxView { actors: 0, ..empty });
    }

    #[test]
    fn a_bound_grows_with_those_who_may_send() {
        let mailboxes = Mailboxes::default();
        let level = mailboxes.open(Role::Integration, 1);
        level.allow(10);
        (0..Role::Integration.bound() + 10).for_each(|_| level.sent());
        assert_eq!(view(&mailboxes, Role::Integration).passed, 0);
        level.sent();
        assert_eq!(view(&mailboxes, Role::Integration).passed, 1);
    }

    #[test]
    fn actors_that_come_and_go_take_no_room() {
        let mailboxes = Mailboxes::default();
        let stays = mailboxes.open(Role::Delivery, 0);
        for owner in 1..10_000 {
            drop(mailboxes.open(Role::Delivery, owner));
        }
        assert_eq!(view(&mailboxes, Role::Delivery).actors, 1);
        assert!(mailboxes.0[Role::Delivery as usize].levels.lock().expect("nobody panicked").len() < 10);
        drop(stays);
    }
}
