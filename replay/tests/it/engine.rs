//! The command on the real engine: what must hold whatever the settings.

use std::collections::BTreeMap;
use std::path::Path;

use reports::record::CallRecord;
use transcripts::canonical;

use crate::cli::{folder, run, stderr};
use crate::fixture::{records, session};

const EVERY_ARM: &str = "cold,warm,cache-only,cache+compression,cache+rescore,freeze-only,random,head-tail,rolling,latency-only,evict";

fn recorded(folder: &Path, args: &[&str]) -> Vec<CallRecord> {
    let output = run(folder, &[args, &["-o", "r"]].concat());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    let records = records(&folder.join("r"));
    assert_eq!(reports::check::check_run(&records), [], "{args:?}");
    std::fs::remove_dir_all(folder.join("r")).unwrap();
    records
}

/// A call: arm, session, index.
type Place = (String, String, u32);
/// What no setting of speed may change: raw and removed tokens, digests of the first logits and of the output.
type Facts = (Option<u64>, Option<i64>, Option<String>, Option<String>);

fn facts(records: &[CallRecord]) -> BTreeMap<Place, Facts> {
    let fact = |r: &CallRecord| {
        let value = (r.tokens_raw, r.tokens_removed, r.first_logits_digest.clone(), r.output_digest.clone());
        ((r.arm.clone(), r.session_id.clone(), r.call_index), value)
    };
    records.iter().map(fact).collect()
}

#[test]
fn results_do_not_depend_on_threads_residency_or_cache_budget() {
    let dir = folder();
    canonical::write(&session("t", 3), &dir.path().join("t.session.json")).unwrap();
    let args = ["t.session.json", "--arms", EVERY_ARM, "--keep-ratio", "0.5"];
    let plain = recorded(dir.path(), &[&args[..], &["--verify"]].concat());
    let cached: Vec<_> = plain.iter().filter(|record| record.arm.starts_with("cache")).collect();
    assert!(cached.len() == 18 && cached.iter().all(|record| record.exact == Some(true)));
    let controls = plain.iter().filter(|record| ["random", "head-tail"].contains(&record.arm.as_str()));
    assert!(controls.clone().all(|record| record.exact == Some(true) && record.tokens_scored == Some(0)));
    assert!(controls.clone().any(|record| record.messages_compressed > Some(0)));
    assert!(plain.iter().any(|record| record.tokens_removed > Some(0)), "nothing was compressed");
    assert!(plain.iter().any(|record| record.tokens_prefix_hit > Some(0)), "nothing was reused");
    for more in [
        &["--threads", "1"][..],
        &["--threads", "3"],
        &["--residency", "parked"],
        // Room for the longest prompt of one session: the second one evicts the first.
        &["--kv-budget", "640KiB", "--verify"],
    ] {
        let other = recorded(dir.path(), &[&args[..], more].concat());
        assert_eq!(facts(&other), facts(&plain), "{more:?}");
        assert!(other.iter().all(|record| record.exact != Some(false)), "{more:?}");
    }
}

#[test]
fn evict_is_exact_on_every_call_over_less_kv_than_the_cache_alone() {
    let dir = folder();
    canonical::write(&session("t", 6), &dir.path().join("t.session.json")).unwrap();
    let args = ["t.session.json", "--arms", "cache-only,evict", "--keep-ratio", "0.25"];
    let records = recorded(dir.path(), &[&args[..], &["--verify", "--fidelity"]].concat());
    let of_session = records.iter().filter(|record| record.session_id == "t");
    let (whole, evicting): (Vec<_>, Vec<_>) = of_session.partition(|record| record.arm == "cache-only");
    assert_eq!((whole.len(), evicting.len()), (6, 6));
    for (whole, evicting) in whole.iter().zip(&evicting) {
        let call = evicting.call_index;
        assert_eq!((evicting.exact, &evicting.prefix_break), (Some(true), &None), "call {call}");
        assert_eq!(
            evicting.tokens_prefilled, whole.tokens_prefilled,
            "nothing is computed again: call {call}"
        );
        let has_lost = evicting.tokens_removed > Some(0);
        assert_eq!(evicting.kv_bytes < whole.kv_bytes, has_lost, "call {call}");
        // The rows that are gone are missed, and the ones that are not yet gone are not.
        assert_eq!(evicting.fidelity.kl_action_mean > Some(0.0), has_lost, "call {call}");
        assert_eq!(evicting.first_logits_digest != whole.first_logits_digest, has_lost, "call {call}");
    }
    assert!(evicting[..2].iter().all(|record| record.tokens_removed == Some(0)), "none has aged");
    assert!(evicting[5].tokens_removed > Some(0) && evicting[5].messages_compressed > Some(0));
}

