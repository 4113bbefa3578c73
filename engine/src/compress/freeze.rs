//! The memo of frozen messages: what was kept of a tool message when it was first seen is kept for ever, so that the
//! compressed prompt of one call is a prefix of the next one's. Knows keys and byte ranges; knows no drafter and no
//! prompt. An entry is never evicted: losing one could change the prefix of every later call.
//!
//! The file is append-only: a header, then one record per message.
//! ```text
//! header   magic "RPRSMEMO", schema u32
//! record   length u32, !length u32, payload, first 16 bytes of BLAKE3(payload)
//! payload  key [32], 0                              verbatim
//!          key [32], form, digest [16], tokens_raw u64, tokens_kept u64, (start u64, end u64)*
//! form     1 kept parts joined, 2 with markers between them
//! digest   first 16 bytes of BLAKE3(the text that is sent)
//! ```
//! Numbers are little-endian. The complement tells a damaged length from a record that was cut short by a crash: the
//! second is dropped on opening, the first is set aside for inspection, and neither is ever believed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use crate::compress::elision::Form;
use crate::compress::frozen::{FreezeKey, Frozen, SCHEMA};
use crate::error::EngineError;

const MAGIC: [u8; 8] = *b"RPRSMEMO";
const HEADER_BYTES: usize = 12;
const HEAD_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 16;

/// What opening a memo file found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Records read.
    pub records: usize,
    /// Bytes of a last record that was cut short; dropped.
    pub unfinished_bytes: u64,
    /// Bytes from the first damaged record to the end; none of them is used.
    pub damaged_bytes: u64,
    /// Copy of the file as it was, made if any of it was damaged.
    pub damaged_copy: Option<PathBuf>,
}

/// The memo, in memory and, if it was opened on a file, there too.
#[derive(Debug, Default)]
pub struct FreezeStore {
    memo: HashMap<FreezeKey, Frozen>,
    log: Option<Log>,
}

impl FreezeStore {
    /// A memo that lives as long as this value.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Opens or creates the memo file at `path` and holds it against other processes. A record that a crash cut short
    /// is dropped from the file; from a damaged record on, the file is set aside as `<path>.damaged` and cut.
    ///
    /// # Errors
    /// [`EngineError::MemoFormat`] for a file that is no memo or has another schema, [`EngineError::MemoInUse`] if
    /// another process holds it, [`EngineError::Io`].
    pub fn open(path: &Path) -> Result<(Self, OpenReport), EngineError> {
        let io = |op| move |source| EngineError::io(path, op, source);
        let file = File::options().read(true).append(true).create(true).open(path).map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(EngineError::MemoInUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(EngineError::io(path, "lock", source)),
        }
        let size = file.metadata().map_err(io("read the size of"))?.len();
        let mut log = Log { path: path.to_owned(), file, len: 0, synced_len: size, state: LogState::Clean };
        let mut reader = BufReader::new(log.file.try_clone().map_err(io("read"))?);
        let mut memo = HashMap::new();
        let mut report = OpenReport::default();
        if !log.check_header(&mut reader)? {
            log.append(&header())?;
            return Ok((Self { memo, log: Some(log) }, report));
        }
        while log.len < size {
            match read_record(&mut reader, size - log.len).map_err(io("read"))? {
                Found::Record { key, frozen, bytes } => {
                    memo.entry(key).or_insert(frozen);
                    report.records += 1;
                    log.len += bytes;
                }
                Found::Unfinished => {
                    report.unfinished_bytes = size - log.len;
                    break;
                }
                Found::Damaged => {
                    report.damaged_bytes = size - log.len;
                    report.damaged_copy = Some(log.set_aside()?);
                    break;
                }
            }
        }
        if log.len < size {
            log.file.set_len(log.len).map_err(io("cut"))?;
        }
        Ok((Self { memo, log: Some(log) }, report))
    }

    /// What was frozen under `key`.
    pub fn get(&self, key: &FreezeKey) -> Option<&Frozen> {
        self.memo.get(key)
    }

    /// Freezes a message and, with a file, hands the record to the operating system before it returns; [`Self::sync`]
    /// has it put on the disk. The first value of a key stays: a second one is dropped.
    ///
    /// # Errors
    /// [`EngineError::FrozenMismatch`] if the ranges are no frozen form; nothing is stored then.
    /// [`EngineError::Io`] if the file could not be written; the memo in memory holds the value then, and what was
    /// written before stays readable.
    pub fn insert(&mut self, key: FreezeKey, frozen: Frozen) -> Result<(), EngineError> {
        if !frozen.is_well_formed() {
            let detail =
                format!("{frozen:?} has empty, descending or overlapping ranges or keeps more than all");
            return Err(EngineError::FrozenMismatch { detail });
        }
        if self.memo.contains_key(&key) {
            return Ok(());
        }
        let record = encode_record(&key, &frozen);
        self.memo.insert(key, frozen);
        match &mut self.log {
            Some(log) => log.append(&record?),
            None => Ok(()),
        }
    }

