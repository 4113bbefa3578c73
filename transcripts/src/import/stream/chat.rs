//! Chunks of a chat completion. Source: OpenAI's API reference, "The chat completion chunk object". Where servers differ
//! from it, what they mean is taken: parallel calls that all have the index 0, names and ids that are repeated.

use serde_json::{Map, Value, json};

use super::events::Recorded;
use super::{append, text};
use crate::import::number;

/// True for a chunk, and not for a completion.
pub(super) fn is_chunk(event: &Value) -> bool {
    let choices = event.get("choices").and_then(Value::as_array);
    let has_delta = || choices.into_iter().flatten().any(|choice| choice.get("delta").is_some());
    choices.is_some() && (text(event, "object") == "chat.completion.chunk" || has_delta())
}

/// The completion that the chunks make, of its first choice.
pub(super) fn assemble(recorded: &Recorded) -> (Value, bool) {
    let mut answer = json!({"object": "chat.completion", "choices": []});
    let mut message = MessageDraft::default();
    let mut finish_reason = Value::Null;
    for chunk in &recorded.events {
        for name in ["id", "model", "usage"] {
            if let Some(value) = chunk.get(name).filter(|value| !value.is_null()) {
                answer[name] = value.clone();
            }
        }
        let choices = chunk.get("choices").and_then(Value::as_array).into_iter().flatten();
        // The other choices were never sent on.
        for choice in choices.filter(|choice| choice.get("index").and_then(number::whole).unwrap_or(0) == 0) {
            if let Some(delta) = choice.get("delta") {
                message.take(delta);
            }
            if let Some(reason) = choice.get("finish_reason").filter(|reason| reason.is_string()) {
                finish_reason = reason.clone();
            }
        }
    }
    let is_whole = finish_reason.is_string() || recorded.is_done;
    if is_whole || !message.is_empty() {
        answer["choices"] =
            json!([{"index": 0, "message": message.finish(), "finish_reason": finish_reason}]);
    }
    (answer, is_whole)
}

/// A message while its pieces come in.
#[derive(Default)]
struct MessageDraft {
    parts: Vec<Value>,
    /// Reasoning, a refusal: texts beside the content.
    beside: Map<String, Value>,
    calls: Vec<CallDraft>,
    /// The oldest form of a call, which has no id.
    function_call: Option<CallDraft>,
}

/// A call while its pieces come in.
#[derive(Default)]
struct CallDraft {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    is_custom: bool,
}

impl MessageDraft {
    fn is_empty(&self) -> bool {
        self.parts.is_empty()
            && self.beside.is_empty()
            && self.calls.is_empty()
            && self.function_call.is_none()
    }

    fn take(&mut self, delta: &Value) {
        match delta.get("content") {
            Some(Value::String(piece)) => self.text(piece),
            Some(Value::Array(parts)) => parts.iter().for_each(|part| match part.get("text") {
                Some(Value::String(piece)) => self.text(piece),
                _ => self.parts.push(part.clone()),
            }),
            _ => {}
        }
        // Servers write reasoning under one of several names, some under two at once.
        let reasoning = ["reasoning_content", "reasoning", "thinking"].iter().map(|name| text(delta, name));
        for (name, piece) in [
            ("reasoning_content", reasoning.into_iter().find(|piece| !piece.is_empty()).unwrap_or("")),
            ("refusal", text(delta, "refusal")),
        ] {
            if !piece.is_empty() {
                append(&mut self.beside, name, piece);
            }
        }
        for piece in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            let call = self.call(piece);
            call.take(piece);
        }
        if let Some(piece) = delta.get("function_call").filter(|piece| piece.is_object()) {
            self.function_call.get_or_insert_default().body(piece, "arguments");
        }
    }

    fn text(&mut self, piece: &str) {
        match self.parts.last_mut().and_then(Value::as_object_mut) {
            Some(last) if last.get("type") == Some(&"text".into()) => append(last, "text", piece),
            _ if piece.is_empty() => {}
            _ => self.parts.push(json!({"type": "text", "text": piece})),
        }
    }

    /// The call that a piece goes on with, or a new one: by its place, and by an id that comes with a name.
    fn call(&mut self, piece: &Value) -> &mut CallDraft {
        let index = piece.get("index").and_then(number::whole);
        let id = text(piece, "id");
        let named = ["function", "custom"].iter().filter_map(|kind| piece.get(*kind));
        let has_name = named.into_iter().any(|body| !text(body, "name").is_empty());
        let goes_on = |call: &CallDraft| match (index, id) {
            (None, "") => true,
            (None, id) => call.id == id,
            (Some(_), id) => {
                call.index == index && (id.is_empty() || call.id.is_empty() || call.id == id || !has_name)
            }
        };
        let at = self.calls.iter().rposition(goes_on).unwrap_or_else(|| {
            self.calls.push(CallDraft { index, ..CallDraft::default() });
            self.calls.len() - 1
        });
        &mut self.calls[at]
    }

    fn finish(mut self) -> Value {
        let mut message = self.beside;
        message.insert("role".to_owned(), "assistant".into());
        let content = match self.parts.as_slice() {
            [] => Value::Null,
            [part] if part.get("type") == Some(&"text".into()) => part["text"].clone(),
            _ => Value::Array(self.parts),
        };
        message.insert("content".to_owned(), content);
        self.calls.sort_by_key(|call| call.index);
        if !self.calls.is_empty() {
            let calls: Vec<Value> = self.calls.into_iter().map(CallDraft::finish).collect();
            message.insert("tool_calls".to_owned(), calls.into());
        }
        if let Some(call) = self.function_call {
            let call = json!({"name": call.name, "arguments": call.arguments});
            message.insert("function_call".to_owned(), call);
        }
        Value::Object(message)
    }
}