#[test]
fn cold_and_cached_calls_have_the_same_first_logits() {
    let dir = folder();
    let records = recorded(dir.path(), &["--arms", "cold,cache-only"]);
    let (cold, cached): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.arm == "cold");
    for (cold, cached) in cold.iter().zip(cached) {
        assert_eq!(cold.first_logits_digest, cached.first_logits_digest, "call {}", cold.call_index);
        assert_eq!(cold.output_text, cached.output_text);
    }
}

#[test]
fn ageing_breaks_the_prefix_by_name_and_backfilled_history_does_not() {
    let dir = folder();
    canonical::write(&session("s", 4), &dir.path().join("s.session.json")).unwrap();
    let records =
        recorded(dir.path(), &["--arms", "rolling,latency-only", "--keep-ratio", "0.5", "--verify"]);
    let (rolling, passing): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.arm == "rolling");
    assert!(records.iter().all(|record| record.exact == Some(true)));
    let mut n_breaks = 0;
    for calls in rolling.windows(2) {
        let ages = calls[1].messages_compressed > calls[0].messages_compressed;
        let found = calls[1].prefix_break.as_ref().map(|found| (found.cause.as_str(), found.tokens_lost > 0));
        assert_eq!(found, ages.then_some(("ageing", true)), "call {}", calls[1].call_index);
        n_breaks += u32::from(ages);
    }
    assert!(n_breaks > 0, "nothing aged");
    for calls in passing.windows(2) {
        assert_eq!(calls[1].prefix_break, None, "call {}", calls[1].call_index);
        let left = calls[0].messages_compressed > Some(0);
        assert_eq!(calls[1].tokens_backfilled.is_some_and(|n| n > 0), left, "call {}", calls[1].call_index);
        assert_eq!(calls[1].spans_ms.blocked, calls[1].backfill_ms, "no gap is recorded");
    }
    assert!(passing.iter().any(|call| call.tokens_backfilled.is_some()), "nothing was compressed");
}

#[test]
fn parking_is_timed_where_it_happens() {
    let dir = folder();
    let records = recorded(dir.path(), &["--arms", "cold,cache+compression", "--residency", "parked"]);
    for record in &records {
        let scored = record.tokens_scored > Some(0);
        assert_eq!(
            record.spans_ms.drafter_load.is_some(),
            scored,
            "{} call {}",
            record.arm,
            record.call_index
        );
        assert_eq!(
            record.spans_ms.target_load.is_some(),
            scored,
            "{} call {}",
            record.arm,
            record.call_index
        );
    }
    assert!(records.iter().any(|record| record.tokens_scored > Some(0)));
}

#[test]
fn a_freeze_store_outlives_the_run_and_changes_nothing_else() {
    let dir = folder();
    let args = ["--arms", "freeze-only", "--freeze-store", "memo.bin"];
    let first = recorded(dir.path(), &args);
    let second = recorded(dir.path(), &args);
    let scored =
        |records: &[CallRecord]| records.iter().filter_map(|record| record.tokens_scored).sum::<u64>();
    assert!(scored(&first) > 0);
    assert_eq!(scored(&second), 0);
    assert_eq!(facts(&first), facts(&second));
}

#[test]
fn supplied_prompt_and_tools_are_sent() {
    let dir = folder();
    std::fs::write(dir.path().join("system.txt"), "You are careful. ".repeat(20)).unwrap();
    let tool = r#"[{"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}]"#;
    std::fs::write(dir.path().join("tools.json"), tool).unwrap();
    let arms = ["--arms", "cold,cache+compression"];
    let plain = recorded(dir.path(), &arms);
    let raw =
        |records: &[CallRecord]| records.iter().filter_map(|record| record.tokens_raw).collect::<Vec<_>>();
    let longer =
        |records: &[CallRecord]| raw(records).iter().zip(raw(&plain)).all(|(more, less)| *more > less);
    let with_prompt = recorded(dir.path(), &[&arms[..], &["--system-prompt", "system.txt"]].concat());
    assert!(longer(&with_prompt));
    assert!(with_prompt.iter().any(|record| record.tokens_removed > Some(0)));

    let with_tools = |more: &[&str]| {
        let records = recorded(dir.path(), &[&arms[..], &["--tools", "tools.json"], more].concat());
        assert!(longer(&records));
        records.iter().any(|record| record.tokens_removed > Some(0))
    };
    assert!(with_tools(&[]), "a score by the task compresses beside definitions");
    assert!(!with_tools(&["--bypass-tools"]) && !with_tools(&["--score-by", "own-tail"]));
    assert!(with_tools(&["--score-by", "own-tail", "--compress-with-tools"]));
}

