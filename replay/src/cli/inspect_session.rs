//! A session as `reprise inspect` shows it: tables of sizes, gaps, breaks and findings, and the plot. Sums up what
//! `transcripts` measured; reads no file.

use std::collections::BTreeMap;
use std::path::Path;

use reports::render::plot::session::{self as drawing, CallShape, OutputShape, SessionShape};
use reports::stats::{maximum, median, percentile};
use transcripts::inspect::{Inspection, SessionSummary};
use transcripts::profile::REPEAT_CHARS_MIN;
use transcripts::structure::{Code, Finding};

use crate::cli::table::{Align, Table};
use crate::error::ReplayError;

/// Findings told one by one for each code; `--json` has all.
const EXAMPLES_MAX: usize = 3;
/// Prefix breaks listed one by one; `--json` has all.
const BREAKS_SHOWN_MAX: usize = 12;
/// Prefix breaks named in a session's row of the overview.
const BREAKS_IN_ROW_MAX: usize = 3;
/// Sizes of tool outputs whose share is told, chars.
const LARGE_CHARS: [u64; 3] = [1_024, 4_096, 12_000];
/// A gap after which common providers have dropped the prefix.
const LONG_GAP_MS: u64 = 5 * 60 * 1_000;

/// A row per session, then the files with bad lines.
pub fn overview(inspection: &Inspection) -> String {
    let mut table = Table::new(&[
        ("session", Align::Left),
        ("kind", Align::Left),
        ("calls", Align::Right),
        ("messages", Align::Right),
        ("tool %", Align::Right),
        ("breaks", Align::Left),
        ("findings", Align::Right),
        ("fidelity", Align::Left),
    ]);
    for session in &inspection.sessions {
        table.row([
            session.session_id.clone(),
            session.kind.clone(),
            session.calls.to_string(),
            session.messages.to_string(),
            session.tool_bytes_share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}", share * 100.0)),
            breaks_in_row(session),
            session.findings.len().to_string(),
            session.fidelity.level.as_str().to_owned(),
        ]);
    }
    let calls: usize = inspection.sessions.iter().map(|session| session.calls).sum();
    let bad: u64 = inspection.files.iter().map(|file| file.bad_lines).sum();
    let mut text = table.render();
    text += &format!(
        "{} sessions, {calls} calls, {} files, {bad} bad lines\n",
        inspection.sessions.len(),
        inspection.files.len()
    );
    text
}

/// The first breaks as `call:cause`, and how many more there are.
fn breaks_in_row(session: &SessionSummary) -> String {
    let all = &session.prefix_breaks;
    let named = all.iter().take(BREAKS_IN_ROW_MAX);
    let mut named: Vec<String> =
        named.map(|found| format!("{}:{}", found.call_index + 1, found.cause.as_str())).collect();
    if all.len() > BREAKS_IN_ROW_MAX {
        named.push(format!("+{}", all.len() - BREAKS_IN_ROW_MAX));
    }
    if named.is_empty() { "-".to_owned() } else { named.join(" ") }
}

/// Everything about one session: why it is no closer to what was sent, its sizes, its breaks, what its requests break.
pub fn details(session: &SessionSummary) -> String {
    let mut text = format!("\n{}\n", clean(&session.session_id));
    for reason in &session.fidelity.reasons {
        text += &format!("  fidelity: {reason}\n");
    }
    if let Some(fit) = &session.token_fit {
        text += &format!(
            "  token fit: R2 {:.4} over {} calls, {:.0} tokens beside the messages, {:.2} chars a token{}\n",
            fit.r2,
            fit.calls,
            fit.intercept_tokens,
            fit.chars_per_token,
            if fit.is_suspect { "; too bad for a faithful rebuild, look at this session" } else { "" }
        );
    }
    text += &outputs(session);
    text += &breaks(session);
    text += &indented(&sizes(session));
    if !session.findings.is_empty() {
        text += &indented(&findings_table(&session.findings));
        text += &examples(&session.findings);
    }
    text
}

