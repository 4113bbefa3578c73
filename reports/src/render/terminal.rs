//! The table at the end of a run, for a terminal of about 120 columns.

use super::cost_table;
use super::fidelity_table;
use super::table::{self, Align, Cell, Room, Table};
use crate::number::counted;
use crate::report::{Report, Tone};

/// Whether to colour; the caller knows the terminal and `NO_COLOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// ANSI colours.
    Always,
    /// Plain text.
    Never,
}

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";
/// Warnings shown here; the HTML page has all.
const WARNINGS_MAX: usize = 5;

/// Headline, table, findings and notes, each line ended.
pub fn render(report: &Report, color: Color) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&paint(&headline(report), BOLD, color));
    line("");
    for row in layout(&table::arms(report), color) {
        line(&row);
    }
    line("");
    let work = cost_table::work(report, Room::Narrow);
    if !work.rows.is_empty() {
        line("Where the time to first token goes, one pass:");
        for row in layout(&work, color) {
            line(&row);
        }
        line("");
    }
    let fidelity = fidelity_table::brief(report);
    if !fidelity.rows.is_empty() {
        line("Fidelity, 95 % intervals over sessions in brackets:");
        for row in layout(&fidelity, color) {
            line(&row);
        }
        line("");
    }
    for finding in &report.findings {
        line(&paint_tone(&printable(&finding.text), finding.tone, color));
    }
    for note in &report.notes {
        line(&paint(&format!("Note: {}", printable(note)), DIM, color));
    }
    let alarms = report.violations.iter().map(|v| format!("BROKEN RECORD: {v}"));
    let alarms: Vec<String> = alarms.chain(report.warnings.iter().map(|w| format!("Warning: {w}"))).collect();
    for alarm in alarms.iter().take(WARNINGS_MAX) {
        line(&paint(&printable(alarm), RED, color));
    }
    if alarms.len() > WARNINGS_MAX {
        line(&paint(&format!("... and {} more in report.html", alarms.len() - WARNINGS_MAX), RED, color));
    }
    out
}

fn headline(report: &Report) -> String {
    printable(&format!(
        "{}: {}, {}, {}, {}",
        report.manifest.run_id,
        counted(report.summary.arms.len() as u64, "arm"),
        counted(report.n_sessions() as u64, "session"),
        counted(report.n_calls() as u64, "call"),
        counted(report.n_repeats as u64, "repeat"),
    ))
}

/// Names come from files: control characters would steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn layout(table: &Table, color: Color) -> Vec<String> {
    let texts = |cells: &[Cell]| cells.iter().map(|c| printable(&c.text)).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = table.rows.iter().map(|row| texts(row)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([table.columns[column].title.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    let pad = |column: usize, text: &str| match table.columns[column].align {
        Align::Left => format!("{text:<w$}", w = widths[column]),
        Align::Right => format!("{text:>w$}", w = widths[column]),
    };
    let header: Vec<String> = table.columns.iter().enumerate().map(|(i, c)| pad(i, &c.title)).collect();
    let mut lines = vec![paint(&header.join("  "), BOLD, color)];
    for (cells, row) in table.rows.iter().zip(&rows) {
        let padded: Vec<String> =
            row.iter().enumerate().map(|(i, text)| paint_tone(&pad(i, text), cells[i].tone, color)).collect();
        lines.push(padded.join("  "));
    }
    lines
}

fn paint_tone(text: &str, tone: Tone, color: Color) -> String {
    match tone {
        Tone::Good => paint(text, GREEN, color),
        Tone::Bad => paint(text, RED, color),
        Tone::Neutral => text.to_string(),
    }
}

fn paint(text: &str, code: &str, color: Color) -> String {
    match color {
        Color::Always => format!("{code}{text}{RESET}"),
        Color::Never => text.to_string(),
    }
}
