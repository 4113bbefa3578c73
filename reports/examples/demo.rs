//! Writes the reports of made runs, to look at: `cargo run -p reports --example demo -- FOLDER`.

use std::path::Path;

use reports::render::terminal::{self, Color};
use reports::store::RunDir;

#[path = "../tests/it/demo.rs"]
mod demo;

use demo::{ALL_ARMS, Demo};

fn main() -> reports::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "demo-reports".to_string());
    let sessions = vec![("agent-loop", 10), ("parallel-tools", 14), ("compaction", 22)];
    write(&folder, "four-arms", &Demo::four_arms())?;
    write(
        &folder,
        "one-call",
        &Demo { arms: vec!["cold"], sessions: vec![("short", 1)], ..Demo::four_arms() },
    )?;
    write(&folder, "sessions", &Demo { arms: ALL_ARMS.to_vec(), sessions, repeats: 3, spread: 0.15 })?;
    write(
        &folder,
        "long",
        &Demo { arms: ALL_ARMS.to_vec(), sessions: vec![("long", 300)], repeats: 1, spread: 0.1 },
    )
}

fn write(folder: &str, name: &str, demo: &Demo) -> reports::Result<()> {
    let run = RunDir::create(Path::new(folder).join(name))?;
    let records = demo.records();
    run.write_manifest(&demo.manifest())?;
    let mut writer = run.calls_writer()?;
    for record in &records {
        writer.append(record)?;
    }
    run.telemetry_writer()?.append(&demo.telemetry(&records))?;
    let written = reports::write_all(&run)?;
    print!("{}", terminal::render(&written.report, Color::Never));
    println!("{}\n", run.file("report.html").display());
    Ok(())
}
