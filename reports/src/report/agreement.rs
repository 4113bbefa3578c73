//! Where generated tool calls differ from the recorded ones, and what the prompt no longer held there.

use super::findings::{Finding, Tone};
use crate::grid::{CallKey, Grid};
use crate::number::counted;
use crate::record::CallRecord;
use crate::summary::{BASELINE_ARM, Summary};

/// Calls named in a sentence; the table has more.
const CALLS_NAMED_MAX: usize = 4;
/// Words named for one of them.
const WORDS_NAMED_MAX: usize = 2;

/// A call whose generated tool calls are not the recorded ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Arm name.
    pub arm: String,
    /// The call.
    pub key: CallKey,
    /// Whether `cold` made the recorded calls; `None` where it was not run or failed.
    pub cold_agrees: Option<bool>,
    /// Words that the recorded calls need and the prompt as sent no longer held; at most a few.
    pub elided: Vec<String>,
}

/// Every call of the first repeat that differs, by arm, then in session order.
pub(super) fn disagreements(grid: &Grid) -> Vec<Disagreement> {
    let agrees = |record: &CallRecord| record.fidelity.tool_call_agrees;
    let first = |arm_idx, call_idx| grid.repeats(arm_idx, call_idx).next().map(|(_, record)| record);
    let cold_idx = grid.arm_idx(BASELINE_ARM);
    let mut found = Vec::new();
    for (arm_idx, arm) in grid.arms().iter().enumerate() {
        for (call_idx, key) in grid.calls().iter().enumerate() {
            let Some(record) = first(arm_idx, call_idx).filter(|record| agrees(record) == Some(false)) else {
                continue;
            };
            found.push(Disagreement {
                arm: arm.clone(),
                key: key.clone(),
                cold_agrees: cold_idx.and_then(|cold| agrees(first(cold, call_idx)?)),
                elided: record.fidelity.needles_elided.clone(),
            });
        }
    }
    found
}

/// How often each arm repeats the recorded calls; then, per arm, where it fails and `cold` does not, and why.
pub(super) fn findings(summary: &Summary, disagreements: &[Disagreement]) -> Vec<Finding> {
    let compared: Vec<String> = summary
        .arms
        .iter()
        .filter(|arm| arm.agreement_checked > 0)
        .map(|arm| format!("{} {}/{}", arm.arm, arm.agreement, arm.agreement_checked))
        .collect();
    if compared.is_empty() {
        return Vec::new();
    }
    let text = format!("Generated tool calls that equal the recorded ones: {}.", compared.join(", "));
    let mut findings = vec![Finding { tone: Tone::Neutral, text }];
    findings.extend(summary.arms.iter().filter_map(|arm| against_cold(&arm.arm, disagreements)));
    findings
}

fn against_cold(arm: &str, disagreements: &[Disagreement]) -> Option<Finding> {
    let lost: Vec<&Disagreement> =
        disagreements.iter().filter(|d| d.arm == arm && d.cold_agrees == Some(true)).collect();
    if lost.is_empty() {
        return None;
    }
    let named: Vec<String> = lost.iter().take(CALLS_NAMED_MAX).map(|d| reason(d)).collect();
    let rest = lost.len() - named.len();
    let rest = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    let calls = counted(lost.len() as u64, "call");
    let text = format!(
        "{arm} departs from the recorded tool call where cold does not on {calls}: {}{rest}.",
        named.join("; ")
    );
    Some(Finding { tone: Tone::Bad, text })
}

fn reason(disagreement: &Disagreement) -> String {
    let Disagreement { key, elided, .. } = disagreement;
    let call = key.call_index.saturating_add(1);
    if elided.is_empty() {
        return format!("call {call} (nothing that it needs was elided)");
    }
    let words: Vec<&str> = elided.iter().take(WORDS_NAMED_MAX).map(String::as_str).collect();
    let more = if elided.len() > words.len() { ", ..." } else { "" };
    format!("call {call} (elided: {}{more})", words.join(", "))
}
