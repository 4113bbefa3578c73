//! Messages in the form of chat completions, as APIs, proxies and agents write them: role, content as text or parts,
//! reasoning under its several names, tool calls and their results. Knows this form, not where a message comes from.

use serde_json::{Map, Value};

use super::draft::Incoming;
use super::stamp::Stamp;
use super::{ImportedFile, image};
use crate::message::{Message, Origin, Part, Reasoning, Role, ToolCall};

/// Reads the messages of one list, in order: a result without a name takes that of the call it answers.
#[derive(Debug, Default)]
pub(super) struct ChatReader {
    /// Ids and names of the calls of the latest assistant message.
    calls: Vec<(String, String)>,
    /// Calls in the oldest form have no id; each gets its number.
    unnumbered: u32,
    /// Content parts of a type that is not known; they are left out.
    pub unknown_parts: u64,
}

/// True for a value that has a chat role and something to say.
pub(super) fn is_message(value: &Value) -> bool {
    let has = |name: &str| value.get(name).is_some();
    value.get("role").and_then(Value::as_str).is_some_and(|role| self::role(role).is_some())
        && (has("content") || has("tool_calls") || has("function_call"))
}

fn role(name: &str) -> Option<Role> {
    match name {
        "system" | "developer" => Some(Role::System),
        "user" => Some(Role::User),
        "assistant" => Some(Role::Assistant),
        "tool" | "function" => Some(Role::Tool),
        _ => None,
    }
}

impl ChatReader {
    /// Reads one message.
    ///
    /// # Errors
    /// Why the value is no message.
    pub fn read(&mut self, value: Value, origin: Origin) -> Result<Incoming, String> {
        let Value::Object(mut object) = value else {
            return Err(format!("a message is {}", super::lines::describe(&value)));
        };
        let name = object.get("role").and_then(Value::as_str).unwrap_or("").to_owned();
        let Some(role) = role(&name) else {
            return Err(format!("a message with the role {:?}", name.chars().take(40).collect::<String>()));
        };
        let mut message = Message { content: Vec::new(), origin, ..Message::text(role, "") };
        let mut reasoning = self.content(object.remove("content"), &mut message.content);
        if let Some(refusal) = object.get("refusal").and_then(Value::as_str) {
            push_text(&mut message.content, refusal.to_owned());
        }
        let mut reserialised = 0;
        match role {
            Role::Assistant => {
                reasoning = recorded_reasoning(&object).or(reasoning);
                reserialised = self.tool_calls(&mut object, &mut message.tool_calls);
                self.calls.clear();
                let named = message.tool_calls.iter().map(|call| (call.id.clone(), call.name.clone()));
                self.calls.extend(named);
                message.reasoning = reasoning;
            }
            Role::Tool => self.result(&object, &mut message),
            Role::System | Role::User => {}
        }
        Ok(Incoming { message, time: time(&object), reserialised })
    }

    /// Tells of parts that were left out because their type is not known.
    pub fn tell_unknown(&self, at: Origin, report: &mut ImportedFile) {
        if self.unknown_parts > 0 {
            let message = format!("{} content parts of a type that is not known", self.unknown_parts);
            report.bad_message(at.line, message);
        }
    }

    /// Takes the parts of a content value; returns reasoning that stands among them.
    fn content(&mut self, content: Option<Value>, parts: &mut Vec<Part>) -> Option<Reasoning> {
        let items = match content {
            Some(Value::String(text)) => {
                push_text(parts, text);
                return None;
            }
            Some(Value::Array(items)) => items,
            Some(Value::Object(part)) => vec![Value::Object(part)],
            _ => return None,
        };
        let mut reasoning = None;
        for item in items {
            match item {
                Value::String(text) => push_text(parts, text),
                Value::Object(part) => self.part(part, parts, &mut reasoning),
                _ => self.unknown_parts += 1,
            }
        }
        reasoning
    }

