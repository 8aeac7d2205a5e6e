//! What the original's routes take otherwise than those of `/api/v1`, in the document.

use serde_json::json;

use crate::admin::{
    integrations::{
        View,
        doc::{self as integrations, ListParams, example},
    },
    openapi::Doc,
    paging::{SearchParam, WindowParams, Windowed},
    webhooks::doc as webhooks,
};

pub(super) fn list_integrations() -> Doc {
    let page = json!({"items": [example()], "total": 1, "skip": 0, "limit": 100, "next_cursor": null});
    Doc::new("list_integrations", "Integrations")
        .query::<WindowParams>()
        .query::<SearchParam>()
        .query::<ListParams>()
        .list::<Windowed<View>, View>(page)
}

pub(super) fn create_integration() -> Doc {
    integrations::create().nullable("OriginalNewIntegration")
}

pub(super) fn update_integration() -> Doc {
    integrations::update().nullable("OriginalIntegrationChange")
}

pub(super) fn create_webhook() -> Doc {
    webhooks::create().nullable("OriginalNewWebhook")
}

pub(super) fn update_webhook() -> Doc {
    webhooks::update().nullable("OriginalWebhookChange")
}

pub(super) fn delete_integration() -> Doc {
    Doc::new("delete_integration", "Deletes an integration").conditional().done()
}

pub(super) fn delete_webhook() -> Doc {
    Doc::new("delete_webhook", "Deletes a webhook endpoint").conditional().done()
}
