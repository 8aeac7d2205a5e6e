//! What settings must hold beyond their form: bounds, and how they go together. Pure.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use hookmill_actors::domain::{
    backoff::{SCHEDULE_MAX, WAIT_MAX_S},
    limits::{IN_FLIGHT_MAX, PENDING_LIMIT_MAX},
};
use humantime_serde::re::humantime::format_duration;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    AdminSettings, ConnectionTestSettings, DeliverySettings, Fault, IngressSettings, LogSettings, ProgramSettings,
    RejectionSettings, RetrySettings, Settings, TaskSettings, size,
};

/// More threads than this are a slip of the finger.
const THREADS_MAX: usize = 64;
/// A longer wait than this for a peer is a slip of the finger.
const TIMEOUT_MAX: Duration = Duration::from_hours(1);
/// Less is met by disks that are merely busy; a process that stands still for longer serves nobody.
const STALL_LIMIT: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_hours(1);
/// A faster minimum than this, bytes a second, would cut honest senders off.
const BODY_RATE_MAX: u64 = 1 << 20;
/// Each takes about twenty bytes of memory.
const DEDUP_KEYS_MAX: usize = 100_000_000;
/// A longer wait than this between connection tests is a slip of the finger.
const EVERY_MAX: Duration = Duration::from_hours(30 * 24);
/// A round of connection tests that takes longer than this meets the next one.
const DEADLINE_MAX: Duration = Duration::from_hours(6);
/// Each is looked for in every webhook.
const REDACTED_HEADERS_MAX: usize = 64;
/// Bytes of a name that goes into a header.
const HEADER_TEXT_MAX: usize = 255;

/// Checks everything; each fault names its dotted key.
pub(super) fn check(settings: &Settings, faults: &mut Vec<Fault>) {
    if settings.data_dir.as_os_str().is_empty() {
        faults.add("data_dir", "is empty; name a folder such as `./hookmill-data`");
    }
    if settings.destinations.files().is_some_and(|folder| folder.is_relative()) {
        faults.add("destinations.file_directory", "must be an absolute path, or empty");
    }
    if settings.destinations.files().is_some_and(|folder| folder.starts_with(&settings.data_dir)) {
        faults.add("destinations.file_directory", "must not lie within `data_dir`, whose files are hookmill's own");
    }
    check_ingress(&settings.ingress, faults);
    check_admin(&settings.admin, &settings.ingress, faults);
    check_log(&settings.log, &settings.ingress, faults);
    check_delivery(&settings.delivery, faults);
    check_retry(&settings.retry, faults);
    check_programs(&settings.programs, faults);
    check_connection_tests(&settings.connection_tests, faults);
    check_tasks(&settings.tasks, faults);
    let dead_letters = settings.retention.dead_letters;
    if dead_letters < Duration::from_hours(1) {
        faults.add("retention.dead_letters", format!("is {}; at least 1h is needed", format_duration(dead_letters)));
    }
    if settings.secrets.key_command.first().is_some_and(String::is_empty) {
        faults.add("secrets.key_command", "begins with an empty text; the first one is the program");
    }
    faults.duration("secrets.key_command_timeout", settings.secrets.key_command_timeout);
    let deleted = settings.retention.deleted;
    if deleted > Duration::from_hours(365 * 24) {
        faults.add("retention.deleted", format!("is {}; at most 1 year is possible", format_duration(deleted)));
    }
    check_rejections(&settings.rejections, faults);
    let activities = settings.retention.activities;
    if activities < Duration::from_hours(24) {
        faults.add("retention.activities", format!("is {}; at least 1day is needed", format_duration(activities)));
    }
    if settings.supervision.restarts_max == 0 {
        faults.add("supervision.restarts_max", "is 0; at least one restart must be allowed");
    }
    faults.duration("supervision.restarts_window", settings.supervision.restarts_window);
}

/// `--dev`: destinations may lie on loopback. So nobody else may be able to reach hookmill, else they could make
/// it call services of this machine.
pub(super) fn apply_dev(settings: &mut Settings, faults: &mut Vec<Fault>) {
    for (key, address) in [("ingress.address", settings.ingress.address), ("admin.address", settings.admin.address)] {
        if !address.ip().to_canonical().is_loopback() {
            faults.add(
                key,
                format!(
                    "is `{address}`, and `--dev` allows loopback addresses only (`127.0.0.1:{0}`, `[::1]:{0}`), because it \
                     opens this machine's own services to destinations",
                    address.port()
                ),
            );
        }
    }
    let loopback = [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    ];
    for network in loopback {
        if !settings.egress.allow.contains(&network) {
            settings.egress.allow.push(network);
        }
    }
}

