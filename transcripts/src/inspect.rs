//! What `inspect --json` says about sessions: a summary with stable member names, made from finished sessions. Knows no
//! format and no file.

use serde::{Deserialize, Serialize};

use crate::call::BreakCause;
use crate::fidelity::{Fidelity, Level};
use crate::import::{Import, ImportedFile};
use crate::message::{Message, Role};
use crate::profile::{Profile, profile};
use crate::session::Session;
use crate::structure::{self, Finding};
use crate::token_fit::{TokenFit, token_fit};

/// Sessions and files of one import.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// One entry per session.
    pub sessions: Vec<SessionSummary>,
    /// One entry per file.
    pub files: Vec<FileSummary>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionSummary {
    /// The session's id.
    pub session_id: String,
    /// `main` or `subagent`.
    pub kind: String,
    /// For a sub-agent, the session that started it.
    pub parent_session_id: Option<String>,
    /// What recorded it.
    pub format: String,
    /// Model calls.
    pub calls: usize,
    /// Messages of the longest prefix (the call with the most messages).
    pub messages: usize,
    /// Share of tool messages in the chars (`Message::chars`) of the longest prefix, 0 to 1; `None` without any chars.
    pub tool_bytes_share: Option<f64>,
    /// Where a prefix does not extend the one before.
    pub prefix_breaks: Vec<BreakSummary>,
    /// How close the calls are to what was sent.
    pub fidelity: FidelitySummary,
    /// Violations of the request rules, call by call.
    pub findings: Vec<Finding>,
    /// The provider's token counts against the rebuilt prefixes; `None` where there are too few.
    pub token_fit: Option<TokenFit>,
    /// Sizes and gaps, call by call.
    pub profile: Profile,
}

/// A prefix break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakSummary {
    /// The call whose prefix breaks, from 0.
    pub call_index: usize,
    /// Why.
    pub cause: BreakCause,
    /// Chars that both prefixes share from the start.
    pub shared_chars: u64,
    /// Chars of everything the call before left behind: its prefix and its completion.
    pub previous_chars: u64,
}

/// The fidelity block in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FidelitySummary {
    /// How close.
    pub level: Level,
    /// Why not closer, a sentence each.
    pub reasons: Vec<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSummary {
    /// Path as it was given or found.
    pub path: String,
    /// Lines, blank ones included.
    pub lines: u64,
    /// Lines that were lost, as a whole or in part.
    pub bad_lines: u64,
}

/// The summary of an import.
pub fn inspect(import: &Import) -> Inspection {
    Inspection {
        sessions: import.sessions.iter().map(SessionSummary::from).collect(),
        files: import.files.iter().map(FileSummary::from).collect(),
    }
}

impl From<&Session> for SessionSummary {
    fn from(session: &Session) -> Self {
        let longest = session.longest_call().map_or_else(Vec::new, |call| session.prefix(call));
        let breaks = session.calls.iter().enumerate().filter_map(|(call_index, call)| {
            call.prefix_break.map(|record| BreakSummary {
                call_index,
                cause: record.cause,
                shared_chars: record.shared_chars,
                previous_chars: record.previous_chars,
            })
        });
        Self {
            session_id: session.id.clone(),
            kind: session.kind.as_str().to_owned(),
            parent_session_id: session.kind.parent_session_id().map(str::to_owned),
            format: session.format.as_str().to_owned(),
            calls: session.calls.len(),
            messages: longest.len(),
            tool_bytes_share: tool_share(&longest),
            prefix_breaks: breaks.collect(),
            fidelity: FidelitySummary::from(&session.fidelity),
            findings: structure::check_session(session),
            token_fit: token_fit(session),
            profile: profile(session),
        }
    }
}

impl From<&Fidelity> for FidelitySummary {
    fn from(fidelity: &Fidelity) -> Self {
        Self { level: fidelity.level, reasons: fidelity.reasons.iter().map(ToString::to_string).collect() }
    }
}

impl From<&ImportedFile> for FileSummary {
    fn from(file: &ImportedFile) -> Self {
        Self { path: file.path.clone(), lines: file.lines, bad_lines: file.bad_lines }
    }
}

/// Share of tool messages in the chars of a request, 0 to 1.
pub fn tool_share(messages: &[&Message]) -> Option<f64> {
    let all: u64 = messages.iter().map(|message| message.chars()).sum();
    let tool: u64 =
        messages.iter().filter(|message| message.role == Role::Tool).map(|message| message.chars()).sum();
    (all > 0).then(|| tool as f64 / all as f64)
}
