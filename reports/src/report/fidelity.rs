//! Fidelity of each arm: how far its prompts take the model from what it does on the original ones, each measure with its
//! interval over sessions, and the differences that are worth a judgement: to `cold`, and of a drafter to its controls.

use std::collections::BTreeMap;

use super::arm_setup;
use super::findings::{Finding, Tone};
use crate::grid::Grid;
use crate::number::kept_share;
use crate::record::{CallRecord, RunManifest};
use crate::stats::{self, ClusteredMean, Sample};
use crate::summary::BASELINE_ARM;
use crate::tool_call::{Agreement, agreement};

/// A measure of fidelity of one call; shares are 0 or 1 per call but for argmax agreement and needle survival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Mean KL over the recorded turn, nats. Lower is better.
    KlMean,
    /// 95th percentile of KL over the positions of the recorded turn, nats. Lower is better.
    KlP95,
    /// KL at the first token, nats. Lower is better.
    KlFirst,
    /// Share of positions with the same likeliest token.
    Argmax,
    /// The generated calls are those of `cold` by name, where `cold` calls a tool.
    ColdName,
    /// They are by name and normalised arguments.
    ColdNormalised,
    /// They are by name and arguments.
    ColdExact,
    /// The generated calls are the recorded ones, where these exist.
    Recorded,
    /// Share of the needed words that the prompt as sent still holds, where any are needed.
    Needles,
    /// A needed word was elided, where any are needed. Lower is better.
    Elided,
    /// The output passes every structure check.
    Valid,
}

impl Measure {
    /// Every measure, distances first.
    pub const ALL: [Self; 11] = [
        Self::KlMean,
        Self::KlP95,
        Self::KlFirst,
        Self::Argmax,
        Self::ColdName,
        Self::ColdNormalised,
        Self::ColdExact,
        Self::Recorded,
        Self::Needles,
        Self::Elided,
        Self::Valid,
    ];

    /// Its name in `summary.json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KlMean => "kl_action_mean",
            Self::KlP95 => "kl_action_p95",
            Self::KlFirst => "kl_first",
            Self::Argmax => "argmax_agreement",
            Self::ColdName => "agrees_with_cold_by_name",
            Self::ColdNormalised => "agrees_with_cold_normalised",
            Self::ColdExact => "agrees_with_cold_exactly",
            Self::Recorded => "agrees_with_recorded",
            Self::Needles => "needle_survival",
            Self::Elided => "elided_but_needed",
            Self::Valid => "structure_valid",
        }
    }

    /// Whether less of it is better.
    pub const fn is_lower_better(self) -> bool {
        matches!(self, Self::KlMean | Self::KlP95 | Self::KlFirst | Self::Elided)
    }

    /// Its value for a call, beside the same call under `cold`; `None` where it was not measured or does not apply.
    fn of(self, record: &CallRecord, cold: Option<&CallRecord>) -> Option<f64> {
        let facts = &record.fidelity;
        let agrees = |level: Agreement| {
            let theirs = cold?.tool_calls.as_ref().filter(|calls| !calls.is_empty())?;
            Some(indicator(agreement(record.tool_calls.as_ref()?, theirs) >= level))
        };
        match self {
            Self::KlMean => facts.kl_action_mean,
            Self::KlP95 => facts.kl_action_p95,
            Self::KlFirst => facts.kl_first,
            Self::Argmax => facts.argmax_agreement,
            Self::ColdName => agrees(Agreement::Name),
            Self::ColdNormalised => agrees(Agreement::Normalised),
            Self::ColdExact => agrees(Agreement::Exact),
            Self::Recorded => facts.tool_call_agrees.map(indicator),
            Self::Needles => facts.needle_survival,
            Self::Elided => facts.needle_survival.map(|_| indicator(!facts.needles_elided.is_empty())),
            Self::Valid => record.structure.as_ref().map(|structure| indicator(structure.valid)),
        }
    }
}

fn indicator(flag: bool) -> f64 {
    f64::from(u8::from(flag))
}

