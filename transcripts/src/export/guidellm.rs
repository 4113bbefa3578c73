//! A data set of guidellm (vllm-project/guidellm), for `--data kind=json_file,path=guidellm.jsonl`: one request a row.
//! The column `messages` is what its column mapper calls `raw_messages_column`: `/v1/chat/completions` gets it as it
//! is, so every prefix is the recorded one. `output_tokens_count` is the recorded length of the answer, or null. Every
//! row has both columns and every content is a string or null, because the rows become one table with one schema.
//!
//! Tool definitions are left out: a `tools` column makes guidellm force a tool call and send a request of its own after
//! it (docs/guides/tool_calling.md), which no recording holds. They can be given to its backend (`extras.body.tools`).
//!
//! Source: src/guidellm/data/preprocessors/mappers.py, docs/guides/datasets.md.

use std::io::Write;

use serde::Serialize;

use super::chat::{self, ChatMessage, Form};
use super::output_tokens;
use crate::session::Session;

#[derive(Serialize)]
struct Row<'a> {
    messages: Vec<ChatMessage<'a>>,
    output_tokens_count: Option<u64>,
}

/// Writes one call.
pub(super) fn line(session: &Session, call_index: usize, out: &mut dyn Write) -> serde_json::Result<()> {
    let messages = chat::messages(session, call_index, Form::Wire);
    serde_json::to_writer(out, &Row { messages, output_tokens_count: output_tokens(session, call_index) })
}
