//! A run that is cut anywhere and continued holds the same records as one that was not.

use std::fs::{self, OpenOptions};
use std::io::Write;

use replay::backend::mock::MockBackend;
use replay::error::ReplayError;
use replay::plan::Plan;
use replay::resume;
use replay::runner::RunEnd;
use replay::sessions::SourcedSession;
use replay::settings::Settings;
use reports::store::RunDir;

use crate::fixture::{self, plan, records, run, session, sourced};

fn planned() -> (Plan, Vec<SourcedSession>) {
    let sessions = sourced(vec![session("a", 3), session("b", 2)]);
    let settings = Settings { repeats: 2, ..fixture::settings() };
    (plan(settings, &["cold", "cache-only", "cache+compression", "latency-only"], &sessions), sessions)
}

#[test]
fn cut_between_any_two_calls_gives_the_same_records() {
    let (plan, sessions) = planned();
    let whole = tempfile::tempdir().unwrap();
    run(&plan, &sessions, &mut MockBackend::default(), whole.path(), None).unwrap();
    let expected = records(whole.path());
    assert_eq!(expected.len() as u64, plan.calls_planned());

    for cut in 0..plan.calls_planned() {
        let dir = tempfile::tempdir().unwrap();
        let end = run(&plan, &sessions, &mut MockBackend::default(), dir.path(), Some(cut)).unwrap();
        assert_eq!(end, RunEnd::Stopped, "cut after {cut}");
        assert_eq!(records(dir.path()).len() as u64, cut);
        let end = run(&plan, &sessions, &mut MockBackend::default(), dir.path(), None).unwrap();
        assert_eq!(end, RunEnd::Complete);
        assert_eq!(records(dir.path()), expected, "cut after {cut}");
    }
}

#[test]
fn passes_that_are_done_are_not_started_and_stateless_calls_not_run_again() {
    let (plan, sessions) = planned();
    let dir = tempfile::tempdir().unwrap();
    run(&plan, &sessions, &mut MockBackend::default(), dir.path(), Some(2)).unwrap();
    let mut backend = MockBackend::default();
    run(&plan, &sessions, &mut backend, dir.path(), None).unwrap();
    assert_eq!(backend.n_calls, plan.calls_planned() - 2, "calls of `cold` were run again");

    let mut backend = MockBackend::default();
    run(&plan, &sessions, &mut backend, dir.path(), None).unwrap();
    assert_eq!(backend.started, [""; 0], "a complete run starts nothing");
}

#[test]
fn an_unfinished_line_is_measured_again() {
    let (plan, sessions) = planned();
    let dir = tempfile::tempdir().unwrap();
    run(&plan, &sessions, &mut MockBackend::default(), dir.path(), Some(7)).unwrap();
    let path = dir.path().join("calls.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let last_line = text.lines().last().unwrap();
    let without = &text[..text.len() - last_line.len() - 1];
    fs::write(&path, without).unwrap();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&last_line.as_bytes()[..last_line.len() / 2]).unwrap();
    drop(file);

    run(&plan, &sessions, &mut MockBackend::default(), dir.path(), None).unwrap();
    let whole = tempfile::tempdir().unwrap();
    run(&plan, &sessions, &mut MockBackend::default(), whole.path(), None).unwrap();
    assert_eq!(records(dir.path()), records(whole.path()));
}

#[test]
fn settings_and_arms_come_back_from_the_manifest() {
    let (plan, sessions) = planned();
    let dir = tempfile::tempdir().unwrap();
    run(&plan, &sessions, &mut MockBackend::default(), dir.path(), Some(1)).unwrap();
    let manifest = RunDir::open(dir.path()).unwrap().manifest().unwrap();
    let (settings, arms) = resume::settings(dir.path(), &manifest).unwrap();
    assert_eq!(settings, plan.settings);
    assert_eq!(arms, plan.arms);
    resume::check(dir.path(), &manifest, &plan, &records(dir.path())).unwrap();
}

#[test]
fn changed_inputs_and_broken_records_are_refused() {
    let (plan, sessions) = planned();
    let dir = tempfile::tempdir().unwrap();
    run(&plan, &sessions, &mut MockBackend::default(), dir.path(), Some(3)).unwrap();
    let run_dir = RunDir::open(dir.path()).unwrap();
    let manifest = run_dir.manifest().unwrap();
    let message = |error: ReplayError| error.to_string();

    let mut changed = plan.clone();
    changed.sessions[1].digest = "0".repeat(64);
    let error = message(resume::check(dir.path(), &manifest, &changed, &[]).unwrap_err());
    assert!(error.contains("session b is not what it was"), "{error}");

    let mut fewer = plan.clone();
    fewer.sessions.pop();
    let error = message(resume::check(dir.path(), &manifest, &fewer, &[]).unwrap_err());
    assert!(error.contains("it has 2 sessions, its paths now hold 1"), "{error}");

    let mut broken = records(dir.path());
    broken.push(broken[0].clone());
    let error = message(resume::check(dir.path(), &manifest, &plan, &broken).unwrap_err());
    assert!(error.contains("recorded twice"), "{error}");

    let mut models = manifest.models.clone();
    models.insert("target".to_owned(), serde_json::json!({ "digest": "other" }));
    let error = message(resume::check_models(dir.path(), &manifest, &models).unwrap_err());
    assert!(error.contains("the target is not what it was"), "{error}");

    let mut older = manifest;
    older.config.remove("model");
    let error = message(resume::settings(dir.path(), &older).unwrap_err());
    assert!(error.contains("another version"), "{error}");
}
