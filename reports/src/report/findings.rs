//! What the data says and what limits it, in sentences computed from the records. Nothing is claimed that an interval does
//! not carry, and what speaks against an arm is said as loudly as what speaks for it.

use serde_json::Value;

use super::{PrefixReuse, Rescoring, SlowerCall};
use crate::grid::Grid;
use crate::number::{count, counted, duration, factor, percent};
use crate::record::RunManifest;
use crate::stats::P95_SAMPLES_MIN;
use crate::summary::{ArmSummary, BASELINE_ARM, IntervalOver, Speedup, Summary, speedup};

/// Which way a finding points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Better than the baseline, or as it must be.
    Good,
    /// Worse than the baseline, or broken.
    Bad,
    /// Neither.
    Neutral,
}

/// A sentence about the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which way it points.
    pub tone: Tone,
    /// The sentence.
    pub text: String,
}

/// What sentences are made of.
pub(super) struct Facts<'a> {
    pub(super) manifest: &'a RunManifest,
    pub(super) grid: &'a Grid<'a>,
    pub(super) summary: &'a Summary,
    pub(super) rescoring: &'a [Rescoring],
    pub(super) prefix_reuse: &'a [PrefixReuse],
}

/// A cache that gives this share of its ideal is as good as can be measured.
const NEAR_IDEAL: f64 = 0.9;
/// More verdicts of one kind than this are folded: a sweep has an arm per budget.
const VERDICTS_TOLD_MAX: usize = 8;

/// Findings in the order of importance.
pub(super) fn findings(facts: &Facts, slower: &[SlowerCall]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let against_cold = facts.summary.speedup_vs_cold.iter().filter_map(against_cold).collect();
    findings.extend(told(against_cold, "are faster than cold to the first token"));
    findings.extend(stacking(facts));
    findings.extend(facts.prefix_reuse.iter().filter_map(reused));
    findings.extend(facts.rescoring.iter().map(scored));
    findings.extend(exactness(facts.summary));
    findings.extend(structure(facts.summary));
    findings.extend(slower_calls(facts.summary, slower));
    findings.extend(failed(facts.summary));
    findings
}

/// Where a ratio stands against 1, by its interval; without one, by its point.
fn side_of_one(speedup: &Speedup) -> Option<Tone> {
    let point = speedup.ttft?;
    let (low, high) = speedup.ttft_interval.unwrap_or((point, point));
    Some(if low > 1.0 {
        Tone::Good
    } else if high < 1.0 {
        Tone::Bad
    } else {
        Tone::Neutral
    })
}

/// `" (95 % interval 2.9x to 3.3x over the calls of this one session)"`, or nothing. A verdict of "slower" counts its factor
/// the other way round, and its interval with it.
fn interval_words(speedup: &Speedup, tone: Tone) -> String {
    let over = match speedup.interval_over {
        IntervalOver::Sessions => format!("over {} sessions", speedup.n_clusters),
        IntervalOver::Calls => "over the calls of this one session".to_string(),
    };
    let Some((low, high)) = speedup.ttft_interval else { return String::new() };
    let (low, high) = if tone == Tone::Bad { (1.0 / high, 1.0 / low) } else { (low, high) };
    format!(" (95 % interval {} to {} {over})", factor(low), factor(high))
}

/// A verdict on an arm by a ratio of times, as a sentence of its own.
struct Verdict {
    arm: String,
    ratio: f64,
    finding: Finding,
}

/// Each verdict; of many, one sentence for all arms that are faster outside of their intervals and one for the others, whose
/// numbers stand in the table of arms.
fn told(verdicts: Vec<Verdict>, words: &str) -> Vec<Finding> {
    if verdicts.len() <= VERDICTS_TOLD_MAX {
        return verdicts.into_iter().map(|verdict| verdict.finding).collect();
    }
    let n_all = verdicts.len();
    let (good, rest): (Vec<_>, Vec<_>) =
        verdicts.into_iter().partition(|verdict| verdict.finding.tone == Tone::Good);
    let least = good.iter().min_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let most = good.iter().max_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let all = least.zip(most).map(|(least, most)| Finding {
        tone: Tone::Good,
        text: format!(
            "{} of {n_all} arms {words}, from {} ({}) to {} ({}), outside of their 95 % intervals.",
            good.len(),
            factor(least.ratio),
            least.arm,
            factor(most.ratio),
            most.arm
        ),
    });
    all.into_iter().chain(rest.into_iter().map(|verdict| verdict.finding)).collect()
}

fn against_cold(speedup: &Speedup) -> Option<Verdict> {
    let tone = side_of_one(speedup)?;
    let (arm, point) = (&speedup.arm, speedup.ttft?);
    let (cold_ms, arm_ms) = speedup.ttft_ms_sums?;
    let verdict = match tone {
        Tone::Good => format!("{arm} is {} faster than cold to the first token", factor(point)),
        Tone::Bad => format!("{arm} is {} slower than cold to the first token", factor(1.0 / point)),
        Tone::Neutral => format!("{arm} and cold cannot be told apart by this run: {}", factor(point)),
    };
    let text = format!(
        "{verdict}, {} against {} summed over {}{}.",
        duration(arm_ms),
        duration(cold_ms),
        counted(speedup.n_calls as u64, "call"),
        interval_words(speedup, tone)
    );
    Some(Verdict { arm: arm.clone(), ratio: point, finding: Finding { tone, text } })
}

