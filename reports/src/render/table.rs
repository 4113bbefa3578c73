//! The tables that more than one format shows, as finished text with alignment. Knows no markup.

use crate::number::{self, MISSING, count, duration, factor, or_missing, percent};
use crate::report::{Report, Tone};
use crate::stats::P95_SAMPLES_MIN;
use crate::summary::{ArmSummary, BASELINE_ARM, Speedup};

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub title: String,
    /// Where its text stands.
    pub align: Align,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Finished text.
    pub text: String,
    /// Which way it points.
    pub tone: Tone,
}

/// A table; every row has one cell per column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Columns from left to right.
    pub columns: Vec<Column>,
    /// Rows from top to bottom.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headings; the first column is words, the others are numbers.
    pub fn new(titles: &[&str]) -> Self {
        let column = |(i, title): (usize, &&str)| Column {
            title: (*title).to_string(),
            align: if i == 0 { Align::Left } else { Align::Right },
        };
        Self { columns: titles.iter().enumerate().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a column on the right; the first one is words, the others are numbers.
    pub(super) fn push_column(&mut self, title: &str, cells: Vec<Cell>) {
        let align = if self.columns.is_empty() { Align::Left } else { Align::Right };
        self.columns.push(Column { title: title.to_string(), align });
        self.rows.resize_with(cells.len(), Vec::new);
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row.push(cell);
        }
    }
}

/// A cell that points nowhere.
pub fn plain(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), tone: Tone::Neutral }
}

/// How much room a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A terminal: the columns that decide.
    Narrow,
    /// A page: every column.
    Wide,
}

/// One row per arm: what it cost and what came of it. Columns that no arm can fill are left out.
pub fn arms(report: &Report) -> Table {
    let rows = &report.summary.arms;
    let mut table = Table::default();
    let mut column = |title: &str, cell: &dyn Fn(&ArmSummary) -> Cell| {
        table.push_column(title, rows.iter().map(cell).collect());
    };
    column("arm", &|row| plain(&row.arm));
    column("calls", &|row| plain(count(row.calls as f64)));
    if rows.iter().any(|row| row.failed > 0) {
        column("failed", &|row| toned(count(row.failed as f64), row.failed == 0));
    }
    column("TTFT sum", &|row| plain(or_missing(row.ttft_ms_sum, duration)));
    column("p50", &|row| plain(or_missing(row.ttft_ms_p50, duration)));
    if has_speedups(report) {
        column("vs cold", &|row| speedup_cell(report, row));
        column("95 % interval", &|row| plain(interval_text(report.summary.speedup(&row.arm))));
    }
    let of_raw = |part: Option<f64>, row: &ArmSummary| {
        plain(match (part, row.tokens_raw) {
            (Some(part), Some(raw)) if raw > 0.0 => percent(part / raw),
            _ => MISSING.to_string(),
        })
    };
    column("removed", &|row| of_raw(row.tokens_removed, row));
    column("prefix hit", &|row| of_raw(row.tokens_prefix_hit, row));
    column("prefilled", &|row| of_raw(row.tokens_prefilled, row));
    if rows.iter().any(|row| row.exact_checked > 0) {
        column("exact", &|row| of_checked(row.exact, row.exact_checked));
    }
    if rows.iter().any(|row| row.structure_checked > 0) {
        column("valid", &|row| plain(or_missing(row.structure_valid_rate, percent)));
    }
    if rows.iter().any(|row| row.agreement_checked > 0) {
        column("agrees", &|row| plain(or_missing(row.tool_call_agrees_rate, percent)));
    }
    table
}

