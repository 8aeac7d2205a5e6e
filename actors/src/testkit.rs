//! Stand-ins for what the actor tree needs of the outside, for tests: in memory, and without waiting.

pub mod memory_state;
