//! What of the recorded next action is still in sight: the words of its arguments that history holds, and how many of them
//! stand in the prompt as it was sent. Needs no model, so it is the earliest sign that compression took what was needed.

use std::collections::BTreeSet;

use serde_json::Value;
use transcripts::message::Message;

/// Words of fewer characters prove nothing: they stand everywhere.
const WORD_CHARS_MIN: usize = 3;

/// Share of the words of `action`'s arguments, of those that `original` holds, that `sent` holds too. `None` where the
/// action calls no tool, or no word of its arguments is in history.
pub fn of_arguments(original: &[&Message], sent: &[&Message], action: &Message) -> Option<f64> {
    let texts = |messages: &[&Message]| messages.iter().map(|message| message.flat_text()).collect::<Vec<_>>();
    let (original, sent) = (texts(original), texts(sent));
    let holds = |texts: &[String], word: &String| texts.iter().any(|text| text.contains(word.as_str()));
    let mut needed = words(action);
    needed.retain(|word| holds(&original, word));
    if needed.is_empty() {
        return None;
    }
    let survived = needed.iter().filter(|word| holds(&sent, word)).count();
    Some(survived as f64 / needed.len() as f64)
}

/// The words of all strings and numbers in the arguments, each once.
fn words(action: &Message) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for call in &action.tool_calls {
        match serde_json::from_str(&call.arguments) {
            Ok(arguments) => collect(&arguments, &mut words),
            Err(_) => split(&call.arguments, &mut words),
        }
    }
    words
}

fn collect(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => split(text, words),
        Value::Number(number) => split(&number.to_string(), words),
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, words)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Runs of letters, digits and what joins them in paths, identifiers and ids.
fn split(text: &str, words: &mut BTreeSet<String>) {
    let joins = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let runs = text.split(|c| !joins(c)).map(|run| run.trim_matches(['.', '-']));
    words.extend(runs.filter(|run| run.chars().count() >= WORD_CHARS_MIN).map(str::to_owned));
}

#[cfg(test)]
mod tests {
    use super::*;
    use transcripts::message::{Role, ToolCall};

    fn action(arguments: &str) -> Message {
        let call = ToolCall { id: "1".to_owned(), name: "Read".to_owned(), arguments: arguments.to_owned() };
        Message { tool_calls: vec![call], ..Message::text(Role::Assistant, "") }
    }

    #[test]
    fn words_of_the_arguments_that_history_holds_are_counted() {
        let output = Message::text(Role::Tool, "error in src/main.rs, line 417");
        let cut = Message::text(Role::Tool, "line 417");
        let read = action(r#"{"file_path": "src/main.rs", "offset": 417, "other": "nowhere"}"#);
        assert_eq!(of_arguments(&[&output], &[&output], &read), Some(1.0));
        assert_eq!(of_arguments(&[&output], &[&cut], &read), Some(0.5));
        assert_eq!(of_arguments(&[&output], &[], &read), Some(0.0));
    }

    #[test]
    fn an_action_that_needs_nothing_of_history_has_no_share() {
        let output = Message::text(Role::Tool, "nothing");
        assert_eq!(of_arguments(&[&output], &[&output], &action(r#"{"a": true, "b": "xy"}"#)), None);
        assert_eq!(of_arguments(&[&output], &[&output], &Message::text(Role::Assistant, "done")), None);
    }

    #[test]
    fn arguments_that_are_no_json_are_text() {
        let output = Message::text(Role::Tool, "alpha beta");
        assert_eq!(of_arguments(&[&output], &[&output], &action("{broken alpha")), Some(1.0));
    }
}
