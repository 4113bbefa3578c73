//! `reprise doctor`: what this machine offers, and what a missing part costs.

use std::collections::BTreeMap;

use clap::Args;
use engine::device::{Cuda, CudaOptions, DeviceInfo, cublaslt_version, detect};
use engine::engine::Engine;
use engine::model_source::{ModelSource, SampleModel};
use engine::peak::Peak;
use engine::request::{ArmSettings, CachePolicy, EngineOptions, Request, Residency, Verify};
use engine::sample::Sampling;
use serde::Serialize;
use serde_json::Value;
use sysinfo::Disks;
use transcripts::message::{Message, Role};

use crate::backend::BackendError;
use crate::cli::table::{Align, Table};
use crate::cli::{Outcome, output, size};
use crate::error::ReplayError;
use crate::telemetry::nvml::Which;
use crate::telemetry::{self, Opened};
use crate::{machine, settings};

/// The part without which nothing runs.
const ENGINE: &str = "engine";
/// KV budget of the self test.
const SELF_TEST_KV_BYTES: u64 = 16 << 20;

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
    /// What its absence costs; `None` where it is present.
    cost: Option<&'static str>,
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

/// Looks around and prints. Fails only where the engine does not work.
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
    let works = diagnosis.parts.iter().all(|part| part.name != ENGINE || part.state == State::Present);
    Ok(if works { Outcome::Pass } else { Outcome::Failed })
}

