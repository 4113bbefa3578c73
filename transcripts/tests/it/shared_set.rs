//! Real sessions of the shared set against the inventory that was measured when the set was put together: calls,
//! messages, tool calls, tool share, largest prompt, prefix breaks, usage sums, sub-agent chains. Skipped, with a
//! message, where the set is not there.

use std::path::PathBuf;

use transcripts::call::BreakCause;
use transcripts::import::{Import, ImportOptions, import};
use transcripts::message::Role;
use transcripts::session::{Kind, Session};
use transcripts::structure::{Code, Finding, Severity};
use transcripts::token_fit::token_fit;

/// One row of the inventory: a main file alone.
struct Row {
    file: &'static str,
    calls: usize,
    messages: usize,
    tool_calls: usize,
    tool_percent: f64,
    max_prompt: u64,
    /// Call, cause, shared messages.
    breaks: &'static [(usize, BreakCause, u32)],
}

const fn row(
    file: &'static str,
    [calls, messages, tool_calls]: [usize; 3],
    tool_percent: f64,
    max_prompt: u64,
    breaks: &'static [(usize, BreakCause, u32)],
) -> Row {
    Row { file, calls, messages, tool_calls, tool_percent, max_prompt, breaks }
}

const E: &str = "entireio-cli/";
const L: &str = "claude-code-log/real_projects/";
const V: &str = "claude-code-viewer/";

const MAIN_FILES: [Row; 16] = [
    row("entireio-cli/ea/aad03dd419/0/full.jsonl", [32, 99, 67], 79.0, 100_313, &[]),
    row(
        "entireio-cli/d5/99f72ee73a/0/full.jsonl",
        [57, 116, 55],
        72.0,
        135_335,
        &[(45, BreakCause::Microcompact, 7)],
    ),
    row("entireio-cli/37/995ebed6e4/2/full.jsonl", [42, 88, 41], 70.0, 90_454, &[]),
    row("entireio-cli/9f/d2fc39aa5f/0/full.jsonl", [66, 133, 66], 66.0, 61_908, &[]),
    row(
        "-Users-dain-workspace-JSSoundRecorder/7acd37a8-2745-4b58-a8a9-46164b22ad9e.jsonl",
        [36, 114, 71],
        56.0,
        72_484,
        &[],
    ),
    row(
        "-Users-dain-workspace-claude-code-log-sample/fe869ecb-c176-478f-9734-7e4b8ef12cff.jsonl",
        [34, 67, 32],
        87.0,
        60_560,
        &[],
    ),
    row(
        "-Users-dain-workspace-claude-code-log-sample/937c6e6b-27e7-4edd-86f1-ad28f9731841.jsonl",
        [28, 58, 26],
        46.0,
        40_058,
        &[],
    ),
    row(
        "-Users-dain-workspace-claude-code-log-sample/12a546d1-83a7-49a6-abba-5400db340b43.jsonl",
        [36, 74, 35],
        77.0,
        42_994,
        &[],
    ),
    row("-experiments-worktrees/ef958aa1-0e93-49f0-bb71-150f63befcd1.jsonl", [17, 62, 40], 30.0, 66_603, &[]),
    row(
        "-experiments-ideas/03eb5929-52b3-4b13-ada3-b93ae35806b8.jsonl",
        [9, 11, 2],
        12.0,
        28_320,
        &[(6, BreakCause::Rewind, 6)],
    ),
    row(
        "-src-experiments-claude_p/2b4ed4c0-b905-41de-9238-273db3ec737a.jsonl",
        [10, 19, 9],
        89.0,
        23_256,
        &[],
    ),
    row("-src-experiments-claude_p/29ccd257-68b1-427f-ae5f-6524b7cb6f20.jsonl", [2, 3, 1], 96.0, 23_954, &[]),
    row("-src-experiments-claude_p/256ba646-2c15-437a-98e9-4171aafd030e.jsonl", [4, 7, 3], 96.0, 23_444, &[]),
    row("-src-experiments-claude_p/94604a7b-062f-4369-bdf0-da948381c3e5.jsonl", [1, 1, 0], 0.0, 19_994, &[]),
    row("claude-code-viewer/5c0375b4-57a5-4f26-b12d-d022ee4e51b7.jsonl", [10, 24, 13], 37.0, 26_080, &[]),
    row("claude-code-viewer/1af7fc5e-8455-4414-9ccd-011d40f70b2a.jsonl", [7, 20, 12], 13.0, 17_437, &[]),
];

/// Input, cache creation, cache read, output: what the uploader's own counter says.
const USAGE: [(&str, [u64; 4]); 3] = [
    ("entireio-cli/37/995ebed6e4/2/full.jsonl", [346, 168_250, 2_618_979, 7_047]),
    ("entireio-cli/d5/99f72ee73a/0/full.jsonl", [478, 338_089, 5_118_558, 107]),
    ("entireio-cli/ea/aad03dd419/0/full.jsonl", [258, 83_718, 2_448_729, 3_701]),
];

