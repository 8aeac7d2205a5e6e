//! Stand-ins for what the actor tree needs of the outside, for tests: in memory, and without waiting.

pub mod memory_config;
pub mod memory_log;
pub mod memory_state;
pub mod scripted_transport;
pub mod sim;
pub mod stubs;
pub mod test_clock;
