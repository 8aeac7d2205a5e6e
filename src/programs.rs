//! The engines behind the port [`Programs`].

use std::{collections::BTreeMap, sync::Arc};

use hookmill_actors::{
    domain::transform::Transform,
    ports::{
        program::{Programs, Selector, Transformer},
        provider::SettingsError,
    },
};

/// The engines.
#[derive(Debug, Default)]
pub struct Engines;

impl Programs for Engines {
    fn selector(&self, filter: Option<&str>, _key: Option<&str>) -> Result<Arc<dyn Selector>, SettingsError> {
        let field = if filter.is_some() { "selection.filter" } else { "order.key" };
        Err(SettingsError::new(field, "expressions are not supported"))
    }

    fn transformer(
        &self,
        transform: &Transform,
        headers: &BTreeMap<String, String>,
    ) -> Result<Option<Arc<dyn Transformer>>, SettingsError> {
        if *transform == Transform::None && headers.is_empty() {
            return Ok(None);
        }
        Err(SettingsError::new("transform", "transformations are not supported"))
    }
}
