//! Reading the small files a user names on the command line: bounded, with errors that say what to do.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::ReplayError;

/// The text of a file of at most `bytes_max` bytes.
///
/// # Errors
/// The file cannot be read, is larger, or is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, ReplayError> {
    let unreadable = |source| ReplayError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that fits from one that does not.
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    text(path.to_owned(), bytes, bytes_max)
}

/// Bytes read from `path` as text.
///
/// # Errors
/// More than `bytes_max` bytes, or not UTF-8.
pub fn text(path: PathBuf, bytes: Vec<u8>, bytes_max: u64) -> Result<String, ReplayError> {
    if bytes.len() as u64 > bytes_max {
        return Err(ReplayError::TooLarge { path, bytes_max });
    }
    String::from_utf8(bytes)
        .map_err(|error| ReplayError::NotUtf8 { path, offset: error.utf8_error().valid_up_to() })
}
