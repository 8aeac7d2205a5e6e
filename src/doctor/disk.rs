//! The file system under the data directory: whether a sync there means something, what it costs, and how much room
//! is left.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use super::Finding;
use crate::{
    settings::{Settings, format_size},
    words::counted,
};

const SYNC: &str = "sync";
const FILE_SYSTEM: &str = "file system";
const SPACE: &str = "disk space";
/// Syncs that are measured.
const SYNCS: usize = 64;
/// As a commit's smallest write.
const BLOCK: usize = 4096;
/// No disk takes a flush in less: a round trip to a device with a protected cache costs about ten microseconds.
const SUSPICIOUSLY_FAST: Duration = Duration::from_micros(5);
/// A group commit waits for one: senders notice.
const SLOW: Duration = Duration::from_millis(25);
/// Files that can still be made.
const INODES_MIN: u64 = 1_000;

/// The directory, or the nearest one above that is there.
fn standing(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."))
}

/// What is known of a kind of file system, by its magic number (statfs(2), linux/magic.h).
fn known(magic: u64) -> Option<(&'static str, &'static str)> {
    let memory = "it is memory: a 2xx would mean nothing after a power cut; use a disk";
    let network = "its syncs are as good as the server behind it; use a local disk unless you know that server";
    Some(match magic {
        0x0102_1994 => ("tmpfs", memory),
        0x8584_58f6 => ("ramfs", memory),
        0x6969 => ("NFS", network),
        0xff53_4d42 | 0xfe53_4d42 => ("SMB", network),
        0x0102_1997 => ("9p", network),
        0x6573_5546 => ("FUSE", "its syncs are as good as the program behind it; use a file system of the kernel"),
        0x794c_7630 => ("overlayfs", "it goes with its container; put the data directory on a volume"),
        _ => return None,
    })
}

/// Whether its syncs can be believed, by what kind it is and how it is mounted.
pub(super) fn file_system(settings: &Settings) -> Vec<Finding> {
    let dir = standing(&settings.data_dir);
    let mut findings = Vec::new();
    let magic = match rustix::fs::statfs(dir) {
        Ok(stat) => stat.f_type.cast_unsigned() & 0xffff_ffff,
        Err(error) => {
            let detail = format!("`{}` cannot be asked: {error}", dir.display());
            return vec![Finding::fail(FILE_SYSTEM, detail, "look at the directory and its mount")];
        }
    };
    if let Some((name, next)) = known(magic) {
        findings.push(Finding::warn(FILE_SYSTEM, format!("`{}` lies on {name}", dir.display()), next));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    if let Some(mount) = mount_of(&mounts, &real) {
        if let Some(option) = mount.options.iter().find(|option| lies(option)) {
            findings.push(Finding::fail(
                FILE_SYSTEM,
                format!("`{}` is mounted with `{option}`, so a sync does not reach the disk", mount.point),
                "mount it without that option",
            ));
        }
        if mount.options.contains(&"ro") {
            let next = "mount it `rw`; a file system that turned to it by itself has met a disk error";
            findings.push(Finding::fail(FILE_SYSTEM, format!("`{}` is mounted read-only", mount.point), next));
        }
        if findings.is_empty() {
            findings.push(Finding::ok(FILE_SYSTEM, format!("{} at `{}`", mount.kind, mount.point)));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(FILE_SYSTEM, format!("kind {magic:#x}")));
    }
    let preloaded = std::env::var("LD_PRELOAD").unwrap_or_default();
    if preloaded.contains("eatmydata") {
        let next = "start hookmill without it";
        findings.push(Finding::fail(SYNC, "libeatmydata is preloaded: it turns every sync into nothing", next));
    }
    findings
}

fn lies(option: &str) -> bool {
    ["nobarrier", "barrier=0", "sync=disabled"].contains(&option)
}

struct Mount<'a> {
    point: &'a str,
    kind: &'a str,
    options: Vec<&'a str>,
}

/// The mount that a path lies on: the longest one that it begins with, of equal ones the last (proc(5), mountinfo).
fn mount_of<'a>(mounts: &'a str, path: &Path) -> Option<Mount<'a>> {
    let parse = |line: &'a str| {
        let (head, tail) = line.split_once(" - ")?;
        let point = head.split(' ').nth(4)?;
        let mut tail = tail.split(' ');
        let (kind, superblock) = (tail.next()?, tail.nth(1).unwrap_or_default());
        let options = head.split(' ').nth(5)?.split(',').chain(superblock.split(',')).collect();
        path.starts_with(point).then_some(Mount { point, kind, options })
    };
    mounts.lines().filter_map(parse).max_by_key(|mount| mount.point.len())
}

/// What a sync costs, on a file that is written over, as the log's are.
pub(super) fn sync(settings: &Settings) -> Finding {
    let dir = standing(&settings.data_dir);
    match measured(dir) {
        Ok((median, worst)) => judged(median, worst),
        Err(error) => {
            let next = "look at the directory's owner, at the disk and at the free space";
            Finding::fail(SYNC, format!("a file in `{}` cannot be written and synced: {error}", dir.display()), next)
        }
    }
}

fn judged(median: Duration, worst: Duration) -> Finding {
    let detail = format!("fdatasync takes {median:.0?}, at worst {worst:.0?}");
    if median < SUSPICIOUSLY_FAST {
        let next = "no disk is so fast: see whether the disk, the hypervisor or a library leaves syncs out; then a 2xx \
                    does not survive a power cut";
        Finding::warn(SYNC, detail, next)
    } else if median > SLOW {
        let next = "every 2xx waits for one; use a faster disk, or one that is not shared";
        Finding::warn(SYNC, detail, next)
    } else {
        Finding::ok(SYNC, detail)
    }
}

