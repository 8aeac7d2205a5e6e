//! All kept rejections as one stream, for a backup: each file's length, then its bytes.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use hookmill_actors::domain::ids::EventId;

use super::{
    RejectionId, make_private,
    record::{decode, encode},
};

/// Length of a file's length.
const LENGTH_BYTES: usize = 8;

/// The rejections in a folder, oldest first, as they come.
pub struct Pack {
    dir: PathBuf,
    /// The next one last.
    ids: Vec<RejectionId>,
    last_event: EventId,
}

impl Pack {
    /// What is in `dir` now; nothing where there is no such folder. A rejection whose event came after `last_event` is
    /// packed as one that was not accepted: the backup does not hold that event.
    pub fn new(dir: &Path, last_event: EventId) -> io::Result<Self> {
        let mut ids = Vec::new();
        match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            files => {
                for file in files? {
                    ids.extend(RejectionId::of_file(&file?.path()));
                }
            }
        }
        ids.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Self { dir: dir.to_owned(), ids, last_event })
    }

    /// The next one; `None` at the end. What went meanwhile, or is being written, is left out.
    pub fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(id) = self.ids.pop() {
            let bytes = match fs::read(self.dir.join(id.to_string())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes?,
            };
            let Some(mut rejection) = decode(&bytes).filter(|it| it.id == id) else { continue };
            rejection.accepted = rejection.accepted.filter(|(event, _)| *event <= self.last_event);
            let bytes = encode(&rejection);
            let length = u64::try_from(bytes.len()).expect("a file's length fits").to_be_bytes();
            return Ok(Some([length.as_slice(), &bytes].concat()));
        }
        Ok(None)
    }
}

/// Puts a stream of [`Pack`] into a folder, made where it is missing; how many there were.
///
/// # Errors
/// The system's, and `InvalidData` where the stream is none.
pub fn unpack(packed: &mut impl Read, dir: &Path) -> io::Result<u64> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "it is no stream of rejections");
    make_private(dir)?;
    let mut count = 0;
    loop {
        let mut length = Vec::new();
        packed.by_ref().take(LENGTH_BYTES as u64).read_to_end(&mut length)?;
        if length.is_empty() {
            fs::File::open(dir)?.sync_all()?;
            return Ok(count);
        }
        let length = u64::from_be_bytes(length.try_into().map_err(|_| malformed())?);
        let mut bytes = Vec::new();
        packed.by_ref().take(length).read_to_end(&mut bytes)?;
        let rejection = decode(&bytes).ok_or_else(malformed)?;
        let path = dir.join(rejection.id.to_string());
        fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?.write_all(&bytes)?;
        count += 1;
    }
}