/// Whether an arm that both compresses and reuses beats the best arm that does only one of the two.
fn stacking(facts: &Facts) -> Vec<Finding> {
    let reuses = |row: &ArmSummary| row.tokens_prefix_hit.is_some_and(|n| n > 0.0);
    let compresses = |row: &ArmSummary| {
        row.tokens_scored.is_some_and(|n| n > 0.0) || row.tokens_removed.is_some_and(|n| n != 0.0)
    };
    let rows = &facts.summary.arms;
    let gain =
        |row: &ArmSummary| facts.summary.speedup(&row.arm).and_then(|s| s.ttft).unwrap_or(f64::NEG_INFINITY);
    let single =
        rows.iter().filter(|row| reuses(row) != compresses(row)).max_by(|a, b| gain(a).total_cmp(&gain(b)));
    let Some(single) = single else { return Vec::new() };
    let both = rows.iter().filter(|row| reuses(row) && compresses(row));
    let verdicts = both.filter_map(|row| stack_verdict(facts, &single.arm, &row.arm)).collect();
    told(verdicts, &format!("stack, faster than {}, the best single layer", single.arm))
}

fn stack_verdict(facts: &Facts, single: &str, stacked: &str) -> Option<Verdict> {
    let against = speedup(facts.grid, single, stacked, facts.manifest.seed);
    let (tone, point) = (side_of_one(&against)?, against.ttft?);
    let interval = interval_words(&against, tone);
    let text = match tone {
        Tone::Good => format!(
            "The layers stack in {stacked}: {} faster than {single}, the best single layer{interval}.",
            factor(point)
        ),
        Tone::Bad => format!(
            "The layers anti-stack in {stacked}: {} slower than {single} alone{interval}.",
            factor(1.0 / point)
        ),
        Tone::Neutral => format!(
            "Whether the layers stack in {stacked} is open: {} against {single}, the best single layer{interval}.",
            factor(point)
        ),
    };
    Some(Verdict { arm: stacked.to_owned(), ratio: point, finding: Finding { tone, text } })
}

/// What reuse gave, beside both readings of what it could have given.
fn reused(row: &PrefixReuse) -> Option<Finding> {
    let (without, measured) = (row.without_cache.as_ref()?, row.measured?);
    let by_tokens = row.share_by_tokens?;
    let prefill = match row.measured_prefill.filter(|_| row.scores) {
        Some(ratio) => format!(", its prefill {}", factor(ratio)),
        None => String::new(),
    };
    let with_attention = match (row.ideal_with_attention, row.share_with_attention) {
        (Some(ideal), Some(share)) => format!(
            "; with attention counted by the fitted model, as reuse does not save it, {}: {} of it",
            factor(ideal),
            percent(share)
        ),
        _ => String::new(),
    };
    let text = format!(
        "The prefix cache makes {} {} faster than {without}{prefill}. Prefilling each token once would give {} by tokens alone: {} \
         of it was reached{with_attention}.",
        row.arm,
        factor(measured),
        factor(row.ideal),
        percent(by_tokens),
    );
    let share = row.share_with_attention.unwrap_or(by_tokens);
    Some(Finding { tone: if share >= NEAR_IDEAL { Tone::Good } else { Tone::Neutral }, text })
}

fn scored(row: &Rescoring) -> Finding {
    let Rescoring { arm, tokens_scored, n_events, n_events_again, .. } = row;
    let events = counted(*n_events, "scoring");
    if *n_events_again == 0 {
        let text = format!(
            "{arm} scored {} tokens in {events} of tool messages, none of them twice.",
            count(*tokens_scored)
        );
        return Finding { tone: Tone::Neutral, text };
    }
    let text = format!(
        "{arm} scored {} tokens in {events} of tool messages; {} of these scorings, {} tokens, had been done by an earlier \
         call.",
        count(*tokens_scored),
        count(*n_events_again as f64),
        row.tokens_again_words(),
    );
    Finding { tone: Tone::Bad, text }
}

fn exactness(summary: &Summary) -> Option<Finding> {
    let checked: u64 = summary.arms.iter().map(|a| a.exact_checked).sum();
    let exact: u64 = summary.arms.iter().map(|a| a.exact).sum();
    (checked > 0).then(|| {
        let text = format!(
            "Cached logits equal cold logits bit for bit in {exact} of {}.",
            counted(checked, "checked call")
        );
        Finding { tone: if exact == checked { Tone::Good } else { Tone::Bad }, text }
    })
}

fn structure(summary: &Summary) -> Option<Finding> {
    let checked: u64 = summary.arms.iter().map(|a| a.structure_checked).sum();
    let per_arm: Vec<String> = summary
        .arms
        .iter()
        .filter(|a| a.structure_checked > 0)
        .map(|a| format!("{} {}/{}", a.arm, a.structure_valid, a.structure_checked))
        .collect();
    (checked > 0).then(|| Finding {
        tone: Tone::Neutral,
        text: format!("Outputs that pass every structure check, without repair: {}.", per_arm.join(", ")),
    })
}

