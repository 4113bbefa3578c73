//! The whole loop on the mock: exact records, order, faults, invariants.

use std::fs;

use replay::backend::mock::{self, Fault, MockBackend, Script};
use replay::backend::{Device, Verify};
use replay::error::ReplayError;
use replay::runner::RunEnd;
use replay::settings::Settings;
use replay::telemetry::{Source, Sources};
use reports::check::Rule;
use reports::record::{CacheState, CallRecord, TelemetrySample};
use reports::store::RunDir;

use crate::fixture::{self, Around, check_golden, mock_with, plan, records, run, session, sourced};

const ALL_ARMS: [&str; 6] =
    ["cold", "warm", "cache-only", "cache+compression", "cache+rescore", "freeze-only"];

fn replayed(arms: &[&str], settings: Settings, n_calls: u32) -> Vec<CallRecord> {
    let sessions = sourced(vec![session("s", n_calls)]);
    let dir = tempfile::tempdir().unwrap();
    let end = run(&plan(settings, arms, &sessions), &sessions, &mut MockBackend::default(), dir.path(), None);
    assert_eq!(end.unwrap(), RunEnd::Complete);
    records(dir.path())
}

fn of_arm<'a>(records: &'a [CallRecord], arm: &str) -> Vec<&'a CallRecord> {
    records.iter().filter(|record| record.arm == arm).collect()
}

#[test]
fn records_of_all_arms_are_exact_to_the_last_digit() {
    let sessions = sourced(vec![session("a", 3), session("b", 2)]);
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(fixture::settings(), &ALL_ARMS, &sessions);
    let mut backend = MockBackend::scripted(Script {
        outputs: vec![
            "ok".to_owned(),
            "<tool_call> {\"name\": \"read\", \"arguments\": {}} </tool_call>".to_owned(),
            "<tool_call> {\"name\": \"read\"".to_owned(),
        ],
        ..Script::default()
    });
    run(&plan, &sessions, &mut backend, dir.path(), None).unwrap();
    check_golden("calls.jsonl", &fs::read_to_string(dir.path().join("calls.jsonl")).unwrap());
    assert_eq!(reports::check::check_run(&records(dir.path())), []);
}

#[test]
fn spans_and_ttft_follow_the_cost_model() {
    let records = replayed(&["cold"], fixture::settings(), 1);
    // One user message of 5 words: 5 + 2 for its frame + 1 that opens the answer.
    let tokens = 8.0;
    let record = &records[0];
    assert_eq!(record.tokens_raw, Some(8));
    let render = mock::RENDER_PER_MESSAGE.as_secs_f64() * 1e3;
    let tokenize = mock::TOKENIZE_PER_TOKEN.as_secs_f64() * 1e3 * tokens;
    let prefill = mock::PREFILL_PER_TOKEN.as_secs_f64() * 1e3 * tokens;
    let first = mock::FIRST_TOKEN.as_secs_f64() * 1e3;
    let unexplained = mock::UNEXPLAINED.as_secs_f64() * 1e3;
    let close = |got: Option<f64>, expected: f64| assert!((got.unwrap() - expected).abs() < 1e-9, "{got:?}");
    close(record.spans_ms.prefill, prefill);
    close(record.spans_ms.unexplained, unexplained);
    close(record.ttft_ms, render + tokenize + prefill + first + unexplained);
    assert_eq!(record.spans_ms.score, None, "a stage that did not run is null, not 0");
}

#[test]
fn freezing_stacks_with_the_cache_and_scoring_again_does_not() {
    let records = replayed(&ALL_ARMS, fixture::settings(), 5);
    let scored =
        |arm: &str| of_arm(&records, arm).iter().map(|r| r.tokens_scored.unwrap()).collect::<Vec<_>>();
    // Tool result k has 10 k words; call k sees results 1 to k - 1. The first call has none: with `auto` the arms that
    // score every call anew compress its user message of 5 words, those that freeze leave it.
    assert_eq!(scored("warm"), [5, 10, 30, 60, 100]);
    assert_eq!(scored("cache+rescore"), [5, 10, 30, 60, 100]);
    assert_eq!(scored("cache+compression"), [0, 10, 20, 30, 40]);
    assert_eq!(scored("freeze-only"), [0, 10, 20, 30, 40]);
    assert_eq!(scored("cache-only"), [0; 5]);

    let last = |arm: &str| *of_arm(&records, arm).last().unwrap();
    assert!(last("cache+compression").tokens_prefilled < last("cache-only").tokens_prefilled);
    assert_eq!(last("cache+compression").messages_frozen_hit, Some(3));
    assert_eq!(last("cold").cache_state, Some(CacheState::Off));
    assert_eq!(last("cache-only").cache_state, Some(CacheState::Hit));
    assert_eq!(of_arm(&records, "cache-only")[0].cache_state, Some(CacheState::Miss));
}