    /// Waits until everything that was frozen is on the disk, so that it outlives a crash of the machine, not of the
    /// process alone. Does nothing if it is there.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub fn sync(&mut self) -> Result<(), EngineError> {
        self.log.as_mut().map_or(Ok(()), Log::sync)
    }

    /// Frozen messages.
    pub fn len(&self) -> usize {
        self.memo.len()
    }

    /// Whether nothing is frozen yet.
    pub fn is_empty(&self) -> bool {
        self.memo.is_empty()
    }
}

/// The file behind a memo.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    /// Bytes of the file that hold whole records.
    len: u64,
    /// Bytes of them that are on the disk.
    synced_len: u64,
    state: LogState,
}

#[derive(Debug, PartialEq, Eq)]
enum LogState {
    Clean,
    /// A write failed; part of a record may stand behind `len`.
    TornTail,
}

impl Log {
    /// Reads the header; `false` if the file is new, or was cut short while its header was written.
    fn check_header(&mut self, reader: &mut impl Read) -> Result<bool, EngineError> {
        let mut found = Vec::with_capacity(HEADER_BYTES);
        let read = reader.take(HEADER_BYTES as u64).read_to_end(&mut found);
        read.map_err(|source| EngineError::io(&self.path, "read", source))?;
        let expected = header();
        if found == expected {
            self.len = HEADER_BYTES as u64;
            return Ok(true);
        }
        if expected.starts_with(&found) {
            self.state = LogState::TornTail;
            return Ok(false);
        }
        let got = match found.strip_prefix(&MAGIC) {
            Some(&[a, b, c, d]) => format!("a memo of schema {}", u32::from_le_bytes([a, b, c, d])),
            _ => "not a memo of frozen messages".to_owned(),
        };
        Err(EngineError::MemoFormat {
            path: self.path.clone(),
            got,
            expected: format!("a memo of schema {SCHEMA}"),
        })
    }

    /// Writes `bytes` after the last whole record.
    fn append(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        let mut write = || {
            if self.state == LogState::TornTail {
                self.file.set_len(self.len)?;
            }
            self.state = LogState::TornTail;
            self.file.write_all(bytes)?;
            self.state = LogState::Clean;
            io::Result::Ok(())
        };
        write().map_err(|source| EngineError::io(&self.path, "write", source))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Waits for the disk, if something was written since the last time.
    fn sync(&mut self) -> Result<(), EngineError> {
        if self.synced_len != self.len {
            self.file.sync_data().map_err(|source| EngineError::io(&self.path, "sync", source))?;
            self.synced_len = self.len;
        }
        Ok(())
    }

    /// Copies the whole file beside itself.
    fn set_aside(&self) -> Result<PathBuf, EngineError> {
        let mut name = OsString::from(&self.path);
        name.push(".damaged");
        let copy = PathBuf::from(name);
        std::fs::copy(&self.path, &copy).map_err(|source| EngineError::io(&copy, "write", source))?;
        Ok(copy)
    }
}

fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(&MAGIC);
    header[MAGIC.len()..].copy_from_slice(&SCHEMA.to_le_bytes());
    header
}

/// What stands at a place of the file.
enum Found {
    Record { key: FreezeKey, frozen: Frozen, bytes: u64 },
    Unfinished,
    Damaged,
}

/// Reads one record out of `remaining` bytes; allocates no more than those.
fn read_record(reader: &mut impl Read, remaining: u64) -> io::Result<Found> {
    if remaining < HEAD_BYTES as u64 {
        return Ok(Found::Unfinished);
    }
    let mut length = [0; 4];
    let mut complement = [0; 4];
    reader.read_exact(&mut length)?;
    reader.read_exact(&mut complement)?;
    let length = u32::from_le_bytes(length);
    if length != !u32::from_le_bytes(complement) {
        return Ok(Found::Damaged);
    }
    let bytes = (HEAD_BYTES + CHECKSUM_BYTES) as u64 + u64::from(length);
    if bytes > remaining {
        return Ok(Found::Unfinished);
    }
    let mut payload = vec![0; length as usize];
    let mut stored = [0; CHECKSUM_BYTES];
    reader.read_exact(&mut payload)?;
    reader.read_exact(&mut stored)?;
    if stored != checksum(&payload) {
        return Ok(Found::Damaged);
    }
    Ok(match decode_payload(&payload) {
        Some((key, frozen)) => Found::Record { key, frozen, bytes },
        None => Found::Damaged,
    })
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut short = [0; CHECKSUM_BYTES];
    short.copy_from_slice(&blake3::hash(payload).as_bytes()[..CHECKSUM_BYTES]);
    short
}

