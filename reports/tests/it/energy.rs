//! Energy by arm, throttling, and what pages say of both.

use std::collections::BTreeSet;
use std::path::Path;

use reports::Report;
use reports::record::{CallRecord, EnergyMethod, RunManifest, TelemetrySample};
use reports::render::plot::Plot;
use reports::render::terminal::{self, Color};
use reports::render::{html, markdown};
use reports::report::Tone;
use reports::store::{RunDir, TELEMETRY_FILE};
use serde_json::json;

use crate::demo::Demo;
use crate::gpu_demo;
use crate::plots::gpu_report;

fn call(arm: &str, call_index: u32, energy_j: Option<f64>) -> CallRecord {
    CallRecord {
        arm: arm.into(),
        session_id: "s".into(),
        call_index,
        order_index: u64::from(call_index) + if arm == "cold" { 0 } else { 2 },
        tokens_raw: Some(1_000),
        tokens_removed: Some(if arm == "cold" { 0 } else { 300 }),
        tokens_prefix_hit: Some(if arm == "cold" { 0 } else { 200 }),
        tokens_output: Some(10),
        ttft_ms: Some(400.0),
        e2e_ms: Some(500.0),
        energy_j,
        energy_method: energy_j.map(|_| EnergyMethod::Counter),
        energy_gap_ms: energy_j.map(|_| if call_index == 0 { 40.0 } else { 100.0 }),
        ..CallRecord::default()
    }
}

fn idle_at(watts: f64) -> RunManifest {
    let mut manifest = RunManifest::default();
    manifest.telemetry.insert("idle_power_w".into(), json!(watts));
    manifest
}

#[test]
fn energy_by_arm_is_what_the_records_come_to() {
    let records = [
        call("cold", 0, Some(200.0)),
        call("cold", 1, Some(300.0)),
        call("cache-only", 0, Some(50.0)),
        call("cache-only", 1, Some(100.0)),
    ];
    let report = Report::new(idle_at(60.0), &records, Vec::new(), Vec::new());
    let [cold, cached] = &report.energy[..] else { panic!("{:?}", report.energy) };
    assert_eq!((cold.call_j, cold.pass_j, cold.power_w), (250.0, Some(500.0), Some(500.0)));
    // 60 W for half a second a call.
    assert_eq!((cold.call_net_j, cold.pass_net_j), (Some(220.0), Some(440.0)));
    assert_eq!((cold.prompt_tokens_per_j, cold.output_tokens_per_j), (Some(4.0), Some(0.04)));
    assert_eq!(cold.saved_j_per_1000_avoided, None);
    // 500 J - 150 J over 2 x 500 tokens.
    assert_eq!(cached.saved_j_per_1000_avoided, Some(350.0));
    assert_eq!((cached.n_counter, cached.n_power, cached.n_loose), (2, 0, 1));
    let finding = report.findings.iter().find(|f| f.text.starts_with("Energy")).unwrap();
    assert_eq!(
        finding.text,
        "Energy of one pass: cold 500.0 J (440.0 J above idle), cache-only 150.0 J (90.0 J above idle)."
    );
    assert!(report.notes.iter().any(|n| n.contains("leaves out the 60 W")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|n| n.starts_with("The energy of 2 of 4 calls may be off")));
}

#[test]
fn what_is_not_known_of_energy_is_missing_and_said() {
    let records = [call("cold", 0, Some(200.0)), call("cold", 1, None)];
    let report = Report::new(RunManifest::default(), &records, Vec::new(), Vec::new());
    let row = &report.energy[0];
    assert_eq!((row.call_j, row.call_net_j, row.pass_j, row.pass_net_j), (200.0, None, None, None));
    assert!(!report.findings.iter().any(|f| f.text.starts_with("Energy")));
    assert!(report.notes.iter().any(|n| n.contains("its power at rest was not measured")));
    let without = Report::new(RunManifest::default(), &[call("cold", 0, None)], Vec::new(), Vec::new());
    assert!(without.energy.is_empty() && !without.notes.iter().any(|n| n.contains("nergy")));
    assert!(!html::render(&without, &[]).contains("Energy of the board"));
}

fn sample(time_ms: f64, order_index: Option<u64>, throttle_mask: u64) -> TelemetrySample {
    TelemetrySample { time_ms, order_index, throttle_mask: Some(throttle_mask), ..TelemetrySample::default() }
}

#[test]
fn a_board_slowed_down_during_calls_is_a_warning_by_arm() {
    let records = [call("cold", 0, None), call("warm", 0, None)];
    let samples = vec![
        sample(0.0, None, 0x20),
        sample(1.0, Some(0), 0x1),
        sample(2.0, Some(0), 0x24),
        sample(3.0, Some(0), 0x4),
        sample(4.0, Some(0), 0x2),
        sample(5.0, Some(2), 0x0),
    ];
    let report = Report::new(RunManifest::default(), &records, samples.clone(), Vec::new());
    assert_eq!(report.throttling.arms, [(4, 2), (1, 0)]);
    let finding = report.findings.iter().find(|f| f.text.starts_with("Warning")).unwrap();
    assert_eq!(finding.tone, Tone::Bad);
    assert_eq!(
        finding.text,
        "Warning: power or temperature slowed the board down during calls (samples: sw_power_cap 2, sw_thermal 1); share \
         of each arm's samples: cold 50.0 %, warm 0 %. Times taken then are those of a slower board."
    );
    for page in
        [markdown::render(&report), html::render(&report, &[]), terminal::render(&report, Color::Never)]
    {
        assert!(page.contains("slowed the board down"));
    }
    // Idling, and clocks that somebody chose, slow nothing down.
    let fine: Vec<_> =
        samples.iter().map(|s| TelemetrySample { throttle_mask: Some(0x3), ..s.clone() }).collect();
    let report = Report::new(RunManifest::default(), &records, fine, Vec::new());
    assert!(!report.findings.iter().any(|f| f.text.starts_with("Warning")));
}

