//! Logs of the Responses API: requests with their answers, expanded along `previous_response_id`, and plain lists of
//! items. A recorded request is exact; from a list of items every answer is a call with all items before it. Knows
//! this API and no other.

use std::collections::HashMap;

use serde_json::Value;

use super::draft::{Draft, DraftCall, Incoming, Store};
use super::exchange::Exchange;
use super::group::{GroupFile, GroupImport};
use super::items::{self, Item, ItemReader, Turn};
use super::records::Record;
use super::requests::{Place, Request, Requests};
use super::stamp::Stamp;
use super::{ImportedFile, codex, tools};
use crate::fidelity::Reason;
use crate::message::{Message, Origin, Role};
use crate::session::{IssueKind, SourceFormat};

/// True for an item, or a list of them.
pub(super) fn is_recognised(value: &Value) -> bool {
    match value {
        Value::Object(object) => items::is_item(object),
        Value::Array(list) => list.iter().take(16).filter_map(Value::as_object).any(items::is_item),
        _ => false,
    }
}

/// Imports the files of one folder, or one file.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn import(files: Vec<GroupFile>, name: &str) -> Result<GroupImport, (String, std::io::Error)> {
    let mut log = Log::new();
    let mut lists = Vec::new();
    let mut imported = Vec::new();
    for (number, file) in files.into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut lines = List::new(file.stem.clone(), number);
        let mut arrays = 0;
        let report = file.read(|Record { line, value }, report| {
            let at = Origin { file: number, line };
            match value {
                Value::Array(items)
                    if is_recognised(&Value::Array(items.iter().take(16).cloned().collect())) =>
                {
                    let id = if arrays == 0 { file.stem.clone() } else { format!("{}-{arrays}", file.stem) };
                    arrays += 1;
                    let mut list = List::new(id, number);
                    for item in items {
                        list.push(item, at, &mut log.requests.store, report);
                    }
                    lists.push(list.finish(&mut log.requests.store));
                }
                Value::Array(values) => values.into_iter().for_each(|value| log.take(value, at, report)),
                value if is_recognised(&value) => lines.push(value, at, &mut log.requests.store, report),
                value => log.take(value, at, report),
            }
        })?;
        lists.push(lines.finish(&mut log.requests.store));
        imported.push(report);
    }
    let sessions = log.requests.finish(name, lists, &mut imported);
    Ok(GroupImport::new(sessions, imported))
}

/// Requests with their answers.
struct Log {
    requests: Requests,
    /// What each answer ends, by its id.
    answers: HashMap<String, Place>,
    items: ItemReader,
}

impl Log {
    fn new() -> Self {
        let requests = Requests::new(SourceFormat::Responses);
        Self { requests, answers: HashMap::new(), items: ItemReader::default() }
    }

    fn take(&mut self, value: Value, at: Origin, report: &mut ImportedFile) {
        let exchange =
            Exchange::of(value).filter(|exchange| exchange.format() == Some(SourceFormat::Responses));
        let Some(mut exchange) = exchange else {
            return report.bad_message(at.line, "neither a request nor an item of the Responses API");
        };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let model = exchange.model();
        let previous = text(exchange.body.get("previous_response_id"));
        let parent = previous.as_ref().and_then(|id| self.answers.get(id)).cloned();
        let lost_past = previous.is_some() && parent.is_none();
        let mut unknown = 0;
        let messages = match exchange.body.remove("input") {
            Some(Value::Array(list)) => items::messages(list, at, &mut self.items, &mut unknown),
            Some(Value::String(text)) => {
                vec![Incoming::from(Message { origin: at, ..Message::text(Role::User, text) })]
            }
            _ => Vec::new(),
        };
        let instructions = text(exchange.body.get("instructions")).filter(|text| !text.is_empty());
        let instructions = instructions
            .map(|text| Incoming::from(Message { origin: at, ..Message::text(Role::System, text) }));
        let tools = exchange.take_tools();
        exchange.gaps.tell(at.line, report);
        let response = exchange.response.unwrap_or_default();
        let output = response.get("output").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut answer = items::messages(output, at, &mut self.items, &mut unknown);
        answer.retain(|incoming| incoming.message.role == Role::Assistant);
        if unknown > 0 {
            report.bad_message(at.line, format!("{unknown} items of a type that is not known"));
        }
        let id = text(response.get("id"));
        let created = response.get("created_at").and_then(Stamp::from_value);
        let request = Request {
            instructions,
            messages,
            completion: answer.into_iter().next(),
            tools: Some(tools::to_chat(tools)),
            model,
            usage: response.get("usage").and_then(codex::usage),
            started: exchange.started.or(created),
            ended: exchange.ended,
            at,
            parent,
            lost_past,
            is_incomplete: exchange.gaps.are_there(),
        };
        let place = self.requests.add(request);
        if let Some(id) = id {
            self.answers.insert(id, place);
        }
    }
}

/// A list of items: every answer a call.
struct List {
    draft: Draft,
    reader: ItemReader,
    history: Vec<u32>,
    turn: Option<Turn>,
}

impl List {
    fn new(id: String, file: u32) -> Self {
        let mut draft = Draft::new(id, SourceFormat::Responses);
        draft.reasons.push(Reason::RebuiltFromLog);
        draft.files.insert(file);
        Self { draft, reader: ItemReader::default(), history: Vec::new(), turn: None }
    }

    fn push(&mut self, item: Value, at: Origin, store: &mut Store, report: &mut ImportedFile) {
        let Value::Object(item) = item else {
            return report.not_an_object(at.line, &item);
        };
        match self.reader.read(item, at) {
            Item::Piece(piece) => self.turn.get_or_insert_with(|| Turn::new(at)).push(piece),
            Item::Output(message) | Item::Message(message) => {
                self.close(store);
                self.history.push(store.push(message.into()));
            }
            Item::Encrypted(message) => {
                self.close(store);
                self.draft.reasons.push(Reason::ProjectionsUnknown { count: 1 });
                self.history.push(store.push(message.into()));
            }
            Item::Silent => {}
            Item::Unknown(_) => self.draft.issue(IssueKind::UnknownBlock, at),
        }
    }

    fn close(&mut self, store: &mut Store) {
        let Some(turn) = self.turn.take() else { return };
        let completion = store.push(turn.finish());
        self.draft.push(&self.history, DraftCall { completion, ..DraftCall::default() }, store);
        self.history.push(completion);
    }

    fn finish(mut self, store: &mut Store) -> Draft {
        self.close(store);
        self.draft
    }
}
