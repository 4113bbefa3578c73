//! What an arm does to the time between its calls and to its own history: prefill that the recorded gaps hide, and prefixes
//! that it broke itself. Neither is in a TTFT that looks good.

use std::collections::BTreeMap;

use super::findings::{Finding, Tone};
use crate::grid::Grid;
use crate::number::{count, counted, duration};
use crate::record::CallRecord;

/// Prefill between the calls of one arm, over one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Backfills {
    /// Arm name.
    pub arm: String,
    /// Calls (all repeats) with a backfill before them.
    pub n_calls: usize,
    /// Of these, calls before which no gap is recorded: they wait for all of it.
    pub n_without_gap: usize,
    /// Tokens that went through the target.
    pub tokens: f64,
    /// Time that took, ms.
    pub backfill_ms: f64,
    /// The part of it that calls waited for, ms: it is in TTFT.
    pub blocked_ms: f64,
}

/// Arms with a backfill, in run order.
pub(super) fn backfills(grid: &Grid) -> Vec<Backfills> {
    let row = |(arm_idx, arm): (usize, &String)| {
        let with: Vec<&CallRecord> =
            grid.records(arm_idx).filter(|record| record.tokens_backfilled.is_some()).collect();
        let sum = |of: fn(&CallRecord) -> Option<f64>| {
            grid.sum(arm_idx, |record| Some(of(record).unwrap_or(0.0))).unwrap_or(0.0)
        };
        (!with.is_empty()).then(|| Backfills {
            arm: arm.clone(),
            n_calls: with.len(),
            n_without_gap: with.iter().filter(|record| record.gap_ms.is_none()).count(),
            tokens: sum(|record| record.tokens_backfilled.map(|n| n as f64)),
            backfill_ms: sum(|record| record.backfill_ms),
            blocked_ms: sum(|record| record.spans_ms.blocked),
        })
    };
    grid.arms().iter().enumerate().filter_map(row).collect()
}

/// What the backfills cost, in a sentence per arm.
pub(super) fn backfill_findings(rows: &[Backfills]) -> Vec<Finding> {
    let sentence = |row: &Backfills| {
        let waits = if row.blocked_ms > 0.0 {
            format!("{} of it did not fit into the recorded gaps and is in TTFT", duration(row.blocked_ms))
        } else {
            "all of it fits into the recorded gaps".to_owned()
        };
        let unknown = match row.n_without_gap {
            0 => String::new(),
            n => format!("; {} of them with no gap recorded wait for all of it", count(n as f64)),
        };
        let text = format!(
            "{} prefills {} tokens between calls, {} of work that its TTFT does not show: {waits} ({}{unknown}).",
            row.arm,
            count(row.tokens),
            duration(row.backfill_ms - row.blocked_ms),
            counted(row.n_calls as u64, "call"),
        );
        Finding { tone: Tone::Neutral, text }
    };
    rows.iter().map(sentence).collect()
}

/// Causes of a break that an arm makes itself; others come from the recording or from the template.
const OWN_CAUSES: [&str; 2] = ["ageing", "compression"];

/// Prefixes that the arms broke themselves, over their first repeat, in a sentence per arm and cause.
pub(super) fn break_findings(grid: &Grid) -> Vec<Finding> {
    let of_arm = |(arm_idx, arm): (usize, &String)| {
        let mut by_cause: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for call_idx in 0..grid.calls().len() {
            let first = grid.repeats(arm_idx, call_idx).next().map(|(_, record)| record);
            if let Some(found) = first.and_then(|record| record.prefix_break.as_ref()) {
                let (calls, tokens) = by_cause.entry(&found.cause).or_default();
                *calls += 1;
                *tokens = tokens.saturating_add(found.tokens_lost);
            }
        }
        let own = by_cause.into_iter().filter(|(cause, _)| OWN_CAUSES.contains(cause));
        let sentence = |(cause, (calls, tokens)): (&str, (u64, u64))| Finding {
            tone: Tone::Bad,
            text: format!(
                "{arm} breaks its own prefix by {cause} on {}: {} tokens that it had sent could not be reused.",
                counted(calls, "call"),
                count(tokens as f64)
            ),
        };
        own.map(sentence).collect::<Vec<_>>()
    };
    grid.arms().iter().enumerate().flat_map(of_arm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{PrefixBreak, RunManifest, SpansMs};

    fn record(call_index: u32) -> CallRecord {
        CallRecord { arm: "a".into(), call_index, ttft_ms: Some(10.0), ..CallRecord::default() }
    }

    fn backfilled(call_index: u32, ms: f64, gap_ms: Option<f64>, blocked: f64) -> CallRecord {
        CallRecord {
            tokens_backfilled: Some(100),
            backfill_ms: Some(ms),
            gap_ms,
            spans_ms: SpansMs { blocked: Some(blocked), ..SpansMs::default() },
            ..record(call_index)
        }
    }

    #[test]
    fn work_between_calls_is_summed_and_what_calls_waited_for_is_told_apart() {
        let records =
            [record(0), backfilled(1, 4000.0, Some(9000.0), 0.0), backfilled(2, 5000.0, None, 5000.0)];
        let rows = backfills(&Grid::new(&RunManifest::default(), &records));
        let expected = Backfills {
            arm: "a".to_owned(),
            n_calls: 2,
            n_without_gap: 1,
            tokens: 200.0,
            backfill_ms: 9000.0,
            blocked_ms: 5000.0,
        };
        assert_eq!(rows, [expected]);
        let text = &backfill_findings(&rows)[0].text;
        assert_eq!(
            text,
            "a prefills 200 tokens between calls, 4.00 s of work that its TTFT does not show: 5.00 s of it did not fit into \
             the recorded gaps and is in TTFT (2 calls; 1 of them with no gap recorded wait for all of it)."
        );
        assert_eq!(backfills(&Grid::new(&RunManifest::default(), &[record(0)])), []);
    }

    #[test]
    fn breaks_of_the_arms_own_making_are_counted_by_cause() {
        let broken = |call_index, cause: &str, tokens_lost| CallRecord {
            prefix_break: Some(PrefixBreak { cause: cause.to_owned(), tokens_lost, message: None }),
            ..record(call_index)
        };
        let records = [record(0), broken(1, "ageing", 400), broken(2, "rewind", 7), broken(3, "ageing", 600)];
        let findings = break_findings(&Grid::new(&RunManifest::default(), &records));
        let texts: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "a breaks its own prefix by ageing on 2 calls: 1,000 tokens that it had sent could not be reused."
            ]
        );
    }
}
