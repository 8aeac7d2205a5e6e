//! The actor tree on in-memory ports, with paused time: a day of retries passes in milliseconds.

mod backlogs;
mod deduplicating;
mod deleting;
mod delivering;
mod discarding;
mod limiting;
mod ordering;
mod recording;
mod replay_bounds;
mod replaying;
mod retrying;
mod selecting;
mod supervision;
mod tasks;
mod watching;
mod world;
