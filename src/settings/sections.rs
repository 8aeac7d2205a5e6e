//! The sections of the settings, one struct each. Defaults are told with their reasons in `config/default.toml`,
//! which a test holds equal to the `Default` of these structs.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use hookmill_actors::{
    domain::backoff::RetryPolicy,
    scheduler::{Schedule, TaskOptions},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;

use super::{durations, size};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY: Duration = Duration::from_hours(24);

/// The public listener that receives webhooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressSettings {
    /// Where to listen.
    pub address: SocketAddr,
    /// Threads that receive; 0 for one a core, at most 2. See [`IngressSettings::thread_count`].
    pub threads: usize,
    /// Open connections at most.
    pub connections_max: usize,
    /// Header lines of a request at most.
    pub header_count_max: usize,
    /// All header lines of a request at most, bytes.
    #[serde(with = "size")]
    pub header_bytes_max: usize,
    /// One header line at most, bytes.
    #[serde(with = "size")]
    pub header_line_bytes_max: usize,
    /// Path and query at most, bytes.
    #[serde(with = "size")]
    pub target_bytes_max: usize,
    /// One body at most, bytes.
    #[serde(with = "size")]
    pub body_bytes_max: usize,
    /// All bodies being received at once, bytes.
    #[serde(with = "size")]
    pub body_bytes_in_flight_max: usize,
    /// To the end of a request's head.
    #[serde(with = "humantime_serde")]
    pub head_timeout: Duration,
    /// From the end of the head to the reply.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// A connection without a request lives this long.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// The slowest a body may come, bytes a second; 0 for no minimum.
    pub body_rate_min: u64,
    /// A request that has passed so many hookmills is refused.
    pub hops_max: u32,
    /// For requests under way at a stop.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub http2_streams_max: u32,
}

/// More event loops than this gain nothing: the disk's sync is the limit, and deliveries need cores as well.
const INGRESS_THREADS_MAX: usize = 2;

impl IngressSettings {
    /// Threads that receive, with 0 resolved for this machine; at least 1.
    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(INGRESS_THREADS_MAX),
            threads => threads,
        }
    }
}

impl Default for IngressSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            threads: 0,
            connections_max: 10_000,
            header_count_max: 100,
            header_bytes_max: 32 * KIB,
            header_line_bytes_max: 8 * KIB,
            target_bytes_max: 4 * KIB,
            body_bytes_max: MIB,
            body_bytes_in_flight_max: 64 * MIB,
            head_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            body_rate_min: 1_000,
            hops_max: 5,
            drain_timeout: Duration::from_secs(8),
            http2_streams_max: 100,
        }
    }
}

/// The listener of the admin API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Where to listen.
    pub address: SocketAddr,
    /// One request body at most, bytes.
    #[serde(with = "size")]
    pub body_bytes_max: usize,
    /// From the end of the head to the reply.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Requests of one token at most, all of them at once if need be.
    pub requests_per_minute: NonZeroU32,
    /// Names or addresses, without port, that `Host` may carry beside loopback names and the bound address.
    pub allowed_hosts: Vec<String>,
    /// Proxies whose `x-forwarded-for` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            body_bytes_max: 256 * KIB,
            request_timeout: Duration::from_secs(30),
            requests_per_minute: NonZeroU32::new(6_000).expect("it is not zero"),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// The event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// One file of the log, bytes.
    #[serde(with = "size")]
    pub segment_bytes: u64,
    /// Events that may wait for the disk.
    pub queue_events: usize,
    /// Bytes that may wait for the disk.
    #[serde(with = "size")]
    pub queue_bytes: usize,
    /// Free space below which nothing is accepted, bytes.
    #[serde(with = "size")]
    pub reserve_bytes: u64,
    /// How long a write, a sync or the state may take before the log is given up.
    #[serde(with = "humantime_serde")]
    pub stall_limit: Duration,
    /// How long finished events are kept.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// The log at most, bytes.
    #[serde(with = "size")]
    pub bytes_max: u64,
    /// What one integration's unfinished events may take of it, percent.
    pub integration_share_percent: u8,
    /// Ids of events remembered to know those that come again.
    pub dedup_keys_max: u64,
    /// Memory for the state beside the log, bytes.
    #[serde(with = "size")]
    pub state_cache_bytes: u64,
    /// Headers of webhooks whose values are not stored.
    pub redacted_headers: Vec<String>,
}

