//! Session stores of helexa (`sessions/<id>.json`): one document with the message history. System prompt and reasoning
//! are never saved, and what was elided from a request to fit the context is not either. Knows this format and no other.

use serde_json::{Map, Value, json};

use super::ImportedFile;
use super::chat::ChatReader;
use super::draft::{Draft, DraftCall, Store};
use super::group::{GroupFile, GroupImport};
use super::records::Record;
use crate::fidelity::Reason;
use crate::message::{Origin, Role};
use crate::session::{Session, SourceFormat};

/// True for a store.
pub(super) fn is_recognised(object: &Map<String, Value>) -> bool {
    let is_text = |name: &str| object.get(name).is_some_and(Value::is_string);
    let history = object.get("history").and_then(Value::as_array);
    is_text("session_id")
        && is_text("model_id")
        && history.is_some_and(|history| history.iter().take(16).any(|message| message.get("role").is_some()))
}

/// Imports stores, each a session of its own.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn import(files: Vec<GroupFile>) -> Result<GroupImport, (String, std::io::Error)> {
    let mut store = Store::default();
    let mut drafts = Vec::new();
    let mut imported = Vec::new();
    for (number, file) in files.into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        imported.push(file.read(|Record { line, value }, report| match value {
            Value::Object(saved) if is_recognised(&saved) => {
                drafts.push(read(saved, Origin { file: number, line }, &mut store, report));
            }
            _ => report.bad_message(line, "no session store"),
        })?);
    }
    let sessions: Vec<Session> =
        drafts.into_iter().filter_map(|draft| draft.finish(&store, &mut imported)).collect();
    Ok(GroupImport::new(sessions, imported))
}

fn read(mut saved: Map<String, Value>, at: Origin, store: &mut Store, report: &mut ImportedFile) -> Draft {
    let text = |name: &str| saved.get(name).and_then(Value::as_str).map(str::to_owned);
    let (id, model) = (text("session_id").unwrap_or_default(), text("model_id"));
    let mut draft = Draft::new(id, SourceFormat::Helexa);
    draft.files.insert(at.file);
    draft.reasons.push(Reason::RebuiltFromLog);
    let messages = match saved.remove("history") {
        Some(Value::Array(messages)) => messages,
        _ => Vec::new(),
    };
    let mut chat = ChatReader::default();
    let mut history = Vec::new();
    for message in messages {
        let incoming = match as_chat(message).and_then(|message| chat.read(message, at)) {
            Ok(incoming) => incoming,
            Err(reason) => {
                report.bad_message(at.line, reason);
                continue;
            }
        };
        let is_turn = incoming.message.role == Role::Assistant;
        let index = store.push(incoming);
        if is_turn {
            let call = DraftCall { completion: index, model: model.clone(), ..DraftCall::default() };
            draft.push(&history, call, store);
        }
        history.push(index);
    }
    chat.tell_unknown(at, report);
    draft
}

/// A stored message in the form of chat completions.
fn as_chat(message: Value) -> Result<Value, String> {
    let Some(content) = message.get("content") else {
        return Err("a message without content".to_owned());
    };
    let role = message.get("role").cloned().unwrap_or_default();
    let field = |name: &str| content.get(name).cloned().unwrap_or_default();
    Ok(match content.get("type").and_then(Value::as_str) {
        Some("text") => json!({"role": role, "content": field("text")}),
        Some("multi_part") => {
            let parts = content.get("parts").and_then(Value::as_array).cloned().unwrap_or_default();
            let parts: Vec<Value> = parts.into_iter().map(image_as_chat).collect();
            json!({"role": role, "content": parts})
        }
        Some("tool_calls") => {
            json!({"role": "assistant", "content": field("text"), "tool_calls": field("calls")})
        }
        Some("tool_result") => {
            json!({"role": "tool", "content": field("content"), "tool_call_id": field("tool_call_id")})
        }
        None if content.is_string() => message,
        other => return Err(format!("a message with content of the type {:?}", other.unwrap_or("none"))),
    })
}

fn image_as_chat(part: Value) -> Value {
    if part.get("type").and_then(Value::as_str) != Some("image") {
        return part;
    }
    let text = |name: &str| part.get(name).and_then(Value::as_str).unwrap_or("");
    let url = match text("data") {
        "" => text("uri").to_owned(),
        data => format!("data:{};base64,{data}", text("mime_type")),
    };
    json!({"type": "image_url", "image_url": {"url": url}})
}
