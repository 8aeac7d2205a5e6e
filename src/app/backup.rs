//! Backups of a running server: segments stay where they are, state and configuration go out as streams.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use hookmill_actors::{
    activity,
    domain::{
        activity::{Activity, ActivityResult},
        ids::EventId,
    },
    ports::{clock::Clock, config_store::ConfigStore, event_log::LogError},
};
use tokio::sync::{Mutex, mpsc};

use crate::{
    admin::{BackupAdmin, Chunks},
    backup::{BackupError, Begun, EndMark, Part},
    keys::KeyKeeper,
    rejections::Pack,
    storage::{
        SegmentExtent, SegmentLog,
        sled_config::{ConfigExport, SledConfig},
        sled_state::SledState,
        store_files,
    },
};

/// A backup that is not renewed for so long is over: whoever made it has gone.
const LEASE: Duration = Duration::from_secs(60);
/// Chunks that wait for a slow client.
const CHUNKS_AHEAD: usize = 4;
/// As large as the chunks of the other streams.
const FILE_CHUNK_BYTES: usize = 256 << 10;

/// See the module. Clones share everything.
#[derive(Clone)]
pub(super) struct BackupService {
    pub(super) log: Arc<SegmentLog>,
    pub(super) state: Arc<SledState>,
    pub(super) config: Arc<SledConfig>,
    pub(super) keys: Arc<KeyKeeper>,
    /// The folder of refused requests.
    pub(super) rejections: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) session: Arc<Mutex<Option<Session>>>,
}

/// The backup under way.
pub(super) struct Session {
    id: String,
    end: Option<End>,
    /// Set when it is over: a stream must not go on holding segments.
    over: Arc<AtomicBool>,
}

/// What lies before the end of a backup.
struct End {
    segments: Vec<SegmentExtent>,
    last_event: EventId,
    /// Until it is streamed.
    configuration: Option<ConfigExport>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| LogError::Closed)
}

impl BackupService {
    /// Whether the backup of that name still holds; then for another while.
    async fn held(&self, session: &mut Option<Session>, id: &str) -> Result<(), BackupError> {
        if session.as_ref().is_none_or(|session| session.id != id) {
            return Err(BackupError::Over);
        }
        let log = self.log.clone();
        if blocking(move || log.hold_on(Instant::now() + LEASE)).await? {
            return Ok(());
        }
        *session = None;
        Err(BackupError::Over)
    }

    /// Hands chunks over as they are taken, on a thread that may block.
    fn chunks<E: std::fmt::Display>(
        &self,
        over: Arc<AtomicBool>,
        mut next: impl FnMut() -> Result<Option<Vec<u8>>, E> + Send + 'static,
    ) -> Chunks {
        let (send, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || {
            loop {
                let chunk = match next() {
                    Ok(Some(chunk)) => Ok(chunk),
                    Ok(None) => return,
                    Err(error) => {
                        tracing::error!(%error, "a backup's stream broke off");
                        Err(error.to_string())
                    }
                };
                let broken = chunk.is_err() || over.load(Ordering::Relaxed);
                // A client that has gone wants no more; its hold ends by itself.
                if send.blocking_send(chunk).is_err() || broken || !log.hold_on(Instant::now() + LEASE) {
                    return;
                }
            }
        });
        chunks
    }

    /// The first bytes of a file of the log.
    async fn file(&self, over: Arc<AtomicBool>, name: String, bytes: u64) -> Result<Chunks, BackupError> {
        let path = self.log.store().log_path().join(name);
        let file = match blocking(move || File::open(path)).await? {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BackupError::NoSegment),
            file => file?,
        };
        let mut rest = file.take(bytes);
        Ok(self.chunks(over, move || {
            let mut chunk = Vec::with_capacity(FILE_CHUNK_BYTES);
            let read = rest.by_ref().take(FILE_CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
            Ok::<_, io::Error>((read > 0).then_some(chunk))
        }))
    }

