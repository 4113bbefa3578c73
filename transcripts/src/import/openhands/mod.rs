//! OpenHands event stores: folders of the SDK (`events/event-*.json`), event lists of the older versions, and the
//! `history` of evaluation outputs. Events become the messages that the agent sent; a condensation is a view over them.
//! Knows this format and no other.
//!
//! Reading order: [`sdk`] and [`legacy`] (what an event is), [`view`] (events to calls).

mod legacy;
mod sdk;
mod view;

use serde_json::{Map, Value};

use self::view::View;
use super::draft::{Draft, Store};
use super::group::{GroupFile, GroupImport};
use super::records::Record;
use crate::message::Origin;
use crate::session::Session;

/// True for an event, the state that lies beside events, or an evaluation's output.
pub(super) fn is_recognised(object: &Map<String, Value>) -> bool {
    let events = object.get("history").and_then(Value::as_array);
    sdk::is_event(object)
        || sdk::is_state(object)
        || legacy::is_event(object)
        || events
            .is_some_and(|events| events.iter().take(16).filter_map(Value::as_object).any(legacy::is_event))
}

/// Imports the events of one folder, or of one file.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn import(files: Vec<GroupFile>, name: &str) -> Result<GroupImport, (String, std::io::Error)> {
    let mut store = Store::default();
    let mut drafts: Vec<Draft> = Vec::new();
    let mut view = View::new(name.to_owned());
    let mut imported = Vec::new();
    for (number, file) in files.into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        imported.push(file.read(|Record { line, value }, report| {
            let at = Origin { file: number, line };
            let values = if let Value::Array(values) = value { values } else { vec![value] };
            for value in values {
                let Value::Object(mut object) = value else {
                    report.not_an_object(line, &value);
                    continue;
                };
                if let Some(Value::Array(events)) = object.remove("history") {
                    let id = object.get("instance_id").and_then(Value::as_str);
                    let mut own = View::new(format!("{name}-{}", id.unwrap_or("history")));
                    for event in events.into_iter().flat_map(flat) {
                        own.take(event, at, &mut store, report);
                    }
                    drafts.push(own.finish());
                } else {
                    view.take(object, at, &mut store, report);
                }
            }
        })?);
    }
    drafts.push(view.finish());
    let sessions: Vec<Session> =
        drafts.into_iter().filter_map(|draft| draft.finish(&store, &mut imported)).collect();
    Ok(GroupImport::new(sessions, imported))
}

/// The events of an element of a history: one, or an action with its observation.
fn flat(event: Value) -> Vec<Map<String, Value>> {
    let events = if let Value::Array(events) = event { events } else { vec![event] };
    events
        .into_iter()
        .filter_map(|event| if let Value::Object(event) = event { Some(event) } else { None })
        .collect()
}
