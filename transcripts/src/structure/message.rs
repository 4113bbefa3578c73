//! Checks that need one message only: R04 to R06, R12 to R18 and R21. The caller says where the message stands.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Code, Finding, Severity};
use crate::json_text;
use crate::message::{Message, Part, Role, ToolCall};
use crate::schema::ToolSchemas;

/// Media types of images that multimodal APIs take.
const IMAGE_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// Checks one message.
pub(super) fn check(message: &Message, tools: &ToolSchemas, findings: &mut Vec<Finding>) {
    images(message, findings);
    match message.role {
        Role::Assistant => assistant(message, tools, findings),
        Role::Tool => tool(message, findings),
        Role::System | Role::User => {}
    }
}

fn assistant(message: &Message, tools: &ToolSchemas, findings: &mut Vec<Finding>) {
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
        form(call, findings);
        if !tools.is_empty() && !tools.knows(&call.name) {
            findings.push(Finding::new(Code::R15, None, format!("{}: no tool {:?}", call.id, call.name)));
        }
        if let Some(arguments) = arguments(call, findings) {
            for found in tools.violations(&call.name, &arguments) {
                let at = if found.instance_path.is_empty() { "the arguments" } else { &found.instance_path };
                let detail = format!("{}: {} at {at}: {}", call.id, found.keyword, found.detail);
                findings.push(Finding::new(Code::R16, None, detail));
            }
        }
    }
}

/// R05.
fn form(call: &ToolCall, findings: &mut Vec<Finding>) {
    if call.id.is_empty() {
        findings.push(Finding::new(Code::R05, None, format!("a call of {:?} without an id", call.name)));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if call.name.is_empty() || call.name.len() > 64 || !call.name.chars().all(plain) {
        findings.push(Finding::new(Code::R05, None, format!("{}: name {:?}", call.id, call.name)));
    }
}

/// R12, R13 and R14; the arguments where they are an object.
fn arguments(call: &ToolCall, findings: &mut Vec<Finding>) -> Option<Value> {
    if call.arguments.is_empty() {
        let detail = format!("{}: empty arguments, taken as {{}}", call.id);
        findings.push(Finding { severity: Severity::Info, ..Finding::new(Code::R13, None, detail) });
        return Some(Value::Object(Map::new()));
    }
    // What common parsers take and JSON does not know is R14 alone; what is left is R12.
    let reading = json_text::read(&call.arguments);
    match serde_json::from_str::<Value>(&reading.text) {
        Ok(value) => {
            let duplicate = json_text::duplicate_key(&reading.text);
            let duplicate = duplicate.map(|key| format!("the key {key:?} twice in one object"));
            let odd = [
                duplicate,
                reading.lone_surrogate.then(|| "a lone surrogate".to_owned()),
                reading.not_finite.then(|| "NaN or Infinity".to_owned()),
                reading.nul.then(|| "a NUL".to_owned()),
            ];
            for detail in odd.into_iter().flatten() {
                findings.push(Finding::new(Code::R14, None, format!("{}: {detail}", call.id)));
            }
            if value.is_object() {
                return Some(value);
            }
            let shown: String = value.to_string().chars().take(40).collect();
            findings.push(Finding::new(Code::R13, None, format!("{}: arguments are {shown}", call.id)));
        }
        Err(error) => findings.push(Finding::new(Code::R12, None, format!("{}: {error}", call.id))),
    }
    None
}

/// R17 and R21.
fn tool(message: &Message, findings: &mut Vec<Finding>) {
    let id = message.tool_call_id.as_deref().unwrap_or("no id");
    for part in &message.content {
        if let Part::Image { media_type, bytes_len, .. } = part {
            let detail = format!("{id}: {media_type} of {bytes_len} bytes in a tool result");
            findings.push(Finding::new(Code::R17, None, detail));
        }
    }
    // A result that was shortened or replaced is synthetic, too, and still has its line in the source.
    if message.synthetic && message.origin.line == 0 {
        let shown: String = message.flat_text().chars().take(80).collect();
        findings.push(Finding::new(
            Code::R21,
            None,
            format!("{id}: no result was recorded, {shown:?} was sent"),
        ));
    }
}

/// R18: no image reaches the models that are replayed, which read text; the detail says what else is wrong with it.
fn images(message: &Message, findings: &mut Vec<Finding>) {
    for part in &message.content {
        if let Part::Image { media_type, bytes_len, undecodable, .. } = part {
            let why = if *undecodable {
                "its base64 does not decode"
            } else if !IMAGE_TYPES.contains(&media_type.as_str()) {
                "not an image type that models read"
            } else {
                "the models replayed read text alone"
            };
            let detail = format!("{media_type} of {bytes_len} bytes is a placeholder: {why}");
            findings.push(Finding::new(Code::R18, None, detail));
        }
    }
}
