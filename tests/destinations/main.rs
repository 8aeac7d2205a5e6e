//! Every kind of destination against real peers: a Redis, a NATS server, TLS with client certificates, a proxy, files.
//! `.ci/setup` installs the servers.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod authority;
mod file;
mod http;
mod nats;
mod peers;
mod redis_stream;
mod registry;
mod tls;
