//! Whether power or temperature slowed the board down while calls were in flight: times of such calls are those of a slower
//! board, and arms that it hit differently do not compare.

use std::collections::BTreeMap;

use super::Execution;
use crate::number::{count, percent};
use crate::record::{RunManifest, TelemetrySample};
use crate::report::{Finding, Tone};
use crate::throttle;

/// Samples taken during calls, and those of them in which the board was slowed down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// (samples that know the reasons, samples slowed down) of each arm, in run order.
    pub arms: Vec<(u64, u64)>,
    /// Samples by word of the reason.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// Counts over a run. Of a board that ran none of the calls nothing is counted.
pub(super) fn count_samples(
    manifest: &RunManifest,
    telemetry: &[TelemetrySample],
    executions: &[Execution],
    n_arms: usize,
) -> Throttling {
    let mut throttling = Throttling { arms: vec![(0, 0); n_arms], reasons: BTreeMap::new() };
    if manifest.telemetry_absent.contains_key("gpu_per_call") {
        return throttling;
    }
    let arm_of: BTreeMap<u64, usize> = executions.iter().map(|e| (e.order_index, e.arm_idx)).collect();
    for sample in telemetry {
        let arm_idx = sample.order_index.and_then(|order| arm_of.get(&order).copied());
        let (Some(arm_idx), Some(mask)) = (arm_idx, sample.throttle_mask) else { continue };
        let Some((n_samples, n_slowed)) = throttling.arms.get_mut(arm_idx) else { continue };
        *n_samples += 1;
        *n_slowed += u64::from(throttle::slowed(mask).next().is_some());
        for reason in throttle::slowed(mask) {
            *throttling.reasons.entry(reason.word).or_default() += 1;
        }
    }
    throttling
}

impl Throttling {
    /// The warning, where there is something to warn of.
    pub(super) fn finding<'a>(&self, arm_names: impl Iterator<Item = &'a str>) -> Option<Finding> {
        if self.reasons.is_empty() {
            return None;
        }
        let reasons: Vec<String> =
            self.reasons.iter().map(|(word, n)| format!("{word} {}", count(*n as f64))).collect();
        let share = |(n_samples, n_slowed): (u64, u64)| percent(n_slowed as f64 / n_samples as f64);
        let arms: Vec<String> = arm_names
            .zip(&self.arms)
            .filter(|(_, samples)| samples.0 > 0)
            .map(|(arm, &samples)| format!("{arm} {}", share(samples)))
            .collect();
        let text = format!(
            "Warning: power or temperature slowed the board down during calls (samples: {}); share of each arm's samples: \
             {}. Times taken then are those of a slower board.",
            reasons.join(", "),
            arms.join(", ")
        );
        Some(Finding { tone: Tone::Bad, text })
    }
}
