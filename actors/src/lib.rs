//! The heart of hookmill: domain, ports and the supervised actor tree. Touches no socket, file or database.

pub mod domain;
pub mod ports;
#[cfg(feature = "testkit")]
pub mod testkit;