/// A row for each quantity: how many, and how they are spread.
fn sizes(session: &SessionSummary) -> String {
    let calls = &session.profile.calls;
    let of = |value: fn(&transcripts::profile::CallProfile) -> Option<u64>| -> Vec<f64> {
        calls.iter().filter_map(value).map(|value| value as f64).collect()
    };
    let seconds: Vec<f64> = of(|call| call.gap_ms).into_iter().map(|ms| ms / 1e3).collect();
    let outputs = session.profile.tool_outputs.iter().map(|output| output.chars as f64).collect();
    let rows: [(&str, Vec<f64>); 8] = [
        ("messages of a request", of(|call| Some(call.messages as u64))),
        ("chars of a request", of(|call| Some(call.chars()))),
        ("new chars of a request", of(|call| call.grown_chars)),
        ("tool chars of a request", of(|call| Some(call.tool_chars))),
        ("prompt tokens, provider", of(|call| call.prompt_tokens)),
        ("chars of an answer", of(|call| Some(call.completion_chars))),
        ("chars of a tool output", outputs),
        ("seconds between calls", seconds),
    ];
    let right = |name| (name, Align::Right);
    let columns = [("", Align::Left), right("n"), right("p10"), right("p50"), right("p90"), right("max")];
    let mut table = Table::new(&columns);
    for (name, values) in rows {
        let spread = [percentile(&values, 0.1), median(&values), percentile(&values, 0.9), maximum(&values)];
        let digits = usize::from(name.starts_with("seconds"));
        let shown =
            spread.map(|value| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}")));
        table.row([name.to_owned(), values.len().to_string()].into_iter().chain(shown));
    }
    table.render()
}

/// How many tool outputs are large, and how many came before; how many gaps are long.
fn outputs(session: &SessionSummary) -> String {
    let all = &session.profile.tool_outputs;
    let mut text = String::new();
    if !all.is_empty() {
        let total: u64 = all.iter().map(|output| output.chars).sum();
        let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        text += &format!("  tool outputs: {}, {total} chars", all.len());
        for least in LARGE_CHARS {
            let those = all.iter().filter(|output| output.chars >= least);
            let (count, chars): (usize, u64) =
                (those.clone().count(), those.map(|output| output.chars).sum());
            if count > 0 {
                text += &format!("; {count} from {least} chars on hold {:.0} %", share(chars, total));
            }
        }
        text += "\n";
        let candidates = all.iter().filter(|output| output.chars >= REPEAT_CHARS_MIN).count();
        let repeats = all.iter().filter(|output| output.is_repeat);
        let chars: u64 = repeats.clone().map(|output| output.chars).sum();
        text += &format!(
            "  repeated outputs: {} of {candidates} from {REPEAT_CHARS_MIN} chars on, {:.1} % of the chars\n",
            repeats.count(),
            share(chars, total)
        );
    }
    let long = session.profile.calls.iter().filter(|call| call.gap_ms > Some(LONG_GAP_MS)).count();
    if long > 0 {
        text += &format!("  gaps over five minutes: {long}\n");
    }
    text
}

fn breaks(session: &SessionSummary) -> String {
    let mut text = String::new();
    for found in session.prefix_breaks.iter().take(BREAKS_SHOWN_MAX) {
        text += &format!(
            "  prefix break: call {}, {}, {} of {} chars shared\n",
            found.call_index + 1,
            found.cause.as_str(),
            found.shared_chars,
            found.previous_chars
        );
    }
    if session.prefix_breaks.len() > BREAKS_SHOWN_MAX {
        text += &format!("  {} more prefix breaks\n", session.prefix_breaks.len() - BREAKS_SHOWN_MAX);
    }
    text
}

