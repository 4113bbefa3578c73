//! Events of the Anthropic Messages API. Source: Anthropic's API documentation, "Streaming Messages".

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::events::Recorded;
use super::{append, place, text};
use crate::import::number;

/// The message that the events make.
pub(super) fn assemble(recorded: &Recorded) -> (Value, bool) {
    let mut message = Map::new();
    let mut blocks: BTreeMap<usize, Block> = BTreeMap::new();
    let mut is_whole = false;
    for event in &recorded.events {
        match text(event, "type") {
            "message_start" => {
                if let Some(Value::Object(start)) = event.get("message") {
                    message = start.clone();
                }
            }
            "content_block_start" => {
                if let Some(Value::Object(start)) = event.get("content_block") {
                    let block = Block { members: start.clone(), input: String::new() };
                    blocks.insert(place(event, "index"), block);
                }
            }
            "content_block_delta" => {
                if let (Some(delta), Some(block)) =
                    (event.get("delta"), blocks.get_mut(&place(event, "index")))
                {
                    block.take(delta);
                }
            }
            "message_delta" => {
                if let Some(Value::Object(delta)) = event.get("delta") {
                    is_whole |= delta.get("stop_reason").is_some_and(Value::is_string);
                    message.extend(delta.clone());
                }
                count(&mut message, event.get("usage"));
            }
            "message_stop" => is_whole = true,
            _ => {}
        }
    }
    for (name, value) in [("type", "message"), ("role", "assistant")] {
        message.insert(name.to_owned(), value.into());
    }
    let content: Vec<Value> = blocks.into_values().map(Block::finish).collect();
    // An answer of which nothing came is none.
    let content = if content.is_empty() && !is_whole { Value::Null } else { content.into() };
    message.insert("content".to_owned(), content);
    (Value::Object(message), is_whole)
}

/// Counts grow while an answer comes in, and some gateways leave the first ones at 0: of two the larger holds.
fn count(message: &mut Map<String, Value>, usage: Option<&Value>) {
    let Some(Value::Object(usage)) = usage else { return };
    let known = message.entry("usage").or_insert_with(|| json!({}));
    for (name, value) in usage {
        let is_more = number::whole(value) > known.get(name).and_then(number::whole);
        if let (Some(known), true) = (known.as_object_mut(), is_more) {
            known.insert(name.clone(), value.clone());
        }
    }
}

/// A content block while its pieces come in.
struct Block {
    members: Map<String, Value>,
    /// The input of a tool as JSON text.
    input: String,
}

impl Block {
    fn take(&mut self, delta: &Value) {
        match text(delta, "type") {
            "text_delta" => append(&mut self.members, "text", text(delta, "text")),
            "thinking_delta" => append(&mut self.members, "thinking", text(delta, "thinking")),
            "signature_delta" => append(&mut self.members, "signature", text(delta, "signature")),
            "input_json_delta" => self.input.push_str(text(delta, "partial_json")),
            // Citations are not part of what a model is sent.
            _ => {}
        }
    }

    /// The API sends the input parsed, and so the next request holds it; one that was cut off stays text.
    fn finish(mut self) -> Value {
        if !self.input.is_empty() {
            let input = serde_json::from_str(&self.input).unwrap_or(Value::String(self.input));
            self.members.insert("input".to_owned(), input);
        }
        Value::Object(self.members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(events: Value) -> (Value, bool) {
        let events = events.as_array().unwrap().clone();
        assemble(&Recorded { events, ..Recorded::default() })
    }

    fn start() -> Value {
        json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant",
            "content": [], "model": "x", "stop_reason": null,
            "usage": {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 1}}})
    }

    #[test]
    fn blocks_are_put_together_each_from_its_own_pieces() {
        let (message, is_whole) = assembled(json!([
            start(), {"type": "ping"},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "ls", "input": {}}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"p\": "}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "b"}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
            {"type": "content_block_stop", "index": 2},
            {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "u", "name": "ls", "input": {}}},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"input_tokens": 0, "output_tokens": 9}},
        ]));
        assert!(is_whole);
        assert_eq!(message["stop_reason"], "tool_use");
        assert_eq!(
            message["usage"],
            json!({"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 9})
        );
        let expected = json!([
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "ab"},
            {"type": "tool_use", "id": "t", "name": "ls", "input": {"p": 1}},
            {"type": "tool_use", "id": "u", "name": "ls", "input": {}},
        ]);
        assert_eq!(message["content"], expected);
    }

    #[test]
    fn what_was_cut_off_keeps_what_came() {
        let tool = json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "tool_use", "id": "t", "name": "ls", "input": {}}});
        let piece = json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": "{\"p\": "}});
        let (message, is_whole) = assembled(json!([start(), tool, piece]));
        assert_eq!((&message["content"][0]["input"], is_whole), (&json!("{\"p\": "), false));
        let (message, is_whole) = assembled(json!([start()]));
        assert_eq!((&message["content"], is_whole), (&Value::Null, false));
        let (message, is_whole) = assembled(json!([start(), {"type": "message_stop"}]));
        assert_eq!((&message["content"], is_whole), (&json!([]), true));
    }
}
