//! Fidelity over made records: the null control, the levels of agreement, means and differences by hand, and the plane of
//! fidelity against cost.

use reports::Report;
use reports::record::{CallRecord, Fidelity, RunManifest, Structure};
use reports::render::{html, json, markdown};
use reports::report::{Cost, Measure, Tone};
use reports::tool_call::ToolCall;
use serde_json::{Value, json};

/// Kept share in thousandths of the sweep.
const BUDGETS: [u32; 5] = [1000, 500, 250, 125, 45];
/// Score, and mean KL at the smallest budget.
const SCORES: [(&str, f64); 3] = [("birth", 0.3), ("random", 1.2), ("head-tail", 0.9)];

fn arm_name(score: &str, permille: u32) -> String {
    format!("{score}.{permille}")
}

fn arm(name: &str, compression: &Value) -> serde_json::Map<String, Value> {
    json!({"name": name, "cache": "on", "compression": compression, "stands_for": name})
        .as_object()
        .unwrap()
        .clone()
}

pub fn sweep_manifest() -> RunManifest {
    let mut arms = vec![arm("cold", &Value::Null)];
    for (score, _) in SCORES {
        arms.extend(BUDGETS.map(|permille| {
            let seed = (score == "random").then_some(7);
            let knobs = json!({"keep_permille": permille, "score_by": score, "score_seed": seed, "selection": "lines"});
            arm(&arm_name(score, permille), &knobs)
        }));
    }
    RunManifest { run_id: "sweep".into(), arms, seed: 3, ..RunManifest::default() }
}

fn read_call(path: &str) -> Vec<ToolCall> {
    let arguments = json!({"file_path": path}).as_object().unwrap().clone();
    vec![ToolCall { name: "Read".into(), arguments }]
}

fn record(arm: &str, session: usize, call: u32, kl: f64) -> CallRecord {
    CallRecord {
        arm: arm.into(),
        session_id: format!("s{session}"),
        call_index: call,
        ttft_ms: Some(100.0),
        tokens_prefilled: Some(1_000),
        tokens_scored: Some(0),
        tool_calls: Some(read_call("src/a.rs")),
        structure: Some(Structure { valid: true, ..Structure::default() }),
        fidelity: Fidelity {
            kl_first: Some(kl / 2.0),
            kl_action_mean: Some(kl),
            kl_action_p95: Some(kl * 3.0),
            argmax_agreement: Some(1.0 - kl / 10.0),
            needle_survival: Some(1.0),
            tool_call_agrees: Some(true),
            ..Fidelity::default()
        },
        ..CallRecord::default()
    }
}

/// The sweep over sessions of four calls: KL grows as the budget falls, in the drafter's arms least; sessions differ a little.
pub fn sweep_records(n_sessions: usize) -> Vec<CallRecord> {
    let mut records = Vec::new();
    for session in 0..n_sessions {
        for call in 0..4 {
            records.push(record("cold", session, call, 0.0));
            for (rank, (score, worst)) in SCORES.into_iter().enumerate() {
                for permille in BUDGETS {
                    let lost = 1.0 - f64::from(permille) / 1000.0;
                    let kl = worst * lost * lost * (1.0 + 0.1 * session as f64);
                    let mut own = record(&arm_name(score, permille), session, call, kl);
                    own.ttft_ms = Some(8.0 + 30.0 * (1.0 - lost) + if rank == 0 { 10.0 } else { 0.0 });
                    own.tokens_prefilled = Some(40 + u64::from(permille) / 10);
                    own.tokens_scored = Some(if rank == 0 { 200 } else { 0 });
                    if call == 3 && kl > 0.5 {
                        own.tool_calls = Some(read_call("src/b.rs"));
                        own.fidelity.tool_call_agrees = Some(false);
                        own.fidelity.needle_survival = Some(0.5);
                        own.fidelity.needles_elided = vec!["src/a.rs".into()];
                    }
                    records.push(own);
                }
            }
        }
    }
    records
}

pub fn sweep(n_sessions: usize) -> Report {
    Report::new(sweep_manifest(), &sweep_records(n_sessions), Vec::new(), Vec::new())
}

fn mean(report: &Report, arm: &str, measure: Measure) -> f64 {
    report.fidelity.as_ref().unwrap().row(arm).unwrap().measured[&measure].mean
}

#[test]
fn cold_against_itself_is_the_null_control() {
    let report = sweep(3);
    let expected = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0];
    for (measure, expected) in Measure::ALL.into_iter().zip(expected) {
        let own = report.fidelity.as_ref().unwrap().row("cold").unwrap().measured[&measure];
        assert_eq!((own.mean, own.interval), (expected, Some((expected, expected))), "{measure:?}");
        assert_eq!((own.n, own.n_clusters), (12, 3));
    }
}

