//! Opens what an earlier process left: checks the chain of segments, finds the end, brings the state up to it.
//!
//! Sealed segments are not read: their header, the next one's and their sidecar say all there is to say. The last
//! segment is scanned. What is found at its end may be a commit that was written and never synced: it is dropped
//! when torn; when whole it stays, and is synced before anybody sees it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use hookmill_actors::domain::ids::EventId;
use tracing::{info, warn};

use super::{
    Applied, LogPlace, StateView,
    catalog::{Active, Catalog, OpenSegment, Sealed, SegmentExtent},
    disk::{Disk, DiskFile},
    index::MemoryIndex,
    open_error::OpenError,
    options::LogOptions,
    scan::{Scan, replay, scan},
    segment::{
        DATA_START, SegmentHeader, allocate, fresh_salt, install, parse_name, segment_path, sidecar_path, spare_path,
    },
    sidecar::{self, Summary},
    store_dir::StoreDir,
    writer::{ActiveFile, WriterStart},
};

/// State operations that are applied at once when they are replayed.
const REPLAY_OPS: usize = 512;

/// An opened log, before its threads run.
pub(crate) struct Recovered {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) writer: WriterStart,
    /// Files that may become segments.
    pub(crate) recycled: Vec<PathBuf>,
    pub(crate) next_spare: u64,
    /// Sealed segments whose sidecar must be written.
    pub(crate) unsaved: Vec<Arc<Sealed>>,
}

/// A segment file with its header read.
struct Found {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
}

/// Opens the log of a store, or begins it when the store is fresh.
pub(crate) fn recover(
    store: &StoreDir,
    options: &LogOptions,
    state: &Arc<dyn StateView>,
) -> Result<Recovered, OpenError> {
    let disk = store.disk();
    let dir = store.log_path();
    let failed = |error| OpenError::io(&dir, error);
    if store.is_fresh() {
        begin(&**disk, &dir, options.segment_bytes)?;
        store.begun().map_err(|error| OpenError::io(store.path(), error))?;
    }
    let names = match disk.list(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(OpenError::Missing { file: dir, problem: "FORMAT says that a log was begun".into() });
        }
        names => names.map_err(failed)?,
    };
    let segments = check_chain(&**disk, &dir, &names)?;
    let Some((last, before)) = segments.split_last() else {
        return Err(OpenError::Missing {
            file: dir.join("*.seg"),
            problem: "FORMAT says that a log was begun, and it always has a segment".into(),
        });
    };
    if names.contains(&file_name(&sidecar_path(&dir, last.header.number))) {
        return Err(OpenError::Missing {
            file: segment_path(&dir, last.header.number + 1),
            problem: format!("segment {:016x} is sealed, so another one follows", last.header.number),
        });
    }
    let end = scan(&last.file, &last.path, &last.header, None)?;
    if end.torn {
        info!(file = %last.path.display(), offset = end.end, "dropped a commit that was never acknowledged");
    }
    // What was read may still be in the page cache only, if the process before was killed.
    last.file.sync_data().map_err(|error| OpenError::io(&last.path, error))?;
    let (trimmed, before) = split_trimmed(&dir, before, last, &end)?;
    let mut sealed = Vec::with_capacity(before.len());
    let mut unsaved = Vec::new();
    for (place, found) in before.iter().enumerate() {
        let next = before.get(place + 1).unwrap_or(last);
        let (segment, saved) = open_sealed(&**disk, &dir, found, &next.header)?;
        if !saved {
            unsaved.push(Arc::clone(&segment));
        }
        sealed.push(segment);
    }
    bring_up(&**state, before, last, end.end)?;
    remove_trimmed(&**disk, &dir, trimmed)?;
    let (recycled, next_spare) = clean_up(&**disk, &dir, &names, options.segment_bytes).map_err(failed)?;
    let (active, writer) = active_of(last, end);
    let catalog = Arc::new(Catalog::new(Arc::clone(disk), dir, sealed, active, writer.last));
    Ok(Recovered { catalog, writer, recycled, next_spare, unsaved })
}

fn active_of(found: &Found, end: Scan) -> (Active, WriterStart) {
    let Found { file, header, .. } = found;
    let active = Active {
        segment: OpenSegment::new(header.number, header.salt, Arc::clone(file)),
        file_bytes: header.file_bytes,
        prev_last: header.prev_last,
        end: end.end,
        index: end.index,
    };
    let writer = WriterStart {
        active: ActiveFile {
            file: Arc::clone(file),
            number: header.number,
            salt: header.salt,
            file_bytes: header.file_bytes,
            end: end.end,
        },
        next_commit: end.next_commit,
        oldest_segment: end.oldest_segment,
        last: end.last,
    };
    (active, writer)
}

