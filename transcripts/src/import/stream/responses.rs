//! Events of the OpenAI Responses API. Source: OpenAI's API reference, "Streaming events". The last event holds the
//! whole response; where it is missing, or holds no output, the items are put together from the events before it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::events::Recorded;
use super::{append, place, text};

/// The response that the events make.
pub(super) fn assemble(recorded: &Recorded) -> (Value, bool) {
    let mut response = json!({});
    let mut is_whole = false;
    let mut items: BTreeMap<usize, Map<String, Value>> = BTreeMap::new();
    for event in &recorded.events {
        let kind = text(event, "type");
        if let Some(latest @ Value::Object(_)) = event.get("response") {
            response = latest.clone();
        }
        is_whole |= matches!(kind, "response.completed" | "response.incomplete");
        let at = place(event, "output_index");
        match (kind, event.get("item")) {
            ("response.output_item.added", Some(Value::Object(item))) => {
                items.entry(at).or_insert_with(|| item.clone());
            }
            ("response.output_item.done", Some(Value::Object(item))) => {
                items.insert(at, item.clone());
            }
            _ => {
                if let Some(item) = items.get_mut(&at) {
                    piece(item, kind, event);
                }
            }
        }
    }
    let has_output =
        response.get("output").and_then(Value::as_array).is_some_and(|output| !output.is_empty());
    if !has_output {
        response["output"] = items.into_values().map(Value::Object).collect::<Vec<_>>().into();
    }
    (response, is_whole)
}

/// Adds a piece to its item, or sets the whole text where it is said once more at its end.
fn piece(item: &mut Map<String, Value>, kind: &str, event: &Value) {
    let (list, index, part, name) = match kind.trim_end_matches(".delta").trim_end_matches(".done") {
        "response.output_text" => ("content", "content_index", "output_text", "text"),
        "response.refusal" => ("content", "content_index", "refusal", "refusal"),
        "response.reasoning_text" => ("content", "content_index", "reasoning_text", "text"),
        "response.reasoning_summary_text" => ("summary", "summary_index", "summary_text", "text"),
        "response.function_call_arguments" => return set(item, "arguments", kind, event),
        "response.custom_tool_call_input" => return set(item, "input", kind, event),
        _ => return,
    };
    let at = place(event, index);
    let parts = item.entry(list).or_insert_with(|| json!([]));
    if !parts.is_array() {
        *parts = json!([]);
    }
    let Some(parts) = parts.as_array_mut() else { return };
    while parts.len() <= at {
        parts.push(json!({"type": part, name: ""}));
    }
    if let Some(part) = parts[at].as_object_mut() {
        set(part, name, kind, event);
    }
}

/// The piece of an event of type `.delta`; the whole text, under the name of the member, of one of type `.done`.
fn set(object: &mut Map<String, Value>, name: &str, kind: &str, event: &Value) {
    if kind.ends_with(".delta") {
        append(object, name, text(event, "delta"));
    } else if let Some(whole @ Value::String(_)) = event.get(name) {
        object.insert(name.to_owned(), whole.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A response with an item of every kind that comes in pieces, as events.
    fn events() -> Vec<Value> {
        let output = json!([
            {"type": "reasoning", "id": "rs", "summary": [
                {"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}],
                "content": [{"type": "reasoning_text", "text": "why"}]},
            {"type": "message", "id": "msg", "role": "assistant", "content": [
                {"type": "output_text", "text": "hello"}, {"type": "refusal", "refusal": "no"}]},
            {"type": "function_call", "id": "fc", "call_id": "c1", "name": "ls", "arguments": "{ \"p\":1}"},
            {"type": "custom_tool_call", "id": "ct", "call_id": "c2", "name": "patch", "input": "*** Begin"},
        ]);
        let added = |index: usize, rest: Value| {
            let mut item = output[index].clone();
            item.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            json!({"type": "response.output_item.added", "output_index": index, "item": item})
        };
        let delta = |kind: &str, index: usize, part: usize, piece: &str| {
            json!({"type": format!("response.{kind}.delta"), "output_index": index, "content_index": part,
                "summary_index": part, "delta": piece})
        };
        let done = |index: usize| json!({"type": "response.output_item.done", "output_index": index, "item": output[index]});
        let created = json!({"id": "r", "model": "m", "status": "in_progress", "output": []});
        let completed = json!({"id": "r", "model": "m", "status": "completed", "output": output, "usage": {"input_tokens": 3}});
        vec![
            json!({"type": "response.created", "response": created}),
            added(0, json!({"summary": [], "content": null})),
            delta("reasoning_summary_text", 0, 0, "one"),
            delta("reasoning_summary_text", 0, 1, "two"),
            delta("reasoning_text", 0, 0, "why"),
            added(1, json!({"content": []})),
            delta("output_text", 1, 0, "hel"),
            added(2, json!({"arguments": ""})),
            delta("output_text", 1, 0, "lo"),
            delta("refusal", 1, 1, "no"),
            delta("function_call_arguments", 2, 0, "{ \"p\""),
            delta("function_call_arguments", 2, 0, ":1"),
            json!({"type": "response.function_call_arguments.done", "output_index": 2, "arguments": "{ \"p\":1}"}),
            added(3, json!({"input": ""})),
            delta("custom_tool_call_input", 3, 0, "*** "),
            delta("custom_tool_call_input", 3, 0, "Begin"),
            done(1),
            json!({"type": "response.completed", "response": completed}),
        ]
    }

    fn assembled(events: Vec<Value>) -> (Value, bool) {
        assemble(&Recorded { events, ..Recorded::default() })
    }

    #[test]
    fn pieces_give_what_the_last_event_holds() {
        let all = events();
        let (whole, is_whole) = assembled(all.clone());
        assert!(is_whole);
        assert_eq!(whole["usage"]["input_tokens"], 3);
        assert_eq!(whole["output"].as_array().unwrap().len(), 4);
        // Without the last event, and with one that holds no output.
        let (cut, is_whole) = assembled(all[..all.len() - 1].to_vec());
        assert_eq!((&cut["output"], is_whole), (&whole["output"], false));
        let mut empty = all.clone();
        empty.last_mut().unwrap()["response"]["output"] = json!([]);
        let (empty, is_whole) = assembled(empty);
        assert_eq!((&empty["output"], is_whole), (&whole["output"], true));
        // An item that is said whole once more replaces its pieces.
        let only_done = all.iter().filter(|event| event["type"] != "response.output_text.delta").cloned();
        let (only_done, _) = assembled(only_done.take(all.len() - 3).collect());
        assert_eq!(only_done["output"][1], whole["output"][1]);
    }

    #[test]
    fn a_response_that_failed_is_not_whole() {
        for (kind, expected) in [("failed", false), ("incomplete", true), ("completed", true)] {
            let (_, is_whole) = assembled(vec![json!({"type": format!("response.{kind}"), "response": {}})]);
            assert_eq!(is_whole, expected, "{kind}");
        }
    }

    #[test]
    fn a_place_beyond_any_answer_fills_no_list() {
        let item = json!({"type": "message", "role": "assistant", "content": 7});
        let (response, _) = assembled(vec![
            json!({"type": "response.output_item.added", "output_index": 0, "item": item}),
            json!({"type": "response.output_text.delta", "content_index": u64::MAX, "delta": "x"}),
        ]);
        assert_eq!(response["output"][0]["content"], json!([{"type": "output_text", "text": "x"}]));
    }
}
