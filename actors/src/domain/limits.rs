//! Bounds that more than one part relies on, each with its reason. What an operator may turn is configuration.

/// Deliveries of one subscription under way at once: bounds the position record and the duplicates after a kill.
pub const IN_FLIGHT_MAX: usize = 256;
/// Outcomes known but not yet recorded, a subscription; more would mean more duplicates after a kill.
pub const UNRECORDED_MAX: usize = 2_048;
/// A state commit is due when so many outcomes wait for it.
pub const COMMIT_OUTCOMES: usize = 512;
/// A state commit is due when an outcome has waited so long, milliseconds.
pub const COMMIT_WAIT_MS: u64 = 50;
/// First-try successes kept in one stored value: its bytes must stay far below the store's 7 KB bound.
pub const RUN_IDS_MAX: usize = 256;
/// Events in one batch between the log, an integration and its deliveries.
pub const BATCH_EVENTS_MAX: usize = 256;
/// Bytes in one such batch; one event larger than that still travels, alone.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Events of an integration whose intake is ahead of its recording.
pub const INTAKE_UNRECORDED_MAX: usize = 2_048;
/// Attempts remembered with a delivery, oldest dropped: the record must stay a small value.
pub const ATTEMPTS_KEPT: usize = 12;
/// Bytes of a destination's reply kept with an attempt.
pub const REPLY_EXCERPT_BYTES: usize = 1_024;
/// Bytes of a provider's event type or id that are kept.
pub const IDENTITY_BYTES_MAX: usize = 128;
/// Deliveries of one subscription that wait behind failed ones of their order key, outside memory; at the bound the
/// position waits. Their ids are held in memory.
pub const PARKED_MAX: usize = 10_000;
/// Order keys of one subscription that something is under way, failed or parked in, at most; beyond it nothing is parked.
pub const LANES_MAX: usize = 1_024;
/// Starts that found a delivery unsettled, from which on it is attempted with few others, at last alone, and with a
/// durable note before.
pub const SUSPECT_CRASHES: u8 = 3;
/// Attempts so noted that were under way when hookmill went down, counted with those starts: at this many it is given up.
pub const POISON_CRASHES: u8 = 8;
/// Endpoints and subscriptions of one integration: each of its versions names them all.
pub const INTEGRATION_PARTS_MAX: usize = 1_000;
/// Deleted integrations and endpoints that may come back: they are in memory.
pub const DELETED_KEPT_MAX: usize = 100_000;
/// Bulk replays that are remembered; the oldest that ended goes for a new one.
pub const REPLAYS_MAX: usize = 1_000;
/// Bulk replays that count or deliver at once.
pub const REPLAYS_ACTIVE_MAX: usize = 8;
/// Deliveries a second of one bulk replay, at most.
pub const REPLAY_RATE_MAX: u32 = 5_000;
/// Events of each subscription that one look for pending ones goes through, at most.
pub const PENDING_LIMIT_MAX: u32 = 1_000;
