//! A reader of GGUF files, versions 2 and 3, little endian. It checks every count, length, offset and shape
//! before it believes it, allocates nothing in proportion to a number it has not checked against the file's
//! size, and knows nothing of any model architecture: what a key or a tensor means is decided elsewhere.
//!
//! Layout (`docs/gguf.md` of ggml): magic, version, tensor count, key count; the key-value pairs; the tensor
//! infos; padding up to `general.alignment` (32 unless given); the tensor data, each at a multiple of the
//! alignment.

mod cursor;
mod metadata;
mod tensor;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use metadata::{Array, Metadata, Value};
pub use tensor::TensorInfo;

use crate::error::EngineError;
use crate::mapped::MappedFile;
use cursor::Cursor;

/// The first four bytes of every GGUF file.
const MAGIC: &[u8; 4] = b"GGUF";
/// Alignment of the data section when `general.alignment` is absent.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Far above any real file (a 32B model has 707 tensors and about 30 keys); a cap keeps a forged count
/// harmless.
const MAX_ENTRIES: u64 = 1 << 16;

/// Where the bytes of a file are.
#[derive(Debug)]
enum Storage {
    /// On disk, mapped.
    Mapped(MappedFile),
    /// In the program itself; `name` stands where errors name a path.
    Embedded { name: PathBuf, bytes: &'static [u8] },
}

impl Storage {
    fn path(&self) -> &Path {
        match self {
            Self::Mapped(map) => map.path(),
            Self::Embedded { name, .. } => name,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map.bytes(),
            Self::Embedded { bytes, .. } => bytes,
        }
    }
}

/// An open GGUF file: parsed metadata and tensor table over bytes that stay where they are.
#[derive(Debug)]
pub struct GgufFile {
    storage: Storage,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    data_start: usize,
}

impl GgufFile {
    /// Opens and checks a file. After this every tensor's byte range is known to lie in the file.
    ///
    /// # Errors
    /// [`EngineError`] naming the file, the field or tensor, what was expected and what was found.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        Self::read(Storage::Mapped(MappedFile::open(path)?))
    }

    /// Checks a file that is part of the program, as [`GgufFile::open`] does one on disk. Errors call it `name`.
    ///
    /// # Errors
    /// As [`GgufFile::open`], but for the operating system's.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, EngineError> {
        Self::read(Storage::Embedded { name: PathBuf::from(name), bytes })
    }

    fn read(storage: Storage) -> Result<Self, EngineError> {
        let (path, bytes) = (storage.path(), storage.bytes());
        let mut cursor = Cursor::new(path, bytes);
        let (n_tensors, n_keys) = read_header(&mut cursor)?;
        let metadata = Metadata::read(&mut cursor, n_keys)?;
        let alignment = alignment(path, &metadata)?;

        let mut tensors = Vec::new();
        let mut by_name = HashMap::new();
        for index in 0..n_tensors {
            let info = TensorInfo::read(&mut cursor, alignment)?;
            if by_name.insert(info.name.clone(), index).is_some() {
                return Err(EngineError::DuplicateTensor { path: path.to_owned(), tensor: info.name });
            }
            tensors.push(info);
        }
        // A file of vocabulary alone ends with its metadata, unpadded.
        let data_start = if n_tensors == 0 { cursor.position() } else { cursor.align_to(alignment)? };
        tensor::check_layout(path, &tensors, data_start as u64, bytes.len() as u64)?;
        Ok(Self { storage, metadata, tensors, by_name, data_start })
    }

    /// The path it was opened by, or the name of an embedded file.
    pub fn path(&self) -> &Path {
        self.storage.path()
    }

    /// The key-value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).and_then(|&index| self.tensors.get(index))
    }

    /// The bytes of a tensor of this file, as they are stored.
    pub fn tensor_bytes(&self, tensor: &TensorInfo) -> &[u8] {
        let start = self.data_start + tensor.offset;
        // `check_layout` proved the range; a tensor of another file could only give a wrong slice, never a
        // panic.
        self.storage.bytes().get(start..start + tensor.n_bytes).unwrap_or(&[])
    }

    /// Reads an array of strings of the metadata, borrowing from the file's bytes.
    ///
    /// # Errors
    /// [`EngineError::MissingField`] or [`EngineError::BadField`], naming the key.
    pub fn strings(&self, key: &str) -> Result<Vec<&str>, EngineError> {
        self.metadata.strings(self.path(), self.storage.bytes(), key)
    }

    /// Reads an array of integers of the metadata.
    ///
    /// # Errors
    /// [`EngineError::MissingField`] or [`EngineError::BadField`], naming the key.
    pub fn integers(&self, key: &str) -> Result<Vec<i64>, EngineError> {
        self.metadata.integers(self.path(), self.storage.bytes(), key)
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.storage.bytes()
    }
}

/// Reads magic, version and the two counts: (tensors, keys).
fn read_header(cursor: &mut Cursor<'_>) -> Result<(usize, usize), EngineError> {
    let magic = cursor.take(4, "the magic")?;
    if magic != MAGIC {
        return Err(cursor.bad("the magic", format!("{magic:02x?}"), "\"GGUF\"; is this a GGUF file?"));
    }
    let version = cursor.u32("the version")?;
    if version.swap_bytes() <= 0xFFFF && version > 0xFFFF {
        let expected = "a little-endian file; convert the model again without --bigendian";
        return Err(cursor.bad("the byte order", "big-endian".to_owned(), expected));
    }
    if !(2..=3).contains(&version) {
        let expected = "2 or 3; convert the model again with a current converter";
        return Err(cursor.bad("the version", version.to_string(), expected));
    }
    let n_tensors = cursor.count("the tensor count", MAX_ENTRIES)?;
    let n_keys = cursor.count("the metadata key count", MAX_ENTRIES)?;
    Ok((n_tensors, n_keys))
}

/// The alignment of the data section in bytes.
fn alignment(path: &Path, metadata: &Metadata) -> Result<u64, EngineError> {
    const KEY: &str = "general.alignment";
    let value = metadata.optional_integer(path, KEY)?.unwrap_or(DEFAULT_ALIGNMENT as i64);
    match u64::try_from(value) {
        Ok(alignment) if alignment.is_power_of_two() && alignment <= 1 << 20 => Ok(alignment),
        _ => Err(EngineError::BadField {
            path: path.to_owned(),
            field: KEY.to_owned(),
            got: value.to_string(),
            expected: "a power of two up to 1 MiB".to_owned(),
        }),
    }
}
