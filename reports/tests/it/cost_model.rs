//! The model of cost over made records: what is known comes out, what cannot be known is said to be unknown.

use reports::Report;
use reports::cost::Costs;
use reports::record::{CacheState, CallError, CallRecord, RunManifest, SpansMs};
use reports::report::{BatchFrom, Coefficient, CostModel};
use reports::stats::{Estimate, SplitMix64};

const COSTS: Costs = Costs {
    prefill_ms: 1.23,
    attention_ms: 9.97e-6,
    score_ms: 0.11,
    batch_ms: 3_750.0,
    call_ms: 50.0,
    lookup_ms: 0.0,
};

/// A call by its token counts: held by the cache, prefilled, scored.
type Counts = (u64, u64, u64);

/// Records whose TTFT is what [`COSTS`] says, times 1 ± `spread`.
fn records(arm: &str, calls: &[Counts], spread: f64, rng: &mut SplitMix64) -> Vec<CallRecord> {
    let record = |(i, &(held, new, scored)): (usize, &Counts)| {
        let noise = 1.0 + spread * (rng.below(2001) as f64 / 1000.0 - 1.0);
        let ttft =
            noise * (COSTS.call_ms + COSTS.prefill(held as f64, new as f64) + COSTS.score(scored as f64));
        CallRecord {
            arm: arm.into(),
            session_id: "s".into(),
            call_index: i as u32,
            tokens_raw: Some(held + new),
            tokens_removed: Some(0),
            tokens_prefix_hit: Some(held),
            tokens_prefilled: Some(new),
            tokens_scored: Some(scored),
            messages_tool: Some(i as u64),
            messages_compressed: Some(if scored > 0 { i as u64 } else { 0 }),
            messages_frozen_hit: Some(if scored > 0 { i as u64 - 1 } else { 0 }),
            keep_ratio_realised: (scored > 0).then_some(0.05),
            cache_state: Some(if held > 0 { CacheState::Hit } else { CacheState::Off }),
            ttft_ms: Some(ttft),
            ..CallRecord::default()
        }
    };
    calls.iter().enumerate().map(record).collect()
}

/// Cold, cached and frozen over the same session of growing prompts; the frozen arm keeps a twentieth and reloads.
fn three_arms(spread: f64) -> Vec<CallRecord> {
    let mut rng = SplitMix64::new(3);
    let sizes: Vec<u64> = (0..12).map(|i| 300 + 1_700 * i + 40 * i * i % 900).collect();
    let cold: Vec<Counts> = sizes.iter().map(|&size| (0, size, 0)).collect();
    let steps = || sizes.windows(2).map(|pair| (pair[0], pair[1] - pair[0]));
    let first = (0, sizes[0], 0);
    let cached: Vec<Counts> = [first].into_iter().chain(steps().map(|(held, new)| (held, new, 0))).collect();
    let frozen = steps().map(|(held, new)| (300 + held / 20, 60 + new / 20, new));
    let frozen: Vec<Counts> = [first].into_iter().chain(frozen).collect();
    let mut all = records("cold", &cold, spread, &mut rng);
    all.extend(records("cache-only", &cached, spread, &mut rng));
    all.extend(records("cache+compression", &frozen, spread, &mut rng));
    all
}

fn report(records: &[CallRecord]) -> Report {
    Report::new(RunManifest::default(), records, Vec::new(), Vec::new())
}

fn model(records: &[CallRecord]) -> CostModel {
    report(records).cost_model.unwrap()
}

fn assert_near(estimate: &Coefficient, expected: f64) {
    let value = estimate.value().unwrap_or_else(|| panic!("{estimate:?}"));
    assert!((value / expected - 1.0).abs() < 1e-6, "{value} for {expected}");
}

#[test]
fn coefficients_are_recovered_exactly_from_exact_times() {
    let model = model(&three_arms(0.0));
    assert_near(&model.tokens.prefill, COSTS.prefill_ms);
    assert_near(&model.tokens.attention, COSTS.attention_ms);
    assert_near(&model.tokens.score, COSTS.score_ms);
    assert!(model.r2.unwrap() > 1.0 - 1e-9);
    for row in &model.arms {
        assert_near(&row.fixed.call, COSTS.call_ms);
        assert!((row.predicted_ms / row.measured_ms - 1.0).abs() < 1e-9 && row.miss_ratio_p50 < 1e-9);
    }
    assert_near(model.arms[2].fixed.batch.as_ref().unwrap(), COSTS.batch_ms);
    assert_eq!((&model.arms[0].fixed.batch, &model.arms[1].fixed.batch), (&None, &None));
}

#[test]
fn noise_is_in_the_standard_errors() {
    let model = model(&three_arms(0.004));
    let batch = model.arms[2].fixed.batch.as_ref().unwrap();
    for (estimate, truth) in [
        (&model.tokens.prefill, COSTS.prefill_ms),
        (&model.tokens.attention, COSTS.attention_ms),
        (&model.tokens.score, COSTS.score_ms),
        (batch, COSTS.batch_ms),
    ] {
        let Estimate::Found { value, standard_error: Some(error) } = estimate else { panic!("{estimate:?}") };
        assert!(
            *error > 1e-4 * truth && (value - truth).abs() < 4.0 * error,
            "{value} ± {error} for {truth}"
        );
    }
    assert!(model.r2.unwrap() > 0.99);
}

