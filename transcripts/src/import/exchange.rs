//! One recorded request with its answer, as proxies, gateways and SDKs log them: unwraps the several envelopes and
//! tells which API it speaks. Knows envelopes, not what the messages mean.

use serde_json::{Map, Value};

use super::chat;
use super::stamp::Stamp;
use crate::session::SourceFormat;

/// A request body, its answer and the times around them.
#[derive(Debug)]
pub(super) struct Exchange {
    pub body: Map<String, Value>,
    /// The answer's body.
    pub response: Option<Value>,
    pub started: Option<Stamp>,
    pub ended: Option<Stamp>,
}

/// Members that hold a request body, and those that hold an answer's.
const BODIES: [&str; 6] = ["request", "body", "request_body", "requestBody", "input_body", "payload"];
const ANSWERS: [&str; 5] = ["response", "response_body", "responseBody", "completion", "output_body"];
/// Members that only a request body has.
const PARAMETERS: [&str; 8] = [
    "model",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "stream",
    "kwargs",
    "tool_choice",
    "top_p",
];

impl Exchange {
    /// Unwraps a record; `None` when no request is in it.
    pub fn of(value: Value) -> Option<Self> {
        let Value::Object(mut outer) = value else { return None };
        let mut response = ANSWERS.iter().find_map(|name| outer.get(*name)).cloned().map(unwrapped);
        let inner = BODIES.iter().find(|name| outer.get(**name).is_some_and(holds_a_body));
        let body = inner.and_then(|name| outer.remove(*name)).map(unwrapped);
        let (body, outer) = match body {
            Some(Value::Object(body)) => (body, outer),
            _ => {
                // Some logs lay the answer beside the request's own members.
                let answers =
                    ["choices", "output"].iter().any(|name| outer.get(*name).is_some_and(Value::is_array));
                if response.is_none() && answers {
                    response = Some(Value::Object(outer.clone()));
                }
                (outer.clone(), outer)
            }
        };
        let response = response.filter(|response| response.is_object() || response.is_string());
        let time = |names: &[&str]| names.iter().find_map(|name| Stamp::from_value(outer.get(*name)?));
        let mut started =
            time(&["start_time", "startTime", "started_at", "request_time", "request_timestamp"]);
        let mut ended = time(&["end_time", "endTime", "ended_at", "response_timestamp"]);
        let logged = time(&["timestamp", "time", "created_at"]);
        let latency = outer.get("latency_sec").and_then(Value::as_f64).filter(|seconds| *seconds >= 0.0);
        if let Some(seconds) = latency {
            // A record with a latency was written when the answer was there.
            ended = ended.or_else(|| logged.clone());
            let start = ended.as_ref().and_then(|ended| Stamp::from_ms(ended.ms - (seconds * 1000.0) as i64));
            started = started.or(start);
        }
        started = started.or(logged);
        Some(Self { body, response, started, ended })
    }

    /// Which API the request speaks; `None` when it is none.
    pub fn format(&self) -> Option<SourceFormat> {
        let body = &self.body;
        let Some(messages) = body.get("messages").and_then(Value::as_array) else {
            let has_input = body.get("input").is_some_and(|input| input.is_array() || input.is_string());
            let is_responses = body.contains_key("model")
                || body.contains_key("previous_response_id")
                || self.response.as_ref().is_some_and(|response| response.get("output").is_some());
            return (has_input && is_responses).then_some(SourceFormat::Responses);
        };
        if messages.is_empty() || !messages.iter().any(chat::is_message) {
            return None;
        }
        if self.is_anthropic(messages) {
            return Some(SourceFormat::Anthropic);
        }
        let ends_in_answer = messages.last().and_then(|last| last.get("role")) == Some(&"assistant".into());
        let is_request = PARAMETERS.iter().any(|name| body.contains_key(*name)) && !ends_in_answer;
        (self.response.is_some() || is_request).then_some(SourceFormat::OpenaiChat)
    }

