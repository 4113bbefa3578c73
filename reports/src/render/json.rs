//! `summary.json`: `{schema_version, run_id, arms, speedup_vs_cold, prefix_reuse, cost_model, fidelity, pareto}`, arms in run order, missing
//! numbers `null`.

use serde_json::{Map, Value, json};

use super::fidelity_json;
use crate::report::{ArmCost, BreakEven, CallCosts, Coefficient, CostModel, PrefixReuse, Report, TokenCosts};
use crate::stats::Estimate;
use crate::summary::{ArmSummary, Speedup};

/// The document, indented, with a final line break.
pub fn render(report: &Report) -> String {
    let summary = &report.summary;
    let arms: Map<String, Value> =
        summary.arms.iter().map(|row| (row.arm.clone(), arm(report, row))).collect();
    let speedups: Map<String, Value> =
        summary.speedup_vs_cold.iter().map(|row| (row.arm.clone(), speedup(row))).collect();
    let reuse: Map<String, Value> =
        report.prefix_reuse.iter().map(|row| (row.arm.clone(), prefix_reuse(row))).collect();
    let document = json!({
        "schema_version": summary.schema_version,
        "run_id": summary.run_id,
        "arms": arms,
        "speedup_vs_cold": speedups,
        "prefix_reuse": reuse,
        "cost_model": report.cost_model.as_ref().map(cost_model),
        "fidelity": report.fidelity.as_ref().map(fidelity_json::fidelity),
        "pareto": report.pareto.as_ref().map(fidelity_json::pareto),
    });
    format!("{document:#}\n")
}

fn arm(report: &Report, row: &ArmSummary) -> Value {
    let stages = report.stages.iter().find(|stages| stages.arm == row.arm && stages.total_ms.is_some());
    let spans: Option<Map<String, Value>> = stages
        .map(|stages| stages.spans_ms.iter().map(|(name, ms)| ((*name).to_owned(), json!(ms))).collect());
    let backfills = report.backfills.iter().find(|backfills| backfills.arm == row.arm);
    let scoring = report.rescoring.iter().find(|scoring| scoring.arm == row.arm);
    json!({
        "calls": row.calls,
        "failed": row.failed,
        "ttft_ms_sum": row.ttft_ms_sum,
        "ttft_ms_p50": row.ttft_ms_p50,
        "ttft_ms_p95": row.ttft_ms_p95,
        "e2e_ms_sum": row.e2e_ms_sum,
        "tokens_raw": tokens(row.tokens_raw),
        "tokens_removed": tokens(row.tokens_removed),
        "tokens_prefix_hit": tokens(row.tokens_prefix_hit),
        "tokens_prefilled": tokens(row.tokens_prefilled),
        "tokens_scored": tokens(row.tokens_scored),
        "tokens_backfilled": tokens(backfills.map(|backfills| backfills.tokens)),
        "backfill_ms": backfills.map(|backfills| backfills.backfill_ms),
        "tokens_scored_again": tokens(scoring.map(|scoring| scoring.tokens_again)),
        "messages_scored": scoring.map(|scoring| scoring.n_events),
        "messages_scored_again": scoring.map(|scoring| scoring.n_events_again),
        "spans_ms": spans,
        "structure_valid_rate": row.structure_valid_rate,
        "tool_call_agrees_rate": row.tool_call_agrees_rate,
        "energy_j": row.energy_j,
    })
}

fn speedup(row: &Speedup) -> Value {
    json!({
        "ttft": row.ttft,
        "e2e": row.e2e,
        "ci_low": row.ttft_interval.map(|(low, _)| low),
        "ci_high": row.ttft_interval.map(|(_, high)| high),
    })
}

fn prefix_reuse(row: &PrefixReuse) -> Value {
    json!({
        "without_cache": row.without_cache,
        "ideal": row.ideal,
        "ideal_with_attention": row.ideal_with_attention,
        "by_tokens": row.by_tokens,
        "measured": row.measured,
        "measured_prefill": row.measured_prefill,
        "share_of_ideal": row.share_with_attention.or(row.share_by_tokens),
        "share_of_ideal_by_tokens": row.share_by_tokens,
        "calls_replaced": row.n_calls_replaced,
    })
}

fn cost_model(model: &CostModel) -> Value {
    let arms: Map<String, Value> = model.arms.iter().map(|row| (row.arm.clone(), arm_cost(row))).collect();
    json!({
        "calls": model.n_calls,
        "r2": model.r2,
        "coefficients": token_costs(&model.tokens),
        "arms": arms,
    })
}

fn arm_cost(row: &ArmCost) -> Value {
    let (key, measured, predicted) = &row.miss_max;
    json!({
        "calls": row.n_calls,
        "fixed": call_costs(&row.fixed),
        "ttft_ms_sum": row.measured_ms,
        "ttft_ms_sum_predicted": row.predicted_ms,
        "r2": row.r2,
        "miss_ratio_p50": row.miss_ratio_p50,
        "miss_max": {
            "session_id": key.session_id,
            "call_index": key.call_index,
            "ttft_ms": measured,
            "ttft_ms_predicted": predicted,
        },
        "alone": {
            "r2": row.alone.r2,
            "coefficients": token_costs(&row.alone.tokens),
            "fixed": call_costs(&row.alone.fixed),
        },
        "break_even": row.break_even.as_ref().map(break_even),
    })
}

fn token_costs(tokens: &TokenCosts) -> Value {
    json!({
        "prefill_ms_per_token": coefficient(&tokens.prefill),
        "attention_ms_per_token2": coefficient(&tokens.attention),
        "score_ms_per_token": coefficient(&tokens.score),
    })
}

fn call_costs(fixed: &CallCosts) -> Value {
    json!({
        "call_ms": coefficient(&fixed.call),
        "scoring_call_ms": fixed.batch.as_ref().map(coefficient),
    })
}

/// `null` where the run has no call that it stands for; without a value where only a sum with others is determined.
fn coefficient(estimate: &Coefficient) -> Value {
    match estimate {
        Estimate::Found { value, standard_error } => {
            json!({"value": value, "standard_error": standard_error, "tied_to": []})
        }
        Estimate::Absent => Value::Null,
        Estimate::Tied(with) => json!({"value": null, "standard_error": null, "tied_to": with}),
    }
}

fn break_even(even: &BreakEven) -> Value {
    json!({
        "keep_ratio": even.keep_ratio,
        "score_share": even.score_share,
        "scoring_call_ms": even.batch_ms,
        "scoring_call_from": even.batch_from.as_str(),
        "held_tokens": even.held_tokens,
        "pays_from_tokens": even.pays_from_tokens,
        "scorings_per_message": even.scorings_per_message,
        "message_tokens_mean": even.message_tokens_mean,
        "keep_ratio_max": even.keep_ratio_max,
        "speedup_vs_uncompressed": even.measured.as_ref().map(|(_, ratio)| *ratio),
    })
}

/// Token counts are whole unless repeats differ, so they are written without a fraction where they have none.
fn tokens(value: Option<f64>) -> Value {
    const EXACT_MAX: f64 = (1_u64 << 53) as f64;
    match value {
        Some(n) if n.fract() == 0.0 && n.abs() <= EXACT_MAX => json!(n as i64),
        other => json!(other),
    }
}
