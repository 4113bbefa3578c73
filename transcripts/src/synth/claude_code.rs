//! A generated session in the form that Claude Code records: one JSON object per line, linked by parent. Knows no plan.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::synth::draw::Draw;
use crate::synth::story::Entry;

/// The version whose form the lines have.
const VERSION: &str = "2.1.42";
/// When every generated session begins: 2026-01-05, 09:00 UTC.
const STARTED_AT_S: i64 = 1_767_603_600;
/// Seconds between two lines.
const PACE: SignedDuration = SignedDuration::from_secs(3);

struct Writer<'a> {
    draw: &'a mut Draw,
    session_id: String,
    parent: Option<String>,
    now: Timestamp,
    text: String,
}

/// The file of a session.
pub fn write(draw: &mut Draw, entries: &[Entry]) -> String {
    let session_id = uuid(draw);
    let now = Timestamp::from_second(STARTED_AT_S).unwrap_or_default();
    let mut writer = Writer { draw, session_id, parent: None, now, text: String::new() };
    let mut ids: Vec<String> = Vec::new();
    for entry in entries {
        match entry {
            Entry::User(text) => writer.line("user", json!({"role": "user", "content": text}), None),
            Entry::Assistant { text, uses } => {
                ids = uses.iter().map(|_| format!("toolu_{}", hex(writer.draw, 24))).collect();
                let said = (!text.is_empty()).then(|| json!({"type": "text", "text": text}));
                let called = uses.iter().zip(&ids).map(
                    |(one, id)| json!({"type": "tool_use", "id": id, "name": one.tool, "input": one.arguments}),
                );
                writer.response(said.into_iter().chain(called).collect(), uses.is_empty());
            }
            Entry::Results(results) => {
                for (result, id) in results.iter().zip(&ids) {
                    let block = json!({"tool_use_id": id, "type": "tool_result", "content": result});
                    writer.line("user", json!({"role": "user", "content": [block]}), None);
                }
            }
        }
    }
    writer.text
}

impl Writer<'_> {
    /// One response: a line for each of its blocks.
    fn response(&mut self, blocks: Vec<Value>, is_end: bool) {
        let id = hex(self.draw, 24);
        let stop_reason = if is_end { "end_turn" } else { "tool_use" };
        for block in blocks {
            let message = json!({
                "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": "generated",
                "content": [block], "stop_reason": stop_reason, "stop_sequence": null,
            });
            self.line("assistant", message, Some(format!("req_{id}")));
        }
    }

    fn line(&mut self, kind: &str, message: Value, request_id: Option<String>) {
        let id = uuid(self.draw);
        let mut line = json!({
            "parentUuid": self.parent, "isSidechain": false, "userType": "external", "cwd": "/work",
            "sessionId": self.session_id, "version": VERSION, "gitBranch": "main", "type": kind,
            "message": message, "uuid": id, "timestamp": self.now.to_string(),
        });
        if let Some(request_id) = request_id {
            line["requestId"] = request_id.into();
        }
        self.text.push_str(&line.to_string());
        self.text.push('\n');
        self.parent = Some(id);
        self.now = self.now.saturating_add(PACE).unwrap_or(self.now);
    }
}

fn hex(draw: &mut Draw, n: usize) -> String {
    (0..n).map(|_| char::from(b"0123456789abcdef"[draw.below(16)])).collect()
}

fn uuid(draw: &mut Draw) -> String {
    [8, 4, 4, 4, 12].map(|n| hex(draw, n)).join("-")
}
