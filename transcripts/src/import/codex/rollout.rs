//! One rollout from its first line to its last: the history as it stands, the answer that is being put together, and
//! the calls. Knows entries, not how a line is written.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;

use super::line::{self, Entry, Meta};
use crate::call::{BreakCause, Usage};
use crate::fidelity::Reason;
use crate::import::draft::{self, Draft, DraftCall, Incoming, Store};
use crate::import::items::{self, Item, ItemReader, Piece, Turn};
use crate::import::records::Record;
use crate::import::stamp::Stamp;
use crate::import::{ImportedFile, tools};
use crate::message::{Message, Origin, Role};
use crate::session::{IssueKind, Kind, SourceFormat};

/// What the client sends for a call that was cut short.
const ABORTED: &str = "aborted";
/// A fork writes the history it begins with in less time than this.
const COPY_MS: i64 = 1000;
/// Openings of user messages that no person typed: they begin no turn.
const CONTEXT: [&str; 6] = [
    "<environment_context>",
    "<user_instructions>",
    "<turn_aborted>",
    "# AGENTS.md instructions",
    "<subagent_notification>",
    "<skill>",
];

/// The state of a rollout.
pub(super) struct Rollout {
    draft: Draft,
    file: u32,
    items: ItemReader,
    /// The request as the next call would send it.
    history: Vec<u32>,
    /// The system prompt of every request.
    instructions: Option<u32>,
    turn: Option<Turn>,
    /// Ids of calls in the history that wait for their result.
    open: HashSet<String>,
    /// Results made for calls that were cut short, by call id.
    aborted: HashMap<String, u32>,
    model: Option<String>,
    last_row: Value,
    /// Why the next request does not extend the last one, where it does not.
    cause: Option<BreakCause>,
    copy: Copy,
    compactions: u64,
    summaries: u64,
    encrypted: u64,
}

/// The history that a fork begins with: its calls are another thread's.
#[derive(Default)]
struct Copy {
    /// When the first line was written.
    since: Option<i64>,
    /// The lines so far may be a copy.
    running: bool,
    is_fork: bool,
    metas: u32,
}

impl Rollout {
    /// A rollout without lines.
    pub fn new(stem: &str, file: u32) -> Self {
        let mut draft = Draft::new(stem.to_owned(), SourceFormat::Codex);
        draft.files.insert(file);
        Self {
            draft,
            file,
            items: ItemReader::default(),
            history: Vec::new(),
            instructions: None,
            turn: None,
            open: HashSet::new(),
            aborted: HashMap::new(),
            model: None,
            last_row: Value::Null,
            cause: None,
            copy: Copy { running: true, ..Copy::default() },
            compactions: 0,
            summaries: 0,
            encrypted: 0,
        }
    }