    fn is_anthropic(&self, messages: &[Value]) -> bool {
        let tools = self.body.get("tools").and_then(Value::as_array);
        let block_of = |kinds: &'static [&'static str]| {
            let blocks = messages.iter().filter_map(|message| message.get("content")?.as_array()).flatten();
            blocks.filter_map(|block| block.get("type")?.as_str()).any(|kind| kinds.contains(&kind))
        };
        let answer_is_message = self.response.as_ref().is_some_and(|response| {
            response.get("type") == Some(&"message".into()) && response.get("content").is_some()
        });
        answer_is_message
            || self.body.get("system").is_some_and(|system| system.is_string() || system.is_array())
            || tools.into_iter().flatten().any(|tool| tool.get("input_schema").is_some())
            || block_of(&["tool_use", "tool_result", "thinking", "redacted_thinking"])
    }

    /// The model that was asked, as the answer or the request names it.
    pub fn model(&self) -> Option<String> {
        let answered = self.response.as_ref().and_then(|response| response.get("model"));
        answered.or_else(|| self.body.get("model")).and_then(Value::as_str).map(str::to_owned)
    }
}

/// A body inside its envelopes: a `body` member, or JSON in a string.
fn unwrapped(mut value: Value) -> Value {
    for _ in 0..3 {
        value = match value {
            Value::String(text) => match serde_json::from_str(&text) {
                Ok(parsed) => parsed,
                Err(_) => return Value::String(text),
            },
            Value::Object(mut object) if is_envelope(&object) => object.remove("body").unwrap_or(Value::Null),
            other => return other,
        };
    }
    value
}

fn is_envelope(object: &Map<String, Value>) -> bool {
    let is_body =
        ["messages", "input", "choices", "output", "content"].iter().any(|name| object.contains_key(*name));
    !is_body && object.get("body").is_some_and(|body| body.is_object() || body.is_string())
}

fn holds_a_body(value: &Value) -> bool {
    let is_body = |value: &Value| value.get("messages").is_some() || value.get("input").is_some();
    match value {
        Value::String(text) => serde_json::from_str::<Value>(text).is_ok_and(|value| is_body(&value)),
        Value::Object(object) if is_envelope(object) => {
            object.get("body").is_some_and(|body| is_body(body) || body.is_string())
        }
        other => is_body(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn format(value: Value) -> Option<SourceFormat> {
        Exchange::of(value).and_then(|exchange| exchange.format())
    }

    #[test]
    fn every_envelope_gives_its_request() {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        let answer = json!({"choices": [{"message": {"role": "assistant", "content": "yes"}}]});
        for value in [
            json!({"model": "m", "messages": body["messages"], "response": answer}),
            json!({"request": body, "response": answer}),
            json!({"request": {"method": "POST", "body": body}, "response": {"status": 200, "body": answer}}),
            json!({"custom_id": "1", "url": "/v1/chat/completions", "body": body, "response": answer}),
            json!({"request_body": body.to_string(), "response_body": answer.to_string()}),
            json!({"messages": body["messages"], "choices": answer["choices"]}),
        ] {
            let exchange = Exchange::of(value.clone()).unwrap();
            assert_eq!(exchange.format(), Some(SourceFormat::OpenaiChat), "{value}");
            assert_eq!(exchange.body["messages"], body["messages"], "{value}");
            assert_eq!(exchange.response.unwrap()["choices"], answer["choices"], "{value}");
        }
    }

    #[test]
    fn the_api_is_told_by_the_body() {
        let user = json!([{"role": "user", "content": "hi"}]);
        let used = json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]);
        for (value, expected) in [
            (json!({"model": "m", "messages": user}), Some(SourceFormat::OpenaiChat)),
            (json!({"model": "m", "messages": used}), Some(SourceFormat::Anthropic)),
            (json!({"model": "m", "messages": user, "system": "s"}), Some(SourceFormat::Anthropic)),
            (json!({"model": "m", "input": "hi"}), Some(SourceFormat::Responses)),
            (json!({"input": [], "response": {"output": []}}), Some(SourceFormat::Responses)),
            (json!({"messages": user}), None),
            (json!({"model": "m", "messages": []}), None),
            (json!({"input": "hi"}), None),
        ] {
            assert_eq!(format(value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn the_start_follows_from_the_end_and_the_latency() {
        let value = json!({"messages": [{"role": "user", "content": "hi"}], "response": {},
            "timestamp": 1_767_323_045.5, "latency_sec": 2.5});
        let exchange = Exchange::of(value).unwrap();
        assert_eq!(exchange.started.unwrap().ms, 1_767_323_043_000);
    }
}
