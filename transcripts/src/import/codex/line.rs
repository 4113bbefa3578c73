//! One line of a rollout as what it is to the rebuild. Knows the line types of every age, no other line.

use serde_json::{Map, Value};

use crate::call::Usage;
use crate::import::stamp::Stamp;
use crate::import::{items, number};

/// What one line says.
#[derive(Debug)]
pub(super) enum Entry {
    /// What the thread says of itself.
    Meta(Box<Meta>),
    /// An item of the thread.
    Item(Map<String, Value>),
    /// History was replaced: by these items, or by the summary and the person's messages.
    Compacted { summary: String, replacement: Option<Vec<Value>> },
    /// The newest turns of the person were taken back.
    RolledBack(u64),
    /// What the provider counted for a response; `None` where a row holds no count of one.
    Usage(Option<Usage>, Value),
    /// The model that answers from here on.
    Model(String),
    /// Copies for the screen and bookkeeping.
    Silent,
    /// A type that is not known.
    Unknown(String),
    /// A line without what its type must have.
    Bad(&'static str),
}

/// A thread's own description.
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub id: Option<String>,
    pub version: Option<String>,
    pub instructions: Option<String>,
    pub tools: Option<Vec<Value>>,
    /// The thread whose history it begins with.
    pub forked_from: Option<String>,
    /// The thread that started it as a sub-agent.
    pub parent: Option<String>,
}

/// Line types that say nothing about requests.
const SILENT: [&str; 5] =
    ["event_msg", "turn_context", "world_state", "inter_agent_communication", "rollout_reference"];
/// Line types with a payload.
const WITH_PAYLOAD: [&str; 5] =
    ["session_meta", "response_item", "compacted", "token_usage_record", "turn_context"];

/// True when an object's members are those of a rollout line.
pub(in crate::import) fn is_recognised(object: &Map<String, Value>) -> bool {
    let kind = object.get("type").and_then(Value::as_str);
    let Some(kind) = kind else {
        let is_state = object.get("record_type").is_some_and(Value::is_string);
        return is_state || is_flat_meta(object);
    };
    let known = WITH_PAYLOAD.contains(&kind) || SILENT.contains(&kind);
    known && object.get("payload").is_some_and(Value::is_object)
}

/// The first line of the oldest files: the thread's description without a type.
fn is_flat_meta(object: &Map<String, Value>) -> bool {
    let is_text = |name: &str| object.get(name).is_some_and(Value::is_string);
    let told = ["instructions", "git", "cwd", "originator", "cli_version"];
    is_text("id")
        && is_text("timestamp")
        && told.iter().any(|name| object.contains_key(*name))
        && !["messages", "history", "events", "metadata", "role"]
            .iter()
            .any(|name| object.contains_key(*name))
}

/// Reads one line, and when it was written.
pub(super) fn parse(mut object: Map<String, Value>) -> (Option<Stamp>, Entry) {
    let time = object.get("timestamp").and_then(Stamp::from_value);
    (time, entry(&mut object))
}

fn entry(object: &mut Map<String, Value>) -> Entry {
    let Some(kind) = object.get("type").and_then(Value::as_str).map(str::to_owned) else {
        return match is_flat_meta(object) {
            // Its instructions are the person's, and stand among the items again.
            true => Entry::Meta(Box::new(Meta { instructions: None, ..meta(object) })),
            false if object.contains_key("record_type") => Entry::Silent,
            false => Entry::Unknown("(no type)".to_owned()),
        };
    };
    if items::is_item(object) && !object.contains_key("payload") {
        return Entry::Item(std::mem::take(object));
    }
    let Some(Value::Object(mut payload)) = object.remove("payload") else {
        return match SILENT.contains(&kind.as_str()) || WITH_PAYLOAD.contains(&kind.as_str()) {
            true => Entry::Bad("a rollout line without a payload"),
            false => Entry::Unknown(kind),
        };
    };
    match kind.as_str() {
        "session_meta" => Entry::Meta(Box::new(meta(&payload))),
        "response_item" => Entry::Item(payload),
        "compacted" => {
            let replacement = match payload.remove("replacement_history") {
                Some(Value::Array(items)) => Some(items),
                _ => None,
            };
            let summary = payload.get("message").and_then(Value::as_str).unwrap_or("").to_owned();
            Entry::Compacted { summary, replacement }
        }
        "event_msg" => event(&payload),
        "token_usage_record" => Entry::Usage(payload.get("usage").and_then(usage), Value::Object(payload)),
        "turn_context" => match payload.get("model").and_then(Value::as_str) {
            Some(model) => Entry::Model(model.to_owned()),
            None => Entry::Silent,
        },
        kind if SILENT.contains(&kind) => Entry::Silent,
        _ => Entry::Unknown(kind),
    }
}

fn meta(payload: &Map<String, Value>) -> Meta {
    let text = |value: Option<&Value>| {
        value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let spawned = payload.get("source").and_then(|source| source.get("subagent"));
    let spawned_by = spawned.and_then(|agent| agent.get("thread_spawn")?.get("parent_thread_id"));
    let parent = spawned_by.or_else(|| payload.get("parent_thread_id").filter(|_| spawned.is_some()));
    let instructions = payload.get("base_instructions");
    let instructions = instructions.map(|given| given.get("text").unwrap_or(given));
    let tools = payload.get("dynamic_tools").and_then(Value::as_array).filter(|tools| !tools.is_empty());
    Meta {
        id: text(payload.get("id")).or_else(|| text(payload.get("session_id"))),
        version: text(payload.get("cli_version")),
        instructions: text(instructions),
        tools: tools.cloned(),
        forked_from: text(payload.get("forked_from_id")),
        parent: text(parent),
    }
}

fn event(payload: &Map<String, Value>) -> Entry {
    match payload.get("type").and_then(Value::as_str) {
        Some("token_count") => {
            let last = payload.get("info").and_then(|info| info.get("last_token_usage"));
            Entry::Usage(last.and_then(usage), payload.get("info").cloned().unwrap_or(Value::Null))
        }
        Some("thread_rolled_back") => {
            Entry::RolledBack(payload.get("num_turns").and_then(number::whole).unwrap_or(1))
        }
        Some(_) => Entry::Silent,
        None => Entry::Bad("an event without a type"),
    }
}

/// Counts of one response. The input holds the cached tokens.
pub(in crate::import) fn usage(usage: &Value) -> Option<Usage> {
    let count = |name: &str| usage.get(name).and_then(number::whole);
    let input = count("input_tokens")?;
    let details = usage.get("input_tokens_details").and_then(|details| details.get("cached_tokens"));
    let cached = count("cached_input_tokens").or_else(|| details.and_then(number::whole));
    let cache_read = cached.unwrap_or(0).min(input);
    let output = count("output_tokens").unwrap_or(0);
    Some(Usage { input: input - cache_read, cache_creation: 0, cache_read, output })
}
