//! `summary.json`: `{schema_version, run_id, arms, speedup_vs_cold}`, arms in run order, missing numbers `null`.

use serde_json::{Map, Value, json};

use crate::summary::{ArmSummary, Speedup, Summary};

/// The document, indented, with a final line break.
pub fn render(summary: &Summary) -> String {
    let arms: Map<String, Value> = summary.arms.iter().map(|row| (row.arm.clone(), arm(row))).collect();
    let speedups: Map<String, Value> =
        summary.speedup_vs_cold.iter().map(|row| (row.arm.clone(), speedup(row))).collect();
    let document = json!({
        "schema_version": summary.schema_version,
        "run_id": summary.run_id,
        "arms": arms,
        "speedup_vs_cold": speedups,
    });
    format!("{document:#}\n")
}

fn arm(row: &ArmSummary) -> Value {
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
        "structure_valid_rate": row.structure_valid_rate,
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

/// Token counts are whole unless repeats differ, so they are written without a fraction where they have none.
fn tokens(value: Option<f64>) -> Value {
    const EXACT_MAX: f64 = (1_u64 << 53) as f64;
    match value {
        Some(n) if n.fract() == 0.0 && n.abs() <= EXACT_MAX => json!(n as i64),
        other => json!(other),
    }
}
