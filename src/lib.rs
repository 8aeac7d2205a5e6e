//! Everything of hookmill that touches the outside: sockets, files, stores, the command line.
//! The library shows its modules to the binary, the tests and the benches; it is no public API.

pub mod admin;
pub mod app;
pub mod cli;
pub mod destinations;
pub mod ingress;
pub mod programs;
pub mod providers;
pub(crate) mod rate_headers;
pub mod secrets;
pub mod settings;
pub mod storage;
pub mod tokens;
