//! What calls cost in energy, by arm: all that the board drew, and what of it lies above its power at rest. Only calls that
//! have an energy count; a number that needs every call is missing where one lacks it.

use crate::grid::Grid;
use crate::number::{count, counted, energy, percent};
use crate::record::{CallRecord, EnergyMethod, RunManifest};
use crate::report::{Finding, Tone};
use crate::stats;
use crate::summary::{BASELINE_ARM, Summary};

/// An energy is called loose from this share of its call on that lies in the gap at its ends.
pub const LOOSE_SHARE: f64 = 0.1;

/// Energy of one arm.
#[derive(Clone, Debug, PartialEq)]
pub struct EnergyRow {
    /// Arm name.
    pub arm: String,
    /// Mean of a call, J.
    pub call_j: f64,
    /// Mean of a call above idle, J.
    pub call_net_j: Option<f64>,
    /// One pass over all calls, J.
    pub pass_j: Option<f64>,
    /// One pass above idle, J.
    pub pass_net_j: Option<f64>,
    /// Energy over time of the calls, W.
    pub power_w: Option<f64>,
    /// Raw prompt tokens answered per J.
    pub prompt_tokens_per_j: Option<f64>,
    /// Tokens generated per J.
    pub output_tokens_per_j: Option<f64>,
    /// J saved against `cold` in one pass, per 1,000 prompt tokens that were removed or reused; negative where more was
    /// spent.
    pub saved_j_per_1000_avoided: Option<f64>,
    /// Calls whose energy is a difference of the board's counter.
    pub n_counter: usize,
    /// Calls whose energy is an integral of sampled power.
    pub n_power: usize,
    /// Calls whose energy may be off by more than [`LOOSE_SHARE`] at its ends.
    pub n_loose: usize,
}

/// Mean power of the board at rest, W, as the run measured it.
pub(super) fn idle_power_w(manifest: &RunManifest) -> Option<f64> {
    manifest.telemetry.get("idle_power_w")?.as_f64().filter(|watts| watts.is_finite())
}

/// One row per arm that has any energy.
pub(super) fn rows(manifest: &RunManifest, grid: &Grid, summary: &Summary) -> Vec<EnergyRow> {
    let idle_w = idle_power_w(manifest);
    (0..grid.arms().len()).filter_map(|arm_idx| row(grid, summary, arm_idx, idle_w)).collect()
}

/// A call with its energy, J, and its length, s.
struct Measured<'a> {
    record: &'a CallRecord,
    joules: f64,
    seconds: Option<f64>,
}

fn row(grid: &Grid, summary: &Summary, arm_idx: usize, idle_w: Option<f64>) -> Option<EnergyRow> {
    let measured =
        |record: &'_ CallRecord| record.error.is_none() && record.energy_j.is_some_and(f64::is_finite);
    let calls: Vec<Measured> = grid
        .records(arm_idx)
        .filter(|record| measured(record))
        .filter_map(|record| {
            let seconds = worked_ms(record).filter(|ms| *ms > 0.0).map(|ms| ms / 1e3);
            Some(Measured { record, joules: record.energy_j?, seconds })
        })
        .collect();
    let joules: Vec<f64> = calls.iter().map(|call| call.joules).collect();
    let arm = &summary.arms[arm_idx];
    let net: Option<Vec<f64>> =
        calls.iter().map(|call| Some(call.joules - idle_w? * call.seconds?)).collect();
    let pass_net_j = || Some(arm.energy_j? - idle_w? * grid.sum(arm_idx, worked_ms)? / 1e3);
    let by = |method| calls.iter().filter(|call| call.record.energy_method == Some(method)).count();
    Some(EnergyRow {
        arm: arm.arm.clone(),
        call_j: stats::mean(&joules)?,
        call_net_j: net.and_then(|net| stats::mean(&net)),
        pass_j: arm.energy_j,
        pass_net_j: pass_net_j(),
        power_w: per(&calls, |call| Some((call.joules, call.seconds?))),
        prompt_tokens_per_j: per(&calls, |call| Some((call.record.tokens_raw? as f64, call.joules))),
        output_tokens_per_j: per(&calls, |call| Some((call.record.tokens_output? as f64, call.joules))),
        saved_j_per_1000_avoided: saved(summary, arm_idx),
        n_counter: by(EnergyMethod::Counter),
        n_power: by(EnergyMethod::Power),
        n_loose: calls.iter().filter(|call| is_loose(call)).count(),
    })
}

/// What the energy of a call is of: all of it but for its wait, in which the energy is that of the backfill, ms.
fn worked_ms(record: &CallRecord) -> Option<f64> {
    Some(record.e2e_ms? - record.spans_ms.blocked.unwrap_or(0.0))
}

/// Sum over sum, over the calls that have both.
fn per(calls: &[Measured], parts: impl Fn(&Measured) -> Option<(f64, f64)>) -> Option<f64> {
    let (mut above, mut below) = (0.0, 0.0);
    for (numerator, denominator) in calls.iter().filter_map(parts) {
        above += numerator;
        below += denominator;
    }
    (below > 0.0).then(|| above / below)
}

fn is_loose(call: &Measured) -> bool {
    match (call.record.energy_gap_ms, call.seconds) {
        (Some(gap_ms), Some(seconds)) => gap_ms > LOOSE_SHARE * seconds * 1e3,
        _ => false,
    }
}

fn saved(summary: &Summary, arm_idx: usize) -> Option<f64> {
    let arm = &summary.arms[arm_idx];
    let avoided = arm.tokens_removed? + arm.tokens_prefix_hit?;
    let saved_j = summary.arm(BASELINE_ARM)?.energy_j? - arm.energy_j?;
    (arm.arm != BASELINE_ARM && avoided > 0.0).then(|| 1000.0 * saved_j / avoided)
}

/// Energy of one pass, of every arm in one sentence.
pub(super) fn finding(rows: &[EnergyRow]) -> Option<Finding> {
    let of_arm = |row: &EnergyRow| {
        let net =
            row.pass_net_j.map(|joules| format!(" ({} above idle)", energy(joules))).unwrap_or_default();
        Some(format!("{} {}{net}", row.arm, energy(row.pass_j?)))
    };
    let arms: Vec<String> = rows.iter().filter_map(of_arm).collect();
    (!arms.is_empty())
        .then(|| Finding { tone: Tone::Neutral, text: format!("Energy of one pass: {}.", arms.join(", ")) })
}

/// What limits the energies.
pub(super) fn notes(manifest: &RunManifest, rows: &[EnergyRow]) -> Vec<String> {
    let mut notes = Vec::new();
    if rows.is_empty() {
        return notes;
    }
    match idle_power_w(manifest) {
        Some(watts) => notes.push(format!(
            "Energy is all that the board drew during a call. Above idle leaves out the {} W that it drew at rest, models \
             loaded, before the first call.",
            count(watts)
        )),
        None => notes.push(
            "Energy is all that the board drew during a call; its power at rest was not measured, so nothing is said about \
             what lies above it."
                .to_string(),
        ),
    }
    let n_loose: usize = rows.iter().map(|row| row.n_loose).sum();
    let n_calls: usize = rows.iter().map(|row| row.n_counter + row.n_power).sum();
    if n_loose > 0 {
        notes.push(format!(
            "The energy of {} of {} may be off by more than {} of the call: it is short against the steps in which the \
             board counts.",
            count(n_loose as f64),
            counted(n_calls as u64, "call"),
            percent(LOOSE_SHARE)
        ));
    }
    notes
}