/// Findings by code, in the order of the codes.
fn by_code(findings: &[Finding]) -> BTreeMap<&'static str, (Code, Vec<&Finding>)> {
    let mut found: BTreeMap<&'static str, (Code, Vec<&Finding>)> = BTreeMap::new();
    for finding in findings {
        found.entry(finding.code.as_str()).or_insert((finding.code, Vec::new())).1.push(finding);
    }
    found
}

/// A row for each code. A defect counts once in every call that sends it.
fn findings_table(findings: &[Finding]) -> String {
    let mut table = Table::new(&[
        ("code", Align::Left),
        ("severity", Align::Left),
        ("found", Align::Right),
        ("calls", Align::Right),
        ("what must hold", Align::Left),
    ]);
    for (code, found) in by_code(findings).into_values() {
        let mut calls: Vec<u32> = found.iter().filter_map(|finding| finding.call_index).collect();
        calls.dedup();
        // The gravest of its findings: a check lowers the severity of a case of its own.
        let severity = found.iter().map(|finding| finding.severity).max().unwrap_or(code.rule().severity);
        table.row([
            code.as_str().to_owned(),
            format!("{severity:?}").to_lowercase(),
            found.len().to_string(),
            calls.len().to_string(),
            code.rule().text.to_owned(),
        ]);
    }
    table.render()
}

/// The first findings of each code.
fn examples(findings: &[Finding]) -> String {
    let place = |index: Option<u32>| index.map_or_else(|| "-".to_owned(), |i| (i + 1).to_string());
    let mut text = String::new();
    for (code, found) in by_code(findings).into_values() {
        for finding in found.iter().take(EXAMPLES_MAX) {
            let (call, message) = (place(finding.call_index), place(finding.message_index));
            text +=
                &format!("  {} call {call} message {message}: {}\n", code.as_str(), clean(&finding.detail));
        }
        if found.len() > EXAMPLES_MAX {
            text += &format!("  {} {} more; --json lists all\n", code.as_str(), found.len() - EXAMPLES_MAX);
        }
    }
    text
}

fn indented(table: &str) -> String {
    table.lines().map(|line| format!("  {line}\n")).collect()
}

/// Text of a file cannot move the cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Draws the session with the most calls, the first of equals, into an SVG or a PNG file.
///
/// # Errors
/// There is no session, the name ends in neither, the file cannot be written.
pub fn plot(inspection: &Inspection, path: &Path) -> Result<(), ReplayError> {
    let bad = |reason: String| ReplayError::PlotFile { path: path.to_owned(), reason };
    let most = inspection.sessions.iter().rev().max_by_key(|session| session.calls);
    let shape = shape(most.ok_or_else(|| bad("there is no session to draw".to_owned()))?);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => std::fs::write(path, drawing::svg(&shape)?).map_err(|error| bad(error.to_string()))?,
        Some("png") => drawing::write_png(&shape, path)?,
        _ => return Err(bad("expected a name that ends in .svg or .png".to_owned())),
    }
    eprintln!("{}: drawn to {}", clean(&shape.name), path.display());
    Ok(())
}

fn shape(session: &SessionSummary) -> SessionShape {
    let causes: BTreeMap<usize, &str> =
        session.prefix_breaks.iter().map(|found| (found.call_index, found.cause.as_str())).collect();
    let calls = session.profile.calls.iter().enumerate().map(|(nth, call)| CallShape {
        person_chars: (call.system_chars + call.user_chars) as f64,
        assistant_chars: call.assistant_chars as f64,
        tool_chars: call.tool_chars as f64,
        gap_ms: call.gap_ms.map(|ms| ms as f64),
        break_cause: causes.get(&nth).map(|&cause| cause.to_owned()),
    });
    let outputs = session.profile.tool_outputs.iter();
    SessionShape {
        name: session.session_id.clone(),
        calls: calls.collect(),
        outputs: outputs
            .map(|output| OutputShape { chars: output.chars as f64, is_repeat: output.is_repeat })
            .collect(),
    }
}
