//! The machine: its clocks, and how many files a process may open.

use std::{
    fs,
    time::{Duration, Instant, SystemTime},
};

use super::Finding;
use crate::settings::Settings;

const CLOCK: &str = "clock";
const FILES: &str = "open files";
/// How long the clocks are watched.
const WATCHED: Duration = Duration::from_millis(200);
/// They may drift apart by so much meanwhile: half a percent, and what a busy machine adds.
const DRIFT_MAX: Duration = Duration::from_millis(20);
/// 2025 and 2100: a clock outside was never set.
const SANE_S: std::ops::Range<u64> = 1_735_689_600..4_102_444_800;
/// What was written may lie so far in the future: clocks of two machines differ.
const AHEAD_MAX: Duration = Duration::from_secs(5);
/// Beside connections: segments, sled's files, destinations' pools, workers.
const OTHER_FILES: u64 = 512;

/// The wall clock's year, whether it runs as the monotonic one does, and whether it went back since the last write.
pub(super) fn clock(settings: &Settings) -> Finding {
    let (began, wall) = (Instant::now(), now());
    std::thread::sleep(WATCHED);
    let (elapsed, later) = (began.elapsed(), now());
    let newest = newest_write(settings);
    judged(wall, later, elapsed, newest)
}

/// The wall clock, as everything else here reads it.
fn now() -> SystemTime {
    let micros = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

fn judged(wall: SystemTime, later: SystemTime, elapsed: Duration, newest: Option<SystemTime>) -> Finding {
    let since_1970 = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let shown = i64::try_from(since_1970.as_secs()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    let shown = shown.unwrap_or_default();
    let set_it = "set it, and have chrony or systemd-timesyncd keep it: signatures carry times, retries have due times";
    if !SANE_S.contains(&since_1970.as_secs()) {
        return Finding::fail(CLOCK, format!("it says {shown}"), set_it);
    }
    let drift = match later.duration_since(wall) {
        Ok(wall) => wall.abs_diff(elapsed),
        Err(back) => back.duration() + elapsed,
    };
    if drift > DRIFT_MAX {
        let detail = format!("the wall clock moved by {drift:.0?} against the monotonic one within {elapsed:.0?}");
        return Finding::warn(CLOCK, detail, "look at what sets it; it should be slewed, not stepped");
    }
    if let Some(ahead) = newest.and_then(|newest| newest.duration_since(later).ok()).filter(|it| *it > AHEAD_MAX) {
        let detail = format!("it says {shown}, and the store was last written {ahead:.0?} later: it went back");
        return Finding::warn(CLOCK, detail, set_it);
    }
    Finding::ok(CLOCK, format!("it says {shown}, and runs evenly"))
}

fn newest_write(settings: &Settings) -> Option<SystemTime> {
    let entries = fs::read_dir(settings.store_dir().join("log")).ok()?;
    entries.flatten().filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

/// Whether every connection that the settings allow finds a file descriptor.
pub(super) fn open_files(settings: &Settings) -> Finding {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile);
    limits(settings.ingress.connections_max as u64, limit.current, limit.maximum)
}

fn limits(connections: u64, current: Option<u64>, maximum: Option<u64>) -> Finding {
    let wanted = connections + OTHER_FILES;
    let Some(current) = current.filter(|current| *current < wanted) else {
        let shown = current.map_or_else(|| "any number".to_owned(), |current| current.to_string());
        return Finding::ok(FILES, format!("{shown} may be open at once"));
    };
    let detail = format!("{current} may be open at once; `ingress.connections_max` {connections} wants {wanted}");
    let next = match maximum {
        Some(maximum) if maximum < wanted => {
            format!("set `LimitNOFILE={wanted}` (systemd) or raise the hard limit, {maximum}")
        }
        _ => format!("type `ulimit -n {wanted}` before the start, or set `LimitNOFILE={wanted}` (systemd)"),
    };
    Finding::warn(FILES, detail, next)
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    fn at(s: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(s)
    }

    #[test]
    fn a_clock_that_was_never_set_jumps_or_went_back_is_told() {
        let (now, ms) = (at(1_800_000_000), Duration::from_millis);
        let level = |wall, later, newest| judged(wall, later, ms(200), newest).level;
        assert_eq!(level(now, now + ms(200), None), Level::Ok);
        assert_eq!(level(at(0), at(0) + ms(200), None), Level::Fail);
        assert_eq!(level(at(5_000_000_000), at(5_000_000_000) + ms(200), None), Level::Fail);
        assert_eq!(level(now, now + ms(3_200), None), Level::Warn);
        assert_eq!(level(now, now - ms(3_200), None), Level::Warn);
        assert_eq!(level(now, now + ms(200), Some(now + ms(2_000))), Level::Ok);
        let back = judged(now, now + ms(200), ms(200), Some(now + Duration::from_secs(3_600)));
        assert!(back.level == Level::Warn && back.detail.contains("went back"), "{back:?}");
    }

    #[test]
    fn too_few_files_are_told_with_what_to_type() {
        assert_eq!(limits(10_000, Some(65_536), None).level, Level::Ok);
        assert_eq!(limits(10_000, None, None).level, Level::Ok);
        let soft = limits(10_000, Some(1_024), Some(65_536));
        assert!(soft.level == Level::Warn && soft.next.as_ref().is_some_and(|it| it.contains("ulimit -n 10512")));
        let hard = limits(10_000, Some(1_024), Some(4_096));
        assert!(hard.next.as_ref().is_some_and(|it| it.contains("LimitNOFILE=10512") && it.contains("4096")));
    }
}
