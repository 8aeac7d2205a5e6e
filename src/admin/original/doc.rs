//! What the original's routes take otherwise than those of `/api/v1`, in the document.

use serde_json::json;

use crate::admin::{
    integrations::{
        View,
        doc::{ListParams, example},
    },
    openapi::Doc,
    paging::{SearchParam, WindowParams, Windowed},
};

pub(super) fn list_integrations() -> Doc {
    let page = json!({"items": [example()], "total": 1, "skip": 0, "limit": 100, "next_cursor": null});
    Doc::new("list_integrations", "Integrations")
        .query::<WindowParams>()
        .query::<SearchParam>()
        .query::<ListParams>()
        .list::<Windowed<View>, View>(page)
}

pub(super) fn delete_integration() -> Doc {
    Doc::new("delete_integration", "Deletes an integration").conditional().done()
}

pub(super) fn delete_webhook() -> Doc {
    Doc::new("delete_webhook", "Deletes a webhook endpoint").conditional().done()
}
