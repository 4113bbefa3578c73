//! O16: calls in the form of another family of models. Four forms are told by their marks; one of them, the XML of
//! Qwen's coder models, is also read, which is a repair and never makes a response valid.

use serde_json::{Map, Value};
use transcripts::schema::ToolSchemas;

use crate::validity::call::CheckedCall;

const FUNCTION_OPEN: &str = "<function=";
const FUNCTION_CLOSE: &str = "</function>";
const PARAMETER_OPEN: &str = "<parameter=";
const PARAMETER_CLOSE: &str = "</parameter>";
const FENCE: &str = "```";

/// The body of a call is XML instead of JSON.
pub fn is_xml(body: &str) -> bool {
    body.trim_start().starts_with(FUNCTION_OPEN)
}

/// The calls in another form that stand in the content, outside of `<tool_call>`: each XML function by itself, any
/// other form as the whole content.
pub fn foreign<'a>(content: &'a str, tools: &ToolSchemas) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut rest = content;
    while let Some(start) = rest.find(FUNCTION_OPEN) {
        let from = &rest[start..];
        if !has_name(from) {
            rest = &from[FUNCTION_OPEN.len()..];
            continue;
        }
        let end = from.find(FUNCTION_CLOSE).map_or(from.len(), |at| at + FUNCTION_CLOSE.len());
        found.push(&from[..end]);
        rest = &from[end..];
    }
    if found.is_empty()
        && (has_mistral_call(content) || has_fenced_call(content) || is_pythonic(content, tools))
    {
        found.push(content);
    }
    found
}

/// An opening tag names a function; prose about the form does not.
fn has_name(text: &str) -> bool {
    let name = text.strip_prefix(FUNCTION_OPEN).and_then(|text| text.split_once('>')).map(|(name, _)| name);
    name.is_some_and(|name| !name.is_empty() && name.chars().all(is_name_char))
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || "_.-".contains(c)
}

/// Mistral's mark, with a list, an object or `NAME[ARGS]` behind it.
fn has_mistral_call(content: &str) -> bool {
    let after = content.split_once("[TOOL_CALLS]").map(|(_, after)| after.trim_start());
    after.is_some_and(|after| after.starts_with(['[', '{']) || after.contains("[ARGS]"))
}

/// A fenced block that holds a JSON object with a name and arguments, which is how models write a call that they do
/// not know how to make.
fn has_fenced_call(content: &str) -> bool {
    // Every second piece between fences is inside one.
    content.split(FENCE).skip(1).step_by(2).any(|inside| {
        let body = inside.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let parsed = serde_json::from_str::<Map<String, Value>>(body.trim());
        parsed.is_ok_and(|object| {
            object.get("name").is_some_and(Value::is_string)
                && ["arguments", "parameters"]
                    .iter()
                    .any(|key| object.get(*key).is_some_and(Value::is_object))
        })
    })
}

/// The whole content is `[name(..)]`, and the name is a tool's where those are known.
fn is_pythonic(content: &str, tools: &ToolSchemas) -> bool {
    let inside = content.trim().strip_prefix('[').and_then(|text| text.strip_suffix(")]"));
    let Some((name, _)) = inside.and_then(|text| text.split_once('(')) else { return false };
    !name.is_empty() && name.chars().all(is_name_char) && (tools.is_empty() || tools.knows(name))
}

/// Reads `<function=NAME><parameter=KEY>VALUE</parameter>..</function>`. A value is text where the tool's schema takes
/// a string or says nothing; else it is read as JSON, and as text where that fails.
pub fn read_xml(text: &str, tools: &ToolSchemas) -> Option<CheckedCall> {
    let (name, body) = text.trim().strip_prefix(FUNCTION_OPEN)?.split_once('>')?;
    let (name, mut rest) = (name.trim(), body.strip_suffix(FUNCTION_CLOSE)?.trim());
    let mut arguments = Map::new();
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix(PARAMETER_OPEN)?.split_once('>')?;
        let (value, after) = after.split_once(PARAMETER_CLOSE)?;
        // The template puts one line break on either side of a value.
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let key = key.trim();
        arguments.insert(key.to_owned(), coerced(value, tools.property(name, key)));
        rest = after.trim_start();
    }
    (!name.is_empty()).then(|| CheckedCall { name: name.to_owned(), arguments })
}

fn coerced(text: &str, schema: Option<&Value>) -> Value {
    let takes_text = match schema.and_then(|schema| schema.get("type")) {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        _ => true,
    };
    let parsed = if takes_text { None } else { serde_json::from_str(text).ok() };
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}
