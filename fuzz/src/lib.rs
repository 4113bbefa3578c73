//! What every target asks of an importer: no panic, and sessions that hold their own invariants.

use std::cell::RefCell;
use std::fs;

use tempfile::TempDir;
use transcripts::import::{FormatChoice, ImportOptions, import};
use transcripts::message::{Message, Role, ToolCall};
use transcripts::redact::Redactor;
use transcripts::session::Session;
use transcripts::{bundled, canonical};

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// Imports a file of these bytes as one format, or as whatever it looks like.
pub fn import_as(format: FormatChoice, data: &[u8]) {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a temporary folder"));
        let path = folder.path().join("recording.jsonl");
        fs::write(&path, data).expect("a writable temporary folder");
        let Ok(found) = import(&[&path], &ImportOptions { format }) else { return };
        found.sessions.iter().for_each(check);
    });
}

/// Reads these bytes as a session file.
pub fn read_canonical(data: &[u8]) {
    if let Ok(session) = canonical::parse(data, "fuzz") {
        check(&session);
    }
}

fn check(session: &Session) {
    canonical::check(session, "fuzz").expect("every index stays inside");
    let text = serde_json::to_vec(session).expect("a session is JSON");
    let back: Session = serde_json::from_slice(&text).expect("a session is read back");
    assert_eq!(&back, session, "a session is read back as it was");
}

/// Redacts a session that holds this text.
pub fn redact(text: &str) {
    let Some(mut session) =
        bundled::ALL[0].import().ok().and_then(|import| import.sessions.into_iter().next())
    else {
        return;
    };
    let arguments = text.to_owned();
    let call = ToolCall { id: "c".to_owned(), name: "t".to_owned(), arguments };
    let turn = Message { tool_calls: vec![call], ..Message::text(Role::Assistant, text) };
    session.messages = vec![Message::text(Role::User, text), turn];
    session.calls.truncate(1);
    session.calls[0].prefix = vec![0];
    session.calls[0].completion = 1;
    let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
    let redactor = Redactor::new(std::slice::from_ref(&session)).expect("the patterns compile");
    redactor.redact(&mut session);
    let redacted = session.messages[1].tool_calls[0].arguments.clone();
    assert!(!is_json(text) || is_json(&redacted), "arguments still parse");
    let redactor = Redactor::new(std::slice::from_ref(&session)).expect("the patterns compile");
    let found = redactor.redact(&mut session);
    assert_eq!(found.counts().count(), 0, "a second pass finds nothing");
}