/// The segments of a log that nobody has open, oldest first, each up to its last commit, and the last event in them.
/// Reads the last segment and changes nothing.
pub fn closed_extents(store: &StoreDir) -> Result<(Vec<SegmentExtent>, EventId), OpenError> {
    let (disk, dir) = (store.disk(), store.log_path());
    let names = disk.list(&dir).map_err(|error| OpenError::io(&dir, error))?;
    let segments = check_chain(&**disk, &dir, &names)?;
    let Some(last) = segments.last() else {
        let problem = "a log always has a segment".into();
        return Err(OpenError::Missing { file: dir.join("*.seg"), problem });
    };
    let end = scan(&last.file, &last.path, &last.header, None)?;
    let ends = segments.iter().skip(1).map(|next| (next.header.prev_end, true)).chain([(end.end, false)]);
    let extent = |(found, (end, sealed)): (&Found, (u64, bool))| SegmentExtent {
        number: found.header.number,
        salt: found.header.salt,
        file_bytes: found.header.file_bytes,
        end,
        sealed,
    };
    Ok((segments.iter().zip(ends).map(extent).collect(), end.last))
}

/// Makes the first segment of a fresh store. Files of a first start that was cut short go.
fn begin(disk: &dyn Disk, dir: &Path, segment_bytes: u64) -> Result<(), OpenError> {
    let failed = |error| OpenError::io(dir, error);
    disk.create_dir(dir).map_err(failed)?;
    for name in disk.list(dir).map_err(failed)? {
        disk.remove(&dir.join(name)).map_err(failed)?;
    }
    let header = SegmentHeader {
        number: 1,
        file_bytes: segment_bytes,
        salt: fresh_salt(),
        prev_salt: 0,
        prev_end: 0,
        first_commit: 1,
        oldest_segment: 1,
        prev_last: EventId::ZERO,
    };
    let spare = allocate(disk, spare_path(dir, 0), segment_bytes, || {}).map_err(failed)?;
    install(disk, dir, &spare, &header).map_err(failed)?;
    Ok(())
}

/// Opens every segment and holds each one's header against the one before.
fn check_chain(disk: &dyn Disk, dir: &Path, names: &[String]) -> Result<Vec<Found>, OpenError> {
    let numbers: BTreeSet<u64> = names
        .iter()
        .filter_map(|name| parse_name(name))
        .filter(|(_, ending)| *ending == "seg")
        .map(|(number, _)| number)
        .collect();
    let mut segments: Vec<Found> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let path = segment_path(dir, number);
        let file = disk.open(&path).map_err(|error| OpenError::io(&path, error))?;
        let header = SegmentHeader::read(&*file, &path, number)?;
        if let Some(before) = segments.last() {
            if before.header.number + 1 != number {
                return Err(OpenError::Missing {
                    file: segment_path(dir, before.header.number + 1),
                    problem: format!("the segments before and after it are there, up to {number:016x}"),
                });
            }
            if before.header.salt != header.prev_salt {
                return Err(OpenError::damaged(&before.path, 0, "it is not the segment that the next one followed"));
            }
            if header.prev_end > before.header.file_bytes {
                return Err(OpenError::damaged(&before.path, before.header.file_bytes, "it is too short"));
            }
        }
        segments.push(Found { path, file, header });
    }
    Ok(segments)
}

/// Tells segments that a trim had given up but not yet removed from those that stay.
fn split_trimmed<'a>(
    dir: &Path,
    before: &'a [Found],
    last: &Found,
    end: &Scan,
) -> Result<(&'a [Found], &'a [Found]), OpenError> {
    let oldest = before.first().unwrap_or(last).header.number;
    if oldest > end.oldest_segment {
        return Err(OpenError::Missing {
            file: segment_path(dir, oldest - 1),
            problem: format!("the log was trimmed up to segment {:016x} only", end.oldest_segment),
        });
    }
    Ok(before.split_at(before.iter().take_while(|found| found.header.number < end.oldest_segment).count()))
}

/// Finishes a trim, oldest first.
fn remove_trimmed(disk: &dyn Disk, dir: &Path, trimmed: &[Found]) -> Result<(), OpenError> {
    for found in trimmed {
        info!(file = %found.path.display(), "removing a trimmed segment");
        match disk.remove(&sidecar_path(dir, found.header.number)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(OpenError::io(dir, error)),
            _ => {}
        }
        disk.remove(&found.path).map_err(|error| OpenError::io(&found.path, error))?;
        disk.sync_dir(dir).map_err(|error| OpenError::io(dir, error))?;
    }
    Ok(())
}

