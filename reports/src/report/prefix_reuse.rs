//! What reusing prefixes could have given, by the run's own token counts, beside what it gave.

use serde_json::{Map, Value};

use super::CostModel;
use crate::cost::Costs;
use crate::grid::{CallKey, Grid};
use crate::metrics;
use crate::record::{CacheState, CallRecord, RunManifest};
use crate::summary::speedup;

/// The prefix cache of one arm, over one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixReuse {
    /// Arm name.
    pub arm: String,
    /// The arm that differs from it in having no cache, where the run has one.
    pub without_cache: Option<String>,
    /// Prompt tokens as sent to the target, over those that no earlier call of the session had sent: the speed-up if time went
    /// by tokens and each token were prefilled once.
    pub ideal: f64,
    /// The same with attention counted, by the prefill and attention costs fitted to the run: what a token attends to costs the
    /// same whether its prefix was reused or not, so this is the smaller one.
    pub ideal_with_attention: Option<f64>,
    /// Prompt tokens as sent, over those that were prefilled: the speed-up if time went by tokens alone.
    pub by_tokens: f64,
    /// TTFT of the arm without a cache, over that of this arm.
    pub measured: Option<f64>,
    /// The same of the prefill stage alone.
    pub measured_prefill: Option<f64>,
    /// What was measured as a share of `ideal`: TTFT, or the prefill stage where the arm scores, for no cache touches that
    /// time.
    pub share_by_tokens: Option<f64>,
    /// The same as a share of `ideal_with_attention`; above 1 where the fitted attention cost is too high for these calls.
    pub share_with_attention: Option<f64>,
    /// Whether the arm scores, so that TTFT holds time that no cache touches.
    pub scores: bool,
    /// Calls whose prompt is shorter than the one before and whose record (of an older version) does not say what they share:
    /// their own prefix hit stands in.
    pub n_calls_replaced: usize,
}

/// Arms with a prefix cache whose records hold the counts, in run order.
pub(super) fn rows(manifest: &RunManifest, grid: &Grid, model: Option<&CostModel>) -> Vec<PrefixReuse> {
    let costs = model.and_then(CostModel::target_costs);
    (0..grid.arms().len()).filter_map(|arm_idx| row(manifest, grid, arm_idx, costs)).collect()
}

fn row(manifest: &RunManifest, grid: &Grid, arm_idx: usize, costs: Option<Costs>) -> Option<PrefixReuse> {
    let arm = &grid.arms()[arm_idx];
    let asks = |record: &CallRecord| matches!(record.cache_state, Some(CacheState::Hit | CacheState::Miss));
    if !grid.records(arm_idx).any(asks) {
        return None;
    }
    let costs = costs.unwrap_or_default();
    let (mut sent, mut new, mut prefilled, mut n_calls_replaced) = (0.0, 0.0, 0.0, 0);
    let (mut sent_ms, mut new_ms) = (0.0, 0.0);
    let mut before: Option<(&CallKey, f64)> = None;
    // What is held of a prompt that was backfilled is the prompt as it came, not as it was answered.
    let backfills = grid.records(arm_idx).any(|record| record.tokens_backfilled.is_some());
    // Where rows are dropped from the KV the whole prompt is sent: without a cache every token of it would run again.
    let evicts = spec(manifest, arm).is_some_and(|spec| policy(spec) == Some("evict"));
    for (call_idx, key) in grid.calls().iter().enumerate() {
        let mean = |tokens: fn(&CallRecord) -> Option<u64>| {
            grid.mean(arm_idx, call_idx, |record| tokens(record).map(|n| n as f64))
        };
        let (Some(hit), Some(fresh)) = (mean(|r| r.tokens_prefix_hit), mean(|r| r.tokens_prefilled)) else {
            continue;
        };
        let prompt = if evicts { mean(|r| r.tokens_raw).unwrap_or(hit + fresh) } else { hit + fresh };
        let lost =
            grid.repeats(arm_idx, call_idx).find_map(|(_, r)| Some(r.prefix_break.as_ref()?.tokens_lost));
        let shared = match before.filter(|(last, _)| last.session_id == key.session_id) {
            Some((_, last)) if lost.is_some() => (last - lost.unwrap_or(0) as f64).clamp(0.0, prompt),
            Some((_, last)) if last <= prompt => last,
            Some(_) => {
                n_calls_replaced += 1;
                hit
            }
            None => 0.0,
        };
        sent += prompt;
        new += prompt - shared;
        prefilled += fresh;
        sent_ms += costs.prefill(0.0, prompt);
        new_ms += costs.prefill(shared, prompt - shared);
        let kept = if backfills { mean(|r| r.tokens_raw) } else { Some(prompt) };
        before = kept.map(|kept| (key, kept));
    }
    let ideal_with_attention = (new_ms > 0.0).then(|| sent_ms / new_ms);
    let without_cache = twin(manifest, arm);
    let measured = without_cache.as_ref().and_then(|twin| speedup(grid, twin, arm, manifest.seed).ttft);
    let prefill = |arm_idx| grid.sum(arm_idx, |record| record.spans_ms.prefill);
    let twin_idx = without_cache.as_ref().and_then(|twin| grid.arm_idx(twin));
    let measured_prefill = twin_idx.and_then(|twin| metrics::share(prefill(twin)?, prefill(arm_idx)?));
    let scores = grid.records(arm_idx).any(|record| record.tokens_scored.is_some_and(|n| n > 0));
    let ideal = sent / new;
    let comparable = if scores { measured_prefill } else { measured };
    (new > 0.0 && prefilled > 0.0).then(|| PrefixReuse {
        arm: arm.clone(),
        without_cache,
        ideal,
        ideal_with_attention,
        by_tokens: sent / prefilled,
        measured,
        measured_prefill,
        share_by_tokens: comparable.map(|ratio| ratio / ideal),
        share_with_attention: comparable.zip(ideal_with_attention).map(|(ratio, ideal)| ratio / ideal),
        scores,
        n_calls_replaced,
    })
}

