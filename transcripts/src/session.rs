//! A recorded session: one agent's chain of calls over one list of messages. Knows no file format; importers make it,
//! the harness reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::Call;
use crate::fidelity::{Fidelity, Reason};
use crate::message::{Message, Origin, Role};

/// What wrote the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceFormat {
    /// A Claude Code session file.
    ClaudeCode,
    /// A Codex rollout.
    Codex,
    /// Requests or messages in the form of OpenAI chat completions.
    OpenaiChat,
    /// A SWE-agent trajectory.
    SweAgent,
    /// OpenHands events.
    Openhands,
    /// Requests or items of the OpenAI Responses API.
    Responses,
    /// Requests of the Anthropic Messages API.
    Anthropic,
    /// A saved session of CodeWhale or DeepSeek-TUI.
    Codewhale,
    /// A session store of helexa.
    Helexa,
}

impl SourceFormat {
    /// The name used on the command line and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
            Self::OpenaiChat => "openai-chat",
            Self::SweAgent => "swe-agent",
            Self::Openhands => "openhands",
            Self::Responses => "responses",
            Self::Anthropic => "anthropic",
            Self::Codewhale => "codewhale",
            Self::Helexa => "helexa",
        }
    }
}

/// Whose chain of calls this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    /// The agent the person talks to.
    Main,
    /// An agent started by another one; it has a prefix of its own.
    Subagent {
        /// Id of the session that started it, whether or not that session was imported.
        parent_session_id: String,
        /// The call of the parent whose turn holds the starting tool call, where the link is recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent_call_index: Option<u32>,
    },
}

impl Kind {
    /// `main` or `subagent`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Subagent { .. } => "subagent",
        }
    }

    /// The parent's session id, for a sub-agent.
    pub fn parent_session_id(&self) -> Option<&str> {
        match self {
            Self::Main => None,
            Self::Subagent { parent_session_id, .. } => Some(parent_session_id),
        }
    }
}

/// Where the system prompt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// It is among the recorded messages.
    Recorded,
    /// The source does not hold it: every prefix starts without one.
    Missing,
    /// The caller gave it.
    Supplied,
}

/// One file a session was read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Path as it was given or found.
    pub path: String,
    /// Lines, blank ones included.
    pub lines: u64,
    /// Lines that could not be read at all.
    pub bad_lines: u64,
}

/// What an importer noticed in a session that is not wrong enough to be a bad line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssueKind {
    /// A line names a parent that is in no file.
    DanglingParent,
    /// Parents run in a circle; the walk stopped where it closed.
    ParentCycle,
    /// A uuid was written again; the first line counts.
    DuplicateUuid,
    /// A content block of a response was written again; it counts once.
    DuplicateBlock,
    /// A tool result answers no recorded tool call.
    OrphanResult,
    /// A tool call has no recorded result.
    MissingResult,
    /// A response made by the client (`<synthetic>`, an API error): no call, not part of later prefixes.
    ClientResponse,
    /// A response that another session of this import owns; it is history here, not a call.
    ForeignResponse,
    /// A content block of an unknown type; it is left out.
    UnknownBlock,
    /// The session is too large: later calls were left out.
    LeftOut,
    /// A request without a recorded answer: it is no call.
    NoCompletion,
    /// An answer whose request is not recorded: it is no call.
    NoRequest,
}

/// One kind of issue, how often it was seen and where first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// What.
    pub kind: IssueKind,
    /// How often.
    pub count: u64,
    /// The first place.
    pub first: Origin,
}

/// One agent's recorded session.
///
/// Invariants, kept by every importer and checked when a canonical file is read: every index in `calls` is inside
/// `messages`, and every completion is an assistant message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Unique within one import.
    pub id: String,
    /// What wrote the recording.
    pub format: SourceFormat,
    /// Versions of the recording client, in order of appearance, joined by `, `.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// Whose chain it is.
    #[serde(flatten)]
    pub kind: Kind,
    /// When the first call was sent (RFC 3339), where recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Where the system prompt comes from.
    pub system: System,
    /// Tool definitions in the wire form of chat completions; empty when unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// Every message of every prefix, each once. A message that was sent in two forms (a tool result and its cleared
    /// form) is two messages.
    pub messages: Vec<Message>,
    /// The calls, in file order.
    pub calls: Vec<Call>,
    /// How close the calls are to what was sent.
    pub fidelity: Fidelity,
    /// What the importer noticed, by kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<Issue>,
    /// The files it was read from; `Origin::file` counts in this list.
    pub files: Vec<SourceFile>,
    /// Line types the importer does not know, with counts over all files that were read together; the first session of
    /// them has the counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown_lines: BTreeMap<String, u64>,
}

impl Session {
    /// The request of a call: its messages in order. Empty for an index without a call.
    pub fn prefix(&self, call_index: usize) -> Vec<&Message> {
        let indices = self.calls.get(call_index).map_or(&[][..], |call| &call.prefix);
        indices.iter().filter_map(|&index| self.messages.get(index as usize)).collect()
    }

    /// The recorded turn of a call.
    pub fn completion(&self, call_index: usize) -> Option<&Message> {
        self.messages.get(self.calls.get(call_index)?.completion as usize)
    }

    /// The call with the most messages in its prefix; the first of equals.
    pub fn longest_call(&self) -> Option<usize> {
        let lengths = self.calls.iter().map(|call| call.prefix.len()).enumerate();
        lengths.max_by_key(|&(index, length)| (length, std::cmp::Reverse(index))).map(|(index, _)| index)
    }

    /// Puts a system prompt in front of every call. One that is there already is replaced.
    pub fn with_system_prompt(mut self, text: impl Into<String>) -> Self {
        let index = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        let prompt = Message { synthetic: true, ..Message::text(Role::System, text) };
        let prompt_chars = prompt.chars();
        for call in &mut self.calls {
            let first = call.prefix.first().and_then(|&first| self.messages.get(first as usize));
            let replaced = first.filter(|message| message.role == Role::System).map(Message::chars);
            if replaced.is_some() {
                call.prefix[0] = index;
            } else {
                call.prefix.insert(0, index);
            }
            if let Some(record) = &mut call.prefix_break {
                record.shared_messages += u32::from(replaced.is_none());
                let old = replaced.unwrap_or(0);
                record.shared_chars = (record.shared_chars + prompt_chars).saturating_sub(old);
                record.previous_chars = (record.previous_chars + prompt_chars).saturating_sub(old);
            }
        }
        self.messages.push(prompt);
        self.system = System::Supplied;
        self.fidelity.replace(Reason::SystemMissing, Reason::SystemSupplied);
        self
    }

    /// Sets the tool definitions.
    pub fn with_tools(mut self, tools: Vec<Value>) -> Self {
        self.tools = tools;
        self.fidelity.replace(Reason::ToolsMissing, Reason::ToolsSupplied);
        self
    }

    /// BLAKE3 (hex) over the messages and the calls in their canonical JSON: the same session read from another path
    /// has the same digest.
    ///
    /// # Errors
    /// When serialising fails, which plain data does not.
    pub fn digest(&self) -> Result<String, serde_json::Error> {
        let mut hasher = blake3::Hasher::new();
        serde_json::to_writer(&mut hasher, &(&self.tools, &self.messages, &self.calls))?;
        Ok(hasher.finalize().to_hex().to_string())
    }
}
