//! The summary of a run: one row per arm and the speedup over `cold`. `render::json` writes it as `summary.json`.
//!
//! Sums are what one pass over all calls costs: the sum over calls of the mean over repeats, so that runs with different
//! `--repeats` compare. Percentiles are over every measured call of every repeat. Missing is `None`, never 0.

use std::collections::BTreeMap;

use crate::grid::Grid;
use crate::metrics::{self, Formula};
use crate::record::{CallRecord, RunManifest, SCHEMA_VERSION};
use crate::stats::{self, Pair};

/// The arm that every other is compared with.
pub const BASELINE_ARM: &str = "cold";

/// Summary of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Version of the schema it is written with.
    pub schema_version: u32,
    /// Run it belongs to.
    pub run_id: String,
    /// One row per arm, in run order.
    pub arms: Vec<ArmSummary>,
    /// Every arm but `cold` against it, in run order.
    pub speedup_vs_cold: Vec<Speedup>,
}

/// One arm over all of its calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArmSummary {
    /// Arm name.
    pub arm: String,
    /// Calls executed, all repeats together.
    pub calls: u64,
    /// Calls of these that failed.
    pub failed: u64,
    /// TTFT of one pass, ms: calls that failed are left out.
    pub ttft_ms_sum: Option<f64>,
    /// Median TTFT, ms.
    pub ttft_ms_p50: Option<f64>,
    /// 95th percentile of TTFT, ms, by linear interpolation; read [`ArmSummary::ttft_samples`] before quoting it.
    pub ttft_ms_p95: Option<f64>,
    /// Largest TTFT, ms.
    pub ttft_ms_max: Option<f64>,
    /// Calls that have a TTFT.
    pub ttft_samples: u64,
    /// End to end of one pass, ms.
    pub e2e_ms_sum: Option<f64>,
    /// Raw prompt tokens of one pass.
    pub tokens_raw: Option<f64>,
    /// Tokens removed in one pass.
    pub tokens_removed: Option<f64>,
    /// Tokens reused in one pass.
    pub tokens_prefix_hit: Option<f64>,
    /// Tokens that went through the target in one pass.
    pub tokens_prefilled: Option<f64>,
    /// Tokens that went through the drafter in one pass.
    pub tokens_scored: Option<f64>,
    /// Calls whose output was checked.
    pub structure_checked: u64,
    /// Checked outputs without a strict code.
    pub structure_valid: u64,
    /// `structure_valid / structure_checked`; failed calls have no output and count as `failed` instead.
    pub structure_valid_rate: Option<f64>,
    /// Calls whose recorded turn calls a tool, so that the generated one can be compared with it.
    pub agreement_checked: u64,
    /// Compared calls that made the recorded tool calls.
    pub agreement: u64,
    /// `agreement / agreement_checked`.
    pub tool_call_agrees_rate: Option<f64>,
    /// Calls whose cached logits were compared with cold ones.
    pub exact_checked: u64,
    /// Compared calls that were equal bit for bit.
    pub exact: u64,
    /// Energy of one pass, J; `None` unless every call has it.
    pub energy_j: Option<f64>,
}

/// What the draws of an interval are made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalOver {
    /// Whole sessions: speaks about sessions like these.
    Sessions,
    /// Calls of the only session: speaks about this session alone.
    Calls,
}

/// One arm against another over the calls that both measured; each side of a call is its mean over the repeats that both
/// measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Speedup {
    /// Arm judged.
    pub arm: String,
    /// TTFT of the baseline summed over the pairs, over that of the arm; above 1 is faster.
    pub ttft: Option<f64>,
    /// The same for end to end.
    pub e2e: Option<f64>,
    /// The two sums behind `ttft`, ms: baseline, arm.
    pub ttft_ms_sums: Option<(f64, f64)>,
    /// Ends of the 95 % interval of `ttft`.
    pub ttft_interval: Option<(f64, f64)>,
    /// Geometric mean of the pairs' TTFT ratios, by session first: the typical call.
    pub ttft_typical: Option<f64>,
    /// Calls that both arms measured.
    pub n_calls: usize,
    /// What the interval is drawn over.
    pub interval_over: IntervalOver,
    /// Sessions, or calls, that the interval is drawn over.
    pub n_clusters: usize,
}

impl Summary {
    /// Sums up a run.
    pub fn new(manifest: &RunManifest, grid: &Grid) -> Self {
        let arms = (0..grid.arms().len()).map(|arm_idx| arm_summary(grid, arm_idx)).collect();
        let speedup_vs_cold = grid
            .arms()
            .iter()
            .filter(|arm| *arm != BASELINE_ARM)
            .map(|arm| speedup(grid, BASELINE_ARM, arm, manifest.seed))
            .collect();
        Self { schema_version: SCHEMA_VERSION, run_id: manifest.run_id.clone(), arms, speedup_vs_cold }
    }

    /// The row of an arm.
    pub fn arm(&self, name: &str) -> Option<&ArmSummary> {
        self.arms.iter().find(|row| row.arm == name)
    }

