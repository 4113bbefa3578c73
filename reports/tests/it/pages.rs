//! The whole way from a run directory to its files.

use std::fs;

use reports::Report;
use reports::record::{CallRecord, RunManifest, SpansMs};
use reports::render::{html, json, markdown};
use reports::report::Tone;
use reports::store::RunDir;
use serde_json::{Value, json};

use crate::demo::Demo;

fn written_run(demo: &Demo) -> (tempfile::TempDir, RunDir) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let records = demo.records();
    run.write_manifest(&demo.manifest()).unwrap();
    let mut writer = run.calls_writer().unwrap();
    for record in &records {
        writer.append(record).unwrap();
    }
    run.telemetry_writer().unwrap().append(&demo.telemetry(&records)).unwrap();
    (folder, run)
}

#[test]
fn a_run_directory_gets_every_file_and_twice_the_same() {
    let (_folder, run) = written_run(&Demo::four_arms());
    let written = reports::write_all(&run).unwrap();
    let relative: Vec<String> = written
        .files
        .iter()
        .map(|path| path.strip_prefix(run.path()).unwrap().to_string_lossy().into_owned())
        .collect();
    let names = ["ttft_per_call", "ttft_cumulative", "ttft_stages", "tokens_per_call", "telemetry"];
    let mut expected: Vec<String> = ["calls.csv", "summary.json", "summary.md"].map(String::from).to_vec();
    expected.extend(names.map(|name| format!("plots/{name}.svg")));
    expected.push("report.html".into());
    expected.extend(names.map(|name| format!("plots/{name}.png")));
    assert_eq!(relative, expected);
    let read = || written.files.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let first = read();
    assert!(first.iter().all(|bytes| !bytes.is_empty()));
    reports::write_all(&run).unwrap();
    assert_eq!(read(), first, "the same records give the same bytes");
}

#[test]
fn calls_csv_has_a_row_per_record_and_its_numbers() {
    let (_folder, run) = written_run(&Demo::four_arms());
    reports::write_all(&run).unwrap();
    let mut table = csv::Reader::from_path(run.file("calls.csv")).unwrap();
    let header = table.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|h| h == name).unwrap();
    let (ttft, prefill, park) = (column("ttft_ms"), column("prefill_ms"), column("target_park_ms"));
    let records = run.calls().unwrap().rows;
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), records.len());
    for (row, record) in rows.iter().zip(&records) {
        assert_eq!(row[ttft].parse::<f64>().ok(), record.ttft_ms);
        assert_eq!(row[prefill].parse::<f64>().ok(), record.spans_ms.prefill);
        assert_eq!(&row[park], "");
    }
}

#[test]
fn an_empty_run_has_a_page_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    run.write_manifest(&RunManifest { run_id: "empty".into(), ..RunManifest::default() }).unwrap();
    let written = reports::write_all(&run).unwrap();
    assert_eq!(written.files.len(), 4);
    assert!(fs::read_to_string(run.file("report.html")).unwrap().contains("No call is recorded yet."));
    let summary: Value = serde_json::from_slice(&fs::read(run.file("summary.json")).unwrap()).unwrap();
    assert_eq!(
        summary,
        json!({
            "schema_version": 4, "run_id": "empty", "arms": {}, "speedup_vs_cold": {}, "prefix_reuse": {}, "cost_model": null,
            "fidelity": null, "pareto": null
        })
    );
}

#[test]
fn missing_facts_are_null_in_the_summary() {
    let record = CallRecord { arm: "warm".into(), session_id: "s".into(), ..CallRecord::default() };
    let report = Report::new(RunManifest::default(), &[record], Vec::new(), Vec::new());
    let summary: Value = serde_json::from_str(&json::render(&report)).unwrap();
    let arm = summary["arms"]["warm"].as_object().unwrap();
    assert_eq!((&arm["calls"], &arm["failed"]), (&json!(1), &json!(0)));
    assert!(
        arm.iter().filter(|(name, _)| *name != "calls" && *name != "failed").all(|(_, v)| v.is_null()),
        "{arm:?}"
    );
    assert_eq!(
        summary["speedup_vs_cold"]["warm"],
        json!({"ttft": null, "e2e": null, "ci_low": null, "ci_high": null})
    );
    assert!(report.notes.iter().any(|n| n.contains("cold was not run")), "{:?}", report.notes);
}

#[test]
fn findings_name_the_stack_the_anti_stack_and_the_rescoring() {
    let demo = Demo { arms: crate::demo::ALL_ARMS.to_vec(), ..Demo::four_arms() };
    let report = Report::new(demo.manifest(), &demo.records(), Vec::new(), Vec::new());
    let says = |words: &str| report.findings.iter().any(|f| f.text.contains(words));
    assert!(says("The layers stack in cache+compression"), "{:#?}", report.findings);
    assert!(says(
        "warm scored 85,500 tokens in 45 scorings of tool messages; 36 of these scorings, 68,400 tokens, had been done by an earlier call"
    ));
    assert!(says(
        "cache+compression scored 17,100 tokens in 9 scorings of tool messages, none of them twice."
    ));
    assert!(says("bit for bit in 30 of 30 checked calls"));
}

