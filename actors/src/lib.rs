//! The heart of hookmill: domain, ports and the supervised actor tree. Touches no socket, file or database.

pub(crate) mod activity;
pub mod configuration;
pub mod domain;
pub(crate) mod integrations;
pub mod metrics;
pub mod ports;
pub(crate) mod retry;
pub(crate) mod router;
pub mod snapshot;
pub mod tree;
