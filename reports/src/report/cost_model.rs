//! The model of cost fitted to a run: TTFT of every call as a sum over its token counts, what of it the run determines, and
//! how well it predicts each arm.
//!
//! The coefficients per token belong to the two models and the machine, so all arms share them; what a call costs whatever
//! its length is each arm's own. Rows are weighted by 1 / TTFT: times scatter in proportion to their size, and a fit of plain
//! milliseconds would see the longest calls alone.

use std::collections::BTreeMap;

use super::{Part, Rescoring, arm_setup};
use crate::check;
use crate::cost::{Costs, Kept, attention_pairs};
use crate::grid::{CallKey, Grid};
use crate::metrics;
use crate::record::{CallRecord, RunManifest};
use crate::stats::{self, Estimate, LeastSquares, least_squares};
use crate::summary::speedup;

/// A coefficient; what it cannot be told from is named in words.
pub type Coefficient = Estimate<String>;

/// The model of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct CostModel {
    /// Calls behind it, all repeats together.
    pub n_calls: usize,
    /// Coefficients per token, over all arms together.
    pub tokens: TokenCosts,
    /// Share of the variance of TTFT that it explains, over all arms; `None` where all calls take the same time.
    pub r2: Option<f64>,
    /// One row per arm that has calls, in run order.
    pub arms: Vec<ArmCost>,
}

impl CostModel {
    /// What the target alone costs, where the run determines it.
    pub fn target_costs(&self) -> Option<Costs> {
        let (prefill_ms, attention_ms) = (self.tokens.prefill.value()?, self.tokens.attention.value()?);
        Some(Costs { prefill_ms, attention_ms, ..Costs::default() })
    }
}

/// Coefficients that grow with tokens, as in [`Costs`].
#[derive(Clone, Debug, PartialEq)]
pub struct TokenCosts {
    /// Target prefill, ms per token.
    pub prefill: Coefficient,
    /// Target attention, ms per token².
    pub attention: Coefficient,
    /// Drafter, ms per token scored.
    pub score: Coefficient,
}

/// What a call costs whatever its length.
#[derive(Clone, Debug, PartialEq)]
pub struct CallCosts {
    /// Every call, ms.
    pub call: Coefficient,
    /// A call that scores anything, ms more; `None` where all calls of the arm score or none does.
    pub batch: Option<Coefficient>,
}

/// One arm under the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmCost {
    /// Arm name.
    pub arm: String,
    /// Calls behind it, all repeats together.
    pub n_calls: usize,
    /// Its own coefficients beside the shared ones.
    pub fixed: CallCosts,
    /// TTFT of one pass as measured, ms.
    pub measured_ms: f64,
    /// TTFT of one pass as the model says, ms.
    pub predicted_ms: f64,
    /// Share of the variance of the arm's TTFT that the model explains; negative where the mean would do better.
    pub r2: Option<f64>,
    /// Median distance between a call and its prediction, as a share of the call.
    pub miss_ratio_p50: f64,
    /// The call that the model misses by most: its key, measured ms, predicted ms.
    pub miss_max: (CallKey, f64, f64),
    /// The same sum fitted to this arm's calls alone.
    pub alone: AloneFit,
    /// When compression at birth pays; `None` where the arm does not compress.
    pub break_even: Option<BreakEven>,
}

/// A fit of one arm by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct AloneFit {
    /// Coefficients per token.
    pub tokens: TokenCosts,
    /// Coefficients per call.
    pub fixed: CallCosts,
    /// Share of the variance it explains.
    pub r2: Option<f64>,
}

