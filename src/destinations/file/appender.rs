//! Appends lines to one file, all that wait at once: the attempt whose turn it is writes what the others queued
//! meanwhile, and one sync is for all of them. A line is in the file whole or not at all, after a crash too.
//!
//! It blocks on the disk only on the runtime's threads for that. A crash of a turn costs its lines, which are tried
//! again.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, oneshot};

use super::place::{Folder, Place};

/// Lines that wait at most; beyond it the disk is too slow, and retries come later.
const QUEUE_MAX: usize = 4_096;
/// How often a file is synced whose policy is `interval`.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// How the lines begin that are written here.
const LINE_BEGIN: &[u8] = b"{\"id\":\"";
/// A torn line at most.
const TORN_BYTES_MAX: u64 = 256 << 20;
/// Read at once when the end of the last whole line is looked for.
const CHUNK_BYTES: usize = 64 << 10;

/// When what was written is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// Before it counts as delivered.
    Always,
    /// Once a second.
    Interval,
    /// When the system likes.
    Never,
}

/// How a destination wants its file kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// A new file begins before this one would be larger.
    pub(super) rotate_bytes: Option<u64>,
    /// A new file begins at each multiple of this since 1970, milliseconds.
    pub(super) rotate_every_ms: Option<u64>,
    /// Rotated files that are kept.
    pub(super) keep: u32,
    pub(super) sync: Sync,
}

struct Waiting {
    line: Vec<u8>,
    policy: Policy,
    now_ms: u64,
    answer: oneshot::Sender<Result<(), String>>,
}

/// See the module.
pub(super) struct Appender {
    queue: Mutex<Vec<Waiting>>,
    turn: Arc<Turn<Writer>>,
}

impl Appender {
    pub(super) fn new(place: Place) -> Self {
        let writer = Writer { place, open: None, sync_planned: false };
        Self { queue: Mutex::default(), turn: Arc::new(Turn::new(writer)) }
    }

    /// Returns once the line is in the file, and durable where the policy says so; else why not.
    pub(super) async fn append(&self, line: Vec<u8>, policy: Policy, now_ms: u64) -> Result<(), String> {
        let (answer, mut answered) = oneshot::channel();
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.len() >= QUEUE_MAX {
                // Those who gave up waiting still stand in it.
                queue.retain(|waiting| !waiting.answer.is_closed());
            }
            if queue.len() >= QUEUE_MAX {
                return Err(format!("the disk is too slow: {QUEUE_MAX} lines wait for it"));
            }
            queue.push(Waiting { line, policy, now_ms, answer });
        }
        let turn = tokio::select! {
            turn = self.turn.clone().lock_owned() => turn,
            // Somebody else's turn took it along.
            answer = &mut answered => return answer.unwrap_or_else(|_| Err(lost())),
        };
        let waiting = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        if !waiting.is_empty() {
            // Goes on to its end though the attempt be dropped, so that the others hear of theirs.
            tokio::task::spawn_blocking(move || take_turn(turn, waiting)).await.map_err(|_| lost())?;
        }
        answered.await.unwrap_or_else(|_| Err(lost()))
    }
}

fn lost() -> String {
    "writing the line was abandoned".to_owned()
}

fn take_turn(mut turn: OwnedMutexGuard<Writer>, waiting: Vec<Waiting>) {
    let mut waiting = waiting.into_iter().filter(|waiting| !waiting.answer.is_closed()).peekable();
    while let Some(first) = waiting.next() {
        let (policy, now_ms) = (first.policy, first.now_ms);
        let mut group = vec![first];
        // Destinations may share a file and want it kept differently.
        while let Some(next) = waiting.next_if(|next| next.policy == policy) {
            group.push(next);
        }
        let lines: Vec<&[u8]> = group.iter().map(|waiting| &waiting.line[..]).collect();
        let written = turn.append(&lines, policy, now_ms).map_err(|error| words(&error));
        for waiting in group {
            let _ = waiting.answer.send(written.clone());
        }
        if written.is_ok() && policy.sync == Sync::Interval && !turn.sync_planned {
            turn.sync_planned = true;
            let turns = OwnedMutexGuard::mutex(&turn).clone();
            tokio::runtime::Handle::current().spawn(sync_later(turns));
        }
    }
}

async fn sync_later(turns: Arc<Turn<Writer>>) {
    tokio::time::sleep(SYNC_INTERVAL).await;
    let mut turn = turns.lock_owned().await;
    let _ = tokio::task::spawn_blocking(move || {
        turn.sync_planned = false;
        if let Err(error) = turn.sync() {
            tracing::error!(%error, file = %turn.place, "a destination's file cannot be synced; its last lines may be lost");
        }
    })
    .await;
}

/// The file, as one turn after the other has it.
struct Writer {
    place: Place,
    open: Option<Open>,
    sync_planned: bool,
}

struct Open {
    folder: Folder,
    file: File,
    bytes: u64,
    /// When it was last written to, milliseconds since 1970.
    written_ms: u64,
}

