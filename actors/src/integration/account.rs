//! What an integration has taken in and not yet recorded, as its actor and the recorder share it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{IntegrationMsg, dedup::RecentKeys, intake, marks::RecentMarks};
use crate::{
    domain::{
        ids::{EventId, IntegrationId},
        limits::{COMMIT_OUTCOMES, INTAKE_UNRECORDED_MAX},
    },
    ports::{
        event_log::LogError,
        state_store::{Note, StateOp},
    },
    recorder::{Account, Standing},
    tree::mailbox::{Post, Way},
};

/// The actor notes, the recorder takes. Only what the actor waits for costs it a message.
pub(super) struct IntakeAccount {
    integration: IntegrationId,
    standing: Standing,
    owner: Post<IntegrationMsg>,
    marks: RecentMarks,
    keys: RecentKeys,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    notes: Vec<Note>,
    events: usize,
    upto: EventId,
    /// Commits on their way, oldest first: how many events, and up to which.
    taken: VecDeque<(usize, EventId)>,
    unrecorded: usize,
    /// The actor waits for something to be recorded.
    tell: bool,
    closed: bool,
}

impl IntakeAccount {
    pub(super) fn new(
        integration: IntegrationId,
        owner: Post<IntegrationMsg>,
        marks: RecentMarks,
        keys: RecentKeys,
    ) -> Self {
        Self { integration, standing: Standing::default(), owner, marks, keys, book: Mutex::default() }
    }

    /// So many events were taken in, up to `upto`, and this is what there is to say of them. Whether that is so much
    /// that it must be recorded now.
    pub(super) fn note(&self, events: usize, upto: EventId, notes: Vec<Note>) -> bool {
        let mut book = self.book();
        if book.notes.is_empty() {
            book.notes = notes;
        } else {
            book.notes.extend(notes);
        }
        book.events += events;
        book.unrecorded += events;
        book.upto = upto;
        book.events >= COMMIT_OUTCOMES
    }

    /// Whether more may be taken in. While not, the actor hears of the next commit.
    pub(super) fn may_take_in(&self) -> bool {
        let mut book = self.book();
        let may = book.unrecorded < INTAKE_UNRECORDED_MAX;
        book.tell |= !may;
        may
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change is whole by itself: a panic leaves nothing half done.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account for IntakeAccount {
    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn take(&self) -> Vec<StateOp> {
        let mut book = self.book();
        if book.closed || book.events == 0 {
            return Vec::new();
        }
        let (events, upto) = (std::mem::take(&mut book.events), book.upto);
        book.taken.push_back((events, upto));
        intake::record(self.integration, upto, std::mem::take(&mut book.notes))
    }

    fn recorded(&self, result: &Result<(), LogError>) {
        let mut book = self.book();
        let Some((events, upto)) = book.taken.pop_front() else { return };
        if let Err(error) = result {
            drop(book);
            return self.owner.cast(IntegrationMsg::Recorded(Err(error.clone())));
        }
        book.unrecorded = book.unrecorded.saturating_sub(events);
        let tell = std::mem::take(&mut book.tell);
        drop(book);
        self.marks.recorded(upto);
        self.keys.recorded(upto);
        if tell {
            self.owner.cast(IntegrationMsg::Recorded(Ok(())));
        }
    }

    fn close(&self) {
        self.book().closed = true;
    }
}
