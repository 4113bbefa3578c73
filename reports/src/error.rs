//! What can go wrong with a run directory. Every variant names its subject and says what to do next.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ReportError>;

/// Error of reading or writing a run directory.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The system refused to read or write a file.
    #[error("{}: cannot {action}: {source}; {}", path.display(), advice(source))]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The folder lacks the file that makes it a run.
    #[error("{}: not a run directory: expected {expected} in it; pass the folder that `reprise run -o` wrote", path.display())]
    NotARun {
        /// Folder given.
        path: PathBuf,
        /// File that was looked for.
        expected: &'static str,
    },
    /// A new run would overwrite an older one.
    #[error("{}: already holds {found}; choose another folder, or continue that run with `--resume`", path.display())]
    Occupied {
        /// Folder given.
        path: PathBuf,
        /// File found in it.
        found: &'static str,
    },
    /// `run.json` is not the JSON of a manifest.
    #[error("{}: expected a run manifest: {source}; restore the file, or run again", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What the parser met, with line and column.
        source: serde_json::Error,
    },
    /// A record or manifest cannot be written as JSON.
    #[error("{}: cannot write as JSON: {source}; this is a defect of the program, please report it", path.display())]
    Encode {
        /// File it was meant for.
        path: PathBuf,
        /// The encoder's reason.
        source: serde_json::Error,
    },
    /// A CSV row cannot be written or read.
    #[error("{}: CSV: {source}; check free space and permissions of the run directory", path.display())]
    Csv {
        /// The table.
        path: PathBuf,
        /// The reason.
        source: csv::Error,
    },
    /// A plot cannot be drawn.
    #[error(
        "plot {plot}: {detail}; every other file of the report is written, run `reprise report` again after fixing it"
    )]
    Plot {
        /// Name of the plot, without extension.
        plot: &'static str,
        /// What the drawing backend met.
        detail: String,
    },
}

impl ReportError {
    /// For `map_err`: a refused action on a path.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    /// For `map_err`: a row of a table.
    pub(crate) fn csv(path: &Path) -> impl FnOnce(csv::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Csv { path, source }
    }
}

/// What to do about a refusal of the system.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space there and continue with `--resume`; calls recorded before this one are kept"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a folder that you may write to, or change its permissions"
        }
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "choose a path that is a folder or does not exist yet"
        }
        _ => "check the disk; what was written before is kept",
    }
}