fn measured(dir: &Path) -> std::io::Result<(Duration, Duration)> {
    let file: File = tempfile::tempfile_in(dir)?;
    let block = [0x5a; BLOCK];
    for at in 0..SYNCS as u64 {
        file.write_all_at(&block, at * BLOCK as u64)?;
    }
    file.sync_all()?;
    let mut costs = Vec::with_capacity(SYNCS);
    for at in 0..SYNCS as u64 {
        let began = Instant::now();
        file.write_all_at(&block, at * BLOCK as u64)?;
        file.sync_data()?;
        costs.push(began.elapsed());
    }
    costs.sort();
    Ok((costs[SYNCS / 2], costs[SYNCS - 1]))
}

/// Room for what the settings allow.
pub(super) fn space(settings: &Settings) -> Finding {
    let dir = standing(&settings.data_dir);
    match rustix::fs::statvfs(dir) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            // Some file systems have no fixed number.
            let inodes = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
            room(settings, free, used(&settings.store_dir().join("log")), inodes)
        }
        Err(error) => Finding::fail(SPACE, format!("cannot be asked: {error}"), "look at the mount"),
    }
}

fn used(log: &Path) -> u64 {
    let entries = fs::read_dir(log).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn room(settings: &Settings, free: u64, used: u64, inodes: u64) -> Finding {
    let log = &settings.log;
    let (shown, reserve) = (format_size(free / (1 << 20) * (1 << 20)), format_size(log.reserve_bytes));
    if free < log.reserve_bytes {
        let detail = format!("{shown} are free, less than `log.reserve_bytes`, {reserve}: events are refused with 503");
        return Finding::fail(SPACE, detail, "free some space, or lower `log.retention` and `log.bytes_max`");
    }
    if inodes < INODES_MIN {
        let detail = format!("room for no more than {} (inodes)", counted(inodes, "file"));
        return Finding::warn(SPACE, detail, "remove files, or make the file system with more inodes");
    }
    let wanted = log.bytes_max.saturating_sub(used).saturating_add(log.reserve_bytes);
    if free < wanted {
        let detail = format!(
            "{shown} are free; the log may grow by {} (`log.bytes_max` {}), and {reserve} stay in reserve",
            format_size(log.bytes_max.saturating_sub(used) / (1 << 20) * (1 << 20)),
            format_size(log.bytes_max)
        );
        return Finding::warn(SPACE, detail, "lower `log.bytes_max`, or give it more disk");
    }
    Finding::ok(SPACE, format!("{shown} are free"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{
        super::{Level, tests::settings_in},
        *,
    };

    #[test]
    fn a_sync_that_costs_nothing_or_too_much_is_told() {
        let us = Duration::from_micros;
        assert_eq!(judged(us(2), us(9)).level, Level::Warn);
        assert_eq!(judged(us(100), us(9_000)).level, Level::Ok);
        let slow = judged(us(40_000), us(90_000));
        assert!(slow.level == Level::Warn && slow.detail.contains("40ms"), "{slow:?}");
        let dir = tempfile::tempdir().unwrap();
        let (median, worst) = measured(dir.path()).unwrap();
        assert!(median <= worst && worst > Duration::ZERO);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(sync(&settings_in(Path::new("/proc"))).level, Level::Fail);
    }

    #[test]
    fn memory_is_told_from_a_disk() {
        assert_eq!(known(0xef53), None, "ext4");
        assert!(known(0x0102_1994).unwrap().1.contains("memory"));
        if Path::new("/dev/shm").is_dir() {
            let findings = file_system(&settings_in(Path::new("/dev/shm")));
            assert!(findings.iter().any(|it| it.level == Level::Warn && it.detail.contains("tmpfs")), "{findings:?}");
        }
    }

    #[test]
    fn the_mount_of_a_path_is_the_nearest_and_its_options_count() {
        let mounts = "\
24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw,discard
30 24 8:1 / /var rw,noatime shared:2 - ext4 /dev/sda1 rw,nobarrier
31 24 8:2 / /var/lib/x ro - xfs /dev/sdb rw
bad line";
        let at = |path: &str| mount_of(mounts, Path::new(path)).unwrap();
        assert_eq!((at("/home").point, at("/home").kind), ("/", "ext4"));
        let var = at("/var/lib/hookmill");
        assert_eq!(var.point, "/var");
        assert!(
            var.options.iter().any(|option| lies(option)) && !at("/home").options.iter().any(|option| lies(option))
        );
        assert!(at("/var/lib/x/y").options.contains(&"ro"));
    }

    #[test]
    fn space_is_held_against_the_reserve_and_the_log() {
        let mut settings = settings_in(Path::new("."));
        (settings.log.reserve_bytes, settings.log.bytes_max) = (256 << 20, 10 << 30);
        let level = |free: u64, used, inodes| room(&settings, free, used, inodes).level;
        assert_eq!(level(100 << 20, 0, u64::MAX), Level::Fail);
        assert_eq!(level(5 << 30, 0, u64::MAX), Level::Warn);
        assert_eq!(level(5 << 30, 8 << 30, u64::MAX), Level::Ok);
        assert_eq!(level(20 << 30, 0, 10), Level::Warn);
        assert_eq!(level(20 << 30, 0, u64::MAX), Level::Ok);
        assert!(room(&settings, 100 << 20, 0, 1).detail.contains("100 MiB"));
    }
}
