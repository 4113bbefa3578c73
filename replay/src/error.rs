//! What can go wrong in the harness. Every message reads `<what>: <why>; <what to do>`.

use std::io;
use std::path::PathBuf;

use reports::ReportError;
use reports::check::Violation;
use transcripts::error::TranscriptError;

use crate::abilities::AbilityError;
use crate::backend::BackendError;
use crate::corpus::CorpusError;
use crate::settings::CallRange;

/// Error of the harness.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No arm has this name.
    #[error("arm `{name}`: unknown; known arms are {known}")]
    UnknownArm {
        /// Name given.
        name: String,
        /// Names there are, joined by commas.
        known: String,
    },
    /// An arm is named twice.
    #[error("arm `{name}`: given twice; name each arm once and use --repeats to run it again")]
    ArmTwice {
        /// Name given.
        name: String,
    },
    /// No arm, or too many.
    #[error("--arms: expected 1 to {most} arms, got {got}; name fewer, or split the run")]
    ArmCount {
        /// Arms given.
        got: usize,
        /// Most arms of a run.
        most: usize,
    },
    /// An arm file is not what it must be.
    #[error("{}: {reason}; `reprise run --help` lists the keys of an [[arm]] table", path.display())]
    ArmFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        reason: String,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("{}: cannot be written: {source}; check the path, its permissions and free space", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is too large for what it is.
    #[error("{}: larger than {bytes_max} bytes; give the file that was meant", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Most bytes that are read.
        bytes_max: u64,
    },
    /// A text file is not UTF-8.
    #[error("{}: not UTF-8 at byte {offset}; convert it to UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// First bad byte.
        offset: usize,
    },
    /// A file of tool definitions is not a JSON list of objects.
    #[error(
        "{}: expected a JSON list of tool definitions: {reason}; write [{{\"type\": \"function\", ...}}]",
        path.display()
    )]
    ToolsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A plot cannot be drawn into a file.
    #[error("{}: cannot draw the plot: {reason}", path.display())]
    PlotFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An import found nothing to replay.
    #[error("{paths}: no session to replay: {reason}")]
    NoSession {
        /// Paths given.
        paths: String,
        /// What was found instead, and what to do.
        reason: String,
    },
    /// No bundled session has this name.
    #[error("bundled:{name}: unknown; the bundled sessions are {known}")]
    UnknownBundled {
        /// Name given.
        name: String,
        /// Names there are, joined by commas.
        known: String,
    },
    /// Two sessions share an id: their records could not be told apart.
    #[error("session {session_id}: given twice; name each session once")]
    SessionTwice {
        /// The id.
        session_id: String,
    },
    /// The range covers no call.
    #[error(
        "--calls {range}: no call to replay in {sessions} sessions: the longest has {calls_max} calls, and \
         {calls_empty} of the range have an empty request; choose another range, or give those a --system-prompt"
    )]
    NoCalls {
        /// Range given.
        range: CallRange,
        /// Calls of the longest session.
        calls_max: u32,
        /// Calls of the range whose request is empty.
        calls_empty: u32,
        /// Sessions given.
        sessions: usize,
    },
    /// An arm compresses and there is no drafter.
    #[error(
        "arm `{arm}`: compresses, and no drafter is given for {model}; pass --drafter M, or choose arms that do not \
         compress (--arms cold,cache-only)"
    )]
    DrafterMissing {
        /// The first arm that compresses.
        arm: String,
        /// The target.
        model: String,
    },
    /// A session cannot be digested.
    #[error("session {session_id}: cannot be digested: {source}; report this with the session")]
    Digest {
        /// The session.
        session_id: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// A run cannot be resumed.
    #[error("{}: cannot be resumed: {reason}", path.display())]
    Resume {
        /// Run directory.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A record broke an invariant: the run is not valid.
    #[error("{}: the run is invalid: {violation}; the record is kept as evidence, report it", path.display())]
    Invalid {
        /// Run directory.
        path: PathBuf,
        /// What was broken and where.
        violation: Box<Violation>,
    },
    /// The backend cannot take on an arm.
    #[error("arm `{arm}`: {source}")]
    Arm {
        /// The arm.
        arm: String,
        /// The backend's reason.
        source: BackendError,
    },
    /// The models cannot be opened or used.
    #[error("{0}")]
    Backend(#[from] BackendError),
    /// A session cannot be read or written.
    #[error(transparent)]
    Transcript(#[from] TranscriptError),
    /// A run directory cannot be read or written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A value cannot be written as JSON.
    #[error("JSON output: {0}; report this with the command")]
    Json(#[from] serde_json::Error),
    /// Training text cannot be made.
    #[error("training text: {0}; report this with the command")]
    Corpus(#[from] CorpusError),
    /// Abilities cannot be measured.
    #[error(transparent)]
    Ability(#[from] AbilityError),
    /// Standard output or the signal handler refused.
    #[error("{action}: {source}; check where the output goes")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}