fn check_connection_tests(tests: &ConnectionTestSettings, faults: &mut Vec<Fault>) {
    if !tests.every.is_zero() && !(Duration::from_mins(1)..=EVERY_MAX).contains(&tests.every) {
        let every = format_duration(tests.every);
        faults.add("connection_tests.every", format!("is {every}; allowed are 0s for never, or 1m to 30d"));
    }
    faults.count("connection_tests.failures_max", tests.failures_max as usize, 1, 100);
    faults.count("connection_tests.concurrent_max", tests.concurrent_max, 1, 1_000);
    for (key, wait) in [("probe_after", tests.probe_after), ("probe_every_max", tests.probe_every_max)] {
        if !(Duration::from_secs(1)..=EVERY_MAX).contains(&wait) {
            let wait = format_duration(wait);
            faults.add(&format!("connection_tests.{key}"), format!("is {wait}; allowed are 1s to 30d"));
        }
    }
    // An operator who tests waits for it within one request.
    if tests.timeout.is_zero() || tests.timeout > Duration::from_secs(25) {
        let timeout = format_duration(tests.timeout);
        faults.add("connection_tests.timeout", format!("is {timeout}; allowed is more than 0s, up to 25s"));
    }
}

fn check_tasks(tasks: &TaskSettings, faults: &mut Vec<Fault>) {
    if tasks.put_off_max > TIMEOUT_MAX {
        let put_off = format_duration(tasks.put_off_max);
        faults.add("tasks.put_off_max", format!("is {put_off}; allowed are 0s to 1h"));
    }
    if !(Duration::from_secs(1)..=DEADLINE_MAX).contains(&tasks.tests_deadline) {
        let deadline = format_duration(tasks.tests_deadline);
        faults.add("tasks.tests_deadline", format!("is {deadline}; allowed are 1s to 6h"));
    }
    faults.count("tasks.pending_limit", tasks.pending_limit as usize, 1, PENDING_LIMIT_MAX as usize);
}

fn check_rejections(rejections: &RejectionSettings, faults: &mut Vec<Fault>) {
    // Each has a file of its own, and an entry in memory.
    faults.count("rejections.count_max", rejections.count_max, 0, 1_000_000);
    faults.count("rejections.body_bytes_max", rejections.body_bytes_max, 0, 64 << 20);
    faults.count("rejections.per_second", rejections.per_second as usize, 1, 100_000);
    faults.size_order(
        ("rejections.body_bytes_max", rejections.body_bytes_max as u64),
        ("`rejections.bytes_max`", rejections.bytes_max),
    );
}

fn check_programs(programs: &ProgramSettings, faults: &mut Vec<Fault>) {
    faults.count("programs.workers", programs.workers, 1, THREADS_MAX);
    faults.duration("programs.deadline", programs.deadline);
    // Less does not start the process; an event's body is in it several times.
    faults.count(
        "programs.memory_bytes",
        usize::try_from(programs.memory_bytes).unwrap_or(usize::MAX),
        64 << 20,
        64 << 30,
    );
    faults.count("programs.output_bytes_max", programs.output_bytes_max, 1 << 10, 64 << 20);
}