impl CallDraft {
    fn take(&mut self, piece: &Value) {
        if self.id.is_empty() {
            text(piece, "id").clone_into(&mut self.id);
        }
        match (piece.get("function"), piece.get("custom")) {
            (Some(body), _) => self.body(body, "arguments"),
            (None, Some(body)) => {
                self.is_custom = true;
                self.body(body, "input");
            }
            (None, None) => {}
        }
    }

    fn body(&mut self, body: &Value, arguments: &str) {
        let name = text(body, "name");
        if self.name != name {
            self.name.push_str(name);
        }
        match body.get(arguments) {
            Some(Value::String(piece)) => self.arguments.push_str(piece),
            // Some servers send them parsed, and then at once.
            Some(whole @ Value::Object(_)) => self.arguments = whole.to_string(),
            _ => {}
        }
    }

    fn finish(self) -> Value {
        let Self { id, name, arguments, .. } = self;
        match self.is_custom {
            true => json!({"id": id, "type": "custom", "custom": {"name": name, "input": arguments}}),
            false => {
                json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chunks of these deltas, the last one with a finish reason.
    fn assembled(deltas: Value) -> (Value, bool) {
        let mut events: Vec<Value> =
            deltas.as_array().unwrap().iter().map(|delta| json!({"choices": [{"delta": delta}]})).collect();
        events.push(json!({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": null}));
        events.push(json!({"choices": [], "usage": {"prompt_tokens": 3}}));
        assemble(&Recorded { events, ..Recorded::default() })
    }

    fn calls(deltas: Value) -> Vec<(String, String, String)> {
        let (answer, _) = assembled(deltas);
        let calls = answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let call = |call: &Value| {
            (text(&call["id"]), text(&call["function"]["name"]), text(&call["function"]["arguments"]))
        };
        calls.iter().map(call).collect()
    }

    #[test]
    fn texts_are_joined_in_order_and_the_last_usage_counts() {
        let (answer, is_whole) = assembled(json!([
            {"role": "assistant", "content": "", "reasoning_content": "a"},
            {"reasoning": "b", "reasoning_content": "b", "content": null},
            {"content": "c"}, {"content": [{"type": "text", "text": "d"}]}, {"content": "e"},
        ]));
        let message = json!({"role": "assistant", "content": "cde", "reasoning_content": "ab"});
        assert!(is_whole);
        assert_eq!(answer["choices"], json!([{"index": 0, "message": message, "finish_reason": "stop"}]));
        assert_eq!(answer["usage"], json!({"prompt_tokens": 3}));
    }

    #[test]
    fn arguments_of_parallel_calls_stay_apart() {
        let expected = [("a", "x", "{\"p\":1}"), ("b", "y", "{}")]
            .map(|(id, name, arguments)| (id.to_owned(), name.to_owned(), arguments.to_owned()));
        for deltas in [
            // As documented, the pieces of two calls in turn.
            json!([
                {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "x", "arguments": ""}}]},
                {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "y", "arguments": "{"}},
                                {"index": 0, "function": {"arguments": "{\"p\":"}}]},
                {"tool_calls": [{"index": 1, "function": {"arguments": "}"}}, {"index": 0, "function": {"arguments": "1}"}}]},
            ]),
            // All calls have the index 0.
            json!([
                {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "x", "arguments": "{\"p\":1}"}}]},
                {"tool_calls": [{"index": 0, "id": "b", "function": {"name": "y", "arguments": "{}"}}]},
            ]),
            // No index.
            json!([
                {"tool_calls": [{"id": "a", "function": {"name": "x", "arguments": "{\"p\""}}]},
                {"tool_calls": [{"function": {"arguments": ":1}"}}]},
                {"tool_calls": [{"id": "b", "function": {"name": "y", "arguments": {}}}]},
            ]),
            // Ids and names are repeated; a new id without a name is of the same call.
            json!([
                {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "x", "arguments": "{\"p\":"}}]},
                {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "x", "arguments": "1"}}]},
                {"tool_calls": [{"index": 0, "id": "z", "function": {"name": "", "arguments": "}"}}]},
                {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "y", "arguments": "{}"}}]},
            ]),
        ] {
            assert_eq!(calls(deltas.clone()), expected, "{deltas}");
        }
    }

    #[test]
    fn calls_of_other_kinds_are_put_together_too() {
        let (answer, _) = assembled(json!([
            {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "patch", "input": "***"}}]},
            {"tool_calls": [{"index": 0, "custom": {"input": " Begin"}}]},
            {"function_call": {"name": "ls", "arguments": "{"}}, {"function_call": {"arguments": "}"}},
        ]));
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["tool_calls"][0]["custom"], json!({"name": "patch", "input": "*** Begin"}));
        assert_eq!(message["function_call"], json!({"name": "ls", "arguments": "{}"}));
    }

    #[test]
    fn an_answer_is_whole_with_its_reason_or_its_end_mark() {
        let events = vec![json!({"choices": [{"delta": {"content": "a"}}]})];
        for (is_done, expected) in [(false, false), (true, true)] {
            let (answer, is_whole) =
                assemble(&Recorded { events: events.clone(), is_done, ..Recorded::default() });
            assert_eq!(is_whole, expected);
            assert_eq!(answer["choices"][0]["message"]["content"], "a");
        }
        let role = vec![json!({"choices": [{"delta": {"role": "assistant", "content": ""}}]})];
        let (answer, is_whole) = assemble(&Recorded { events: role, ..Recorded::default() });
        assert_eq!((answer["choices"].as_array().unwrap().len(), is_whole), (0, false));
    }
}
