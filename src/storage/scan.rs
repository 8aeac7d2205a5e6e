//! Reads a segment from its first commit to its end: makes its index, and tells a torn end from damage.
//!
//! One commit is under way at a time, and the next is written only after its sync. So behind a torn commit there is
//! nothing of the same segment; where a later commit is found behind one that does not read, synced bytes were lost.

use std::{io, path::Path, sync::Arc};

use hookmill_actors::{domain::ids::EventId, ports::state_store::StateOp};
use tracing::warn;

use super::{
    commit::{COMMIT_ALIGN, COMMIT_HEADER_BYTES, CommitHeader, decode_state},
    disk::DiskFile,
    index::{Entry, MemoryIndex},
    open_error::OpenError,
    record::{RECORD_HEADER_BYTES, RecordHeader, RecordKind},
    segment::{DATA_START, SegmentHeader},
};

/// Bytes read ahead.
const WINDOW_BYTES: usize = 1 << 20;

/// What a segment holds.
pub(crate) struct Scan {
    pub(crate) index: MemoryIndex,
    /// Where the next commit goes.
    pub(crate) end: u64,
    pub(crate) next_commit: u64,
    pub(crate) last: EventId,
    pub(crate) oldest_segment: u64,
    /// A commit that was never acknowledged was found at the end, and dropped.
    pub(crate) torn: bool,
}

