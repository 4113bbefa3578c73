//! `reprise doctor`: what this machine offers, and what a missing part costs.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use sysinfo::Disks;

use crate::cli::table::{Align, Table};
use crate::cli::{Outcome, output, size};
use crate::error::ReplayError;
use crate::{machine, telemetry};

/// Arguments of `reprise doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Whether a part is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Present,
    Absent,
}

/// One part of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Part {
    name: &'static str,
    state: State,
    detail: String,
    /// What its absence costs; empty where it is present.
    cost: &'static str,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
struct Diagnosis {
    program_version: &'static str,
    git_commit: Option<&'static str>,
    machine: BTreeMap<String, Value>,
    gpu: BTreeMap<String, Value>,
    parts: Vec<Part>,
}

/// Looks around and prints.
///
/// # Errors
/// Stdout refuses.
pub fn doctor(args: &DoctorArgs) -> Result<Outcome, ReplayError> {
    let diagnosis = diagnose();
    if args.json {
        output::json(&diagnosis)?
    } else {
        output::text(&to_text(&diagnosis))?
    }
    Ok(Outcome::Pass)
}

fn diagnose() -> Diagnosis {
    let opened = telemetry::open(0);
    let parts = vec![
        part(
            "host telemetry",
            opened.absent.get("host").cloned().map_or(Ok("resident set, CPU use".to_owned()), Err),
            "records lack host_rss_bytes_peak, telemetry.csv lacks the host's columns",
        ),
        part(
            "NVIDIA driver (NVML)",
            match opened.absent.get("nvml") {
                None => {
                    Ok(opened.gpu_facts.get("name").and_then(Value::as_str).unwrap_or("a board").to_owned())
                }
                Some(reason) => Err(reason.clone()),
            },
            "no power, energy, utilisation or device memory in telemetry.csv; nothing else",
        ),
        part(
            "CUDA backend",
            Err("not part of this build".to_owned()),
            "models run on the CPU: true token counts and cache behaviour, times of this CPU and not of a GPU",
        ),
        disk(),
    ];
    Diagnosis {
        program_version: machine::VERSION,
        git_commit: machine::GIT_COMMIT,
        machine: machine::facts(),
        gpu: opened.gpu_facts,
        parts,
    }
}

fn part(name: &'static str, found: Result<String, String>, cost: &'static str) -> Part {
    match found {
        Ok(detail) => Part { name, state: State::Present, detail, cost: "" },
        Err(detail) => Part { name, state: State::Absent, detail, cost },
    }
}

/// Free space where runs go by default.
fn disk() -> Part {
    let here = std::env::current_dir().and_then(std::fs::canonicalize).unwrap_or_default();
    let disks = Disks::new_with_refreshed_list();
    let holds = |disk: &&sysinfo::Disk| here.starts_with(disk.mount_point());
    let found = disks.iter().filter(holds).max_by_key(|disk| disk.mount_point().as_os_str().len());
    let detail = found.map(|disk| {
        let (free, total) = (disk.available_space(), disk.total_space());
        format!("{} free of {} at {}", size::show(free), size::show(total), disk.mount_point().display())
    });
    part(
        "disk for runs",
        detail.ok_or_else(|| format!("no mounted disk holds {}", here.display())),
        "free space is unknown; a full disk ends a run, with what was measured kept",
    )
}

fn to_text(diagnosis: &Diagnosis) -> String {
    let mut machine = Table::new(&[("machine", Align::Left), ("", Align::Left)]);
    for (key, value) in diagnosis.machine.iter().chain(&diagnosis.gpu) {
        let shown = match value {
            Value::String(text) => text.clone(),
            value if key.ends_with("_bytes") => value.as_u64().map(size::show).unwrap_or_default(),
            value => value.to_string(),
        };
        machine.row([key.replace('_', " "), shown]);
    }
    let mut parts = Table::new(&[("part", Align::Left), ("", Align::Left), ("detail", Align::Left)]);
    for part in &diagnosis.parts {
        let state = if part.state == State::Present { "yes" } else { "no" };
        parts.row([part.name.to_owned(), state.to_owned(), part.detail.clone()]);
        if part.state == State::Absent {
            parts.row([String::new(), String::new(), format!("costs you: {}", part.cost)]);
        }
    }
    format!("reprise {}\n\n{}\n{}", diagnosis.program_version, machine.render(), parts.render())
}
