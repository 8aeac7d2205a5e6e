//! The actor tree on in-memory ports, with paused time: a day of retries passes in milliseconds.

mod backlogs;
mod deduplicating;
mod delivering;
mod limiting;
mod ordering;
mod retrying;
mod selecting;
mod supervision;
mod watching;
mod world;
