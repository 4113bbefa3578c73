//! Every form of export: the log of requests comes back with the same messages and calls, and the others are held
//! against examples written down from the documents of the programs that read them.

use std::path::Path;

use serde_json::{Value, json};
use transcripts::bundled;
use transcripts::call::Call;
use transcripts::export::{ExportForm, write};
use transcripts::fidelity::Fidelity;
use transcripts::import::{ImportOptions, import};
use transcripts::message::{Message, Role, ToolCall};
use transcripts::session::{Kind, Session, SourceFormat, System};

use crate::golden;

/// What a message is, without where it was read.
fn said(message: &Message) -> Value {
    json!([
        message.role,
        message.flat_text(),
        message.reasoning_text(),
        message.tool_calls,
        message.tool_call_id,
        message.name,
        message.is_error,
    ])
}

fn calls(session: &Session) -> Vec<Value> {
    let calls = session.calls.iter().enumerate().filter(|(_, call)| !call.prefix.is_empty());
    let shown = calls.map(|(index, call)| {
        let prefix: Vec<Value> = session.prefix(index).into_iter().map(said).collect();
        json!([prefix, said(session.completion(index).unwrap()), call.usage, call.model])
    });
    shown.collect()
}

/// Exports one session and imports the file; the calls of all sessions that come back, in the order of the lines.
fn round_trip(session: &Session, folder: &Path) -> (usize, Vec<Value>) {
    let written = write(std::slice::from_ref(session), ExportForm::OpenaiChat, folder).unwrap();
    let back = import(&written, &ImportOptions::default()).unwrap();
    assert!(back.sessions.iter().all(|session| session.format == SourceFormat::OpenaiChat));
    let mut found: Vec<(u32, Value)> = Vec::new();
    for session in &back.sessions {
        let lines = (0..session.calls.len()).map(|call| session.completion(call).unwrap().origin.line);
        found.extend(lines.zip(calls(session)));
    }
    found.sort_by_key(|(line, _)| *line);
    (back.sessions.len(), found.into_iter().map(|(_, call)| call).collect())
}

#[test]
fn an_exported_log_comes_back_with_the_same_calls() {
    let folder = tempfile::tempdir().unwrap();
    let mut sessions: Vec<Session> =
        bundled::ALL.iter().flat_map(|bundled| bundled.import().unwrap().sessions).collect();
    for input in golden::inputs() {
        sessions.extend(import(&[&input], &ImportOptions::default()).unwrap().sessions);
    }
    let (mut n_calls, mut whole) = (0, 0);
    // A request without messages is none: the warm-up calls of sub-agents are left out.
    sessions.retain(|session| !calls(session).is_empty());
    for session in &sessions {
        let (chains, back) = round_trip(session, folder.path());
        let sent = calls(session);
        assert_eq!(back.len(), sent.len(), "{}", session.id);
        for (index, (back, sent)) in back.iter().zip(&sent).enumerate() {
            assert_eq!(back, sent, "{} line {}", session.id, index + 1);
        }
        n_calls += sent.len();
        whole += usize::from(chains == 1);
    }
    // A chain that starts anew (a compaction) comes back as two: requests name no session.
    assert!(n_calls > 150 && whole * 10 > sessions.len() * 6, "{n_calls} calls, {whole} whole");
}

/// Two calls: text with an image and a tool call, then its failed result.
fn small() -> Session {
    let turn = Message {
        content: Vec::new(),
        tool_calls: vec![ToolCall {
            id: "c1".to_owned(),
            name: "Read".to_owned(),
            arguments: "{ \"path\":\"a\"}".to_owned(),
        }],
        reasoning: Some(transcripts::message::Reasoning::Text { text: "look".to_owned() }),
        ..Message::text(Role::Assistant, "")
    };
    let result = Message {
        tool_call_id: Some("c1".to_owned()),
        name: Some("Read".to_owned()),
        is_error: true,
        ..Message::text(Role::Tool, "no such file")
    };
    let mut user = Message::text(Role::User, "read ");
    user.content.push(transcripts::message::Part::Image {
        media_type: "image/png".to_owned(),
        digest: "d".to_owned(),
        bytes_len: 9,
        undecodable: false,
    });
    let call = |prefix: &[u32], completion| Call {
        prefix: prefix.to_vec(),
        completion,
        model: Some("m".to_owned()),
        usage: Some(transcripts::call::Usage { input: 3, cache_creation: 2, cache_read: 5, output: 7 }),
        started_at: None,
        gap_ms: None,
        prefix_break: None,
    };
    Session {
        id: "s/1".to_owned(),
        format: SourceFormat::OpenaiChat,
        source_version: None,
        kind: Kind::Main,
        started_at: None,
        system: System::Missing,
        tools: vec![json!({"type": "function", "function": {"name": "Read"}})],
        messages: vec![user, turn, result, Message::text(Role::Assistant, "gone")],
        calls: vec![call(&[0], 1), Call { gap_ms: Some(1500), ..call(&[0, 1, 2], 3) }],
        fidelity: Fidelity::from_reasons([]),
        issues: Vec::new(),
        files: Vec::new(),
        unknown_lines: std::collections::BTreeMap::new(),
    }
}

