//! A file mapped into memory, read only. The only module of this crate with `unsafe`; it knows no file
//! format.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::EngineError;

/// The bytes of a file, mapped. An empty file maps to no bytes.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the whole file.
    ///
    /// # Errors
    /// [`EngineError::Io`] if the file cannot be opened, is a folder, or cannot be mapped.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let file = File::open(path).map_err(|error| EngineError::io(path, "open", error))?;
        let metadata = file.metadata().map_err(|error| EngineError::io(path, "read the size of", error))?;
        if !metadata.is_file() {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
            return Err(EngineError::io(path, "map", error));
        }
        // A mapping of length zero is an error on Linux; an empty file is simply a file with no bytes.
        if metadata.len() == 0 {
            return Ok(Self { path: path.to_owned(), map: None });
        }
        // SAFETY: the mapping is private and never written through, and every reader treats the bytes as
        // untrusted: no type with invalid bit patterns is ever laid over them. What no program can rule out
        // is another process that changes the file meanwhile: changed bytes give wrong numbers, a shortened
        // file ends this process with SIGBUS. Models are therefore replaced by renaming, as every downloader
        // does, never rewritten in place.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| EngineError::io(path, "map", error))?;
        Ok(Self { path: path.to_owned(), map: Some(map) })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
