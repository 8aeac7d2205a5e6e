//! stub
#![allow(missing_docs, dead_code, clippy::all, clippy::pedantic)]
pub(crate) mod gate;
pub(crate) mod rate;
