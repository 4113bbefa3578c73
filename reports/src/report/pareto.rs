//! Fidelity against cost: one point per arm, arms that differ in their budget alone joined to a line, and which points another
//! one beats in both.

use super::arm_setup::{ArmSetup, compressing};
use super::fidelity::{Fidelity, Measure, Measured};
use crate::record::RunManifest;
use crate::summary::{ArmSummary, BASELINE_ARM, Summary};

/// Arms that compress below which there is nothing to compare.
const COMPRESSING_MIN: usize = 2;

/// A reading of what an arm costs, as a share of `cold`. Lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// TTFT of one pass.
    Ttft,
    /// Tokens prefilled by the target and scored by the drafter in one pass: a reading without a machine, in which a token
    /// weighs the same in both models.
    Tokens,
}

impl Cost {
    /// Both readings.
    pub const ALL: [Self; 2] = [Self::Ttft, Self::Tokens];
}

/// One arm in the plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Arm name.
    pub arm: String,
    /// Share that it keeps of a message, thousandths; `None` where it does not compress.
    pub keep_permille: Option<u64>,
    /// TTFT of one pass over that of `cold`.
    pub ttft_share: Option<f64>,
    /// Tokens prefilled and scored over those of `cold`.
    pub tokens_share: Option<f64>,
    /// Its measures of fidelity.
    pub measured: Measured,
}

impl Point {
    /// What the arm costs by this reading.
    pub const fn cost(&self, cost: Cost) -> Option<f64> {
        match cost {
            Cost::Ttft => self.ttft_share,
            Cost::Tokens => self.tokens_share,
        }
    }
}

/// Arms that differ in their budget alone, from the largest on; an arm without such a sibling is a line of one point.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What ranks the chunks, or the name of the only arm.
    pub name: String,
    /// Its points.
    pub points: Vec<Point>,
}

/// The plane of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Pareto {
    /// Lines and lone points in run order.
    pub lines: Vec<Line>,
}

impl Pareto {
    /// What stands against cost.
    pub const MEASURES: [Measure; 3] = [Measure::KlMean, Measure::ColdNormalised, Measure::Recorded];

    /// Every point.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        self.lines.iter().flat_map(|line| &line.points)
    }

    /// Whether another point is as good in cost and measure and better in one of them; by the points, not by their
    /// intervals.
    pub fn is_dominated(&self, point: &Point, cost: Cost, measure: Measure) -> bool {
        let place = |point: &Point| {
            let value = point.measured.get(&measure)?.mean;
            Some((point.cost(cost)?, if measure.is_lower_better() { value } else { -value }))
        };
        let Some((x, y)) = place(point) else { return false };
        self.points()
            .filter_map(place)
            .any(|(other_x, other_y)| other_x <= x && other_y <= y && (other_x < x || other_y < y))
    }
}

/// The plane of a run; `None` where fewer than two arms that compress have their distances measured, or there is no `cold`. An
/// arm that was not measured in as many calls as `cold` is left out: sums over other calls do not compare.
pub(super) fn pareto(manifest: &RunManifest, summary: &Summary, fidelity: &Fidelity) -> Option<Pareto> {
    let cold = summary.arm(BASELINE_ARM)?;
    let setups = compressing(manifest);
    let n_measured = |row: &ArmSummary| row.calls - row.failed;
    let is_placed = |row: &&ArmSummary| {
        let has_distance =
            fidelity.row(&row.arm).is_some_and(|row| row.measured.contains_key(&Measure::KlMean));
        has_distance && n_measured(row) == n_measured(cold)
    };
    let placed: Vec<&ArmSummary> = summary.arms.iter().filter(is_placed).collect();
    let compresses = |row: &&&ArmSummary| setups.iter().any(|setup| setup.arm == row.arm);
    if placed.iter().filter(compresses).count() < COMPRESSING_MIN {
        return None;
    }
    let mut lines: Vec<(Option<&ArmSetup>, Line)> = Vec::new();
    for row in placed {
        let setup = setups.iter().find(|setup| setup.arm == row.arm);
        let point = point(cold, row, setup, fidelity)?;
        let sibling = lines.iter_mut().find(|(first, _)| match (first, setup) {
            (Some(first), Some(setup)) => first.differs_in_budget_alone(setup),
            _ => false,
        });
        match sibling {
            Some((_, line)) => line.points.push(point),
            None => lines.push((setup, Line { name: row.arm.clone(), points: vec![point] })),
        }
    }
    Some(Pareto { lines: named(lines) })
}