    async fn note(&self, actor: &str, action: &str, id: &str) {
        let activity = Activity {
            at_ms: self.clock.now_ms(),
            actor: actor.to_owned(),
            source: activity::source(),
            action: action.to_owned(),
            subject: format!("backup {id}"),
            integration: None,
            result: ActivityResult::Ok,
            detail: String::new(),
        };
        if let Err(error) = self.config.record_activity(vec![activity]).await {
            tracing::error!(%error, "an activity could not be stored");
        }
    }
}

#[async_trait]
impl BackupAdmin for BackupService {
    async fn begin(&self, author: &str) -> Result<Begun, BackupError> {
        let mut session = self.session.lock().await;
        if let Some(under_way) = session.as_ref().map(|session| session.id.clone())
            && self.held(&mut session, &under_way).await.is_ok()
        {
            return Err(BackupError::Busy);
        }
        let log = self.log.clone();
        blocking(move || log.hold(Instant::now() + LEASE)).await?;
        let id = format!("{:016x}", fastrand::u64(..));
        *session = Some(Session { id: id.clone(), end: None, over: Arc::default() });
        drop(session);
        self.note(author, "backup.begun", &id).await;
        Ok(Begun { id, lease_s: LEASE.as_secs() })
    }

    async fn renew(&self, id: &str) -> Result<Begun, BackupError> {
        let mut session = self.session.lock().await;
        self.held(&mut session, id).await?;
        Ok(Begun { id: id.to_owned(), lease_s: LEASE.as_secs() })
    }

    async fn end(&self, id: &str) -> Result<EndMark, BackupError> {
        let mut session = self.session.lock().await;
        self.held(&mut session, id).await?;
        // Taken before: everything that was acknowledged until then lies before the end that is read next.
        let at_ms = self.clock.now_ms();
        let (segments, last_event_id) = self.log.extents();
        let (config, keys) = (self.config.clone(), self.keys.clone());
        let (export, keys) =
            blocking(move || config.export().and_then(|export| Ok((export, keys.in_use()?)))).await??;
        let configuration_version = export.version();
        if let Some(session) = session.as_mut() {
            session.end =
                Some(End { segments: segments.clone(), last_event: last_event_id, configuration: Some(export) });
        }
        let keys = keys.iter().map(ToString::to_string).collect();
        Ok(EndMark { segments, last_event_id, at_ms, configuration_version, keys })
    }

    async fn stream(&self, id: &str, part: Part) -> Result<Chunks, BackupError> {
        let mut session = self.session.lock().await;
        self.held(&mut session, id).await?;
        let Some(session) = session.as_mut() else { return Err(BackupError::Over) };
        let over = session.over.clone();
        let end = session.end.as_mut().ok_or(BackupError::NoEnd);
        match part {
            Part::State => {
                let state = self.state.clone();
                let mut export = blocking(move || state.export()).await??;
                Ok(self.chunks(over, move || export.next_chunk()))
            }
            Part::Configuration => {
                let mut export = end?.configuration.take().ok_or(BackupError::NoEnd)?;
                Ok(self.chunks(over, move || export.next_chunk()))
            }
            Part::Rejections => {
                let (dir, last_event) = (self.rejections.clone(), end?.last_event);
                let mut pack = blocking(move || Pack::new(&dir, last_event)).await??;
                Ok(self.chunks(over, move || pack.next_chunk()))
            }
            Part::Segment(number) => {
                let extent = end?.segments.iter().find(|extent| extent.number == number);
                let bytes = extent.ok_or(BackupError::NoSegment)?.end;
                self.file(over, store_files::segment(number), bytes).await
            }
            Part::Index(number) => {
                let is_sealed = end?.segments.iter().any(|extent| extent.number == number && extent.sealed);
                if !is_sealed {
                    return Err(BackupError::NoSegment);
                }
                self.file(over, store_files::index(number), u64::MAX).await
            }
        }
    }

    async fn release(&self, author: &str, id: &str) -> Result<(), BackupError> {
        let mut session = self.session.lock().await;
        self.held(&mut session, id).await?;
        *session = None;
        let log = self.log.clone();
        blocking(move || log.let_go()).await?;
        drop(session);
        self.note(author, "backup.ended", id).await;
        Ok(())
    }
}