/// Start of the session id, calls.
const SUBAGENTS: [(&str, usize); 8] = [
    ("agent-a36efb2a", 6),
    ("agent-a4ca7529", 20),
    ("agent-a52886dc", 15),
    ("agent-a6aa8ad0", 5),
    ("agent-ab1e6e14", 15),
    ("agent-aef063ba", 5),
    ("agent-a2271d1", 10),
    ("sidechain-83e2917c", 7),
];

fn shared(path: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/transcripts");
    if !root.is_dir() {
        eprintln!("skipped: {} is not there", root.display());
        return None;
    }
    let path = if path.starts_with('-') { format!("{L}{path}") } else { path.to_owned() };
    Some(root.join(path))
}

fn load(path: &str) -> Option<Import> {
    Some(import(&[shared(path)?], &ImportOptions::default()).unwrap())
}

fn main_session(import: &Import) -> &Session {
    let mut mains = import.sessions.iter().filter(|session| session.kind == Kind::Main);
    let main = mains.next().unwrap();
    assert!(mains.next().is_none(), "one file, one main session");
    main
}

fn breaks(session: &Session) -> Vec<(usize, BreakCause, u32)> {
    let records = session.calls.iter().enumerate();
    records
        .filter_map(|(index, call)| {
            call.prefix_break.map(|record| (index, record.cause, record.shared_messages))
        })
        .collect()
}

fn tool_percent(session: &Session) -> f64 {
    let prefix = session.prefix(session.longest_call().unwrap());
    let all: u64 = prefix.iter().map(|message| message.chars()).sum();
    let tool: u64 =
        prefix.iter().filter(|message| message.role == Role::Tool).map(|message| message.chars()).sum();
    100.0 * tool as f64 / all as f64
}

fn tool_calls(session: &Session) -> usize {
    (0..session.calls.len())
        .filter_map(|call| session.completion(call))
        .map(|turn| turn.tool_calls.len())
        .sum()
}

#[test]
fn every_main_file_gives_its_row() {
    for row in &MAIN_FILES {
        let Some(import) = load(row.file) else { return };
        let session = main_session(&import);
        let longest = session.prefix(session.longest_call().unwrap()).len();
        let counts = (session.calls.len(), longest, tool_calls(session));
        assert_eq!(counts, (row.calls, row.messages, row.tool_calls), "{}", row.file);
        let prompts = session.calls.iter().filter_map(|call| call.usage).map(|usage| usage.prompt_tokens());
        assert_eq!(prompts.max(), Some(row.max_prompt), "{}", row.file);
        assert_eq!(breaks(session), row.breaks, "{}", row.file);
        let share = tool_percent(session);
        assert!((share - row.tool_percent).abs() <= 1.0, "{}: tool share {share}", row.file);
    }
}

#[test]
fn usage_sums_agree_with_the_uploaders_counter() {
    for (file, expected) in USAGE {
        let Some(import) = load(file) else { return };
        let mut sums = [0; 4];
        for usage in main_session(&import).calls.iter().filter_map(|call| call.usage) {
            for (sum, part) in
                sums.iter_mut().zip([usage.input, usage.cache_creation, usage.cache_read, usage.output])
            {
                *sum += part;
            }
        }
        assert_eq!(sums, expected, "{file}");
    }
}

#[test]
fn folders_give_every_chain_once() {
    let Some(roots) = [E, L, V].iter().map(|root| shared(root)).collect::<Option<Vec<_>>>() else { return };
    let import = import(&roots, &ImportOptions::default()).unwrap();
    let (mains, subs): (Vec<&Session>, Vec<&Session>) =
        import.sessions.iter().partition(|session| session.kind == Kind::Main);
    let calls = |sessions: &[&Session]| sessions.iter().map(|session| session.calls.len()).sum::<usize>();
    let tools = |sessions: &[&Session]| sessions.iter().map(|session| tool_calls(session)).sum::<usize>();
    let broken = |sessions: &[&Session]| sessions.iter().map(|session| breaks(session).len()).sum::<usize>();
    assert_eq!((mains.len(), subs.len()), (16, 17));
    assert_eq!((calls(&mains), calls(&subs)), (391, 94));
    assert_eq!((tools(&mains), tools(&subs)), (473, 109));
    assert_eq!((broken(&mains), broken(&subs)), (2, 0));
    for (start, calls) in SUBAGENTS {
        let session = subs.iter().find(|session| session.id.starts_with(start)).unwrap();
        assert_eq!(session.calls.len(), calls, "{start}");
        assert!(
            matches!(session.kind, Kind::Subagent { parent_call_index: Some(_), .. }),
            "{start} has its parent"
        );
    }
    let warm_ups = subs.iter().filter(|session| session.calls[0].prefix.is_empty()).count();
    assert_eq!(warm_ups, 8);
    assert_eq!(import.files.iter().map(|file| file.bad_lines).sum::<u64>(), 0);
    assert_eq!(import.files.iter().filter(|file| file.lines == 0).count(), 2);
}

