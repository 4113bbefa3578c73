//! The canonical file: lossless, checked on read, named after the session.

use std::path::Path;

use serde_json::{Value, json};
use transcripts::canonical;
use transcripts::error::TranscriptError;
use transcripts::import::{FormatChoice, ImportOptions, import};
use transcripts::session::Session;

use crate::golden::fixtures;

fn one(name: &str) -> Session {
    let import = import(&[fixtures().join(name)], &ImportOptions::default()).unwrap();
    import.sessions.into_iter().next().unwrap()
}

/// The document of a session after `change`.
fn changed(change: impl Fn(&mut Value)) -> Vec<u8> {
    let session = one("microcompact.jsonl");
    let mut document = json!({"format": canonical::FORMAT, "schema_version": 1, "session": session});
    change(&mut document);
    serde_json::to_vec(&document).unwrap()
}

#[test]
fn every_session_is_read_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let all = import(&[fixtures()], &ImportOptions::default()).unwrap();
    assert!(all.sessions.len() > 30);
    for session in &all.sessions {
        let path = folder.path().join(canonical::file_name(session));
        assert!(!path.exists(), "{} has the file name of another session", session.id);
        canonical::write(session, &path).unwrap();
        assert_eq!(&canonical::read(&path).unwrap(), session);
    }
    let again = import(&[folder.path()], &ImportOptions::default()).unwrap();
    assert_eq!(again.sessions.len(), all.sessions.len());
    let only = import(&[folder.path()], &ImportOptions { format: FormatChoice::Canonical }).unwrap();
    assert_eq!(again.sessions, only.sessions);
}

/// Fixtures and the files in `tests/canonical` that hold their first session.
const WRITTEN: [(&str, &str); 3] = [
    ("f06_parallel_sidechains.jsonl", "claude_code.session.json"),
    ("formats/codex/response_items.jsonl", "codex.session.json"),
    ("formats/openai_chat/streamed.jsonl", "openai_chat.session.json"),
];

/// What is written today is what was written before, byte for byte, and what was written before is read today.
#[test]
fn session_files_keep_their_form() {
    let folder = tempfile::tempdir().unwrap();
    for (fixture, name) in WRITTEN {
        let mut session = one(fixture);
        session.files.iter_mut().for_each(|file| file.path = fixture.to_owned());
        let (path, golden) = (folder.path().join(name), fixtures().join("../canonical").join(name));
        canonical::write(&session, &path).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|set| set == "1") {
            std::fs::copy(&path, &golden).unwrap();
        }
        assert_eq!(canonical::read(&golden).unwrap(), session, "{name}");
        assert!(
            std::fs::read(&golden).unwrap() == std::fs::read(&path).unwrap(),
            "{name} is written otherwise"
        );
    }
}

#[test]
fn a_file_name_is_plain() {
    let mut session = one("microcompact.jsonl");
    for (id, expected) in [
        ("s1", "s1.session.json"),
        ("../../etc/passwd", "session.._.._etc_passwd.session.json"),
        ("a b~2", "a_b_2.session.json"),
        ("", "session.session.json"),
    ] {
        session.id = id.to_owned();
        assert_eq!(canonical::file_name(&session), expected);
    }
}

#[test]
fn indices_are_checked() {
    type Case = (&'static str, fn(&mut Value), &'static str);
    let cases: [Case; 4] = [
        (
            "prefix",
            |document| document["session"]["calls"][1]["prefix"][0] = json!(99),
            "call 1: prefix is 99",
        ),
        (
            "completion",
            |document| document["session"]["calls"][0]["completion"] = json!(99),
            "call 0: completion is 99",
        ),
        (
            "completion",
            |document| document["session"]["calls"][0]["completion"] = json!(0),
            "a user message), expected an assistant message",
        ),
        (
            "prefix_break",
            |document| document["session"]["calls"][3]["prefix_break"]["shared_messages"] = json!(1000),
            "1000 shared messages, expected at most 7",
        ),
    ];
    for (wrong, change, message) in cases {
        let error = canonical::parse(&changed(change), "x.session.json").unwrap_err();
        assert!(matches!(&error, TranscriptError::BadIndex { field, .. } if *field == wrong), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn other_documents_are_refused_with_the_reason() {
    let newer = changed(|document| document["schema_version"] = json!(2));
    let error = canonical::parse(&newer, "new.json").unwrap_err().to_string();
    assert_eq!(error, "new.json: expected session schema version 1 or older, got 2; use a newer reprise");
    for text in
        [&b""[..], b"{}", b"[1]", b"{\"format\":\"other\",\"schema_version\":1,\"session\":{}}", b"\xFF\xFE"]
    {
        let error = canonical::parse(text, "bad.json").unwrap_err();
        assert!(matches!(error, TranscriptError::NotCanonical { .. }), "{error}");
    }
    let missing = changed(|document| document["session"]["messages"] = json!(null));
    assert!(matches!(canonical::parse(&missing, "x"), Err(TranscriptError::NotCanonical { .. })));
    assert!(matches!(canonical::read(Path::new("/nonexistent")), Err(TranscriptError::Io { .. })));
}

#[test]
fn a_byte_order_mark_and_white_space_do_not_hide_the_format() {
    let pretty =
        format!("\u{FEFF}{}", serde_json::to_string_pretty(&json!({"format": canonical::FORMAT})).unwrap());
    assert!(canonical::looks_canonical(pretty.as_bytes()));
    assert!(!canonical::looks_canonical(b"{\"type\":\"user\",\"format\":\"reprise-session\"}"));
}