fn check_ingress(ingress: &IngressSettings, faults: &mut Vec<Fault>) {
    faults.count("ingress.threads", ingress.threads, 0, THREADS_MAX);
    faults.count("ingress.connections_max", ingress.connections_max, 1, 1_000_000);
    faults.count("ingress.header_count_max", ingress.header_count_max, 8, 1_000);
    faults.count("ingress.header_bytes_max", ingress.header_bytes_max, 1 << 10, 1 << 20);
    faults.count("ingress.header_line_bytes_max", ingress.header_line_bytes_max, 256, 1 << 20);
    faults.count("ingress.target_bytes_max", ingress.target_bytes_max, 64, 64 << 10);
    faults.count("ingress.body_bytes_max", ingress.body_bytes_max, 1, 1 << 30);
    if ingress.body_rate_min > BODY_RATE_MAX {
        faults.add("ingress.body_rate_min", format!("is {}; allowed are 0 to {BODY_RATE_MAX}", ingress.body_rate_min));
    }
    faults.count("ingress.hops_max", ingress.hops_max as usize, 1, 100);
    faults.count("ingress.http2_streams_max", ingress.http2_streams_max as usize, 1, 10_000);
    faults.size_order(
        ("ingress.header_line_bytes_max", ingress.header_line_bytes_max as u64),
        ("`ingress.header_bytes_max`", ingress.header_bytes_max as u64),
    );
    faults.size_order(
        ("ingress.body_bytes_max", ingress.body_bytes_max as u64),
        ("`ingress.body_bytes_in_flight_max`", ingress.body_bytes_in_flight_max as u64),
    );
    faults.duration("ingress.head_timeout", ingress.head_timeout);
    faults.duration("ingress.request_timeout", ingress.request_timeout);
    faults.duration("ingress.idle_timeout", ingress.idle_timeout);
    faults.duration("ingress.drain_timeout", ingress.drain_timeout);
}

fn check_admin(admin: &AdminSettings, ingress: &IngressSettings, faults: &mut Vec<Fault>) {
    if overlap(admin.address, ingress.address) {
        faults.add(
            "admin.address",
            format!("`{}` takes the port of `ingress.address`; each needs its own", admin.address),
        );
    }
    faults.count("admin.body_bytes_max", admin.body_bytes_max, 1 << 10, 1 << 30);
    faults.duration("admin.request_timeout", admin.request_timeout);
    faults.count("admin.requests_per_minute", admin.requests_per_minute.get() as usize, 10, 1_000_000);
    for host in &admin.allowed_hosts {
        if !is_host(host) {
            faults.add(
                "admin.allowed_hosts",
                format!(
                    "`{host}` is no host name; write it without scheme, port and path, such as `hooks.example.com`"
                ),
            );
        }
    }
}

/// Whether two listeners would get in each other's way. Port 0 is any free one.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = text.len() <= HEADER_TEXT_MAX && text.split('.').all(label);
    name || text.parse::<IpAddr>().is_ok()
}

fn check_log(log: &LogSettings, ingress: &IngressSettings, faults: &mut Vec<Fault>) {
    const SEGMENT_BYTES: RangeInclusive<u64> = 64 << 10..=4 << 30;
    if !SEGMENT_BYTES.contains(&log.segment_bytes) {
        let bytes = size::format(log.segment_bytes);
        faults.add("log.segment_bytes", format!("is {bytes}; allowed are 64 KiB to 4 GiB"));
    }
    let largest_event = ingress.body_bytes_max.saturating_add(ingress.header_bytes_max) as u64;
    let sum = "the largest event, `ingress.body_bytes_max` and `ingress.header_bytes_max` together";
    faults.size_floor(("log.segment_bytes", log.segment_bytes), (sum, largest_event));
    faults.size_floor(("log.queue_bytes", log.queue_bytes as u64), (sum, largest_event));
    faults.count("log.queue_events", log.queue_events, 1, 1 << 20);
    // Space is freed by whole segments, and one is always being written.
    let two_segments = log.segment_bytes.saturating_mul(2);
    faults.size_floor(("log.bytes_max", log.bytes_max), ("twice `log.segment_bytes`", two_segments));
    faults.count("log.integration_share_percent", usize::from(log.integration_share_percent), 1, 100);
    faults.count("log.dedup_keys_max", usize::try_from(log.dedup_keys_max).unwrap_or(usize::MAX), 0, DEDUP_KEYS_MAX);
    faults.size_floor(("log.state_cache_bytes", log.state_cache_bytes), ("what the state needs", 1 << 20));
    let is_name = |name: &String| hyper::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
    if let Some(wrong) = log.redacted_headers.iter().find(|name| !is_name(name)) {
        faults.add("log.redacted_headers", format!("`{wrong}` is no header name, such as `authorization`"));
    }
    faults.count("log.redacted_headers", log.redacted_headers.len(), 0, REDACTED_HEADERS_MAX);
    if !STALL_LIMIT.contains(&log.stall_limit) {
        let limit = format_duration(log.stall_limit);
        faults.add("log.stall_limit", format!("is {limit}; allowed are 5s to 1h"));
    }
    if log.retention < Duration::from_mins(1) {
        faults.add("log.retention", format!("is {}; at least 1m is needed", format_duration(log.retention)));
    }
}