fn encode_record(key: &FreezeKey, frozen: &Frozen) -> Result<Vec<u8>, EngineError> {
    let mut payload = key.bytes().to_vec();
    match frozen {
        Frozen::Verbatim => payload.push(0),
        Frozen::Compressed { ranges, form, text_digest, tokens_raw, tokens_kept } => {
            payload.push(match form {
                Form::Joined => 1,
                Form::Marked => 2,
            });
            payload.extend_from_slice(text_digest);
            let ends = ranges.iter().flat_map(|range| [range.start as u64, range.end as u64]);
            for word in [*tokens_raw, *tokens_kept].into_iter().chain(ends) {
                payload.extend_from_slice(&word.to_le_bytes());
            }
        }
    }
    let Ok(length) = u32::try_from(payload.len()) else {
        let detail = format!("{} bytes of ranges do not fit one record of 4 GiB", payload.len());
        return Err(EngineError::FrozenMismatch { detail });
    };
    let head = [length.to_le_bytes(), (!length).to_le_bytes()].concat();
    Ok([head, payload.clone(), checksum(&payload).to_vec()].concat())
}

fn decode_payload(payload: &[u8]) -> Option<(FreezeKey, Frozen)> {
    let (key, value) = payload.split_first_chunk()?;
    let key = FreezeKey::from_bytes(*key);
    let form = match value.split_first()? {
        (0, rest) => return rest.is_empty().then_some((key, Frozen::Verbatim)),
        (1, _) => Form::Joined,
        (2, _) => Form::Marked,
        _ => return None,
    };
    let (text_digest, words) = value[1..].split_first_chunk()?;
    let (words, []) = words.as_chunks() else { return None };
    let mut words = words.iter().map(|&word| u64::from_le_bytes(word));
    let (tokens_raw, tokens_kept) = (words.next()?, words.next()?);
    let mut ranges = Vec::with_capacity(words.len() / 2);
    while let Some(start) = words.next() {
        ranges.push(usize::try_from(start).ok()?..usize::try_from(words.next()?).ok()?);
    }
    let frozen = Frozen::Compressed { ranges, form, text_digest: *text_digest, tokens_raw, tokens_kept };
    frozen.is_well_formed().then_some((key, frozen))
}

#[cfg(test)]
mod tests {
    use super::{FreezeKey, FreezeStore, Frozen, Log, LogState, header};
    use std::fs::File;

    #[test]
    fn a_failed_write_keeps_the_value_and_the_next_write_repairs_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memo");
        std::fs::write(&path, [&header()[..], b"half a record"].concat()).unwrap();
        let read_only = File::open(&path).unwrap();
        let log =
            Log { path: path.clone(), file: read_only, len: 12, synced_len: 12, state: LogState::Clean };
        let mut store = FreezeStore { log: Some(log), ..FreezeStore::default() };
        let keys = [1, 2, 3, 4].map(|byte| FreezeKey::from_bytes([byte; 32]));
        let writable = || File::options().append(true).open(&path).unwrap();
        let failed = store.insert(keys[0], Frozen::Verbatim).unwrap_err().to_string();
        assert!(failed.contains("cannot write"), "{failed}");
        assert_eq!(store.get(&keys[0]), Some(&Frozen::Verbatim));
        let log = store.log.as_mut().unwrap();
        assert_eq!((log.len, &log.state), (12, &LogState::TornTail));

        log.file = writable();
        store.insert(keys[1], Frozen::Verbatim).unwrap();
        store.log.as_mut().unwrap().file = File::open(&path).unwrap();
        store.insert(keys[2], Frozen::Verbatim).unwrap_err();
        store.log.as_mut().unwrap().file = writable();
        store.insert(keys[3], Frozen::Verbatim).unwrap();
        drop(store);
        let (store, report) = FreezeStore::open(&path).unwrap();
        assert_eq!((report.records, report.unfinished_bytes, report.damaged_bytes), (2, 0, 0));
        assert_eq!(keys.map(|key| store.get(&key).is_some()), [false, true, false, true]);
    }
}
