//! Recordings of the shared set that are no Claude Code sessions, against the inventory: sessions, calls, tool calls,
//! pairs that extend. Skipped, with a message, where the set is not there.

use std::path::PathBuf;

use transcripts::import::{Import, ImportOptions, import};
use transcripts::session::{Session, SourceFormat};

fn load(path: &str) -> Option<Import> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/transcripts");
    if !root.is_dir() {
        eprintln!("skipped: {} is not there", root.display());
        return None;
    }
    let import = import(&[root.join(path)], &ImportOptions::default()).unwrap();
    crate::invariants::check(&import);
    Some(import)
}

fn calls(session: &Session) -> usize {
    session.calls.len()
}

fn tool_calls(session: &Session) -> usize {
    let turns = (0..session.calls.len()).filter_map(|call| session.completion(call));
    turns.map(|turn| turn.tool_calls.len()).sum()
}

fn breaks(session: &Session) -> usize {
    session.calls.iter().filter(|call| call.prefix_break.is_some()).count()
}

/// Calls and breaks of every session.
fn counts(import: &Import) -> Vec<(usize, usize)> {
    import.sessions.iter().map(|session| (calls(session), breaks(session))).collect()
}

#[test]
fn mini_swe_agent_runs_have_their_calls() {
    let Some(import) = load("mini-swe-agent") else { return };
    let found: Vec<(&str, usize)> =
        import.sessions.iter().map(|session| (session.id.as_str(), calls(session))).collect();
    let expected =
        [("pydicom__pydicom-901", 61), ("pvlib__pvlib-python-1707", 16), ("github_issue", 10), ("local", 2)];
    assert_eq!(found, expected);
    assert!(import.sessions.iter().all(|session| session.format == SourceFormat::OpenaiChat));
    assert!(import.sessions.iter().all(|session| breaks(session) == 0));
    assert_eq!(import.files.iter().map(|file| file.bad_lines).sum::<u64>(), 0);
}

#[test]
fn tau_bench_runs_have_their_calls() {
    let Some(import) = load("tau-bench") else { return };
    assert_eq!(import.sessions.len(), 12);
    assert_eq!(import.sessions.iter().map(calls).sum::<usize>(), 177);
    assert_eq!(import.sessions.iter().map(tool_calls).sum::<usize>(), 77);
    assert_eq!(import.sessions.iter().map(breaks).sum::<usize>(), 0);
    for (session, tools, ids) in [(0, 8, 6), (3, 20, 18)] {
        let session = &import.sessions[session];
        let turns = (0..session.calls.len()).filter_map(|call| session.completion(call));
        let used: std::collections::HashSet<&str> =
            turns.flat_map(|turn| &turn.tool_calls).map(|call| call.id.as_str()).collect();
        assert_eq!((tool_calls(session), used.len()), (tools, ids));
    }
}

#[test]
fn openhands_completions_are_one_exact_session_for_each_folder() {
    let Some(import) = load("openhands-sdk/tests/fixtures/llm_data/llm-logs") else { return };
    assert_eq!(counts(&import), [(6, 0)]);
    assert_eq!(import.sessions[0].fidelity.level.as_str(), "exact");
    assert!(!import.sessions[0].tools.is_empty());
    let Some(import) = load("openhands-sdk/tests/fixtures/llm_data/nonfncall-llm-logs") else { return };
    assert_eq!(counts(&import), [(4, 3)]);
    let Some(all) = load("openhands-sdk") else { return };
    assert_eq!(all.sessions.len(), 4);
}
