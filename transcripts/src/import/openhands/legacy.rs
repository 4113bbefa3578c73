//! Events of OpenHands before the SDK: actions and observations, with the model's whole response in the metadata of
//! what it led to. Knows the shapes of events, not their order.

use serde_json::{Map, Value};

use super::sdk::Refused;
use super::view::{Answer, Effect};
use crate::import::chat::ChatReader;
use crate::import::draft::Incoming;
use crate::import::openai_chat;
use crate::import::stamp::Stamp;
use crate::import::tools;
use crate::message::{Message, Origin, Role};

/// Observations that the agent is never shown.
const SILENT: [&str; 4] = ["agent_state_changed", "null", "recall", "user_rejected"];

/// True for an event.
pub(super) fn is_event(object: &Map<String, Value>) -> bool {
    let told = object.contains_key("action") || object.contains_key("observation");
    told && object.contains_key("source")
        && object.contains_key("id")
        && (object.contains_key("args") || object.contains_key("extras") || object.contains_key("content"))
}

/// What an event does.
pub(super) fn read(event: &mut Map<String, Value>, at: Origin) -> Result<Vec<Effect>, Refused> {
    let time = event.get("timestamp").and_then(Stamp::from_value);
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    let (action, observation, source) = (text("action"), text("observation"), text("source"));
    let metadata = event.get("tool_call_metadata").filter(|metadata| metadata.is_object()).cloned();
    if !observation.is_empty() {
        let silent = SILENT.contains(&observation.as_str());
        return Ok(if silent { Vec::new() } else { vec![result(event, metadata, at, time)] });
    }
    if action.is_empty() {
        return Err(Refused::Unknown("event".to_owned()));
    }
    if let Some(response) =
        metadata.and_then(|mut metadata| metadata.get_mut("model_response").map(Value::take))
    {
        return answer(response, at, time).map(|effect| vec![effect]);
    }
    let args = event.get("args").cloned().unwrap_or_default();
    let content = args.get("content").and_then(Value::as_str).unwrap_or("").to_owned();
    let role = match (action.as_str(), source.as_str()) {
        ("system", _) => Role::System,
        ("message", "user") => Role::User,
        ("message", "agent") => Role::Assistant,
        _ => return Ok(Vec::new()),
    };
    let message = Message { origin: at, ..Message::text(role, content) };
    let incoming = Incoming { time, ..message.into() };
    if role == Role::Assistant {
        let answer = Answer { incoming, id: None, model: None, usage: None };
        return Ok(vec![Effect::Answer(Box::new(answer))]);
    }
    let mut effects = vec![Effect::Message { incoming: Box::new(incoming), is_rendered: false }];
    if let Some(given) = args.get("tools").and_then(Value::as_array).filter(|_| role == Role::System) {
        effects.push(Effect::Tools(tools::to_chat(given.clone())));
    }
    Ok(effects)
}

/// The model's response, which every action it led to carries whole.
fn answer(response: Value, at: Origin, time: Option<Stamp>) -> Result<Effect, Refused> {
    let text = |name: &str| response.get(name).and_then(Value::as_str).map(str::to_owned);
    let (id, model) = (text("id"), text("model"));
    let usage = response.get("usage").and_then(openai_chat::usage);
    let message = response.pointer("/choices/0/message").cloned().unwrap_or_default();
    let mut incoming = ChatReader::default().read(message, at).map_err(Refused::Bad)?;
    if incoming.message.role != Role::Assistant {
        return Err(Refused::Bad("a response that is not by the assistant".to_owned()));
    }
    incoming.time = time;
    Ok(Effect::Answer(Box::new(Answer { incoming, id, model, usage })))
}

/// An observation: the result of a call, or what the agent is told as a user.
fn result(event: &Map<String, Value>, metadata: Option<Value>, at: Origin, time: Option<Stamp>) -> Effect {
    let content = event.get("content").and_then(Value::as_str).unwrap_or("").to_owned();
    let field =
        |name: &str| metadata.as_ref().and_then(|metadata| metadata.get(name)?.as_str().map(str::to_owned));
    let message = match field("tool_call_id") {
        Some(id) => {
            let message = Message { origin: at, ..Message::text(Role::Tool, content) };
            Message { tool_call_id: Some(id), name: field("function_name"), ..message }
        }
        None => Message { synthetic: true, origin: at, ..Message::text(Role::User, content) },
    };
    // The agent adds a line or two to what an observation holds.
    Effect::Message { incoming: Box::new(Incoming { time, ..message.into() }), is_rendered: true }
}
