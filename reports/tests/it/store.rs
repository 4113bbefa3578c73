//! The run directory: what is written is read back, and what is damaged is survived and named.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use reports::ReportError;
use reports::record::{CacheState, CallRecord, RunManifest, TelemetrySample};
use reports::store::{CALLS_FILE, MANIFEST_FILE, RunDir, TELEMETRY_FILE};

use crate::demo::Demo;

fn new_run(folder: &Path) -> RunDir {
    let run = RunDir::create(folder.join("run")).unwrap();
    run.write_manifest(&RunManifest { run_id: "r".into(), ..RunManifest::default() }).unwrap();
    run
}

fn record(call_index: u32) -> CallRecord {
    CallRecord {
        arm: "cold".into(),
        session_id: "s".into(),
        call_index,
        ttft_ms: Some(0.1 + 0.2),
        ..CallRecord::default()
    }
}

#[test]
fn records_samples_and_manifest_come_back_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo { repeats: 2, spread: 0.3, ..Demo::four_arms() };
    let run = RunDir::create(folder.path().join("deep/run")).unwrap();
    let (manifest, records) = (demo.manifest(), demo.records());
    let samples = demo.telemetry(&records);
    run.write_manifest(&manifest).unwrap();
    let mut writer = run.calls_writer().unwrap();
    for record in &records {
        writer.append(record).unwrap();
    }
    writer.sync().unwrap();
    for part in samples.chunks(7) {
        run.telemetry_writer().unwrap().append(part).unwrap();
    }
    let run = RunDir::open(run.path()).unwrap();
    assert_eq!(run.manifest().unwrap(), manifest);
    let calls = run.calls().unwrap();
    assert_eq!((calls.rows, calls.warnings), (records, Vec::new()));
    let telemetry = run.telemetry().unwrap();
    assert_eq!((telemetry.rows, telemetry.warnings), (samples, Vec::new()));
}

#[test]
fn a_folder_with_a_run_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    let error = RunDir::create(run.path()).unwrap_err();
    assert!(matches!(error, ReportError::Occupied { found: MANIFEST_FILE, .. }));
    assert!(error.to_string().contains("--resume"), "{error}");
}

#[test]
fn a_folder_without_manifest_is_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let error = RunDir::open(folder.path()).unwrap_err();
    assert!(matches!(error, ReportError::NotARun { expected: MANIFEST_FILE, .. }), "{error}");
    let missing = RunDir::open(folder.path().join("nowhere")).unwrap_err();
    assert!(missing.to_string().ends_with("check the path"), "{missing}");
}

#[test]
fn a_broken_manifest_names_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    fs::write(run.file(MANIFEST_FILE), "{\n \"run_id\": 5}").unwrap();
    let error = run.manifest().unwrap_err().to_string();
    assert!(error.contains("run.json") && error.contains("line 2"), "{error}");
}

#[test]
fn a_run_without_calls_reads_as_empty() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    assert!(run.calls().unwrap().rows.is_empty());
    assert!(run.telemetry().unwrap().rows.is_empty());
}

#[test]
fn an_unfinished_last_line_is_dropped_and_then_removed() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    let whole = serde_json::to_string(&record(0)).unwrap();
    fs::write(run.file(CALLS_FILE), format!("{whole}\n{}", &whole[..40])).unwrap();
    let calls = run.calls().unwrap();
    assert_eq!((calls.rows.len(), calls.n_skipped), (1, 0));
    assert_eq!(
        calls.warnings,
        ["calls.jsonl:2: unfinished last line dropped; the run was cut while writing it"]
    );

    run.calls_writer().unwrap().append(&record(1)).unwrap();
    let calls = run.calls().unwrap();
    assert_eq!((calls.rows, calls.warnings), (vec![record(0), record(1)], Vec::new()));
}

#[test]
fn a_last_record_that_lacks_only_its_line_break_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    fs::write(run.file(CALLS_FILE), serde_json::to_string(&record(0)).unwrap()).unwrap();
    assert_eq!(run.calls().unwrap().rows, [record(0)]);
    run.calls_writer().unwrap().append(&record(1)).unwrap();
    assert_eq!(run.calls().unwrap().rows, [record(0), record(1)]);
}

#[test]
fn a_file_that_is_one_cut_line_starts_anew() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    fs::write(run.file(CALLS_FILE), "{\"arm\":").unwrap();
    run.calls_writer().unwrap().append(&record(0)).unwrap();
    assert_eq!(run.calls().unwrap().rows, [record(0)]);
    fs::write(run.file(TELEMETRY_FILE), "time_ms,order").unwrap();
    run.telemetry_writer().unwrap().append(&[TelemetrySample::default()]).unwrap();
    assert_eq!(run.telemetry().unwrap().rows, [TelemetrySample::default()]);
}