/// What was measured of an arm, or of a difference of two.
pub type Measured = BTreeMap<Measure, ClusteredMean>;

/// One arm.
#[derive(Clone, Debug, PartialEq)]
pub struct FidelityRow {
    /// Arm name.
    pub arm: String,
    /// Its measures over all calls and repeats that have them.
    pub measured: Measured,
}

/// One arm less another, call by call.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Arm judged.
    pub arm: String,
    /// Arm that is taken off.
    pub against: String,
    /// Share that both keep of a message, thousandths; `None` for a difference to `cold`.
    pub keep_permille: Option<u64>,
    /// Mean differences over the calls and repeats that have the measure under both.
    pub measured: Measured,
}

/// Fidelity of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Fidelity {
    /// One row per arm of which anything was measured, in run order.
    pub rows: Vec<FidelityRow>,
    /// Every other arm less `cold`: of what `cold` does not have by itself, the recorded calls and validity.
    pub to_cold: Vec<Difference>,
    /// Arms that a drafter chooses for less the controls that differ from them in how chunks are chosen alone.
    pub to_controls: Vec<Difference>,
}

impl Fidelity {
    /// The row of an arm.
    pub fn row(&self, arm: &str) -> Option<&FidelityRow> {
        self.rows.iter().find(|row| row.arm == arm)
    }

    /// Whether next-token distributions were compared.
    pub fn has_distances(&self) -> bool {
        self.rows.iter().any(|row| row.measured.contains_key(&Measure::KlMean))
    }
}

/// Fidelity of a run; `None` where no record holds any of it.
pub(super) fn fidelity(manifest: &RunManifest, grid: &Grid) -> Option<Fidelity> {
    let table =
        Table { grid, sessions: sessions(grid), cold: grid.arm_idx(BASELINE_ARM), seed: manifest.seed };
    let row = |(arm_idx, arm): (usize, &String)| FidelityRow {
        arm: arm.clone(),
        measured: table.measured(&Measure::ALL, |measure| table.values(arm_idx, measure)),
    };
    let rows: Vec<FidelityRow> = grid.arms().iter().enumerate().map(row).collect();
    let is_told = |row: &FidelityRow| row.measured.keys().any(|measure| *measure != Measure::Valid);
    if !rows.iter().any(is_told) {
        return None;
    }
    let to_cold = grid.arms().iter().filter(|arm| *arm != BASELINE_ARM);
    let to_cold = to_cold
        .filter_map(|arm| table.difference((arm, BASELINE_ARM), None, &[Measure::Recorded, Measure::Valid]))
        .collect();
    let to_controls = arm_setup::controls(manifest)
        .into_iter()
        .filter_map(|pair| {
            table.difference((&pair.arm, &pair.control), Some(pair.keep_permille), &Measure::ALL)
        })
        .collect();
    Some(Fidelity {
        rows: rows.into_iter().filter(|row| !row.measured.is_empty()).collect(),
        to_cold,
        to_controls,
    })
}

/// A position for each call: that of its session.
fn sessions(grid: &Grid) -> Vec<usize> {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let position = |id| {
        let next = known.len();
        *known.entry(id).or_insert(next)
    };
    grid.calls().iter().map(|key| key.session_id.as_str()).map(position).collect()
}

struct Table<'a> {
    grid: &'a Grid<'a>,
    /// Session of each call.
    sessions: Vec<usize>,
    cold: Option<usize>,
    seed: u64,
}

/// A value with its place: call and repeat.
type Placed = ((usize, u32), f64);

