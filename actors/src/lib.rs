//! The heart of hookmill: domain, ports and the supervised actor tree. Touches no socket, file or database.
//!
//! An event walks one way: the ingress appends it to the [`ports::event_log::EventLog`]; the log's writer notes its
//! integration on the [`router::CommitBoard`]; the router wakes that integration's actor, which reads the log from
//! its own position, names the events and hands them to one delivery a subscription; that one makes attempts
//! through a [`ports::transport::Transport`] and records outcomes, due retries and its position in one atomic commit.
//! Backlog stays in the log: no mailbox ever holds more than one wake of a kind and what follows from work under way, which is bounded.

pub mod activity;
pub mod allowance;
pub mod backlog;
pub mod configuration;
pub(crate) mod delivery;
pub mod domain;
pub mod flow;
pub(crate) mod integration;
pub(crate) mod integrations;
pub mod metrics;
pub mod ports;
pub(crate) mod recorder;
pub mod replay;
pub(crate) mod retry;
pub mod router;
pub mod scheduler;
pub mod snapshot;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod tree;