#[test]
fn a_board_that_ran_no_call_is_not_warned_of() {
    let mut manifest = RunManifest::default();
    manifest.telemetry_absent.insert("gpu_per_call".into(), "the models ran on the CPU".into());
    let report = Report::new(manifest, &[call("cold", 0, None)], vec![sample(0.0, Some(0), 0x4)], Vec::new());
    assert_eq!(report.throttling.arms, [(0, 0)]);
    assert!(!report.findings.iter().any(|f| f.text.starts_with("Warning")));
}

#[test]
fn a_run_on_a_gpu_has_its_tables_and_panels() {
    let report = gpu_report();
    let page = html::render(&report, &[]);
    assert!(page.contains("Energy of the board") && page.contains("saved per 1,000 tokens avoided"));
    assert!(markdown::render(&report).contains("## Energy of the board"));
    let svg = Plot::Telemetry.svg(&report).unwrap();
    for words in [
        "Board power, W",
        "Utilisation, %",
        "Hardware counters (GPM), %",
        "Clocks, MHz",
        "Temperature, °C",
        "Device memory, GiB",
        "PCIe, MB/s",
        "Resident set of the process, GiB",
        "tensor pipes",
        "slowed by power or temperature",
    ] {
        assert!(svg.contains(words), "{words}");
    }
    assert!(svg.contains("white line: a call begins"));
    // Nothing sampled the mean of a second or the video clock: they have neither line nor name.
    assert!(!svg.contains("mean of a second") && !svg.contains("video"));
}

#[test]
fn a_run_without_gpu_has_the_panels_of_the_host_alone() {
    let demo = Demo::four_arms();
    let records = demo.records();
    let report = Report::new(demo.manifest(), &records, demo.telemetry(&records), Vec::new());
    let svg = Plot::Telemetry.svg(&report).unwrap();
    assert!(svg.contains("Resident set of the process, GiB") && svg.contains("CPU of the process, cores"));
    for words in ["Board", "Clocks", "slowed", "PCIe"] {
        assert!(!svg.contains(words), "{words}");
    }
    // Three hundred calls are too many for lines, so none are promised.
    let demo = Demo { sessions: vec![("long", 300)], ..demo };
    let records = demo.records();
    let report = Report::new(demo.manifest(), &records, demo.telemetry(&records), Vec::new());
    assert!(!Plot::Telemetry.svg(&report).unwrap().contains("white line"));
}

#[test]
fn samples_of_a_gpu_come_back_from_the_table_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let samples = gpu_demo::telemetry(&gpu_demo::records());
    run.telemetry_writer().unwrap().append(&samples).unwrap();
    let telemetry = run.telemetry().unwrap();
    assert_eq!((telemetry.rows, telemetry.warnings), (samples, Vec::new()));
}

#[test]
fn an_older_table_goes_on_in_the_columns_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let old = "time_ms,power_w,order_index,novel\n100,25.5,,x\n";
    std::fs::write(run.file(TELEMETRY_FILE), old).unwrap();
    let next = TelemetrySample {
        time_ms: 150.0,
        order_index: Some(3),
        power_w: Some(30.0),
        sm_clock_mhz: Some(1.0),
        ..TelemetrySample::default()
    };
    run.telemetry_writer().unwrap().append(&[next]).unwrap();
    let text = std::fs::read_to_string(run.file(TELEMETRY_FILE)).unwrap();
    assert_eq!(text, format!("{old}150.0,30.0,3,\n"));
    let rows = run.telemetry().unwrap().rows;
    assert_eq!((rows.len(), rows[1].order_index, rows[1].power_w), (2, Some(3), Some(30.0)));
}

/// The columns of a new table.
fn columns() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    run.telemetry_writer().unwrap().append(&[TelemetrySample::default()]).unwrap();
    let text = std::fs::read_to_string(run.file(TELEMETRY_FILE)).unwrap();
    text.lines().next().unwrap().split(',').map(str::to_owned).collect()
}

#[test]
fn every_column_is_documented_and_nothing_else_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/telemetry.md");
    let text = std::fs::read_to_string(path).unwrap();
    let table = text.split("## Columns").nth(1).unwrap().split("\n## ").next().unwrap();
    let documented: Vec<String> = table
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned()))
        .collect();
    assert_eq!(documented, columns(), "docs/telemetry.md lists the columns in their order");
    assert_eq!(documented.iter().collect::<BTreeSet<_>>().len(), documented.len());
}
