//! The actor tree on in-memory ports, with paused time: a day of retries passes in milliseconds.

mod delivering;
mod retrying;
mod supervision;
mod world;