impl Writer {
    /// All of the lines, or an error; then some may be there, and each of those whole.
    fn append(&mut self, lines: &[&[u8]], policy: Policy, now_ms: u64) -> io::Result<()> {
        let mut rest = lines;
        while let Some(next) = rest.first() {
            let open = self.opened(policy)?;
            if open.is_over(policy, next.len(), now_ms) {
                self.rotate(policy)?;
                continue;
            }
            let fitting = open.fitting(policy, rest);
            let (batch, later) = rest.split_at(fitting);
            let written = open.write(batch, now_ms);
            if written.is_err() {
                // Opening it again mends what a failed write may have left.
                self.open = None;
                return written;
            }
            rest = later;
        }
        if policy.sync == Sync::Always { self.sync() } else { Ok(()) }
    }

    /// Makes what was written durable. After a failure nobody knows what is: the file is opened anew.
    fn sync(&mut self) -> io::Result<()> {
        let synced = self.open.as_ref().map_or(Ok(()), |open| open.file.sync_data());
        if synced.is_err() {
            self.open = None;
        }
        synced
    }

    fn opened(&mut self, policy: Policy) -> io::Result<&mut Open> {
        // Log rotation by others, or a hand, may have moved it.
        if self.open.as_ref().is_some_and(|open| !open.folder.holds(&open.file)) {
            self.sync()?;
            self.open = None;
        }
        match &mut self.open {
            Some(open) => Ok(open),
            slot => Ok(slot.insert(Open::new(&self.place, policy)?)),
        }
    }

    fn rotate(&mut self, policy: Policy) -> io::Result<()> {
        if policy.sync != Sync::Never {
            self.sync()?;
        }
        if let Some(open) = self.open.take() {
            open.folder.rotate(policy.keep)?;
        }
        Ok(())
    }
}

impl Open {
    fn new(place: &Place, policy: Policy) -> io::Result<Self> {
        let folder = place.folder()?;
        let file = folder.open()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another process writes to it"))?;
        let bytes = mended(&file)?;
        if policy.sync != Sync::Never {
            folder.sync()?;
        }
        let written = file.metadata()?;
        let written_ms = u64::try_from(written.mtime()).unwrap_or(0) * 1000;
        Ok(Self { folder, file, bytes, written_ms })
    }

    /// Whether a new file must begin before a line of that length.
    fn is_over(&self, policy: Policy, line: usize, now_ms: u64) -> bool {
        let full = policy.rotate_bytes.is_some_and(|most| self.bytes + line as u64 > most);
        let old = policy.rotate_every_ms.is_some_and(|every| now_ms / every > self.written_ms / every);
        self.bytes > 0 && (full || old)
    }

    /// How many of the lines may go into this file: one at least.
    fn fitting(&self, policy: Policy, lines: &[&[u8]]) -> usize {
        let Some(most) = policy.rotate_bytes else { return lines.len() };
        let mut bytes = self.bytes;
        let fitting = lines.iter().take_while(|line| {
            bytes += line.len() as u64;
            bytes <= most
        });
        fitting.count().max(1)
    }

    fn write(&mut self, lines: &[&[u8]], now_ms: u64) -> io::Result<()> {
        let batch = lines.concat();
        if let Err(error) = self.file.write_all(&batch) {
            // Half a line may stand there now; it goes, or it is mended when the file is opened again.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += batch.len() as u64;
        self.written_ms = now_ms;
        Ok(())
    }
}

/// The file's length, once a line that a crash has torn is taken off its end. Nobody was told that it is there.
fn mended(mut file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut chunk = vec![0; CHUNK_BYTES];
    let whole = loop {
        let begin = end.saturating_sub(CHUNK_BYTES as u64);
        let read = &mut chunk[..usize::try_from(end - begin).unwrap_or(CHUNK_BYTES)];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(read)?;
        match read.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => break begin + at as u64 + 1,
            None if begin == 0 => break 0,
            None if length - begin > TORN_BYTES_MAX => return Err(io::Error::other("it is no file of lines")),
            None => end = begin,
        }
    };
    if whole < length {
        let mut beginning = vec![0; LINE_BEGIN.len().min(usize::try_from(length - whole).unwrap_or(usize::MAX))];
        file.seek(SeekFrom::Start(whole))?;
        file.read_exact(&mut beginning)?;
        if !LINE_BEGIN.starts_with(&beginning) {
            return Err(io::Error::other("its last line has no end and is not hookmill's; end it, or move the file"));
        }
        tracing::warn!(bytes = length - whole, "a line torn by a crash was taken off the end of a destination's file");
        file.set_len(whole)?;
    }
    Ok(whole)
}

const LINK: &str = "a link, or something else that is no folder, stands in its path";

/// What an operator reads in the delivery's attempts.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full".to_owned(),
        io::ErrorKind::PermissionDenied => "hookmill may not write there".to_owned(),
        io::ErrorKind::NotFound => "the folder of `destinations.file_directory` is not there".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the disk can only be read".to_owned(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => LINK.to_owned(),
        io::ErrorKind::NotADirectory => LINK.to_owned(),
        _ => format!("the file cannot be written: {error}"),
    }
}

#[cfg(test)]
mod tests;