fn check_delivery(delivery: &DeliverySettings, faults: &mut Vec<Fault>) {
    faults.count("delivery.threads", delivery.threads, 1, THREADS_MAX);
    faults.count("delivery.in_flight_max", usize::from(delivery.in_flight_max), 1, IN_FLIGHT_MAX);
    faults.duration("delivery.connect_timeout", delivery.connect_timeout);
    faults.duration("delivery.total_timeout", delivery.total_timeout);
    if delivery.connect_timeout > delivery.total_timeout {
        let (connect, total) = (format_duration(delivery.connect_timeout), format_duration(delivery.total_timeout));
        faults.add(
            "delivery.connect_timeout",
            format!("is {connect} and must not exceed `delivery.total_timeout`, {total}"),
        );
    }
}

fn check_retry(retry: &RetrySettings, faults: &mut Vec<Fault>) {
    if retry.schedule.len() > SCHEDULE_MAX {
        faults
            .add("retry.schedule", format!("has {} entries; at most {SCHEDULE_MAX} are allowed", retry.schedule.len()));
    }
    let waits = retry.schedule.iter().map(|wait| ("retry.schedule", *wait));
    for (key, wait) in waits.chain([("retry.retry_after_max", retry.retry_after_max)]) {
        if wait.subsec_nanos() != 0 || wait > Duration::from_secs(WAIT_MAX_S) {
            let wait = format_duration(wait);
            faults.add(key, format!("`{wait}` is not whole seconds up to {} days", WAIT_MAX_S / (24 * 3600)));
        }
    }
}

/// The words that several checks share.
trait Faults {
    fn add(&mut self, key: &str, problem: impl Into<String>);

    fn count(&mut self, key: &str, value: usize, min: usize, max: usize) {
        if !(min..=max).contains(&value) {
            self.add(key, format!("is {value}; allowed are {min} to {max}"));
        }
    }

    /// `value` must not exceed `limit`, which has a name of its own.
    fn size_order(&mut self, (key, value): (&str, u64), (limit, most): (&str, u64)) {
        if value > most {
            self.add(key, format!("is {} and must not exceed {limit}, {}", size::format(value), size::format(most)));
        }
    }

    /// `value` must hold `floor`, which has a name of its own.
    fn size_floor(&mut self, (key, value): (&str, u64), (floor, least): (&str, u64)) {
        if value < least {
            self.add(key, format!("is {} and must be at least {floor}, {}", size::format(value), size::format(least)));
        }
    }

    fn duration(&mut self, key: &str, value: Duration) {
        if value.is_zero() || value > TIMEOUT_MAX {
            let value = format_duration(value);
            self.add(key, format!("is {value}; allowed is more than 0s, up to 1h"));
        }
    }
}

