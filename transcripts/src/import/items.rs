//! Items of the Responses API, which Codex rollouts hold too: messages, reasoning, calls and their outputs. One answer
//! is a run of items; here it becomes one message. Knows items, not the lines or requests they stand in.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::chat::{arguments, join_reasoning, push_text};
use super::draft::Incoming;
use super::image;
use super::stamp::Stamp;
use crate::message::{Message, Origin, Part, Reasoning, Role, ToolCall};

/// Stands for history that only the provider can read.
pub(super) const ENCRYPTED_SUMMARY: &str = "[compacted history, encrypted by the provider]";

/// What an item is to a list of messages.
#[derive(Debug)]
pub(super) enum Item {
    /// A part of an answer of the model.
    Piece(Piece),
    /// The result of a call.
    Output(Message),
    /// A message of its own.
    Message(Message),
    /// A summary of history as ciphertext.
    Encrypted(Message),
    /// Never sent.
    Silent,
    /// A type that is not known.
    Unknown(String),
}

/// A part of an answer.
#[derive(Debug)]
pub(super) enum Piece {
    Content(Vec<Part>),
    /// Empty when it is ciphertext.
    Reasoning(String),
    /// A call, and whether its arguments were recorded parsed.
    Call(ToolCall, bool),
}

/// Item types of an answer, apart from messages.
const PIECES: [&str; 9] = [
    "reasoning",
    "function_call",
    "custom_tool_call",
    "local_shell_call",
    "tool_search_call",
    "web_search_call",
    "file_search_call",
    "image_generation_call",
    "mcp_call",
];

/// True for an object that is an item, told by its type and the members that type has.
pub(super) fn is_item(object: &Map<String, Value>) -> bool {
    let has = |name: &str| object.contains_key(name);
    match object.get("type").and_then(Value::as_str) {
        Some("message") => has("role") && object.get("content").is_some_and(is_item_content),
        Some("reasoning") => has("summary") || has("encrypted_content") || has("content"),
        Some("function_call" | "custom_tool_call") => has("call_id") && has("name"),
        Some(kind) if kind.ends_with("_call_output") => has("call_id") && has("output"),
        Some("local_shell_call") => has("action"),
        _ => false,
    }
}

fn is_item_content(content: &Value) -> bool {
    let kinds = ["input_text", "output_text", "input_image", "refusal"];
    let part =
        |part: &Value| part.get("type").and_then(Value::as_str).is_some_and(|kind| kinds.contains(&kind));
    content.as_array().is_some_and(|parts| parts.iter().any(part))
}

/// Reads items in their order.
#[derive(Debug, Default)]
pub(super) struct ItemReader {
    /// Names of the tools by call id, the latest call of an id.
    names: HashMap<String, String>,
}

impl ItemReader {
    /// Reads one item.
    pub fn read(&mut self, mut item: Map<String, Value>, origin: Origin) -> Item {
        let kind = match item.get("type").and_then(Value::as_str) {
            Some(kind) => kind.to_owned(),
            // The short form of a message has a role and no type.
            None if item.contains_key("role") => "message".to_owned(),
            None => return Item::Unknown("(no type)".to_owned()),
        };
        match kind.as_str() {
            "message" => message(item, origin),
            "reasoning" => Item::Piece(Piece::Reasoning(reasoning(&item))),
            "image_generation_call" => {
                let data = item.get("result").and_then(Value::as_str).unwrap_or("");
                let url = format!("data:image/png;base64,{data}");
                Item::Piece(Piece::Content(vec![image::from_url(&url)]))
            }
            // The provider runs these inside the answer: nothing pairs with them.
            "web_search_call" | "file_search_call" | "mcp_call" => {
                let text = Value::Object(item).to_string();
                Item::Piece(Piece::Content(vec![Part::Text { text }]))
            }
            _ if PIECES.contains(&kind.as_str()) => self.call(&item, &kind),
            "compaction" | "compaction_summary" | "context_compaction" => {
                let text = Message::text(Role::User, ENCRYPTED_SUMMARY);
                Item::Encrypted(Message { synthetic: true, origin, ..text })
            }
            "agent_message" => {
                let mut content = Vec::new();
                parts(item.remove("content").or_else(|| item.remove("text")), &mut content);
                let message = Message { content, synthetic: true, origin, ..Message::text(Role::User, "") };
                Item::Message(message)
            }
            "ghost_snapshot" | "additional_tools" | "item_reference" | "other" => Item::Silent,
            _ if kind.ends_with("_output") => self.output(item, origin),
            _ => Item::Unknown(kind),
        }
    }

