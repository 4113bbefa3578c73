//! What a caller may add to a session, and what that does to its calls and its fidelity.

use serde_json::json;
use transcripts::bundled;
use transcripts::canonical;
use transcripts::fidelity::{Level, Reason};
use transcripts::import::{ImportOptions, import};
use transcripts::inspect::{inspect, tool_share};
use transcripts::message::{Message, Role};
use transcripts::session::{Session, System};

use crate::golden::fixtures;

fn one(name: &str) -> Session {
    import(&[fixtures().join(name)], &ImportOptions::default()).unwrap().sessions.remove(0)
}

#[test]
fn a_system_prompt_stands_in_front_of_every_call() {
    let before = one("microcompact.jsonl");
    assert_eq!(before.system, System::Missing);
    let after = before.clone().with_system_prompt("Be brief.");
    assert_eq!(after.system, System::Supplied);
    for call in 0..after.calls.len() {
        let prefix = after.prefix(call);
        assert_eq!((prefix[0].role, prefix[0].flat_text()), (Role::System, "Be brief.".to_owned()));
        assert_eq!(prefix[1..], before.prefix(call)[..]);
    }
    let (old, new) = (before.calls[3].prefix_break.unwrap(), after.calls[3].prefix_break.unwrap());
    assert_eq!(new.shared_messages, old.shared_messages + 1);
    assert_eq!((new.shared_chars, new.previous_chars), (old.shared_chars + 9, old.previous_chars + 9));
    assert!(!after.fidelity.reasons.contains(&Reason::SystemMissing));
    assert!(after.fidelity.reasons.contains(&Reason::SystemSupplied));
    canonical::check(&after, "memory").unwrap();
    let again = after.clone().with_system_prompt("Be very brief.");
    assert_eq!(again.prefix(0).len(), after.prefix(0).len(), "the second prompt replaces the first");
    assert_eq!(again.calls[3].prefix_break.unwrap().shared_chars, old.shared_chars + 14);
}

#[test]
fn tools_are_set_and_named_in_the_fidelity_block() {
    let tools = vec![json!({"type": "function", "function": {"name": "Read"}})];
    let session = one("microcompact.jsonl").with_tools(tools.clone());
    assert_eq!(session.tools, tools);
    assert!(!session.fidelity.reasons.contains(&Reason::ToolsMissing));
    assert!(session.fidelity.reasons.contains(&Reason::ToolsSupplied));
}

#[test]
fn the_level_follows_the_worst_reason() {
    let mut session = one("fork_context");
    assert_eq!(session.fidelity.level, Level::Rebuilt);
    session.fidelity.replace(Reason::RebuiltFromLog, Reason::AttachmentsRendered { count: 1 });
    assert_eq!(session.fidelity.level, Level::Approximate);
}

#[test]
fn the_digest_follows_the_content_and_not_the_path() {
    let session = one("microcompact.jsonl");
    let mut moved = session.clone();
    moved.files[0].path = "elsewhere.jsonl".to_owned();
    assert_eq!(moved.digest().unwrap(), session.digest().unwrap());
    moved.messages[0] = Message::text(Role::User, "other");
    assert_ne!(moved.digest().unwrap(), session.digest().unwrap());
}

#[test]
fn the_summary_has_the_members_that_readers_rely_on() {
    let import = import(&[fixtures().join("f15_agent_files")], &ImportOptions::default()).unwrap();
    let summary = serde_json::to_value(inspect(&import)).unwrap();
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&summary), ["sessions", "files"]);
    let expected = [
        "session_id",
        "kind",
        "parent_session_id",
        "format",
        "calls",
        "messages",
        "tool_bytes_share",
        "prefix_breaks",
        "fidelity",
        "findings",
        "token_fit",
        "profile",
    ];
    for session in summary["sessions"].as_array().unwrap() {
        assert_eq!(names(session), expected);
        assert_eq!(names(&session["fidelity"]), ["level", "reasons"]);
        assert_eq!(session["format"], "claude-code");
    }
    assert_eq!(summary["sessions"][1]["kind"], "main");
    assert_eq!(summary["sessions"][1]["parent_session_id"], json!(null));
    assert_eq!(summary["sessions"][1]["messages"], 3);
    assert_eq!(summary["sessions"][3]["parent_session_id"], "s1");
    let finding = json!({"code": "R01", "severity": "error", "call_index": 0, "message_index": null,
        "detail": "the request has no messages"});
    assert_eq!(summary["sessions"][2]["findings"], json!([finding]));
    assert_eq!(names(&summary["files"][0]), ["path", "lines", "bad_lines"]);
}

#[test]
fn the_tool_share_is_counted_in_chars() {
    let tool = Message::text(Role::Tool, "\u{e9}\u{e9}\u{e9}");
    let user = Message::text(Role::User, "u");
    assert_eq!(tool_share(&[&user, &tool]), Some(0.75));
    assert_eq!(tool_share(&[]), None);
}

#[test]
fn every_bundled_session_imports_clean() {
    for bundled in bundled::ALL {
        assert_eq!(bundled::find(bundled.name), Some(bundled));
        let import = bundled.import().unwrap();
        crate::invariants::check(&import);
        assert!(!import.sessions.is_empty(), "{}", bundled.name);
        for file in &import.files {
            assert_eq!((file.bad_lines, file.warnings.len()), (0, 0), "{}", file.path);
        }
        for session in &import.sessions {
            let findings = transcripts::structure::check_session(session);
            let unexpected: Vec<_> =
                findings.iter().filter(|finding| !["R19", "R20"].contains(&finding.code.as_str())).collect();
            assert!(unexpected.is_empty(), "{}: {unexpected:?}", session.id);
        }
    }
    assert_eq!(bundled::find("no such session"), None);
}

#[test]
fn the_default_session_grows_like_a_coding_agents() {
    let import = bundled::ALL[0].import().unwrap();
    let session = &import.sessions[0];
    let chars = |call| session.prefix(call).iter().map(|message| message.chars()).sum::<u64>();
    assert_eq!((import.sessions.len(), session.calls.len()), (1, 10));
    assert!(chars(0) < 500 && (60_000..80_000).contains(&chars(9)));
    assert!((0..9).all(|call| chars(call) < chars(call + 1)));
    assert!(tool_share(&session.prefix(9)).unwrap() > 0.97);
}

#[test]
fn the_other_bundled_sessions_hold_what_they_are_for() {
    let delegate = bundled::find("delegate").unwrap().import().unwrap();
    let calls: Vec<_> = delegate.sessions.iter().map(|session| session.calls.len()).collect();
    assert_eq!(calls, [4, 2]);
    assert_eq!(delegate.sessions[1].kind.parent_session_id(), Some(delegate.sessions[0].id.as_str()));
    let parallel = delegate.sessions[0].completion(0).unwrap();
    assert_eq!(parallel.tool_calls.len(), 3);

    let compacted = bundled::find("compacted").unwrap().import().unwrap();
    let breaks: Vec<_> =
        compacted.sessions[0].calls.iter().filter_map(|call| call.prefix_break.as_ref()).collect();
    assert_eq!(breaks.len(), 1);
    assert_eq!(breaks[0].cause.as_str(), "compaction");
}
