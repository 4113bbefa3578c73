//! Does a generated turn do what the recorded one did, and did the prompt still hold what that took? Pure functions over
//! messages; knows no model, no arm and no record.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value};
use transcripts::message::{Message, Role, ToolCall};

use crate::validity::call::CheckedCall;

/// Shorter words are in every text, so that finding them again says nothing.
const WORD_CHARS_MIN: usize = 3;
/// Elided words that are listed by name; the share counts all.
const ELIDED_LISTED_MAX: usize = 8;
/// Longest word that is listed, in characters; the rest of it is left out.
const WORD_CHARS_LISTED: usize = 80;

/// The words of a recorded turn's arguments that its prompt had from tool outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Needles {
    /// Share of them that the prompt as sent still holds, anywhere; `None` where there are none.
    pub survival: Option<f64>,
    /// Those that it no longer holds, in the order of the arguments; at most a few.
    pub elided: Vec<String>,
}

/// Whether the generated calls are the recorded ones: as many, in the same order, with equal names and arguments equal as
/// JSON (the order of keys and white space apart). `None` where the recorded turn calls no tool, or with arguments that
/// are no JSON object, so that nothing could equal them.
pub fn calls_agree(generated: &[CheckedCall], recorded: &Message) -> Option<bool> {
    let recorded: Option<Vec<CheckedCall>> = recorded.tool_calls.iter().map(expected).collect();
    let recorded = recorded.filter(|calls| !calls.is_empty())?;
    Some(recorded == generated)
}

fn expected(call: &ToolCall) -> Option<CheckedCall> {
    let arguments: Map<String, Value> = serde_json::from_str(&call.arguments).ok()?;
    Some(CheckedCall { name: call.name.clone(), arguments })
}

/// Which words of the recorded turn's arguments the tool messages of `prompt` hold, and which of these `sent` lost.
pub fn needles(recorded: &Message, prompt: &[&Message], sent: &[Message]) -> Needles {
    let arguments: Vec<Value> =
        recorded.tool_calls.iter().filter_map(|call| serde_json::from_str(&call.arguments).ok()).collect();
    let mut texts = Vec::new();
    arguments.iter().for_each(|value| leaves(value, &mut texts));
    let from_tools = prompt.iter().filter(|message| message.role == Role::Tool);
    let known: Vec<String> = from_tools.map(|message| message.flat_text()).collect();
    let known: HashSet<&str> = known.iter().flat_map(|text| words(text)).collect();

    let mut seen = BTreeSet::new();
    let needed: Vec<&str> = texts
        .iter()
        .flat_map(|text| words(text))
        .filter(|word| known.contains(word) && seen.insert(*word))
        .collect();
    if needed.is_empty() {
        return Needles { survival: None, elided: Vec::new() };
    }
    let left: Vec<String> = sent.iter().flat_map(all_texts).collect();
    let left: HashSet<&str> = left.iter().flat_map(|text| words(text)).collect();
    let elided: Vec<&str> = needed.iter().copied().filter(|word| !left.contains(word)).collect();
    let survived = needed.len() - elided.len();
    Needles {
        survival: Some(survived as f64 / needed.len() as f64),
        elided: elided
            .into_iter()
            .take(ELIDED_LISTED_MAX)
            .map(|word| word.chars().take(WORD_CHARS_LISTED).collect())
            .collect(),
    }
}

