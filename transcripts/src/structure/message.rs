//! Checks that need one message only: R04, R05, R06, R12, R13, R17. The caller says where the message stands.

use std::collections::HashSet;

use serde_json::Value;

use super::{Code, Finding, Severity};
use crate::message::{Message, Part, Role, ToolCall};

/// Checks one message.
pub(super) fn check(message: &Message, findings: &mut Vec<Finding>) {
    match message.role {
        Role::Assistant => assistant(message, findings),
        Role::Tool => tool(message, findings),
        Role::System | Role::User => {}
    }
}

fn assistant(message: &Message, findings: &mut Vec<Finding>) {
    let says_something = message.content.iter().any(|part| match part {
        Part::Text { text } => !text.is_empty(),
        Part::Image { .. } => true,
    });
    if !says_something && message.tool_calls.is_empty() {
        let detail =
            if message.reasoning.is_some() { "reasoning only" } else { "neither content nor tool calls" };
        findings.push(Finding::new(Code::R04, None, detail));
    }
    let mut ids = HashSet::new();
    for call in &message.tool_calls {
        if !ids.insert(call.id.as_str()) {
            findings.push(Finding::new(Code::R06, None, format!("id {:?} twice in one message", call.id)));
        }
        tool_call(call, findings);
    }
}

fn tool_call(call: &ToolCall, findings: &mut Vec<Finding>) {
    if call.id.is_empty() {
        findings.push(Finding::new(Code::R05, None, format!("a call of {:?} without an id", call.name)));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if call.name.is_empty() || call.name.len() > 64 || !call.name.chars().all(plain) {
        findings.push(Finding::new(Code::R05, None, format!("{}: name {:?}", call.id, call.name)));
    }
    if call.arguments.is_empty() {
        let detail = format!("{}: empty arguments, taken as {{}}", call.id);
        findings.push(Finding { severity: Severity::Info, ..Finding::new(Code::R13, None, detail) });
        return;
    }
    match serde_json::from_str::<Value>(&call.arguments) {
        Ok(Value::Object(_)) => {}
        Ok(other) => {
            let shown: String = other.to_string().chars().take(40).collect();
            findings.push(Finding::new(Code::R13, None, format!("{}: arguments are {shown}", call.id)));
        }
        Err(error) => findings.push(Finding::new(Code::R12, None, format!("{}: {error}", call.id))),
    }
}

fn tool(message: &Message, findings: &mut Vec<Finding>) {
    for part in &message.content {
        if let Part::Image { media_type, bytes_len, .. } = part {
            let id = message.tool_call_id.as_deref().unwrap_or("no id");
            let detail = format!("{id}: {media_type} of {bytes_len} bytes in a tool result");
            findings.push(Finding::new(Code::R17, None, detail));
        }
    }
}
