//! Where the time goes: the stages of TTFT by arm, and cold starts apart from calls that continue a cached prefix.

use crate::grid::Grid;
use crate::metrics::{self, Formula};
use crate::record::{CacheState, CallRecord, SpansMs};
use crate::stats;

/// TTFT of one pass of an arm, by stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageRow {
    /// Arm name.
    pub arm: String,
    /// Stage and its milliseconds over all calls of one pass, in the order of the request; `None` where no call has it.
    pub spans_ms: Vec<(&'static str, Option<f64>)>,
    /// Sum of the stages that are known.
    pub total_ms: Option<f64>,
}

/// What a stage serves: the stages of TTFT in seven groups, in the order of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Waiting for the backfill before the call: `blocked`.
    Blocked,
    /// Messages to token ids: `render`, `tokenize`.
    Text,
    /// Moving weights, apart from all work with them: `target_park`, `drafter_load`, `target_load`.
    Reload,
    /// The drafter at work: `score`, `select`.
    Scoring,
    /// The prefix cache: `lookup`, `restore`.
    Cache,
    /// The target at work: `prefill`, `first_token`.
    Target,
    /// What no stage claims.
    Unexplained,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 7] = [
        Self::Blocked,
        Self::Text,
        Self::Reload,
        Self::Scoring,
        Self::Cache,
        Self::Target,
        Self::Unexplained,
    ];

    /// The word in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Text => "text",
            Self::Reload => "reload",
            Self::Scoring => "scoring",
            Self::Cache => "cache",
            Self::Target => "target",
            Self::Unexplained => "unexplained",
        }
    }

    /// The part of a stage.
    pub fn of(stage: &str) -> Self {
        match stage {
            "blocked" => Self::Blocked,
            "render" | "tokenize" => Self::Text,
            "target_park" | "drafter_load" | "target_load" => Self::Reload,
            "score" | "select" => Self::Scoring,
            "lookup" | "restore" => Self::Cache,
            "prefill" | "first_token" => Self::Target,
            _ => Self::Unexplained,
        }
    }
}

impl StageRow {
    /// Milliseconds of a part over one pass; `None` where the arm has none of its stages.
    pub fn part_ms(&self, part: Part) -> Option<f64> {
        let stages = self.spans_ms.iter().filter(|(name, _)| Part::of(name) == part);
        stages.filter_map(|(_, ms)| *ms).reduce(|sum, ms| sum + ms)
    }
}

/// Calls of an arm by cache state: two populations that an average hides.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheSplit {
    /// Arm name.
    pub arm: String,
    /// Calls (all repeats) that found nothing to reuse.
    pub n_miss: usize,
    /// Median TTFT of these, ms.
    pub miss_ttft_ms_p50: Option<f64>,
    /// Calls (all repeats) that reused a prefix.
    pub n_hit: usize,
    /// Median TTFT of these, ms.
    pub hit_ttft_ms_p50: Option<f64>,
    /// Reused share of the raw prompt, median over the hits.
    pub hit_ratio_p50: Option<f64>,
}

pub(super) fn rows(grid: &Grid) -> Vec<StageRow> {
    let stages = SpansMs::default().named().map(|(name, _)| name);
    let row = |(arm_idx, arm): (usize, &String)| {
        let span = |stage_idx: usize| stage_sum(grid, arm_idx, stage_idx);
        let spans_ms: Vec<_> = stages.iter().enumerate().map(|(i, &name)| (name, span(i))).collect();
        let known: Vec<f64> = spans_ms.iter().filter_map(|(_, ms)| *ms).collect();
        StageRow { arm: arm.clone(), spans_ms, total_ms: (!known.is_empty()).then(|| known.iter().sum()) }
    };
    grid.arms().iter().enumerate().map(row).collect()
}

/// Sum over calls of the mean over repeats. A call without the stage spent nothing in it, so it counts as zero here: unlike a
/// missing measurement, a stage is `null` where it does not exist.
fn stage_sum(grid: &Grid, arm_idx: usize, stage_idx: usize) -> Option<f64> {
    grid.records(arm_idx).find_map(|r| r.spans_ms.named()[stage_idx].1)?;
    let of = |record: &CallRecord| Some(record.spans_ms.named()[stage_idx].1.unwrap_or(0.0));
    grid.sum(arm_idx, of)
}

pub(super) fn cache_splits(grid: &Grid) -> Vec<CacheSplit> {
    let split = |(arm_idx, arm): (usize, &String)| {
        let with = |state: CacheState| -> Vec<&CallRecord> {
            grid.records(arm_idx).filter(|r| r.error.is_none() && r.cache_state == Some(state)).collect()
        };
        let median = |records: &[&CallRecord], metric: Formula| {
            stats::median(&records.iter().filter_map(|r| metric(r)).collect::<Vec<_>>())
        };
        let (misses, hits) = (with(CacheState::Miss), with(CacheState::Hit));
        CacheSplit {
            arm: arm.clone(),
            n_miss: misses.len(),
            miss_ttft_ms_p50: median(&misses, metrics::ttft_ms),
            n_hit: hits.len(),
            hit_ttft_ms_p50: median(&hits, metrics::ttft_ms),
            hit_ratio_p50: median(&hits, metrics::prefix_hit_ratio),
        }
    };
    let splits = grid.arms().iter().enumerate().map(split);
    splits.filter(|s| s.n_miss + s.n_hit > 0).collect()
}
