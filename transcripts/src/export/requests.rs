//! Request bodies of chat completions, one a line, in the order of the session's calls. The body holds what the session
//! holds (model, messages, tools) and nothing else; sampling settings are the sender's.
//!
//! AIPerf replays such files as they are (`--custom-dataset-type raw_payload`: a file is a list of requests, a folder
//! of `.jsonl` files is one chain of requests per file, each with its full history; docs/tutorials/raw-payload-replay.md
//! of ai-dynamo/aiperf).

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use super::chat::{self, ChatMessage, Form};
use crate::session::Session;

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    messages: Vec<ChatMessage<'a>>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    tools: &'a [Value],
}

/// Writes one call.
pub(super) fn line(session: &Session, call_index: usize, out: &mut dyn Write) -> serde_json::Result<()> {
    let model = session.calls.get(call_index).and_then(|call| call.model.as_deref());
    let messages = chat::messages(session, call_index, Form::Wire);
    serde_json::to_writer(out, &Body { model, messages, tools: &session.tools })
}