    fn part(
        &mut self,
        mut part: Map<String, Value>,
        parts: &mut Vec<Part>,
        reasoning: &mut Option<Reasoning>,
    ) {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text").to_owned();
        match kind.as_str() {
            "text" | "input_text" | "output_text" | "refusal" => {
                let text = ["text", "refusal"].iter().find_map(|name| part.remove(*name));
                push_text(parts, text.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default());
            }
            "image_url" | "input_image" => {
                let url = part.get("image_url");
                let url = url.and_then(|url| url.get("url").unwrap_or(url).as_str()).unwrap_or("");
                parts.push(image::from_url(url));
            }
            "image" | "document" => parts.push(image::placeholder(&part)),
            "input_audio" | "file" | "input_file" | "video_url" => {
                parts.push(image::from_url(&Value::Object(part).to_string()));
            }
            "thinking" | "reasoning" | "redacted_thinking" => {
                let text = ["thinking", "text"].iter().find_map(|name| part.get(*name)?.as_str());
                join_reasoning(reasoning, text.unwrap_or(""));
            }
            _ => self.unknown_parts += 1,
        }
    }

    /// Takes the tool calls in all their forms; returns how many had their arguments parsed.
    fn tool_calls(&mut self, object: &mut Map<String, Value>, calls: &mut Vec<ToolCall>) -> u64 {
        let mut reserialised = 0;
        let listed = match object.remove("tool_calls") {
            Some(Value::Array(listed)) => listed,
            _ => Vec::new(),
        };
        for call in listed {
            let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("").to_owned();
            let custom = call.get("custom").filter(|_| call.get("function").is_none());
            let body = call.get("function").or(custom).unwrap_or(&call);
            let given = body.get("arguments").or_else(|| body.get("input"));
            let (arguments, parsed) = arguments(given, custom.is_some());
            reserialised += u64::from(parsed);
            calls.push(ToolCall { id: text(call.get("id")), name: text(body.get("name")), arguments });
        }
        if let Some(call) = object.get("function_call").filter(|call| call.is_object() && calls.is_empty()) {
            self.unnumbered += 1;
            let (arguments, parsed) = arguments(call.get("arguments"), false);
            let name = call.get("name").and_then(Value::as_str).unwrap_or("").to_owned();
            calls.push(ToolCall { id: format!("function_call_{}", self.unnumbered), name, arguments });
            reserialised += u64::from(parsed);
        }
        reserialised
    }

    fn result(&self, object: &Map<String, Value>, message: &mut Message) {
        let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        let listed = object.get("tool_call_ids").and_then(Value::as_array);
        let id = text("tool_call_id").or_else(|| listed?.first()?.as_str().map(str::to_owned));
        // The oldest form has no ids: the result follows the one call there was.
        let id = id.or_else(|| self.calls.first().map(|(id, _)| id.clone()));
        let called = self.calls.iter().find(|(known, _)| Some(known) == id.as_ref());
        message.name = text("name").or_else(|| called.map(|(_, name)| name.clone()));
        message.tool_call_id = id;
        message.is_error = object.get("is_error").and_then(Value::as_bool).unwrap_or(false);
    }
}

/// The arguments as one string, and whether they were recorded parsed. Free text of a custom tool becomes the one
/// member of an object, because a function's arguments are an object.
pub(super) fn arguments(given: Option<&Value>, is_free_text: bool) -> (String, bool) {
    match given {
        Some(Value::String(text)) if is_free_text => (serde_json::json!({ "input": text }).to_string(), true),
        Some(Value::String(text)) => (text.clone(), false),
        None | Some(Value::Null) => ("{}".to_owned(), false),
        Some(value) => (value.to_string(), true),
    }
}

/// Appends a text; an empty one is none.
pub(super) fn push_text(parts: &mut Vec<Part>, text: String) {
    if !text.is_empty() {
        parts.push(Part::Text { text });
    }
}

