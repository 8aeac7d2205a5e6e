//! Removes the oldest segments once all of their events are finished, and carries along what is still needed.
//!
//! In this order, so that a crash at any point loses nothing: the state is synced beyond the segment; payloads that
//! a dead letter or a due retry needs are copied to the log's end, in a commit that also says that the segment is
//! given up; then the file goes. One trim at a time; blocking.

use std::sync::Arc;

use crossbeam_channel::Sender;
use hookmill_actors::{
    domain::ids::EventId,
    ports::event_log::{LogError, TrimRequest, Trimmed},
};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{
    catalog::{OpenSegment, Sealed},
    index::Entry,
    reader::{look_into, read_raw},
    record::Payload,
    shared::Shared,
    space::Space,
    writer::{KeepRequest, Request},
};

/// Ids asked for at once.
const NEEDED_PAGE: usize = 1_000;
/// Bytes of payloads handed to the writer at once, about.
const KEEP_BYTES: usize = 4 << 20;

/// What a trim works with.
pub(crate) struct Trim<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) space: &'a Space,
    pub(crate) requests: &'a Sender<Request>,
}

impl Trim<'_> {
    /// Trims as far as the request allows.
    pub(crate) fn run(&self, request: &TrimRequest) -> Result<Trimmed, LogError> {
        let mut trimmed = Trimmed::default();
        let Some(oldest) = self.oldest(request) else { return Ok(trimmed) };
        let synced =
            self.shared.state.sync_all().map_err(|error| self.shared.fail(&format!("syncing the state: {error}")))?;
        let mut next = Some(oldest);
        let mut upto = None;
        while let Some(sealed) = next.filter(|sealed| sealed.summary.number < synced.segment) {
            if let Some(failed) = self.shared.failed() {
                return Err(failed);
            }
            let copied = self.remove(&sealed, &mut trimmed)?;
            upto = Some(sealed.summary.last);
            let records = u64::from(sealed.summary.events) + u64::from(sealed.summary.kept);
            if !is_old(&sealed, request) && copied * 2 > records {
                // More was moved along than freed: going on would copy the whole log to free next to nothing.
                warn!(copied, records, "the log is over its size with payloads that retries and dead letters need");
                break;
            }
            next = self.oldest(request);
        }
        if let Some(upto) = upto {
            self.shared.state.prune(upto)?;
            info!(events = trimmed.events, kept = trimmed.kept, bytes = trimmed.bytes, "trimmed the log");
        }
        Ok(trimmed)
    }

    /// The oldest segment, if it may go.
    fn oldest(&self, request: &TrimRequest) -> Option<Arc<Sealed>> {
        let oldest = self.shared.catalog.sealed().first().cloned()?;
        let finished = oldest.summary.last <= request.finished_upto;
        let old = is_old(&oldest, request);
        let (_, bytes, _) = self.shared.catalog.sizes();
        (finished && (old || bytes > request.bytes_max)).then_some(oldest)
    }

    /// Returns how many records were copied to the log's end.
    fn remove(&self, sealed: &Sealed, trimmed: &mut Trimmed) -> Result<u64, LogError> {
        let number = sealed.summary.number;
        let (kept, moved) = self.keep(sealed)?;
        self.shared.catalog.forget_oldest(number);
        self.shared.tail.forget(sealed.summary.last);
        self.space
            .retire(number, sealed.file_bytes)
            .map_err(|error| self.shared.fail(&format!("removing segment {number:016x}: {error}")))?;
        trimmed.events += u64::from(sealed.summary.events) - kept.min(u64::from(sealed.summary.events));
        trimmed.kept += kept;
        trimmed.bytes += sealed.file_bytes;
        Ok(kept + moved)
    }

    /// Copies what is needed of a segment and gives the segment up. Returns how many of its own events were copied,
    /// and of those that had been copied into it before.
    fn keep(&self, sealed: &Sealed) -> Result<(u64, u64), LogError> {
        let state = &*self.shared.state;
        let mut records = Vec::new();
        let mut bytes = 0;
        let (segment, earlier) = look_into(&self.shared.catalog, sealed, super::catalog::IndexView::kept)?;
        let mut moved = 0;
        for entry in earlier {
            if state.is_needed(entry.id())? {
                moved += 1;
                self.copy(&segment, &entry, &mut records, &mut bytes)?;
            }
        }
        let mut after = sealed.summary.prev_last;
        let mut kept = 0;
        loop {
            let needed = state.needed(after, sealed.summary.last, NEEDED_PAGE)?;
            let Some(last) = needed.last() else { break };
            after = *last;
            let (segment, entries) = look_into(&self.shared.catalog, sealed, |index| index.find_all(&needed))?;
            for entry in entries {
                kept += 1;
                self.copy(&segment, &entry, &mut records, &mut bytes)?;
            }
        }
        self.hand_over(records, Some(sealed.summary.number + 1))?;
        Ok((kept, moved))
    }

    fn copy(
        &self,
        segment: &OpenSegment,
        entry: &Entry,
        records: &mut Vec<(EventId, Payload)>,
        bytes: &mut usize,
    ) -> Result<(), LogError> {
        let payload = match read_raw(&self.shared.catalog, segment, entry)? {
            Some((header, payload)) => Payload::copied(&header, &payload),
            None => Payload::lost(),
        };
        *bytes += payload.record_bytes();
        records.push((entry.id(), payload));
        if *bytes >= KEEP_BYTES {
            *bytes = 0;
            self.hand_over(std::mem::take(records), None)?;
        }
        Ok(())
    }

    fn hand_over(&self, records: Vec<(EventId, Payload)>, oldest: Option<u64>) -> Result<(), LogError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Keep(KeepRequest { records, oldest, reply })).map_err(|_| LogError::Closed)?;
        answer.blocking_recv().unwrap_or(Err(LogError::Closed))
    }
}

/// Whether a segment goes for its age. An id carries the time of its commit, which is never before the receipt.
fn is_old(sealed: &Sealed, request: &TrimRequest) -> bool {
    sealed.summary.last.millis() < request.received_before_ms
}
