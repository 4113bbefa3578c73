//! Events of the OpenHands SDK, one JSON document each, told apart by `kind`. Knows the shapes of events, not their
//! order.

use serde_json::{Map, Value, json};

use super::view::{Answer, Effect};
use crate::import::chat::ChatReader;
use crate::import::draft::Incoming;
use crate::import::stamp::Stamp;
use crate::import::{number, tools};
use crate::message::{Message, Origin, Part, Role};

/// Why an event gives nothing.
#[derive(Debug)]
pub(super) enum Refused {
    /// A kind that is not known.
    Unknown(String),
    /// It lacks what its kind must have.
    Bad(String),
}

/// Kinds that say nothing about requests.
const SILENT: [&str; 6] = [
    "ConversationStateUpdateEvent",
    "CondensationRequest",
    "PauseEvent",
    "LLMCompletionLogEvent",
    "ConversationErrorEvent",
    "TokenEvent",
];
/// Kinds that do.
const KNOWN: [&str; 7] = [
    "SystemPromptEvent",
    "MessageEvent",
    "ActionEvent",
    "ObservationEvent",
    "UserRejectObservation",
    "AgentErrorEvent",
    "Condensation",
];

/// True for an event.
pub(super) fn is_event(object: &Map<String, Value>) -> bool {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or("");
    object.contains_key("id") && (KNOWN.contains(&kind) || SILENT.contains(&kind))
}

/// True for the state that lies beside the events.
pub(super) fn is_state(object: &Map<String, Value>) -> bool {
    object.contains_key("id") && object.get("agent").is_some_and(|agent| agent.get("llm").is_some())
}

/// What an event does.
pub(super) fn read(event: &mut Map<String, Value>, at: Origin) -> Result<Vec<Effect>, Refused> {
    if let Some(agent) = event.get("agent").filter(|agent| agent.get("llm").is_some()) {
        let model = agent.get("llm").and_then(|llm| llm.get("model")).and_then(Value::as_str);
        return Ok(model.map(|model| Effect::Model(model.to_owned())).into_iter().collect());
    }
    let kind = event.get("kind").and_then(Value::as_str).unwrap_or("").to_owned();
    let time = event.get("timestamp").and_then(Stamp::from_value);
    match kind.as_str() {
        "SystemPromptEvent" => Ok(system(event, at)),
        "MessageEvent" => message(event, at, time),
        "ActionEvent" => action(event, at, time),
        "ObservationEvent" | "UserRejectObservation" | "AgentErrorEvent" => result(event, &kind, at, time),
        "Condensation" => Ok(vec![condensation(event)]),
        kind if SILENT.contains(&kind) => Ok(Vec::new()),
        _ => Err(Refused::Unknown(kind)),
    }
}

fn system(event: &mut Map<String, Value>, at: Origin) -> Vec<Effect> {
    let mut content = Vec::new();
    for name in ["system_prompt", "dynamic_context"] {
        content.extend(event.get(name).map(parts).unwrap_or_default());
    }
    let prompt = Message { content, origin: at, ..Message::text(Role::System, "") };
    let mut effects = vec![Effect::Message { incoming: Box::new(prompt.into()), is_rendered: false }];
    if let Some(Value::Array(given)) = event.remove("tools") {
        let definitions = tools::to_chat(given);
        // Some versions save how a tool is built and not what the model is told of it.
        if definitions.iter().all(|tool| tool.get("function").is_some()) {
            effects.push(Effect::Tools(definitions));
        }
    }
    effects
}

fn message(event: &mut Map<String, Value>, at: Origin, time: Option<Stamp>) -> Result<Vec<Effect>, Refused> {
    let Some(message) = event.remove("llm_message") else {
        return Err(Refused::Bad("a message event without a message".to_owned()));
    };
    let mut incoming = ChatReader::default().read(message, at).map_err(Refused::Bad)?;
    incoming.time = time;
    let extended = event.get("extended_content").map(parts).unwrap_or_default();
    incoming.message.content.extend(extended);
    if incoming.message.role == Role::Assistant {
        return Ok(vec![answer(event, incoming)]);
    }
    Ok(vec![Effect::Message { incoming: Box::new(incoming), is_rendered: false }])
}

fn answer(event: &Map<String, Value>, incoming: Incoming) -> Effect {
    let id = event.get("llm_response_id").and_then(Value::as_str).filter(|id| !id.is_empty());
    let answer = Answer { incoming, id: id.map(str::to_owned), model: None, usage: None };
    Effect::Answer(Box::new(answer))
}

