//! What the actor tree needs of the outside, as traits. `src/` implements them; `testkit` does so in memory.

pub mod clock;
pub mod config_store;
pub mod connection_tester;
pub mod event_log;
pub mod program;
pub mod provider;
pub mod sealer;
pub mod state_store;
pub mod transport;