    /// The speedup of an arm over `cold`.
    pub fn speedup(&self, arm: &str) -> Option<&Speedup> {
        self.speedup_vs_cold.iter().find(|row| row.arm == arm)
    }
}

fn arm_summary(grid: &Grid, arm_idx: usize) -> ArmSummary {
    let records: Vec<&CallRecord> = grid.records(arm_idx).collect();
    let measured = || records.iter().filter(|r| r.error.is_none());
    let ttft: Vec<f64> = measured().filter_map(|r| r.ttft_ms).collect();
    let verdicts: Vec<bool> = measured().filter_map(|r| Some(r.structure.as_ref()?.valid)).collect();
    let exact: Vec<bool> = measured().filter_map(|r| r.exact).collect();
    let agreement: Vec<bool> = measured().filter_map(|r| r.fidelity.tool_call_agrees).collect();
    let count = |flags: &[bool]| flags.iter().filter(|&&flag| flag).count() as u64;
    let sum = |metric: Formula| grid.sum(arm_idx, metric);
    ArmSummary {
        arm: grid.arms()[arm_idx].clone(),
        calls: records.len() as u64,
        failed: records.iter().filter(|r| r.error.is_some()).count() as u64,
        ttft_ms_sum: sum(metrics::ttft_ms),
        ttft_ms_p50: stats::median(&ttft),
        ttft_ms_p95: stats::percentile(&ttft, 0.95),
        ttft_ms_max: stats::maximum(&ttft),
        ttft_samples: ttft.len() as u64,
        e2e_ms_sum: sum(metrics::e2e_ms),
        tokens_raw: sum(metrics::tokens_raw),
        tokens_removed: sum(metrics::tokens_removed),
        tokens_prefix_hit: sum(metrics::tokens_prefix_hit),
        tokens_prefilled: sum(metrics::tokens_prefilled),
        tokens_scored: sum(metrics::tokens_scored),
        structure_checked: verdicts.len() as u64,
        structure_valid: count(&verdicts),
        structure_valid_rate: metrics::share(count(&verdicts) as f64, verdicts.len() as f64),
        agreement_checked: agreement.len() as u64,
        agreement: count(&agreement),
        tool_call_agrees_rate: metrics::share(count(&agreement) as f64, agreement.len() as f64),
        exact_checked: exact.len() as u64,
        exact: count(&exact),
        energy_j: sum(metrics::energy_j),
    }
}

/// `arm` against `baseline`. All numbers are missing where either was not run.
pub fn speedup(grid: &Grid, baseline: &str, arm: &str, seed: u64) -> Speedup {
    let pairs = pairs(grid, baseline, arm, metrics::ttft_ms);
    let ttft = stats::paired_ratio(&pairs, seed);
    let e2e = stats::paired_ratio(&self::pairs(grid, baseline, arm, metrics::e2e_ms), seed);
    Speedup {
        arm: arm.to_string(),
        ttft: ttft.map(|r| r.of_sums),
        e2e: e2e.map(|r| r.of_sums),
        ttft_ms_sums: ttft.map(|r| r.sums),
        ttft_interval: ttft.and_then(|r| r.of_sums_interval),
        ttft_typical: ttft.map(|r| r.typical),
        n_calls: ttft.map_or(0, |r| r.n_pairs),
        interval_over: interval_over(grid),
        n_clusters: ttft.map_or(0, |r| r.n_clusters),
    }
}

fn interval_over(grid: &Grid) -> IntervalOver {
    let mut sessions = grid.calls().iter().map(|key| key.session_id.as_str());
    let first = sessions.next();
    if sessions.any(|session| Some(session) != first) { IntervalOver::Sessions } else { IntervalOver::Calls }
}

/// One pair per call that both arms measured in at least one common repeat.
fn pairs(grid: &Grid, baseline: &str, arm: &str, metric: Formula) -> Vec<Pair> {
    let (Some(baseline_idx), Some(arm_idx)) = (grid.arm_idx(baseline), grid.arm_idx(arm)) else {
        return Vec::new();
    };
    let over = interval_over(grid);
    let mut clusters: BTreeMap<&str, usize> = BTreeMap::new();
    let mut pairs = Vec::new();
    let value = |record: &CallRecord| if record.error.is_none() { metric(record) } else { None };
    for (call_idx, key) in grid.calls().iter().enumerate() {
        let next = clusters.len();
        let cluster = match over {
            IntervalOver::Sessions => *clusters.entry(key.session_id.as_str()).or_insert(next),
            IntervalOver::Calls => call_idx,
        };
        let candidates: BTreeMap<u32, &CallRecord> = grid.repeats(arm_idx, call_idx).collect();
        let common = grid.repeats(baseline_idx, call_idx).filter_map(|(repeat, record)| {
            Some((value(record)?, candidates.get(&repeat).and_then(|r| value(r))?))
        });
        let (baselines, candidates): (Vec<f64>, Vec<f64>) = common.unzip();
        if let (Some(baseline), Some(candidate)) = (stats::mean(&baselines), stats::mean(&candidates)) {
            pairs.push(Pair { cluster, baseline, candidate });
        }
    }
    pairs
}