/// When compression of a tool message at its birth pays: as [`Costs::pays_from_tokens`], attention counted where the run
/// determines it.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakEven {
    /// Kept share `c`, median of what the arm's calls realised.
    pub keep_ratio: f64,
    /// Drafter over target, per token: `s/a`.
    pub score_share: f64,
    /// `F`: what a scoring call costs more, ms.
    pub batch_ms: f64,
    /// Where `batch_ms` comes from.
    pub batch_from: BatchFrom,
    /// Tokens that a message comes after: the mean prompt as sent, over the calls that scored, less what was kept of what they
    /// scored.
    pub held_tokens: f64,
    /// Smallest message that pays at this kept share behind these tokens; `None` where no size does.
    pub pays_from_tokens: Option<f64>,
    /// How often the arm scored each message: 1 where it is frozen at birth.
    pub scorings_per_message: f64,
    /// Mean message that was scored for the first time, drafter tokens.
    pub message_tokens_mean: Option<f64>,
    /// Largest kept share that pays for a message of that size; `None` where none does.
    pub keep_ratio_max: Option<f64>,
    /// The arm that differs in compressing nothing, and its TTFT over that of this arm: what all of it came to.
    pub measured: Option<(String, f64)>,
}

/// Source of `F`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFrom {
    /// Fitted to TTFT: twice its standard error or more.
    Fit,
    /// The spans of parking and loading, per scoring call: TTFT alone does not determine it.
    Spans,
}

impl BatchFrom {
    /// The word in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fit => "fitted",
            Self::Spans => "spans",
        }
    }
}

/// What a row of the fit knows of a call.
#[derive(Clone, Copy, Debug)]
struct Sample {
    arm_idx: usize,
    call_idx: usize,
    /// Less what it waited.
    ttft_ms: f64,
    /// Prompt tokens that were there already, and those that were prefilled.
    held: f64,
    new: f64,
    scored: f64,
}

impl Sample {
    /// The facts of a call that was measured and breaks no invariant.
    fn new(arm_idx: usize, call_idx: usize, record: &CallRecord) -> Option<Self> {
        if record.error.is_some() || !check::check_record(record).is_empty() {
            return None;
        }
        // What a call waits for depends on the gap before it, on nothing that the model knows.
        let ttft_ms = record.ttft_ms? - record.spans_ms.blocked.unwrap_or(0.0);
        let ttft_ms = Some(ttft_ms).filter(|&ms| ms.is_finite() && ms > 0.0)?;
        let held = record.tokens_prefix_hit? as f64;
        let new = record.tokens_prefilled? as f64;
        let scored = record.tokens_scored? as f64;
        Some(Self { arm_idx, call_idx, ttft_ms, held, new, scored })
    }
}

/// A fit of some calls, with what it says of each.
struct Fit {
    tokens: TokenCosts,
    /// One per arm asked for.
    fixed: Vec<CallCosts>,
    /// Milliseconds, one per sample.
    predicted: Vec<f64>,
}

/// Fits the calls of these arms.
fn fit(samples: &[Sample], arms: &[(usize, &str)]) -> Option<Fit> {
    let column = |of: &dyn Fn(&Sample) -> f64| -> Vec<f64> { samples.iter().map(of).collect() };
    let of_arm = |arm_idx: usize| move |sample: &Sample| f64::from(u8::from(sample.arm_idx == arm_idx));
    let mut names = vec!["prefilled tokens".to_owned(), "scored tokens".to_owned(), "attention".to_owned()];
    let mut columns = vec![
        column(&|sample| sample.new),
        column(&|sample| sample.scored),
        column(&|sample| attention_pairs(sample.held, sample.new)),
    ];
    for &(arm_idx, arm) in arms {
        names.push(format!("the fixed cost of {arm}"));
        columns.push(column(&of_arm(arm_idx)));
    }
    let mut batch_at = Vec::new();
    for &(arm_idx, arm) in arms {
        let scores = |sample: &Sample| of_arm(arm_idx)(sample) * f64::from(u8::from(sample.scored > 0.0));
        let some = |wanted: f64| samples.iter().any(|s| s.arm_idx == arm_idx && scores(s) == wanted);
        let mixed = some(0.0) && some(1.0);
        batch_at.push(mixed.then_some(columns.len()));
        if mixed {
            names.push(format!("the scoring calls of {arm}"));
            columns.push(column(&scores));
        }
    }
    let weighted = |values: &[f64]| -> Vec<f64> {
        values.iter().zip(samples).map(|(value, sample)| value / sample.ttft_ms).collect()
    };
    let rows: Vec<Vec<f64>> = columns.iter().map(|values| weighted(values)).collect();
    let LeastSquares { estimates, solution } = least_squares(&rows, &vec![1.0; samples.len()])?;
    let named = |position: usize| estimates[position].named(&names);
    let predicted = (0..samples.len())
        .map(|row| columns.iter().zip(&solution).map(|(values, cost)| values[row] * cost).sum())
        .collect();
    let fixed =
        |(i, batch): (usize, Option<usize>)| CallCosts { call: named(3 + i), batch: batch.map(named) };
    Some(Fit {
        tokens: TokenCosts { prefill: named(0), score: named(1), attention: named(2) },
        fixed: batch_at.into_iter().enumerate().map(fixed).collect(),
        predicted,
    })
}

