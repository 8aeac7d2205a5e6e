//! A disk in memory that forgets what was not synced, and fails or hangs when told to.
//!
//! A file's unsynced writes may survive a power cut in any subset of 512-byte sectors. Unsynced names survive in the
//! order they were made, up to some point, as on a journaling file system.

#![expect(clippy::cast_possible_truncation, reason = "it lives in memory")]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex};

use super::*;

const SECTOR_BYTES: usize = 512;

/// What survives of the unsynced writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// Nothing.
    DropAll,
    /// Everything: the process was killed, the system lives on.
    KeepAll,
    /// Sectors from the first on, up to a random one.
    TornLast,
    /// A random subset of sectors.
    AnySectors,
}

#[derive(Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameOp {
    Set(PathBuf, u64),
    Remove(PathBuf),
}

#[derive(Clone, Default)]
pub(crate) struct Image {
    inodes: HashMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<NameOp>,
    next: u64,
}

type Hook = Box<dyn FnMut(u64, &Image) + Send>;

#[derive(Default)]
struct Controls {
    /// Writes, syncs, creations, renames and removals so far.
    ops: u64,
    fail_at: Option<(u64, io::ErrorKind)>,
    failed: bool,
    free: Option<u64>,
    hook: Option<Hook>,
}

#[derive(Clone, Default)]
pub(crate) struct SimDisk {
    image: Arc<Mutex<Image>>,
    controls: Arc<Mutex<Controls>>,
    /// Whether changing operations wait, and what wakes them.
    hangs: Arc<(Mutex<bool>, Condvar)>,
}

impl SimDisk {
    /// Starts from what a power cut left.
    pub(crate) fn from_image(image: Image) -> Self {
        Self { image: Arc::new(Mutex::new(image)), ..Self::default() }
    }

    pub(crate) fn image(&self) -> Image {
        self.image.lock().unwrap().clone()
    }

    /// Called before every changing operation, with its number.
    pub(crate) fn set_hook(&self, hook: impl FnMut(u64, &Image) + Send + 'static) {
        self.controls.lock().unwrap().hook = Some(Box::new(hook));
    }

    /// The n-th changing operation from now fails, once.
    pub(crate) fn fail_at(&self, n: u64, kind: io::ErrorKind) {
        let mut controls = self.controls.lock().unwrap();
        controls.fail_at = Some((controls.ops + n, kind));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.controls.lock().unwrap().failed
    }

    pub(crate) fn set_free(&self, free: u64) {
        self.controls.lock().unwrap().free = Some(free);
    }

    /// From now on changing operations wait, until they are told to go on.
    pub(crate) fn set_hanging(&self, hangs: bool) {
        *self.hangs.0.lock().unwrap() = hangs;
        self.hangs.1.notify_all();
    }

    fn changing(&self) -> io::Result<()> {
        drop(self.hangs.1.wait_while(self.hangs.0.lock().unwrap(), |hangs| *hangs).unwrap());
        let mut controls = self.controls.lock().unwrap();
        controls.ops += 1;
        let ops = controls.ops;
        if let Some(mut hook) = controls.hook.take() {
            let image = self.image.lock().unwrap();
            hook(ops, &image);
            controls.hook = Some(hook);
        }
        match controls.fail_at {
            Some((at, kind)) if at == ops => {
                controls.failed = true;
                Err(io::Error::new(kind, "injected"))
            }
            _ => Ok(()),
        }
    }

    // The image's lock is taken under the controls' (by the hook), never the other way round.
    fn take_free(&self, growth: u64) -> io::Result<()> {
        if growth > 0
            && let Some(free) = &mut self.controls.lock().unwrap().free
        {
            *free = free.checked_sub(growth).ok_or(io::ErrorKind::StorageFull)?;
        }
        Ok(())
    }
}

impl Image {
    /// What is found after a power cut.
    pub(crate) fn cut(&self, cut: Cut, random: &mut fastrand::Rng) -> Image {
        let mut names = self.durable_names.clone();
        let survive = match cut {
            Cut::DropAll => 0,
            Cut::KeepAll => self.unsynced_names.len(),
            _ => random.usize(0..=self.unsynced_names.len()),
        };
        for op in &self.unsynced_names[..survive] {
            apply(&mut names, op);
        }
        let mut inodes = HashMap::new();
        for inode in names.values() {
            let old = &self.inodes[inode];
            let bytes = survived(old, cut, random);
            inodes.insert(*inode, Inode { live: bytes.clone(), durable: bytes, unsynced: Vec::new() });
        }
        Image { inodes, durable_names: names.clone(), names, unsynced_names: Vec::new(), next: self.next }
    }
}

