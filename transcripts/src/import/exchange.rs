//! One recorded request with its answer, as proxies, gateways and SDKs log them: unwraps the several envelopes and
//! tells which API it speaks. Knows envelopes, not what the messages mean.

use serde_json::{Map, Value};

use super::chat;
use super::number;
use super::stamp::Stamp;
use super::stream::{self, Gaps};
use crate::session::SourceFormat;

/// A request body, its answer and the times around them.
#[derive(Debug)]
pub(super) struct Exchange {
    pub body: Map<String, Value>,
    /// The answer's body; of an answer that was streamed, what its events make.
    pub response: Option<Value>,
    /// What that body lacks.
    pub gaps: Gaps,
    pub started: Option<Stamp>,
    pub ended: Option<Stamp>,
}

/// Members that hold a request body, and those that hold an answer's.
const BODIES: [&str; 6] = ["request", "body", "request_body", "requestBody", "input_body", "payload"];
const ANSWERS: [&str; 8] = [
    "response",
    "response_body",
    "responseBody",
    "completion",
    "output_body",
    "response_chunks",
    "chunks",
    "events",
];
/// Members of an envelope that hold the body inside it; the last ones as the events of a stream.
const INNER: [&str; 5] = ["body", "body_raw", "streamed_data", "chunks", "events"];
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

/// Members that some logs put the parameters of a request into.
const PARAMETER_SETS: [&str; 3] = ["model_parameters", "optional_params", "kwargs"];

impl Exchange {
    /// Unwraps a record; `None` when no request is in it.
    pub fn of(value: Value) -> Option<Self> {
        let Value::Object(mut outer) = value else { return None };
        let times = Times::of(&outer);
        let mut answer = ANSWERS.iter().find_map(|name| Answer::of(outer.get(*name)?));
        let inner = BODIES.iter().find(|name| outer.get(**name).is_some_and(holds_a_body));
        let body = inner.and_then(|name| outer.remove(*name)).map(unwrapped);
        let body = match body {
            Some(Value::Object(body)) => body,
            _ => {
                // Some logs lay the answer beside the request's own members.
                let answers =
                    ["choices", "output"].iter().any(|name| outer.get(*name).is_some_and(Value::is_array));
                if answer.is_none() && answers {
                    answer = Some(Answer { body: Value::Object(outer.clone()), gaps: Gaps::default() });
                }
                outer
            }
        };
        let (response, gaps) = answer.map(|answer| (answer.body, answer.gaps)).unzip();
        let Times { started, ended } = times;
        Some(Self { body, response, gaps: gaps.unwrap_or_default(), started, ended })
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

    /// Takes the tool definitions out of the request, in the form of its API.
    pub fn take_tools(&mut self) -> Vec<Value> {
        let beside = PARAMETER_SETS
            .iter()
            .find_map(|name| self.body.get_mut(*name)?.get_mut("tools").map(Value::take));
        match self.body.remove("tools").filter(Value::is_array).or(beside) {
            Some(Value::Array(tools)) => tools,
            _ => Vec::new(),
        }
    }

    /// The model that was asked, as the answer or the request names it.
    pub fn model(&self) -> Option<String> {
        let answered = self.response.as_ref().and_then(|response| response.get("model"));
        answered.or_else(|| self.body.get("model")).and_then(Value::as_str).map(str::to_owned)
    }
}

/// An answer's body and what it lacks.
struct Answer {
    body: Value,
    gaps: Gaps,
}

impl Answer {
    /// Unwraps what a record holds of an answer; `None` for what is none.
    fn of(recorded: &Value) -> Option<Self> {
        let body = unwrapped(recorded.clone());
        if let Some(streamed) = stream::assembled(&body) {
            return Some(Self { body: streamed.answer, gaps: streamed.gaps });
        }
        (body.is_object() || body.is_string()).then(|| Self { body, gaps: Gaps::default() })
    }
}

/// When a request was sent and when its answer was there.
struct Times {
    started: Option<Stamp>,
    ended: Option<Stamp>,
}

impl Times {
    /// The times beside a request and its answer, and those in their envelopes.
    fn of(outer: &Map<String, Value>) -> Self {
        let time = |names: &[&str]| names.iter().find_map(|name| Stamp::from_value(outer.get(*name)?));
        let of_envelope = |names: &[&str]| {
            let mut envelopes = names.iter().filter_map(|name| outer.get(*name)?.as_object());
            envelopes.find_map(|envelope| Stamp::from_value(envelope.get("timestamp")?))
        };
        let started = time(&["start_time", "startTime", "started_at", "request_time", "request_timestamp"]);
        let mut started = started.or_else(|| of_envelope(&BODIES));
        let ended = time(&["end_time", "endTime", "ended_at", "response_timestamp"]);
        let mut ended = ended.or_else(|| of_envelope(&ANSWERS));
        let logged = time(&["timestamp", "time", "created_at"]);
        let latency = outer.get("latency_sec").and_then(number::real).filter(|seconds| *seconds >= 0.0);
        if let Some(seconds) = latency {
            // A record with a latency was written when the answer was there.
            ended = ended.or_else(|| logged.clone());
            let start = ended.as_ref().and_then(|ended| Stamp::from_ms(ended.ms - (seconds * 1000.0) as i64));
            started = started.or(start);
        }
        Self { started: started.or(logged), ended }
    }
}

/// A body inside its envelopes: a member of `INNER`, or JSON in a string.
fn unwrapped(mut value: Value) -> Value {
    for _ in 0..3 {
        value = match value {
            Value::String(text) => match serde_json::from_str(&text) {
                Ok(parsed) => parsed,
                Err(_) => return Value::String(text),
            },
            Value::Object(mut object) => match inner_of(&object) {
                Some(name) => object.remove(name).unwrap_or(Value::Null),
                None => return Value::Object(object),
            },
            other => return other,
        };
    }
    value
}

/// The member of an envelope that holds the body; `None` for a body.
fn inner_of(object: &Map<String, Value>) -> Option<&'static str> {
    let is_body =
        ["messages", "input", "choices", "output", "content"].iter().any(|name| object.contains_key(*name));
    let holds = |name: &&str| match object.get(*name) {
        Some(Value::Array(_)) => true,
        Some(Value::Object(_)) => *name == "body",
        Some(Value::String(text)) => !text.is_empty(),
        _ => false,
    };
    INNER.into_iter().filter(|_| !is_body).find(|name| holds(name))
}

