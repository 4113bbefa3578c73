//! The plan as a person or a program reads it.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::table::{Align, Table};
use crate::cli::{output, size};
use crate::error::ReplayError;
use crate::plan::Plan;

/// Prints the plan to stdout.
///
/// # Errors
/// Stdout refuses.
pub fn print(plan: &Plan, run_dir: Option<&Path>, as_json: bool) -> Result<(), ReplayError> {
    if as_json { output::json(&to_json(plan, run_dir)?) } else { output::text(&to_text(plan, run_dir)?) }
}

fn run_dir_word(run_dir: Option<&Path>) -> String {
    run_dir.map_or_else(|| "runs/TIME-ID".to_owned(), |path| path.display().to_string())
}

/// The plan as JSON: what it holds, the order of its passes and the counts.
fn to_json(plan: &Plan, run_dir: Option<&Path>) -> Result<Value, ReplayError> {
    let order: Vec<Value> = plan
        .passes()
        .iter()
        .map(|pass| json!({ "repeat": pass.repeat, "arm": plan.arms[pass.arm_index].name }))
        .collect();
    Ok(json!({
        "schema_version": reports::record::SCHEMA_VERSION,
        "calls_planned": plan.calls_planned(),
        "calls_per_pass": plan.calls_per_pass(),
        "arms": serde_json::to_value(&plan.arms)?,
        "sessions": serde_json::to_value(&plan.sessions)?,
        "order": order,
        "settings": serde_json::to_value(&plan.settings)?,
        "output": run_dir_word(run_dir),
        "notes": plan.notes,
    }))
}

fn to_text(plan: &Plan, run_dir: Option<&Path>) -> Result<String, ReplayError> {
    let order: Vec<&str> = plan.passes().iter().map(|pass| plan.arms[pass.arm_index].name.as_str()).collect();
    let mut text = format!(
        "{} calls: {} per pass x {} arms x {} repeats\norder: {}\n\n",
        plan.calls_planned(),
        plan.calls_per_pass(),
        plan.arms.len(),
        plan.settings.repeats,
        shortened(&order)
    );
    text += &sessions(plan).render();
    text += "\n";
    text += &arms(plan).render();
    text += "\n";
    text += &settings(plan, run_dir)?.render();
    for note in &plan.notes {
        text += &format!("\nnote: {note}");
    }
    if !plan.notes.is_empty() {
        text += "\n";
    }
    Ok(text)
}

/// The order of the passes, cut where nobody would read on.
fn shortened(order: &[&str]) -> String {
    const SHOWN_MAX: usize = 16;
    let shown = order.iter().take(SHOWN_MAX).copied().collect::<Vec<_>>().join(" ");
    match order.len().checked_sub(SHOWN_MAX) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}

fn sessions(plan: &Plan) -> Table {
    let mut table = Table::new(&[
        ("session", Align::Left),
        ("kind", Align::Left),
        ("calls", Align::Right),
        ("replayed", Align::Left),
        ("longest prompt", Align::Right),
        ("fidelity", Align::Left),
        ("source", Align::Left),
    ]);
    for session in &plan.sessions {
        let replayed = match (session.call_indices.first(), session.call_indices.last()) {
            (Some(first), Some(last)) => {
                format!("{} in {}..{}", session.call_indices.len(), first + 1, last + 1)
            }
            _ => "none".to_owned(),
        };
        table.row([
            session.session_id.clone(),
            session.kind.clone(),
            session.calls.to_string(),
            replayed,
            size::show(session.prompt_bytes_max),
            session.fidelity_level.clone(),
            session.source.clone(),
        ]);
    }
    table
}

fn arms(plan: &Plan) -> Table {
    let columns = [
        "arm",
        "cache",
        "compression",
        "verbatim newest",
        "keep",
        "threshold",
        "score by",
        "layers",
        "rope",
        "selection",
        "keep floor",
        "verbatim tools",
        "with tools",
        "user fallback",
        "rewrite",
        "residency",
        "stands for",
    ];
    let mut table = Table::new(&columns.map(|name| (name, Align::Left)));
    for arm in &plan.arms {
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let json = json!(arm);
        let compression = &json["compression"];
        let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let keep = arm.compression.as_ref().map(|c| format!("{}", f64::from(c.keep_permille) / 1000.0));
        table.row([
            arm.name.clone(),
            word(&json["cache"]),
            if arm.compression.is_some() { word(&compression["policy"]) } else { "none".to_owned() },
            number(compression["keep_verbatim_newest"].as_u64()),
            keep.unwrap_or_else(|| "-".to_owned()),
            number(compression["threshold_tokens"].as_u64()),
            word(&compression["score_by"]),
            word(&compression["score_layers"]),
            word(&compression["score_rope"]),
            word(&compression["selection"]),
            number(compression["keep_floor_tokens"].as_u64()),
            arm.compression.as_ref().map_or_else(|| "-".to_owned(), |c| c.verbatim_tools.join(" ")),
            word(&compression["with_tools"]),
            word(&compression["user_fallback"]),
            word(&json["rewrite"]),
            word(&json["residency"]),
            arm.stands_for.clone(),
        ]);
    }
    table
}

/// Every setting with its value, in the order of [`crate::settings::Settings`].
fn settings(plan: &Plan, run_dir: Option<&Path>) -> Result<Table, ReplayError> {
    let mut table = Table::new(&[("setting", Align::Left), ("value", Align::Left)]);
    let value = serde_json::to_value(&plan.settings)?;
    for (key, value) in value.as_object().into_iter().flatten() {
        let shown = match (key.as_str(), value) {
            ("kv_budget_bytes", value) => value.as_u64().map(size::show).unwrap_or_default(),
            ("sessions", Value::Array(paths)) if paths.is_empty() => "a bundled session".to_owned(),
            ("threads", Value::Null) => "every core".to_owned(),
            (_, Value::Null) => "-".to_owned(),
            (_, Value::String(text)) => text.clone(),
            (_, Value::Array(items)) => {
                items.iter().map(|item| item.as_str().unwrap_or("?")).collect::<Vec<_>>().join(" ")
            }
            (_, other) => other.to_string(),
        };
        table.row([key.clone(), shown]);
    }
    table.row(["output".to_owned(), run_dir_word(run_dir)]);
    Ok(table)
}