    fn call(&mut self, item: &Map<String, Value>, kind: &str) -> Item {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or("");
        let id = if text("call_id").is_empty() { text("id") } else { text("call_id") };
        let plain = match text("name") {
            "" => kind.trim_end_matches("_call"),
            name => name,
        };
        let name = match text("namespace").trim_end_matches('_') {
            "" => plain.to_owned(),
            namespace => format!("{namespace}__{plain}"),
        };
        let given = ["arguments", "input", "action"].iter().find_map(|name| item.get(*name));
        let (arguments, parsed) = arguments(given, kind == "custom_tool_call");
        self.names.insert(id.to_owned(), name.clone());
        Item::Piece(Piece::Call(ToolCall { id: id.to_owned(), name, arguments }, parsed))
    }

    fn output(&self, mut item: Map<String, Value>, origin: Origin) -> Item {
        let id = item.get("call_id").and_then(Value::as_str).unwrap_or("").to_owned();
        let mut message = Message { content: Vec::new(), origin, ..Message::text(Role::Tool, "") };
        let output = item.remove("output").or_else(|| item.remove("tools"));
        match output {
            Some(Value::Object(mut object)) => {
                message.is_error = object.get("success") == Some(&Value::Bool(false));
                match object.remove("content").or_else(|| object.remove("output")) {
                    Some(content) => parts(Some(content), &mut message.content),
                    None => push_text(&mut message.content, Value::Object(object).to_string()),
                }
            }
            output => parts(output, &mut message.content),
        }
        message.name = self.names.get(&id).cloned();
        message.tool_call_id = Some(id);
        Item::Output(message)
    }
}

fn message(mut item: Map<String, Value>, origin: Origin) -> Item {
    let role = match item.get("role").and_then(Value::as_str) {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system" | "developer") => Role::System,
        other => return Item::Unknown(format!("message by {}", other.unwrap_or("nobody"))),
    };
    let mut content = Vec::new();
    parts(item.remove("content"), &mut content);
    match role {
        Role::Assistant => Item::Piece(Piece::Content(content)),
        _ => Item::Message(Message { content, origin, ..Message::text(role, "") }),
    }
}

/// Content as a string, or as a list of text and image parts.
fn parts(content: Option<Value>, into: &mut Vec<Part>) {
    let items = match content {
        Some(Value::Array(items)) => items,
        None | Some(Value::Null) => return,
        Some(other) => vec![other],
    };
    for item in items {
        let field = |name: &str| item.get(name).and_then(Value::as_str);
        match (item.as_str(), field("type")) {
            (Some(text), _) => push_text(into, text.to_owned()),
            (None, Some("input_image")) => into.push(image::from_url(field("image_url").unwrap_or(""))),
            (None, _) => match field("text").or_else(|| field("refusal")) {
                Some(text) => push_text(into, text.to_owned()),
                None => push_text(into, item.to_string()),
            },
        }
    }
}

/// Readable reasoning: its content, or the summary where there is no ciphertext that was sent in its place.
fn reasoning(item: &Map<String, Value>) -> String {
    let texts = |name: &str| -> String {
        let items = item.get(name).and_then(Value::as_array).into_iter().flatten();
        let texts = items.filter_map(|part| part.get("text").unwrap_or(part).as_str());
        texts.collect::<Vec<_>>().join("\n")
    };
    let content = texts("content");
    let is_encrypted = item.get("encrypted_content").is_some_and(Value::is_string);
    if content.is_empty() && !is_encrypted { texts("summary") } else { content }
}

/// An answer while its items are put together.
#[derive(Debug)]
pub(super) struct Turn {
    message: Message,
    reasoning: Option<Reasoning>,
    reserialised: u64,
    /// When its last item was recorded.
    pub time: Option<Stamp>,
}

impl Turn {
    /// An answer without items.
    pub fn new(origin: Origin) -> Self {
        let message = Message { content: Vec::new(), origin, ..Message::text(Role::Assistant, "") };
        Self { message, reasoning: None, reserialised: 0, time: None }
    }

