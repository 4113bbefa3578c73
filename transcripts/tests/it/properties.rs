//! Any input: bytes never panic, shuffled and repeated lines keep the invariants, and random sessions come out of the
//! fast and of the plain rebuild alike.

use proptest::prelude::*;
use serde_json::{Value, json};
use transcripts::canonical;
use transcripts::import::{FormatChoice, ImportOptions, TextFile, import, import_texts};
use transcripts::session::SourceFormat;

use crate::{golden, invariants, naive};

/// What one random step writes.
#[derive(Clone, Debug)]
enum Step {
    /// A user message after an earlier line, counted back from the last.
    User { back: usize },
    /// A response with text and this many tool calls, each with its result where the bit is set.
    Turn { tools: u8, answered: u8, progress: bool },
    /// A compaction with its summary.
    Compact,
    /// The first n tool results so far are cleared.
    Microcompact { clear: usize },
    /// An earlier line is written again.
    Again { back: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0_usize..6).prop_map(|back| Step::User { back: back.saturating_sub(2) * 3 }),
        6 => (0_u8..4, any::<u8>(), any::<bool>())
            .prop_map(|(tools, answered, progress)| Step::Turn { tools, answered: answered | 0x11, progress }),
        1 => Just(Step::Compact),
        1 => (0_usize..5).prop_map(|clear| Step::Microcompact { clear }),
        1 => (1_usize..9).prop_map(|back| Step::Again { back }),
    ]
}

/// The lines of a session that these steps write.
fn write(steps: &[Step]) -> Vec<Value> {
    let mut lines: Vec<Value> = Vec::new();
    let mut tools: Vec<String> = Vec::new();
    let mut tip: Option<String> = None;
    let push = |lines: &mut Vec<Value>, parent: &Option<String>, rest: Value| {
        let uuid = format!("l{}", lines.len());
        let mut line = json!({"uuid": uuid, "parentUuid": parent, "sessionId": "s1", "isSidechain": false});
        let object = line.as_object_mut().unwrap();
        object.extend(rest.as_object().unwrap().clone());
        lines.push(line);
        Some(uuid)
    };
    let user = |text: String| json!({"type": "user", "message": {"role": "user", "content": text}});
    tip = push(&mut lines, &tip, user("start".to_owned()));
    for step in steps {
        let n = lines.len();
        match *step {
            Step::User { back } => {
                let parent = lines[n - 1 - back.min(n - 1)]["uuid"].as_str().map(str::to_owned);
                tip = push(&mut lines, if back == 0 { &tip } else { &parent }, user(format!("user {n}")));
            }
            Step::Turn { tools: count, answered, progress } => {
                let turn = |lines: &mut Vec<Value>, parent: &Option<String>, block: Value| {
                    let message = json!({"id": format!("m{n}"), "role": "assistant", "content": [block]});
                    push(lines, parent, json!({"type": "assistant", "message": message}))
                };
                tip = turn(&mut lines, &tip, json!({"type": "text", "text": format!("turn {n}")}));
                for tool in 0..count {
                    let id = format!("t{n}.{tool}");
                    let block = json!({"type": "tool_use", "id": id, "name": "Read", "input": {"n": tool}});
                    tip = turn(&mut lines, &tip, block);
                    let mut under = tip.clone();
                    if progress {
                        under = push(&mut lines, &under, json!({"type": "progress", "data": {}}));
                    }
                    if answered >> tool & 1 == 1 {
                        let block =
                            json!({"type": "tool_result", "tool_use_id": id, "content": format!("out {id}")});
                        let message = json!({"role": "user", "content": [block]});
                        let result = push(&mut lines, &under, json!({"type": "user", "message": message}));
                        // The last result carries the chain on; the others stay beside the path.
                        tip = if tool + 1 == count { result } else { tip };
                    }
                    tools.push(id);
                }
            }
            Step::Compact => {
                tip = push(&mut lines, &None, json!({"type": "system", "subtype": "compact_boundary"}));
                tip = push(&mut lines, &tip, user(format!("summary {n}")));
            }
            Step::Microcompact { clear } => {
                let ids = &tools[..clear.min(tools.len())];
                let metadata = json!({"compactedToolIds": ids});
                let line = json!({"type": "system", "subtype": "microcompact_boundary", "microcompactMetadata": metadata});
                tip = push(&mut lines, &tip, line);
            }
            Step::Again { back } => {
                let line = lines[n - back.min(n)].clone();
                lines.push(line);
            }
        }
    }
    lines
}

