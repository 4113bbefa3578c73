//! The shape of a session as raw sizes: what each call sends and how much of it is new, what tools gave back, how long
//! it was between calls. Counts and chars alone; whoever shows them sums them up.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::message::Role;
use crate::session::Session;

/// Outputs shorter than this repeat by chance (`ok`, an empty list) and are no repeats.
pub const REPEAT_CHARS_MIN: u64 = 200;

/// The shape of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// One entry per call, in order.
    pub calls: Vec<CallProfile>,
    /// Every tool output that a call sent as it was recorded, each once, in the order of first sending.
    pub tool_outputs: Vec<OutputProfile>,
}

/// The sizes of one call. Chars are those of `Message::chars`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallProfile {
    /// Messages of the request.
    pub messages: usize,
    /// Chars of its system messages.
    pub system_chars: u64,
    /// Chars of its user messages.
    pub user_chars: u64,
    /// Chars of its assistant messages.
    pub assistant_chars: u64,
    /// Chars of its tool messages.
    pub tool_chars: u64,
    /// Chars that the request has more than the one before; `None` for the first call and where the prefix breaks.
    pub grown_chars: Option<u64>,
    /// Chars of the recorded answer.
    pub completion_chars: u64,
    /// The provider's prompt tokens.
    pub prompt_tokens: Option<u64>,
    /// Milliseconds since the answer before.
    pub gap_ms: Option<u64>,
}

/// One tool output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputProfile {
    /// The first call that sends it, from 0.
    pub call_index: usize,
    /// Its size.
    pub chars: u64,
    /// An earlier output of the session has the same text, of at least [`REPEAT_CHARS_MIN`] chars.
    pub is_repeat: bool,
}

impl CallProfile {
    /// Chars of the whole request.
    pub const fn chars(&self) -> u64 {
        self.system_chars + self.user_chars + self.assistant_chars + self.tool_chars
    }
}

/// Measures a session.
pub fn profile(session: &Session) -> Profile {
    let chars: Vec<u64> = session.messages.iter().map(|message| message.chars()).collect();
    let mut profile = Profile::default();
    let mut sent: HashSet<u32> = HashSet::new();
    let mut texts: HashSet<String> = HashSet::new();
    for (call_index, call) in session.calls.iter().enumerate() {
        let mut sizes = CallProfile {
            messages: call.prefix.len(),
            system_chars: 0,
            user_chars: 0,
            assistant_chars: 0,
            tool_chars: 0,
            grown_chars: None,
            completion_chars: chars.get(call.completion as usize).copied().unwrap_or(0),
            prompt_tokens: call.usage.map(|usage| usage.prompt_tokens()),
            gap_ms: call.gap_ms,
        };
        for &index in &call.prefix {
            let Some(message) = session.messages.get(index as usize) else { continue };
            let size = chars[index as usize];
            match message.role {
                Role::System => sizes.system_chars += size,
                Role::User => sizes.user_chars += size,
                Role::Assistant => sizes.assistant_chars += size,
                Role::Tool => sizes.tool_chars += size,
            }
            if message.role == Role::Tool && !message.synthetic && sent.insert(index) {
                let is_repeat = size >= REPEAT_CHARS_MIN && !texts.insert(message.flat_text());
                profile.tool_outputs.push(OutputProfile { call_index, chars: size, is_repeat });
            }
        }
        if let (Some(before), None) = (profile.calls.last(), call.prefix_break) {
            sizes.grown_chars = Some(sizes.chars().saturating_sub(before.chars()));
        }
        profile.calls.push(sizes);
    }
    profile
}
