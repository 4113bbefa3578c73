//! Saved sessions of CodeWhale and DeepSeek-TUI, faithful ones and those of the versions that saved large tool results
//! as receipts. What the client changes on the way to the wire is counted, not applied: the saved text is what a
//! rewrite works on. Knows this format and no other.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::anthropic::{BlockReader, system_prompt};
use super::draft::{Draft, DraftCall, Incoming, Store};
use super::group::{GroupFile, GroupImport};
use super::records::Record;
use super::{ImportedFile, number};
use crate::fidelity::Reason;
use crate::message::{Message, Origin, Role};
use crate::session::{IssueKind, Kind, Session, SourceFormat};

/// Results with more chars than this are sent shortened.
const WIRE_BUDGET_CHARS: usize = 12_000;
/// Results of at least this many chars that came before are sent as a reference.
const REFERENCE_CHARS: usize = 1_024;
/// Tools whose results are never sent as references.
const WRITING_TOOLS: [&str; 5] = ["write", "edit", "write_file", "edit_file", "apply_patch"];
/// What the client puts in place of a result that a crash lost.
const REPAIRED: &str = "Tool call interrupted by process exit; terminal status: crashed_and_repaired.";
/// The opening of a saved receipt.
const RECEIPT: &str = "[TOOL_OUTPUT_RECEIPT]";
/// Before the system prompt of a session that was cut to its newest messages.
const CUT_NOTE: &str = "[Session note]\nNote: ";
/// Between that note and the prompt.
const CUT_NOTE_END: &str = "\n\n---\n\n";

/// True for a saved session.
pub(super) fn is_recognised(object: &Map<String, Value>) -> bool {
    let metadata = object.get("metadata").and_then(Value::as_object);
    object.get("messages").is_some_and(Value::is_array)
        && object.contains_key("schema_version")
        && metadata.is_some_and(|metadata| metadata.contains_key("id") && metadata.contains_key("workspace"))
}

/// Imports saved sessions.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn import(files: Vec<GroupFile>) -> Result<GroupImport, (String, std::io::Error)> {
    let mut store = Store::default();
    let mut drafts = Vec::new();
    let mut imported = Vec::new();
    for (number, file) in files.into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        imported.push(file.read(|Record { line, value }, report| match value {
            Value::Object(saved) if is_recognised(&saved) => {
                let mut reader = Saved::new(&saved, Origin { file: number, line });
                reader.take(saved, &mut store, report);
                drafts.push(reader.finish());
            }
            _ => report.bad_message(line, "no saved session"),
        })?);
    }
    let sessions: Vec<Session> =
        drafts.into_iter().filter_map(|draft| draft.finish(&store, &mut imported)).collect();
    Ok(GroupImport::new(sessions, imported))
}

/// A saved session while it is read.
struct Saved {
    draft: Draft,
    at: Origin,
    model: Option<String>,
    /// Messages of the session it was forked from: their turns are that session's calls.
    inherited: u64,
    history: Vec<u32>,
    /// Ids and names of the latest turn's calls that wait for their result.
    open: Vec<(String, String)>,
    /// Large results so far, by text.
    large: HashSet<String>,
    receipts: u64,
    projected: u64,
}

impl Saved {
    fn new(saved: &Map<String, Value>, at: Origin) -> Self {
        let metadata = saved.get("metadata").and_then(Value::as_object);
        let field = |name: &str| metadata.and_then(|metadata| metadata.get(name));
        let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
        let count = |name: &str| field(name).and_then(number::whole).unwrap_or(0);
        let mut draft = Draft::new(text("id").unwrap_or_default(), SourceFormat::Codewhale);
        draft.files.insert(at.file);
        draft.reasons.push(Reason::RebuiltFromLog);
        if let (Some(parent_session_id), 1..) = (text("parent_session_id"), count("spawn_depth")) {
            draft.kind = Kind::Subagent { parent_session_id, parent_call_index: None };
        }
        Self {
            draft,
            at,
            model: text("model"),
            inherited: count("forked_from_message_count"),
            history: Vec::new(),
            open: Vec::new(),
            large: HashSet::new(),
            receipts: 0,
            projected: 0,
        }
    }

