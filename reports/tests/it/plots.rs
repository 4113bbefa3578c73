//! Plots of runs of every size: SVG that is one, PNG of the size it says.

use reports::Report;
use reports::record::{CallError, CallRecord, RunManifest, TelemetrySample};
use reports::render::plot::{Plot, plots};
use reports::store::RunDir;

use crate::demo::{ALL_ARMS, Demo};
use crate::{fidelity, gpu_demo};

fn report(demo: &Demo) -> Report {
    let records = demo.records();
    Report::new(demo.manifest(), &records, demo.telemetry(&records), Vec::new())
}

/// The made run of a GPU.
pub fn gpu_report() -> Report {
    let records = gpu_demo::records();
    Report::new(gpu_demo::manifest(), &records, gpu_demo::telemetry(&records), Vec::new())
}

/// Draws every plot of a report both ways and checks the files.
fn check(report: &Report) -> Vec<Plot> {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let drawn = plots(report);
    for plot in &drawn {
        let svg = plot.svg(report).unwrap();
        check_svg(&svg);
        let path = plot.write_png(report, &run).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let (width, height) = svg_size(&svg);
        assert_eq!(png_size(&bytes), (2 * width, 2 * height), "{}", path.display());
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap())
                .unwrap()
                .filter(|f| { f.as_ref().unwrap().file_name().to_string_lossy().starts_with(".writing") })
                .count(),
            0
        );
    }
    drawn
}

/// Tags are balanced, nothing is not a number, every coordinate is inside a sane range.
fn check_svg(svg: &str) {
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{}", &svg[..80.min(svg.len())]);
    for bad in ["NaN", "inf", "-1000000", "=\"1000000"] {
        assert!(!svg.contains(bad), "{bad} in the document");
    }
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    assert!(svg.contains("<text") && (svg.contains("<rect") || svg.contains("<poly")));
}

fn svg_size(svg: &str) -> (u32, u32) {
    let attribute = |name: &str| {
        let start = svg.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
        svg[start..].split('"').next().unwrap().parse().unwrap()
    };
    (attribute("width"), attribute("height"))
}

