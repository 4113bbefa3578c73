//! The birth query: what the drafter is asked about a tool's output when it first sees it. A tool message is made for a
//! reason, and everything that states the reason stands before it: the user's goal and the assistant's tool call. They
//! are rendered after the output, the score is taken from their last tokens, and they are dropped. Nothing later than
//! the message is read, so the outcome of a message never changes. Knows messages and templates; knows no score.
//!
//! Source: stacking design A+; the goal as a hint at the time of a tool's output is that of SWE-Pruner
//! (arXiv 2601.16746).

use std::rc::Rc;

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
pub struct Birth<'a> {
    /// Start of the last message of a user before it; empty if there is none.
    goal: Rc<str>,
    /// The call that it answers.
    call: Option<&'a ToolCall>,
}

/// For each message what the ones before it say of its birth; `None` for other messages than a tool's, and where they hold
/// neither a goal nor the call. A message that a client put on the user's side counts only where no user spoke.
pub fn births<'a>(messages: &[&'a Message]) -> Vec<Option<Birth<'a>>> {
    let mut by_person: Option<Rc<str>> = None;
    let mut by_client: Option<Rc<str>> = None;
    let mut caller: &[ToolCall] = &[];
    let mut births = Vec::with_capacity(messages.len());
    for message in messages {
        let mut birth = None;
        match message.role {
            Role::User => {
                let text = message.flat_text();
                if !text.trim().is_empty() {
                    let spoken = if message.synthetic { &mut by_client } else { &mut by_person };
                    *spoken = Some(head(text).into());
                }
            }
            // A result belongs to the nearest turn that made calls; an id that is older was used twice.
            Role::Assistant if !message.tool_calls.is_empty() => caller = &message.tool_calls,
            Role::Tool => {
                let goal = by_person.as_ref().or(by_client.as_ref()).cloned().unwrap_or_default();
                let call = caller.iter().find(|call| Some(&call.id) == message.tool_call_id.as_ref());
                birth = (!goal.is_empty() || call.is_some()).then_some(Birth { goal, call });
            }
            Role::System | Role::Assistant => {}
        }
        births.push(birth);
    }
    births
}

impl<'a> Birth<'a> {
    /// The tool call, if the history holds it.
    pub const fn call(&self) -> Option<&'a ToolCall> {
        self.call
    }

    /// Digest of everything that the query is made from under `template`; with the tokenizer, which cuts the goal, it
    /// names the query without rendering it.
    pub fn digest(&self, template: &str) -> [u8; 32] {
        let call = self.call.map_or([""; 3], |call| ["call", &call.name, &call.arguments]);
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
        Ok(birth_query(chat, &self.goal[..end], self.call))
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
