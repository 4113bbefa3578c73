//! Calls side by side: one row per session and call, one cell per arm, and the rows a reader must not miss (slower, failed).

use crate::grid::{CallKey, Grid};
use crate::metrics::{self, Formula};
use crate::record::{CacheState, CallRecord};
use crate::stats;
use crate::summary::{BASELINE_ARM, Summary};

/// A call is listed as slower than `cold` from this ratio on; less is within the repeatability of a clock on a busy machine.
pub const SLOWER_RATIO: f64 = 1.02;

/// One call under every arm.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRow {
    /// Which call.
    pub key: CallKey,
    /// One cell per arm, in run order; `None` where the arm did not run it.
    pub cells: Vec<Option<CallCell>>,
}

/// One call under one arm; numbers are means over the repeats that did not fail.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallCell {
    /// TTFT, ms.
    pub ttft_ms: Option<f64>,
    /// Smallest and largest TTFT over the repeats, ms; `None` with a single one.
    pub ttft_ms_range: Option<(f64, f64)>,
    /// End to end, ms.
    pub e2e_ms: Option<f64>,
    /// Raw prompt tokens.
    pub tokens_raw: Option<f64>,
    /// Tokens removed by compression.
    pub tokens_removed: Option<f64>,
    /// Tokens reused.
    pub tokens_prefix_hit: Option<f64>,
    /// Tokens that went through the target.
    pub tokens_prefilled: Option<f64>,
    /// Tokens that went through the drafter.
    pub tokens_scored: Option<f64>,
    /// Cache state, where all repeats agree.
    pub cache_state: Option<CacheState>,
    /// Whether all compared repeats were equal bit for bit.
    pub exact: Option<bool>,
    /// Whether all checked outputs were valid.
    pub valid: Option<bool>,
    /// Repeats that failed.
    pub n_failed: usize,
}

/// A call that an arm made slower than `cold`.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowerCall {
    /// Arm name.
    pub arm: String,
    /// Which call.
    pub key: CallKey,
    /// TTFT under `cold`, ms.
    pub cold_ms: f64,
    /// TTFT under the arm, ms.
    pub arm_ms: f64,
    /// `arm_ms / cold_ms`.
    pub ratio: f64,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Arm name.
    pub arm: String,
    /// Repeat, from 0.
    pub repeat: u32,
    /// Which call.
    pub key: CallKey,
    /// Kind of the error.
    pub kind: String,
    /// What happened and what to do next.
    pub message: String,
}

pub(super) fn rows(grid: &Grid) -> Vec<CallRow> {
    let row = |(call_idx, key): (usize, &CallKey)| CallRow {
        key: key.clone(),
        cells: (0..grid.arms().len()).map(|arm_idx| cell(grid, arm_idx, call_idx)).collect(),
    };
    grid.calls().iter().enumerate().map(row).collect()
}

fn cell(grid: &Grid, arm_idx: usize, call_idx: usize) -> Option<CallCell> {
    let records: Vec<&CallRecord> = grid.repeats(arm_idx, call_idx).map(|(_, record)| record).collect();
    let first = records.first()?;
    let mean = |metric: Formula| grid.mean(arm_idx, call_idx, metric);
    let ttft = grid.values(arm_idx, call_idx, metrics::ttft_ms);
    let all = |flag: fn(&CallRecord) -> Option<bool>| {
        let known: Vec<bool> = records.iter().filter_map(|r| flag(r)).collect();
        (!known.is_empty()).then(|| known.iter().all(|&ok| ok))
    };
    Some(CallCell {
        ttft_ms: mean(metrics::ttft_ms),
        ttft_ms_range: (ttft.len() > 1)
            .then(|| Some((stats::percentile(&ttft, 0.0)?, stats::maximum(&ttft)?)))
            .flatten(),
        e2e_ms: mean(metrics::e2e_ms),
        tokens_raw: mean(metrics::tokens_raw),
        tokens_removed: mean(metrics::tokens_removed),
        tokens_prefix_hit: mean(metrics::tokens_prefix_hit),
        tokens_prefilled: mean(metrics::tokens_prefilled),
        tokens_scored: mean(metrics::tokens_scored),
        cache_state: first.cache_state.filter(|_| records.iter().all(|r| r.cache_state == first.cache_state)),
        exact: all(|r| r.exact),
        valid: all(|r| r.structure.as_ref().map(|s| s.valid)),
        n_failed: records.iter().filter(|r| r.error.is_some()).count(),
    })
}

/// Calls slower than under `cold` by more than [`SLOWER_RATIO`], worst first.
pub(super) fn slower(summary: &Summary, rows: &[CallRow]) -> Vec<SlowerCall> {
    let Some(cold_idx) = summary.arms.iter().position(|a| a.arm == BASELINE_ARM) else { return Vec::new() };
    let mut slower = Vec::new();
    for row in rows {
        let ttft = |arm_idx: usize| row.cells.get(arm_idx)?.as_ref()?.ttft_ms.filter(|&ms| ms > 0.0);
        let Some(cold_ms) = ttft(cold_idx) else { continue };
        for (arm_idx, arm) in summary.arms.iter().enumerate().filter(|(i, _)| *i != cold_idx) {
            let Some(arm_ms) = ttft(arm_idx).filter(|&ms| ms > SLOWER_RATIO * cold_ms) else { continue };
            let key = row.key.clone();
            slower.push(SlowerCall { arm: arm.arm.clone(), key, cold_ms, arm_ms, ratio: arm_ms / cold_ms });
        }
    }
    slower.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    slower
}

pub(super) fn failures(grid: &Grid) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (arm_idx, arm) in grid.arms().iter().enumerate() {
        for (call_idx, key) in grid.calls().iter().enumerate() {
            for (repeat, record) in grid.repeats(arm_idx, call_idx) {
                let Some(error) = &record.error else { continue };
                failures.push(Failure {
                    arm: arm.clone(),
                    repeat,
                    key: key.clone(),
                    kind: error.kind.clone(),
                    message: error.message.clone(),
                });
            }
        }
    }
    failures
}
