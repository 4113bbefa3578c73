//! The same recordings written in other ways: what means the same gives the same calls, and what leaves out members that
//! a recording need not have gives as many calls, with the same messages, paired as before.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use transcripts::import::{ImportOptions, import};
use transcripts::session::Session;

use crate::{golden, invariants};

/// Members whose objects are envelopes: their order and what else they hold says nothing.
const ENVELOPES: [&str; 7] = ["message", "payload", "request", "response", "body", "metadata", "info"];
/// Members that are data of a tool or a model: their order and every member counts.
const DATA: [&str; 13] = [
    "input",
    "arguments",
    "function",
    "tools",
    "parameters",
    "input_schema",
    "args",
    "action",
    "observation",
    "output",
    "data",
    "state",
    "toolUseResult",
];
/// Members that a recording need not have: what a provider counted, times, versions, and the like.
const OPTIONAL: [&str; 16] = [
    "usage",
    "timestamp",
    "version",
    "requestId",
    "cwd",
    "gitBranch",
    "userType",
    "stop_reason",
    "created_at",
    "updated_at",
    "latency_sec",
    "status",
    "object",
    "created",
    "finish_reason",
    "signature",
];

type Rewrite = fn(&[u8]) -> Vec<u8>;

/// The lines of a text with other ends.
fn joined(bytes: &[u8], end: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(end)
}

/// Every value of a text, each with its line, rewritten by itself; what is no JSON stays.
fn values(bytes: &[u8], rewrite: impl Fn(Value) -> Value) -> Vec<u8> {
    if let Ok(document) = serde_json::from_slice(bytes) {
        return rewrite(document).to_string().into_bytes();
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines: Vec<Vec<u8>> = lines
        .map(|line| {
            serde_json::from_slice(line).map_or(line.to_vec(), |value| rewrite(value).to_string().into())
        })
        .collect();
    lines.join(&b'\n')
}

/// True for an item that is sent as the text of its JSON.
fn is_text(value: &Value) -> bool {
    value["type"] == "web_search_call"
}

/// The members of objects, envelope by envelope, put in another order or among others.
fn in_envelopes(value: Value, change: fn(Map<String, Value>) -> Map<String, Value>) -> Value {
    match value {
        value if is_text(&value) => value,
        Value::Object(object) => {
            let inner = object.into_iter().map(|(name, value)| match ENVELOPES.contains(&name.as_str()) {
                true => (name, in_envelopes(value, change)),
                false => (name, value),
            });
            Value::Object(change(inner.collect()))
        }
        Value::Array(items) => items.into_iter().map(|item| in_envelopes(item, change)).collect(),
        other => other,
    }
}

/// Members outside of data, taken for what `change` makes of them; `None` takes one out.
fn members(value: Value, change: &dyn Fn(&str, Value) -> Option<Value>) -> Value {
    match value {
        value if is_text(&value) => value,
        Value::Object(object) => {
            let kept = object.into_iter().filter_map(|(name, value)| {
                if DATA.contains(&name.as_str()) {
                    return Some((name, value));
                }
                let value = change(&name, value)?;
                Some((name, members(value, change)))
            });
            Value::Object(kept.collect())
        }
        Value::Array(items) => items.into_iter().map(|item| members(item, change)).collect(),
        other => other,
    }
}

fn without_damage(bytes: &[u8]) -> Vec<Value> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).filter(|v: &Value| v.is_object()).collect()
}

fn is_document(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok() || without_damage(bytes).is_empty()
}

/// The recordings of an input, copied and rewritten, imported: the calls of every session.
fn calls_of(input: &Path, rewrite: &dyn Fn(&[u8]) -> Vec<u8>, show: fn(&Session) -> Value) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join(input.file_name().unwrap());
    let mut waiting = vec![(input.to_path_buf(), root.clone())];
    while let Some((from, to)) = waiting.pop() {
        if from.is_dir() {
            fs::create_dir(&to).unwrap();
            let entries = fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().file_name());
            waiting.extend(entries.map(|name| (from.join(&name), to.join(&name))));
        } else {
            fs::write(&to, rewrite(&fs::read(&from).unwrap())).unwrap();
        }
    }
    match import(&[&root], &ImportOptions::default()) {
        Ok(import) => {
            invariants::check(&import);
            import.sessions.iter().map(show).collect()
        }
        Err(error) => json!(error.to_string()),
    }
}

/// Everything a call is, without the lines it was read from and the name its session got.
fn whole(session: &Session) -> Value {
    let calls = session.calls.iter().enumerate().map(|(index, call)| {
        let broken = call.prefix_break.map(|record| (record.cause.as_str(), record.shared_messages));
        json!([messages(session, index), call.usage, call.model, call.gap_ms, call.started_at, broken])
    });
    json!([session.kind.as_str(), session.tools, calls.collect::<Vec<_>>()])
}

/// Who said what in each call, and which result answers which tool call.
fn said(session: &Session) -> Value {
    (0..session.calls.len()).map(|index| messages(session, index)).collect()
}