    /// Takes one line.
    pub fn take(&mut self, record: Record, store: &mut Store, report: &mut ImportedFile) {
        let at = Origin { file: self.file, line: record.line };
        let object = match record.value {
            Value::Object(object) => object,
            // Somebody made one list of the lines.
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let each = items.into_iter().map(|value| Record { line: record.line, value });
                return each.for_each(|item| self.take(item, store, report));
            }
            other => return report.not_an_object(record.line, &other),
        };
        let (time, entry) = line::parse(object);
        self.follow_copy(time.as_ref(), store);
        match entry {
            Entry::Meta(meta) => self.meta(*meta, at, store),
            Entry::Item(item) => {
                let read = self.items.read(item, at);
                self.item(read, at, time, store);
            }
            Entry::Compacted { summary, replacement } => self.compact(summary, replacement, at, store),
            Entry::RolledBack(turns) => self.roll_back(turns, store),
            Entry::Usage(usage, row) => self.usage(usage, row, store),
            Entry::Model(model) => self.model = Some(model),
            Entry::Silent => {}
            Entry::Unknown(kind) => self.draft.unknown_line(kind),
            Entry::Bad(reason) => report.bad_message(record.line, reason),
        }
    }

    /// The session.
    pub fn finish(mut self, store: &mut Store) -> Draft {
        self.close(store);
        self.end_copy(store);
        self.draft.reasons.extend([
            Reason::RebuiltFromLog,
            Reason::Compacted { count: self.compactions },
            Reason::SummariesPlaced { count: self.summaries },
            Reason::ProjectionsUnknown { count: self.encrypted },
        ]);
        self.draft
    }

    fn meta(&mut self, meta: Meta, at: Origin, store: &mut Store) {
        self.copy.metas += 1;
        // A fork copies the parent's line too; a resumed thread writes its own again.
        if self.copy.metas > 1 {
            return;
        }
        if let Some(id) = meta.id {
            self.draft.id = id;
        }
        self.copy.is_fork = meta.forked_from.is_some();
        self.draft.source_version = meta.version;
        self.draft.tools = tools::to_chat(meta.tools.unwrap_or_default());
        if let Some(parent_session_id) = meta.parent {
            self.draft.kind = Kind::Subagent { parent_session_id, parent_call_index: None };
        }
        if let Some(text) = meta.instructions {
            let message = Message { origin: at, ..Message::text(Role::System, text) };
            let index = store.push(message.into());
            self.instructions = Some(index);
            self.history.insert(0, index);
        }
    }

    /// Notices when the lines are no longer written all at once.
    fn follow_copy(&mut self, time: Option<&Stamp>, store: &mut Store) {
        let (true, Some(time)) = (self.copy.running, time) else { return };
        let since = *self.copy.since.get_or_insert(time.ms);
        if time.ms > since + COPY_MS {
            self.close(store);
            self.end_copy(store);
        }
    }

    /// Takes away the calls of a copied history. One answer may come within the time that a copy takes; more are copied.
    fn end_copy(&mut self, store: &Store) {
        if !std::mem::take(&mut self.copy.running) {
            return;
        }
        let may_be_copied = self.copy.is_fork || self.draft.kind != Kind::Main;
        let is_copied = self.copy.is_fork || self.copy.metas > 1 || self.draft.calls.len() > 1;
        if may_be_copied && is_copied {
            for call in std::mem::take(&mut self.draft.calls) {
                let at =
                    store.messages.get(call.completion as usize).map_or_else(Origin::default, |m| m.origin);
                self.draft.issue(IssueKind::ForeignResponse, at);
            }
        }
    }

    fn item(&mut self, item: Item, at: Origin, time: Option<Stamp>, store: &mut Store) {
        match item {
            Item::Piece(piece) => self.piece(piece, at, time, store),
            Item::Output(message) => {
                self.close(store);
                self.output(message, time, store);
            }
            Item::Message(message) => self.append(message, time, store),
            Item::Encrypted(message) => {
                self.encrypted += 1;
                self.append(message, time, store);
            }
            Item::Silent => {}
            Item::Unknown(kind) => {
                self.draft.issue(IssueKind::UnknownBlock, at);
                self.draft.unknown_line(format!("response_item {kind}"));
            }
        }
    }

    fn append(&mut self, message: Message, time: Option<Stamp>, store: &mut Store) {
        self.close(store);
        self.history.push(store.push(Incoming { time, ..message.into() }));
    }

    fn piece(&mut self, piece: Piece, at: Origin, time: Option<Stamp>, store: &mut Store) {
        if self.turn.is_none() {
            self.abort_open(store);
        }
        let turn = self.turn.get_or_insert_with(|| Turn::new(at));
        turn.time = time.or(turn.time.take());
        turn.push(piece);
    }

    /// Ends the answer that is being put together: a call with the history so far.
    fn close(&mut self, store: &mut Store) {
        let Some(turn) = self.turn.take() else { return };
        let incoming = turn.finish();
        self.open.extend(incoming.message.tool_calls.iter().map(|call| call.id.clone()));
        let completion = store.push(incoming);
        let (model, cause) = (self.model.clone(), self.cause.take());
        let call = DraftCall { completion, model, cause, ..DraftCall::default() };
        self.draft.push(&self.history, call, store);
        self.history.push(completion);
    }

    /// A result takes the place of one that was made in its absence; one that answers nothing is never sent.
    fn output(&mut self, message: Message, time: Option<Stamp>, store: &mut Store) {
        let id = message.tool_call_id.clone().unwrap_or_default();
        let at = message.origin;
        let made = self.aborted.remove(&id);
        if !self.open.remove(&id) && made.is_none() {
            return self.draft.issue(IssueKind::OrphanResult, at);
        }
        let index = store.push(Incoming { time, ..message.into() });
        match made.and_then(|made| self.history.iter().rposition(|&index| index == made)) {
            Some(place) => {
                self.history[place] = index;
                self.cause = Some(BreakCause::Projection);
            }
            None => self.history.push(index),
        }
    }

    /// Gives every call that still waits for its result the text that the client sends in its place.
    fn abort_open(&mut self, store: &mut Store) {
        if self.open.is_empty() {
            return;
        }
        let mut open = std::mem::take(&mut self.open);
        let mut place = self.history.len();
        while place > 0 && !open.is_empty() {
            place -= 1;
            let Some(message) = store.messages.get(self.history[place] as usize) else { continue };
            let (at, calls) = (message.origin, &message.tool_calls);
            let cut: Vec<_> = calls.iter().filter(|call| open.remove(&call.id)).cloned().collect();
            let results = self.history[place + 1..].iter();
            let behind =
                place + 1 + results.take_while(|&&index| store.role(index) == Some(Role::Tool)).count();
            for (behind, call) in (behind..).zip(cut) {
                self.draft.issue(IssueKind::MissingResult, at);
                let text =
                    Message { synthetic: true, name: Some(call.name), ..Message::text(Role::Tool, ABORTED) };
                let index = store.push(Message { tool_call_id: Some(call.id.clone()), ..text }.into());
                self.aborted.insert(call.id, index);
                self.history.insert(behind, index);
            }
        }
    }

    fn usage(&mut self, usage: Option<Usage>, row: Value, store: &mut Store) {
        self.close(store);
        // A row is written again whenever limits are told: it counts once.
        let is_repeat = row == self.last_row;
        self.last_row = row;
        if let (Some(usage), false, Some(call)) = (usage, is_repeat, self.draft.calls.last_mut()) {
            call.usage.get_or_insert(usage);
        }
    }

    fn compact(&mut self, summary: String, replacement: Option<Vec<Value>>, at: Origin, store: &mut Store) {
        self.close(store);
        self.compactions += 1;
        self.cause = Some(BreakCause::Compaction);
        let old = std::mem::take(&mut self.history);
        match replacement {
            Some(items) => {
                let mut unknown = 0;
                let messages = items::messages(items, at, &mut self.items, &mut unknown);
                for _ in 0..unknown {
                    self.draft.issue(IssueKind::UnknownBlock, at);
                }
                let is_encrypted = |m: &&Incoming| m.message.flat_text() == items::ENCRYPTED_SUMMARY;
                self.encrypted += messages.iter().filter(is_encrypted).count() as u64;
                // Kept messages are the ones that were sent before.
                let mut sent: HashMap<u64, VecDeque<u32>> = HashMap::new();
                for index in old.into_iter().filter(|index| Some(*index) != self.instructions) {
                    sent.entry(store.digest(index).unwrap_or(0)).or_default().push_back(index);
                }
                self.history.extend(self.instructions);
                for incoming in messages {
                    let same = sent.get_mut(&draft::digest(&incoming.message)).and_then(VecDeque::pop_front);
                    self.history.push(same.unwrap_or_else(|| store.push(incoming)));
                }
            }
            None => {
                self.summaries += 1;
                let stays = |index: &u32| matches!(store.role(*index), Some(Role::User | Role::System));
                self.history = old.into_iter().filter(stays).collect();
                let message = Message { synthetic: true, origin: at, ..Message::text(Role::User, summary) };
                self.history.push(store.push(message.into()));
            }
        }
        self.forget_open(store);
    }

    /// Cuts the history before the nth newest turn of the person.
    fn roll_back(&mut self, turns: u64, store: &mut Store) {
        self.close(store);
        let is_turn = |index: &u32| {
            let message = store.messages.get(*index as usize);
            message.is_some_and(|message| {
                let text = message.flat_text();
                message.role == Role::User && !CONTEXT.iter().any(|opening| text.starts_with(opening))
            })
        };
        let starts: Vec<usize> = (0..self.history.len()).filter(|&at| is_turn(&self.history[at])).collect();
        let kept = starts.len().saturating_sub(usize::try_from(turns).unwrap_or(usize::MAX));
        if let Some(&cut) = starts.get(kept) {
            self.history.truncate(cut);
            self.cause = Some(BreakCause::Rewind);
            self.forget_open(store);
        }
    }

    /// Calls that are no longer in the history wait for nothing.
    fn forget_open(&mut self, store: &Store) {
        let messages = self.history.iter().filter_map(|&index| store.messages.get(index as usize));
        let ids: HashSet<&str> =
            messages.flat_map(|message| &message.tool_calls).map(|call| call.id.as_str()).collect();
        self.open.retain(|id| ids.contains(id.as_str()));
        self.aborted.retain(|id, _| ids.contains(id.as_str()));
    }
}
