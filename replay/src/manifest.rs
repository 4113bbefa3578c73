//! `run.json`: everything that names a run, gathered from the plan, the backend and the machine. Measures nothing.

use std::collections::BTreeMap;

use reports::record::{RunManifest, SCHEMA_VERSION, SessionRef};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::backend::{Device, Identity};
use crate::clock;
use crate::error::ReplayError;
use crate::machine;
use crate::plan::{Plan, PlannedSession};

/// What a manifest takes from outside of plan and backend.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Command line as typed.
    pub command: Vec<String>,
    /// Facts of the GPU, where a driver answers.
    pub gpu_facts: BTreeMap<String, Value>,
    /// Why a source of telemetry is absent.
    pub telemetry_absent: BTreeMap<String, String>,
}

/// An id for a run that begins now: its time in UTC and six hex digits.
pub fn new_run_id() -> String {
    let time: String = clock::now_rfc3339().chars().filter(|c| !"-:".contains(*c)).collect();
    let entropy = format!("{} {}", clock::now_nanos(), std::process::id());
    let digest = blake3::hash(entropy.as_bytes()).to_hex();
    format!("{time}-{}", &digest.as_str()[..6])
}

/// The manifest of a run that begins now.
///
/// # Errors
/// A setting is no JSON.
pub fn begin(
    run_id: &str,
    plan: &Plan,
    identity: &Identity,
    surroundings: Surroundings,
) -> Result<RunManifest, ReplayError> {
    let mut device = identity.device_facts.clone();
    let mut telemetry_absent = surroundings.telemetry_absent;
    if !surroundings.gpu_facts.is_empty() {
        // Seen by telemetry whether or not the models ran on it.
        device.insert("gpu".to_owned(), Value::Object(surroundings.gpu_facts.into_iter().collect()));
        if identity.device == Device::Cpu {
            let reason =
                "the models ran on the CPU: samples of the GPU are kept, calls are charged nothing of it";
            telemetry_absent.insert("gpu_per_call".to_owned(), reason.to_owned());
        }
    }
    Ok(RunManifest {
        schema_version: SCHEMA_VERSION,
        run_id: run_id.to_owned(),
        started_at: clock::now_rfc3339(),
        finished_at: None,
        program_version: machine::VERSION.to_owned(),
        git_commit: machine::GIT_COMMIT.map(str::to_owned),
        command: surroundings.command,
        config: object(&plan.settings)?,
        arms: plan.arms.iter().map(object).collect::<Result<_, _>>()?,
        sessions: plan.sessions.iter().map(session_ref).collect(),
        models: identity.models.clone(),
        machine: machine::facts(),
        device,
        telemetry: BTreeMap::new(),
        telemetry_absent,
        seed: plan.settings.seed,
        calls_planned: plan.calls_planned(),
    })
}

fn object(value: &impl Serialize) -> Result<Map<String, Value>, ReplayError> {
    match serde_json::to_value(value)? {
        Value::Object(object) => Ok(object),
        other => Ok(Map::from_iter([("value".to_owned(), other)])),
    }
}

fn session_ref(session: &PlannedSession) -> SessionRef {
    SessionRef {
        session_id: session.session_id.clone(),
        source: session.source.clone(),
        digest: session.digest.clone(),
        calls: session.calls.into(),
        calls_replayed: session.call_indices.len() as u64,
        fidelity_level: session.fidelity_level.clone(),
        fidelity_reasons: session.fidelity_reasons.clone(),
    }
}
