//! Writes the reports of made runs, to look at: `cargo run -p reports --example demo -- FOLDER`.

use std::path::Path;

use reports::record::{CallRecord, RunManifest, TelemetrySample};
use reports::render::terminal::{self, Color};
use reports::store::RunDir;

#[path = "../tests/it/demo.rs"]
mod demo;
#[path = "../tests/it/gpu_demo.rs"]
mod gpu_demo;

use demo::{ALL_ARMS, Demo};

fn main() -> reports::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "demo-reports".to_string());
    let sessions = vec![("agent-loop", 10), ("parallel-tools", 14), ("compaction", 22)];
    write_made(&folder, "four-arms", &Demo::four_arms())?;
    let on_gpu = gpu_demo::records();
    write(
        &folder,
        "gpu",
        Made { manifest: gpu_demo::manifest(), telemetry: gpu_demo::telemetry(&on_gpu), records: on_gpu },
    )?;
    write_made(
        &folder,
        "one-call",
        &Demo { arms: vec!["cold"], sessions: vec![("short", 1)], ..Demo::four_arms() },
    )?;
    write_made(&folder, "sessions", &Demo { arms: ALL_ARMS.to_vec(), sessions, repeats: 3, spread: 0.15 })?;
    write_made(
        &folder,
        "long",
        &Demo { arms: ALL_ARMS.to_vec(), sessions: vec![("long", 300)], repeats: 1, spread: 0.1 },
    )
}

/// What a made run consists of.
struct Made {
    manifest: RunManifest,
    records: Vec<CallRecord>,
    telemetry: Vec<TelemetrySample>,
}

fn write_made(folder: &str, name: &str, demo: &Demo) -> reports::Result<()> {
    let records = demo.records();
    write(folder, name, Made { manifest: demo.manifest(), telemetry: demo.telemetry(&records), records })
}

fn write(folder: &str, name: &str, made: Made) -> reports::Result<()> {
    let run = RunDir::create(Path::new(folder).join(name))?;
    run.write_manifest(&made.manifest)?;
    let mut writer = run.calls_writer()?;
    for record in &made.records {
        writer.append(record)?;
    }
    run.telemetry_writer()?.append(&made.telemetry)?;
    let written = reports::write_all(&run)?;
    print!("{}", terminal::render(&written.report, Color::Never));
    println!("{}\n", run.file("report.html").display());
    Ok(())
}
