//! The rebuild a second time, slow and plain, straight from the description of the format: the twin of the importer.
//! Main chain only. For each call: role and text of every message of the prefix, then the completion's.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use transcripts::import::{TextFile, import_texts};
use transcripts::message::Message;
use transcripts::session::{Kind, Session};

/// Role and text of each message of a request.
type Request = Vec<(String, String)>;
/// Request and completion of each call.
type Calls = Vec<(Request, String)>;

fn text(line: &Value, name: &str) -> String {
    line[name].as_str().unwrap_or("").to_owned()
}

fn blocks(line: &Value) -> Vec<Value> {
    match &line["message"]["content"] {
        Value::String(text) => vec![serde_json::json!({"type": "text", "text": text})],
        Value::Array(blocks) => blocks.clone(),
        _ => Vec::new(),
    }
}

/// Text of the blocks that are not tool results, and `id name arguments` of the tool calls.
fn flat(blocks: &[Value]) -> String {
    let mut flat: String =
        blocks.iter().filter(|block| block["type"] == "text").map(|block| text(block, "text")).collect();
    for block in blocks.iter().filter(|block| block["type"] == "tool_use") {
        flat.push_str(&format!(" [{} {} {}]", text(block, "id"), text(block, "name"), block["input"]));
    }
    flat
}

fn group_id(line: &Value) -> String {
    text(&line["message"], "id")
}

/// Prefix and completion of every call of the main chain.
pub fn rebuild(lines: &[Value]) -> Calls {
    let mut unique: Vec<&Value> = Vec::new();
    let mut uuids = HashSet::new();
    for line in lines.iter().filter(|line| line["uuid"].is_string() && uuids.insert(text(line, "uuid"))) {
        unique.push(line);
    }
    let at: HashMap<String, usize> =
        unique.iter().enumerate().map(|(at, line)| (text(line, "uuid"), at)).collect();
    let is_call = |line: &Value| line["type"] == "assistant" && line["message"]["model"] != "<synthetic>";
    let members = |id: &str, before: usize| -> Vec<Value> {
        let of_group = unique[..before].iter().filter(|line| is_call(line) && group_id(line) == id);
        of_group.flat_map(|line| blocks(line)).collect()
    };
    let mut calls = Vec::new();
    let mut seen = HashSet::new();
    for (first, line) in unique.iter().enumerate().filter(|(_, line)| is_call(line)) {
        if !seen.insert(group_id(line)) {
            continue;
        }
        let mut path = Vec::new();
        let mut parent = text(line, "parentUuid");
        while let Some(&up) = at.get(&parent) {
            path.insert(0, up);
            parent = text(unique[up], "parentUuid");
            if unique[up]["subtype"] == "compact_boundary" {
                break;
            }
        }
        let prefix = request(&unique, &path, first, &members, &is_call);
        calls.push((prefix, flat(&members(&group_id(line), unique.len()))));
    }
    calls
}

fn request(
    unique: &[&Value],
    path: &[usize],
    first: usize,
    members: &impl Fn(&str, usize) -> Vec<Value>,
    is_call: &impl Fn(&Value) -> bool,
) -> Request {
    let mut cleared: Vec<String> = Vec::new();
    for &up in path.iter().filter(|&&up| unique[up]["subtype"] == "microcompact_boundary") {
        let ids = unique[up]["microcompactMetadata"]["compactedToolIds"].as_array().unwrap();
        cleared.extend(ids.iter().map(|id| id.as_str().unwrap().to_owned()));
    }
    let result = |id: &str| {
        let of_users =
            unique[..first].iter().filter(|line| line["type"] == "user").flat_map(|line| blocks(line));
        of_users.into_iter().find(|block| block["type"] == "tool_result" && block["tool_use_id"] == id)
    };
    let mut prefix: Request = Vec::new();
    let mut done = HashSet::new();
    for &up in path {
        let line = unique[up];
        if is_call(line) && done.insert(group_id(line)) {
            let blocks = members(&group_id(line), first);
            prefix.push(("assistant".to_owned(), flat(&blocks)));
            for id in blocks.iter().filter(|block| block["type"] == "tool_use").map(|block| text(block, "id"))
            {
                let Some(result) = result(&id) else { continue };
                let body = match &result["content"] {
                    Value::Array(parts) => parts.iter().map(|part| text(part, "text")).collect(),
                    _ => text(&result, "content"),
                };
                let body =
                    if cleared.contains(&id) { "[Old tool result content cleared]".to_owned() } else { body };
                prefix.push(("tool".to_owned(), body));
            }
        }
        let said: Vec<Value> =
            blocks(line).into_iter().filter(|block| block["type"] != "tool_result").collect();
        if line["type"] == "user" && !said.is_empty() {
            prefix.push(("user".to_owned(), flat(&said)));
        }
    }
    prefix
}

/// The same view of an imported session.
pub fn imported(session: &Session) -> Calls {
    let shown = |message: &Message| {
        let mut text = message.flat_text();
        for call in &message.tool_calls {
            text.push_str(&format!(" [{} {} {}]", call.id, call.name, call.arguments));
        }
        text
    };
    let view = |call: usize| {
        let prefix = session
            .prefix(call)
            .into_iter()
            .map(|message| (message.role.as_str().to_owned(), shown(message)));
        (prefix.collect(), shown(session.completion(call).unwrap()))
    };
    (0..session.calls.len()).map(view).collect()
}

/// Both rebuilds of one text.
pub fn both(text: &str) -> (Calls, Calls) {
    let values = |line: &str| {
        serde_json::Deserializer::from_str(line).into_iter().map_while(Result::ok).collect::<Vec<Value>>()
    };
    let lines: Vec<Value> =
        text.lines().flat_map(values).filter(|line| line["isSidechain"] != true).collect();
    let import = import_texts(&[TextFile { name: "s1.jsonl", text }]).unwrap();
    let main = import.sessions.iter().find(|session| session.kind == Kind::Main);
    (rebuild(&lines), main.map(imported).unwrap_or_default())
}

#[test]
fn both_rebuilds_agree_on_fixtures() {
    for name in [
        "f05_parallel_tool_calls",
        "f08_rewind",
        "f10_clear_in_the_file",
        "f12_history_appended_again",
        "f14_boundary_without_metadata",
        "microcompact",
        "f02_no_request_id",
    ] {
        let text = std::fs::read_to_string(crate::golden::fixtures().join(format!("{name}.jsonl"))).unwrap();
        let text: String = text
            .lines()
            .filter(|line| !line.contains("no ids at all"))
            .map(|line| format!("{line}\n"))
            .collect();
        let (naive, fast) = both(&text);
        assert!(naive.len() >= 2, "{name}");
        assert_eq!(naive, fast, "{name}");
    }
}
