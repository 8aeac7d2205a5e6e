//! What `hookmill backup` asks of a running server: `/api/v1/backup`. It keeps every segment of the log where it is,
//! tells how far the log has come, and streams what a backup consists of. On the server's machine, segments and refused
//! requests are copied from the data directory instead.

pub(super) mod doc;

use async_trait::async_trait;
use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use hookmill_actors::configuration::ConfigError;
use tokio::sync::mpsc;

use super::{
    Api,
    access::{Author, State},
    json::NoMembers,
    problem::{Code, Problem},
    resource::{Segments, json},
};
use crate::backup::{BackupError, Begun, EndMark, Part};

/// A stream of bytes, or why it broke off.
pub type Chunks = mpsc::Receiver<Result<Vec<u8>, String>>;

/// Backups, as the admin API sees them. One at a time, by the name it was given.
#[async_trait]
pub trait BackupAdmin: Send + Sync {
    /// Begins to hold segments.
    async fn begin(&self, author: &str) -> Result<Begun, BackupError>;
    /// Goes on holding.
    async fn renew(&self, id: &str) -> Result<Begun, BackupError>;
    /// How far the log has come; and the configuration is fixed.
    async fn end(&self, id: &str) -> Result<EndMark, BackupError>;
    /// A part; all but the state lie before the end, which is asked for first.
    async fn stream(&self, id: &str, part: Part) -> Result<Chunks, BackupError>;
    /// Segments may go again.
    async fn release(&self, author: &str, id: &str) -> Result<(), BackupError>;
}

/// `POST /api/v1/backup`
pub(super) async fn begin(State(api): State<Api>, Author(author): Author, _: NoMembers) -> Result<Response, Problem> {
    Ok(json(StatusCode::CREATED, &api.backup.begin(&author).await?))
}

/// `POST /api/v1/backup/{id}/renew`, `end`
pub(super) async fn command(
    State(api): State<Api>,
    Segments((id, command)): Segments<(String, String)>,
    _: NoMembers,
) -> Result<Response, Problem> {
    match command.as_str() {
        "renew" => Ok(json(StatusCode::OK, &api.backup.renew(&id).await?)),
        "end" => Ok(json(StatusCode::OK, &api.backup.end(&id).await?)),
        _ => Err(Problem::new(Code::NotFound, "the path must end with `renew` or `end`")),
    }
}

/// `GET /api/v1/backup/{id}/state`, `configuration`, `rejections`
pub(super) async fn stream(
    State(api): State<Api>,
    Segments((id, part)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let part = match part.as_str() {
        "state" => Part::State,
        "configuration" => Part::Configuration,
        "rejections" => Part::Rejections,
        _ => {
            let detail = "the path must end with `state`, `configuration`, `rejections` or `segments/{number}`";
            return Err(Problem::new(Code::NotFound, detail));
        }
    };
    Ok(streamed(api.backup.stream(&id, part).await?))
}

/// `GET /api/v1/backup/{id}/segments/{number}`
pub(super) async fn segment(
    State(api): State<Api>,
    Segments((id, number)): Segments<(String, u64)>,
) -> Result<Response, Problem> {
    Ok(streamed(api.backup.stream(&id, Part::Segment(number)).await?))
}

/// `GET /api/v1/backup/{id}/segments/{number}/index`
pub(super) async fn index(
    State(api): State<Api>,
    Segments((id, number)): Segments<(String, u64)>,
) -> Result<Response, Problem> {
    Ok(streamed(api.backup.stream(&id, Part::Index(number)).await?))
}

fn streamed(chunks: Chunks) -> Response {
    let next = async |mut chunks: Chunks| {
        let chunk = chunks.recv().await?;
        Some((chunk.map(Bytes::from).map_err(std::io::Error::other), chunks))
    };
    let body = Body::from_stream(stream::unfold(chunks, next));
    ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

/// `DELETE /api/v1/backup/{id}`
pub(super) async fn release(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    api.backup.release(&author, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Busy | BackupError::Over | BackupError::NoEnd => Self::new(Code::Conflict, error.to_string()),
            BackupError::NoSegment => Self::new(Code::NotFound, error.to_string()),
            BackupError::File(error) => Self::internal(&error),
            BackupError::Log(error) => error.into(),
            BackupError::Config(error) => ConfigError::Store(error).into(),
        }
    }
}
