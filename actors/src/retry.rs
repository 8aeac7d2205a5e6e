//! retry
pub(crate) enum RetryMsg {}
