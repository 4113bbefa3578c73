//! Every fixture against its golden file: sessions, calls, prefixes, breaks, issues and warnings in a compact form.
//! `UPDATE_GOLDEN=1 cargo test` writes the files again; read the difference before keeping it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use transcripts::call::Call;
use transcripts::import::{Import, ImportOptions, import};
use transcripts::message::{Message, Reasoning};
use transcripts::session::{Kind, Session, SourceFormat};

use crate::invariants;

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// One message on one line: role, reasoning, text, calls.
fn shown(message: &Message) -> String {
    let mut text = message.role.as_str().to_owned();
    if let Some(id) = &message.tool_call_id {
        text.push_str(&format!(" {id} {}", message.name.as_deref().unwrap_or("?")));
    }
    text.push_str(if message.synthetic { " (synthetic)" } else { "" });
    text.push_str(if message.is_error { " (error)" } else { "" });
    text.push_str(": ");
    match &message.reasoning {
        Some(Reasoning::Text { text: reasoning }) => text.push_str(&format!("<{reasoning}> ")),
        Some(Reasoning::Hidden) => text.push_str("<hidden> "),
        None => {}
    }
    text.push_str(&message.flat_text());
    for call in &message.tool_calls {
        text.push_str(&format!(" [{} {} {}]", call.id, call.name, call.arguments));
    }
    text
}

fn call(session: &Session, index: usize, call: &Call) -> Value {
    let usage = call.usage.map(|usage| [usage.input, usage.cache_creation, usage.cache_read, usage.output]);
    let broken = call.prefix_break.map(|record| {
        format!(
            "{} at {} ({} of {} chars)",
            record.cause.as_str(),
            record.shared_messages,
            record.shared_chars,
            record.previous_chars
        )
    });
    json!({
        "prefix": session.prefix(index).into_iter().map(shown).collect::<Vec<_>>(),
        "completion": shown(session.completion(index).unwrap()),
        "usage": usage,
        "gap_ms": call.gap_ms,
        "break": broken,
    })
}

/// Level and reasons. Three reasons hold for every Claude Code session.
fn fidelity(session: &Session) -> Value {
    let of_all = if session.format == SourceFormat::ClaudeCode { 3 } else { 0 };
    let reasons = session.fidelity.reasons.iter().skip(of_all).map(|reason| format!("{reason:?}"));
    json!([session.fidelity.level.as_str(), reasons.collect::<Vec<_>>()])
}

/// What only sessions of other formats have: what they are, and what their source holds besides messages.
fn source(session: &Session) -> Value {
    let tools: Vec<&Value> = session.tools.iter().map(|tool| &tool["function"]["name"]).collect();
    let models = session.calls.iter().map(|call| call.model.as_deref());
    let mut models: Vec<Option<&str>> = models.collect();
    models.dedup();
    json!([session.format.as_str(), session.source_version, session.started_at, tools, models])
}

fn session(session: &Session) -> Value {
    let parent = match &session.kind {
        Kind::Main => Value::Null,
        Kind::Subagent { parent_session_id, parent_call_index } => {
            json!([parent_session_id, parent_call_index])
        }
    };
    let issues = session
        .issues
        .iter()
        .map(|issue| format!("{:?} x{} from line {}", issue.kind, issue.count, issue.first.line));
    let mut shown = json!({
        "id": session.id,
        "parent": parent,
        "calls": session.calls.iter().enumerate().map(|(index, of)| call(session, index, of)).collect::<Vec<_>>(),
        "fidelity": fidelity(session),
        "issues": issues.collect::<Vec<_>>(),
        "unknown_lines": session.unknown_lines,
    });
    if session.format != SourceFormat::ClaudeCode {
        shown["source"] = source(session);
    }
    shown
}

fn compact(import: &Import, root: &Path) -> Value {
    let files = import.files.iter().map(|file| {
        let path = Path::new(&file.path);
        let warnings =
            file.warnings.iter().map(|warning| format!("line {}: {:?}", warning.line, warning.kind));
        json!({
            "path": path.strip_prefix(root).unwrap_or(path).display().to_string(),
            "lines": [file.lines, file.bad_lines],
            "warnings": warnings.collect::<Vec<_>>(),
        })
    });
    json!({
        "sessions": import.sessions.iter().map(session).collect::<Vec<_>>(),
        "files": files.collect::<Vec<_>>(),
    })
}

/// Every input: files and folders of the Claude Code fixtures, and of one folder for each other format.
pub fn inputs() -> Vec<PathBuf> {
    let formats = fixtures().join("formats");
    let mut folders = vec![fixtures()];
    folders.extend(fs::read_dir(&formats).unwrap().map(|entry| entry.unwrap().path()));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut inputs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let is_recording = |path: &Path| {
        !name(path).ends_with(".golden.json")
            && path
                .extension()
                .is_some_and(|ending| ["json", "jsonl", "traj"].iter().any(|known| ending == *known))
    };
    inputs.retain(|path| path != &formats && (path.is_dir() || is_recording(path)));
    inputs.sort();
    inputs
}

#[test]
fn every_fixture_gives_its_golden() {
    let root = fixtures();
    let inputs = inputs();
    assert!(inputs.len() >= 40, "fixtures are missing");
    let (mut wrong, mut whole) = (Vec::new(), Vec::new());
    for input in inputs {
        let import = import(&[&input], &ImportOptions::default()).unwrap();
        invariants::check(&import);
        if import.files.iter().all(|file| file.bad_lines == 0) {
            whole.push(input.file_name().unwrap().to_string_lossy().into_owned());
        }
        let mut got = serde_json::to_string_pretty(&compact(&import, &root)).unwrap();
        got.push('\n');
        let stem = input.file_stem().unwrap().to_string_lossy().into_owned();
        let golden = input.with_file_name(format!("{stem}.golden.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|set| set == "1") {
            fs::write(&golden, &got).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != got {
            eprintln!("{}:\n{got}", input.display());
            wrong.push(input);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?} differ from their golden files");
    assert_eq!(whole, ["f19_empty.jsonl"], "every fixture with lines holds one that cannot be read");
}

#[test]
fn a_main_file_named_alone_brings_its_agents_and_no_others() {
    let main = fixtures().join("f15_agent_files/s1.jsonl");
    let import = import(&[&main, &main], &ImportOptions::default()).unwrap();
    let ids: Vec<&str> = import.sessions.iter().map(|session| session.id.as_str()).collect();
    assert_eq!(ids, ["s1", "agent-d1", "agent-w1"]);
    assert_eq!(import.files.len(), 3);
}

#[test]
fn an_agent_file_named_alone_is_a_sub_agent() {
    let agent = fixtures().join("f15_agent_files/s1/subagents/agent-d1.jsonl");
    let import = import(&[agent], &ImportOptions::default()).unwrap();
    assert_eq!(import.sessions.len(), 1);
    let expected = Kind::Subagent { parent_session_id: "s1".to_owned(), parent_call_index: None };
    assert_eq!(import.sessions[0].kind, expected);
}
