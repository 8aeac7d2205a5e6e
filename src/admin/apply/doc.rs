//! Documents of configuration in the document of the API. The requests' types say the members that [`super`] reads.

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{
        Ref,
        schema::{AdditionalProperties, Array, ArrayBuilder, ObjectBuilder},
    },
};

use super::{Applied, THINGS_MAX, document::Whole};
use crate::admin::{
    openapi::{Doc, line},
    problem::Code,
};

/// What shall stand. Things are known by their names; a member that is left out has its default.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct Application {
    /// Nothing is changed: only what would be is told.
    #[schema(required = false)]
    dry_run: bool,
    /// What an earlier apply made and this one does not hold is deleted.
    #[schema(required = false)]
    prune: bool,
    /// The `plan` of a dry run: nothing else is done than what that showed.
    #[schema(schema_with = line::<64>, required = false)]
    plan: (),
    #[schema(schema_with = destinations, required = false)]
    destinations: (),
    #[schema(schema_with = integrations, required = false)]
    integrations: (),
}

fn destinations() -> Array {
    let destination = ObjectBuilder::new().property("name", line::<255>()).required("name");
    listed(destination, "Destinations, with the members of their own resource.")
}

fn integrations() -> Array {
    let integration = ObjectBuilder::new()
        .property("name", line::<255>())
        .property("type", Ref::from_schema_name("IntegrationType"))
        .property("environment", Ref::from_schema_name("Environment"))
        .required("name")
        .required("type")
        .required("environment");
    let about = "Integrations, each with its `webhooks` and `subscriptions`; a subscription names its `destination`.";
    listed(integration, about)
}

fn listed(thing: ObjectBuilder, about: &str) -> Array {
    let thing = thing.additional_properties(Some(AdditionalProperties::FreeForm(true)));
    ArrayBuilder::new().items(thing).max_items(Some(THINGS_MAX)).description(Some(about)).build()
}

fn documents() -> Value {
    json!({
        "destinations": [{"name": "Ledger", "settings": {"url": "https://ledger.example.com/hooks"}}],
        "integrations": [{
            "name": "Text messages",
            "type": "sms_provider",
            "environment": "staging",
            "webhooks": [{"name": "Reports", "path": "/sms/reports"}],
            "subscriptions": [{"name": "Reports to ledger", "destination": "Ledger"}],
        }],
    })
}

pub(in crate::admin) fn apply() -> Doc {
    let mut wanted = documents();
    wanted["dry_run"] = true.into();
    Doc::new("apply", "Makes documents stand, all or nothing")
        .about(
            "Applied twice, they change nothing the second time. Secrets that hookmill makes are in this reply, and \
            never again. Deleting integrations takes the role `admin`.",
        )
        .body::<Application>(wanted)
        .reply::<Applied>(
            StatusCode::OK,
            json!({
                "dry_run": true,
                "version": 7,
                "plan": "5feceb66ffc86f38",
                "summary": {"create": 1, "update": 1, "delete": 0, "unchanged": 0},
                "changes": [
                    {"action": "create", "kind": "destination", "name": "Ledger", "id": null},
                    {
                        "action": "update",
                        "kind": "integration",
                        "name": "Card payments",
                        "id": 1,
                        "members": [{"pointer": "/description", "from": null, "to": "Production account"}],
                    },
                ],
            }),
        )
        .refused(&[Code::VersionConflict, Code::AdminRoleNeeded, Code::NotFound])
}

pub(in crate::admin) fn export() -> Doc {
    Doc::new("export", "All that is configured, as documents")
        .about("Refused where two things have one name, because documents know them by their names.")
        .reply::<Whole>(StatusCode::OK, documents())
        .refused(&[Code::Conflict])
}