#[test]
fn calls_are_held_against_colds_of_the_same_session_call_and_repeat() {
    let call = |name: &str, path: &str| vec![ToolCall { name: name.into(), ..read_call(path).remove(0) }];
    let at = |arm: &str, call_index: u32, repeat: u32, tool_calls: Option<Vec<ToolCall>>| CallRecord {
        arm: arm.into(),
        session_id: "s".into(),
        call_index,
        repeat,
        tool_calls,
        ..CallRecord::default()
    };
    let records = [
        at("cold", 0, 0, Some(read_call("src/a.rs"))),
        at("cold", 0, 1, Some(read_call("src/other.rs"))),
        at("cold", 1, 0, Some(read_call("src/a.rs"))),
        at("cold", 2, 0, Some(read_call("src/a.rs"))),
        at("cold", 3, 0, Some(Vec::new())),
        at("cold", 4, 0, None),
        at("warm", 0, 0, Some(read_call("src/a.rs"))),
        at("warm", 0, 1, Some(read_call("./src/other.rs"))),
        at("warm", 1, 0, Some(read_call("src/b.rs"))),
        at("warm", 2, 0, Some(call("Edit", "src/a.rs"))),
        // Cold calls nothing, or nobody knows what: there is nothing to agree with.
        at("warm", 3, 0, Some(read_call("src/a.rs"))),
        at("warm", 4, 0, Some(read_call("src/a.rs"))),
    ];
    let report = Report::new(RunManifest::default(), &records, Vec::new(), Vec::new());
    let shares = [Measure::ColdName, Measure::ColdNormalised, Measure::ColdExact]
        .map(|measure| mean(&report, "warm", measure));
    assert_eq!(shares, [0.75, 0.5, 0.25]);
    assert!(!report.fidelity.as_ref().unwrap().has_distances() && report.pareto.is_none());
}

#[test]
fn means_are_over_calls_and_intervals_over_sessions() {
    let report = sweep(2);
    let row = &report.fidelity.as_ref().unwrap().row("random.500").unwrap().measured[&Measure::KlMean];
    // 1.2 · 0.5² in the first session, a tenth more in the second; with two of them the ends are theirs.
    assert!((row.mean - 0.315).abs() < 1e-12, "{row:?}");
    let (low, high) = row.interval.unwrap();
    assert!((low - 0.3).abs() < 1e-12 && (high - 0.33).abs() < 1e-12);
    assert_eq!(mean(&report, "random.45", Measure::Recorded), 0.75);
    assert_eq!(mean(&report, "random.45", Measure::Elided), 0.25);
    assert_eq!(mean(&report, "random.45", Measure::Needles), 0.875);
}

#[test]
fn one_session_has_means_and_no_interval_and_the_page_says_so() {
    let report = sweep(1);
    let fidelity = report.fidelity.as_ref().unwrap();
    assert!(fidelity.rows.iter().flat_map(|row| row.measured.values()).all(|mean| mean.interval.is_none()));
    assert!(report.notes.iter().any(|note| note.contains("fidelity has no interval")), "{:#?}", report.notes);
    assert!(
        !report.findings.iter().any(|finding| finding.text.contains("interval over sessions the drafter"))
    );
    assert!(!sweep(2).notes.iter().any(|note| note.contains("fidelity has no interval")));
}

#[test]
fn a_drafter_is_held_against_controls_of_its_own_budget() {
    let report = sweep(4);
    let fidelity = report.fidelity.as_ref().unwrap();
    let pairs: Vec<(&str, &str)> =
        fidelity.to_controls.iter().map(|row| (row.arm.as_str(), row.against.as_str())).collect();
    assert_eq!(pairs.len(), 10);
    assert_eq!(pairs[2..4], [("birth.500", "random.500"), ("birth.500", "head-tail.500")]);
    let kl = fidelity.to_controls[2].measured[&Measure::KlMean];
    // A quarter of (0.3 - 1.2), times the mean of 1, 1.1, 1.2 and 1.3.
    assert!((kl.mean + 0.25 * 0.9 * 1.15).abs() < 1e-12, "{kl:?}");
    assert!(kl.interval.unwrap().1 < 0.0);
    // Nothing is lost where all is kept.
    assert_eq!(fidelity.to_controls[0].measured[&Measure::KlMean].mean, 0.0);
    let finding = report.findings.iter().find(|finding| finding.text.contains("(mean KL)")).unwrap();
    assert_eq!(finding.tone, Tone::Good);
    assert!(finding.text.contains("in 8 of 10 comparisons") && finding.text.contains("random.45 at 1/22"));
}

