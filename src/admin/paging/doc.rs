//! The query parameters of lists in the document. They are read one by one in [`super`]; these types say their form.

use utoipa::IntoParams;

use crate::admin::openapi::{line, whole};

/// Of a list that is in memory, by id.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
pub(in crate::admin) struct WindowParams {
    /// Items of the page.
    #[param(schema_with = whole::<1, 1_000>, required = false)]
    limit: (),
    /// Items left out at the beginning; does not go with `cursor`.
    #[param(schema_with = whole::<0, { u32::MAX }>, required = false)]
    skip: (),
    /// The `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{7}$", required = false)]
    cursor: String,
}

/// A searched text.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
pub(in crate::admin) struct SearchParam {
    /// A text that name or description hold, whatever its case.
    #[param(schema_with = line::<255>, required = false)]
    q: (),
}

/// Of a list that is in memory.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
pub(in crate::admin) struct PageParams {
    /// Items of the page.
    #[param(schema_with = whole::<1, 1_000>, required = false)]
    limit: (),
    /// Items left out at the beginning.
    #[param(schema_with = whole::<0, { u32::MAX }>, required = false)]
    skip: (),
}

/// Of a list that grows without bound.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
pub(in crate::admin) struct LimitParam {
    /// Items of the page.
    #[param(schema_with = whole::<1, 1_000>, required = false)]
    limit: (),
}

/// A stretch of time.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
pub(in crate::admin) struct SinceUntil {
    /// Not before this time.
    #[param(value_type = String, format = DateTime, required = false)]
    since: String,
    /// Before this time.
    #[param(value_type = String, format = DateTime, required = false)]
    until: String,
}

/// A filter with two spellings.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
pub(in crate::admin) struct Active {
    #[param(required = false)]
    active: bool,
    /// The same as `active`.
    #[param(required = false)]
    is_active: bool,
}
