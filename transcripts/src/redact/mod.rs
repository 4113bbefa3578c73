//! Takes keys, tokens, addresses and names out of a session and puts placeholders in: the same secret gives the same
//! placeholder everywhere, of the same length and kind of characters, so that prefixes stay equal where they were equal
//! and sizes stay. JSON arguments still parse. What was found is counted by kind; no secret is ever returned.
//!
//! It finds what has the form of a secret. A password in a sentence, a person's full name, a host's name stay.

mod arguments;
mod pattern;
mod placeholder;
mod text;

use std::collections::BTreeMap;

use serde_json::Value;

pub use self::pattern::SecretKind;
use self::text::Finder;
use crate::error::TranscriptError;
use crate::message::{Message, Part, Reasoning};
use crate::session::{Kind, Session};

/// What was found: how often each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found(BTreeMap<SecretKind, u64>);

impl Found {
    /// Kinds and how often each was found, without those that were not.
    pub fn counts(&self) -> impl Iterator<Item = (SecretKind, u64)> + '_ {
        self.0.iter().map(|(kind, count)| (*kind, *count))
    }

    /// How many credentials were found: everything but addresses and names.
    pub fn credentials(&self) -> u64 {
        self.counts().filter(|(kind, _)| kind.is_credential()).map(|(_, count)| count).sum()
    }

    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in other.counts() {
            *self.0.entry(kind).or_default() += count;
        }
    }
}

/// Finds and replaces secrets in sessions that belong together: a user's name in a path of one is found in all.
#[derive(Debug)]
pub struct Redactor {
    finder: Finder,
}

impl Redactor {
    /// A redactor that knows the names in the home paths of these sessions.
    ///
    /// # Errors
    /// [`TranscriptError::Patterns`] when the patterns do not compile, which a test of this crate rules out.
    pub fn new(sessions: &[Session]) -> Result<Self, TranscriptError> {
        let failed = |source| TranscriptError::Patterns { source };
        let mut finder = Finder::new().map_err(failed)?;
        let mut names = BTreeMap::new();
        for session in sessions {
            for file in &session.files {
                finder.names_of(&file.path, &mut names);
            }
            for message in &session.messages {
                for text in texts(message) {
                    finder.names_of(text, &mut names);
                }
            }
        }
        let names: Vec<String> = names.into_keys().collect();
        finder.know(&names).map_err(failed)?;
        Ok(Self { finder })
    }

    /// What a session holds.
    pub fn scan(&self, session: &Session) -> Found {
        let mut found = Found::default();
        for message in &session.messages {
            self.message(&mut message.clone(), &mut found);
        }
        for tool in &session.tools {
            self.value(&mut tool.clone(), &mut found);
        }
        found
    }

    /// Replaces everything that is found: in messages, tool definitions, ids of sessions and paths of files.
    pub fn redact(&self, session: &mut Session) -> Found {
        let mut found = Found::default();
        for message in &mut session.messages {
            self.message(message, &mut found);
        }
        for tool in &mut session.tools {
            self.value(tool, &mut found);
        }
        let mut uncounted = Found::default();
        self.text(&mut session.id, &mut uncounted);
        if let Kind::Subagent { parent_session_id, .. } = &mut session.kind {
            self.text(parent_session_id, &mut uncounted);
        }
        for file in &mut session.files {
            self.text(&mut file.path, &mut uncounted);
        }
        measure_breaks(session);
        found
    }

    fn message(&self, message: &mut Message, found: &mut Found) {
        for part in &mut message.content {
            if let Part::Text { text } = part {
                self.text(text, found);
            }
        }
        if let Some(Reasoning::Text { text }) = &mut message.reasoning {
            self.text(text, found);
        }
        for call in &mut message.tool_calls {
            self.arguments(&mut call.arguments, found);
        }
    }

    fn text(&self, text: &mut String, found: &mut Found) {
        if let Some(redacted) = self.redacted(text, found) {
            *text = redacted;
        }
    }

    fn redacted(&self, text: &str, found: &mut Found) -> Option<String> {
        let mut redacted = String::new();
        let mut copied = 0;
        for span in self.finder.spans(text) {
            let Some(placeholder) = &span.placeholder else { continue };
            *found.0.entry(span.kind).or_default() += 1;
            redacted.push_str(&text[copied..span.start]);
            redacted.push_str(placeholder);
            copied = span.end;
        }
        (copied > 0).then(|| redacted + &text[copied..])
    }

    /// Arguments are JSON as a rule; those that are not are text.
    fn arguments(&self, arguments: &mut String, found: &mut Found) {
        if serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_err() {
            return self.text(arguments, found);
        }
        let written = arguments::rewrite_strings(arguments, |key, text| self.member(key, text, found));
        if let Some(written) = written {
            *arguments = written;
        }
    }

    fn value(&self, value: &mut Value, found: &mut Found) {
        match value {
            Value::String(text) => self.text(text, found),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item, found)),
            Value::Object(members) => members.values_mut().for_each(|member| self.value(member, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// The value of a member: its name may say that it is secret, so both are looked at together.
    fn member(&self, key: &str, text: &str, found: &mut Found) -> Option<String> {
        let simple = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        if !simple {
            return self.redacted(text, found);
        }
        let head = format!("\"{key}\": \"");
        let mut uncounted = Found::default();
        let whole = format!("{head}{text}");
        let redacted = self.redacted(&whole, &mut uncounted)?;
        // A name that holds a secret itself would shift the value: then the value is looked at alone.
        match redacted.strip_prefix(&head) {
            Some(value) => {
                found.add(&uncounted);
                Some(value.to_owned())
            }
            None => self.redacted(text, found),
        }
    }
}

/// Every text of a message.
fn texts(message: &Message) -> impl Iterator<Item = &str> {
    let content = message.content.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text.as_str()),
        Part::Image { .. } => None,
    });
    let arguments = message.tool_calls.iter().map(|call| call.arguments.as_str());
    content.chain(message.reasoning_text()).chain(arguments)
}

/// Settles the sizes in prefix breaks: short names and passwords have longer placeholders.
fn measure_breaks(session: &mut Session) {
    let chars: Vec<u64> = session.messages.iter().map(Message::chars).collect();
    let sum =
        |indices: &[u32]| -> u64 { indices.iter().filter_map(|&index| chars.get(index as usize)).sum() };
    let mut previous = 0;
    for call in &mut session.calls {
        let prefix = sum(&call.prefix);
        if let Some(record) = &mut call.prefix_break {
            let shared = call.prefix.len().min(record.shared_messages as usize);
            record.shared_chars = sum(&call.prefix[..shared]);
            record.previous_chars = previous;
        }
        previous = prefix + sum(&[call.completion]);
    }
}
