//! The whole product: the real binary, real sockets, real files, `kill -9`.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod as_code;
mod cli;
mod contract;
mod dedup;
mod delivery;
mod destinations;
mod durability;
mod evidence;
mod harness;
mod history;
mod keeping;
mod keys;
mod listening;
mod operating;
mod original;
mod planted;
mod replaying;
mod safety;
mod secrets;
mod space;
mod stalling;
mod tasks;
mod tokens;
