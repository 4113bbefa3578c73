//! `summary.md`: the report as a page of Markdown for an issue or a pull request.

use std::fmt::Write;

use super::cost_table;
use super::fidelity_table;
use super::table::{self, Align, Room, Table};
use crate::number::counted;
use crate::report::Report;

/// Rows of the list of slower calls.
const SLOWER_MAX: usize = 20;
/// Rows of the list of tool calls that are not the recorded ones.
const DISAGREEMENTS_MAX: usize = 20;

/// The page.
pub fn render(report: &Report) -> String {
    let manifest = &report.manifest;
    let mut page = String::new();
    let mut block = |text: String| {
        if !text.is_empty() {
            page.push_str(text.trim_end());
            page.push_str("\n\n");
        }
    };
    block(format!("# Run {}", text(&manifest.run_id)));
    block(facts(report));
    block(grid(&table::arms(report)));
    block(grid(&table::arms_more(report)));
    block(list(report.findings.iter().map(|f| f.text.as_str())));
    section(
        &mut block,
        "Where the time to first token goes, one pass",
        &cost_table::work(report, Room::Wide),
    );
    if !report.rescoring.is_empty() {
        block(text(cost_table::WORK_REMARK));
    }
    section(&mut block, "The same by stage", &table::stages(report));
    section(&mut block, "What reusing prefixes could give", &cost_table::prefix_reuse(report));
    if !report.prefix_reuse.is_empty() {
        block(text(cost_table::REUSE_REMARK));
    }
    section(&mut block, "Cold starts apart from continued prefixes", &table::cache_splits(report));
    section(&mut block, "Calls slower than cold", &table::slower(report, SLOWER_MAX));
    if report.slower.len() > SLOWER_MAX {
        block(format!("The {SLOWER_MAX} worst of {}; calls.csv has all.", report.slower.len()));
    }
    if report.cost_model.is_some() {
        block("## The model of cost".to_string());
        block(text(cost_table::MODEL_REMARK));
        block(grid(&cost_table::coefficients(report)));
        block(grid(&cost_table::predictions(report)));
    }
    section(&mut block, "When compression at birth pays", &cost_table::break_even(report));
    if !cost_table::break_even(report).rows.is_empty() {
        block(text(cost_table::BREAK_EVEN_REMARK));
    }
    fidelity(&mut block, report);
    let disagreements = table::disagreements(report, DISAGREEMENTS_MAX);
    section(&mut block, "Tool calls that are not the recorded ones", &disagreements);
    section(&mut block, "Energy of the board", &table::energy(report));
    section(&mut block, "Codes of the structure checks, calls by arm", &table::codes(report));
    if !report.notes.is_empty() {
        block("## Limits".to_string());
        block(list(report.notes.iter().map(String::as_str)));
    }
    let broken: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    if !broken.is_empty() || !report.warnings.is_empty() {
        block("## Broken or unreadable records".to_string());
        block(list(broken.iter().map(String::as_str).chain(report.warnings.iter().map(String::as_str))));
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn fidelity(block: &mut impl FnMut(String), report: &Report) {
    let (distances, calls) = (fidelity_table::distances(report), fidelity_table::calls(report));
    section(block, "Fidelity: distance from the prompt as recorded", &distances);
    if !distances.rows.is_empty() {
        block(text(fidelity_table::DISTANCES_REMARK));
    }
    section(block, "Fidelity: what the model calls, and what its prompt still held", &calls);
    if !calls.rows.is_empty() {
        block(text(fidelity_table::CALLS_REMARK));
    }
    let to_cold = fidelity_table::to_cold(report);
    section(block, "Fidelity: differences to cold", &to_cold);
    if !to_cold.rows.is_empty() {
        block(text(fidelity_table::DIFFERENCES_REMARK));
    }
    let to_controls = fidelity_table::to_controls(report);
    section(block, "Fidelity: the drafter less its controls at the same budget", &to_controls);
}

fn section(block: &mut impl FnMut(String), title: &str, table: &Table) {
    if !table.rows.is_empty() {
        block(format!("## {title}"));
        block(grid(table));
    }
}

fn facts(report: &Report) -> String {
    let manifest = &report.manifest;
    let mut out = String::new();
    let size = format!(
        "{} x {} of {} x {}",
        counted(report.summary.arms.len() as u64, "arm"),
        counted(report.n_calls() as u64, "call"),
        counted(report.n_sessions() as u64, "session"),
        counted(report.n_repeats as u64, "repeat"),
    );
    let commit = manifest.git_commit.as_deref().map(|c| format!(" at {c}")).unwrap_or_default();
    for (name, value) in [
        ("Run", size),
        ("Started", manifest.started_at.clone()),
        ("Program", format!("{}{commit}", manifest.program_version)),
        ("Command", manifest.command.join(" ")),
    ] {
        if !value.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(out, "- {name}: {}", text(&value));
        }
    }
    for session in &manifest.sessions {
        let level = if session.fidelity_level.is_empty() {
            String::new()
        } else {
            format!(", fidelity {}", session.fidelity_level)
        };
        let _ = writeln!(
            out,
            "- Session {}: {} of {} calls replayed{}",
            text(&session.session_id),
            session.calls_replayed,
            session.calls,
            text(&level)
        );
    }
    out
}

fn grid(table: &Table) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = line(table.columns.iter().map(|c| text(&c.title)).collect());
    let rule = |align| if align == Align::Left { ":---".to_string() } else { "---:".to_string() };
    out += &line(table.columns.iter().map(|c| rule(c.align)).collect());
    for row in &table.rows {
        out += &line(row.iter().map(|cell| text(&cell.text)).collect());
    }
    out
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    items.map(|item| format!("- {}\n", text(item))).collect()
}

/// Text from outside on one line and without markup: names come from files.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        // An underscore inside a word is plain text in every dialect, and escaping it hurts those who read the source.
        let inside_word = before.is_alphanumeric() && chars.peek().is_some_and(|next| next.is_alphanumeric());
        match c {
            '<' => out.push_str("&lt;"),
            '_' if inside_word => out.push(c),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn names_cannot_make_markup() {
        assert_eq!(
            text("a|b *c* `d` [e](f) <g>\n# h"),
            r"a\|b \*c\* \`d\` \[e\](f) &lt;g>  # h".replace("  ", " ")
        );
        assert_eq!(text("drafter_load _x_"), r"drafter_load \_x\_");
    }
}
