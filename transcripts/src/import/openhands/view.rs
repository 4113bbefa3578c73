//! Events to calls: the messages as the agent sends them, its answers, and what a condensation leaves of both. Knows
//! what an event does to the list of messages, not how it was written.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{legacy, sdk};
use crate::call::{BreakCause, Usage};
use crate::fidelity::Reason;
use crate::import::ImportedFile;
use crate::import::draft::{Draft, DraftCall, Incoming, Store};
use crate::message::{Message, Origin, Role};
use crate::session::{IssueKind, SourceFormat};

/// What an event does.
#[derive(Debug)]
pub(super) enum Effect {
    /// A message of its own, and whether its text is our rendering.
    Message { incoming: Box<Incoming>, is_rendered: bool },
    /// An answer, or a part of one: all parts carry the answer's id.
    Answer(Box<Answer>),
    /// Events are no longer sent; a summary stands at this place among those that are.
    Condensed { forgotten: HashSet<String>, summary: Option<(String, usize)> },
    /// Tool definitions.
    Tools(Vec<Value>),
    /// The model that answers.
    Model(String),
}

/// An answer, or a part of one.
#[derive(Debug)]
pub(super) struct Answer {
    pub incoming: Incoming,
    pub id: Option<String>,
    pub model: Option<String>,
    pub usage: Option<Usage>,
}

/// The list as the next request would send it.
pub(super) struct View {
    draft: Draft,
    /// The events behind each message.
    history: Vec<(HashSet<String>, u32)>,
    /// The latest answer's id.
    answer: Option<String>,
    model: Option<String>,
    cause: Option<BreakCause>,
    rendered: u64,
    condensed: u64,
    has_tools: bool,
}

impl View {
    /// A view without events.
    pub fn new(id: String) -> Self {
        Self {
            draft: Draft::new(id, SourceFormat::Openhands),
            history: Vec::new(),
            answer: None,
            model: None,
            cause: None,
            rendered: 0,
            condensed: 0,
            has_tools: false,
        }
    }

    /// Takes one event.
    pub fn take(
        &mut self,
        mut event: Map<String, Value>,
        at: Origin,
        store: &mut Store,
        report: &mut ImportedFile,
    ) {
        self.draft.files.insert(at.file);
        let id = match event.get("id") {
            Some(Value::String(id)) => id.clone(),
            Some(id) => id.to_string(),
            None => String::new(),
        };
        let read = if event.contains_key("kind") || sdk::is_state(&event) {
            sdk::read(&mut event, at)
        } else {
            legacy::read(&mut event, at)
        };
        match read {
            Ok(effects) => effects.into_iter().for_each(|effect| self.apply(effect, &id, at, store)),
            Err(sdk::Refused::Unknown(kind)) => self.draft.unknown_line(kind),
            Err(sdk::Refused::Bad(reason)) => report.bad_message(at.line, reason),
        }
    }

    /// The session.
    pub fn finish(mut self) -> Draft {
        self.draft.tools_known = self.has_tools;
        self.draft.reasons.extend([
            Reason::RebuiltFromLog,
            Reason::ResultsRendered { count: self.rendered },
            Reason::Compacted { count: self.condensed },
        ]);
        self.draft
    }

    fn apply(&mut self, effect: Effect, id: &str, at: Origin, store: &mut Store) {
        match effect {
            Effect::Message { incoming, is_rendered } => {
                self.rendered += u64::from(is_rendered);
                self.message(*incoming, id, store);
            }
            Effect::Answer(answer) => self.answer(*answer, id, store),
            Effect::Condensed { forgotten, summary } => self.condense(&forgotten, summary, at, store),
            Effect::Tools(tools) => {
                self.draft.tools = tools;
                self.has_tools = true;
            }
            Effect::Model(model) => self.model = Some(model),
        }
    }

    /// Plain messages of the person that follow each other are sent as one.
    fn message(&mut self, incoming: Incoming, id: &str, store: &mut Store) {
        let last = self.history.last_mut();
        if incoming.message.role == Role::User
            && let Some((events, index)) = last
            && let Some(known) = store.messages.get_mut(*index as usize)
            && known.role == Role::User
            && !known.synthetic
        {
            known.content.extend(incoming.message.content);
            events.insert(id.to_owned());
            return;
        }
        if incoming.message.role == Role::Tool && !self.is_open(&incoming.message, store) {
            return self.draft.issue(IssueKind::OrphanResult, incoming.message.origin);
        }
        self.history.push((HashSet::from([id.to_owned()]), store.push(incoming)));
    }

    /// True when the nearest answer made the call of a result.
    fn is_open(&self, result: &Message, store: &Store) -> bool {
        let mut messages =
            self.history.iter().rev().filter_map(|(_, index)| store.messages.get(*index as usize));
        let turn = messages.find(|message| message.role == Role::Assistant);
        turn.is_some_and(|turn| {
            turn.tool_calls.iter().any(|call| Some(&call.id) == result.tool_call_id.as_ref())
        })
    }

    fn answer(&mut self, answer: Answer, id: &str, store: &mut Store) {
        let Answer { incoming, id: answer_id, model, usage } = answer;
        if answer_id.is_some() && answer_id == self.answer {
            return self.continue_answer(incoming, id, store);
        }
        self.answer = answer_id;
        let completion = store.push(incoming);
        let prefix: Vec<u32> = self.history.iter().map(|(_, index)| *index).collect();
        let (model, cause) = (model.or_else(|| self.model.clone()), self.cause.take());
        self.draft.push(
            &prefix,
            DraftCall { completion, model, usage, cause, ..DraftCall::default() },
            store,
        );
        self.history.push((HashSet::from([id.to_owned()]), completion));
    }

    /// A further action of the same answer: its call joins the message; thought and reasoning stand in the first.
    fn continue_answer(&mut self, incoming: Incoming, id: &str, store: &mut Store) {
        let turns = self.history.iter_mut().rev();
        let turn = turns.into_iter().find(|(_, index)| store.role(*index) == Some(Role::Assistant));
        let Some((events, index)) = turn else { return };
        events.insert(id.to_owned());
        if let Some(message) = store.messages.get_mut(*index as usize) {
            for call in incoming.message.tool_calls {
                if !message.tool_calls.iter().any(|known| known.id == call.id) {
                    message.tool_calls.push(call);
                }
            }
        }
    }

    /// Forgets events. An answer and the results of its calls go together, as the client sees to.
    fn condense(
        &mut self,
        forgotten: &HashSet<String>,
        summary: Option<(String, usize)>,
        at: Origin,
        store: &mut Store,
    ) {
        self.condensed += 1;
        self.cause = Some(BreakCause::Compaction);
        let mut kept: Vec<(HashSet<String>, u32)> = Vec::new();
        let mut unit: Vec<(HashSet<String>, u32)> = Vec::new();
        let is_forgotten =
            |(events, _): &(HashSet<String>, u32)| events.iter().any(|id| forgotten.contains(id));
        for entry in std::mem::take(&mut self.history) {
            if store.role(entry.1) != Some(Role::Tool) && !unit.is_empty() {
                let unit = std::mem::take(&mut unit);
                kept.extend(if unit.iter().any(is_forgotten) { Vec::new() } else { unit });
            }
            unit.push(entry);
        }
        kept.extend(if unit.iter().any(is_forgotten) { Vec::new() } else { unit });
        if let Some((text, offset)) = summary {
            let message = Message { synthetic: true, origin: at, ..Message::text(Role::User, text) };
            let place = offset.min(kept.len());
            kept.insert(place, (HashSet::new(), store.push(message.into())));
        }
        self.history = kept;
    }
}
