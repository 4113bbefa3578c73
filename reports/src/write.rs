//! From a run directory to its pages: reads everything once, writes every derived file.

use std::path::PathBuf;

use crate::error::{ReportError, Result};
use crate::record::CallRecord;
use crate::render::{csv, html, json, markdown, plot};
use crate::report::Report;
use crate::store::RunDir;

/// What [`write_all`] made.
#[derive(Debug)]
pub struct Written {
    /// The report behind the files; `render::terminal` prints it.
    pub report: Report,
    /// Files written, in the order of writing.
    pub files: Vec<PathBuf>,
}

/// Reads a run and computes its report, writing nothing.
///
/// # Errors
/// As [`RunDir::manifest`], [`RunDir::calls`] and [`RunDir::telemetry`].
pub fn read(run: &RunDir) -> Result<Report> {
    load(run).map(|(report, _)| report)
}

fn load(run: &RunDir) -> Result<(Report, Vec<CallRecord>)> {
    let manifest = run.manifest()?;
    let calls = run.calls()?;
    let telemetry = run.telemetry()?;
    let warnings = calls.warnings.into_iter().chain(telemetry.warnings).collect();
    Ok((Report::new(manifest, &calls.rows, telemetry.rows, warnings), calls.rows))
}

/// Reads a run and writes `calls.csv`, `summary.json`, `summary.md`, `plots/*.svg`, `report.html` and `plots/*.png`.
///
/// Each file is replaced atomically, the cheap and exact ones first: what fails later loses nothing before it.
///
/// # Errors
/// Those of reading, and of the first file that cannot be written.
pub fn write_all(run: &RunDir) -> Result<Written> {
    let (report, records) = load(run)?;
    let mut files = Vec::new();
    let mut write = |name: &str, bytes: &[u8]| -> Result<()> {
        run.write_file(name, bytes)?;
        files.push(run.file(name));
        Ok(())
    };
    let table =
        csv::render(&records).map_err(|source| ReportError::Csv { path: run.file("calls.csv"), source })?;
    write("calls.csv", &table)?;
    write("summary.json", json::render(&report).as_bytes())?;
    write("summary.md", markdown::render(&report).as_bytes())?;

    let mut drawn = Vec::new();
    for plot in plot::plots(&report) {
        let svg = plot.svg(&report)?;
        write(&format!("plots/{}.svg", plot.name()), svg.as_bytes())?;
        drawn.push((plot, svg));
    }
    write("report.html", html::render(&report, &drawn).as_bytes())?;
    for (plot, _) in &drawn {
        files.push(plot.write_png(&report, run)?);
    }
    Ok(Written { report, files })
}