#[test]
fn bad_lines_are_named_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    let whole = serde_json::to_string(&record(0)).unwrap();
    let bad = "nonsense\n".repeat(30);
    fs::write(run.file(CALLS_FILE), format!("{whole}\n\n{bad}{whole}\n")).unwrap();
    let calls = run.calls().unwrap();
    assert_eq!((calls.rows.len(), calls.n_skipped), (2, 30));
    assert!(
        calls.warnings[0].starts_with("calls.jsonl:3: bad line skipped: expected"),
        "{}",
        calls.warnings[0]
    );
    assert_eq!(calls.warnings.len(), 21);
    assert_eq!(calls.warnings[20], "calls.jsonl: 30 bad lines skipped in all");
}

#[test]
fn a_later_schema_reads_with_what_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    let line = r#"{"schema_version":9,"arm":"a","session_id":"s","call_index":3,"ttft_ms":12.5,"cache_state":"remote",
        "spans_ms":{"prefill":10,"teleport":1},"fidelity":null,"request_codes":null,"structure":{"valid":true},"novel":{"x":[]}}"#;
    fs::write(run.file(CALLS_FILE), line.replace('\n', " ") + "\n").unwrap();
    let calls = run.calls().unwrap();
    let record = &calls.rows[0];
    assert_eq!((record.ttft_ms, record.spans_ms.prefill, record.tokens_raw), (Some(12.5), Some(10.0), None));
    assert_eq!(record.cache_state, None);
    assert!(record.structure.as_ref().unwrap().valid);
    assert!(calls.warnings[0].contains("schema version 9"), "{:?}", calls.warnings);
}

#[test]
fn known_cache_states_are_kept() {
    let record: CallRecord = serde_json::from_str(r#"{"cache_state":"miss"}"#).unwrap();
    assert_eq!(record.cache_state, Some(CacheState::Miss));
    let record: CallRecord = serde_json::from_str(r#"{"cache_state":null}"#).unwrap();
    assert_eq!(record.cache_state, None);
}

#[test]
fn telemetry_with_missing_columns_and_bad_rows_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    fs::write(
        run.file(TELEMETRY_FILE),
        "time_ms,power_w,novel\n100,25.5,x\n200,,y\nabc,1,\n\"300,2,\n400,3,\n",
    )
    .unwrap();
    let telemetry = run.telemetry().unwrap();
    let rows: Vec<_> = telemetry.rows.iter().map(|s| (s.time_ms, s.power_w, s.gpu_util)).collect();
    assert_eq!(rows, [(100.0, Some(25.5), None), (200.0, None, None), (400.0, Some(3.0), None)]);
    assert_eq!(telemetry.warnings, ["telemetry.csv: 2 bad rows skipped"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_what_was_written_stays() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    std::os::unix::fs::symlink("/dev/full", run.file(CALLS_FILE)).unwrap();
    let error = run.calls_writer().unwrap().append(&record(0)).unwrap_err().to_string();
    assert!(error.contains("calls.jsonl: cannot append a record") && error.contains("free space"), "{error}");
    assert_eq!(run.manifest().unwrap().run_id, "r");
}

#[test]
fn replacing_a_file_that_cannot_be_replaced_keeps_the_folder_clean() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(folder.path());
    fs::create_dir_all(run.file("summary.json/inside")).unwrap();
    let error = run.write_file("summary.json", b"{}").unwrap_err();
    assert!(matches!(error, ReportError::Io { action: "write", .. }), "{error}");
    let names: Vec<_> = fs::read_dir(run.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| !n.to_string_lossy().starts_with(".writing")), "{names:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_are_read_without_panic_and_made_into_pages(
        calls in proptest::collection::vec(any::<u8>(), 0..400),
        telemetry in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let run = new_run(folder.path());
        fs::write(run.file(CALLS_FILE), &calls).unwrap();
        fs::write(run.file(TELEMETRY_FILE), &telemetry).unwrap();
        let report = reports::read(&run).unwrap();
        reports::render::html::render(&report, &[]);
        run.calls_writer().unwrap().append(&record(1)).unwrap();
        let after = run.calls().unwrap();
        prop_assert_eq!(after.rows.last(), Some(&record(1)));
    }

    #[test]
    fn records_survive_a_cut_at_any_byte(cut in 0_usize..2_000) {
        let folder = tempfile::tempdir().unwrap();
        let run = new_run(folder.path());
        let lines: Vec<String> = (0..3).map(|i| serde_json::to_string(&record(i)).unwrap() + "\n").collect();
        let text = lines.concat();
        let cut = cut.min(text.len());
        fs::write(run.file(CALLS_FILE), &text[..cut]).unwrap();
        let rows = run.calls().unwrap().rows;
        // A record counts from its closing brace on, with or without its line break.
        let ends = lines.iter().scan(0, |end, line| { *end += line.len(); Some(*end) });
        let whole = ends.filter(|end| cut + 1 >= *end).count();
        prop_assert_eq!(rows, (0..whole as u32).map(record).collect::<Vec<_>>());
        prop_assert!(run.calls().unwrap().n_skipped == 0);
    }
}