fn messages(session: &Session, call: usize) -> Value {
    let all = session.prefix(call).into_iter().chain(session.completion(call));
    all.map(|message| json!([message.role, message.content, message.tool_calls, message.tool_call_id]))
        .collect()
}

/// The inputs and what their calls are as they stand.
fn unchanged(show: fn(&Session) -> Value) -> Vec<(PathBuf, Value)> {
    let calls = |input: PathBuf| {
        let calls = calls_of(&input, &|bytes: &[u8]| bytes.to_vec(), show);
        (input, calls)
    };
    golden::inputs().into_iter().map(calls).collect()
}

/// The names of the inputs that a rewrite gives other calls.
fn changed(
    inputs: &[(PathBuf, Value)],
    rewrite: &dyn Fn(&[u8]) -> Vec<u8>,
    show: fn(&Session) -> Value,
) -> Vec<String> {
    let differs = |(input, calls): &&(PathBuf, Value)| calls_of(input, rewrite, show) != *calls;
    let name = |(path, _): &(PathBuf, Value)| path.file_name().unwrap().to_string_lossy().into_owned();
    inputs.iter().filter(differs).map(name).collect()
}

#[test]
fn what_means_the_same_gives_the_same_calls() {
    let inputs = unchanged(whole);
    let rewrites: [(&str, Rewrite); 6] = [
        ("carriage returns", |bytes| joined(bytes, b"\r\n")),
        ("a byte-order mark", |bytes| [b"\xEF\xBB\xBF", bytes].concat()),
        ("blank lines", |bytes| joined(bytes, b"\n\n")),
        ("a tail of zeros", |bytes| match bytes.trim_ascii_end() {
            [] => Vec::new(),
            text => [text, b"\n\0\0\0\0"].concat(),
        }),
        ("members in another order", |bytes| {
            values(bytes, |value| in_envelopes(value, |object| object.into_iter().rev().collect()))
        }),
        ("members of next year", |bytes| {
            values(bytes, |value| {
                in_envelopes(value, |mut object| {
                    object.insert("ofNextYear".to_owned(), Value::Null);
                    object.insert("of_next_year".to_owned(), json!({"a": [1, null, {"b": "c"}]}));
                    object
                })
            })
        }),
    ];
    let found: Vec<(&str, Vec<String>)> =
        rewrites.iter().map(|(what, rewrite)| (*what, changed(&inputs, rewrite, whole))).collect();
    assert!(found.iter().all(|(_, inputs)| inputs.is_empty()), "{found:?}");
}

/// `jq . FILE` writes every value over several lines, `jq -s . FILE` makes one list of them.
#[test]
fn lines_may_be_laid_out_as_documents() {
    let as_lines = |bytes: &[u8]| -> Vec<u8> {
        if is_document(bytes) {
            return bytes.to_vec();
        }
        let lines: Vec<String> = without_damage(bytes).iter().map(Value::to_string).collect();
        (lines.join("\n") + "\n").into_bytes()
    };
    let as_documents = |bytes: &[u8]| -> Vec<u8> {
        if is_document(bytes) {
            return bytes.to_vec();
        }
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
        let documents: Vec<String> = without_damage(bytes).iter().map(pretty).collect();
        (documents.join("\n") + "\n").into_bytes()
    };
    let as_list = |bytes: &[u8]| -> Vec<u8> {
        if is_document(bytes) {
            return bytes.to_vec();
        }
        serde_json::to_vec_pretty(&Value::Array(without_damage(bytes))).unwrap()
    };
    for input in golden::inputs() {
        let expected = calls_of(&input, &as_lines, whole);
        assert_eq!(calls_of(&input, &as_documents, whole), expected, "{} as documents", input.display());
        assert_eq!(calls_of(&input, &as_list, whole), expected, "{} as a list", input.display());
    }
}

#[test]
fn what_a_recording_need_not_have_changes_no_call() {
    let inputs = unchanged(said);
    let mut found = Vec::new();
    for name in OPTIONAL {
        let rewrite = |bytes: &[u8]| {
            let keep = |member: &str, value| (member != name).then_some(value);
            values(bytes, |value| members(value, &keep))
        };
        found.extend(changed(&inputs, &rewrite, said).into_iter().map(|input| (name, input)));
    }
    let nulls = |bytes: &[u8]| {
        let is_null = |name: &str| name != "timestamp" && OPTIONAL.contains(&name);
        values(bytes, |value| {
            members(value, &|name, value| Some(if is_null(name) { Value::Null } else { value }))
        })
    };
    found.extend(changed(&inputs, &nulls, said).into_iter().map(|input| ("all but the time, null", input)));
    // What a fork of a Codex thread copied of its parent is told by the times alone.
    found.retain(|(name, input)| (*name, input.as_str()) != ("timestamp", "forks"));
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn numbers_as_texts_change_no_call() {
    let rewrite = |bytes: &[u8]| {
        values(bytes, |value| {
            members(value, &|_, value| {
                Some(if value.is_number() { Value::String(value.to_string()) } else { value })
            })
        })
    };
    assert_eq!(changed(&unchanged(whole), &rewrite, whole), [""; 0]);
}