#[test]
fn drawing_is_seeded() {
    let dir = folder();
    let with_seed =
        |seed: &str| facts(&recorded(dir.path(), &["--arms", "cold", "--temperature", "1", "--seed", seed]));
    assert_eq!(with_seed("1"), with_seed("1"));
    assert_ne!(with_seed("1"), with_seed("2"));
}

#[test]
fn each_pass_has_its_line_where_stderr_is_no_terminal() {
    let dir = folder();
    let output = run(dir.path(), &["--arms", "cold,cache-only", "--repeats", "2", "-o", "r"]);
    let text = stderr(&output);
    let passes: Vec<&str> = text.lines().filter(|line| line.contains("(repeat ")).collect();
    assert_eq!(passes.len(), 4, "{text}");
    assert!(passes[0].starts_with("cold (repeat 1 of 2): 3 calls, TTFT sum "), "{text}");
    assert!(passes[3].starts_with("cold (repeat 2 of 2)") && passes[3].ends_with("[12/12]"), "{text}");
}

#[test]
fn fidelity_is_none_lost_on_the_prompt_as_recorded_and_some_on_a_compressed_one() {
    let dir = folder();
    canonical::write(&session("t", 3), &dir.path().join("t.session.json")).unwrap();
    let args = ["t.session.json", "--arms", "cold,cache-only,warm", "--keep-ratio", "0.5", "--fidelity"];
    let records = recorded(dir.path(), &args);
    for record in &records {
        let fidelity = &record.fidelity;
        let (Some(first), Some(mean), Some(p95), Some(agreement)) =
            (fidelity.kl_first, fidelity.kl_action_mean, fidelity.kl_action_p95, fidelity.argmax_agreement)
        else {
            panic!("not measured: {record:?}");
        };
        assert!(first.is_finite() && mean >= 0.0 && p95 >= 0.0 && (0.0..=1.0).contains(&agreement));
        assert!(record.tool_calls.is_some());
        if record.tokens_removed == Some(0) {
            // Cold against cold: the null control.
            assert_eq!(
                (first, mean, p95, agreement),
                (0.0, 0.0, 0.0, 1.0),
                "{} call {}",
                record.arm,
                record.call_index
            );
        } else {
            assert!(mean > 0.0 && p95 > 0.0, "{} call {}", record.arm, record.call_index);
        }
    }
    assert!(records.iter().any(|record| record.tokens_removed > Some(0)), "nothing was compressed");
    // Alone, the arm finds no original prompt that another one has computed.
    let alone =
        recorded(dir.path(), &["t.session.json", "--arms", "warm", "--keep-ratio", "0.5", "--fidelity"]);
    let of_warm: Vec<_> = records.iter().filter(|record| record.arm == "warm").map(|r| &r.fidelity).collect();
    assert_eq!(alone.iter().map(|record| &record.fidelity).collect::<Vec<_>>(), of_warm);
}

#[test]
fn a_prompt_that_does_not_extend_the_one_before_is_recorded_with_its_cause() {
    let dir = folder();
    let args = ["bundled:compacted", "--arms", "cold,cache+compression"];
    let records = recorded(dir.path(), &args);
    let broken: Vec<_> =
        records.iter().filter_map(|r| Some((r.arm.as_str(), r.prefix_break.as_ref()?))).collect();
    assert_eq!(broken.len(), 2, "the recording breaks once, and no arm adds a break: {broken:?}");
    for (arm, found) in broken {
        assert_eq!(found.cause, "compaction", "{arm}");
        assert!(found.tokens_lost > 0 && found.message.is_some(), "{arm}: {found:?}");
    }
}