/// Every text and number of a JSON value, in order; keys left out.
fn leaves(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Number(number) => texts.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, texts)),
        Value::Object(fields) => fields.values().for_each(|field| leaves(field, texts)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// What a message says, its calls' arguments included.
fn all_texts(message: &Message) -> impl Iterator<Item = String> {
    let arguments: Vec<String> = message.tool_calls.iter().map(|call| call.arguments.clone()).collect();
    std::iter::once(message.flat_text()).chain(arguments)
}

/// Names, numbers and paths: runs of letters, digits and `_`, held together by `-`, `.` and `/`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')))
        .map(|run| run.trim_matches(['-', '.', '/']))
        .filter(|word| word.chars().count() >= WORD_CHARS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn turn(calls: &[(&str, &str)]) -> Message {
        let call = |(i, &(name, arguments)): (usize, &(&str, &str))| ToolCall {
            id: format!("call-{i}"),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        };
        let tool_calls = calls.iter().enumerate().map(call).collect();
        Message { tool_calls, ..Message::text(Role::Assistant, "") }
    }

    fn generated(calls: &[(&str, Value)]) -> Vec<CheckedCall> {
        calls
            .iter()
            .map(|(name, arguments)| CheckedCall {
                name: (*name).to_owned(),
                arguments: arguments.as_object().cloned().unwrap_or_default(),
            })
            .collect()
    }

    #[test]
    fn calls_agree_by_name_and_arguments_in_order() {
        let recorded = turn(&[("Read", r#"{"file_path": "a.rs", "limit": 3}"#), ("Grep", "{}")]);
        let read = ("Read", json!({"limit": 3, "file_path": "a.rs"}));
        let grep = ("Grep", json!({}));
        for (calls, agrees) in [
            (vec![read.clone(), grep.clone()], true),
            (vec![grep.clone(), read.clone()], false),
            (vec![read.clone()], false),
            (vec![read.clone(), grep.clone(), grep.clone()], false),
            (vec![("Read", json!({"limit": 4, "file_path": "a.rs"})), grep.clone()], false),
            (vec![("Edit", read.1.clone()), grep], false),
            (vec![], false),
        ] {
            assert_eq!(calls_agree(&generated(&calls), &recorded), Some(agrees), "{calls:?}");
        }
    }

    #[test]
    fn a_turn_without_calls_or_with_broken_arguments_cannot_be_agreed_with() {
        assert_eq!(calls_agree(&[], &turn(&[])), None);
        assert_eq!(calls_agree(&[], &turn(&[("Read", "{\"file_path\"")])), None);
        assert_eq!(calls_agree(&generated(&[("Read", json!({}))]), &turn(&[("Read", "[]")])), None);
    }

    #[test]
    fn needles_are_argument_words_of_tool_outputs_and_elided_where_nothing_sent_holds_them() {
        let ask = Message::text(Role::User, "what owns port 4817 and TCK-9921?");
        let output = Message::text(Role::Tool, "src/net/pool.rs:4817: error\nTCK-9921 is with ada\nrow 12");
        let recorded = turn(&[(
            "Edit",
            r#"{"file": "src/net/pool.rs", "at": {"line": 4817}, "ids": ["TCK-9921", "new"]}"#,
        )]);
        let prompt = [&ask, &output];
        let whole = needles(&recorded, &prompt, &[ask.clone(), output.clone()]);
        assert_eq!(whole, Needles { survival: Some(1.0), elided: vec![] });

        // The user still says two of the three; "new" was never in an output and does not count.
        let cut = Message::text(Role::Tool, "TCK-99 is with ada");
        let lost = needles(&recorded, &prompt, &[ask.clone(), cut.clone()]);
        assert_eq!(lost, Needles { survival: Some(2.0 / 3.0), elided: vec!["src/net/pool.rs".to_owned()] });
        let lost = needles(&recorded, &prompt, &[cut]);
        assert_eq!(lost.elided, ["src/net/pool.rs", "4817", "TCK-9921"]);
        assert_eq!(lost.survival, Some(0.0));
    }

    #[test]
    fn a_turn_that_needs_nothing_of_a_tool_output_has_no_survival() {
        let output = Message::text(Role::Tool, "nothing of it");
        let none = needles(&turn(&[("Read", r#"{"file_path": "b.rs"}"#)]), &[&output], &[]);
        assert_eq!(none, Needles { survival: None, elided: vec![] });
    }

    #[test]
    fn an_earlier_calls_arguments_keep_a_word_alive() {
        let output = Message::text(Role::Tool, "deadbeef01 fix");
        let recorded = turn(&[("Bash", r#"{"command": "git show deadbeef01"}"#)]);
        let earlier = turn(&[("Bash", r#"{"command": "git log deadbeef01"}"#)]);
        assert_eq!(needles(&recorded, &[&output], &[earlier]).survival, Some(1.0));
    }
}
