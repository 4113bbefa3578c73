//! The birth query: what the drafter is asked about a tool's output when it first sees it. A tool message is made for a
//! reason, and everything that states the reason stands before it: the user's goal and the assistant's tool call. They
//! are rendered after the output, the score is taken from their last tokens, and they are dropped. Nothing later than
//! the message is read, so the outcome of a message never changes. Knows messages and templates; knows no score.
//!
//! Source: stacking design A+; the goal as a hint at the time of a tool's output is that of SWE-Pruner
//! (arXiv 2601.16746).

use transcripts::message::{Message, Role, ToolCall};

use crate::chat::{ChatTemplate, Generation, Thinking};
use crate::digest;
use crate::error::EngineError;
use crate::tokenizer::Tokenizer;

/// Most drafter tokens of the goal that are asked.
pub const GOAL_TOKENS_MAX: usize = 256;
/// Bytes of the goal that are looked at.
const GOAL_BYTES_MAX: usize = 8 << 10;

/// Why a tool message was made, as far as the messages before it say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Start of the last message of a user before it; empty if there is none.
    goal: String,
    /// The call that it answers.
    call: Option<ToolCall>,
}

impl Birth {
    /// What the messages before `index` say about the tool message there; `None` if they hold neither a goal nor its
    /// call. A message that a client put on the user's side counts only where no user spoke.
    pub fn of(messages: &[&Message], index: usize) -> Option<Self> {
        let before = &messages[..index];
        let spoken =
            |message: &&&Message| message.role == Role::User && !message.flat_text().trim().is_empty();
        let by_person = before.iter().rev().filter(spoken).find(|message| !message.synthetic);
        let goal = by_person.or_else(|| before.iter().rev().find(spoken));
        let goal = goal.map(|message| head(message.flat_text())).unwrap_or_default();
        // A result belongs to the nearest turn that made calls; an id that is older was used twice.
        let caller = before.iter().rev().find(|message| !message.tool_calls.is_empty());
        let id = messages[index].tool_call_id.as_ref();
        let call = caller.and_then(|message| message.tool_calls.iter().find(|call| Some(&call.id) == id));
        (!goal.is_empty() || call.is_some()).then(|| Self { goal, call: call.cloned() })
    }

    /// The tool call, if the history holds it.
    pub const fn call(&self) -> Option<&ToolCall> {
        self.call.as_ref()
    }

    /// Digest of everything that the query is made from under `template`; with the tokenizer, which cuts the goal, it
    /// names the query without rendering it.
    pub fn digest(&self, template: &str) -> [u8; 32] {
        let call = self.call.as_ref().map_or([""; 3], |call| ["call", &call.name, &call.arguments]);
        let fields = [template, &self.goal, call[0], call[1], call[2]].map(str::as_bytes);
        digest::of_fields("reprise engine 2026 birth query", &fields)
    }

    /// The query for a drafter.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn query(&self, chat: &ChatTemplate, tokenizer: &Tokenizer) -> Result<String, EngineError> {
        let (_, bytes) = tokenizer.encode_with_offsets(&self.goal)?;
        let end = bytes.get(GOAL_TOKENS_MAX).map_or(self.goal.len(), |next| next.start);
        Ok(birth_query(chat, &self.goal[..end], self.call.as_ref()))
    }
}

/// The query about the output of `call`, made for `goal` (empty: none is known): both rendered by the drafter's own
/// template, up to where the model speaks next. A template that refuses two messages without their history gives way
/// to plain lines of the same words.
pub fn birth_query(chat: &ChatTemplate, goal: &str, call: Option<&ToolCall>) -> String {
    let mut messages = Vec::new();
    if !goal.is_empty() {
        messages.push(Message::text(Role::User, goal));
    }
    if let Some(call) = call {
        let turn = Message { tool_calls: vec![call.clone()], ..Message::text(Role::Assistant, "") };
        messages.push(turn);
    }
    let messages: Vec<&Message> = messages.iter().collect();
    chat.render(&messages, &[], Generation::Prompt, Thinking::Default).unwrap_or_else(|_| {
        let call = call.map(|call| format!("\n{} {}", call.name, call.arguments)).unwrap_or_default();
        format!("\n{goal}{call}\n")
    })
}

/// The first [`GOAL_BYTES_MAX`] bytes, less the last character if it is cut.
fn head(mut text: String) -> String {
    let end = (0..=GOAL_BYTES_MAX.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    text
}
