//! The ingress over real sockets: every reply, every bound, and what hostile peers get.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod acceptance;
mod bench;
mod bounds;
mod connections;
mod hostile;
mod http2;
mod ports;
mod refused;
mod slow;
mod stopping;
