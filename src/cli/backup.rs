//! `hookmill backup` and `hookmill restore`.

mod source;

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::source::{Part, Source};
use super::{local::StoreArgs, print, verify::now_ms};
use crate::{
    backup::{BackupFolder, FileCopy, Manifest, SegmentCopy, check, restore},
    settings::Settings,
    storage::SegmentExtent,
    words::counted,
};

const BACKUP_EXAMPLES: &str = "\
Examples:
  hookmill backup --to /backups/hookmill
  hookmill backup --to /backups --data-dir /var/lib/hookmill --json
  hookmill backup --to /backups/hookmill --context prod

Works while the server runs: the one that a flag, the environment or a context names, over its admin API, or that of the \
data folder, whose files are then copied as the same user. Repeated into the same folder, it copies what is new; \
interrupted, it goes on. The keys are not in it: keep a copy of the key ring somewhere else.";

/// Where to.
#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The backup's folder: absent, empty, or with an earlier backup
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Print the backup's manifest
    #[arg(long)]
    json: bool,
}

const RESTORE_EXAMPLES: &str = "\
Examples:
  hookmill restore --from /backups/hookmill --to /var/lib/hookmill
  hookmill restore --from /backups/hookmill --check

Every file is held against its checksum. Put the key ring into the new data directory before the first start.";

/// From where.
#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(super) struct RestoreArgs {
    /// The backup's folder
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The new data directory: absent or empty
    #[arg(long, value_name = "DATA_DIR", required_unless_present = "check")]
    to: Option<PathBuf>,
    /// Only hold the backup against its checksums
    #[arg(long, conflicts_with = "to")]
    check: bool,
}

/// Makes a backup.
pub(super) fn run(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let source = Source::of(args.store.place()?)?;
    let folder = BackupFolder::open(&args.to)?;
    let manifest = Maker { source, folder, bar: bar() }.make()?;
    if args.json {
        print(format_args!("{:#}\n", json!(manifest)))?;
    } else {
        print(told(&manifest, &args.to))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a data directory out of a backup.
pub(super) fn run_restore(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let bar = bar();
    bar.set_message("checking");
    if let Ok(Some(manifest)) = Manifest::read(&args.from) {
        bar.set_length(manifest.bytes());
    }
    let Some(to) = &args.to else {
        let manifest = check(&args.from, |bytes| bar.inc(bytes))?;
        bar.finish_and_clear();
        let files = manifest.files().count();
        print(format_args!(
            "{}, {}: each as its checksum says\n",
            counted(files, "file"),
            counted(manifest.bytes(), "byte")
        ))?;
        return Ok(ExitCode::SUCCESS);
    };
    let cache_bytes = Settings::default().log.state_cache_bytes;
    let manifest = restore(&args.from, to, cache_bytes, |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    let keys = manifest.keys.join(", ");
    print(format_args!(
        "restored {} up to event {}, acknowledged before {}\nnext: put the key ring that has {keys} into \
         `{}` (mode 0600), or name it in HOOKMILL_KEY_FILE; then `hookmill serve --data-dir {}`. The first start makes a \
         new admin token\n",
        counted(manifest.segments.len(), "segment"),
        manifest.last_event_id,
        time(manifest.end_at_ms),
        to.join("keys.toml").display(),
        to.display(),
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn told(manifest: &Manifest, to: &Path) -> String {
    format!(
        "{}: {} up to event {}, {}; everything that was acknowledged before {} is in it\nkeys are not in it: \
         keep a copy of the key ring with {} apart from it\n",
        to.display(),
        counted(manifest.segments.len(), "segment"),
        manifest.last_event_id,
        counted(manifest.bytes(), "byte"),
        time(manifest.end_at_ms),
        manifest.keys.join(", "),
    )
}

fn time(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// Shown on a terminal only.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar
}

struct Maker {
    source: Source,
    folder: BackupFolder,
    bar: ProgressBar,
}

impl Maker {
    fn make(mut self) -> anyhow::Result<Manifest> {
        let begun_at_ms = now_ms();
        self.bar.set_message("state");
        let state = self
            .folder
            .write(&format!("state-{begun_at_ms}.export"), &mut self.source.state()?, |bytes| self.bar.inc(bytes))?;
        let end = self.source.end()?;
        self.bar.set_message("configuration");
        let configuration = self.folder.write(
            &format!("configuration-{begun_at_ms}.export"),
            &mut self.source.configuration()?,
            |bytes| self.bar.inc(bytes),
        )?;
        // After the end: it says which of them became events that are in the backup.
        let rejections = self.folder.write(
            &format!("rejections-{begun_at_ms}.pack"),
            &mut self.source.rejections(end.last_event_id)?,
            |bytes| self.bar.inc(bytes),
        )?;
        let bytes: u64 = end.segments.iter().map(|segment| segment.end).sum();
        self.bar.set_message("events");
        self.bar.set_length(state.bytes + configuration.bytes + rejections.bytes + bytes);
        let mut segments = Vec::with_capacity(end.segments.len());
        for extent in &end.segments {
            segments.push(self.segment(extent)?);
        }
        for copy in [&state, &configuration, &rejections] {
            self.folder.keep(copy.clone())?;
        }
        let manifest = Manifest {
            format: Manifest::format(),
            hookmill: env!("CARGO_PKG_VERSION").to_owned(),
            begun_at_ms,
            end_at_ms: end.at_ms,
            last_event_id: end.last_event_id,
            configuration_version: end.configuration_version,
            keys: end.keys,
            segments,
            state,
            configuration,
            rejections: Some(rejections),
        };
        self.folder.finish(&manifest)?;
        self.bar.finish_and_clear();
        Ok(manifest)
    }

    fn segment(&mut self, extent: &SegmentExtent) -> anyhow::Result<SegmentCopy> {
        let SegmentExtent { number, salt, end, .. } = *extent;
        let data = self.file(number, Part::Events, &format!("{number:016x}-{salt:016x}-{end:x}.seg"), Some(end))?;
        let data = data.with_context(|| format!("segment {number:016x} is missing"))?;
        // The index of a segment that was just sealed is not written yet; a restored store makes it again.
        let index = match extent.sealed {
            true => self.file(number, Part::Index, &format!("{number:016x}-{salt:016x}.idx"), None)?,
            false => None,
        };
        Ok(SegmentCopy { extent: *extent, data, index })
    }

    /// Copies the first bytes of a part of a segment, or all of it, unless it was copied before. `None`: it is not there.
    fn file(&mut self, number: u64, part: Part, name: &str, bytes: Option<u64>) -> anyhow::Result<Option<FileCopy>> {
        if let Some(copy) = self.folder.has(name) {
            self.bar.inc(if bytes.is_some() { copy.bytes } else { 0 });
            return Ok(Some(copy.clone()));
        }
        let Some(stream) = self.source.segment(number, part)? else { return Ok(None) };
        let told = |passed| {
            if bytes.is_some() {
                self.bar.inc(passed);
            }
        };
        let copy = self.folder.write(name, &mut stream.take(bytes.unwrap_or(u64::MAX)), told)?;
        if bytes.is_some_and(|bytes| bytes != copy.bytes) {
            bail!("segment {number:016x} is shorter than its commits");
        }
        // Only now is it known that the file was what it was the whole time.
        self.source.renew()?;
        self.folder.keep(copy.clone())?;
        Ok(Some(copy))
    }
}
