//! The words of hookmill as types: what arrives, what is configured, what became of a delivery.

pub mod activity;
pub mod backoff;
pub mod canonical;
pub mod config;
pub mod connection_test;
pub mod delivery;
pub mod event;
pub mod headers;
pub mod ids;
pub mod limits;
pub mod order;
pub mod replay;
pub mod secret;
pub mod selection;
pub mod shaping;
pub mod standing;
pub mod task;
pub mod transform;
pub mod version;
