//! router
pub(crate) enum RouterMsg {}