/// Adds a piece of reasoning; an empty one says that there was some.
pub(super) fn join_reasoning(reasoning: &mut Option<Reasoning>, piece: &str) {
    match reasoning {
        Some(Reasoning::Text { text }) if !piece.is_empty() => {
            text.push('\n');
            text.push_str(piece);
        }
        Some(Reasoning::Text { .. }) => {}
        Some(Reasoning::Hidden) | None if piece.is_empty() => *reasoning = Some(Reasoning::Hidden),
        Some(Reasoning::Hidden) | None => *reasoning = Some(Reasoning::Text { text: piece.to_owned() }),
    }
}

/// Reasoning beside the content, under the names that servers use.
fn recorded_reasoning(object: &Map<String, Value>) -> Option<Reasoning> {
    let names = ["reasoning_content", "reasoning", "thinking"];
    let text = names.iter().find_map(|name| object.get(*name)?.as_str().filter(|text| !text.is_empty()));
    let mut reasoning = text.map(|text| Reasoning::Text { text: text.to_owned() });
    if reasoning.is_none() {
        let blocks = object.get("thinking_blocks").and_then(Value::as_array);
        for block in blocks.into_iter().flatten() {
            join_reasoning(&mut reasoning, block.get("thinking").and_then(Value::as_str).unwrap_or(""));
        }
    }
    reasoning
}

/// When the message was recorded, where it says so.
fn time(object: &Map<String, Value>) -> Option<Stamp> {
    let extra = object.get("extra").and_then(|extra| extra.get("timestamp"));
    object.get("timestamp").or(extra).and_then(Stamp::from_value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(values: Value) -> Vec<Message> {
        let mut reader = ChatReader::default();
        let values = values.as_array().unwrap().clone();
        values.into_iter().map(|value| reader.read(value, Origin::default()).unwrap().message).collect()
    }

    #[test]
    fn calls_of_every_age_are_paired() {
        let messages = read(json!([
            {"role": "assistant", "content": null, "tool_calls": [
                {"index": 1, "id": "c1", "type": "function", "function": {"name": "a", "arguments": "{ \"x\":1}"}},
                {"id": "c2", "type": "function", "function": {"name": "b", "arguments": {"y": 2}}},
                {"id": "c3", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}]},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "out"}]},
            {"role": "tool", "tool_call_ids": ["c1"], "content": "out"},
            {"role": "assistant", "content": "", "function_call": {"name": "old", "arguments": "{}"}},
            {"role": "function", "name": "old", "content": "out"},
        ]));
        let arguments: Vec<&str> =
            messages[0].tool_calls.iter().map(|call| call.arguments.as_str()).collect();
        assert_eq!(arguments, ["{ \"x\":1}", "{\"y\":2}", "{\"input\":\"*** Begin\"}"]);
        assert_eq!(messages[1].name.as_deref(), Some("b"));
        assert_eq!(messages[2].tool_call_id.as_deref(), Some("c1"));
        assert_eq!(messages[4].tool_call_id.as_deref(), Some("function_call_1"));
        assert_eq!(messages[3].tool_calls[0].id, "function_call_1");
    }

    #[test]
    fn reasoning_is_found_under_every_name() {
        for (fields, expected) in [
            (json!({"reasoning_content": "r"}), Some("r")),
            (json!({"reasoning": "r", "content": "c"}), Some("r")),
            (json!({"thinking_blocks": [{"thinking": "a"}, {"thinking": "b"}]}), Some("a\nb")),
            (
                json!({"content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "c"}]}),
                Some("t"),
            ),
            (json!({"content": "c", "reasoning_content": null}), None),
        ] {
            let mut message = fields.clone();
            message["role"] = json!("assistant");
            let read = read(json!([message]));
            assert_eq!(read[0].reasoning_text(), expected, "{fields}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_reason() {
        for value in [json!(3), json!({"role": "narrator", "content": "x"}), json!({"content": "x"})] {
            assert!(ChatReader::default().read(value.clone(), Origin::default()).is_err(), "{value}");
        }
    }
}
