//! Finding files: folders, companions, formats, errors, saved results.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use transcripts::error::TranscriptError;
use transcripts::fidelity::Reason;
use transcripts::import::{
    FormatChoice, Import, ImportOptions, MAX_LINE_BYTES, TextFile, WarningKind, import, import_texts,
};
use transcripts::message::Role;
use transcripts::session::{IssueKind, SourceFormat};

use crate::golden::fixtures;

fn auto(path: &Path) -> Result<Import, TranscriptError> {
    import(&[path], &ImportOptions::default())
}

#[test]
fn a_file_of_no_known_format_is_an_error_only_when_it_was_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.jsonl");
    fs::write(&path, "{\"messages\": []}\nnot json\n").unwrap();
    fs::write(folder.path().join("metadata.json"), "{}").unwrap();
    let error = auto(&path).unwrap_err();
    assert!(matches!(error, TranscriptError::UnknownFormat { .. }), "{error}");
    assert!(error.to_string().contains("other.jsonl: expected a recorded session"), "{error}");
    let found = auto(folder.path()).unwrap();
    assert_eq!(found.sessions.len(), 0);
    assert_eq!(found.files.len(), 1);
    assert_eq!(found.files[0].warnings[0].kind, WarningKind::UnknownFormat);
    let forced =
        import(&[&path], &ImportOptions { format: FormatChoice::Source(SourceFormat::ClaudeCode) }).unwrap();
    assert_eq!((forced.files[0].lines, forced.files[0].bad_lines), (2, 1));
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let error = auto(Path::new("/no/such/session.jsonl")).unwrap_err().to_string();
    assert!(error.starts_with("/no/such/session.jsonl: "), "{error}");
}

#[test]
fn a_file_and_its_folder_are_read_once() {
    let folder = fixtures().join("f15_agent_files");
    let twice = import(&[folder.join("s1.jsonl"), folder.clone()], &ImportOptions::default()).unwrap();
    let once = auto(&folder).unwrap();
    assert_eq!(twice.files.len(), once.files.len());
    assert_eq!(twice.sessions.len(), once.sessions.len());
}

#[cfg(unix)]
#[test]
fn links_inside_a_folder_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixtures().join("microcompact.jsonl"), folder.path().join("a.jsonl")).unwrap();
    std::os::unix::fs::symlink(fixtures().join("f08_rewind.jsonl"), folder.path().join("b.jsonl")).unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
    assert_eq!(auto(folder.path()).unwrap().files.len(), 1);
}

#[test]
fn a_large_result_that_was_saved_beside_the_session_is_sent_as_a_preview() {
    let folder = tempfile::tempdir().unwrap();
    let body = "line of output\\n".repeat(4000);
    let lines = [
        r#"{"type":"user","uuid":"u1","parentUuid":null,"sessionId":"s1","message":{"role":"user","content":"go"}}"#
            .to_owned(),
        r#"{"type":"assistant","uuid":"a1","parentUuid":"u1","sessionId":"s1","message":{"id":"m1","role":"assistant",
            "content":[{"type":"tool_use","id":"t1","name":"Bash","input":{}}]}}"#
            .replace('\n', " "),
        format!(
            r#"{{"type":"user","uuid":"r1","parentUuid":"a1","sessionId":"s1","message":{{"role":"user","content":[{{
            "type":"tool_result","tool_use_id":"t1","content":"{body}"}}]}}}}"#
        )
        .replace('\n', " "),
        r#"{"type":"assistant","uuid":"a2","parentUuid":"r1","sessionId":"s1","message":{"id":"m2","role":"assistant",
            "content":"done"}}"#
            .replace('\n', " "),
    ];
    let path = folder.path().join("s1.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    let tool_chars = |import: &Import| {
        let prefix = import.sessions[0].prefix(1);
        let tool = prefix.iter().find(|message| message.role == Role::Tool).unwrap();
        (tool.synthetic, tool.chars())
    };
    assert_eq!(tool_chars(&auto(&path).unwrap()), (false, 60_000));
    fs::create_dir_all(folder.path().join("s1/tool-results")).unwrap();
    fs::write(folder.path().join("s1/tool-results/t1.txt"), "the full text").unwrap();
    let import = auto(&path).unwrap();
    let (synthetic, chars) = tool_chars(&import);
    assert!(synthetic && (2_000..2_400).contains(&chars), "{chars}");
    let text = import.sessions[0].prefix(1)[2].flat_text();
    assert!(text.starts_with("<persisted-output>\nOutput too large (58.6KB)."), "{text}");
    assert_eq!(import.sessions[0].fidelity.level.as_str(), "approximate");
}

#[test]
fn sessions_with_one_id_in_two_files_stay_apart() {
    let folder = tempfile::tempdir().unwrap();
    for (name, of) in [("a.jsonl", "f08_rewind.jsonl"), ("b.jsonl", "microcompact.jsonl")] {
        fs::copy(fixtures().join(of), folder.path().join(name)).unwrap();
    }
    let import = auto(folder.path()).unwrap();
    let ids: Vec<&str> = import.sessions.iter().map(|session| session.id.as_str()).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&"s1") && ids.contains(&"s1~2"), "{ids:?}");
}

/// A user line, then `calls` responses in a row.
fn long_session(calls: usize) -> String {
    let mut text =
        r#"{"type":"user","uuid":"u","parentUuid":null,"sessionId":"s1","message":{"content":"go"}}"#
            .to_owned()
            + "\n";
    let mut parent = "u".to_owned();
    for call in 0..calls {
        text.push_str(&format!(
            r#"{{"type":"assistant","uuid":"a{call}","parentUuid":"{parent}","sessionId":"s1","message":{{"id":"m{call}","content":"x"}}}}"#
        ));
        text.push('\n');
        parent = format!("a{call}");
    }
    text
}

#[test]
fn a_session_beyond_what_an_import_holds_keeps_its_first_calls() {
    let text = long_session(6_000);
    let import = import_texts(&[TextFile { name: "s1.jsonl", text: &text }]).unwrap();
    let session = &import.sessions[0];
    let entries: usize = session.calls.iter().map(|call| call.prefix.len()).sum();
    assert!(
        entries <= 1 << 24 && session.calls.len() > 5_000,
        "{} calls, {entries} entries",
        session.calls.len()
    );
    let left_out = 6_000 - session.calls.len() as u64;
    assert!(session.fidelity.reasons.contains(&Reason::CallsLeftOut { count: left_out }));
    assert!(session.issues.iter().any(|issue| issue.kind == IssueKind::LeftOut));
    assert_eq!(import.files[0].warnings[0].kind, WarningKind::LeftOut);
}

#[test]
fn a_line_over_the_limit_is_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s1.jsonl");
    let (first, last) = (long_session(1), long_session(2));
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    file.set_len(first.len() as u64 + MAX_LINE_BYTES as u64 + 1).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(format!("\n{last}").as_bytes()).unwrap();
    let import = auto(&path).unwrap();
    assert_eq!((import.files[0].lines, import.files[0].bad_lines), (6, 1));
    assert_eq!(
        (import.files[0].warnings[0].line, import.files[0].warnings[0].kind),
        (3, WarningKind::TooLong)
    );
    assert_eq!(import.sessions[0].calls.len(), 2);
}
