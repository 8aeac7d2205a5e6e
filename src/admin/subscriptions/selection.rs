//! `selection`: which events a subscription takes.

use hookmill_actors::domain::selection::{Selection, TYPE_PATTERNS_MAX};

use crate::admin::{
    fields::{list, string},
    form::{Change, Form},
};

/// The selection's members that were given.
#[derive(Default)]
pub(super) struct SelectionPatch {
    types: Option<Vec<String>>,
    filter: Change<String>,
}

impl SelectionPatch {
    /// `null` takes everything again.
    pub(super) fn read(form: &mut Form) -> Self {
        let read = form.clearable_nested("selection", |form| {
            let types = form.optional(&["types"], |value| {
                let types = list(TYPE_PATTERNS_MAX, string)(value)?;
                let selection = Selection { types, filter: None };
                selection.validate_types().map(|()| selection.types)
            });
            Some(Self { types, filter: form.clearable(&["filter"], string) })
        });
        match read {
            Change::Keep => Self::default(),
            Change::Clear => Self { types: Some(Vec::new()), filter: Change::Clear },
            Change::Set(patch) => patch,
        }
    }

    pub(super) fn apply_to(&self, selection: &mut Selection) {
        if let Some(types) = &self.types {
            selection.types.clone_from(types);
        }
        self.filter.apply_to(&mut selection.filter);
    }
}