/// One row per arm: what [`arms`] has no room for.
pub fn arms_more(report: &Report) -> Table {
    let rows = &report.summary.arms;
    let mut table = Table::default();
    let mut column = |title: &str, cell: &dyn Fn(&ArmSummary) -> Cell| {
        table.push_column(title, rows.iter().map(cell).collect());
    };
    column("arm", &|row| plain(&row.arm));
    if rows.iter().all(|row| row.ttft_samples as usize >= P95_SAMPLES_MIN) {
        column("TTFT p95", &|row| plain(or_missing(row.ttft_ms_p95, duration)));
    } else {
        column("TTFT max", &|row| plain(or_missing(row.ttft_ms_max, duration)));
    }
    column("end to end", &|row| plain(or_missing(row.e2e_ms_sum, duration)));
    if has_speedups(report) {
        let typical = |row: &ArmSummary| report.summary.speedup(&row.arm).and_then(|s| s.ttft_typical);
        column("typical call", &|row| plain(or_missing(typical(row), factor)));
    }
    column("raw tokens", &|row| plain(or_missing(row.tokens_raw, count)));
    if rows.iter().any(|row| row.tokens_scored.is_some_and(|n| n > 0.0)) {
        column("scored tokens", &|row| plain(or_missing(row.tokens_scored, count)));
    }
    if rows.iter().any(|row| row.energy_j.is_some()) {
        column("energy", &|row| plain(or_missing(row.energy_j, number::energy)));
    }
    table
}

fn has_speedups(report: &Report) -> bool {
    report.summary.arm(BASELINE_ARM).is_some() && report.summary.arms.len() > 1
}

fn toned(text: String, good: bool) -> Cell {
    Cell { text, tone: if good { Tone::Neutral } else { Tone::Bad } }
}

fn of_checked(good: u64, checked: u64) -> Cell {
    if checked == 0 {
        return plain(MISSING);
    }
    let tone = if good == checked { Tone::Good } else { Tone::Bad };
    Cell { text: format!("{good}/{checked}"), tone }
}

fn speedup_cell(report: &Report, row: &ArmSummary) -> Cell {
    if row.arm == BASELINE_ARM {
        return plain("baseline");
    }
    let Some(ttft) = report.summary.speedup(&row.arm).and_then(|s| s.ttft) else { return plain(MISSING) };
    let (low, high) = report.summary.speedup(&row.arm).and_then(|s| s.ttft_interval).unwrap_or((ttft, ttft));
    let tone = match (low > 1.0, high < 1.0) {
        (true, _) => Tone::Good,
        (_, true) => Tone::Bad,
        _ => Tone::Neutral,
    };
    Cell { text: factor(ttft), tone }
}

fn interval_text(speedup: Option<&Speedup>) -> String {
    match speedup.and_then(|s| s.ttft_interval) {
        Some((low, high)) => format!("{}–{}", factor(low).trim_end_matches('x'), factor(high)),
        None => MISSING.to_string(),
    }
}

/// One row per stage of TTFT, one column per arm: time of one pass and its share. Stages that no arm has are left out.
pub fn stages(report: &Report) -> Table {
    let mut titles = vec!["stage"];
    titles.extend(report.stages.iter().map(|row| row.arm.as_str()));
    let mut table = Table::new(&titles);
    let names: Vec<&str> =
        report.stages.first().map(|r| r.spans_ms.iter().map(|s| s.0).collect()).unwrap_or_default();
    for (stage_idx, name) in names.iter().enumerate() {
        if report.stages.iter().all(|row| row.spans_ms[stage_idx].1.is_none()) {
            continue;
        }
        let mut row = vec![plain(*name)];
        row.extend(report.stages.iter().map(|arm| {
            let share = match (arm.spans_ms[stage_idx].1, arm.total_ms) {
                (Some(ms), Some(total)) if total > 0.0 => {
                    format!("{} ({})", duration(ms), percent(ms / total))
                }
                (ms, _) => or_missing(ms, duration),
            };
            plain(share)
        }));
        table.rows.push(row);
    }
    if !table.rows.is_empty() {
        let mut row = vec![plain("TTFT")];
        row.extend(report.stages.iter().map(|arm| plain(or_missing(arm.total_ms, duration))));
        table.rows.push(row);
    }
    table
}

