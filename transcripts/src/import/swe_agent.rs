//! SWE-agent trajectories. Where an entry holds its input (`query`, or `messages` of the entry before), the calls are
//! what was sent; else they follow `history`, from which the agent's own processors had elided more. Knows this format
//! and no other.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::ImportedFile;
use super::chat::{self, ChatReader};
use super::draft::{Draft, DraftCall, Incoming, Occurrences, Store};
use super::group::{GroupFile, GroupImport};
use super::records::Record;
use crate::call::BreakCause;
use crate::fidelity::Reason;
use crate::message::{Message, Origin, Role};
use crate::session::{IssueKind, Kind, Session, SourceFormat};

/// True for a trajectory document.
pub(super) fn is_recognised(object: &Map<String, Value>) -> bool {
    let list = |name: &str| object.get(name).and_then(Value::as_array);
    let entry = |entry: &Value| entry.get("action").is_some() && entry.get("observation").is_some();
    let of_agent = |message: &Value| {
        chat::is_message(message)
            && ["agent", "message_type", "is_demo"].iter().any(|name| message.get(name).is_some())
    };
    list("trajectory").is_some_and(|entries| entries.iter().take(4).any(entry))
        || list("history").is_some_and(|history| history.iter().take(16).any(of_agent))
}

/// Imports trajectories, each a session of its own.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn import(files: Vec<GroupFile>) -> Result<GroupImport, (String, std::io::Error)> {
    let mut store = Store::default();
    let mut drafts = Vec::new();
    let mut imported = Vec::new();
    for (number, file) in files.into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        imported.push(file.read(|Record { line, value }, report| {
            let at = Origin { file: number, line };
            match value {
                Value::Object(trajectory) if is_recognised(&trajectory) => {
                    let number = drafts.len();
                    let id = if number == 0 { file.stem.clone() } else { format!("{}-{number}", file.stem) };
                    read(trajectory, &id, at, &mut store, report, &mut drafts);
                }
                _ => report.bad_message(line, "no trajectory"),
            }
        })?);
    }
    let sessions: Vec<Session> =
        drafts.into_iter().filter_map(|draft| draft.finish(&store, &mut imported)).collect();
    Ok(GroupImport::new(sessions, imported))
}

fn read(
    mut trajectory: Map<String, Value>,
    id: &str,
    at: Origin,
    store: &mut Store,
    report: &mut ImportedFile,
    drafts: &mut Vec<Draft>,
) {
    let mut list = |name: &str| match trajectory.remove(name) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let (entries, history) = (list("trajectory"), list("history"));
    let has_inputs =
        |entry: &Value| ["query", "messages"].iter().any(|name| entry.get(name).is_some_and(Value::is_array));
    if entries.iter().any(has_inputs) {
        drafts.push(from_inputs(entries, history, id, at, store, report));
        return;
    }
    let first = drafts.len();
    for (agent, messages) in by_agent(history) {
        let mut draft = from_history(messages, at, store, report);
        draft.id = if drafts.len() == first { id.to_owned() } else { format!("{id}-{agent}") };
        if drafts.len() > first {
            draft.kind = Kind::Subagent { parent_session_id: id.to_owned(), parent_call_index: None };
        }
        drafts.push(draft);
    }
}

/// The messages of each agent, the first agent first.
fn by_agent(history: Vec<Value>) -> Vec<(String, Vec<Value>)> {
    let mut agents: Vec<(String, Vec<Value>)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for message in history {
        let agent = message.get("agent").and_then(Value::as_str).unwrap_or("main").to_owned();
        let place = *places.entry(agent.clone()).or_insert(agents.len());
        match agents.get_mut(place) {
            Some((_, messages)) => messages.push(message),
            None => agents.push((agent, vec![message])),
        }
    }
    agents
}

/// True for a demonstration: it is sent, but its turns are nobody's calls.
fn is_demo(message: &Value) -> bool {
    message.get("is_demo").and_then(Value::as_bool).unwrap_or(false)
}

