//! What a backup consists of, with the sums of everything.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use hookmill_actors::domain::ids::EventId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::storage::SegmentExtent;

/// The file that says what the others are; it is written last.
pub const MANIFEST: &str = "manifest.json";
/// The layout that is written, and the only one that is read.
const FORMAT: u32 = 1;
/// A manifest at most: room for some ten thousand segments.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileCopy {
    /// Its name in the backup's folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, hex.
    pub sha256: String,
}

/// One segment of the log, up to its last commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentCopy {
    /// Which.
    pub extent: SegmentExtent,
    /// Its bytes.
    pub data: FileCopy,
    /// Its index, where it has one; without it the first start makes it again.
    pub index: Option<FileCopy>,
}

/// A whole backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The layout's version.
    pub format: u32,
    /// The hookmill that made it.
    pub hookmill: String,
    /// When it was begun, milliseconds since 1970.
    pub begun_at_ms: u64,
    /// Everything that was acknowledged before is in it, milliseconds since 1970.
    pub end_at_ms: u64,
    /// The last event in it.
    pub last_event_id: EventId,
    /// The configuration's version.
    pub configuration_version: u64,
    /// The keys that its secrets are sealed with; they are not in it.
    pub keys: Vec<String>,
    /// The log, oldest first.
    pub segments: Vec<SegmentCopy>,
    /// The state at a commit of the log.
    pub state: FileCopy,
    /// The configuration.
    pub configuration: FileCopy,
    /// Refused requests; the backups of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejections: Option<FileCopy>,
}

impl Manifest {
    /// The layout that this hookmill writes.
    pub const fn format() -> u32 {
        FORMAT
    }

    /// Reads the manifest of a folder; `None` where there is none.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(folder: &Path) -> Result<Option<Self>, String> {
        let path = folder.join(MANIFEST);
        let file = match std::fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("`{}` cannot be opened: {error}", path.display())),
            Ok(file) => file,
        };
        let mut json = Vec::new();
        let read = file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut json);
        read.map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
        if json.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(format!("`{}` is larger than {MANIFEST_BYTES_MAX} bytes", path.display()));
        }
        Self::parse(&json).map(Some).map_err(|problem| format!("`{}` {problem}", path.display()))
    }

    fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(json).map_err(|error| format!("is no manifest: {error}"))?;
        if head.format != FORMAT {
            return Err(format!("has format {}; this hookmill knows {FORMAT}", head.format));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|error| format!("is damaged: {error}"))?;
        if let Some(file) = manifest.files().find(|file| !is_plain(&file.file)) {
            return Err(format!("names a file outside of its folder: `{}`", file.file.escape_default()));
        }
        if manifest.segments.is_empty() {
            return Err("names no segment; a log always has one".to_owned());
        }
        let follows = |pair: &[SegmentCopy]| pair[0].extent.number + 1 == pair[1].extent.number;
        if !manifest.segments.windows(2).all(follows) {
            return Err("leaves out a segment".to_owned());
        }
        let fits = |copy: &SegmentCopy| copy.data.bytes == copy.extent.end && copy.extent.end <= copy.extent.file_bytes;
        if !manifest.segments.iter().all(fits) {
            return Err("names a segment of another length than its commits".to_owned());
        }
        Ok(manifest)
    }

    /// Every file but the manifest.
    pub fn files(&self) -> impl Iterator<Item = &FileCopy> {
        let segments = self.segments.iter().flat_map(|copy| std::iter::once(&copy.data).chain(&copy.index));
        segments.chain([&self.state, &self.configuration]).chain(&self.rejections)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }
}

/// Whether a name stays within its folder.
pub(super) fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    !name.starts_with('.') && !name.is_empty() && name.len() <= 128 && name.bytes().all(plain)
}

/// Sums up what passes.
pub(super) struct Summing<T> {
    inner: T,
    sum: Sha256,
    bytes: u64,
}

impl<T> Summing<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, sum: Sha256::new(), bytes: 0 }
    }

    pub(super) fn inner(&self) -> &T {
        &self.inner
    }

    /// Bytes that passed, and their SHA-256.
    pub(super) fn finish(self) -> (T, u64, String) {
        (self.inner, self.bytes, hex::encode(self.sum.finalize()))
    }
}

impl<T: Read> Read for Summing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sum.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<T: Write> Write for Summing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
pub(super) mod tests {
    use super::*;

    pub(in crate::backup) fn sample() -> Manifest {
        let file = |name: &str, bytes| FileCopy { file: name.to_owned(), bytes, sha256: "00".repeat(32) };
        let segment = |number: u64| SegmentCopy {
            extent: SegmentExtent { number, salt: 7, file_bytes: 9_000, end: 5_000, sealed: number == 3 },
            data: file(&format!("s-{number}.seg"), 5_000),
            index: None,
        };
        Manifest {
            format: FORMAT,
            hookmill: "0.1.0".to_owned(),
            begun_at_ms: 1,
            end_at_ms: 2,
            last_event_id: EventId::ZERO,
            configuration_version: 3,
            keys: vec!["5f0c21aa".to_owned()],
            segments: vec![segment(3), segment(4)],
            state: file("state-1.export", 10),
            configuration: file("configuration-1.export", 10),
            rejections: Some(file("rejections-1.pack", 10)),
        }
    }

    fn refused(change: impl FnOnce(&mut Manifest)) -> String {
        let mut manifest = sample();
        change(&mut manifest);
        Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap_err()
    }

    #[test]
    fn a_manifest_comes_back_and_a_hostile_one_is_refused() {
        let json = serde_json::to_vec(&sample()).unwrap();
        assert_eq!(Manifest::parse(&json).unwrap(), sample());
        let former = Manifest { rejections: None, ..sample() };
        let former_json = serde_json::to_string(&former).unwrap();
        assert!(!former_json.contains("rejections"));
        assert_eq!(Manifest::parse(former_json.as_bytes()).unwrap(), former);
        for name in ["../keys.toml", "/etc/passwd", ".hidden", "a/b", "", "A", "a\nb"] {
            let said = refused(|manifest| manifest.state.file = name.to_owned());
            assert!(said.contains("outside of its folder"), "{name}: {said}");
        }
        assert!(refused(|manifest| drop(manifest.segments.drain(..))).contains("no segment"));
        assert!(refused(|manifest| manifest.segments[1].extent.number = 9).contains("leaves out"));
        assert!(refused(|manifest| manifest.segments[1].extent.end = 4).contains("another length"));
        assert!(refused(|manifest| manifest.format = 2).contains("format 2"));
        for end in 0..json.len() {
            assert!(Manifest::parse(&json[..end]).is_err());
        }
    }
}