#[test]
fn arms_that_differ_in_budget_are_a_line_from_the_largest_on() {
    let report = sweep(2);
    let pareto = report.pareto.as_ref().unwrap();
    let names: Vec<&str> = pareto.lines.iter().map(|line| line.name.as_str()).collect();
    assert_eq!(names, ["cold", "drafter", "random", "head-tail"]);
    let kept: Vec<_> = pareto.lines[1].points.iter().map(|point| point.keep_permille).collect();
    assert_eq!(kept, BUDGETS.map(|permille| Some(u64::from(permille))));
    let point = &pareto.lines[1].points[2];
    assert!((point.cost(Cost::Ttft).unwrap() - (18.0 + 7.5) / 100.0).abs() < 1e-12, "{point:?}");
    assert_eq!(point.cost(Cost::Tokens), Some((65.0 + 200.0) / 1000.0));
    let is_dominated = |arm: &str, cost| {
        let point = pareto.points().find(|point| point.arm == arm).unwrap();
        pareto.is_dominated(point, cost, Measure::KlMean)
    };
    // At every budget head-tail costs as much as random and loses less; cold costs more than all and loses nothing, as
    // those do that keep everything.
    assert!(is_dominated("random.125", Cost::Ttft) && !is_dominated("head-tail.125", Cost::Ttft));
    assert!(is_dominated("cold", Cost::Ttft) && is_dominated("birth.1000", Cost::Tokens));
    assert!(!is_dominated("random.1000", Cost::Ttft));
}

#[test]
fn an_arm_that_lacks_calls_is_not_placed() {
    let mut records = sweep_records(2);
    records.retain(|record| record.arm != "random.45" || record.call_index < 3);
    let report = Report::new(sweep_manifest(), &records, Vec::new(), Vec::new());
    let line = &report.pareto.as_ref().unwrap().lines[2];
    assert_eq!((line.name.as_str(), line.points.len()), ("random", 4));
    records.retain(|record| ["cold", "random.45", "birth.45"].contains(&record.arm.as_str()));
    assert_eq!(Report::new(sweep_manifest(), &records, Vec::new(), Vec::new()).pareto, None);
}

#[test]
fn two_arms_of_one_ranking_and_other_settings_are_lines_of_their_own() {
    let mut manifest = sweep_manifest();
    for arm in &mut manifest.arms[6..11] {
        arm["compression"]["score_by"] = json!("birth");
        arm["compression"]["selection"] = json!("structural");
    }
    let report = Report::new(manifest, &sweep_records(2), Vec::new(), Vec::new());
    let names: Vec<&str> = report.pareto.as_ref().unwrap().lines.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["cold", "drafter from birth.1000", "drafter from random.1000", "head-tail"]);
}

#[test]
fn every_page_has_the_fidelity_of_the_sweep() {
    let report = sweep(3);
    let summary: Value = serde_json::from_str(&json::render(&report)).unwrap();
    let kl = &summary["fidelity"]["arms"]["birth.250"]["kl_action_mean"];
    assert_eq!((&kl["calls"], &kl["sessions"]), (&json!(12), &json!(3)));
    assert!(kl["ci_low"].as_f64().unwrap() < kl["mean"].as_f64().unwrap());
    assert_eq!(summary["fidelity"]["to_controls"].as_array().unwrap().len(), 10);
    let points = summary["pareto"]["lines"][1]["points"].as_array().unwrap();
    assert_eq!(
        points[0]["dominated"]["ttft"]["kl_action_mean"],
        json!(true),
        "random.1000 is cheaper and loses nothing"
    );
    let (page, text) = (html::render(&report, &[]), markdown::render(&report));
    // 0.3 · 0.75² times 1, 1.1 and 1.2.
    for words in ["The drafter less its controls", "0.19 (0.17–0.20)", "needed words kept"] {
        let found = [&page, &text].map(|page| page.to_lowercase().contains(&words.to_lowercase()));
        assert!(found[0], "{words} in the HTML page");
        assert!(found[1] || words.starts_with("The"), "{words} in the Markdown page");
    }
}

#[test]
fn a_sweep_tells_its_arms_in_a_sentence() {
    let told: Vec<String> = sweep(2).findings.into_iter().map(|finding| finding.text).collect();
    let of_cold: Vec<&String> = told.iter().filter(|text| text.contains("faster than cold")).collect();
    assert_eq!(
        of_cold,
        [
            "15 of 15 arms are faster than cold to the first token, from 2.08x (birth.1000) to 10.7x (head-tail.45), outside \
          of their 95 % intervals."
        ],
        "{told:#?}"
    );
}

#[test]
fn records_of_an_older_version_have_what_they_hold() {
    let mut records = sweep_records(2);
    for record in &mut records {
        record.tool_calls = None;
        record.fidelity.kl_action_p95 = None;
    }
    let report = Report::new(sweep_manifest(), &records, Vec::new(), Vec::new());
    let row = report.fidelity.as_ref().unwrap().row("birth.250").unwrap();
    assert!(row.measured.contains_key(&Measure::KlMean) && row.measured.contains_key(&Measure::Recorded));
    assert!(!row.measured.contains_key(&Measure::KlP95) && !row.measured.contains_key(&Measure::ColdName));
    assert!(report.pareto.is_some());
}
