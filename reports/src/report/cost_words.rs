//! What the fitted model of cost says, and what the run could not tell, in sentences.

use std::collections::BTreeSet;

use super::{ArmCost, Coefficient, CostModel, Finding, Tone};
use crate::number::{count, counted, duration, factor, measured, percent};
use crate::stats::Estimate;

/// Sums of an arm that the model misses by more are said in red: its coefficients do not explain that arm.
const MISS_MAX: f64 = 0.25;

/// The coefficients and how well they predict, then when compression pays.
pub(super) fn findings(model: &CostModel) -> Vec<Finding> {
    let mut findings: Vec<Finding> = coefficients(model).into_iter().collect();
    findings.extend(model.arms.iter().filter_map(pays));
    findings
}

fn coefficients(model: &CostModel) -> Option<Finding> {
    let known = |estimate: &Coefficient, scale: f64, unit: &str| {
        Some(format!("{} ms {unit}", coefficient(estimate, scale)?))
    };
    let tokens = &model.tokens;
    let parts = [
        known(&tokens.prefill, 1e3, "per 1,000 tokens prefilled"),
        known(&tokens.attention, 1e6, "per 1,000² tokens of attention"),
        known(&tokens.score, 1e3, "per 1,000 tokens scored"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let off = model.arms.iter().map(|row| (row, (row.predicted_ms / row.measured_ms - 1.0).abs()));
    let (worst, miss) = off.max_by(|a, b| a.1.total_cmp(&b.1))?;
    let explained = model.r2.map(|r2| format!(", R² {r2:.3}")).unwrap_or_default();
    (!parts.is_empty()).then(|| Finding {
        tone: if miss > MISS_MAX { Tone::Bad } else { Tone::Neutral },
        text: format!(
            "Fitted to {}: {}{explained}; TTFT sums are predicted within {} (worst: {}).",
            counted(model.n_calls as u64, "call"),
            parts.join(", "),
            percent(miss),
            worst.arm
        ),
    })
}

/// `32.7 ± 3.0`, scaled; `None` where the run does not determine it.
pub(crate) fn coefficient(estimate: &Coefficient, scale: f64) -> Option<String> {
    match estimate {
        Estimate::Found { value, standard_error: Some(error) } => {
            Some(format!("{} ± {}", measured(value * scale), measured(error * scale)))
        }
        Estimate::Found { value, standard_error: None } => Some(measured(value * scale)),
        Estimate::Absent | Estimate::Tied(_) => None,
    }
}

/// An arm that scores again pays on every call, so that the price of a birth alone says little of it.
fn pays(row: &ArmCost) -> Option<Finding> {
    let even = row.break_even.as_ref().filter(|even| even.scorings_per_message <= 1.0)?;
    let batch = if even.batch_ms > 0.0 {
        format!(" and {} a scoring call", duration(even.batch_ms))
    } else {
        String::new()
    };
    let price = format!(
        "the drafter costs {} of the target a token (attention apart){batch}, behind {} tokens of prompt",
        percent(even.score_share),
        count(even.held_tokens)
    );
    let kept = percent(even.keep_ratio);
    let sizes = match even.pays_from_tokens {
        None => "no tool message by the fitted rates".to_string(),
        Some(tokens) if tokens < 1.0 => "tool messages of any size".to_string(),
        Some(tokens) => format!("tool messages of {} tokens on", count(tokens.ceil())),
    };
    let mean = even
        .message_tokens_mean
        .map(|mean| format!("; the mean one scored has {}", count(mean)))
        .unwrap_or_default();
    let measured = even.measured.as_ref().map(|(twin, ratio)| {
        format!(" Measured, with what later calls save: {} {}.", factor(*ratio), against(*ratio, twin))
    });
    let is_less = |tokens: f64| even.message_tokens_mean.is_none_or(|mean| mean >= tokens);
    let is_paid = even.pays_from_tokens.is_some_and(is_less);
    let is_won = even.measured.as_ref().is_some_and(|(_, ratio)| *ratio > 1.0);
    let from = if even.pays_from_tokens.is_some_and(|tokens| tokens >= 1.0) { "from" } else { "for" };
    let text = format!(
        "Compression to {kept} pays at birth {from} {sizes} in {}: {price}{mean}.{}",
        row.arm,
        measured.unwrap_or_default()
    );
    Some(Finding { tone: if is_paid || is_won { Tone::Neutral } else { Tone::Bad }, text })
}

/// What a ratio of speeds is said to be.
fn against(ratio: f64, twin: &str) -> String {
    if ratio >= 1.0 { format!("faster than {twin}") } else { format!("of the speed of {twin}") }
}

/// Which coefficients the run does not determine, and why.
pub(super) fn notes(model: &CostModel) -> Vec<String> {
    let tokens = &model.tokens;
    let named = [
        ("prefilled tokens", &tokens.prefill),
        ("scored tokens", &tokens.score),
        ("attention", &tokens.attention),
    ];
    let fixed: Vec<(String, &Coefficient)> = model
        .arms
        .iter()
        .flat_map(|row| {
            let batch =
                row.fixed.batch.iter().map(|batch| (format!("the scoring calls of {}", row.arm), batch));
            [(format!("the fixed cost of {}", row.arm), &row.fixed.call)].into_iter().chain(batch)
        })
        .collect();
    let all =
        || named.iter().map(|&(name, e)| (name, e)).chain(fixed.iter().map(|(name, e)| (name.as_str(), *e)));

    let mut notes = Vec::new();
    let ties: BTreeSet<BTreeSet<&str>> = all()
        .filter_map(|(name, estimate)| match estimate {
            Estimate::Tied(with) => Some(with.iter().map(String::as_str).chain([name]).collect()),
            _ => None,
        })
        .collect();
    for tie in ties {
        let names: Vec<&str> = tie.into_iter().collect();
        notes
            .push(format!("The fit cannot tell apart {}: they change together in this run.", joined(&names)));
    }
    let open = |estimate: &Coefficient| {
        matches!(estimate, Estimate::Found { value, .. } if *value > 0.0)
            && estimate.told_from_zero().is_none()
    };
    let open: Vec<&str> = all().filter(|(_, estimate)| open(estimate)).map(|(name, _)| name).collect();
    if !open.is_empty() {
        notes.push(format!("The fit does not tell {} from 0: less than two standard errors.", joined(&open)));
    }
    if model.tokens.score == Estimate::Absent {
        notes.push("No call scored a token: the drafter's rate is not in this run.".to_string());
    }
    notes
}

/// `a, b and c`.
fn joined(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_string(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