fn diagnose() -> Diagnosis {
    let opened = telemetry::open(&Which::Index(0));
    let parts = vec![
        part(
            ENGINE,
            self_test().map_err(|error| error.to_string()),
            "nothing can be replayed; report this with the output of `reprise doctor --json`",
        ),
        part(
            "sample models",
            sample_pair().map_err(|error| error.to_string()),
            "a run needs --model and --drafter; report this with the output of `reprise doctor --json`",
        ),
        part(
            "host telemetry",
            opened.absent.get("host").cloned().map_or(Ok("resident set, CPU use".to_owned()), Err),
            "records lack host_rss_bytes_peak, telemetry.csv lacks the host's columns",
        ),
        part(
            "NVIDIA driver (NVML)",
            board(&opened),
            "no power, energy, utilisation or device memory in telemetry.csv; nothing else",
        ),
        cuda(),
        cublaslt(),
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

/// The pair that comes with the program.
fn sample_pair() -> Result<String, BackendError> {
    let describe = |source: ModelSource| -> Result<String, BackendError> {
        let model = source.open()?.describe();
        let digest = model.digest.get(..8).unwrap_or_default();
        Ok(format!("{} ({:.1} M parameters, {digest})", model.name, model.parameters as f64 / 1e6))
    };
    let target = describe(ModelSource::Sample(SampleModel::Target))?;
    let drafter = describe(ModelSource::Sample(SampleModel::Drafter))?;
    Ok(format!("{target} answers, {drafter} scores; both are part of the program"))
}

/// Answers the same call twice on the default model: the second one must reuse the first one's prefix and give the same
/// logits bit for bit.
fn self_test() -> Result<String, BackendError> {
    let target = ModelSource::parse(settings::MODEL)?;
    let options = EngineOptions { kv_budget_bytes: SELF_TEST_KV_BYTES, ..EngineOptions::new(target) };
    let mut engine = Engine::open(options)?;
    let cache_only =
        ArmSettings { cache: CachePolicy::On, compression: None, residency: Residency::Resident };
    engine.start(cache_only)?;
    let history = Message::text(Role::User, "What does this machine offer? ".repeat(40));
    let question = Message::text(Role::User, "And what does a missing part cost?");
    let request = Request {
        messages: &[&history, &question],
        tools: &[],
        max_new_tokens: 1,
        sampling: Sampling::Greedy,
        verify: Verify::Bitwise,
    };
    engine.generate(&request)?;
    let again = engine.generate(&request)?;
    let cpu = engine.device().cpu();
    match (again.tokens_prefix_hit, again.exact) {
        (1.., Some(true)) => Ok(format!(
            "answers on {} threads with {} ({}); a reused prefix gives the same bits",
            cpu.threads(),
            cpu.isa(),
            speed(&Peak::measure(cpu))
        )),
        (hit, exact) => Err(BackendError {
            kind: "self_test",
            message: format!("expected a prefix hit with equal bits, got {hit} tokens and exact = {exact:?}"),
        }),
    }
}

fn part(name: &'static str, found: Result<String, String>, cost: &'static str) -> Part {
    match found {
        Ok(detail) => Part { name, state: State::Present, detail, cost: None },
        Err(detail) => Part { name, state: State::Absent, detail, cost: Some(cost) },
    }
}

/// The board that telemetry sees, with what it can be asked and what not.
fn board(opened: &Opened) -> Result<String, String> {
    if let Some(reason) = opened.absent.get("nvml") {
        return Err(reason.clone());
    }
    let name = opened.gpu_facts.get("name").and_then(Value::as_str).unwrap_or("a board");
    let offer = opened.gpu_offer.clone().unwrap_or_default();
    let lacks: Vec<String> =
        offer.not_offered.iter().map(|(reading, reason)| format!("{reading} ({reason})")).collect();
    let lacks = if lacks.is_empty() { String::new() } else { format!("; not {}", lacks.join(", ")) };
    Ok(format!("{name} tells {}{lacks}", offer.offered.join(", ")))
}

/// The cards that models can run on.
fn cuda() -> Part {
    let found = detect().map_err(|absence| absence.to_string()).and_then(|devices| {
        let opened = Cuda::open(0, CudaOptions::DEFAULT).map_err(|error| error.to_string())?;
        let name = |info: &DeviceInfo| format!("cuda:{} {}", info.ordinal, info.name);
        let names: Vec<String> = devices.iter().map(name).collect();
        Ok(format!("{} ({}); kernels are built in, NVRTC is not needed", names.join(", "), opened.kernels()))
    });
    part(
        "CUDA card",
        found,
        "models run on the CPU: true token counts and cache behaviour, times of this CPU and not of a GPU",
    )
}

/// The library that multiplies matrices in prefill, where it is installed.
fn cublaslt() -> Part {
    part(
        "cuBLASLt",
        cublaslt_version()
            .map(|version| format!("version {version}, multiplies BF16 weights in prefill on a card"))
            .ok_or_else(|| "libcublasLt.so.13 was not found".to_owned()),
        "on a card, prefill of BF16 weights runs on the built-in matrix kernels",
    )
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
            // What the board can be asked stands with its part below.
            Value::Array(_) | Value::Object(_) => continue,
            value if key.ends_with("_bytes") => value.as_u64().map(size::show).unwrap_or_default(),
            value => value.to_string(),
        };
        machine.row([key.replace('_', " "), shown]);
    }
    let mut parts = Table::new(&[("part", Align::Left), ("", Align::Left), ("detail", Align::Left)]);
    for part in &diagnosis.parts {
        let state = if part.state == State::Present { "yes" } else { "no" };
        parts.row([part.name.to_owned(), state.to_owned(), part.detail.clone()]);
        if let Some(cost) = part.cost {
            parts.row([String::new(), String::new(), format!("costs you: {cost}")]);
        }
    }
    format!("reprise {}\n\n{}\n{}", diagnosis.program_version, machine.render(), parts.render())
}

/// Measured peaks in one line.
fn speed(peak: &Peak) -> String {
    let bf16 = peak.bf16_gflops.map(|gflops| format!("{gflops:.0} bf16 and ")).unwrap_or_default();
    format!("measured {bf16}{:.0} f32 GFLOP/s, {:.0} GB/s read", peak.f32_gflops, peak.read_gb_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::gpu::Offer;

    #[test]
    fn a_board_is_described_by_what_it_tells_and_what_it_does_not() {
        let absent = Opened {
            absent: BTreeMap::from([("nvml".to_owned(), "no NVIDIA driver answers: not found".to_owned())]),
            ..Opened::default()
        };
        assert_eq!(board(&absent), Err("no NVIDIA driver answers: not found".to_owned()));
        let offer = Offer {
            offered: vec!["energy counter", "SM clock"],
            not_offered: BTreeMap::from([("video clock", "not supported".to_owned())]),
        };
        let facts = BTreeMap::from([("name".to_owned(), Value::from("a board of tests"))]);
        let present = Opened { gpu_facts: facts, gpu_offer: Some(offer), ..Opened::default() };
        assert_eq!(
            board(&present),
            Ok("a board of tests tells energy counter, SM clock; not video clock (not supported)".to_owned())
        );
    }
}