impl Faults for Vec<Fault> {
    fn add(&mut self, key: &str, problem: impl Into<String>) {
        self.push(Fault { key: key.to_owned(), origin: None, problem: problem.into() });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn faults_of(change: impl FnOnce(&mut Settings)) -> Vec<String> {
        let mut settings = Settings::default();
        change(&mut settings);
        let mut faults = Vec::new();
        check(&settings, &mut faults);
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_has_no_fault() {
        assert_eq!(faults_of(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn each_fault_names_its_key_and_what_would_be_right() {
        type Case = (fn(&mut Settings), &'static str, &'static str);
        let cases: [Case; 28] = [
            (|s| s.secrets.key_command = vec![String::new()], "`secrets.key_command`", "the program"),
            (|s| s.data_dir = "".into(), "`data_dir`", "hookmill-data"),
            (|s| s.ingress.threads = 65, "`ingress.threads`", "0 to 64"),
            (|s| s.ingress.header_line_bytes_max = 64 << 10, "`ingress.header_line_bytes_max`", "header_bytes_max"),
            (|s| s.ingress.body_bytes_in_flight_max = 1, "`ingress.body_bytes_max`", "in_flight_max"),
            (|s| s.ingress.body_rate_min = u64::MAX, "`ingress.body_rate_min`", "0 to 1048576"),
            (|s| s.ingress.head_timeout = Duration::ZERO, "`ingress.head_timeout`", "more than 0s"),
            (|s| s.admin.address = s.ingress.address, "`admin.address`", "its own"),
            (
                |s| s.admin.requests_per_minute = std::num::NonZeroU32::MIN,
                "`admin.requests_per_minute`",
                "allowed are 10 to 1000000",
            ),
            (|s| s.admin.allowed_hosts = vec!["https://a.b/".into()], "`admin.allowed_hosts`", "without scheme"),
            (|s| s.admin.allowed_hosts = vec!["a.example:80".into()], "`admin.allowed_hosts`", "port"),
            (|s| s.log.segment_bytes = 1 << 20, "`log.segment_bytes`", "largest event"),
            (|s| s.log.queue_bytes = 1 << 20, "`log.queue_bytes`", "largest event"),
            (|s| s.log.bytes_max = 1, "`log.bytes_max`", "twice"),
            (|s| s.log.stall_limit = Duration::ZERO, "`log.stall_limit`", "5s to 1h"),
            (|s| s.log.stall_limit = Duration::from_mins(61), "`log.stall_limit`", "5s to 1h"),
            (|s| s.log.retention = Duration::ZERO, "`log.retention`", "1m"),
            (|s| s.delivery.in_flight_max = 257, "`delivery.in_flight_max`", "1 to 256"),
            (|s| s.retry.schedule = vec![Duration::from_millis(1)], "`retry.schedule`", "whole seconds"),
            (|s| s.retention.dead_letters = Duration::from_mins(59), "`retention.dead_letters`", "at least 1h"),
            (|s| s.connection_tests.every = Duration::from_secs(1), "`connection_tests.every`", "1m to 30d"),
            (|s| s.connection_tests.failures_max = 0, "`connection_tests.failures_max`", "1 to 100"),
            (|s| s.connection_tests.timeout = Duration::from_mins(1), "`connection_tests.timeout`", "up to 25s"),
            (|s| s.tasks.put_off_max = Duration::from_hours(2), "`tasks.put_off_max`", "0s to 1h"),
            (|s| s.tasks.tests_deadline = Duration::ZERO, "`tasks.tests_deadline`", "1s to 6h"),
            (|s| s.tasks.pending_limit = 0, "`tasks.pending_limit`", "1 to 1000"),
            (|s| s.retention.deleted = Duration::from_hours(9_000), "`retention.deleted`", "at most 1 year"),
            (|s| s.supervision.restarts_max = 0, "`supervision.restarts_max`", "at least one"),
        ];
        for (change, key, right) in cases {
            let faults = faults_of(change);
            assert_eq!(faults.len(), 1, "{key}: {faults:?}");
            assert!(faults[0].starts_with(key) && faults[0].contains(right), "{faults:?}");
        }
    }

    #[test]
    fn listeners_may_share_a_port_only_where_they_do_not_meet() {
        let meets = |a: &str, b: &str| overlap(a.parse().unwrap(), b.parse().unwrap());
        assert!(meets("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!meets("127.0.0.2:80", "127.0.0.1:80"));
        assert!(!meets("127.0.0.1:0", "127.0.0.1:0"));
    }

    #[test]
    fn dev_opens_loopback_and_only_loopback() {
        let mut settings = Settings::default();
        let mut faults = Vec::new();
        apply_dev(&mut settings, &mut faults);
        apply_dev(&mut settings, &mut faults);
        assert_eq!(faults, []);
        assert_eq!(
            settings.egress.allow.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.0/8", "::1/128"]
        );
    }

    #[test]
    fn dev_refuses_to_listen_to_others() {
        for address in ["0.0.0.0:8080", "192.0.2.1:8080", "[::]:8080", "[::ffff:192.0.2.1]:8080"] {
            let mut settings = Settings::default();
            settings.ingress.address = address.parse().unwrap();
            let mut faults = Vec::new();
            apply_dev(&mut settings, &mut faults);
            let text = faults.iter().map(ToString::to_string).collect::<String>();
            assert!(text.contains("`ingress.address`") && text.contains("`--dev`") && text.contains(address), "{text}");
        }
        let mut settings = Settings::default();
        settings.ingress.address = "[::ffff:127.0.0.1]:8080".parse().unwrap();
        let mut faults = Vec::new();
        apply_dev(&mut settings, &mut faults);
        assert_eq!(faults, []);
    }
}