fn survived(inode: &Inode, cut: Cut, random: &mut fastrand::Rng) -> Vec<u8> {
    if matches!(cut, Cut::KeepAll) {
        return inode.live.clone();
    }
    let mut bytes = inode.durable.clone();
    if matches!(cut, Cut::DropAll) {
        return bytes;
    }
    let sectors: Vec<(usize, &[u8])> = inode
        .unsynced
        .iter()
        .flat_map(|(offset, data)| {
            let head = (SECTOR_BYTES - offset % SECTOR_BYTES).min(data.len());
            let (first, rest) = data.split_at(head);
            let later = rest.chunks(SECTOR_BYTES).enumerate();
            std::iter::once((*offset, first))
                .chain(later.map(move |(n, part)| (offset + head + n * SECTOR_BYTES, part)))
        })
        .collect();
    let torn_at = random.usize(0..=sectors.len());
    for (n, (offset, part)) in sectors.into_iter().enumerate() {
        let keep = match cut {
            Cut::TornLast => n < torn_at,
            _ => random.bool(),
        };
        if keep {
            put(&mut bytes, offset, part);
        }
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, op: &NameOp) {
    match op {
        NameOp::Set(path, inode) => {
            names.retain(|_, other| other != inode);
            names.insert(path.clone(), *inode);
        }
        NameOp::Remove(path) => {
            names.remove(path);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    inode: u64,
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let image = self.disk.image.lock().unwrap();
        let live = &image.inodes[&self.inode].live;
        let start = offset as usize;
        let bytes = live.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.changing()?;
        let growth = (offset + bytes.len() as u64).saturating_sub(self.bytes()?);
        self.disk.take_free(growth)?;
        let mut image = self.disk.image.lock().unwrap();
        let inode = image.inodes.get_mut(&self.inode).unwrap();
        put(&mut inode.live, offset as usize, bytes);
        inode.unsynced.push((offset as usize, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.changing()?;
        let mut image = self.disk.image.lock().unwrap();
        let inode = image.inodes.get_mut(&self.inode).unwrap();
        for (offset, data) in std::mem::take(&mut inode.unsynced) {
            put(&mut inode.durable, offset, &data);
        }
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.image.lock().unwrap().inodes[&self.inode].live.len() as u64)
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.changing()?;
        let mut image = self.image.lock().unwrap();
        if image.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        image.next += 1;
        let inode = image.next;
        image.inodes.insert(inode, Inode::default());
        image.names.insert(path.to_owned(), inode);
        image.unsynced_names.push(NameOp::Set(path.to_owned(), inode));
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = *self.image.lock().unwrap().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changing()?;
        let mut image = self.image.lock().unwrap();
        let inode = image.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        image.names.insert(to.to_owned(), inode);
        image.unsynced_names.push(NameOp::Set(to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.image.lock().unwrap().names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.changing()?;
        let mut image = self.image.lock().unwrap();
        let inode = image.names.remove(path).unwrap();
        let bytes = image.inodes[&inode].live.len() as u64;
        image.unsynced_names.push(NameOp::Remove(path.to_owned()));
        drop(image);
        if let Some(free) = &mut self.controls.lock().unwrap().free {
            *free += bytes;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let image = self.image.lock().unwrap();
        let inside = image.names.keys().filter_map(|path| path.strip_prefix(dir).ok());
        let mut names: Vec<String> = inside
            .filter_map(|path| path.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.changing()?;
        let mut image = self.image.lock().unwrap();
        let image = &mut *image;
        let ops = std::mem::take(&mut image.unsynced_names);
        // A journal commits in order: what was done before in another directory goes along.
        let _ = dir;
        for op in &ops {
            apply(&mut image.durable_names, op);
        }
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.controls.lock().unwrap().free.unwrap_or(u64::MAX))
    }

    fn lock(&self, _: &Path) -> io::Result<Option<LockGuard>> {
        Ok(Some(LockGuard(None)))
    }
}
