//! Everything that can stop an import or the reading of a session file. A malformed line never does: it is a warning
//! of its file.

use std::io;

/// Why no session could be had.
#[derive(Debug, thiserror::Error)]
pub enum TranscriptError {
    /// The file system said no.
    #[error("{path}: {source}; check that the path exists and may be read or written")]
    Io {
        /// The file or folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// No importer recognises the file.
    #[error(
        "{path}: expected a recorded session (`reprise import --help` lists the formats) or a session file of \
         `reprise import`, got {got}; name the format with --format if it is one of them"
    )]
    UnknownFormat {
        /// The file.
        path: String,
        /// What it looks like.
        got: String,
    },
    /// The file is not a readable canonical session.
    #[error(
        "{path}: expected a session file of `reprise import`: {detail}; import the original recording again"
    )]
    NotCanonical {
        /// The file.
        path: String,
        /// What is wrong, with line and column where there are any.
        detail: String,
    },
    /// The file was written by a newer version.
    #[error("{path}: expected session schema version {expected} or older, got {got}; use a newer reprise")]
    SchemaVersion {
        /// The file.
        path: String,
        /// The version of the file.
        got: u64,
        /// The newest version this build reads.
        expected: u64,
    },
    /// A call points outside of the message list, or at a message of the wrong role.
    #[error(
        "{path}: call {call_index}: {field} is {got}, expected {expected}; import the original recording again"
    )]
    BadIndex {
        /// The file.
        path: String,
        /// The call, from 0.
        call_index: usize,
        /// Which field.
        field: &'static str,
        /// The value found.
        got: String,
        /// What it must be.
        expected: String,
    },
    /// The file is larger than an importer reads into memory.
    #[error("{path}: expected at most {limit} bytes, got {got}; split the recording")]
    TooLarge {
        /// The file.
        path: String,
        /// Bytes of the file.
        got: u64,
        /// The most bytes that are read.
        limit: u64,
    },
    /// The patterns of secrets do not compile.
    #[error("the patterns of secrets do not compile: {source}; report this")]
    Patterns {
        /// What the compiler of expressions said.
        source: regex::Error,
    },
    /// Serialising failed.
    #[error("{path}: cannot write the session as JSON: {source}; report this with the session id")]
    Serialise {
        /// The file that was to be written.
        path: String,
        /// What the serialiser said.
        source: serde_json::Error,
    },
}

impl TranscriptError {
    pub(crate) fn io(path: &std::path::Path, source: io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }
}