impl LogSettings {
    /// What one integration's unfinished events may take of the log, bytes.
    pub fn backlog_bytes_max(&self) -> u64 {
        self.bytes_max / 100 * u64::from(self.integration_share_percent)
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * MIB as u64,
            queue_events: 16_384,
            queue_bytes: 64 * MIB,
            reserve_bytes: 256 * MIB as u64,
            stall_limit: Duration::from_mins(1),
            retention: 30 * DAY,
            bytes_max: 10 * GIB,
            integration_share_percent: 25,
            dedup_keys_max: 3_000_000,
            state_cache_bytes: 8 * MIB as u64,
            redacted_headers: ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

/// What is kept of requests that the ingress refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RejectionSettings {
    /// Requests that are kept; 0 for none.
    pub count_max: usize,
    /// What they take on disk, bytes.
    #[serde(with = "size")]
    pub bytes_max: u64,
    /// What is kept of one body, bytes.
    #[serde(with = "size")]
    pub body_bytes_max: usize,
    /// Requests that are kept a second.
    pub per_second: u32,
}

impl Default for RejectionSettings {
    fn default() -> Self {
        Self { count_max: 10_000, bytes_max: 64 * MIB as u64, body_bytes_max: 256 * KIB, per_second: 100 }
    }
}

/// Sending events to destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliverySettings {
    /// Threads that deliver.
    pub threads: usize,
    /// To reach a destination and shake hands, where it sets no other.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// For a whole attempt, where the destination sets no other.
    #[serde(with = "humantime_serde")]
    pub total_timeout: Duration,
    /// Deliveries under way at once, for subscriptions made from now on that set no other.
    pub in_flight_max: u16,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            threads: 2,
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(15),
            in_flight_max: 64,
        }
    }
}

/// When failed deliveries are tried again, where the subscription names no schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// The wait after each failed attempt, in whole seconds.
    #[serde(with = "durations")]
    pub schedule: Vec<Duration>,
    /// The longest `Retry-After` that is honoured, in whole seconds.
    #[serde(with = "humantime_serde")]
    pub retry_after_max: Duration,
}

impl RetrySettings {
    /// The same as a subscription's policy.
    pub fn policy(&self) -> RetryPolicy {
        RetryPolicy {
            schedule_s: self.schedule.iter().map(Duration::as_secs).collect(),
            retry_after_max_s: self.retry_after_max.as_secs(),
            ..RetryPolicy::default()
        }
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        let policy = RetryPolicy::default();
        Self {
            schedule: policy.schedule_s.into_iter().map(Duration::from_secs).collect(),
            retry_after_max: Duration::from_secs(policy.retry_after_max_s),
        }
    }
}

/// Programs that operators write: jq, in processes of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProgramSettings {
    /// Processes that run jq at once.
    pub workers: usize,
    /// One program on one event at most.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// Address space of one process, bytes.
    #[serde(with = "size")]
    pub memory_bytes: u64,
    /// What a program makes of one event at most, bytes.
    #[serde(with = "size")]
    pub output_bytes_max: usize,
}

impl Default for ProgramSettings {
    fn default() -> Self {
        Self { workers: 2, deadline: Duration::from_secs(1), memory_bytes: 256 * MIB as u64, output_bytes_max: MIB }
    }
}

