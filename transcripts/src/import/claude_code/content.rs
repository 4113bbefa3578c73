//! The content of a message line, block by block: text, reasoning, tool calls, tool results, images. Knows the shapes
//! of blocks, not where a line stands in the tree.

use serde_json::{Map, Value};

use super::names::{Name, Names};
use crate::import::image;
use crate::message::{Part, ToolCall};

/// One content block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::import) enum Block {
    /// Text or a placeholder.
    Part(Part),
    /// Reasoning; empty when the file holds a signature or ciphertext only.
    Thinking(String),
    /// A tool call of the assistant.
    ToolUse(Name, ToolCall),
    /// A tool's answer, on the user side.
    ToolResult(Name, ToolResult),
}

/// The body of a tool result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::import) struct ToolResult {
    pub content: Vec<Part>,
    pub is_error: bool,
}

/// The blocks of one line.
#[derive(Debug, Default)]
pub(in crate::import) struct Content {
    pub blocks: Vec<Block>,
    /// Blocks of a type this importer does not know.
    pub unknown: u64,
}

/// Takes a content value apart: a string, or a list of blocks and bare strings. Empty texts are left out: an API
/// refuses them and the client does not send them.
pub(in crate::import) fn take(content: Option<Value>, names: &mut Names) -> Content {
    let mut taken = Content::default();
    match content {
        Some(Value::String(text)) => taken.push_text(text),
        Some(Value::Array(items)) => {
            for item in items {
                match item {
                    Value::String(text) => taken.push_text(text),
                    Value::Object(block) => taken.push_block(block, names),
                    _ => taken.unknown += 1,
                }
            }
        }
        Some(Value::Object(block)) => taken.push_block(block, names),
        _ => {}
    }
    taken
}

impl Content {
    fn push_text(&mut self, text: String) {
        if !text.is_empty() {
            self.blocks.push(Block::Part(Part::Text { text }));
        }
    }

    fn push_block(&mut self, mut block: Map<String, Value>, names: &mut Names) {
        let kind = block.get("type").and_then(Value::as_str).unwrap_or("").to_owned();
        match kind.as_str() {
            "text" => self.push_text(take_string(&mut block, "text")),
            "thinking" => self.blocks.push(Block::Thinking(take_string(&mut block, "thinking"))),
            "redacted_thinking" => self.blocks.push(Block::Thinking(String::new())),
            "image" | "document" => self.blocks.push(Block::Part(image::placeholder(&block))),
            "tool_use" => {
                let id = take_string(&mut block, "id");
                let name = take_string(&mut block, "name");
                let arguments = arguments(block.get("input"));
                self.blocks.push(Block::ToolUse(names.intern(&id), ToolCall { id, name, arguments }));
            }
            "tool_result" => {
                let id = take_string(&mut block, "tool_use_id");
                let is_error = block.get("is_error").and_then(Value::as_bool).unwrap_or(false);
                let content = result_parts(block.remove("content"));
                self.blocks.push(Block::ToolResult(names.intern(&id), ToolResult { content, is_error }));
            }
            // The provider runs these tools itself, inside the assistant's turn: there is no tool message to pair.
            _ if kind == "server_tool_use" || kind.ends_with("_tool_result") => {
                let text = Value::Object(block).to_string();
                self.push_text(text);
            }
            _ => self.unknown += 1,
        }
    }
}

/// The arguments as one string. The file holds them parsed, so the original bytes are lost: compact JSON in recorded
/// order. A string is taken as it is.
fn arguments(input: Option<&Value>) -> String {
    match input {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(input) => input.to_string(),
    }
}

/// The parts of a tool result: a string, or a list of texts, images, documents and tool references.
fn result_parts(content: Option<Value>) -> Vec<Part> {
    let items = match content {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::String(text)) => return text_part(text),
        Some(Value::Array(items)) => items,
        Some(other) => vec![other],
    };
    let mut parts = Vec::new();
    for item in items {
        match item {
            Value::String(text) => parts.extend(text_part(text)),
            Value::Object(mut block) => match block.get("type").and_then(Value::as_str).unwrap_or("") {
                "text" => parts.extend(text_part(take_string(&mut block, "text"))),
                "image" | "document" => parts.push(image::placeholder(&block)),
                _ => parts.extend(text_part(Value::Object(block).to_string())),
            },
            other => parts.extend(text_part(other.to_string())),
        }
    }
    parts
}

fn text_part(text: String) -> Vec<Part> {
    if text.is_empty() { Vec::new() } else { vec![Part::Text { text }] }
}

/// Takes a string member out of an object; empty when it is missing or no string.
pub(in crate::import) fn take_string(object: &mut Map<String, Value>, name: &str) -> String {
    match object.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(text: &str) -> Block {
        Block::Part(Part::Text { text: text.to_owned() })
    }

    #[test]
    fn strings_and_blocks_mix() {
        let mut names = Names::default();
        let content = json!(["bare", {"type": "text", "text": "block"}, {"type": "text", "text": ""},
            {"type": "thinking", "thinking": "", "signature": "s"}, {"type": "of_next_year"}, 7]);
        let taken = take(Some(content), &mut names);
        assert_eq!(taken.blocks, [text("bare"), text("block"), Block::Thinking(String::new())]);
        assert_eq!(taken.unknown, 2);
    }

    #[test]
    fn arguments_keep_their_recorded_order() {
        let mut names = Names::default();
        let content = json!([{"type": "tool_use", "id": "t", "name": "Read",
            "input": {"z": 1, "a": {"y": 1.5, "b": "\u{e9}\u{1F600}"}}}]);
        let taken = take(Some(content), &mut names);
        let Some(Block::ToolUse(_, call)) = taken.blocks.first() else { panic!("no tool call") };
        assert_eq!(call.arguments, "{\"z\":1,\"a\":{\"y\":1.5,\"b\":\"\u{e9}\u{1F600}\"}}");
    }

    #[test]
    fn a_result_is_a_string_or_a_list() {
        for (content, expected) in [
            (json!("out"), vec!["out"]),
            (json!([{"type": "text", "text": "a"}, "b"]), vec!["a", "b"]),
            (
                json!([{"type": "tool_reference", "tool_name": "X"}]),
                vec![r#"{"type":"tool_reference","tool_name":"X"}"#],
            ),
            (json!(null), vec![]),
        ] {
            let parts = result_parts(Some(content.clone()));
            let expected: Vec<Part> = expected.iter().flat_map(|&part| text_part(part.to_owned())).collect();
            assert_eq!(parts, expected, "{content}");
        }
    }
}
