//! `transform` and `headers`: what is sent of an event.

use std::collections::BTreeMap;

use hookmill_actors::domain::transform::{CloudEventsMode, Transform};
use serde_json::Value;

use crate::admin::{
    fields::{kind, one_of, string},
    form::{Change, Form},
    json::quoted,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Cloudevents,
    Canonical,
    Jq,
}

const KINDS: [(&str, Kind); 4] =
    [("none", Kind::None), ("cloudevents", Kind::Cloudevents), ("canonical", Kind::Canonical), ("jq", Kind::Jq)];
const MODES: [(&str, CloudEventsMode); 2] =
    [("binary", CloudEventsMode::Binary), ("structured", CloudEventsMode::Structured)];

/// Given anew as a whole; `null` is `none`.
pub(super) fn read(form: &mut Form) -> Change<Transform> {
    form.clearable_nested("transform", |form| {
        let kind = form.required(&["kind"], one_of(&KINDS))?;
        let mode = form.optional(&["mode"], one_of(&MODES));
        let program = form.optional(&["program"], string);
        if mode.is_some() && kind != Kind::Cloudevents {
            form.fault("mode", "goes with the kind `cloudevents` only");
        }
        if program.is_some() && kind != Kind::Jq {
            form.fault("program", "goes with the kind `jq` only");
        }
        match kind {
            Kind::None => Some(Transform::None),
            Kind::Cloudevents => Some(Transform::Cloudevents { mode: mode.unwrap_or_default() }),
            Kind::Canonical => Some(Transform::Canonical),
            Kind::Jq => {
                if program.is_none() {
                    form.fault("program", "is missing; it is a jq program such as `{id: .id}`");
                }
                Some(Transform::Jq { program: program? })
            }
        }
    })
}

/// Given anew as a whole; `null` is none.
pub(super) fn read_headers(form: &mut Form) -> Change<BTreeMap<String, String>> {
    form.clearable(&["headers"], |value| {
        let Value::Object(members) = value else {
            return Err(format!("must be an object of names and templates; it is {}", kind(&value)));
        };
        members
            .into_iter()
            .map(|(name, template)| match template {
                Value::String(template) => Ok((name, template)),
                other => Err(format!("has `{}`, which must be a string; it is {}", quoted(&name), kind(&other))),
            })
            .collect()
    })
}