fn holds_a_body(value: &Value) -> bool {
    let is_body = |value: &Value| value.get("messages").is_some() || value.get("input").is_some();
    match value {
        Value::String(text) => serde_json::from_str::<Value>(text).is_ok_and(|value| is_body(&value)),
        Value::Object(object) => match object.get("body").filter(|_| inner_of(object).is_some()) {
            Some(body) => is_body(body) || body.is_string(),
            None => is_body(value),
        },
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
    fn what_a_tracer_of_http_logs_is_read_with_its_times() {
        let body = json!({"model": "m", "system": "s", "messages": [{"role": "user", "content": "hi"}]});
        let events = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}\n\n\
            event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        let exchange = Exchange::of(json!({"logged_at": "2026-01-02T03:04:06Z",
            "request": {"timestamp": 1_767_323_045, "method": "POST", "body": body},
            "response": {"timestamp": 1_767_323_046.5, "status_code": 200, "body_raw": events}}));
        let exchange = exchange.unwrap();
        assert_eq!(exchange.format(), Some(SourceFormat::Anthropic));
        assert_eq!((exchange.response.unwrap()["content"].clone(), exchange.gaps.is_cut), (json!([]), false));
        assert_eq!(exchange.started.unwrap().ms, 1_767_323_045_000);
        assert_eq!(exchange.ended.unwrap().ms, 1_767_323_046_500);
    }

    #[test]
    fn tools_are_found_beside_the_messages_and_among_the_parameters() {
        let user = json!([{"role": "user", "content": "hi"}]);
        for value in [
            json!({"messages": user, "tools": [{"name": "ls"}]}),
            json!({"messages": user, "model_parameters": {"tools": [{"name": "ls"}]}}),
            json!({"messages": user, "tools": null, "optional_params": {"tools": [{"name": "ls"}]}}),
        ] {
            let mut exchange = Exchange::of(value.clone()).unwrap();
            assert_eq!(exchange.take_tools(), [json!({"name": "ls"})], "{value}");
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
