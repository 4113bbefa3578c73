//! Records arranged for comparison: arm x (session, call) x repeat. Orders things and averages over repeats; knows no page.

use std::collections::BTreeMap;

use crate::record::{CallRecord, RunManifest};
use crate::stats;

/// A call of a session, the same under every arm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallKey {
    /// Session id.
    pub session_id: String,
    /// Call within the session, from 0.
    pub call_index: u32,
}

/// The records of a run by arm, call and repeat. Of records with the same key the last one counts.
#[derive(Debug)]
pub struct Grid<'a> {
    arms: Vec<String>,
    calls: Vec<CallKey>,
    /// (arms, calls): the records of a cell by repeat, ascending.
    cells: Vec<BTreeMap<u32, &'a CallRecord>>,
    n_repeats: usize,
}

impl<'a> Grid<'a> {
    /// Arranges records. Arms and sessions come in the order of the manifest, then in order of appearance.
    pub fn new(manifest: &RunManifest, records: &'a [CallRecord]) -> Self {
        let named = manifest.arms.iter().filter_map(|arm| arm.get("name")?.as_str());
        let arms = in_order(named, records.iter().map(|r| r.arm.as_str()));
        let sessions = in_order(
            manifest.sessions.iter().map(|s| s.session_id.as_str()),
            records.iter().map(|r| r.session_id.as_str()),
        );
        let session_rank: BTreeMap<&str, usize> =
            sessions.iter().enumerate().map(|(i, s)| (s.as_str(), i)).collect();
        let mut columns: BTreeMap<(usize, u32), usize> = BTreeMap::new();
        for record in records {
            columns.insert((session_rank[record.session_id.as_str()], record.call_index), 0);
        }
        for (column, slot) in columns.values_mut().enumerate() {
            *slot = column;
        }
        let calls: Vec<CallKey> = columns
            .keys()
            .map(|&(session, call_index)| CallKey { session_id: sessions[session].clone(), call_index })
            .collect();
        let arm_rank: BTreeMap<&str, usize> = arms.iter().enumerate().map(|(i, a)| (a.as_str(), i)).collect();
        let mut cells = vec![BTreeMap::new(); arms.len() * calls.len()];
        for record in records {
            let column = columns[&(session_rank[record.session_id.as_str()], record.call_index)];
            cells[arm_rank[record.arm.as_str()] * calls.len() + column].insert(record.repeat, record);
        }
        let mut repeats: Vec<u32> = records.iter().map(|r| r.repeat).collect();
        repeats.sort_unstable();
        repeats.dedup();
        Self { arms, calls, cells, n_repeats: repeats.len() }
    }

    /// Arms in run order.
    pub fn arms(&self) -> &[String] {
        &self.arms
    }

    /// Calls in session order: the columns.
    pub fn calls(&self) -> &[CallKey] {
        &self.calls
    }

    /// Repeats that have records.
    pub fn n_repeats(&self) -> usize {
        self.n_repeats
    }

    /// Position of an arm.
    pub fn arm_idx(&self, name: &str) -> Option<usize> {
        self.arms.iter().position(|arm| arm == name)
    }

    /// Records of one arm and call by repeat; none where it was not run or the indices are out of range.
    pub fn repeats(
        &self,
        arm_idx: usize,
        call_idx: usize,
    ) -> impl Iterator<Item = (u32, &'a CallRecord)> + '_ {
        let cell = if call_idx < self.calls.len() {
            self.cells.get(arm_idx * self.calls.len() + call_idx)
        } else {
            None
        };
        cell.into_iter().flatten().map(|(&repeat, &record)| (repeat, record))
    }

    /// Every record of an arm, by call, then repeat.
    pub fn records(&self, arm_idx: usize) -> impl Iterator<Item = &'a CallRecord> + '_ {
        (0..self.calls.len()).flat_map(move |call| self.repeats(arm_idx, call).map(|(_, record)| record))
    }

    /// Values of a metric over the repeats of one arm and call that did not fail.
    pub fn values(
        &self,
        arm_idx: usize,
        call_idx: usize,
        metric: impl Fn(&CallRecord) -> Option<f64>,
    ) -> Vec<f64> {
        let measured = self.repeats(arm_idx, call_idx).filter(|(_, r)| r.error.is_none());
        measured.filter_map(|(_, record)| metric(record)).collect()
    }

    /// Mean of a metric over the repeats of one arm and call that did not fail and have it.
    pub fn mean(
        &self,
        arm_idx: usize,
        call_idx: usize,
        metric: impl Fn(&CallRecord) -> Option<f64>,
    ) -> Option<f64> {
        stats::mean(&self.values(arm_idx, call_idx, metric))
    }

    /// Sum over the calls of an arm of the mean over repeats: what one pass costs, whatever the number of repeats.
    ///
    /// Failed records are left out (they are counted elsewhere). `None` where a record that did not fail lacks the fact, so
    /// that a partial sum never passes for a whole one, and where nothing was measured.
    pub fn sum(&self, arm_idx: usize, metric: impl Fn(&CallRecord) -> Option<f64>) -> Option<f64> {
        let mut total = None;
        for call_idx in 0..self.calls.len() {
            let mut values = Vec::new();
            for (_, record) in self.repeats(arm_idx, call_idx).filter(|(_, r)| r.error.is_none()) {
                values.push(metric(record)?);
            }
            if let Some(mean) = stats::mean(&values) {
                total = Some(total.unwrap_or(0.0) + mean);
            }
        }
        total
    }
}

/// The first list, then what only the second one names, each once.
fn in_order<'a>(first: impl Iterator<Item = &'a str>, second: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    first.chain(second).filter(|name| seen.insert(*name)).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;
    use crate::record::CallError;

