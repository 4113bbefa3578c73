//! Client attachments as the user-side text they become in a request. The client's own rendering is not recorded, so
//! every text here is an approximation; attachments that only the person sees give nothing. Knows no tree.

use serde_json::{Map, Value};

/// Attachment types the client shows to the person and never sends.
const SHOWN_ONLY: [&str; 8] = [
    "hook_success",
    "hook_system_message",
    "hook_non_blocking_error",
    "hook_error_during_execution",
    "hook_cancelled",
    "hook_permission_decision",
    "command_permissions",
    "structured_output",
];

/// The text of an attachment, or `None` when it is never sent.
pub(super) fn text(attachment: &Map<String, Value>) -> Option<String> {
    let kind = attachment.get("type").and_then(Value::as_str).unwrap_or("unknown");
    if SHOWN_ONLY.contains(&kind) {
        return None;
    }
    let body = match kind {
        "hook_additional_context" => {
            let hook = str_of(attachment, "hookName");
            format!("{hook} hook additional context: {}", lines_of(attachment.get("content")?))
        }
        "queued_command" => return Some(lines_of(attachment.get("prompt")?)),
        "deferred_tools_delta" => {
            let added = attachment.get("addedNames").map(lines_of).unwrap_or_default();
            format!("The following deferred tools are now available via ToolSearch:\n{added}")
        }
        "skill_listing" => {
            let content = attachment.get("content").map(lines_of)?;
            format!("The following skills are available for use with the Skill tool:\n\n{content}")
        }
        "task_reminder" | "todo_reminder" => task_list(attachment.get("content")?),
        "file" | "compact_file_reference" | "nested_memory" | "selected_lines_in_ide" => {
            let path = [str_of(attachment, "filename"), str_of(attachment, "path")].concat();
            let content = attachment.get("content").map(lines_of).unwrap_or_default();
            format!("Contents of {path}:\n\n{content}")
        }
        _ => {
            let bodies = ["content", "addedBlocks", "text", "blockingError", "message"];
            let body = bodies.iter().find_map(|name| attachment.get(*name));
            body.map(lines_of).unwrap_or_else(|| Value::Object(without_type(attachment)).to_string())
        }
    };
    Some(format!("<system-reminder>\n{body}\n</system-reminder>"))
}

fn str_of<'a>(attachment: &'a Map<String, Value>, name: &str) -> &'a str {
    attachment.get(name).and_then(Value::as_str).unwrap_or("")
}

fn without_type(attachment: &Map<String, Value>) -> Map<String, Value> {
    attachment
        .iter()
        .filter(|(name, _)| *name != "type")
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// A string as it is, a list line by line, a text block or a wrapped file as its text, the rest as JSON.
fn lines_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(lines_of).collect::<Vec<_>>().join("\n"),
        Value::Object(object) => {
            let inner = ["text", "content", "file"].iter().find_map(|name| object.get(*name));
            inner.map(lines_of).unwrap_or_else(|| value.to_string())
        }
        other => other.to_string(),
    }
}

/// The task list, one task a line, as it was recorded.
fn task_list(content: &Value) -> String {
    let tasks =
        content.as_array().map(|tasks| tasks.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"));
    format!("The task list, which may be stale:\n{}", tasks.unwrap_or_else(|| lines_of(content)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(attachment: Value) -> Option<String> {
        text(attachment.as_object().unwrap())
    }

    #[test]
    fn what_the_person_alone_sees_is_not_sent() {
        assert_eq!(of(json!({"type": "hook_success", "content": "Status set to busy"})), None);
        assert_eq!(of(json!({"type": "hook_system_message", "content": "x"})), None);
    }

    #[test]
    fn each_shape_gives_its_text() {
        let cases = [
            (
                json!({"type": "hook_additional_context", "hookName": "SessionStart", "content": ["a", "b"]}),
                "<system-reminder>\nSessionStart hook additional context: a\nb\n</system-reminder>",
            ),
            (
                json!({"type": "queued_command", "prompt": [{"type": "text", "text": "and run the tests"}]}),
                "and run the tests",
            ),
            (
                json!({"type": "task_reminder", "content": [{"id": "1", "status": "pending", "subject": "s"}]}),
                "<system-reminder>\nThe task list, which may be stale:\n{\"id\":\"1\",\"status\":\"pending\",\"subject\":\"s\"}\n\
              </system-reminder>",
            ),
            (
                json!({"type": "file", "filename": "/a", "content": {"type": "text", "file": {"content": "body"}}}),
                "<system-reminder>\nContents of /a:\n\nbody\n</system-reminder>",
            ),
            (json!({"type": "of_next_year", "n": 3}), "<system-reminder>\n{\"n\":3}\n</system-reminder>"),
        ];
        for (attachment, expected) in cases {
            assert_eq!(of(attachment.clone()).as_deref(), Some(expected), "{attachment}");
        }
    }
}