#[test]
fn break_even_is_the_inequality_with_the_fitted_numbers() {
    let model = model(&three_arms(0.0));
    assert!(model.arms[0].break_even.is_none() && model.arms[1].break_even.is_none());
    let even = model.arms[2].break_even.as_ref().unwrap();
    assert_eq!((even.keep_ratio, even.batch_from), (0.05, BatchFrom::Fit));
    // At that size, behind the mean prompt before what was scored, both sides cost the same.
    let (m, held) = (even.pays_from_tokens.unwrap(), even.held_tokens);
    let whole = COSTS.prefill(held, m);
    let compressed = COSTS.score(m) + COSTS.prefill(held, 0.05 * m);
    assert!((whole / compressed - 1.0).abs() < 1e-6, "{m} tokens behind {held}: {whole} and {compressed}");
    assert!(held > 300.0 && held < 2_000.0, "{held}");
    let mean = even.message_tokens_mean.unwrap();
    assert!(mean > 1_500.0 && mean < 2_000.0 && even.keep_ratio_max.is_none(), "{even:?}");
}

#[test]
fn where_every_call_scores_the_batch_comes_from_the_spans() {
    let mut records = three_arms(0.0);
    records.retain(|record| record.arm != "cache+compression" || record.call_index > 0);
    for record in records.iter_mut().filter(|record| record.arm == "cache+compression") {
        let ttft = record.ttft_ms.unwrap();
        record.spans_ms = SpansMs {
            target_park: Some(250.0),
            drafter_load: Some(1_000.0),
            target_load: Some(2_500.0),
            unexplained: Some(ttft - 3_750.0),
            ..SpansMs::default()
        };
    }
    let model = model(&records);
    let row = &model.arms[2];
    assert_eq!(row.fixed.batch, None);
    assert_near(&row.fixed.call, COSTS.call_ms + COSTS.batch_ms);
    let even = row.break_even.as_ref().unwrap();
    assert_eq!((even.batch_ms, even.batch_from), (3_750.0, BatchFrom::Spans));
}

#[test]
fn one_arm_without_scoring_says_that_the_drafter_is_unknown() {
    let records: Vec<CallRecord> = three_arms(0.0).into_iter().filter(|r| r.arm == "cold").collect();
    let report = report(&records);
    let model = report.cost_model.as_ref().unwrap();
    assert_near(&model.tokens.prefill, COSTS.prefill_ms);
    assert_eq!(model.tokens.score, Estimate::Absent);
    assert!(report.notes.iter().any(|note| note.contains("No call scored a token")), "{:#?}", report.notes);
}

#[test]
fn one_call_determines_nothing_and_the_report_says_so() {
    let report = report(&three_arms(0.0)[5..6]);
    let model = report.cost_model.as_ref().unwrap();
    assert!(matches!(model.tokens.prefill, Estimate::Tied(_)), "{model:?}");
    assert!(matches!(model.arms[0].fixed.call, Estimate::Tied(_)));
    assert_eq!((model.r2, model.arms[0].r2), (None, None));
    let says = |words: &str| report.notes.iter().any(|note| note.contains(words));
    assert!(says("cannot tell apart"), "{:#?}", report.notes);
    assert!(!report.findings.iter().any(|finding| finding.text.starts_with("Fitted to")));
}

#[test]
fn calls_of_one_size_leave_rate_and_fixed_cost_tied_however_many() {
    let calls = vec![(0, 1_000, 0); 20];
    let model = model(&records("cold", &calls, 0.1, &mut SplitMix64::new(1)));
    for estimate in [&model.tokens.prefill, &model.tokens.attention, &model.arms[0].fixed.call] {
        assert!(matches!(estimate, Estimate::Tied(_)), "{estimate:?}");
    }
    assert!((model.arms[0].predicted_ms / model.arms[0].measured_ms - 1.0).abs() < 0.02);
}

#[test]
fn failed_broken_and_uncounted_calls_are_left_out() {
    let clean = three_arms(0.0);
    let mut damaged = clean.clone();
    damaged[1].error = Some(CallError { kind: "backend".into(), message: String::new() });
    damaged[2].tokens_prefilled = Some(1);
    damaged[3].tokens_scored = None;
    damaged[4].ttft_ms = None;
    let model = model(&damaged);
    assert_eq!(model.n_calls, clean.len() - 4);
    assert_near(&model.tokens.prefill, COSTS.prefill_ms);
}

#[test]
fn hostile_numbers_give_a_page_and_no_panic() {
    let mut records = three_arms(0.0);
    for (i, record) in records.iter_mut().enumerate() {
        record.tokens_raw = None;
        record.tokens_prefilled = Some(if i % 2 == 0 { u64::MAX } else { 0 });
        record.tokens_scored = Some(if i % 3 == 0 { u64::MAX } else { 1 });
        record.messages_compressed = Some(u64::MAX);
        record.messages_tool = Some(u64::MAX);
        record.ttft_ms = Some(if i % 5 == 0 { 1e300 } else { f64::MIN_POSITIVE });
    }
    let report = report(&records);
    let arms = report.cost_model.iter().flat_map(|model| &model.arms);
    assert!(arms.clone().all(|row| row.predicted_ms.is_finite()), "{:?}", report.cost_model);
    assert!(reports::render::markdown::render(&report).contains("# Run"));
    assert!(reports::render::json::render(&report).contains("cost_model"));
}
