//! Recordings of the shared set that are no Claude Code sessions, against the inventory: sessions, calls, tool calls,
//! pairs that extend. Skipped, with a message, where the set is not there.

use std::path::PathBuf;

use transcripts::error::TranscriptError;
use transcripts::fidelity::Level;
use transcripts::import::{Import, ImportOptions, import};
use transcripts::session::{Session, SourceFormat};
use transcripts::structure::Code;
use transcripts::token_fit::token_fit;

fn root() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/transcripts");
    if !root.is_dir() {
        eprintln!("skipped: {} is not there", root.display());
        return None;
    }
    Some(root)
}

fn load(path: &str) -> Option<Import> {
    let import = import(&[root()?.join(path)], &ImportOptions::default()).unwrap();
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
    for (session, r2) in import.sessions.iter().zip([0.9994, 0.9983]) {
        let fit = token_fit(session).unwrap();
        assert!((fit.r2 - r2).abs() < 0.0005 && fit.intercept_tokens.abs() < 500.0, "{fit:?}");
    }
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

#[test]
fn swe_agent_trajectories_have_their_calls() {
    let Some(import) = load("swe-agent") else { return };
    let mut found: Vec<usize> = import.sessions.iter().map(calls).collect();
    found.sort_unstable();
    assert_eq!(found, [5, 11, 12]);
    assert!(import.sessions.iter().all(|session| session.format == SourceFormat::SweAgent));
    assert!(import.sessions.iter().all(|session| session.fidelity.level == Level::Approximate));
}

/// What the inventory says of findings: reused ids in tau-bench and SWE-agent, nothing else.
#[test]
fn only_reused_ids_and_breaks_are_found() {
    for (folder, reused) in
        [("tau-bench", 29), ("swe-agent", 19), ("mini-swe-agent", 0), ("openhands-sdk", 0)]
    {
        let Some(import) = load(folder) else { return };
        let findings = import.sessions.iter().flat_map(transcripts::structure::check_session);
        // Neighbours of one role, breaks and the provider's counts are no defects, and the inventory has them elsewhere.
        let counts = |code: &Code| !matches!(code, Code::R19 | Code::R20 | Code::R22);
        let codes: Vec<Code> = findings.map(|finding| finding.code).filter(counts).collect();
        let others: Vec<&Code> = codes.iter().filter(|code| **code != Code::R07).collect();
        assert_eq!((codes.len(), others), (reused, Vec::new()), "{folder}");
    }
}

/// Files, sessions, calls, breaks, bad lines of each folder: the inventory, and the hand-written files beside it.
const FOLDERS: [(&str, [usize; 5]); 8] = [
    ("claude-code-log/real_projects", [28, 25, 261, 1, 0]),
    ("claude-code-log/synthetic-fixtures", [29, 31, 79, 3, 4]),
    ("claude-code-viewer", [2, 4, 27, 0, 0]),
    ("entireio-cli", [4, 4, 197, 1, 0]),
    ("mini-swe-agent", [4, 4, 89, 0, 0]),
    ("openhands-sdk", [12, 4, 20, 3, 0]),
    ("swe-agent", [3, 3, 28, 0, 0]),
    ("tau-bench", [1, 12, 177, 0, 0]),
];

#[test]
fn every_folder_of_the_set_has_its_counts() {
    for (folder, expected) in FOLDERS {
        let Some(import) = load(folder) else { return };
        let bad: u64 = import.files.iter().map(|file| file.bad_lines).sum();
        let n_calls = import.sessions.iter().map(calls).sum();
        let n_breaks = import.sessions.iter().map(breaks).sum();
        let found = [import.files.len(), import.sessions.len(), n_calls, n_breaks, bad as usize];
        assert_eq!(found, expected, "{folder}");
    }
}

/// Every file that was named alone is read, or is said to be no recording.
#[test]
fn every_file_of_the_set_is_read_alone() {
    let Some(root) = root() else { return };
    let (mut waiting, mut read, mut refused) = (vec![root], 0, Vec::new());
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        match import(&[&path], &ImportOptions::default()) {
            Ok(import) => {
                crate::invariants::check(&import);
                read += 1;
            }
            Err(TranscriptError::UnknownFormat { .. }) => {
                refused.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    assert_eq!(read + refused.len(), 111);
    let is_beside = |name: &String| {
        ["LICENSE", "LICENCE.md", "metadata.json"].contains(&name.as_str()) || name.ends_with(".meta.json")
    };
    refused.retain(|name| !is_beside(name));
    assert_eq!(refused, [""; 0]);
}