#[test]
fn every_file_of_the_set_keeps_the_invariants() {
    let Some(root) = shared("") else { return };
    let folders = ["claude-code-log", "claude-code-viewer", "entireio-cli"].map(|folder| root.join(folder));
    let import = import(&folders, &ImportOptions::default()).unwrap();
    crate::invariants::check(&import);
    for session in &import.sessions {
        let findings = transcripts::structure::check_session(session);
        // What is odd and no error is counted elsewhere: neighbours of one role, placeholders, counts that do not fit.
        let counts = |finding: &&Finding| finding.severity == Severity::Error || finding.code == Code::R20;
        let codes: Vec<&str> = findings.iter().filter(counts).map(|finding| finding.code.as_str()).collect();
        if !session.files[0].path.contains("synthetic-fixtures") {
            let empty = session.calls[0].prefix.is_empty();
            let expected: Vec<&str> = if empty { vec!["R01"] } else { vec!["R20"; breaks(session).len()] };
            assert_eq!(codes, expected, "{}: {findings:?}", session.id);
        }
    }
}

#[test]
fn both_rebuilds_agree_on_real_sessions() {
    let mut compared = 0;
    for row in &MAIN_FILES {
        let Some(path) = shared(row.file) else { return };
        let text = std::fs::read_to_string(path).unwrap();
        // The plain rebuild does not render attachments and tool references.
        if text.contains("\"attachment\":") || text.contains("\"tool_reference\"") {
            continue;
        }
        let (naive, fast) = crate::naive::both(&text);
        assert_eq!(naive.len(), row.calls, "{}", row.file);
        assert!(naive == fast, "{}: the rebuilds differ", row.file);
        compared += 1;
    }
    assert!(compared >= 14, "only {compared} files were compared");
}

/// File, R2, offset in tokens.
const FITS: [(&str, f64, f64); 11] = [
    ("entireio-cli/ea/aad03dd419/0/full.jsonl", 0.9969, 41_203.0),
    ("entireio-cli/d5/99f72ee73a/0/full.jsonl", 0.9975, 34_830.0),
    ("entireio-cli/37/995ebed6e4/2/full.jsonl", 0.9955, 41_075.0),
    ("entireio-cli/9f/d2fc39aa5f/0/full.jsonl", 0.9980, 22_374.0),
    ("-Users-dain-workspace-JSSoundRecorder/7acd37a8-2745-4b58-a8a9-46164b22ad9e.jsonl", 0.9959, 13_582.0),
    (
        "-Users-dain-workspace-claude-code-log-sample/fe869ecb-c176-478f-9734-7e4b8ef12cff.jsonl",
        0.9972,
        15_327.0,
    ),
    (
        "-Users-dain-workspace-claude-code-log-sample/937c6e6b-27e7-4edd-86f1-ad28f9731841.jsonl",
        0.9944,
        16_882.0,
    ),
    (
        "-Users-dain-workspace-claude-code-log-sample/12a546d1-83a7-49a6-abba-5400db340b43.jsonl",
        0.9996,
        20_248.0,
    ),
    ("-experiments-worktrees/ef958aa1-0e93-49f0-bb71-150f63befcd1.jsonl", 0.9685, 28_669.0),
    ("-src-experiments-claude_p/2b4ed4c0-b905-41de-9238-273db3ec737a.jsonl", 0.9782, 19_953.0),
    ("claude-code-viewer/5c0375b4-57a5-4f26-b12d-d022ee4e51b7.jsonl", 0.9923, 16_839.0),
];

#[test]
fn token_counts_lie_on_the_recorded_lines() {
    for (file, r2, offset) in FITS {
        let Some(import) = load(file) else { return };
        let fit = token_fit(main_session(&import)).unwrap();
        assert!((fit.r2 - r2).abs() < 0.005, "{file}: R2 {}", fit.r2);
        assert!(
            (fit.intercept_tokens / offset - 1.0).abs() < 0.02,
            "{file}: offset {}",
            fit.intercept_tokens
        );
        assert!(!fit.is_suspect, "{file}");
    }
    let low = "-experiments-worktrees/ef958aa1-0e93-49f0-bb71-150f63befcd1.jsonl";
    let Some(import) = load(low) else { return };
    let low = import.sessions.iter().find(|session| session.id.starts_with("agent-a52886dc")).unwrap();
    assert!(token_fit(low).unwrap().is_suspect);
}
