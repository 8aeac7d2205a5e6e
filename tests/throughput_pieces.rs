//! The unit tests of `benches/throughput`: a bench without a harness cannot run them itself.

#![allow(dead_code, clippy::print_stdout, reason = "the program they are part of is elsewhere")]

#[path = "../benches/throughput/delivered.rs"]
mod delivered;
#[path = "../benches/throughput/gateway.rs"]
mod gateway;
#[path = "../benches/throughput/histogram.rs"]
mod histogram;
#[path = "../benches/throughput/http.rs"]
mod http;
#[path = "../benches/throughput/load.rs"]
mod load;
#[path = "../benches/throughput/process.rs"]
mod process;
#[path = "../benches/throughput/report.rs"]
mod report;
#[path = "../benches/throughput/servers.rs"]
mod servers;
#[path = "../benches/throughput/wire.rs"]
mod wire;