    /// Adds an item.
    pub fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Content(parts) => self.message.content.extend(parts),
            Piece::Reasoning(text) => join_reasoning(&mut self.reasoning, &text),
            Piece::Call(call, parsed) => {
                self.reserialised += u64::from(parsed);
                self.message.tool_calls.push(call);
            }
        }
    }

    /// The message.
    pub fn finish(self) -> Incoming {
        let Self { message, reasoning, reserialised, time } = self;
        Incoming { message: Message { reasoning, ..message }, time, reserialised }
    }
}

/// A list of items as messages: runs of an answer's items become one message each. Unknown types are counted.
pub(super) fn messages(
    items: Vec<Value>,
    origin: Origin,
    reader: &mut ItemReader,
    unknown: &mut u64,
) -> Vec<Incoming> {
    let mut messages = Vec::new();
    let mut turn: Option<Turn> = None;
    for item in items {
        let Value::Object(item) = item else {
            *unknown += 1;
            continue;
        };
        let message = match reader.read(item, origin) {
            Item::Piece(piece) => {
                turn.get_or_insert_with(|| Turn::new(origin)).push(piece);
                continue;
            }
            Item::Output(message) | Item::Message(message) | Item::Encrypted(message) => message,
            Item::Silent => continue,
            Item::Unknown(_) => {
                *unknown += 1;
                continue;
            }
        };
        messages.extend(turn.take().map(Turn::finish));
        messages.push(Incoming::from(message));
    }
    messages.extend(turn.take().map(Turn::finish));
    messages
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(items: Value) -> (Vec<Message>, u64) {
        let mut unknown = 0;
        let items = items.as_array().unwrap().clone();
        let read = messages(items, Origin::default(), &mut ItemReader::default(), &mut unknown);
        (read.into_iter().map(|incoming| incoming.message).collect(), unknown)
    }

    #[test]
    fn a_run_of_an_answers_items_is_one_message() {
        let (messages, unknown) = read(json!([
            {"role": "user", "content": "go"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "thinking"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "on it"}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "ls", "arguments": "{ }"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** Begin"},
            {"type": "function_call_output", "call_id": "c1", "output": "a"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": {"content": "b", "success": false}},
            {"type": "from_next_year"}, 7,
        ]));
        assert_eq!(unknown, 2);
        assert_eq!(
            messages.iter().map(|m| m.role.as_str()).collect::<Vec<_>>(),
            ["user", "assistant", "tool", "tool"]
        );
        assert_eq!(messages[1].reasoning_text(), Some("thinking"));
        let calls: Vec<&str> = messages[1].tool_calls.iter().map(|call| call.arguments.as_str()).collect();
        assert_eq!(calls, ["{ }", "{\"input\":\"*** Begin\"}"]);
        assert_eq!((messages[3].name.as_deref(), messages[3].is_error), (Some("apply_patch"), true));
    }

    #[test]
    fn ciphertext_hides_what_a_summary_only_hints_at() {
        for (item, expected) in [
            (json!({"type": "reasoning", "summary": [{"text": "s"}], "encrypted_content": "x"}), None),
            (json!({"type": "reasoning", "summary": [{"text": "s"}], "encrypted_content": null}), Some("s")),
            (
                json!({"type": "reasoning", "summary": [], "content": [{"text": "c"}], "encrypted_content": "x"}),
                Some("c"),
            ),
        ] {
            let (messages, _) = read(json!([item]));
            assert_eq!(messages[0].reasoning_text(), expected);
            assert!(messages[0].reasoning.is_some());
        }
    }

    #[test]
    fn a_call_without_a_name_or_with_a_namespace_is_named() {
        let (messages, _) = read(json!([
            {"type": "local_shell_call", "call_id": "c1", "action": {"type": "exec", "command": ["ls"]}},
            {"type": "function_call", "call_id": "c2", "namespace": "mcp__files__", "name": "read", "arguments": "{}"},
        ]));
        let names: Vec<&str> = messages[0].tool_calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["local_shell", "mcp__files__read"]);
        assert_eq!(messages[0].tool_calls[0].arguments, r#"{"type":"exec","command":["ls"]}"#);
    }
}
