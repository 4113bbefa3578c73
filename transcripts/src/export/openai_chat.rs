//! Requests with their answers, one a line, in the form that proxies log chat completions in: `model`, `messages` and
//! `tools` of the request, the answer under `response`, `start_time` where recorded. The importer of OpenAI chat logs
//! reads it back: the same messages and the same calls.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use super::chat::{self, ChatMessage, Form};
use crate::session::Session;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    messages: Vec<ChatMessage<'a>>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    tools: &'a [Value],
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<&'a str>,
    response: Response<'a>,
}

#[derive(Serialize)]
struct Response<'a> {
    object: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: ChatMessage<'a>,
    finish_reason: &'static str,
}

/// Counts as chat completions give them; the tokens written to a prefix cache under the name Anthropic's API has.
#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: CachedTokens,
    cache_creation_input_tokens: u64,
}

#[derive(Serialize)]
struct CachedTokens {
    cached_tokens: u64,
}

/// Writes one call.
pub(super) fn line(session: &Session, call_index: usize, out: &mut dyn Write) -> serde_json::Result<()> {
    let call = session.calls.get(call_index);
    let model = call.and_then(|call| call.model.as_deref());
    let choice = |turn| {
        let message = chat::message(turn, Form::Log);
        let finish_reason = if turn.tool_calls.is_empty() { "stop" } else { "tool_calls" };
        Choice { index: 0, message, finish_reason }
    };
    let usage = call.and_then(|call| call.usage).map(|usage| Usage {
        prompt_tokens: usage.prompt_tokens(),
        completion_tokens: usage.output,
        total_tokens: usage.prompt_tokens().saturating_add(usage.output),
        prompt_tokens_details: CachedTokens { cached_tokens: usage.cache_read },
        cache_creation_input_tokens: usage.cache_creation,
    });
    let response = Response {
        object: "chat.completion",
        model,
        choices: session.completion(call_index).map(choice).into_iter().collect(),
        usage,
    };
    let line = Line {
        model,
        messages: chat::messages(session, call_index, Form::Log),
        tools: &session.tools,
        start_time: call.and_then(|call| call.started_at.as_deref()),
        response,
    };
    serde_json::to_writer(out, &line)
}
