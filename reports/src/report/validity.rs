//! Codes of the request and output checks, counted by arm.

use std::collections::BTreeMap;

use crate::grid::Grid;

/// How often a code fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeCount {
    /// Code of the check: `R..` on the request as sent, `O..` on the output.
    pub code: String,
    /// Per arm, in run order: calls on which it fired.
    pub calls: Vec<u64>,
    /// Per arm: calls on which it still fires after the repairs that are allowed; 0 for request codes.
    pub calls_after_repair: Vec<u64>,
}

pub(super) fn counts(grid: &Grid) -> Vec<CodeCount> {
    let n_arms = grid.arms().len();
    let mut by_code: BTreeMap<&str, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
    let empty = || (vec![0; n_arms], vec![0; n_arms]);
    for arm_idx in 0..n_arms {
        for record in grid.records(arm_idx) {
            let strict = record.structure.iter().flat_map(|s| &s.strict_codes);
            for code in record.request_codes.iter().chain(strict) {
                by_code.entry(code).or_insert_with(empty).0[arm_idx] += 1;
            }
            for code in record.structure.iter().flat_map(|s| &s.lenient_codes) {
                by_code.entry(code).or_insert_with(empty).1[arm_idx] += 1;
            }
        }
    }
    let row = |(code, (calls, calls_after_repair)): (&str, _)| CodeCount {
        code: code.into(),
        calls,
        calls_after_repair,
    };
    by_code.into_iter().map(row).collect()
}
