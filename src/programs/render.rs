//! A subscription's transformation: the body it sends, and the headers it adds.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use hookmill_actors::{
    domain::transform::{CloudEventsMode, Transform},
    ports::{
        program::{RenderFault, Rendered, Subject, Transformer},
        provider::SettingsError,
    },
};

use super::{
    canonical, cloudevents,
    jq::{JqProgram, Pool},
    templates::{self, HeaderTemplate},
};

const JSON: &str = "application/json";

enum Rendering {
    AsItCame,
    CloudEvents(CloudEventsMode),
    Canonical,
    Jq(JqProgram),
}

/// See the module.
pub(super) struct Renderer {
    rendering: Rendering,
    headers: Vec<HeaderTemplate>,
}

impl Renderer {
    /// Compiles programs and templates.
    pub(super) fn new(
        pool: &Arc<Pool>,
        transform: &Transform,
        headers: &BTreeMap<String, String>,
    ) -> Result<Self, SettingsError> {
        let rendering = match transform {
            Transform::None => Rendering::AsItCame,
            Transform::Cloudevents { mode } => Rendering::CloudEvents(*mode),
            Transform::Canonical => Rendering::Canonical,
            Transform::Jq { program } => Rendering::Jq(JqProgram::compile(pool, "transform.program", program)?),
        };
        Ok(Self { rendering, headers: templates::compile(headers)? })
    }
}

#[async_trait]
impl Transformer for Renderer {
    async fn render(&self, subject: &Subject) -> Result<Rendered, RenderFault> {
        let mut rendered = match &self.rendering {
            Rendering::AsItCame => {
                Rendered { content_type: None, headers: Vec::new(), body: subject.event.arrival.body.clone() }
            }
            Rendering::CloudEvents(CloudEventsMode::Binary) => cloudevents::binary(subject),
            Rendering::CloudEvents(CloudEventsMode::Structured) => cloudevents::structured(subject)?,
            Rendering::Canonical => json(canonical::document(subject)?.into()),
            Rendering::Jq(program) => json(program.run(subject).await?),
        };
        rendered.headers.extend(templates::render(&self.headers, subject));
        Ok(rendered)
    }
}

fn json(body: Bytes) -> Rendered {
    Rendered { content_type: Some(JSON.to_owned()), headers: Vec::new(), body }
}