fn joined(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

const FORMATS: [SourceFormat; 9] = [
    SourceFormat::ClaudeCode,
    SourceFormat::Codex,
    SourceFormat::OpenaiChat,
    SourceFormat::SweAgent,
    SourceFormat::Openhands,
    SourceFormat::Responses,
    SourceFormat::Anthropic,
    SourceFormat::Codewhale,
    SourceFormat::Helexa,
];

/// Every recording of the fixtures of other formats than Claude Code's.
fn format_fixtures() -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![golden::fixtures().join("formats")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().ends_with(".golden.json") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_sessions_come_out_of_both_rebuilds_alike(steps in prop::collection::vec(step(), 1..25)) {
        let text = joined(&write(&steps));
        let (naive, fast) = naive::both(&text);
        prop_assert_eq!(naive, fast);
    }

    #[test]
    fn shuffled_and_repeated_lines_keep_the_invariants(
        steps in prop::collection::vec(step(), 1..20),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..80),
    ) {
        let lines = write(&steps);
        let shuffled: Vec<Value> = order.iter().map(|index| index.get(&lines).clone()).collect();
        let text = joined(&shuffled);
        invariants::check(&import_texts(&[TextFile { name: "s1.jsonl", text: &text }]).unwrap());
    }

    #[test]
    fn cut_and_mixed_fixture_lines_keep_the_invariants(
        picks in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..400), 1..40),
    ) {
        let mut lines: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(golden::fixtures()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
            }
        }
        lines.sort();
        let mut text = String::new();
        for (index, keep) in &picks {
            let line = index.get(&lines);
            // One line in ten is cut off.
            let keep = if keep % 10 == 0 { *keep } else { usize::MAX };
            text.extend(line.chars().take(keep));
            text.push('\n');
        }
        let agent = TextFile { name: "agent-x1.jsonl", text: &text };
        let import = import_texts(&[TextFile { name: "s1.jsonl", text: &text }, agent]).unwrap();
        invariants::check(&import);
    }

    #[test]
    fn a_damaged_session_file_is_refused_or_sound(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let path = golden::fixtures().join("microcompact.jsonl");
        let session = import(&[path], &ImportOptions::default()).unwrap().sessions.remove(0);
        let document = json!({"format": canonical::FORMAT, "schema_version": 1, "session": session});
        let mut text = document.to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        if cut {
            text.truncate(at);
        }
        if let Ok(read) = canonical::parse(&text, "damaged") {
            prop_assert!(canonical::check(&read, "damaged").is_ok());
        }
    }

    #[test]
    fn damaged_fixtures_of_every_format_keep_the_invariants(
        pick in any::<prop::sample::Index>(),
        forced in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_usize..40), 1..6),
    ) {
        let fixtures = format_fixtures();
        let fixture = pick.get(&fixtures);
        let mut bytes = std::fs::read(fixture).unwrap();
        for (at, byte, cut) in &damage {
            let at = at.index(bytes.len().max(1)).min(bytes.len());
            match byte % 4 {
                // A byte is another one, some are lost, some come again, or the file ends.
                0 => drop(bytes.splice(at..(at + 1).min(bytes.len()), [*byte])),
                1 => drop(bytes.drain(at..(at + cut).min(bytes.len()))),
                2 => {
                    let again: Vec<u8> = bytes[at..(at + cut).min(bytes.len())].to_vec();
                    drop(bytes.splice(at..at, again));
                }
                _ if *cut == 0 => bytes.truncate(at),
                _ => {}
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(fixture.file_name().unwrap());
        std::fs::write(&path, &bytes).unwrap();
        invariants::check(&import(&[folder.path()], &ImportOptions::default()).unwrap());
        // Named as another format, a file gives warnings and whatever sessions that importer finds.
        let format = FormatChoice::Source(*forced.get(&FORMATS));
        invariants::check(&import(&[&path], &ImportOptions { format }).unwrap());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), json in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.jsonl");
        let start = if json { &b"{\"type\":\"user\",\"uuid\":\"u\",\"message\":{}}\n{\"type\":"[..] } else { b"" };
        std::fs::write(&path, [start, &bytes].concat()).unwrap();
        for format in FORMATS.map(FormatChoice::Source) {
            invariants::check(&import(&[&path], &ImportOptions { format }).unwrap());
        }
        if let Ok(import) = import(&[&path], &ImportOptions::default()) {
            invariants::check(&import);
        }
    }
}