/// An action with the thought before it. The call is kept as the model wrote it where the event has it, else its parsed
/// arguments stand for it.
fn action(event: &mut Map<String, Value>, at: Origin, time: Option<Stamp>) -> Result<Vec<Effect>, Refused> {
    let mut call = event.remove("tool_call").unwrap_or_default();
    if let Value::Object(call) = &mut call {
        for (from, to) in [("tool_call_id", "id"), ("tool_name", "name")] {
            if !call.contains_key(to) && !call.contains_key("function") {
                call.insert(to.to_owned(), event.get(from).cloned().unwrap_or_default());
            }
        }
        if !call.contains_key("id") {
            call.insert("id".to_owned(), event.get("tool_call_id").cloned().unwrap_or_default());
        }
    } else {
        let field = |name: &str| event.get(name).cloned().unwrap_or_default();
        call = json!({"id": field("tool_call_id"),
            "function": {"name": field("tool_name"), "arguments": arguments(event.get("action"))}});
    }
    let mut message = Map::new();
    message.insert("role".to_owned(), "assistant".into());
    message.insert("tool_calls".to_owned(), Value::Array(vec![call]));
    for (from, to) in [
        ("thought", "content"),
        ("reasoning_content", "reasoning_content"),
        ("thinking_blocks", "thinking_blocks"),
    ] {
        message.extend(event.remove(from).map(|value| (to.to_owned(), value)));
    }
    let mut incoming = ChatReader::default().read(Value::Object(message), at).map_err(Refused::Bad)?;
    incoming.time = time;
    Ok(vec![answer(event, incoming)])
}

/// The arguments of an action: its members but the kind.
fn arguments(action: Option<&Value>) -> Value {
    let members = action.and_then(Value::as_object).cloned().unwrap_or_default();
    Value::Object(members.into_iter().filter(|(name, _)| name != "kind").collect())
}

fn result(
    event: &mut Map<String, Value>,
    kind: &str,
    at: Origin,
    time: Option<Stamp>,
) -> Result<Vec<Effect>, Refused> {
    let text = |name: &str| event.get(name).and_then(Value::as_str).map(str::to_owned);
    let Some(id) = text("tool_call_id") else {
        return Err(Refused::Bad(format!("{kind} without the id of its call")));
    };
    let (content, is_rendered) = match kind {
        "AgentErrorEvent" => (vec![text_part(text("error").unwrap_or_default())], false),
        "UserRejectObservation" => {
            let reason = text("rejection_reason").unwrap_or_default();
            (vec![text_part(format!("Action rejected: {reason}"))], false)
        }
        _ => rendered(event.get("observation")),
    };
    let is_error = kind == "AgentErrorEvent"
        || event.get("observation").and_then(|observation| observation.get("is_error"))
            == Some(&Value::Bool(true));
    let message = Message { content, origin: at, is_error, ..Message::text(Role::Tool, "") };
    let message = Message { tool_call_id: Some(id), name: text("tool_name"), ..message };
    let incoming = Box::new(Incoming { time, ..message.into() });
    Ok(vec![Effect::Message { incoming, is_rendered }])
}

/// The text of an observation: its content where the client saved it as it is sent, else its own words, and whether
/// the rendering is ours.
pub(super) fn rendered(observation: Option<&Value>) -> (Vec<Part>, bool) {
    let Some(observation) = observation else { return (Vec::new(), true) };
    if let Some(content) = observation.get("content").filter(|content| content.is_array()) {
        return (parts(content), false);
    }
    let names = ["content", "output", "text", "error", "message"];
    let text = names.iter().find_map(|name| observation.get(*name)?.as_str());
    (vec![text_part(text.map(str::to_owned).unwrap_or_else(|| observation.to_string()))], true)
}

fn condensation(event: &Map<String, Value>) -> Effect {
    let forgotten = event.get("forgotten_event_ids").and_then(Value::as_array).into_iter().flatten();
    let summary = event.get("summary").and_then(Value::as_str).filter(|summary| !summary.is_empty());
    let offset = event.get("summary_offset").and_then(number::whole);
    let offset = offset.and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0);
    Effect::Condensed {
        forgotten: forgotten.filter_map(Value::as_str).map(str::to_owned).collect(),
        summary: summary.map(|summary| (summary.to_owned(), offset)),
    }
}

/// A text part, a list of them, or a string.
fn parts(value: &Value) -> Vec<Part> {
    let message = json!({"role": "user", "content": value});
    ChatReader::default()
        .read(message, Origin::default())
        .map(|read| read.message.content)
        .unwrap_or_default()
}

fn text_part(text: String) -> Part {
    Part::Text { text }
}
