//! What the bundled pair can do, at a size that every test run can afford, and the run that uses it: floors, well above what guessing gives and below
//! what was measured (engine/sample/MODEL_CARD.md has the numbers).

use std::fs;

use replay::abilities::{Ask, FIRST_SEED, Plan, arm_defaults, by_length, measure};
use replay::arm;
use replay::backend::engine::EngineBackend;
use replay::settings::DeviceChoice;
use serde_json::Value;

use crate::cli::{reprise, stderr, stdout};
use crate::fixture::records;

/// Prompts of the small measurement; with all but three right, the 95 % interval of a share starts above one half.
const PROMPTS: u64 = 12;

fn plan(first_seed: u64, prompts: u64) -> Plan {
    let arms =
        arm::choose(&["cold", "cache+compression"].map(str::to_owned), &[], &arm_defaults(125, 1)).unwrap();
    Plan {
        lengths: vec![512],
        asks: vec![Ask::First],
        prompts,
        first_seed,
        ranked_by: arms.last().cloned(),
        arms,
    }
}

fn pair() -> EngineBackend {
    EngineBackend::of_models("sample", Some("sample"), DeviceChoice::Cpu, None).unwrap()
}

#[test]
fn the_bundled_pair_writes_valid_calls_and_finds_facts() {
    let mut heard = 0;
    let outcomes = measure(&plan(FIRST_SEED, PROMPTS), &mut pair(), &mut |_| heard += 1).unwrap();
    assert_eq!((outcomes.len() as u64, heard), (PROMPTS, PROMPTS));
    let rows = by_length(&outcomes);
    let [row] = rows.as_slice() else { panic!("one length, one way to ask: {rows:?}") };
    let [cold, compressed] = row.arms.as_slice() else { panic!("two arms: {row:?}") };
    let outputs: Vec<&str> = outcomes.iter().map(|outcome| outcome.answers[0].output.as_str()).collect();
    assert!(cold.valid.hits + 1 >= PROMPTS, "{row:?} {outputs:#?}");
    assert!(cold.exact.hits + 3 >= PROMPTS, "{row:?} {outputs:#?}");
    assert_eq!(cold.kept.hits, PROMPTS, "nothing is taken from a cold prompt");
    assert!(row.recalled.of == PROMPTS && row.recalled.hits + 3 >= PROMPTS, "{row:?}");
    assert_eq!(compressed.exact.of, PROMPTS);
}

#[test]
fn the_same_seed_gives_the_same_answers() {
    let mut backend = pair();
    let measure = |backend: &mut EngineBackend| measure(&plan(FIRST_SEED, 2), backend, &mut |_| ()).unwrap();
    assert_eq!(measure(&mut backend), measure(&mut backend));
}

#[test]
fn seeds_of_training_are_refused() {
    let error = measure(&plan(u64::from(u32::MAX), 1), &mut pair(), &mut |_| ()).unwrap_err().to_string();
    assert!(
        error.contains("seed 4294967295 is one of training's") && error.contains("4294967296"),
        "{error}"
    );
}

#[test]
fn a_run_without_session_or_model_replays_the_bundled_ones_and_compares_their_calls() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        reprise(dir.path(), &["run", "--calls", "1..3", "--arms", "cold,cache+compression", "-o", "r"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("agrees") && text.contains("Generated tool calls that equal the recorded ones"),
        "{text}"
    );
    let all = records(&dir.path().join("r"));
    assert_eq!(all.len(), 6);
    // An exploring call, an acting one, and a closing sentence that calls nothing.
    for calls in all.chunks(3) {
        let compared: Vec<bool> = calls.iter().map(|r| r.fidelity.tool_call_agrees.is_some()).collect();
        assert_eq!(compared, [true, true, false]);
        assert_eq!(calls[0].fidelity.needle_survival, None, "no tool output is there yet");
        assert!(calls[1].fidelity.needle_survival.is_some());
    }
    let manifest: Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join("r/run.json")).unwrap()).unwrap();
    assert_eq!(manifest["models"]["target"]["random_weights"], false);
    assert_eq!(manifest["sessions"][0]["source"], "bundled:sample");
}
