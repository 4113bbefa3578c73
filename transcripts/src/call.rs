//! One model call of a session: which messages it sent, which turn came back, what the provider counted. A call holds
//! message indices and never text; it knows no file and no format.

use serde::{Deserialize, Serialize};

/// What the provider counted for one call, in its own tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens that were neither read from nor written to the provider's prefix cache.
    pub input: u64,
    /// Prompt tokens written to the provider's prefix cache.
    pub cache_creation: u64,
    /// Prompt tokens read from the provider's prefix cache.
    pub cache_read: u64,
    /// Generated tokens as recorded. Clients before about 2.1.5x record a partial count: measure the content instead.
    pub output: u64,
}

impl Usage {
    /// All prompt tokens: `input + cache_creation + cache_read`, saturating (the numbers come from a file).
    pub const fn prompt_tokens(&self) -> u64 {
        self.input.saturating_add(self.cache_creation).saturating_add(self.cache_read)
    }
}

/// Why the prefix of a call does not start with the previous call's prefix and completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BreakCause {
    /// History was replaced by a summary.
    Compaction,
    /// The client cleared old tool results on the request side.
    Microcompact,
    /// The person went back to an earlier message and continued from there.
    Rewind,
    /// The session was taken up again under another session id.
    Resume,
    /// A message was sent in another form than before (a preview, a replacement, a late tool result).
    Projection,
    /// The chat template renders the same messages differently. Never found by an importer.
    Template,
    /// None of the above is recorded.
    Unknown,
}

impl BreakCause {
    /// The word used in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compaction => "compaction",
            Self::Microcompact => "microcompact",
            Self::Rewind => "rewind",
            Self::Resume => "resume",
            Self::Projection => "projection",
            Self::Template => "template",
            Self::Unknown => "unknown",
        }
    }
}

/// Where and why a call's prefix leaves the previous call's prefix and completion (check R20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixBreak {
    /// Why.
    pub cause: BreakCause,
    /// Messages both prefixes share from the start: also the position in `Call::prefix` of the first one that differs.
    pub shared_messages: u32,
    /// Index into `Session::messages` of the first message that differs; `None` when the new prefix merely ends there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<u32>,
    /// Chars (`Message::chars`) of the shared messages.
    pub shared_chars: u64,
    /// Chars of everything the previous call left behind: its prefix and its completion.
    pub previous_chars: u64,
}

/// One model call: all messages before an assistant turn, plus that recorded turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The request: indices into `Session::messages`, in the order they were sent.
    pub prefix: Vec<u32>,
    /// The recorded turn: index into `Session::messages` of an assistant message.
    pub completion: u32,
    /// Name of the model that answered, as recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What the provider counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// When the request was sent, as far as the recording says: the latest recorded time (RFC 3339) of the messages
    /// that follow the last turn of the prefix, which is what the request waited for; without such messages, the time
    /// of the first line of the completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Recorded gap before the call in milliseconds: `started_at` minus the time of the last line of the previous
    /// call's completion, so tool time plus the person's time. `None` for the first call, when a time is missing, and
    /// when the recorded times run backwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<u64>,
    /// Set when the prefix does not start with the previous call's prefix and completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_break: Option<PrefixBreak>,
}