/// One row per arm that has energies: per call and pass, above idle, and what they bought.
pub fn energy(report: &Report) -> Table {
    let mut table = Table::new(&[
        "arm",
        "a call",
        "a call above idle",
        "a pass",
        "a pass above idle",
        "mean power",
        "prompt tokens per J",
        "output tokens per J",
        "saved per 1,000 tokens avoided",
        "by counter",
        "by power",
        "loose",
    ]);
    for row in &report.energy {
        let rate = |value: f64| format!("{value:.2}");
        let joules = |value: Option<f64>| plain(or_missing(value, number::energy));
        table.rows.push(vec![
            plain(&row.arm),
            joules(Some(row.call_j)),
            joules(row.call_net_j),
            joules(row.pass_j),
            joules(row.pass_net_j),
            plain(or_missing(row.power_w, |watts| format!("{} W", count(watts)))),
            plain(or_missing(row.prompt_tokens_per_j, rate)),
            plain(or_missing(row.output_tokens_per_j, rate)),
            joules(row.saved_j_per_1000_avoided),
            plain(count(row.n_counter as f64)),
            plain(count(row.n_power as f64)),
            plain(count(row.n_loose as f64)),
        ]);
    }
    table
}

/// Calls slower than `cold`, at most `limit`, worst first.
pub fn slower(report: &Report, limit: usize) -> Table {
    let mut table = Table::new(&["arm", "session", "call", "cold", "this arm", "slower by"]);
    table.columns[1].align = Align::Left;
    for call in report.slower.iter().take(limit) {
        table.rows.push(vec![
            plain(&call.arm),
            plain(&call.key.session_id),
            plain(call.key.call_index.saturating_add(1).to_string()),
            plain(duration(call.cold_ms)),
            plain(duration(call.arm_ms)),
            Cell { text: factor(call.ratio), tone: Tone::Bad },
        ]);
    }
    table
}

/// Calls whose generated tool calls are not the recorded ones, at most `limit`.
pub fn disagreements(report: &Report, limit: usize) -> Table {
    let mut table = Table::new(&["arm", "session", "call", "cold agrees", "needed and elided"]);
    table.columns[1].align = Align::Left;
    table.columns[4].align = Align::Left;
    for call in report.disagreements.iter().take(limit) {
        let cold = call.cold_agrees.map_or(MISSING, |agrees| if agrees { "yes" } else { "no" });
        let elided = if call.elided.is_empty() { "nothing".to_owned() } else { call.elided.join(", ") };
        table.rows.push(vec![
            plain(&call.arm),
            plain(&call.key.session_id),
            plain(call.key.call_index.saturating_add(1).to_string()),
            plain(cold),
            plain(elided),
        ]);
    }
    table
}

/// Cold starts apart from calls that continue a cached prefix.
pub fn cache_splits(report: &Report) -> Table {
    let mut table = Table::new(&[
        "arm",
        "calls without a hit",
        "their p50",
        "calls with a hit",
        "their p50",
        "reused, p50",
    ]);
    for split in &report.cache_splits {
        table.rows.push(vec![
            plain(&split.arm),
            plain(count(split.n_miss as f64)),
            plain(or_missing(split.miss_ttft_ms_p50, duration)),
            plain(count(split.n_hit as f64)),
            plain(or_missing(split.hit_ttft_ms_p50, duration)),
            plain(or_missing(split.hit_ratio_p50, percent)),
        ]);
    }
    table
}

/// Checks that compare an output with the recorded turn: another well-formed choice is information, not a defect.
const INFORMATION: [&str; 3] = ["O01", "O02", "O03"];

/// Codes of the checks by arm: calls on which each fired, and on how many it still fires after the allowed repairs.
pub fn codes(report: &Report) -> Table {
    let mut titles = vec!["code"];
    titles.extend(report.arm_names());
    let mut table = Table::new(&titles);
    for code in &report.codes {
        let mut row = vec![plain(&code.code)];
        row.extend(code.calls.iter().zip(&code.calls_after_repair).map(|(&calls, &after)| {
            let repaired = if code.code.starts_with('O') && after != calls {
                format!(" ({after} after repair)")
            } else {
                String::new()
            };
            toned(format!("{calls}{repaired}"), calls == 0 || INFORMATION.contains(&code.code.as_str()))
        }));
        table.rows.push(row);
    }
    table
}