#[test]
fn arms_alternate_over_repeats_and_start_fresh() {
    let sessions = sourced(vec![session("s", 2)]);
    let settings = Settings { repeats: 3, ..fixture::settings() };
    let plan = plan(settings, &["cold", "warm", "cache-only"], &sessions);
    let dir = tempfile::tempdir().unwrap();
    let mut backend = MockBackend::default();
    run(&plan, &sessions, &mut backend, dir.path(), None).unwrap();
    let abba = ["cold", "warm", "cache-only", "cache-only", "warm", "cold", "cold", "warm", "cache-only"];
    assert_eq!(backend.started, abba);
    let records = records(dir.path());
    let order: Vec<u64> = records.iter().map(|record| record.order_index).collect();
    assert_eq!(order, (0..18).collect::<Vec<_>>());
    let first_calls = records.iter().filter(|r| r.arm == "cache-only" && r.call_index == 0);
    for record in first_calls {
        assert_eq!(
            record.cache_state,
            Some(CacheState::Miss),
            "repeat {} began with old state",
            record.repeat
        );
    }
}

#[test]
fn a_failed_call_is_a_record_and_the_run_goes_on() {
    let sessions = sourced(vec![session("s", 3)]);
    let plan = plan(fixture::settings(), &["cold", "cache-only"], &sessions);
    let dir = tempfile::tempdir().unwrap();
    let end = run(&plan, &sessions, &mut mock_with(&[(1, Fault::Error)]), dir.path(), None);
    assert_eq!(end.unwrap(), RunEnd::Complete);
    let records = records(dir.path());
    assert_eq!(records.len(), 6);
    let failed = &records[1];
    assert_eq!(failed.error.as_ref().unwrap().kind, "backend");
    assert_eq!((failed.tokens_raw, failed.ttft_ms, failed.structure.as_ref()), (None, None, None));
    assert!(records.iter().enumerate().all(|(i, record)| (i == 1) == record.error.is_some()));
}

#[test]
fn a_record_that_breaks_an_invariant_ends_the_run_and_is_kept() {
    for (fault, rule) in [
        (Fault::HitWithoutCache, Rule::ColdHit),
        (Fault::TokenLost, Rule::TokenIdentity),
        (Fault::StagesOverlap, Rule::NegativeTime),
    ] {
        let sessions = sourced(vec![session("s", 3)]);
        let plan = plan(fixture::settings(), &["cold"], &sessions);
        let dir = tempfile::tempdir().unwrap();
        let error = run(&plan, &sessions, &mut mock_with(&[(1, fault)]), dir.path(), None).unwrap_err();
        let ReplayError::Invalid { violation, .. } = &error else { panic!("{fault:?}: {error}") };
        assert_eq!(violation.rule, rule);
        assert!(error.to_string().contains("arm cold"), "{error}");
        assert_eq!(records(dir.path()).len(), 2, "{fault:?}: the evidence is on disk");
    }
}

#[test]
fn exactness_is_recorded_where_it_was_checked() {
    let settings = Settings { verify: Verify::Bitwise, ..fixture::settings() };
    let records = replayed(&["cold", "cache-only"], settings, 2);
    assert!(of_arm(&records, "cold").iter().all(|record| record.exact.is_none()));
    assert!(of_arm(&records, "cache-only").iter().all(|record| record.exact == Some(true)));
}

