//! The canonical session file: one session, one JSON document, read back without loss. Every index is checked on
//! read, so the rest of the project may trust a session it holds. Knows no recording format.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::TranscriptError;
use crate::message::Role;
use crate::session::Session;

/// First member of every canonical file.
pub const FORMAT: &str = "reprise-session";
/// Version written by this build; older ones are read.
pub const SCHEMA_VERSION: u64 = 1;
/// File name ending of a canonical file.
pub const EXTENSION: &str = "session.json";
/// The most bytes a canonical file may have.
pub const MAX_BYTES: u64 = 1 << 30;

#[derive(Serialize)]
struct Written<'a> {
    format: &'static str,
    schema_version: u64,
    session: &'a Session,
}

#[derive(Deserialize)]
struct Header {
    format: String,
    schema_version: u64,
}

#[derive(Deserialize)]
struct Read {
    session: Session,
}

/// True when the text starts as a canonical file does: an object whose first member is `"format": "reprise-session"`.
pub fn looks_canonical(head: &[u8]) -> bool {
    let compact: Vec<u8> = head.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(64).collect();
    let compact = compact.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&compact);
    compact.starts_with(format!("{{\"format\":\"{FORMAT}\"").as_bytes())
}

/// The file name a session is written under: its id with every byte outside `[A-Za-z0-9._-]` as `_`.
pub fn file_name(session: &Session) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let stem: String = session.id.chars().take(120).map(plain).collect();
    let stem = if stem.is_empty() || stem.starts_with('.') { format!("session{stem}") } else { stem };
    format!("{stem}.{EXTENSION}")
}

/// Writes one session.
///
/// # Errors
/// When the file cannot be written.
pub fn write(session: &Session, path: &Path) -> Result<(), TranscriptError> {
    let document = Written { format: FORMAT, schema_version: SCHEMA_VERSION, session };
    let mut text = serde_json::to_vec(&document)
        .map_err(|source| TranscriptError::Serialise { path: path.display().to_string(), source })?;
    text.push(b'\n');
    let written = fs::File::create(path).and_then(|mut file| file.write_all(&text));
    written.map_err(|source| TranscriptError::io(path, source))
}

/// Reads one session and checks every index.
///
/// # Errors
/// When the file cannot be read, is not canonical, is newer than this build, or points outside of its own messages.
pub fn read(path: &Path) -> Result<Session, TranscriptError> {
    let length = fs::metadata(path).map_err(|source| TranscriptError::io(path, source))?.len();
    if length > MAX_BYTES {
        let path = path.display().to_string();
        return Err(TranscriptError::TooLarge { path, got: length, limit: MAX_BYTES });
    }
    let text = fs::read(path).map_err(|source| TranscriptError::io(path, source))?;
    parse(&text, &path.display().to_string())
}

/// Reads one session from the bytes of a file; `path` is for messages only.
///
/// # Errors
/// As [`read`], without the file system.
pub fn parse(text: &[u8], path: &str) -> Result<Session, TranscriptError> {
    let not_canonical = |detail: String| TranscriptError::NotCanonical { path: path.to_owned(), detail };
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let header: Header = serde_json::from_slice(text).map_err(|error| not_canonical(error.to_string()))?;
    if header.format != FORMAT {
        return Err(not_canonical(format!("format is {:?}, expected {FORMAT:?}", header.format)));
    }
    if header.schema_version > SCHEMA_VERSION || header.schema_version == 0 {
        let got = header.schema_version;
        return Err(TranscriptError::SchemaVersion { path: path.to_owned(), got, expected: SCHEMA_VERSION });
    }
    let Read { session } = serde_json::from_slice(text).map_err(|error| not_canonical(error.to_string()))?;
    check(&session, path)?;
    Ok(session)
}

/// Checks the invariants of a session: indices inside the message list, completions by the assistant.
///
/// # Errors
/// [`TranscriptError::BadIndex`] for the first call that breaks them.
pub fn check(session: &Session, path: &str) -> Result<(), TranscriptError> {
    let length = session.messages.len();
    let bad = |call_index: usize, field: &'static str, got: String, expected: String| {
        TranscriptError::BadIndex { path: path.to_owned(), call_index, field, got, expected }
    };
    for (call_index, call) in session.calls.iter().enumerate() {
        let outside = |index: u32| index as usize >= length;
        if let Some(index) = call.prefix.iter().copied().find(|&index| outside(index)) {
            return Err(bad(call_index, "prefix", index.to_string(), format!("an index below {length}")));
        }
        let Some(completion) = session.messages.get(call.completion as usize) else {
            let expected = format!("an index below {length}");
            return Err(bad(call_index, "completion", call.completion.to_string(), expected));
        };
        if completion.role != Role::Assistant {
            let got = format!("{} (a {} message)", call.completion, completion.role.as_str());
            return Err(bad(call_index, "completion", got, "an assistant message".to_owned()));
        }
        let Some(record) = call.prefix_break else { continue };
        if record.shared_messages as usize > call.prefix.len() || record.message.is_some_and(outside) {
            let got = format!("{} shared messages", record.shared_messages);
            let expected = format!("at most {}, and a message below {length}", call.prefix.len());
            return Err(bad(call_index, "prefix_break", got, expected));
        }
    }
    Ok(())
}