/// The settings of an arm.
fn spec<'a>(manifest: &'a RunManifest, arm: &str) -> Option<&'a Map<String, Value>> {
    manifest.arms.iter().find(|spec| spec.get("name").and_then(Value::as_str) == Some(arm))
}

/// When an arm compresses, as its settings say it.
fn policy(spec: &Map<String, Value>) -> Option<&str> {
    spec.get("compression")?.get("policy")?.as_str()
}

/// The arm of the manifest that is the same but for its cache, which is off.
fn twin(manifest: &RunManifest, arm: &str) -> Option<String> {
    let name = |arm: &Map<String, Value>| arm.get("name").and_then(Value::as_str).map(str::to_owned);
    let rest = |arm: &Map<String, Value>| {
        let mut rest = arm.clone();
        ["name", "cache", "stands_for"].iter().for_each(|key| drop(rest.remove(*key)));
        rest
    };
    let own = rest(spec(manifest, arm)?);
    let is_off = |spec: &Map<String, Value>| spec.get("cache").and_then(Value::as_str) == Some("off");
    manifest.arms.iter().find(|spec| is_off(spec) && rest(spec) == own).and_then(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::PrefixBreak;

    fn manifest() -> RunManifest {
        let arm = |name: &str, cache: &str, compression: &str| {
            let pairs =
                [("name", name), ("cache", cache), ("compression", compression), ("stands_for", name)];
            pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
        };
        let arms = vec![
            arm("packed", "off", "freeze"),
            arm("plain", "off", "none"),
            arm("reusing", "on", "none"),
            arm("alone", "on", "rescore"),
        ];
        RunManifest { arms, ..RunManifest::default() }
    }

    /// (session, tokens reused, tokens prefilled, TTFT) of each call of an arm.
    fn records(arm: &str, calls: &[(&str, u64, u64, f64)]) -> Vec<CallRecord> {
        let record = |(i, &(session, hit, fresh, ttft)): (usize, &(&str, u64, u64, f64))| CallRecord {
            arm: arm.into(),
            session_id: session.into(),
            call_index: i as u32,
            tokens_prefix_hit: Some(hit),
            tokens_prefilled: Some(fresh),
            ttft_ms: Some(ttft),
            cache_state: Some(match (arm, hit) {
                ("plain" | "packed", _) => CacheState::Off,
                (_, 0) => CacheState::Miss,
                _ => CacheState::Hit,
            }),
            ..CallRecord::default()
        };
        calls.iter().enumerate().map(record).collect()
    }

    #[test]
    fn ideal_counts_each_token_once_and_measured_divides_the_times() {
        let mut all = records("plain", &[("s", 0, 100, 100.0), ("s", 0, 200, 200.0), ("s", 0, 300, 300.0)]);
        // Reuse is rounded down to a grid of 64.
        all.extend(records(
            "reusing",
            &[("s", 0, 100, 120.0), ("s", 64, 136, 140.0), ("s", 192, 108, 140.0)],
        ));
        let grid = Grid::new(&manifest(), &all);
        let rows = rows(&manifest(), &grid, None);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].arm.as_str(), rows[0].without_cache.as_deref()), ("reusing", Some("plain")));
        assert_eq!((rows[0].ideal, rows[0].by_tokens), (600.0 / 300.0, 600.0 / 344.0));
        assert_eq!((rows[0].measured, rows[0].n_calls_replaced), (Some(600.0 / 400.0), 0));
        assert_eq!((rows[0].ideal_with_attention, rows[0].share_by_tokens), (None, Some(0.75)));
        assert_eq!(rows[0].share_with_attention, None);
        // Attention alone: 100² + 200² + 300² against 300², however it is cut into calls.
        let costs = Costs { attention_ms: 1.0, ..Costs::default() };
        let row = row(&manifest(), &grid, 2, Some(costs)).unwrap();
        assert_eq!(row.ideal_with_attention, Some(14.0 / 9.0));
        assert_eq!((row.share_by_tokens, row.share_with_attention), (Some(0.75), Some(1.5 / (14.0 / 9.0))));
    }

    #[test]
    fn sessions_share_nothing_and_replaced_history_counts_by_its_own_hit() {
        let calls = [("s", 0, 100, 1.0), ("s", 100, 50, 1.0), ("t", 0, 80, 1.0), ("t", 20, 30, 1.0)];
        let all = records("alone", &calls);
        let grid = Grid::new(&manifest(), &all);
        let rows = rows(&manifest(), &grid, None);
        // 100 and 50 new ones in the first session; 80 and, after its history shrank, 30 in the second.
        assert_eq!((rows[0].ideal, rows[0].n_calls_replaced), (380.0 / 260.0, 1));
        assert_eq!((rows[0].without_cache.as_deref(), rows[0].measured), (None, None));
    }

    #[test]
    fn a_recorded_break_says_what_is_shared() {
        // The second prompt grew, but 60 of the 100 tokens before it are not a part of it.
        let mut all = records("alone", &[("s", 0, 100, 1.0), ("s", 32, 118, 1.0)]);
        all[1].prefix_break = Some(PrefixBreak { tokens_lost: 60, ..PrefixBreak::default() });
        let rows = rows(&manifest(), &Grid::new(&manifest(), &all), None);
        assert_eq!((rows[0].ideal, rows[0].n_calls_replaced), (250.0 / 210.0, 0));
    }

    #[test]
    fn a_prompt_that_lost_rows_was_sent_whole() {
        // Of 260 tokens the second call runs 100 and sees 90 of the other 160: 70 rows were dropped.
        let mut all = records("alone", &[("s", 0, 160, 1.0), ("s", 90, 100, 1.0)]);
        all[0].tokens_raw = Some(160);
        all[1].tokens_raw = Some(260);
        let mut manifest = manifest();
        let policy = serde_json::json!({"policy": "evict"});
        manifest
            .arms
            .iter_mut()
            .find(|spec| spec["name"] == "alone")
            .unwrap()
            .insert("compression".to_owned(), policy);
        let rows = rows(&manifest, &Grid::new(&manifest, &all), None);
        assert_eq!((rows[0].ideal, rows[0].by_tokens), (420.0 / 260.0, 420.0 / 260.0));
    }

    #[test]
    fn a_prompt_that_was_backfilled_is_held_as_it_came() {
        // The first call was answered from 100 of 160 tokens; then all 160 were prefilled.
        let mut all = records("alone", &[("s", 0, 100, 1.0), ("s", 160, 20, 1.0)]);
        all[0].tokens_raw = Some(160);
        all[1].tokens_raw = Some(300);
        all[1].tokens_backfilled = Some(60);
        let rows = rows(&manifest(), &Grid::new(&manifest(), &all), None);
        assert_eq!((rows[0].ideal, rows[0].by_tokens), (280.0 / 120.0, 280.0 / 120.0));
    }

    #[test]
    fn arms_without_a_cache_or_without_counts_have_no_row() {
        let mut all = records("plain", &[("s", 0, 100, 1.0)]);
        all.push(CallRecord {
            arm: "reusing".into(),
            cache_state: Some(CacheState::Miss),
            ..CallRecord::default()
        });
        assert_eq!(rows(&manifest(), &Grid::new(&manifest(), &all), None), []);
    }
}