#[test]
fn a_range_limits_the_calls_of_each_session() {
    let settings = Settings { calls: "2..3".parse().unwrap(), ..fixture::settings() };
    let sessions = sourced(vec![session("long", 5), session("short", 2), session("one", 1)]);
    let plan = plan(settings, &["cold"], &sessions);
    assert_eq!(plan.calls_planned(), 3);
    assert!(
        plan.notes.iter().any(|note| note.contains("1 sessions have no call in 2..3")),
        "{:?}",
        plan.notes
    );
    let dir = tempfile::tempdir().unwrap();
    run(&plan, &sessions, &mut MockBackend::default(), dir.path(), None).unwrap();
    let calls: Vec<_> =
        records(dir.path()).into_iter().map(|record| (record.session_id, record.call_index)).collect();
    assert_eq!(calls, [("long".to_owned(), 1), ("long".to_owned(), 2), ("short".to_owned(), 1)]);
}

#[test]
fn calls_with_an_empty_request_are_left_out_and_said() {
    let mut sessions = sourced(vec![session("s", 3)]);
    sessions[0].session.calls[0].prefix.clear();
    let plan = plan(fixture::settings(), &["cold"], &sessions);
    assert_eq!((plan.sessions[0].call_indices.as_slice(), plan.sessions[0].calls_empty), (&[1, 2][..], 1));
    assert!(plan.notes.iter().any(|note| note.contains("1 calls have an empty request")), "{:?}", plan.notes);
    let dir = tempfile::tempdir().unwrap();
    run(&plan, &sessions, &mut MockBackend::default(), dir.path(), None).unwrap();
    let calls: Vec<_> = records(dir.path()).into_iter().map(|r| (r.call_index, r.order_index)).collect();
    assert_eq!(calls, [(1, 0), (2, 1)]);
}

#[test]
fn a_full_disk_is_a_clear_error() {
    let sessions = sourced(vec![session("s", 1)]);
    let plan = plan(fixture::settings(), &["cold"], &sessions);
    let dir = tempfile::tempdir().unwrap();
    if !std::path::Path::new("/dev/full").exists() {
        println!("skipped: this system has no /dev/full");
        return;
    }
    std::os::unix::fs::symlink("/dev/full", dir.path().join("calls.jsonl")).unwrap();
    fs::write(dir.path().join("run.json"), "{}").unwrap();
    let run_dir = RunDir::open(dir.path()).unwrap();
    // Reading /dev/full never ends, so what is recorded is given.
    let error =
        fixture::run_around(&plan, &sessions, &mut MockBackend::default(), run_dir, Around::default());
    let error = error.unwrap_err();
    assert!(matches!(error, ReplayError::Report(_)), "{error}");
    assert!(error.to_string().contains("calls.jsonl") && error.to_string().contains("free space"), "{error}");
}

/// A GPU that draws 100 W and 0.25 J between any two samples.
struct Gpu(f64);

impl Source for Gpu {
    fn fill(&mut self, sample: &mut TelemetrySample) {
        self.0 += 0.25;
        sample.power_w = Some(100.0);
        sample.energy_j = Some(self.0);
        sample.device_bytes = Some(1 << 30);
        sample.host_rss_bytes = Some(1 << 20);
    }
}

#[test]
fn calls_are_charged_the_gpu_that_ran_them_and_no_other() {
    for (device, charged) in [(Device::Cuda(0), true), (Device::Cpu, false)] {
        let sessions = sourced(vec![session("s", 2)]);
        let plan = plan(fixture::settings(), &["cold"], &sessions);
        let dir = tempfile::tempdir().unwrap();
        let mut backend = MockBackend::scripted(Script { device, ..Script::default() });
        let sources = Sources { at_once: vec![Box::new(Gpu(0.0))], slow: Vec::new() };
        let around = Around { sources, ..Around::default() };
        let run_dir = RunDir::create(dir.path()).unwrap();
        fixture::run_around(&plan, &sessions, &mut backend, run_dir, around).unwrap();
        for record in records(dir.path()) {
            assert_eq!(record.host_rss_bytes_peak, Some(1 << 20));
            assert_eq!(record.device_bytes_peak.is_some(), charged, "{device:?}");
            assert_eq!(record.energy_j.is_some_and(|energy_j| energy_j > 0.0), charged, "{device:?}");
            assert_eq!(record.energy_method.is_some(), charged);
            assert_eq!(record.energy_gap_ms.is_some(), charged);
        }
        let samples = RunDir::open(dir.path()).unwrap().telemetry().unwrap().rows;
        assert!(samples.len() >= 4 && samples.iter().all(|sample| sample.power_w == Some(100.0)));
    }
}