/// `slower` comes worst first, so the first call of an arm is its worst; of many arms only the first of all is told.
fn slower_calls(summary: &Summary, slower: &[SlowerCall]) -> Option<Finding> {
    let worst = |call: &SlowerCall| {
        format!(
            "worst: call {} of {}, {} to {}",
            call.key.call_index.saturating_add(1),
            call.key.session_id,
            duration(call.cold_ms),
            duration(call.arm_ms)
        )
    };
    let per_arm: Vec<String> = summary
        .arms
        .iter()
        .filter_map(|arm| {
            let own: Vec<&SlowerCall> = slower.iter().filter(|call| call.arm == arm.arm).collect();
            let first = own.first()?;
            Some(format!("{} on {} ({})", arm.arm, counted(own.len() as u64, "call"), worst(first)))
        })
        .collect();
    let text = if per_arm.len() <= VERDICTS_TOLD_MAX {
        per_arm.join("; ")
    } else {
        let (first, n_calls) = (slower.first()?, counted(slower.len() as u64, "call"));
        format!("{} arms on {n_calls} in all ({}, {})", per_arm.len(), first.arm, worst(first))
    };
    (!per_arm.is_empty()).then(|| Finding { tone: Tone::Bad, text: format!("Slower than cold: {text}.") })
}

fn failed(summary: &Summary) -> Option<Finding> {
    let per_arm: Vec<String> = summary
        .arms
        .iter()
        .filter(|a| a.failed > 0)
        .map(|a| format!("{} {} of {}", a.arm, a.failed, a.calls))
        .collect();
    (!per_arm.is_empty()).then(|| Finding {
        tone: Tone::Bad,
        text: format!("Calls failed: {}. Sums and ratios leave failed calls out.", per_arm.join(", ")),
    })
}

/// Limits of the numbers.
pub(super) fn notes(facts: &Facts) -> Vec<String> {
    let summary = facts.summary;
    let mut notes = Vec::new();
    if has_random_weights(facts.manifest) {
        notes.push(
            "A model of this run has seeded random weights: times, token counts and exactness are real; generated text, \
             structure verdicts, agreement and which tokens compression keeps carry no meaning."
                .to_string(),
        );
    }
    let measured = summary.arms.iter().any(|a| a.ttft_samples > 0);
    if measured && summary.arms.iter().any(|a| (a.ttft_samples as usize) < P95_SAMPLES_MIN) {
        notes.push(format!(
            "Below {P95_SAMPLES_MIN} samples a 95th percentile is a guess: the largest value stands there."
        ));
    }
    if summary
        .speedup_vs_cold
        .iter()
        .any(|s| s.ttft_interval.is_some() && s.interval_over == IntervalOver::Calls)
    {
        notes.push(
            "One session: the intervals are drawn over its calls and speak about this session, not about others like it."
                .to_string(),
        );
    }
    if facts.grid.n_repeats() == 1 {
        notes.push(
            "One repeat: drift of the machine between arms is not averaged out; use --repeats.".to_string(),
        );
    }
    if summary.arm(BASELINE_ARM).is_none() && !summary.arms.is_empty() {
        notes.push("The arm cold was not run, so there is no speedup to show.".to_string());
    }
    notes.extend(incomplete(facts));
    notes
}

/// Says which arms lack calls that others have: their sums do not compare.
fn incomplete(facts: &Facts) -> Option<String> {
    let n_calls = facts.grid.calls().len();
    let expected = (n_calls * facts.grid.n_repeats()) as u64;
    let short: Vec<String> = facts
        .summary
        .arms
        .iter()
        .filter(|arm| arm.calls < expected)
        .map(|arm| format!("{} {} of {expected}", arm.arm, arm.calls))
        .collect();
    let cut = facts.manifest.calls_planned > expected * facts.summary.arms.len() as u64;
    match (short.is_empty(), cut) {
        (true, false) => None,
        (true, true) => Some(format!(
            "The run is not finished: {} of {} planned calls are recorded.",
            summary_calls(facts.summary),
            facts.manifest.calls_planned
        )),
        (false, _) => Some(format!(
            "The run is not finished, calls recorded: {}. Sums of such arms do not compare; the speedups do, as they are over \
             calls that both sides measured.",
            short.join(", ")
        )),
    }
}

fn summary_calls(summary: &Summary) -> u64 {
    summary.arms.iter().map(|a| a.calls).sum()
}

/// A model is marked as random, or named as a synthetic shape.
pub(super) fn has_random_weights(manifest: &RunManifest) -> bool {
    let synthetic = |value: &Value| value.as_str().is_some_and(|name| name.starts_with("synthetic:"));
    manifest.models.values().any(|model| {
        synthetic(model)
            || model.get("random_weights").and_then(Value::as_bool) == Some(true)
            || model.get("name").is_some_and(synthetic)
    })
}
