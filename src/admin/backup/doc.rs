//! Backups in the document.

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{
    admin::{
        openapi::{Doc, EVENT},
        problem::Code,
    },
    backup::{Begun, EndMark},
};

const ID: &str = "b1f2c3d4";

#[derive(ToSchema)]
#[schema(as = BackupStream, rename_all = "snake_case")]
#[expect(dead_code, reason = "it is a part of a path; this says its form")]
enum Streamed {
    State,
    Configuration,
    Rejections,
}

#[derive(ToSchema)]
#[schema(as = BackupCommand, rename_all = "snake_case")]
#[expect(dead_code, reason = "it is a part of a path; this says its form")]
enum Command {
    Renew,
    End,
}

fn begun() -> Value {
    json!({"id": ID, "lease_s": 60})
}

pub(in crate::admin) fn begin() -> Doc {
    Doc::new("begin_backup", "Begins a backup: every segment of the log stays where it is")
        .empty_body()
        .reply::<Begun>(StatusCode::CREATED, begun())
}

pub(in crate::admin) fn release() -> Doc {
    Doc::new("release_backup", "Ends a backup: segments may go again").segment::<String>("id", ID).done()
}

pub(in crate::admin) fn stream() -> Doc {
    Doc::new("stream_backup", "Streams the `state`, the `configuration`, or the refused requests, to be copied")
        .segment::<String>("id", ID)
        .segment::<Streamed>("part", "state")
        .text(StatusCode::OK, &["application/octet-stream"], "")
        .refused(&[Code::Conflict])
}

pub(in crate::admin) fn segment() -> Doc {
    Doc::new("stream_backup_segment", "Streams a segment of the log, up to the backup's end")
        .segment::<String>("id", ID)
        .segment::<u64>("number", 7)
        .text(StatusCode::OK, &["application/octet-stream"], "")
        .refused(&[Code::Conflict])
}

pub(in crate::admin) fn index() -> Doc {
    Doc::new("stream_backup_index", "Streams the index of a segment that is sealed")
        .segment::<String>("id", ID)
        .segment::<u64>("number", 7)
        .text(StatusCode::OK, &["application/octet-stream"], "")
        .refused(&[Code::Conflict])
}

pub(in crate::admin) fn command() -> Doc {
    Doc::new("command_backup", "With `renew` it goes on holding; `end` tells how far the log has come")
        .segment::<String>("id", ID)
        .segment::<Command>("part", "renew")
        .empty_body()
        .reply::<Begun>(StatusCode::OK, begun())
        .or::<EndMark>(json!({
            "segments": [{"number": 7, "salt": 1, "file_bytes": 67_108_864, "end": 4_096, "sealed": false}],
            "last_event_id": EVENT,
            "at_ms": 1_769_846_400_000_u64,
            "configuration_version": 7,
            "keys": ["5f0c21aa"],
        }))
}