    fn take(&mut self, mut saved: Map<String, Value>, store: &mut Store, report: &mut ImportedFile) {
        if let Some(prompt) = system_prompt(saved.remove("system_prompt"), self.at) {
            let prompt = self.without_cut_note(prompt);
            self.history.push(store.push(prompt.into()));
        }
        let Some(Value::Array(messages)) = saved.remove("messages") else { return };
        let mut reader = BlockReader::default();
        for (number, message) in (0_u64..).zip(messages) {
            let Value::Object(message) = message else {
                report.not_an_object(self.at.line, &message);
                continue;
            };
            let unknown = reader.unknown;
            for incoming in reader.read(message, self.at) {
                self.push(incoming, number < self.inherited, store);
            }
            for _ in unknown..reader.unknown {
                self.draft.issue(IssueKind::UnknownBlock, self.at);
            }
        }
    }

    /// A version of the client cut a session to its newest messages and said so before the prompt; loading takes the
    /// note away again.
    fn without_cut_note(&mut self, prompt: Message) -> Message {
        let text = prompt.flat_text();
        let note = text.strip_prefix(CUT_NOTE).and_then(|rest| rest.split_once(CUT_NOTE_END));
        let Some((note, rest)) = note else { return prompt };
        let count = note.split_whitespace().next().and_then(|count| count.parse().ok()).unwrap_or(1);
        self.draft.reasons.push(Reason::HistoryDropped { count });
        Message { origin: self.at, ..Message::text(Role::System, rest) }
    }

    fn push(&mut self, incoming: Incoming, is_inherited: bool, store: &mut Store) {
        match incoming.message.role {
            Role::Assistant => {
                self.repair(store);
                let calls = &incoming.message.tool_calls;
                self.open = calls.iter().map(|call| (call.id.clone(), call.name.clone())).collect();
                let completion = store.push(incoming);
                if is_inherited {
                    self.draft.issue(IssueKind::ForeignResponse, self.at);
                } else {
                    let model = self.model.clone();
                    self.draft.push(
                        &self.history,
                        DraftCall { completion, model, ..DraftCall::default() },
                        store,
                    );
                }
                self.history.push(completion);
            }
            Role::Tool => {
                // The first result between a call and the next turn is kept; any other is not sent.
                let id = incoming.message.tool_call_id.as_deref().unwrap_or("");
                let Some(place) = self.open.iter().position(|(open, _)| open == id) else {
                    return self.draft.issue(IssueKind::OrphanResult, self.at);
                };
                let (_, name) = self.open.remove(place);
                self.count(&incoming.message, &name);
                self.history.push(store.push(incoming));
            }
            Role::System | Role::User => {
                self.repair(store);
                self.history.push(store.push(incoming));
            }
        }
    }

    /// Counts a result that the client saved or sends in another form.
    fn count(&mut self, message: &Message, tool: &str) {
        let text = message.flat_text();
        if text.trim_start().starts_with(RECEIPT) {
            self.receipts += 1;
            return;
        }
        let chars = text.chars().count();
        let may_refer = chars >= REFERENCE_CHARS && !WRITING_TOOLS.contains(&tool);
        let is_known = may_refer && !self.large.insert(text);
        self.projected += u64::from(chars > WIRE_BUDGET_CHARS || is_known);
    }

    /// Gives calls without a result the text that loading puts in.
    fn repair(&mut self, store: &mut Store) {
        for (id, name) in std::mem::take(&mut self.open) {
            self.draft.issue(IssueKind::MissingResult, self.at);
            let message = Message { synthetic: true, is_error: true, ..Message::text(Role::Tool, REPAIRED) };
            let message = Message { name: Some(name), tool_call_id: Some(id), ..message };
            self.history.push(store.push(message.into()));
        }
    }

    fn finish(mut self) -> Draft {
        self.draft.reasons.extend([
            Reason::ReceiptsKept { count: self.receipts },
            Reason::ProjectionsNotApplied { count: self.projected },
        ]);
        self.draft
    }
}
