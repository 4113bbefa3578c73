//! Canonical messages in the form of chat completions. Knows this form, not what file it goes into.

use serde::Serialize;

use crate::message::{Message, Part, Role};
use crate::session::Session;

/// How much of a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// What a server accepts: content is one string, as the chat template gets it.
    Wire,
    /// What our own importer reads back: content keeps its parts, a failed tool says so.
    Log,
}

/// One message of a request.
#[derive(Debug, Serialize)]
pub(super) struct ChatMessage<'a> {
    role: &'static str,
    content: Option<Content<'a>>,
    /// The name that vLLM, SGLang and DeepSeek read reasoning of earlier turns under.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ChatToolCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_error: bool,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(String),
    Parts(Vec<TextPart<'a>>),
}

#[derive(Debug, Serialize)]
struct TextPart<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: std::borrow::Cow<'a, str>,
}

#[derive(Debug, Serialize)]
struct ChatToolCall<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Debug, Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

/// The request of a call.
pub(super) fn messages(session: &Session, call_index: usize, form: Form) -> Vec<ChatMessage<'_>> {
    session.prefix(call_index).into_iter().map(|prefix| message(prefix, form)).collect()
}

/// One message. Images are not held by a session: their place is taken by `[media/type, N bytes]`.
pub(super) fn message(message: &Message, form: Form) -> ChatMessage<'_> {
    let tool_calls = message.tool_calls.iter().map(|call| ChatToolCall {
        id: &call.id,
        kind: "function",
        function: Function { name: &call.name, arguments: &call.arguments },
    });
    ChatMessage {
        role: message.role.as_str(),
        content: content(message, form),
        reasoning_content: message.reasoning_text(),
        tool_calls: tool_calls.collect(),
        tool_call_id: message.tool_call_id.as_deref(),
        name: message.name.as_deref().filter(|_| form == Form::Log),
        is_error: message.is_error && form == Form::Log,
    }
}

fn content(message: &Message, form: Form) -> Option<Content<'_>> {
    if form == Form::Log && message.content.len() > 1 {
        let parts = message.content.iter().map(|part| TextPart { kind: "text", text: text(part) });
        return Some(Content::Parts(parts.collect()));
    }
    let is_empty = message.content.is_empty() && message.role == Role::Assistant;
    (!is_empty).then(|| Content::Text(message.flat_text()))
}

fn text(part: &Part) -> std::borrow::Cow<'_, str> {
    match part {
        Part::Text { text } => text.into(),
        Part::Image { media_type, bytes_len, .. } => format!("[{media_type}, {bytes_len} bytes]").into(),
    }
}