/// How a commit reads.
enum Commit {
    Whole(CommitHeader, Vec<(RecordKind, Entry)>),
    /// As `Whole`, but some payload does not match its checksum: such an event reads as damaged, the rest are fine.
    PayloadDamaged(CommitHeader, Vec<(RecordKind, Entry)>),
    Broken(&'static str),
}

/// Scans a segment. `sealed_end`: where it is known to end; `None` for the last segment, whose end is found.
pub(crate) fn scan(
    file: &Arc<dyn DiskFile>,
    path: &Path,
    header: &SegmentHeader,
    sealed_end: Option<u64>,
) -> Result<Scan, OpenError> {
    let failed = |error| OpenError::io(path, error);
    let limit = sealed_end.unwrap_or(header.file_bytes);
    let mut window = Window::new(Arc::clone(file), limit);
    let mut scan = Scan {
        index: MemoryIndex::default(),
        end: DATA_START,
        next_commit: header.first_commit,
        last: header.prev_last,
        oldest_segment: header.oldest_segment,
        torn: false,
    };
    while scan.end < limit {
        let commit = read_commit(&mut window, header, &scan).map_err(failed)?;
        let (commit, entries) = match commit {
            Commit::Whole(commit, entries) => (commit, entries),
            Commit::PayloadDamaged(commit, entries)
                if sealed_end.is_some()
                    || find_commit(&mut window, header, &scan, commit.stride()).map_err(failed)?.is_some() =>
            {
                warn!(file = %path.display(), offset = scan.end, "a stored payload is damaged; its event will read as corrupt");
                (commit, entries)
            }
            Commit::Broken(problem) if sealed_end.is_some() => return Err(OpenError::damaged(path, scan.end, problem)),
            Commit::PayloadDamaged(..) => {
                scan.torn = true;
                break;
            }
            Commit::Broken(problem) => {
                if let Some(later) = find_commit(&mut window, header, &scan, COMMIT_ALIGN as u64).map_err(failed)? {
                    let problem = format!("{problem}, but a later commit follows at byte {later}");
                    return Err(OpenError::damaged(path, scan.end, &problem));
                }
                // Without a header there is nothing to tell a lost commit from a file that was used before.
                let header_bytes = window.bytes(scan.end, COMMIT_HEADER_BYTES).map_err(failed)?;
                scan.torn = header_bytes.is_some_and(|bytes| CommitHeader::decode(bytes, header.salt).is_some());
                break;
            }
        };
        for (kind, entry) in entries {
            match kind {
                RecordKind::Event => scan.index.push(entry),
                RecordKind::Kept => scan.index.push_kept(entry),
            }
        }
        scan.end += commit.stride();
        scan.next_commit += 1;
        scan.last = commit.last;
        scan.oldest_segment = commit.oldest_segment;
    }
    if sealed_end.is_some_and(|end| end != scan.end) {
        return Err(OpenError::damaged(path, scan.end, "its commits do not end where the next segment says"));
    }
    Ok(scan)
}

/// Hands the state operations of commits from `from` up to `end` to `apply`, each with its commit's end.
pub(crate) fn replay(
    file: &Arc<dyn DiskFile>,
    path: &Path,
    salt: u64,
    from: u64,
    end: u64,
    mut apply: impl FnMut(Vec<StateOp>, u64) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let failed = |error| OpenError::io(path, error);
    let mut window = Window::new(Arc::clone(file), end);
    let mut offset = from;
    while offset < end {
        let header = window.bytes(offset, COMMIT_HEADER_BYTES).map_err(failed)?;
        let Some(commit) = header.and_then(|bytes| CommitHeader::decode(bytes, salt)) else {
            return Err(OpenError::damaged(path, offset, "no commit begins where one must"));
        };
        let state = offset + COMMIT_HEADER_BYTES as u64 + u64::from(commit.records_bytes);
        offset += commit.stride();
        let mut ops = Vec::new();
        if commit.state_bytes > 0 {
            let bytes = window
                .bytes(state, commit.state_bytes as usize)
                .map_err(failed)?
                .filter(|bytes| crc32fast::hash(bytes) == commit.state_crc)
                .ok_or_else(|| OpenError::damaged(path, state, "state does not match its checksum"))?;
            decode_state(bytes, &mut ops)
                .map_err(|error| OpenError::damaged(path, state, &format!("state does not decode: {error}")))?;
        }
        apply(ops, offset)?;
    }
    if offset == end { Ok(()) } else { Err(OpenError::damaged(path, offset, "a commit goes beyond the segment's end")) }
}

fn read_commit(window: &mut Window, header: &SegmentHeader, scan: &Scan) -> io::Result<Commit> {
    let Some(bytes) = window.bytes(scan.end, COMMIT_HEADER_BYTES)? else {
        return Ok(Commit::Broken("no commit header fits here"));
    };
    let Some(commit) = CommitHeader::decode(bytes, header.salt) else {
        return Ok(Commit::Broken("a commit's header does not read"));
    };
    if commit.number != scan.next_commit || commit.prev_last != scan.last {
        return Ok(Commit::Broken("a commit is out of sequence"));
    }
    let Some(bytes) =
        usize::try_from(commit.content_bytes()).ok().map(|len| window.bytes(scan.end, len)).transpose()?.flatten()
    else {
        return Ok(Commit::Broken("a commit goes beyond the segment's end"));
    };
    let (records, state) = bytes[COMMIT_HEADER_BYTES..].split_at(commit.records_bytes as usize);
    if crc32fast::hash(state) != commit.state_crc {
        return Ok(Commit::Broken("a commit's state does not match its checksum"));
    }
    Ok(read_records(records, scan.end, &commit, header.salt))
}

fn read_records(records: &[u8], start: u64, commit: &CommitHeader, salt: u64) -> Commit {
    let mut entries = Vec::with_capacity((commit.events + commit.kept).min(65_536) as usize);
    let mut last = commit.prev_last;
    let (mut events, mut kept, mut place, mut damaged) = (0, 0, 0, false);
    while place < records.len() {
        let Some(header) = RecordHeader::decode(&records[place..], salt) else {
            return Commit::Broken("a record's header does not read");
        };
        let Some(payload) = records[place..].get(RECORD_HEADER_BYTES..header.record_bytes()) else {
            return Commit::Broken("a record goes beyond its commit");
        };
        damaged |= crc32fast::hash(payload) != header.payload_crc;
        match header.kind {
            RecordKind::Event if header.id > last => {
                events += 1;
                last = header.id;
            }
            RecordKind::Event => return Commit::Broken("a record is out of sequence"),
            RecordKind::Kept => kept += 1,
        }
        let offset = start + COMMIT_HEADER_BYTES as u64 + place as u64;
        let (Ok(offset), Ok(bytes)) = (u32::try_from(offset), u32::try_from(header.record_bytes())) else {
            return Commit::Broken("a record lies beyond what a segment may hold");
        };
        entries.push((header.kind, Entry::new(header.id, offset, bytes)));
        place += header.record_bytes();
    }
    if events != commit.events || kept != commit.kept || last != commit.last {
        return Commit::Broken("a commit does not hold what its header says");
    }
    if damaged { Commit::PayloadDamaged(*commit, entries) } else { Commit::Whole(*commit, entries) }
}

/// Looks for a commit of this segment that was written later than the one expected at `scan.end`.
fn find_commit(window: &mut Window, header: &SegmentHeader, scan: &Scan, skip: u64) -> io::Result<Option<u64>> {
    let mut offset = scan.end + skip;
    while let Some(bytes) = window.bytes(offset, COMMIT_HEADER_BYTES)? {
        if CommitHeader::decode(bytes, header.salt).is_some_and(|commit| commit.number >= scan.next_commit) {
            return Ok(Some(offset));
        }
        offset += COMMIT_ALIGN as u64;
    }
    Ok(None)
}

/// A file read in order, some way ahead.
struct Window {
    file: Arc<dyn DiskFile>,
    limit: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl Window {
    fn new(file: Arc<dyn DiskFile>, limit: u64) -> Self {
        Self { file, limit, start: 0, buffer: Vec::new() }
    }

    /// Bytes at a place; `None` when they would go beyond the limit.
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let end = offset + len as u64;
        if end > self.limit {
            return Ok(None);
        }
        if offset < self.start || end > self.start + self.buffer.len() as u64 {
            let ahead = self.limit - offset;
            let wanted = usize::try_from(ahead).map_or(WINDOW_BYTES, |ahead| ahead.min(WINDOW_BYTES)).max(len);
            self.buffer.resize(wanted, 0);
            self.start = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.buffer, offset) {
                self.buffer.clear();
                return Err(error);
            }
        }
        let place = usize::try_from(offset - self.start).map_err(io::Error::other)?;
        Ok(Some(&self.buffer[place..place + len]))
    }
}
