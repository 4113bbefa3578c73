//! Multi-turn input of NVIDIA AIPerf (ai-dynamo/aiperf), for `--custom-dataset-type mooncake_trace`: one request a
//! line, those of one `session_id` sent one after the other, each `delay` milliseconds after the answer before it.
//! `messages` holds the whole history, from which AIPerf infers the context mode `message_array_with_responses`: it
//! sends the list as it is and puts no live answer into it, so every prefix is the recorded one. AIPerf's `multi_turn` type holds user texts alone, without
//! tools, results or recorded answers, which is why it is not used.
//!
//! Source: `MooncakeTrace` in src/aiperf/dataset/loader/models.py and mooncake_trace.py beside it,
//! `ConversationContextMode`.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use super::chat::{self, ChatMessage, Form};
use super::output_tokens;
use crate::session::Session;

#[derive(Serialize)]
struct Line<'a> {
    session_id: &'a str,
    messages: Vec<ChatMessage<'a>>,
    /// Must not be an empty list.
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    tools: &'a [Value],
    #[serde(skip_serializing_if = "Option::is_none")]
    output_length: Option<u64>,
    /// Milliseconds; tool time and the person's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<u64>,
}

/// Writes one call.
pub(super) fn line(session: &Session, call_index: usize, out: &mut dyn Write) -> serde_json::Result<()> {
    let line = Line {
        session_id: &session.id,
        messages: chat::messages(session, call_index, Form::Wire),
        tools: &session.tools,
        output_length: output_tokens(session, call_index),
        delay: session.calls.get(call_index).and_then(|call| call.gap_ms),
    };
    serde_json::to_writer(out, &line)
}
