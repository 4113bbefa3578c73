//! Sessions in the forms that other programs replay: recorded requests with their answers, request bodies, and the
//! input files of two load generators. One file per form; this one names the files and writes their lines, one call at
//! a time, because the prefixes of a session are many times larger than the session.

mod aiperf;
mod chat;
mod guidellm;
mod openai_chat;
mod requests;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::canonical;
use crate::error::TranscriptError;
use crate::session::{Session, SourceFormat};

/// What a session is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportForm {
    /// Requests of chat completions with their answers, one a line, one file per session: what the importer of OpenAI
    /// chat logs reads.
    OpenaiChat,
    /// Request bodies of chat completions, one a line in the order of the calls, one file per session.
    Requests,
    /// Multi-turn input of NVIDIA AIPerf, one file for all sessions.
    Aiperf,
    /// A data set of guidellm, one file for all sessions.
    Guidellm,
}

/// Writes one call as one JSON object.
type WriteLine = fn(&Session, usize, &mut dyn Write) -> serde_json::Result<()>;

/// Writes sessions into a folder that exists; a file of the same name is replaced. Returns the files written. Calls
/// whose recording holds no message of the request are left out: no server takes them, and AIPerf refuses the file.
///
/// # Errors
/// When a file cannot be written.
pub fn write(sessions: &[Session], form: ExportForm, folder: &Path) -> Result<Vec<PathBuf>, TranscriptError> {
    match form {
        ExportForm::OpenaiChat => each(sessions, folder, "openai-chat.jsonl", openai_chat::line),
        ExportForm::Requests => each(sessions, folder, "inputs.jsonl", requests::line),
        ExportForm::Aiperf => one(sessions, folder.join("aiperf.jsonl"), aiperf::line),
        ExportForm::Guidellm => one(sessions, folder.join("guidellm.jsonl"), guidellm::line),
    }
}

fn each(
    sessions: &[Session],
    folder: &Path,
    ending: &str,
    line: WriteLine,
) -> Result<Vec<PathBuf>, TranscriptError> {
    let mut taken: HashSet<String> = HashSet::new();
    let mut written = Vec::with_capacity(sessions.len());
    for session in sessions {
        let name = canonical::file_name(session);
        let stem = name.strip_suffix(canonical::EXTENSION).unwrap_or(&name).trim_end_matches('.');
        let mut name = format!("{stem}.{ending}");
        let mut number = 1;
        // Two ids may differ in characters that no file name holds.
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{stem}-{number}.{ending}");
        }
        written.extend(one(std::slice::from_ref(session), folder.join(name), line)?);
    }
    Ok(written)
}

fn one(sessions: &[Session], path: PathBuf, line: WriteLine) -> Result<Vec<PathBuf>, TranscriptError> {
    let io = |source| TranscriptError::io(&path, source);
    let mut file = BufWriter::new(File::create(&path).map_err(io)?);
    for session in sessions {
        let calls = session.calls.iter().enumerate().filter(|(_, call)| !call.prefix.is_empty());
        for (call_index, _) in calls {
            let written = line(session, call_index, &mut file).map_err(std::io::Error::from);
            written.and_then(|()| file.write_all(b"\n")).map_err(io)?;
        }
    }
    file.flush().map_err(io)?;
    Ok(vec![path])
}

/// Generated tokens of a call as the provider counted them; `None` where the count is missing or not to be trusted
/// (Claude Code writes a partial one).
fn output_tokens(session: &Session, call_index: usize) -> Option<u64> {
    let usage = session.calls.get(call_index)?.usage?;
    (session.format != SourceFormat::ClaudeCode && usage.output > 0).then_some(usage.output)
}
