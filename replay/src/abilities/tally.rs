//! Outcomes counted: by length, and by what the fact is about. Knows no model and no page.

use std::collections::BTreeMap;

use reports::stats;
use serde::Serialize;
use transcripts::synth::FactKind;

use crate::abilities::{Ask, Outcome};

/// How often, out of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How often.
    pub hits: u64,
    /// Out of how many.
    pub of: u64,
}

impl Count {
    fn add(&mut self, hit: bool) {
        self.hits += u64::from(hit);
        self.of += 1;
    }

    /// The share; `None` of nothing.
    pub fn share(self) -> Option<f64> {
        (self.of > 0).then(|| self.hits as f64 / self.of as f64)
    }

    /// Ends of the share's 95 % interval (Wilson).
    pub fn interval(self) -> Option<(f64, f64)> {
        stats::wilson(self.hits, self.of)
    }
}

/// One arm over some outcomes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ArmTally {
    /// Name of the arm.
    pub arm: String,
    /// Outputs that pass every structure check.
    pub valid: Count,
    /// Tool calls that equal the recorded ones.
    pub exact: Count,
    /// Prompts as sent that held all that the recorded call needs.
    pub kept: Count,
    /// Share of the prompts' tokens that was removed.
    pub removed_ratio: f64,
}

/// One length and way to ask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LengthRow {
    /// How facts came into sight.
    pub ask: Ask,
    /// Prompt tokens wanted.
    pub tokens: usize,
    /// Prompt tokens of the probes, averaged.
    pub prompt_tokens_mean: Option<f64>,
    /// The arms, in order.
    pub arms: Vec<ArmTally>,
    /// The fact's chunks are in the drafter's best tenth.
    pub recalled: Count,
}

/// One kind of fact and way to ask, over all lengths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindRow {
    /// How facts came into sight.
    pub ask: Ask,
    /// What the facts are about.
    pub kind: FactKind,
    /// The arms, in order.
    pub arms: Vec<ArmTally>,
    /// The fact's chunks are in the drafter's best tenth.
    pub recalled: Count,
}

/// Rows by way to ask, then length.
pub fn by_length(outcomes: &[Outcome]) -> Vec<LengthRow> {
    let groups = grouped(outcomes, |outcome| (outcome.ask, outcome.tokens));
    let row = |((ask, tokens), own): ((Ask, usize), Vec<&Outcome>)| {
        let lengths: Vec<f64> = own.iter().map(|outcome| outcome.prompt_tokens as f64).collect();
        let prompt_tokens_mean = stats::mean(&lengths);
        LengthRow { ask, tokens, prompt_tokens_mean, arms: arms(&own), recalled: recalled(&own) }
    };
    groups.into_iter().map(row).collect()
}

/// Rows by way to ask, then kind.
pub fn by_kind(outcomes: &[Outcome]) -> Vec<KindRow> {
    let groups = grouped(outcomes, |outcome| (outcome.ask, outcome.kind));
    let row = |((ask, kind), own): ((Ask, FactKind), Vec<&Outcome>)| KindRow {
        ask,
        kind,
        arms: arms(&own),
        recalled: recalled(&own),
    };
    groups.into_iter().map(row).collect()
}

fn grouped<K: Ord>(outcomes: &[Outcome], key: impl Fn(&Outcome) -> K) -> BTreeMap<K, Vec<&Outcome>> {
    let mut groups: BTreeMap<K, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        groups.entry(key(outcome)).or_default().push(outcome);
    }
    groups
}

fn recalled(outcomes: &[&Outcome]) -> Count {
    let mut count = Count::default();
    outcomes.iter().filter_map(|outcome| outcome.recalled).for_each(|hit| count.add(hit));
    count
}

fn arms(outcomes: &[&Outcome]) -> Vec<ArmTally> {
    let n_arms = outcomes.iter().map(|outcome| outcome.answers.len()).min().unwrap_or(0);
    let tally = |arm_idx: usize| {
        let mut tally = ArmTally::default();
        let (mut tokens_raw, mut tokens_removed) = (0, 0);
        for outcome in outcomes {
            let answer = &outcome.answers[arm_idx];
            tally.arm.clone_from(&answer.arm);
            tally.valid.add(answer.valid);
            tally.exact.add(answer.exact);
            tally.kept.add(answer.kept);
            tokens_raw += outcome.prompt_tokens;
            tokens_removed += answer.tokens_removed;
        }
        tally.removed_ratio = tokens_removed as f64 / tokens_raw.max(1) as f64;
        tally
    };
    (0..n_arms).map(tally).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abilities::Answer;

    fn outcome(tokens: usize, kind: FactKind, exact: [bool; 2], recalled: Option<bool>) -> Outcome {
        let answer = |(arm, exact): (&str, bool)| Answer {
            arm: arm.to_owned(),
            valid: true,
            exact,
            kept: exact,
            tokens_removed: if arm == "cold" { 0 } else { tokens as i64 / 2 },
            output: String::new(),
        };
        let answers = ["cold", "random"].into_iter().zip(exact).map(answer).collect();
        Outcome { ask: Ask::First, tokens, prompt_tokens: tokens + 2, seed: 1 << 33, kind, answers, recalled }
    }

    #[test]
    fn outcomes_are_counted_by_length_and_by_kind() {
        let outcomes = [
            outcome(500, FactKind::Ticket, [true, false], Some(true)),
            outcome(500, FactKind::Job, [true, true], Some(false)),
            outcome(100, FactKind::Job, [false, false], None),
        ];
        let rows = by_length(&outcomes);
        assert_eq!(rows.iter().map(|row| row.tokens).collect::<Vec<_>>(), [100, 500]);
        let row = &rows[1];
        assert_eq!((row.prompt_tokens_mean, row.recalled), (Some(502.0), Count { hits: 1, of: 2 }));
        assert_eq!(row.arms[0].exact, Count { hits: 2, of: 2 });
        assert_eq!(row.arms[1].exact, Count { hits: 1, of: 2 });
        assert!((row.arms[1].removed_ratio - 500.0 / 1004.0).abs() < 1e-12);
        assert_eq!(rows[0].recalled.share(), None);

        let kinds = by_kind(&outcomes);
        let exact: Vec<(FactKind, Count)> = kinds.iter().map(|row| (row.kind, row.arms[0].exact)).collect();
        assert_eq!(
            exact,
            [(FactKind::Ticket, Count { hits: 1, of: 1 }), (FactKind::Job, Count { hits: 1, of: 2 })]
        );
    }
}
