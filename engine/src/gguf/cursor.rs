//! Checked reading of little-endian primitives from untrusted bytes. It knows no key and no tensor.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::EngineError;

/// A position in a file's bytes; every read names what it reads, for the error.
pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, position: 0 }
    }

    /// Continues at `position` of the same kind of bytes; used to decode an array that was walked before.
    pub(super) fn at(path: &'a Path, bytes: &'a [u8], position: usize) -> Self {
        Self { path, bytes, position }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.to_owned()
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Bytes left after the position.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], EngineError> {
        let range = self.advance(len as u64, what)?;
        Ok(self.bytes.get(range).unwrap_or(&[]))
    }

    /// Steps over the next `len` bytes and returns where they are.
    pub(super) fn advance(&mut self, len: u64, what: &str) -> Result<Range<usize>, EngineError> {
        if len > self.remaining() as u64 {
            return Err(EngineError::CutShort {
                path: self.path(),
                what: what.to_owned(),
                needed: (self.position as u64).saturating_add(len),
                len: self.bytes.len() as u64,
            });
        }
        let start = self.position;
        self.position += len as usize;
        Ok(start..self.position)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], EngineError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, what: &str) -> Result<u8, EngineError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u16(&mut self, what: &str) -> Result<u16, EngineError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, EngineError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, EngineError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count that may not exceed `cap`.
    pub(super) fn count(&mut self, what: &str, cap: u64) -> Result<usize, EngineError> {
        let count = self.u64(what)?;
        if count > cap {
            return Err(self.bad(what, count.to_string(), &format!("at most {cap}; the file is damaged")));
        }
        Ok(count as usize)
    }

    /// A length-prefixed UTF-8 string.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a str, EngineError> {
        let len = self.u64(what)?;
        let range = self.advance(len, what)?;
        let bytes = self.bytes.get(range).unwrap_or(&[]);
        std::str::from_utf8(bytes).map_err(|error| {
            self.bad(what, format!("not UTF-8 ({error})"), "UTF-8 text; the file is damaged")
        })
    }

    /// Steps over padding up to the next multiple of `alignment` (a power of two) and returns the new
    /// position.
    pub(super) fn align_to(&mut self, alignment: u64) -> Result<usize, EngineError> {
        let padding = (self.position as u64).next_multiple_of(alignment) - self.position as u64;
        self.advance(padding, "the padding before the tensor data")?;
        Ok(self.position)
    }

    /// An error about a field at about this place.
    pub(super) fn bad(&self, field: &str, got: String, expected: &str) -> EngineError {
        EngineError::BadField {
            path: self.path(),
            field: field.to_owned(),
            got,
            expected: expected.to_owned(),
        }
    }
}
