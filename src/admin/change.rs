//! `PUT` and `PATCH` of what is configured. Both read a change and make of what stands what shall stand; members that are
//! not given stay. A `PATCH` is a JSON Merge Patch (RFC 7396): objects within are first merged with those that stand.

use axum::{http::StatusCode, response::Response};
use hookmill_actors::domain::config::Configuration;
use serde_json::Value;

use super::{
    Api,
    access::{Author, State},
    json::{Json, MergePatch},
    merge::Merge,
    problem::Problem,
    resource::{IfMatch, Managed, Segments, reply},
    tools::Tools,
};

/// How a kind of resource is changed.
pub(super) trait Changeable: Managed {
    /// A change as asked for.
    type Patch: Send + Sync;

    /// Reads one.
    fn read_patch(body: Value) -> Result<Self::Patch, Problem>;
    /// Merges the objects within a patch with those that stand.
    fn merge(&self, patch: Merge, tools: &Tools) -> Result<Merge, Problem>;
    /// What shall stand.
    fn patched(&self, patch: &Self::Patch, configuration: &Configuration, tools: &Tools) -> Result<Self, Problem>;

    /// What comes before it is stored; the reply where it is not stored now.
    fn before(
        _api: &Api,
        _author: &str,
        _id: u32,
        _condition: &IfMatch,
        _patch: &Self::Patch,
    ) -> impl Future<Output = Result<Option<Response>, Problem>> + Send {
        async { Ok(None) }
    }
}

/// `PUT /api/v1/<collection>/{id}`
pub(super) async fn update<R: Changeable>(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    condition: IfMatch,
    Json(body): Json,
) -> Result<Response, Problem> {
    changed::<R>(&api, &author, id, &condition, |_| R::read_patch(body.clone())).await
}

/// `PATCH /api/v1/<collection>/{id}`
pub(super) async fn merge<R: Changeable>(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    condition: IfMatch,
    MergePatch(body): MergePatch,
) -> Result<Response, Problem> {
    changed::<R>(&api, &author, id, &condition, |current| {
        R::read_patch(current.merge(Merge::new(&body)?, &api.tools)?.into_body())
    })
    .await
}

async fn changed<R: Changeable>(
    api: &Api,
    author: &str,
    id: u32,
    condition: &IfMatch,
    read: impl Fn(&R) -> Result<R::Patch, Problem> + Send + Sync,
) -> Result<Response, Problem> {
    let patch = read(&api.find(id)?)?;
    if let Some(reply) = R::before(api, author, id, condition, &patch).await? {
        return Ok(reply);
    }
    let patched =
        |current: &R, configuration: &Configuration| current.patched(&read(current)?, configuration, &api.tools);
    let made = api.update(author, id, condition, patched).await?;
    Ok(reply(StatusCode::OK, &made, &made.view(&api.tools)))
}
