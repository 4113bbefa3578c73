//! Is a request one that a server would accept? Pure functions over messages, run on what was recorded and again on
//! what a compression or a rewrite made of it. Knows no file, no template and no output of a model.
//!
//! Codes R01 to R22; the table is [`RULES`]. R20 and R22 look at more than one request: [`check_session`] alone has them.

mod message;
mod order;
mod rules;
mod usage;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

pub use self::rules::{Code, RULES, Rule, Severity};
use crate::message::Message;
use crate::schema::ToolSchemas;
use crate::session::Session;

/// One violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The call, from 0; `None` from [`check_request`], which knows one request only.
    pub call_index: Option<u32>,
    /// Position in the request of the message it is about; `None` when it is about the request as a whole.
    pub message_index: Option<u32>,
    /// What was found, with ids and names.
    pub detail: String,
}

impl Finding {
    fn new(code: Code, message_index: Option<usize>, detail: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.rule().severity,
            call_index: None,
            message_index: message_index.and_then(|index| u32::try_from(index).ok()),
            detail: detail.into(),
        }
    }
}

/// Checks one request, in the order of its messages: everything but R20 and R22. Without tools their names (R15) and
/// arguments (R16) are not checked.
pub fn check_request(messages: &[&Message], tools: &ToolSchemas) -> Vec<Finding> {
    check_with(messages, |index, findings| {
        if let Some(message) = messages.get(index) {
            message::check(message, tools, findings);
        }
    })
}

/// Checks every call of a session, where its prefix leaves the one before (R20), and the provider's counts (R22; a
/// finding about the whole chain has no call and comes last). A defect of a message counts once
/// in every call that sends it.
pub fn check_session(session: &Session) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tools = ToolSchemas::new(&session.tools);
    // A message is part of many prefixes; its arguments are parsed once.
    let mut known: HashMap<u32, Vec<Finding>> = HashMap::new();
    for (nth, call) in session.calls.iter().enumerate() {
        let messages = session.prefix(nth);
        let of_call = check_with(&messages, |position, findings| {
            let Some(index) = call.prefix.get(position) else { return };
            let of_message = known.entry(*index).or_insert_with(|| {
                let mut found = Vec::new();
                message::check(messages[position], &tools, &mut found);
                found
            });
            findings.extend(of_message.iter().cloned());
        });
        let call_index = u32::try_from(nth).ok();
        findings.extend(of_call.into_iter().map(|finding| Finding { call_index, ..finding }));
        if let Some(record) = &call.prefix_break {
            let detail = format!(
                "{}: {} messages shared, {} of {} chars",
                record.cause.as_str(),
                record.shared_messages,
                record.shared_chars,
                record.previous_chars
            );
            let broken = Finding::new(Code::R20, Some(record.shared_messages as usize), detail);
            findings.push(Finding { call_index, ..broken });
        }
        findings.extend(usage::shrink(session, nth));
    }
    findings.extend(usage::bad_fit(session));
    findings
}

/// Runs all checks over one request; `of_message` adds the findings of the message at a position.
fn check_with(messages: &[&Message], mut of_message: impl FnMut(usize, &mut Vec<Finding>)) -> Vec<Finding> {
    let mut findings = Vec::new();
    order::check_roles(messages, &mut findings);
    for position in 0..messages.len() {
        let first = findings.len();
        of_message(position, &mut findings);
        for finding in &mut findings[first..] {
            finding.message_index = u32::try_from(position).ok();
        }
    }
    order::check_pairing(messages, &mut findings);
    findings.sort_by_key(|finding| (finding.message_index, finding.code));
    findings
}