/// Size from the header chunk, after checking the signature and the end chunk of the file.
fn png_size(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    assert_eq!(&bytes[12..16], b"IHDR");
    assert_eq!(&bytes[bytes.len() - 8..bytes.len() - 4], b"IEND");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn four_arms_and_ten_calls_have_every_plot() {
    let drawn = check(&report(&Demo::four_arms()));
    assert_eq!(drawn, [Plot::TtftPerCall, Plot::TtftCumulative, Plot::Stages, Plot::Tokens, Plot::Telemetry]);
}

#[test]
fn a_run_on_a_gpu() {
    assert!(check(&gpu_report()).contains(&Plot::Telemetry));
}

#[test]
fn a_sweep_over_budgets_has_its_plane() {
    for n_sessions in [1, 3] {
        let report = fidelity::sweep(n_sessions);
        assert!(check(&report).contains(&Plot::Pareto));
        let svg = Plot::Pareto.svg(&report).unwrap();
        assert!(svg.contains("1/22") && svg.contains("head-tail") && svg.contains("TTFT of one pass"));
    }
}

#[test]
fn one_arm_with_one_call() {
    check(&report(&Demo { arms: vec!["cold"], sessions: vec![("s", 1)], repeats: 1, spread: 0.0 }));
}

#[test]
fn six_arms_with_three_hundred_calls() {
    check(&report(&Demo { arms: ALL_ARMS.to_vec(), sessions: vec![("long", 300)], repeats: 1, spread: 0.1 }));
}

#[test]
fn many_sessions_and_repeats() {
    let sessions = vec![("first", 12), ("second-with-a-name-that-is-long", 7), ("third", 1), ("fourth", 30)];
    check(&report(&Demo { arms: ALL_ARMS.to_vec(), sessions, repeats: 3, spread: 0.2 }));
}

#[test]
fn a_run_without_records_has_no_plots() {
    assert_eq!(check(&Report::new(RunManifest::default(), &[], Vec::new(), Vec::new())), []);
}

#[test]
fn failed_calls_leave_gaps_and_crosses() {
    let demo = Demo::four_arms();
    let mut records = demo.records();
    for record in records.iter_mut().filter(|r| r.arm == "cold" && r.call_index > 6) {
        *record = CallRecord {
            arm: record.arm.clone(),
            session_id: record.session_id.clone(),
            call_index: record.call_index,
            error: Some(CallError {
                kind: "out_of_memory".into(),
                message: "use a smaller --kv-budget".into(),
            }),
            ..CallRecord::default()
        };
    }
    let report = Report::new(demo.manifest(), &records, Vec::new(), Vec::new());
    let drawn = check(&report);
    assert!(!drawn.contains(&Plot::Telemetry));
    // Two strokes per cross, three failed calls; no other plot element has this colour.
    let svg = Plot::TtftPerCall.svg(&report).unwrap();
    assert_eq!(svg.matches("#C62828").count(), 6);
}

#[test]
fn arms_with_hostile_names_and_numbers_are_drawn() {
    let record = |arm: &str, call_index, ttft_ms| CallRecord {
        arm: arm.into(),
        call_index,
        ttft_ms: Some(ttft_ms),
        session_id: "<script>&\u{0}\n".repeat(9),
        tokens_prefilled: Some(u64::MAX),
        tokens_removed: Some(i64::MIN),
        ..CallRecord::default()
    };
    let records = [
        record("<b>&\"'", 0, 1e300),
        record("<b>&\"'", u32::MAX, 0.0),
        record("", 0, -5.0),
        record(&"x".repeat(4_000), 3, f64::MIN_POSITIVE),
    ];
    let samples = [0.0, f64::NAN, 1e308, -1.0].map(|time_ms| TelemetrySample {
        time_ms,
        power_w: Some(time_ms),
        host_rss_bytes: Some(u64::MAX),
        ..TelemetrySample::default()
    });
    let report = Report::new(RunManifest::default(), &records, samples.to_vec(), Vec::new());
    for plot in plots(&report) {
        let svg = plot.svg(&report).unwrap();
        assert!(!svg.contains("<b>") && !svg.contains("<script>") && !svg.contains('\u{0}'));
    }
}

#[test]
fn a_session_is_drawn_whatever_its_size() {
    use reports::render::plot::session::{CallShape, OutputShape, SessionShape, svg, write_png};
    let folder = tempfile::tempdir().unwrap();
    let call = |nth: usize| CallShape {
        person_chars: 4_000.0,
        assistant_chars: 150.0 * nth as f64,
        tool_chars: 900.0 * nth as f64,
        gap_ms: (nth > 0).then(|| 700.0 * (nth * nth % 977) as f64),
        break_cause: nth.is_multiple_of(60).then(|| "compaction".to_owned()).filter(|_| nth > 0),
    };
    let output = |nth: usize| OutputShape { chars: (nth * nth * 3) as f64, is_repeat: nth.is_multiple_of(7) };
    for n in [0, 1, 2, 30, 250, 5_000] {
        let shape = SessionShape {
            name: "a <session> & more".to_owned(),
            calls: (0..n).map(call).collect(),
            outputs: (0..n).map(output).collect(),
        };
        let drawn = svg(&shape).unwrap();
        check_svg(&drawn);
        assert_eq!(drawn.contains("compaction"), n > 60);
        assert_eq!(drawn.contains("not recorded"), n < 2, "{n} calls");
        let path = folder.path().join("session.png");
        write_png(&shape, &path).unwrap();
        let (width, height) = svg_size(&drawn);
        assert_eq!(png_size(&std::fs::read(&path).unwrap()), (2 * width, 2 * height));
    }
    let odd = CallShape { tool_chars: f64::NAN, gap_ms: Some(f64::INFINITY), ..CallShape::default() };
    check_svg(&svg(&SessionShape { calls: vec![odd], ..SessionShape::default() }).unwrap());
}
