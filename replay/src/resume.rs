//! Continuing a run that was cut: which calls have a record, and whether the inputs are still the same. Reads records
//! and manifests; knows no backend.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use reports::check;
use reports::record::{CallRecord, RunManifest, TelemetrySample};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::arm::Arm;
use crate::error::ReplayError;
use crate::plan::Plan;
use crate::record::Key;
use crate::settings::Settings;

/// The calls that have a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done(BTreeSet<(String, u32, String, u32)>);

impl Done {
    /// The calls of these records.
    pub fn of(records: &[CallRecord]) -> Self {
        let key = |record: &CallRecord| {
            (record.arm.clone(), record.repeat, record.session_id.clone(), record.call_index)
        };
        Self(records.iter().map(key).collect())
    }

    /// Whether a call has its record. A call that failed has one too, and is not tried again.
    pub fn contains(&self, key: &Key<'_>) -> bool {
        self.0.contains(&(key.arm.to_owned(), key.repeat, key.session_id.to_owned(), key.call_index))
    }

    /// Number of calls with a record.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No call has a record.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Settings and arms as `run.json` kept them.
///
/// # Errors
/// The manifest is of a version that kept other settings.
pub fn settings(path: &Path, manifest: &RunManifest) -> Result<(Settings, Vec<Arm>), ReplayError> {
    let settings = parse(path, Value::Object(manifest.config.clone()))?;
    let arms =
        manifest.arms.iter().map(|arm| parse(path, Value::Object(arm.clone()))).collect::<Result<_, _>>()?;
    Ok((settings, arms))
}

fn parse<T: DeserializeOwned>(path: &Path, value: Value) -> Result<T, ReplayError> {
    serde_json::from_value(value).map_err(|error| ReplayError::Resume {
        path: path.to_owned(),
        reason: format!("run.json holds settings of another version ({error}); start a new run"),
    })
}

/// Checks that the sessions on disk are those of the run, and that its records hold.
///
/// # Errors
/// A session changed, or a record breaks an invariant.
pub fn check(
    path: &Path,
    manifest: &RunManifest,
    plan: &Plan,
    records: &[CallRecord],
) -> Result<(), ReplayError> {
    let same_sessions = manifest.sessions.len() == plan.sessions.len();
    let changed = manifest.sessions.iter().zip(&plan.sessions).find(|(old, new)| {
        (&old.session_id, &old.digest, old.calls_replayed)
            != (&new.session_id, &new.digest, new.call_indices.len() as u64)
    });
    let refused = |reason: String| Err(ReplayError::Resume { path: path.to_owned(), reason });
    if let Some((old, _)) = changed {
        return refused(format!(
            "session {} is not what it was when the run began; restore {}, or start a new run",
            old.session_id, old.source
        ));
    }
    if !same_sessions {
        return refused(format!(
            "it has {} sessions, its paths now hold {}; restore them, or start a new run",
            manifest.sessions.len(),
            plan.sessions.len()
        ));
    }
    match check::check_run(records).into_iter().next() {
        Some(violation) => {
            Err(ReplayError::Invalid { path: path.to_owned(), violation: Box::new(violation) })
        }
        None => Ok(()),
    }
}

/// How long the earlier part of a run went on, by its last sample; zero without samples.
pub fn time_before(samples: &[TelemetrySample]) -> Duration {
    let last_ms = samples.last().map_or(0.0, |sample| sample.time_ms);
    Duration::try_from_secs_f64(last_ms / 1e3).unwrap_or(Duration::ZERO)
}

/// Checks that the models are those of the run.
///
/// # Errors
/// A model has another digest.
pub fn check_models(
    path: &Path,
    manifest: &RunManifest,
    models: &BTreeMap<String, Value>,
) -> Result<(), ReplayError> {
    let changed = manifest
        .models
        .iter()
        .find(|(role, model)| models.get(*role).map(|now| &now["digest"]) != Some(&model["digest"]));
    match changed {
        Some((role, _)) => Err(ReplayError::Resume {
            path: path.to_owned(),
            reason: format!(
                "the {role} is not what it was when the run began; restore it, or start a new run"
            ),
        }),
        None => Ok(()),
    }
}