/// Lines of several points go by what ranks the chunks, or by their first arm where two would go by the same.
fn named(lines: Vec<(Option<&ArmSetup>, Line)>) -> Vec<Line> {
    let is_line = |line: &Line| line.points.len() > 1;
    let scorers: Vec<_> = lines
        .iter()
        .filter(|(_, line)| is_line(line))
        .filter_map(|(setup, _)| Some(setup.as_ref()?.scorer))
        .collect();
    let named = |(setup, mut line): (Option<&ArmSetup>, Line)| {
        if let Some(scorer) = setup.filter(|_| is_line(&line)).map(|setup| setup.scorer) {
            let is_alone = scorers.iter().filter(|other| **other == scorer).count() == 1;
            let first = if is_alone { String::new() } else { format!(" from {}", line.name) };
            line.name = format!("{}{first}", scorer.as_str());
        }
        line.points.sort_by_key(|point| std::cmp::Reverse(point.keep_permille));
        line
    };
    lines.into_iter().map(named).collect()
}

fn point(
    cold: &ArmSummary,
    row: &ArmSummary,
    setup: Option<&ArmSetup>,
    fidelity: &Fidelity,
) -> Option<Point> {
    let tokens = |row: &ArmSummary| Some(row.tokens_prefilled? + row.tokens_scored?);
    let share = |part: Option<f64>, whole: Option<f64>| crate::metrics::share(part?, whole?);
    Some(Point {
        arm: row.arm.clone(),
        keep_permille: setup.map(|setup| setup.keep_permille),
        ttft_share: share(row.ttft_ms_sum, cold.ttft_ms_sum),
        tokens_share: share(tokens(row), tokens(cold)),
        measured: fidelity.row(&row.arm)?.measured.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::ClusteredMean;

    fn point(arm: &str, x: f64, kl: f64, right: f64) -> Point {
        let mean = |mean| ClusteredMean { mean, interval: None, n: 1, n_clusters: 1 };
        Point {
            arm: arm.to_owned(),
            keep_permille: None,
            ttft_share: Some(x),
            tokens_share: None,
            measured: [(Measure::KlMean, mean(kl)), (Measure::Recorded, mean(right))].into(),
        }
    }

    #[test]
    fn a_point_is_dominated_where_another_is_nowhere_worse_and_somewhere_better() {
        let points = vec![
            point("cold", 1.0, 0.0, 0.8),
            point("cheap", 0.1, 0.5, 0.7),
            point("worse", 0.1, 0.6, 0.7),
            point("dear", 0.3, 0.2, 0.6),
            point("twin", 0.1, 0.5, 0.7),
        ];
        let pareto = Pareto { lines: vec![Line { name: "all".to_owned(), points }] };
        let dominated = |cost, measure| -> Vec<&str> {
            pareto
                .points()
                .filter(|point| pareto.is_dominated(point, cost, measure))
                .map(|p| p.arm.as_str())
                .collect()
        };
        assert_eq!(dominated(Cost::Ttft, Measure::KlMean), ["worse"]);
        assert_eq!(dominated(Cost::Ttft, Measure::Recorded), ["dear"]);
        assert!(dominated(Cost::Tokens, Measure::KlMean).is_empty(), "nothing is known of tokens");
    }
}