/// Share of the variance explained; `None` where there is none to explain.
fn explained(samples: &[Sample], predicted: &[f64]) -> Option<f64> {
    let measured: Vec<f64> = samples.iter().map(|sample| sample.ttft_ms).collect();
    let center = stats::mean(&measured)?;
    let total: f64 = measured.iter().map(|ms| (ms - center).powi(2)).sum();
    let rest: f64 = measured.iter().zip(predicted).map(|(ms, predicted)| (ms - predicted).powi(2)).sum();
    Some(1.0 - rest / total).filter(|share| total > 0.0 && share.is_finite())
}

/// The model of a run; `None` where no call has its counts and its time.
pub(super) fn model(manifest: &RunManifest, grid: &Grid, rescoring: &[Rescoring]) -> Option<CostModel> {
    let mut samples = Vec::new();
    for arm_idx in 0..grid.arms().len() {
        for call_idx in 0..grid.calls().len() {
            let of_call = grid.repeats(arm_idx, call_idx);
            samples.extend(of_call.filter_map(|(_, record)| Sample::new(arm_idx, call_idx, record)));
        }
    }
    let arms: Vec<(usize, &str)> = grid
        .arms()
        .iter()
        .enumerate()
        .filter(|(arm_idx, _)| samples.iter().any(|sample| sample.arm_idx == *arm_idx))
        .map(|(arm_idx, arm)| (arm_idx, arm.as_str()))
        .collect();
    let Fit { tokens, fixed, predicted } = fit(&samples, &arms)?;
    let row = |(&(arm_idx, arm), fixed): (&(usize, &str), CallCosts)| {
        let own = samples.iter().zip(&predicted).filter(|(sample, _)| sample.arm_idx == arm_idx);
        let (own, predicted): (Vec<Sample>, Vec<f64>) = own.map(|(&sample, &ms)| (sample, ms)).unzip();
        let rescored = rescoring.iter().find(|row| row.arm == arm);
        let break_even = break_even((manifest, grid), arm_idx, &tokens, &fixed, rescored);
        arm_cost(grid, (arm_idx, arm), &own, &predicted, fixed, break_even)
    };
    let rows: Option<Vec<ArmCost>> = arms.iter().zip(fixed).map(row).collect();
    Some(CostModel { n_calls: samples.len(), r2: explained(&samples, &predicted), arms: rows?, tokens })
}

fn arm_cost(
    grid: &Grid,
    (arm_idx, arm): (usize, &str),
    samples: &[Sample],
    predicted: &[f64],
    fixed: CallCosts,
    break_even: Option<BreakEven>,
) -> Option<ArmCost> {
    // A pass is the sum over calls of the mean over repeats, as everywhere.
    let mut by_call: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
    for (sample, &predicted) in samples.iter().zip(predicted) {
        by_call.entry(sample.call_idx).or_default().push((sample.ttft_ms, predicted));
    }
    let pass = |side: fn(&(f64, f64)) -> f64| -> f64 {
        by_call.values().map(|repeats| repeats.iter().map(side).sum::<f64>() / repeats.len() as f64).sum()
    };
    let misses: Vec<f64> =
        samples.iter().zip(predicted).map(|(sample, ms)| (sample.ttft_ms - ms).abs()).collect();
    let ratios: Vec<f64> = misses.iter().zip(samples).map(|(miss, sample)| miss / sample.ttft_ms).collect();
    let worst = (0..misses.len()).max_by(|&a, &b| misses[a].total_cmp(&misses[b]))?;
    let alone = fit(samples, &[(arm_idx, arm)])?;
    Some(ArmCost {
        arm: arm.to_owned(),
        n_calls: samples.len(),
        measured_ms: pass(|pair| pair.0),
        predicted_ms: pass(|pair| pair.1),
        r2: explained(samples, predicted),
        miss_ratio_p50: stats::median(&ratios)?,
        miss_max: (grid.calls()[samples[worst].call_idx].clone(), samples[worst].ttft_ms, predicted[worst]),
        alone: AloneFit {
            r2: explained(samples, &alone.predicted),
            tokens: alone.tokens,
            fixed: alone.fixed.into_iter().next()?,
        },
        fixed,
        break_even,
    })
}