    fn record(arm: &str, repeat: u32, session: &str, call_index: u32, ttft_ms: Option<f64>) -> CallRecord {
        CallRecord {
            arm: arm.into(),
            repeat,
            session_id: session.into(),
            call_index,
            ttft_ms,
            ..CallRecord::default()
        }
    }

    fn manifest(arms: &[&str], sessions: &[&str]) -> RunManifest {
        let arm = |name: &&str| serde_json::Map::from_iter([("name".to_string(), (*name).into())]);
        let session =
            |id: &&str| crate::record::SessionRef { session_id: (*id).into(), ..Default::default() };
        RunManifest {
            arms: arms.iter().map(arm).collect(),
            sessions: sessions.iter().map(session).collect(),
            ..RunManifest::default()
        }
    }

    #[test]
    fn arms_and_sessions_follow_the_manifest_then_appearance() {
        let records =
            [record("x", 0, "z", 1, None), record("b", 0, "a", 0, None), record("b", 0, "z", 0, None)];
        let grid = Grid::new(&manifest(&["a", "b"], &["z"]), &records);
        assert_eq!(grid.arms(), ["a", "b", "x"]);
        let calls: Vec<_> = grid.calls().iter().map(|k| (k.session_id.as_str(), k.call_index)).collect();
        assert_eq!(calls, [("z", 0), ("z", 1), ("a", 0)]);
        assert_eq!(grid.records(0).count(), 0);
        assert_eq!(grid.arm_idx("x"), Some(2));
    }

    #[test]
    fn sum_is_the_mean_pass_whatever_the_repeats() {
        let records = [
            record("a", 0, "s", 0, Some(10.0)),
            record("a", 0, "s", 1, Some(20.0)),
            record("a", 1, "s", 0, Some(14.0)),
            record("a", 1, "s", 1, Some(26.0)),
        ];
        let grid = Grid::new(&RunManifest::default(), &records);
        assert_eq!(grid.sum(0, metrics::ttft_ms), Some(35.0));
        assert_eq!(grid.sum(0, metrics::energy_j), None);
        assert_eq!(grid.n_repeats(), 2);
        // A cut second repeat does not shift the first one.
        let grid = Grid::new(&RunManifest::default(), &records[..3]);
        assert_eq!(grid.sum(0, metrics::ttft_ms), Some(32.0));
    }

    #[test]
    fn partial_facts_give_no_sum_but_failed_calls_do_not_hide_it() {
        let mut records = [record("a", 0, "s", 0, Some(10.0)), record("a", 0, "s", 1, None)];
        assert_eq!(Grid::new(&RunManifest::default(), &records).sum(0, metrics::ttft_ms), None);
        records[1].error = Some(CallError { kind: "backend".into(), message: String::new() });
        assert_eq!(Grid::new(&RunManifest::default(), &records).sum(0, metrics::ttft_ms), Some(10.0));
    }

    #[test]
    fn the_last_of_two_records_with_one_key_counts() {
        let records = [record("a", 0, "s", 0, Some(10.0)), record("a", 0, "s", 0, Some(30.0))];
        assert_eq!(Grid::new(&RunManifest::default(), &records).values(0, 0, metrics::ttft_ms), [30.0]);
    }

    #[test]
    fn indices_out_of_range_hold_nothing() {
        let records = [record("a", 0, "s", 0, Some(10.0)), record("b", 0, "s", 0, Some(1.0))];
        let grid = Grid::new(&RunManifest::default(), &records);
        assert_eq!(grid.repeats(0, 1).count(), 0);
        assert_eq!(grid.repeats(9, 0).count(), 0);
    }
}