/// Reads a sealed segment's summary, from its segment when the sidecar is no use. The flag: a sidecar is there.
fn open_sealed(
    disk: &dyn Disk,
    dir: &Path,
    found: &Found,
    next: &SegmentHeader,
) -> Result<(Arc<Sealed>, bool), OpenError> {
    let header = &found.header;
    let path = sidecar_path(dir, header.number);
    let summary = disk.open(&path).and_then(|file| sidecar::read_summary(&*file));
    match summary {
        Ok(summary) if belongs(&summary, header, next) => Ok((Sealed::new(summary, header.file_bytes, None), true)),
        other => {
            let problem = other.map_or_else(|error| error.to_string(), |_| "it is of another segment".into());
            warn!(file = %path.display(), problem, "an index is made again from its segment");
            let (summary, index) = rebuild(found, next.prev_end)?;
            Ok((Sealed::new(summary, header.file_bytes, Some(Arc::new(index))), false))
        }
    }
}

fn belongs(summary: &Summary, header: &SegmentHeader, next: &SegmentHeader) -> bool {
    summary.number == header.number
        && summary.salt == header.salt
        && summary.end == next.prev_end
        && summary.prev_last == header.prev_last
        && summary.last == next.prev_last
}

fn rebuild(found: &Found, end: u64) -> Result<(Summary, MemoryIndex), OpenError> {
    let Found { path, file, header } = found;
    let scan = scan(file, path, header, Some(end))?;
    let count = |count: usize| u32::try_from(count).expect("a segment's offsets are 32 bits, so are its counts");
    let summary = Summary {
        number: header.number,
        salt: header.salt,
        end,
        events: count(scan.index.events().len()),
        kept: count(scan.index.kept().len()),
        prev_last: header.prev_last,
        last: scan.last,
    };
    Ok((summary, scan.index))
}

/// Makes a sealed segment's index again, while the log runs.
pub(crate) fn rebuild_index(catalog: &Catalog, sealed: &Sealed) -> Result<MemoryIndex, OpenError> {
    let path = segment_path(&catalog.dir, sealed.summary.number);
    let file = catalog.disk.open(&path).map_err(|error| OpenError::io(&path, error))?;
    let header = SegmentHeader::read(&*file, &path, sealed.summary.number)?;
    rebuild(&Found { path, file, header }, sealed.summary.end).map(|(_, index)| index)
}

/// Applies to the state what the log has beyond it. Commits that it has but for their positions come by themselves, never
/// together with later ones.
fn bring_up(state: &dyn StateView, before: &[Found], last: &Found, end: u64) -> Result<(), OpenError> {
    let Applied { positions, all } = state.applied().map_err(OpenError::State)?;
    let log_end = LogPlace { segment: last.header.number, offset: end };
    let oldest = before.first().unwrap_or(last).header.number;
    if all > log_end {
        return Err(OpenError::StateAhead { applied: all, end: log_end });
    }
    let mut applied = positions;
    if applied == LogPlace::default() && oldest == 1 {
        applied = LogPlace { segment: 1, offset: DATA_START };
    }
    if applied.segment < oldest || applied.offset < DATA_START {
        return Err(OpenError::StateForeign { applied, oldest });
    }
    let mut ops = Vec::new();
    let mut upto = applied;
    let segments: Vec<&Found> = before.iter().chain([last]).collect();
    for (place, found) in segments.iter().enumerate().filter(|(_, found)| found.header.number >= applied.segment) {
        let number = found.header.number;
        let segment_end = segments.get(place + 1).map_or(end, |next| next.header.prev_end);
        let from = if number == applied.segment { applied.offset } else { DATA_START };
        if from > segment_end {
            return Err(OpenError::StateForeign { applied, oldest });
        }
        replay(&found.file, &found.path, found.header.salt, from, segment_end, |more, offset| {
            let commit = LogPlace { segment: number, offset };
            if !ops.is_empty() && (ops.len() >= REPLAY_OPS || (upto <= all && commit > all)) {
                state.apply(&ops, upto).map_err(OpenError::State)?;
                ops.clear();
            }
            ops.extend(more);
            upto = commit;
            Ok(())
        })?;
    }
    if !ops.is_empty() {
        state.apply(&ops, upto).map_err(OpenError::State)?;
    }
    if all < log_end {
        state.apply(&[], log_end).map_err(OpenError::State)?;
    }
    Ok(())
}

/// Removes what was left half-made, and finds the files that may be used again.
fn clean_up(disk: &dyn Disk, dir: &Path, names: &[String], segment_bytes: u64) -> std::io::Result<(Vec<PathBuf>, u64)> {
    let mut recycled = Vec::new();
    let mut next_spare = 1;
    for name in names {
        let path = dir.join(name);
        match parse_name(name) {
            Some((_, "seg" | "idx")) => {}
            Some((number, "spare")) => {
                next_spare = next_spare.max(number + 1);
                if recycled.len() < 2 && disk.open(&path)?.bytes()? == segment_bytes {
                    recycled.push(path);
                } else {
                    disk.remove(&path)?;
                }
            }
            Some((_, "tmp")) => disk.remove(&path)?,
            _ => warn!(file = %path.display(), "the log's directory holds a file that is not the log's"),
        }
    }
    Ok((recycled, next_spare))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
