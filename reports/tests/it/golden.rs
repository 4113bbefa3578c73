//! Pages of a made run, checked to the letter. `UPDATE_GOLDEN=1` rewrites them.

use std::fs;
use std::path::PathBuf;

use reports::Report;
use reports::record::{CallError, CallRecord};
use reports::render::terminal::{self, Color};
use reports::render::{json, markdown};

use crate::demo::Demo;

fn check(name: &str, got: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, got).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert_eq!(got, expected, "{name} changed; UPDATE_GOLDEN=1 rewrites it");
}

fn four_arms() -> Report {
    let demo = Demo::four_arms();
    Report::new(demo.manifest(), &demo.records(), Vec::new(), Vec::new())
}

/// Two repeats, a failed call, an arm that was cut, a broken record.
fn damaged() -> Report {
    let demo = Demo { repeats: 2, sessions: vec![("one", 4), ("two|*", 3)], ..Demo::four_arms() };
    let mut records = demo.records();
    records.truncate(records.len() - 9);
    records[3] = CallRecord {
        arm: records[3].arm.clone(),
        session_id: records[3].session_id.clone(),
        call_index: records[3].call_index,
        order_index: 3,
        error: Some(CallError {
            kind: "context_length".into(),
            message: "prompt of 5,920 tokens, context 4,096".into(),
        }),
        ..CallRecord::default()
    };
    records[9].tokens_prefilled = Some(1);
    Report::new(
        demo.manifest(),
        &records,
        Vec::new(),
        vec!["calls.jsonl:3: bad line skipped: expected value".into()],
    )
}

#[test]
fn summary_json_of_four_arms() {
    check("four_arms.summary.json", &json::render(&four_arms()));
}

#[test]
fn summary_md_of_four_arms() {
    check("four_arms.summary.md", &markdown::render(&four_arms()));
}

#[test]
fn terminal_of_four_arms() {
    check("four_arms.terminal.txt", &terminal::render(&four_arms(), Color::Never));
}

#[test]
fn summary_json_of_a_damaged_run() {
    check("damaged.summary.json", &json::render(&damaged()));
}

#[test]
fn summary_md_of_a_damaged_run() {
    check("damaged.summary.md", &markdown::render(&damaged()));
}

#[test]
fn colour_is_all_that_colour_adds() {
    let colored = terminal::render(&four_arms(), Color::Always);
    assert!(colored.contains("\x1b[32m"));
    let mut plain = colored;
    for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m"] {
        plain = plain.replace(code, "");
    }
    let trimmed: String = plain.lines().map(|l| l.trim_end().to_string() + "\n").collect();
    assert_eq!(trimmed, terminal::render(&four_arms(), Color::Never));
}
