//! Every path there is: its methods, the least role that each needs, and its description. What is not here is 404, and
//! only health and the API's own documentation are open.
//!
//! Viewers read. Managers do what the original's managers did: all but deleting integrations. Tokens are the admins'.

use hookmill_actors::domain::config::{Destination, Endpoint, Integration, Subscription};

use super::{
    Shared, activities, apply, backup,
    change::{merge, update},
    connection_tests, deadletters, deleted, destinations, events, flow, integrations, keys, metrics, openapi, original,
    providers, rejections, replays,
    resource::{delete, list, one},
    restart, setup, status, subscriptions,
    table::{Methods, delete as delete_route, get, open, post},
    tasks, tokens, versions, webhooks,
};
use crate::tokens::Role::{Admin, Manager, Viewer};

type Route = (&'static str, Methods<Shared>);

/// The table.
pub(super) fn routes() -> Vec<Route> {
    let mut table = operation();
    table.extend(configuration());
    table.extend(happenings());
    table.extend(original::routes());
    table
}

/// What is configured.
fn configuration() -> Vec<Route> {
    vec![
        (
            "/api/v1/integrations",
            get(Viewer, deleted::list::<Integration>, integrations::doc::list)
                .post(Manager, setup::create, integrations::doc::create)
                .scoped(),
        ),
        (
            "/api/v1/integrations/{id}",
            get(Viewer, integrations::one, integrations::doc::one)
                .put(Manager, update::<Integration>, integrations::doc::update)
                .patch(Manager, merge::<Integration>, integrations::doc::merge)
                .delete(Admin, deleted::delete::<Integration>, integrations::doc::delete),
        ),
        ("/api/v1/integrations/{id}/flow", get(Viewer, flow::of_integration, flow::doc::of_integration)),
        ("/api/v1/integrations/{id}/restart", post(Manager, restart::restart, integrations::doc::restart)),
        ("/api/v1/integrations/{id}/status", get(Viewer, status::of_integration, status::doc::of_integration)),
        ("/api/v1/integrations/{id}/test", post(Manager, connection_tests::test, connection_tests::doc::test)),
        ("/api/v1/integrations/{id}/versions", get(Viewer, versions::list, versions::doc::list)),
        ("/api/v1/integrations/{id}/versions/{number}", get(Viewer, versions::one, versions::doc::one)),
        (
            "/api/v1/integrations/{id}/versions/{number}/diff",
            get(Viewer, versions::difference, versions::doc::difference),
        ),
        (
            "/api/v1/integrations/{id}/versions/{number}/rollback",
            post(Manager, versions::roll_back, versions::doc::roll_back),
        ),
        ("/api/v1/integrations/{id}/restore", post(Admin, deleted::restore_integration, integrations::doc::restore)),
        (
            "/api/v1/webhooks",
            get(Viewer, deleted::list::<Endpoint>, webhooks::doc::list)
                .post(Manager, webhooks::create, webhooks::doc::create)
                .scoped(),
        ),
        (
            "/api/v1/webhooks/{id}",
            get(Viewer, one::<Endpoint>, webhooks::doc::one)
                .put(Manager, update::<Endpoint>, webhooks::doc::update)
                .patch(Manager, merge::<Endpoint>, webhooks::doc::merge)
                .delete(Manager, deleted::delete::<Endpoint>, webhooks::doc::delete),
        ),
        ("/api/v1/webhooks/{id}/restore", post(Manager, deleted::restore_endpoint, webhooks::doc::restore)),
        ("/api/v1/webhooks/{id}/rotate-secret", post(Manager, webhooks::rotate_secret, webhooks::doc::rotate_secret)),
        (
            "/api/v1/destinations",
            get(Viewer, list::<Destination>, destinations::doc::list)
                .post(Manager, destinations::create, destinations::doc::create)
                .scoped(),
        ),
        (
            "/api/v1/destinations/{id}",
            get(Viewer, one::<Destination>, destinations::doc::one)
                .put(Manager, update::<Destination>, destinations::doc::update)
                .patch(Manager, merge::<Destination>, destinations::doc::merge)
                .delete(Manager, delete::<Destination>, destinations::doc::delete),
        ),
        ("/api/v1/destinations/{id}/flow", get(Viewer, flow::one, flow::doc::of_destination)),
        (
            "/api/v1/destinations/{id}/rotate-secret",
            post(Manager, destinations::rotate_secret, destinations::doc::rotate_secret),
        ),
        ("/api/v1/destinations/{id}/test", post(Manager, destinations::test::stored, destinations::doc::test)),
        (
            "/api/v1/destinations/test",
            post(Manager, destinations::test::unsaved, destinations::doc::test_unsaved).scoped(),
        ),
        (
            "/api/v1/subscriptions",
            get(Viewer, list::<Subscription>, subscriptions::doc::list)
                .post(Manager, subscriptions::create, subscriptions::doc::create)
                .scoped(),
        ),
        ("/api/v1/subscriptions/dry_run", post(Manager, subscriptions::dry_run, subscriptions::doc::dry_run).scoped()),
        (
            "/api/v1/subscriptions/{id}",
            get(Viewer, one::<Subscription>, subscriptions::doc::one)
                .put(Manager, update::<Subscription>, subscriptions::doc::update)
                .patch(Manager, merge::<Subscription>, subscriptions::doc::merge)
                .delete(Manager, delete::<Subscription>, subscriptions::doc::delete),
        ),
    ]
}

/// What came, and what became of it.
fn happenings() -> Vec<Route> {
    vec![
        ("/api/v1/events", get(Viewer, events::list, events::doc::list).scoped()),
        ("/api/v1/events/stream", get(Viewer, events::follow, events::doc::follow).scoped()),
        ("/api/v1/events/{id}", get(Viewer, events::one, events::doc::one)),
        ("/api/v1/events/{id}/body", get(Viewer, events::body, events::doc::body)),
        ("/api/v1/events/{id}/replay", post(Manager, events::replay, events::doc::replay)),
        ("/api/v1/events/{id}/verify", post(Manager, events::verify, events::doc::verify)),
        ("/api/v1/providers", get(Viewer, providers::list_all, providers::doc::list).scoped()),
        ("/api/v1/providers/{name}", get(Viewer, providers::one, providers::doc::one).scoped()),
        ("/api/v1/providers/{name}/verify", post(Manager, providers::verify, providers::doc::verify).scoped()),
        ("/api/v1/rejections", get(Viewer, rejections::list, rejections::doc::list).scoped()),
        ("/api/v1/rejections/accept", post(Manager, rejections::accept_many, rejections::doc::accept_many).scoped()),
        ("/api/v1/rejections/{id}", get(Viewer, rejections::one, rejections::doc::one).scoped()),
        ("/api/v1/rejections/{id}/explain", get(Viewer, rejections::explain, rejections::doc::explain).scoped()),
        ("/api/v1/rejections/{id}/accept", post(Manager, rejections::accept, rejections::doc::accept).scoped()),
        ("/api/v1/deadletters", get(Viewer, deadletters::list, deadletters::doc::list).scoped()),
        (
            "/api/v1/deadletters/discard",
            post(Manager, deadletters::discard_many, deadletters::doc::discard_many).scoped(),
        ),
        ("/api/v1/deadletters/{subscription_id}/{event_id}", get(Viewer, deadletters::one, deadletters::doc::one)),
        (
            "/api/v1/deadletters/{subscription_id}/{event_id}/replay",
            post(Manager, deadletters::replay, deadletters::doc::replay),
        ),
        (
            "/api/v1/deadletters/{subscription_id}/{event_id}/discard",
            post(Manager, deadletters::discard, deadletters::doc::discard),
        ),
        (
            "/api/v1/replays",
            get(Viewer, replays::list, replays::doc::list)
                .post(Manager, replays::create, replays::doc::create)
                .scoped(),
        ),
        ("/api/v1/replays/{id}", get(Viewer, replays::one, replays::doc::one)),
        ("/api/v1/replays/{id}/{command}", post(Manager, replays::command, replays::doc::command)),
    ]
}

/// What keeps it going, and who may use it.
fn operation() -> Vec<Route> {
    vec![
        ("/healthz", open(metrics::alive, metrics::doc::alive)),
        (openapi::PATH, open(openapi::show, openapi::describe_show)),
        ("/api/v1/docs", open(openapi::page, openapi::describe_page)),
        ("/api/v1/docs/{file}", open(openapi::asset, openapi::describe_asset)),
        ("/readyz", open(metrics::ready, metrics::doc::ready)),
        ("/api/v1/backup", post(Admin, backup::begin, backup::doc::begin)),
        ("/api/v1/backup/{id}", delete_route(Admin, backup::release, backup::doc::release)),
        (
            "/api/v1/backup/{id}/{part}",
            get(Admin, backup::stream, backup::doc::stream).post(Admin, backup::command, backup::doc::command),
        ),
        ("/api/v1/backup/{id}/segments/{number}", get(Admin, backup::segment, backup::doc::segment)),
        ("/api/v1/backup/{id}/segments/{number}/index", get(Admin, backup::index, backup::doc::index)),
        ("/api/v1/keys", get(Admin, keys::list, keys::doc::list).post(Admin, keys::add, keys::doc::add)),
        ("/api/v1/keys/reload", post(Admin, keys::reload, keys::doc::reload)),
        ("/api/v1/keys/rotate", post(Admin, keys::rotate, keys::doc::rotate)),
        ("/api/v1/keys/{id}/retire", post(Admin, keys::retire, keys::doc::retire)),
        ("/api/v1/apply", post(Manager, apply::apply, apply::doc::apply)),
        ("/api/v1/export", get(Viewer, apply::export, apply::doc::export)),
        ("/api/v1/tasks", get(Viewer, tasks::list, tasks::doc::list)),
        ("/api/v1/tasks/{task}", get(Viewer, tasks::one, tasks::doc::one)),
        ("/api/v1/tasks/{task}/run", post(Manager, tasks::run, tasks::doc::run)),
        ("/api/v1/tasks/{task}/runs", get(Viewer, tasks::runs, tasks::doc::runs)),
        ("/api/v1/tasks/{task}/runs/{id}", get(Viewer, tasks::one_run, tasks::doc::one_run)),
        ("/api/v1/metrics", get(Viewer, metrics::report, metrics::doc::report)),
        ("/api/v1/activities", get(Viewer, activities::list, activities::doc::list).scoped()),
        ("/api/v1/activities/export", get(Viewer, activities::export, activities::doc::export).scoped()),
        (
            "/api/v1/tokens",
            get(Admin, tokens::list, tokens::doc::list).post(Admin, tokens::create, tokens::doc::create).scoped(),
        ),
        ("/api/v1/tokens/self", get(Viewer, tokens::own, tokens::doc::own).scoped()),
        (
            "/api/v1/tokens/{id}",
            get(Admin, tokens::one, tokens::doc::one).delete(Admin, tokens::revoke, tokens::doc::revoke).scoped(),
        ),
    ]
}