fn from_history(messages: Vec<Value>, at: Origin, store: &mut Store, report: &mut ImportedFile) -> Draft {
    let mut draft = new_draft(at);
    draft.reasons.push(Reason::HistoryUnprocessed);
    let mut chat = ChatReader::default();
    let mut history = Vec::new();
    for message in messages {
        let is_demo = is_demo(&message);
        let incoming = match chat.read(message, at) {
            Ok(incoming) => incoming,
            Err(reason) => {
                report.bad_message(at.line, reason);
                continue;
            }
        };
        let is_turn = incoming.message.role == Role::Assistant && !is_demo;
        let index = store.push(incoming);
        if is_turn {
            draft.push(&history, DraftCall { completion: index, ..DraftCall::default() }, store);
        }
        history.push(index);
    }
    chat.tell_unknown(at, report);
    draft
}

fn new_draft(at: Origin) -> Draft {
    let mut draft = Draft::new(String::new(), SourceFormat::SweAgent);
    draft.files.insert(at.file);
    draft
}

/// Calls with their recorded inputs. The first entry of the older form has none: it is what `history` begins with.
fn from_inputs(
    entries: Vec<Value>,
    history: Vec<Value>,
    id: &str,
    at: Origin,
    store: &mut Store,
    report: &mut ImportedFile,
) -> Draft {
    let mut draft = new_draft(at);
    id.clone_into(&mut draft.id);
    let opening = history.iter().take_while(|message| {
        is_demo(message) || message.get("role").and_then(Value::as_str) != Some("assistant")
    });
    let mut next: Option<Vec<Value>> = Some(opening.cloned().collect());
    let turns = history.iter().filter(|message| {
        !is_demo(message) && message.get("role").and_then(Value::as_str) == Some("assistant")
    });
    let mut turns = turns.cloned();
    for entry in entries {
        let turn = turns.next();
        let Value::Object(mut entry) = entry else {
            report.bad_message(at.line, "an entry of the trajectory that is no object");
            // What it was sent goes with it, and what came next is not recorded.
            next = None;
            continue;
        };
        let query = match entry.remove("query") {
            Some(Value::Array(query)) => Some(query),
            _ => next.take(),
        };
        next = match entry.remove("messages") {
            Some(Value::Array(messages)) => Some(messages),
            _ => None,
        };
        let Some(query) = query.filter(|query| !query.is_empty()) else {
            draft.issue(IssueKind::NoRequest, at);
            continue;
        };
        let mut chat = ChatReader::default();
        let mut seen = Occurrences::default();
        let mut prefix = Vec::new();
        for message in query {
            match chat.read(message, at) {
                Ok(incoming) => prefix.push(store.intern(incoming, &mut seen)),
                Err(reason) => report.bad_message(at.line, reason),
            }
        }
        let completion = completion(entry, turn, &mut chat, at);
        chat.tell_unknown(at, report);
        let completion = store.intern(completion, &mut seen);
        let call = DraftCall { completion, cause: Some(BreakCause::Projection), ..DraftCall::default() };
        draft.push(&prefix, call, store);
    }
    draft
}

/// The answer of an entry: the turn of the history that says the same, else the entry's own text and calls.
fn completion(
    mut entry: Map<String, Value>,
    turn: Option<Value>,
    chat: &mut ChatReader,
    at: Origin,
) -> Incoming {
    let response = entry.get("response").and_then(Value::as_str).unwrap_or("").to_owned();
    let thought = entry.get("thought").and_then(Value::as_str).unwrap_or("").to_owned();
    let said = turn.as_ref().and_then(|turn| turn.get("content")).and_then(Value::as_str);
    let is_same = said.is_some_and(|said| said == response || said == thought);
    let recorded = turn.filter(|_| is_same).and_then(|turn| chat.read(turn, at).ok());
    recorded.unwrap_or_else(|| {
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        message.insert("content".to_owned(), if response.is_empty() { thought } else { response }.into());
        for name in ["tool_calls", "thinking_blocks"] {
            message.extend(entry.remove(name).map(|value| (name.to_owned(), value)));
        }
        let empty = || Message { content: Vec::new(), origin: at, ..Message::text(Role::Assistant, "") };
        chat.read(Value::Object(message), at).unwrap_or_else(|_| empty().into())
    })
}
