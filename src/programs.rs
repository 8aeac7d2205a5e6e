//! The engines behind the port [`Programs`]: CEL selects events and names their keys in this process, within a budget;
//! jq rewrites bodies in worker processes; `CloudEvents` and the canonical event are made here, headers from templates.
//!
//! What an operator writes is compiled when it is configured and refused with its place; what an event makes fail
//! costs that event.

mod body;
mod canonical;
mod cel;
mod cloudevents;
mod facts;
mod jq;
mod render;
mod templates;
#[cfg(test)]
mod testing;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use hookmill_actors::{
    domain::transform::Transform,
    ports::{
        program::{Programs, Selector, Transformer},
        provider::SettingsError,
    },
};

pub(crate) use self::jq::worker::{Limits as WorkerLimits, serve as serve_jq};
use self::{cel::CelSelector, jq::Pool, render::Renderer};

/// The bounds of programs that run in worker processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramOptions {
    /// The binary that is started as a worker: hookmill's own.
    pub worker: PathBuf,
    /// Workers at once, at least 1.
    pub workers: usize,
    /// A program may take so long for one event.
    pub deadline: Duration,
    /// Address space of one worker, bytes.
    pub memory_bytes: u64,
    /// What a program makes of one event, bytes at most.
    pub output_bytes_max: usize,
}

impl Default for ProgramOptions {
    fn default() -> Self {
        Self {
            worker: own_binary(),
            workers: 2,
            deadline: Duration::from_secs(1),
            memory_bytes: 256 << 20,
            output_bytes_max: 1 << 20,
        }
    }
}

/// This process' binary: the very one that runs, also when its file was replaced by an upgrade.
fn own_binary() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() {
        return link;
    }
    // Where this fails, starting a worker says so, with this name.
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("hookmill"))
}

/// The engines.
pub struct Engines {
    jq: Arc<Pool>,
}

impl Engines {
    /// Starts nothing: workers are started when the first jq program is checked or run.
    pub fn new(options: ProgramOptions) -> Self {
        Self { jq: Arc::new(Pool::new(options)) }
    }
}

impl Programs for Engines {
    fn selector(&self, filter: Option<&str>, key: Option<&str>) -> Result<Arc<dyn Selector>, SettingsError> {
        Ok(Arc::new(CelSelector::new(filter, key)?))
    }

    fn transformer(
        &self,
        transform: &Transform,
        headers: &BTreeMap<String, String>,
    ) -> Result<Option<Arc<dyn Transformer>>, SettingsError> {
        if *transform == Transform::None && headers.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Renderer::new(&self.jq, transform, headers)?)))
    }
}

/// The beginning of a text on one line, for an error.
fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 160;
    let mut cut: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}