#[test]
fn a_cached_call_that_differs_from_cold_is_said_in_red() {
    let mut records = Demo::four_arms().records();
    let hit = records.iter_mut().find(|r| r.arm == "cache-only" && r.call_index == 4).unwrap();
    hit.exact = Some(false);
    let report = Report::new(Demo::four_arms().manifest(), &records, Vec::new(), Vec::new());
    let finding = report.findings.iter().find(|f| f.text.contains("bit for bit")).unwrap();
    assert_eq!(finding.tone, Tone::Bad);
    assert!(finding.text.contains("19 of 20 checked calls"), "{}", finding.text);
    let page = html::render(&report, &[]);
    assert!(
        page.contains("<td class=\"number bad\">9/10</td>")
            && page.contains("<span class=\"bad\">differs</span>")
    );
}

#[test]
fn an_anti_stack_is_named_with_its_factor() {
    // The ten-call sums that the project started from, as one call: cache 78.6 s, compression 99.9 s, both 109.3 s.
    let at = |arm: &str, ttft_ms, hit, scored| CallRecord {
        arm: arm.into(),
        session_id: "s".into(),
        ttft_ms: Some(ttft_ms),
        tokens_prefix_hit: Some(hit),
        tokens_scored: Some(scored),
        ..CallRecord::default()
    };
    let records = [
        at("cold", 241_700.0, 0, 0),
        at("cache-only", 78_600.0, 9, 0),
        at("warm", 99_900.0, 0, 9),
        at("cache+rescore", 109_300.0, 9, 9),
    ];
    let report = Report::new(RunManifest::default(), &records, Vec::new(), Vec::new());
    let says = |words: &str| report.findings.iter().any(|f| f.text.contains(words));
    assert!(says(
        "cache-only is 3.08x faster than cold to the first token, 78.6 s against 241.7 s summed over 1 call."
    ));
    assert!(
        says("The layers anti-stack in cache+rescore: 1.39x slower than cache-only alone."),
        "{:#?}",
        report.findings
    );
}

#[test]
fn a_short_call_that_compression_slows_down_is_a_row() {
    let at = |arm: &str, call_index, ttft| CallRecord {
        arm: arm.into(),
        session_id: "s".into(),
        call_index,
        ttft_ms: Some(ttft),
        ..CallRecord::default()
    };
    let records =
        [at("cold", 0, 960.0), at("cold", 1, 48_000.0), at("warm", 0, 4_710.0), at("warm", 1, 20_000.0)];
    let report = Report::new(RunManifest::default(), &records, Vec::new(), Vec::new());
    assert_eq!(report.slower.len(), 1);
    let page = html::render(&report, &[]);
    assert!(page.contains("4.71 s") && page.contains("4.91x"));
    assert!(markdown::render(&report).contains("| warm | s | 1 | 960 ms | 4.71 s | 4.91x |"));
}

#[test]
fn text_from_outside_is_escaped_on_every_page() {
    let evil = "<script>alert(1)</script>";
    let mut record = Demo::four_arms().records().remove(0);
    record.arm = evil.into();
    record.session_id = evil.into();
    record.request_codes = vec![evil.into()];
    let mut manifest = Demo::four_arms().manifest();
    manifest.run_id = evil.into();
    manifest.command = vec![evil.into()];
    manifest.models.insert(evil.into(), json!(evil));
    let report = Report::new(manifest, &[record], Vec::new(), vec![evil.into()]);
    let plots: Vec<_> =
        reports::render::plot::plots(&report).into_iter().map(|p| (p, p.svg(&report).unwrap())).collect();
    assert!(plots.len() >= 3);
    assert!(!html::render(&report, &plots).contains("<script"));
    assert!(!markdown::render(&report).contains("<script"));
}

#[test]
fn broken_records_come_before_any_number() {
    let mut records = Demo::four_arms().records();
    records[0].tokens_prefix_hit = Some(5);
    records[1].spans_ms = SpansMs { prefill: Some(1.0), unexplained: Some(0.0), ..SpansMs::default() };
    let report = Report::new(Demo::four_arms().manifest(), &records, Vec::new(), Vec::new());
    assert_eq!(report.violations.len(), 3, "token identity, cold hit, span sum: {:?}", report.violations);
    let page = html::render(&report, &[]);
    let (alarm, table) =
        (page.find("do not quote this run").unwrap(), page.find("What this run says").unwrap());
    assert!(alarm < table);
}

#[test]
fn the_page_needs_no_network() {
    let (_folder, run) = written_run(&Demo::four_arms());
    reports::write_all(&run).unwrap();
    let page = fs::read_to_string(run.file("report.html")).unwrap();
    for link in ["src=", "href=", "url(", "@import"] {
        assert!(!page.contains(link), "{link}");
    }
    // The only address is the name of the SVG vocabulary.
    assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count());
}
