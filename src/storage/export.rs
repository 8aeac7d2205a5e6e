//! The database as a stream of bytes, and back: what a backup takes of state and configuration.
//!
//! A stream is the magic, then frames: `1` a tree (u8 length, name), `2` a record of that tree (u32 length, key, u32
//! length, value; little endian), `3` the end (u64 records before it). Without the end it is not whole.

use std::io::{self, Read};

use hookmill_actors::ports::event_log::LogError;

use super::sled_db::{StateDb, VALUE_BYTES_MAX};

const MAGIC: [u8; 8] = *b"hookmex1";
const TREE: u8 = 1;
const RECORD: u8 = 2;
const END: u8 = 3;
/// No key is longer: the longest has a name of 255 bytes in it.
const KEY_BYTES_MAX: usize = 1 << 10;
/// Records that are written at once.
const BATCH: usize = 1_000;

/// Bytes of a chunk of a stream, about.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Makes a stream, chunk by chunk.
pub(super) struct Encoder {
    chunk: Vec<u8>,
    records: u64,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { chunk: MAGIC.to_vec(), records: 0 }
    }

    pub(super) fn tree(&mut self, name: &[u8]) {
        self.chunk.push(TREE);
        self.chunk.push(u8::try_from(name.len()).expect("names of trees are short"));
        self.chunk.extend(name);
    }

    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        self.chunk.push(RECORD);
        for bytes in [key, value] {
            self.chunk.extend(u32::try_from(bytes.len()).expect("values are small").to_le_bytes());
            self.chunk.extend(bytes);
        }
    }

    pub(super) fn end(&mut self) {
        self.chunk.push(END);
        self.chunk.extend(self.records.to_le_bytes());
    }

    /// What was made since the last time.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.chunk)
    }

    pub(super) fn is_full(&self) -> bool {
        self.chunk.len() >= CHUNK_BYTES
    }
}

/// Why a stream was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is no stream of a database, or not a whole one.
    #[error("{0}")]
    Malformed(&'static str),
    /// It could not be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// It could not be written.
    #[error(transparent)]
    Database(#[from] LogError),
}

/// Puts a stream's records into a database; durable when it returns. How many there were. What is wrong with the
/// stream is seen only where it is: a failure leaves a database that is to be thrown away.
pub fn import(db: &StateDb, stream: &mut impl Read) -> Result<u64, ImportError> {
    let malformed = ImportError::Malformed;
    if take::<8>(stream)? != MAGIC {
        return Err(malformed("it does not begin as an exported database"));
    }
    let (mut tree, mut batch, mut waiting, mut records) = (None::<sled::Tree>, sled::Batch::default(), 0, 0u64);
    loop {
        let [kind] = take::<1>(stream)?;
        if waiting == BATCH || kind != RECORD {
            if let Some(tree) = &tree {
                db.guard(tree.apply_batch(std::mem::take(&mut batch)))?;
            }
            waiting = 0;
        }
        match kind {
            TREE => {
                let [length] = take::<1>(stream)?;
                let name = bytes(stream, usize::from(length))?;
                let name = std::str::from_utf8(&name).map_err(|_| malformed("a tree's name is not text"))?;
                tree = Some(db.tree(name)?);
            }
            RECORD => {
                let key = sized(stream, KEY_BYTES_MAX)?;
                let value = sized(stream, VALUE_BYTES_MAX)?;
                if tree.is_none() {
                    return Err(malformed("a record stands before any tree"));
                }
                batch.insert(key, value);
                (waiting, records) = (waiting + 1, records + 1);
            }
            END => {
                if u64::from_le_bytes(take::<8>(stream)?) != records {
                    return Err(malformed("it does not hold as many records as it says"));
                }
                if stream.read(&mut [0])? != 0 {
                    return Err(malformed("something follows its end"));
                }
                db.sync()?;
                return Ok(records);
            }
            _ => return Err(malformed("it holds a frame of no known kind")),
        }
    }
}

fn take<const N: usize>(stream: &mut impl Read) -> Result<[u8; N], ImportError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map_err(broken_off)?;
    Ok(bytes)
}

fn sized(stream: &mut impl Read, most: usize) -> Result<Vec<u8>, ImportError> {
    let length = u32::from_le_bytes(take::<4>(stream)?) as usize;
    if length > most {
        return Err(ImportError::Malformed("it holds a key or a value that is too long"));
    }
    bytes(stream, length)
}

fn bytes(stream: &mut impl Read, length: usize) -> Result<Vec<u8>, ImportError> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).map_err(broken_off)?;
    Ok(bytes)
}

fn broken_off(error: io::Error) -> ImportError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ImportError::Malformed("it breaks off before its end"),
        _ => ImportError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::sled_db::CACHE_BYTES;

    type Records = Vec<(Vec<u8>, Vec<u8>)>;

    fn encoded(trees: &[(&str, Records)]) -> Vec<u8> {
        let mut encoder = Encoder::new();
        for (name, records) in trees {
            encoder.tree(name.as_bytes());
            for (key, value) in records {
                encoder.record(key, value);
            }
        }
        encoder.end();
        encoder.take()
    }

    fn imported(stream: &[u8]) -> Result<(tempfile::TempDir, StateDb), ImportError> {
        let root = tempfile::tempdir().unwrap();
        let db = StateDb::open(&root.path().join("state"), CACHE_BYTES).unwrap();
        import(&db, &mut &stream[..])?;
        Ok((root, db))
    }

    #[test]
    fn what_goes_out_comes_in() {
        let records: Vec<_> = (0..2_500u32).map(|n| (n.to_be_bytes().to_vec(), vec![7; n as usize % 90])).collect();
        let stream = encoded(&[("state", records.clone()), ("empty", Vec::new()), ("config", records[..3].to_vec())]);
        let (_root, db) = imported(&stream).unwrap();
        let read = |name: &str| -> Records {
            let tree = db.tree(name).unwrap();
            tree.iter().map(|item| item.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
        };
        assert_eq!(read("state"), records);
        assert_eq!(read("config"), records[..3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_stream_that_is_cut_or_altered_in_its_frames_is_refused_or_whole(
            cut in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let records = (0..40u32).map(|n| (n.to_be_bytes().to_vec(), vec![7; 9])).collect();
            let stream = encoded(&[("state", records)]);
            let end = cut.index(stream.len());
            prop_assert!(imported(&stream[..end]).is_err());
            let mut altered = stream.clone();
            altered[end] = byte;
            // Never a panic, never an endless read.
            let _ = imported(&altered);
        }
    }

    #[test]
    fn hostile_lengths_take_no_memory() {
        let mut stream = MAGIC.to_vec();
        stream.extend([TREE, 1, b't', RECORD]);
        stream.extend(u32::MAX.to_le_bytes());
        assert!(matches!(imported(&stream), Err(ImportError::Malformed(what)) if what.contains("too long")));
        let mut stream = encoded(&[]);
        stream.push(0);
        assert!(matches!(imported(&stream), Err(ImportError::Malformed(what)) if what.contains("follows")));
    }
}