impl Table<'_> {
    fn values(&self, arm_idx: usize, measure: Measure) -> Vec<Placed> {
        let mut values = Vec::new();
        for call_idx in 0..self.grid.calls().len() {
            for (repeat, record) in self.grid.repeats(arm_idx, call_idx).filter(|(_, r)| r.error.is_none()) {
                let cold = self.cold.and_then(|cold| {
                    self.grid.repeats(cold, call_idx).find(|(of_cold, _)| *of_cold == repeat).map(|(_, r)| r)
                });
                values.extend(measure.of(record, cold).map(|value| ((call_idx, repeat), value)));
            }
        }
        values
    }

    fn measured(&self, measures: &[Measure], values: impl Fn(Measure) -> Vec<Placed>) -> Measured {
        let mean = |measure: &Measure| {
            let sample = |((call_idx, _), value): Placed| Sample { cluster: self.sessions[call_idx], value };
            let samples: Vec<Sample> = values(*measure).into_iter().map(sample).collect();
            Some((*measure, stats::clustered_mean(&samples, self.seed)?))
        };
        measures.iter().filter_map(mean).collect()
    }

    /// `None` where either arm was not run or nothing was measured of both.
    fn difference(
        &self,
        (arm, against): (&str, &str),
        keep_permille: Option<u64>,
        measures: &[Measure],
    ) -> Option<Difference> {
        let (arm_idx, against_idx) = (self.grid.arm_idx(arm)?, self.grid.arm_idx(against)?);
        let measured = self.measured(measures, |measure| {
            let theirs: BTreeMap<(usize, u32), f64> = self.values(against_idx, measure).into_iter().collect();
            let ours = self.values(arm_idx, measure).into_iter();
            ours.filter_map(|(place, value)| Some((place, value - theirs.get(&place)?))).collect()
        });
        let (arm, against) = (arm.to_owned(), against.to_owned());
        (!measured.is_empty()).then_some(Difference { arm, against, keep_permille, measured })
    }
}

/// Which way a difference points, outside of its interval; `None` without an interval.
pub fn side_of_zero(measure: Measure, difference: &ClusteredMean) -> Option<Tone> {
    let (low, high) = difference.interval?;
    let is_less = high < 0.0;
    Some(match (is_less || low > 0.0, is_less == measure.is_lower_better()) {
        (false, _) => Tone::Neutral,
        (true, true) => Tone::Good,
        (true, false) => Tone::Bad,
    })
}

/// Where the drafter beats its controls at the same budget, one sentence per kind of control and measure.
pub(super) fn findings(fidelity: &Fidelity) -> Vec<Finding> {
    let told =
        [(Measure::KlMean, "is closer to cold (mean KL)"), (Measure::Recorded, "makes more right calls")];
    told.into_iter().filter_map(|(measure, words)| against_controls(fidelity, measure, words)).collect()
}

fn against_controls(fidelity: &Fidelity, measure: Measure, words: &str) -> Option<Finding> {
    let judged: Vec<(Tone, String)> = fidelity
        .to_controls
        .iter()
        .filter_map(|row| {
            let tone = side_of_zero(measure, row.measured.get(&measure)?)?;
            Some((tone, format!("{} at {}", row.against, kept_share(row.keep_permille?))))
        })
        .collect();
    let of = |wanted: Tone| -> Vec<&str> {
        judged.iter().filter(|(tone, _)| *tone == wanted).map(|(_, name)| name.as_str()).collect()
    };
    let (better, worse) = (of(Tone::Good), of(Tone::Bad));
    let list = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let tone = match (better.is_empty(), worse.is_empty()) {
        (false, true) => Tone::Good,
        (_, false) => Tone::Bad,
        (true, true) => Tone::Neutral,
    };
    (!judged.is_empty()).then(|| Finding {
        tone,
        text: format!(
            "Outside the 95 % interval over sessions the drafter {words} than its control at the same budget in {} of {} \
             comparisons ({}); the other way round in {} ({}).",
            better.len(),
            judged.len(),
            list(&better),
            worse.len(),
            list(&worse),
        ),
    })
}

/// What the intervals stand on.
pub(super) fn note(fidelity: &Fidelity, grid: &Grid) -> Option<String> {
    let n_sessions = sessions(grid).last().map_or(0, |last| last + 1);
    (n_sessions == 1 && fidelity.has_distances()).then(|| {
        "One session: fidelity has no interval, since it would be drawn over sessions; differences between arms are not told \
         from chance."
            .to_string()
    })
}