fn lines(form: ExportForm, session: &Session) -> (String, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let written = write(std::slice::from_ref(session), form, folder.path()).unwrap();
    assert_eq!(written.len(), 1);
    let text = std::fs::read_to_string(&written[0]).unwrap();
    let name = written[0].file_name().unwrap().to_string_lossy().into_owned();
    (name, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn wire_messages() -> Value {
    json!([
        {"role": "user", "content": "read [image/png, 9 bytes]"},
        {"role": "assistant", "content": null, "reasoning_content": "look", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "Read", "arguments": "{ \"path\":\"a\"}"}}]},
        {"role": "tool", "content": "no such file", "tool_call_id": "c1"},
    ])
}

#[test]
fn request_bodies_hold_what_is_sent_and_nothing_else() {
    let (name, bodies) = lines(ExportForm::Requests, &small());
    assert_eq!(name, "s_1.inputs.jsonl");
    let tools = small().tools;
    assert_eq!(bodies[1], json!({"model": "m", "messages": wire_messages(), "tools": tools}));
    assert_eq!(bodies[0]["messages"], json!([wire_messages()[0]]));
    assert_eq!(bodies.len(), 2);
}

#[test]
fn aiperf_gets_rows_of_its_trace_schema() {
    // Members of `MooncakeTrace` that go with `messages`; `tools` may not be empty, `delay` is in milliseconds.
    let (name, rows) = lines(ExportForm::Aiperf, &small());
    assert_eq!(name, "aiperf.jsonl");
    let row = json!({"session_id": "s/1", "messages": wire_messages(), "tools": small().tools,
        "output_length": 7, "delay": 1500});
    assert_eq!(rows[1], row);
    assert!(rows[0].get("delay").is_none(), "nothing is waited for before the first request");
    let untold = Session { tools: Vec::new(), format: SourceFormat::ClaudeCode, ..small() };
    let (_, rows) = lines(ExportForm::Aiperf, &untold);
    assert!(rows[1].get("tools").is_none() && rows[1].get("output_length").is_none(), "{}", rows[1]);
}

#[test]
fn guidellm_gets_rows_with_one_schema() {
    let (name, rows) = lines(ExportForm::Guidellm, &small());
    assert_eq!(name, "guidellm.jsonl");
    assert_eq!(rows[1], json!({"messages": wire_messages(), "output_tokens_count": 7}));
    let untold = Session { format: SourceFormat::ClaudeCode, ..small() };
    let (_, rows) = lines(ExportForm::Guidellm, &untold);
    assert_eq!(rows[0]["output_tokens_count"], Value::Null);
    assert!(rows.iter().all(|row| row.as_object().unwrap().len() == 2));
}

/// AIPerf refuses a file with a request of no messages.
#[test]
fn calls_without_messages_are_left_out() {
    let mut session = small();
    session.calls[0].prefix.clear();
    for form in [ExportForm::OpenaiChat, ExportForm::Requests, ExportForm::Aiperf, ExportForm::Guidellm] {
        let (_, rows) = lines(form, &session);
        assert_eq!(rows.len(), 1, "{form:?}");
        assert_eq!(rows[0]["messages"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn ids_that_give_one_file_name_give_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let other = Session { id: "s:1".to_owned(), ..small() };
    let written = write(&[small(), other], ExportForm::Requests, folder.path()).unwrap();
    let names: Vec<String> =
        written.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["s_1.inputs.jsonl", "s_1-2.inputs.jsonl"]);
}
