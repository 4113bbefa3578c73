//! `reprise report`: the pages of runs, written again from their records.

use std::path::PathBuf;

use clap::Args;
use reports::store::RunDir;

use crate::cli::{Outcome, output};
use crate::error::ReplayError;

/// Arguments of `reprise report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Run directories, of this or an older version
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
}

/// Writes each run's report and prints its table.
///
/// # Errors
/// A run cannot be read or its pages cannot be written; the runs before it are done.
pub fn report(args: &ReportArgs) -> Result<Outcome, ReplayError> {
    for path in &args.runs {
        write(&RunDir::open(path)?)?;
    }
    Ok(Outcome::Pass)
}

/// Writes the report of one run, prints its table to stdout and where the pages are to stderr.
///
/// # Errors
/// As [`report`].
pub fn write(run: &RunDir) -> Result<(), ReplayError> {
    let written = reports::write_all(run)?;
    output::text(&reports::render::terminal::render(&written.report, output::color()))?;
    for warning in &written.report.warnings {
        eprintln!("warning: {warning}");
    }
    eprintln!("report: {}", run.file("report.html").display());
    Ok(())
}