/// Whether the third parties that integrations belong to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionTestSettings {
    /// Between two tests of an integration that passes; zero for only when it changes.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// Failures in a row that make an active integration `failed`.
    pub failures_max: u32,
    /// To the next test after a first failure; each further failure doubles it.
    #[serde(with = "humantime_serde")]
    pub probe_after: Duration,
    /// Up to this.
    #[serde(with = "humantime_serde")]
    pub probe_every_max: Duration,
    /// Tests at once.
    pub concurrent_max: usize,
    /// One test at most.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for ConnectionTestSettings {
    fn default() -> Self {
        Self {
            every: Duration::ZERO,
            failures_max: 3,
            probe_after: Duration::from_secs(30),
            probe_every_max: Duration::from_hours(1),
            concurrent_max: 64,
            timeout: Duration::from_secs(10),
        }
    }
}

/// What hookmill does by schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskSettings {
    /// When all connections are tested.
    pub test_all_active_integrations: Schedule,
    /// When events that wait are looked for.
    pub process_pending_webhook_events: Schedule,
    /// When integrations, webhooks and events are counted.
    pub collect_integration_metrics: Schedule,
    /// A run by schedule is put off by up to this, at random.
    #[serde(with = "humantime_serde")]
    pub put_off_max: Duration,
    /// Testing all connections ends after this.
    #[serde(with = "humantime_serde")]
    pub tests_deadline: Duration,
    /// Events that are looked for, of each subscription.
    pub pending_limit: u32,
}

impl Default for TaskSettings {
    fn default() -> Self {
        let TaskOptions {
            test_all_active_integrations,
            process_pending_webhook_events,
            collect_integration_metrics,
            put_off_max,
            tests_deadline,
            pending_limit,
            ..
        } = TaskOptions::default();
        Self {
            test_all_active_integrations,
            process_pending_webhook_events,
            collect_integration_metrics,
            put_off_max,
            tests_deadline,
            pending_limit,
        }
    }
}

/// What destinations on this machine may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationsSettings {
    /// Folder that destinations of type `file` may write below; empty for none.
    pub file_directory: PathBuf,
}

impl DestinationsSettings {
    /// The folder, where there is one.
    pub fn files(&self) -> Option<PathBuf> {
        (!self.file_directory.as_os_str().is_empty()).then(|| self.file_directory.clone())
    }
}

/// How long what is done with is kept, beside the events (`log.retention`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// How long dead letters are kept.
    #[serde(with = "humantime_serde")]
    pub dead_letters: Duration,
    /// How long a deleted integration or webhook endpoint can be brought back.
    #[serde(with = "humantime_serde")]
    pub deleted: Duration,
    /// How long activities are kept.
    #[serde(with = "humantime_serde")]
    pub activities: Duration,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { dead_letters: 30 * DAY, deleted: 7 * DAY, activities: 400 * DAY }
    }
}

/// What destinations may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressSettings {
    /// Networks beside the public internet that destinations may lie in.
    pub allow: Vec<IpNet>,
}

/// Where the key ring comes from, where it is no file of hookmill's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsSettings {
    /// A program that prints the key ring, and its arguments; empty: the ring is a file, or in the environment.
    pub key_command: Vec<String>,
    /// It must have ended by then.
    #[serde(with = "humantime_serde")]
    pub key_command_timeout: Duration,
}

impl Default for SecretsSettings {
    fn default() -> Self {
        Self { key_command: Vec::new(), key_command_timeout: Duration::from_secs(10) }
    }
}

/// What happens when a part of hookmill crashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisionSettings {
    /// Restarts within the window at most.
    pub restarts_max: u32,
    /// The window.
    #[serde(with = "humantime_serde")]
    pub restarts_window: Duration,
}

impl Default for SupervisionSettings {
    fn default() -> Self {
        Self { restarts_max: 5, restarts_window: Duration::from_secs(10) }
    }
}

/// What hookmill tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// The least important line that is written.
    pub log_level: LogLevel,
    /// How lines look.
    pub log_format: LogFormat,
}

/// How important a log line must be to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the field's")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}
