//! The finished report: every number and sentence that a page shows, computed once. Renderers only lay it out, so that the
//! terminal, the Markdown and the HTML page never disagree.

mod agreement;
mod arm_setup;
mod between;
mod calls;
mod cost_model;
mod cost_words;
mod energy;
mod fidelity;
mod findings;
mod pareto;
mod prefix_reuse;
mod rescoring;
mod stages;
mod throttling;
mod validity;

pub use agreement::Disagreement;
pub use between::Backfills;
pub use calls::{CallCell, CallRow, Failure, SlowerCall};
pub use cost_model::{
    AloneFit, ArmCost, BatchFrom, BreakEven, CallCosts, Coefficient, CostModel, TokenCosts,
};
pub(crate) use cost_words::coefficient;
pub use energy::{EnergyRow, LOOSE_SHARE};
pub use fidelity::{Difference, Fidelity, FidelityRow, Measure, Measured, side_of_zero};
pub use findings::{Finding, Tone};
pub use pareto::{Cost, Line, Pareto, Point};
pub use prefix_reuse::PrefixReuse;
pub use rescoring::{Again, Rescoring};
pub use stages::{CacheSplit, Part, StageRow};
pub use throttling::Throttling;
pub use validity::CodeCount;

use crate::check::{self, Violation};
use crate::grid::Grid;
use crate::record::{CallRecord, RunManifest, TelemetrySample};
use crate::summary::Summary;

/// A call in flight, for the bands of the telemetry plot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Position in the order of execution.
    pub order_index: u64,
    /// Position of its arm in [`Summary::arms`].
    pub arm_idx: usize,
}

/// Everything that the pages of one run show.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub manifest: RunManifest,
    /// One row per arm.
    pub summary: Summary,
    /// Repeats that have records.
    pub n_repeats: usize,
    /// Arm x stage of TTFT.
    pub stages: Vec<StageRow>,
    /// Per arm: calls that started from nothing and calls that continued a cached prefix.
    pub cache_splits: Vec<CacheSplit>,
    /// Per arm with compression: what was scored, and what of it again.
    pub rescoring: Vec<Rescoring>,
    /// Per arm with a cache: what reuse could have given, and what it gave.
    pub prefix_reuse: Vec<PrefixReuse>,
    /// Per arm that prefills between calls: how much, and what of it calls waited for.
    pub backfills: Vec<Backfills>,
    /// The model of cost fitted to the run.
    pub cost_model: Option<CostModel>,
    /// One row per session and call, each with one cell per arm.
    pub calls: Vec<CallRow>,
    /// Calls that an arm made slower than `cold`.
    pub slower: Vec<SlowerCall>,
    /// Calls that failed.
    pub failures: Vec<Failure>,
    /// Codes of the request and output checks by arm.
    pub codes: Vec<CodeCount>,
    /// Fidelity of the arms; `None` where no record holds any.
    pub fidelity: Option<Fidelity>,
    /// Fidelity against cost, where two arms that compress have both.
    pub pareto: Option<Pareto>,
    /// Calls whose generated tool calls are not the recorded ones.
    pub disagreements: Vec<Disagreement>,
    /// Energy of the arms that have any.
    pub energy: Vec<EnergyRow>,
    /// Whether the board was slowed down during calls.
    pub throttling: Throttling,
    /// What the data says, in sentences.
    pub findings: Vec<Finding>,
    /// What limits these numbers, in sentences.
    pub notes: Vec<String>,
    /// Broken invariants; a run that has any is not to be quoted.
    pub violations: Vec<Violation>,
    /// What was unreadable in the run directory.
    pub warnings: Vec<String>,
    /// Samples over time.
    pub telemetry: Vec<TelemetrySample>,
    /// Calls by order of execution.
    pub executions: Vec<Execution>,
}

impl Report {
    /// Computes the report of one run. `warnings` are those of reading it.
    pub fn new(
        manifest: RunManifest,
        records: &[CallRecord],
        telemetry: Vec<TelemetrySample>,
        warnings: Vec<String>,
    ) -> Self {
        let grid = Grid::new(&manifest, records);
        let summary = Summary::new(&manifest, &grid);
        let calls = calls::rows(&grid);
        let slower = calls::slower(&summary, &calls);
        let rescoring = rescoring::rows(&grid);
        let backfills = between::backfills(&grid);
        let energy = energy::rows(&manifest, &grid, &summary);
        let executions = executions(&grid);
        let throttling = throttling::count_samples(&manifest, &telemetry, &executions, summary.arms.len());
        let cost_model = cost_model::model(&manifest, &grid, &rescoring);
        let prefix_reuse = prefix_reuse::rows(&manifest, &grid, cost_model.as_ref());
        let facts = findings::Facts {
            manifest: &manifest,
            grid: &grid,
            summary: &summary,
            rescoring: &rescoring,
            prefix_reuse: &prefix_reuse,
        };
        let mut findings = findings::findings(&facts, &slower);
        findings.extend(between::backfill_findings(&backfills));
        findings.extend(between::break_findings(&grid));
        findings.extend(cost_model.iter().flat_map(cost_words::findings));
        let disagreements = agreement::disagreements(&grid);
        findings.extend(agreement::findings(&summary, &disagreements));
        let fidelity = fidelity::fidelity(&manifest, &grid);
        findings.extend(fidelity.iter().flat_map(fidelity::findings));
        findings.extend(energy::finding(&energy));
        findings.extend(throttling.finding(summary.arms.iter().map(|row| row.arm.as_str())));
        let mut notes = findings::notes(&facts);
        notes.extend(cost_model.iter().flat_map(cost_words::notes));
        notes.extend(energy::notes(&manifest, &energy));
        notes.extend(fidelity.as_ref().and_then(|fidelity| fidelity::note(fidelity, &grid)));
        Self {
            n_repeats: grid.n_repeats(),
            stages: stages::rows(&grid),
            prefix_reuse,
            backfills,
            cost_model,
            cache_splits: stages::cache_splits(&grid),
            failures: calls::failures(&grid),
            codes: validity::counts(&grid),
            violations: check::check_run(records),
            pareto: fidelity.as_ref().and_then(|fidelity| pareto::pareto(&manifest, &summary, fidelity)),
            fidelity,
            disagreements,
            energy,
            throttling,
            findings,
            notes,
            executions,
            summary,
            rescoring,
            calls,
            slower,
            warnings,
            telemetry,
            manifest,
        }
    }

    /// Arm names in run order.
    pub fn arm_names(&self) -> impl Iterator<Item = &str> {
        self.summary.arms.iter().map(|row| row.arm.as_str())
    }

    /// Distinct calls over all sessions.
    pub fn n_calls(&self) -> usize {
        self.calls.len()
    }

    /// Sessions that have calls.
    pub fn n_sessions(&self) -> usize {
        let starts =
            self.calls.windows(2).filter(|pair| pair[0].key.session_id != pair[1].key.session_id).count();
        if self.calls.is_empty() { 0 } else { starts + 1 }
    }

    /// Some model has seeded random weights: times mean something, texts and scores do not.
    pub fn has_random_weights(&self) -> bool {
        findings::has_random_weights(&self.manifest)
    }
}

fn executions(grid: &Grid) -> Vec<Execution> {
    let mut executions: Vec<Execution> = (0..grid.arms().len())
        .flat_map(|arm_idx| {
            grid.records(arm_idx).map(move |record| Execution { order_index: record.order_index, arm_idx })
        })
        .collect();
    executions.sort_by_key(|e| e.order_index);
    executions
}
