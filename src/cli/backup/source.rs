//! Where a backup comes from: a server, which holds its segments meanwhile, or a store that nobody works in.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use hookmill_actors::domain::ids::EventId;
use hyper::Method;

use crate::{
    backup::{Begun, EndMark},
    cli::{
        client::{Call, is_not_found},
        local::{Place, RunningServer},
        verify::now_ms,
    },
    keys,
    rejections::Pack,
    settings::Settings,
    storage::{
        StoreDir, closed_extents, sled_config::SledConfig, sled_db::StateDb, sled_state::SledState, store_files,
    },
};

/// See the module.
pub(super) enum Source {
    Served(Box<Served>),
    Stopped(Box<Stopped>),
}

/// The files of a data directory on this machine.
struct Files {
    log: PathBuf,
    rejections: PathBuf,
}

/// What is copied of a segment.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Events,
    Index,
}

impl Files {
    fn of(settings: &Settings) -> Self {
        Self { log: settings.store_dir().join(store_files::LOG), rejections: settings.rejections_dir() }
    }

    fn rejections(&self, last_event: EventId) -> anyhow::Result<Box<dyn Read>> {
        let mut pack = Pack::new(&self.rejections, last_event).context("cannot read the refused requests")?;
        Ok(Box::new(Chunked::new(move || pack.next_chunk())))
    }

    /// `None`: it is not there.
    fn segment(&self, number: u64, part: Part) -> anyhow::Result<Option<Box<dyn Read>>> {
        let path = self.log.join(match part {
            Part::Events => store_files::segment(number),
            Part::Index => store_files::index(number),
        });
        match File::open(&path) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
        }
    }
}

/// A running server, which holds its segments.
pub(super) struct Served {
    server: RunningServer,
    id: String,
    /// Its files, where they are here; else it sends them.
    files: Option<Files>,
}

impl Served {
    fn begin(server: RunningServer, files: Option<Files>) -> anyhow::Result<Self> {
        let begun = server.json(Call::new(Method::POST, "/backup"))?;
        let begun: Begun = serde_json::from_value(begun).context("the server's reply is not understood")?;
        Ok(Self { server, id: begun.id, files })
    }

    fn ask(&self, method: Method, what: &str) -> anyhow::Result<serde_json::Value> {
        self.server.json(Call::new(method, format!("/backup/{}{what}", self.id)))
    }

    fn stream(&self, part: &str) -> anyhow::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.server.read(&format!("/backup/{}/{part}", self.id))?))
    }

    /// `None`: it is not there.
    fn segment(&self, number: u64, part: Part) -> anyhow::Result<Option<Box<dyn Read + '_>>> {
        let path = match part {
            Part::Events => format!("segments/{number}"),
            Part::Index => format!("segments/{number}/index"),
        };
        match self.stream(&path) {
            Err(error) if error.downcast_ref().is_some_and(is_not_found) => Ok(None),
            stream => stream.map(Some),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Else the hold ends by itself.
        let _ = self.ask(Method::DELETE, "");
    }
}

/// A data directory that nobody serves.
pub(super) struct Stopped {
    state: SledState,
    config: SledConfig,
    dir: StoreDir,
    files: Files,
}

impl Stopped {
    fn open(settings: &Settings, dir: StoreDir) -> anyhow::Result<Self> {
        let db = StateDb::open(&dir.state_path(), settings.log.state_cache_bytes)?;
        Ok(Self { state: SledState::open(db.clone())?, config: SledConfig::open(db)?, dir, files: Files::of(settings) })
    }
}

impl Source {
    /// Of a store.
    pub(super) fn of(place: Place) -> anyhow::Result<Self> {
        match place {
            Place::Empty(settings) => bail!("there is no store in `{}`", settings.data_dir.display()),
            Place::Served(server, settings) => {
                Ok(Self::Served(Box::new(Served::begin(*server, settings.as_ref().map(Files::of))?)))
            }
            Place::Stopped(settings, dir) => Ok(Self::Stopped(Box::new(Stopped::open(&settings, dir)?))),
        }
    }

    pub(super) fn state(&self) -> anyhow::Result<Box<dyn Read + '_>> {
        match self {
            Self::Served(served) => served.stream("state"),
            Self::Stopped(stopped) => {
                let mut export = stopped.state.export()?;
                Ok(Box::new(Chunked::new(move || export.next_chunk().map_err(io::Error::other))))
            }
        }
    }

    pub(super) fn end(&self) -> anyhow::Result<EndMark> {
        match self {
            Self::Served(served) => {
                let end = served.ask(Method::POST, "/end")?;
                serde_json::from_value(end).context("the server's reply is not understood")
            }
            Self::Stopped(stopped) => {
                let (segments, last_event_id) = closed_extents(&stopped.dir)?;
                let keys = keys::in_use(&stopped.config)?.iter().map(ToString::to_string).collect();
                let configuration_version = stopped.config.export()?.version();
                Ok(EndMark { segments, last_event_id, at_ms: now_ms(), configuration_version, keys })
            }
        }
    }

    pub(super) fn configuration(&self) -> anyhow::Result<Box<dyn Read + '_>> {
        match self {
            Self::Served(served) => served.stream("configuration"),
            Self::Stopped(stopped) => {
                let mut export = stopped.config.export()?;
                Ok(Box::new(Chunked::new(move || export.next_chunk().map_err(io::Error::other))))
            }
        }
    }

    pub(super) fn rejections(&self, last_event: EventId) -> anyhow::Result<Box<dyn Read + '_>> {
        match self {
            Self::Served(served) => match &served.files {
                Some(files) => files.rejections(last_event),
                None => served.stream("rejections"),
            },
            Self::Stopped(stopped) => stopped.files.rejections(last_event),
        }
    }

    /// A part of a segment; `None`: it is not there.
    pub(super) fn segment(&self, number: u64, part: Part) -> anyhow::Result<Option<Box<dyn Read + '_>>> {
        match self {
            Self::Served(served) => match &served.files {
                Some(files) => files.segment(number, part),
                None => served.segment(number, part),
            },
            Self::Stopped(stopped) => stopped.files.segment(number, part),
        }
    }

    /// Whether the segments that were copied until now were all there.
    pub(super) fn renew(&self) -> anyhow::Result<()> {
        match self {
            Self::Served(served) => served.ask(Method::POST, "/renew").map(drop),
            Self::Stopped(_) => Ok(()),
        }
    }
}

/// Chunks as one stream.
struct Chunked<F> {
    next: F,
    chunk: Vec<u8>,
    at: usize,
}

impl<F: FnMut() -> io::Result<Option<Vec<u8>>>> Chunked<F> {
    fn new(next: F) -> Self {
        Self { next, chunk: Vec::new(), at: 0 }
    }
}

impl<F: FnMut() -> io::Result<Option<Vec<u8>>>> Read for Chunked<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match (self.next)()? {
                Some(chunk) => (self.chunk, self.at) = (chunk, 0),
                None => return Ok(0),
            }
        }
        let mut rest = &self.chunk[self.at..];
        let read = rest.read(buffer)?;
        self.at += read;
        Ok(read)
    }
}
