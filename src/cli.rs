//! cli
pub mod send;
pub mod verify;