/// The inequality with this run's numbers; `None` for an arm that does not compress, and where a rate is not determined.
fn break_even(
    (manifest, grid): (&RunManifest, &Grid),
    arm_idx: usize,
    tokens: &TokenCosts,
    fixed: &CallCosts,
    rescored: Option<&Rescoring>,
) -> Option<BreakEven> {
    let kept: Vec<f64> = grid.records(arm_idx).filter_map(|record| record.keep_ratio_realised).collect();
    let keep_ratio = stats::median(&kept)?;
    let fitted = fixed.batch.as_ref().and_then(Estimate::told_from_zero);
    let (batch_ms, batch_from) = match fitted {
        Some(ms) => (ms, BatchFrom::Fit),
        None => (reload_ms(grid, arm_idx)?, BatchFrom::Spans),
    };
    let costs = Costs {
        prefill_ms: tokens.prefill.told_from_zero()?,
        attention_ms: tokens.attention.told_from_zero().unwrap_or(0.0),
        score_ms: tokens.score.value()?,
        batch_ms,
        ..Costs::default()
    };
    let held_tokens = held_tokens(grid, arm_idx, keep_ratio)?;
    let row = rescored?;
    let n_first = row.n_events - row.n_events_again;
    let scorings_per_message = metrics::share(row.n_events as f64, n_first as f64)?;
    let message_tokens_mean = metrics::share(row.tokens_scored - row.tokens_again, n_first as f64);
    let arm = &grid.arms()[arm_idx];
    let measured = arm_setup::uncompressed(manifest, arm)
        .and_then(|twin| speedup(grid, &twin, arm, manifest.seed).ttft.map(|ratio| (twin, ratio)));
    Some(BreakEven {
        keep_ratio,
        score_share: costs.score_ms / costs.prefill_ms,
        batch_ms,
        batch_from,
        held_tokens,
        pays_from_tokens: costs.pays_from_tokens(Kept { ratio: keep_ratio, marker_tokens: 0.0 }, held_tokens),
        scorings_per_message,
        message_tokens_mean,
        keep_ratio_max: message_tokens_mean.and_then(|mean| costs.keep_ratio_max(mean, held_tokens)),
        measured,
    })
}

/// Mean tokens before what was scored, over the calls that scored.
fn held_tokens(grid: &Grid, arm_idx: usize, keep_ratio: f64) -> Option<f64> {
    let held = |record: &CallRecord| {
        let scored = record.tokens_scored.filter(|&n| n > 0)? as f64;
        let sent = record.tokens_prefix_hit? as f64 + record.tokens_prefilled? as f64;
        Some((sent - keep_ratio * scored).max(0.0))
    };
    let measured = grid.records(arm_idx).filter(|record| record.error.is_none());
    stats::mean(&measured.filter_map(held).collect::<Vec<f64>>())
}

/// Mean time of moving weights, over the calls that scored.
fn reload_ms(grid: &Grid, arm_idx: usize) -> Option<f64> {
    let scored =
        grid.records(arm_idx).filter(|r| r.error.is_none() && r.tokens_scored.is_some_and(|n| n > 0));
    let moved = |record: &CallRecord| {
        let stages = record.spans_ms.named();
        stages
            .iter()
            .filter(|(name, _)| Part::of(name) == Part::Reload)
            .filter_map(|(_, ms)| *ms)
            .fold(0.0, |sum, ms| sum + ms)
    };
    stats::mean(&scored.map(moved).collect::<Vec<f64>>())
}
