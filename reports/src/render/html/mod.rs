//! `report.html`: the whole report as one file that needs no network, for light and dark screens, wide and narrow ones.
//! Everything from outside goes through maud's escaping; only the plots and the style sheet, both made here, do not.

mod calls;
mod cost;
mod fidelity;
mod setup;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plot::Plot;
use super::table::{self, Align, Table};
use crate::number::{counted, percent};
use crate::report::{LOOSE_SHARE, Report, Tone};

/// Rows of the list of slower calls.
const SLOWER_MAX: usize = 50;
/// Rows of the list of tool calls that are not the recorded ones.
const DISAGREEMENTS_MAX: usize = 50;
/// Failures, broken records and warnings listed one by one.
const ALARMS_MAX: usize = 50;

/// The page around plots that are drawn already.
pub fn render(report: &Report, plots: &[(Plot, String)]) -> String {
    let title = format!("Reprise: {}", report.manifest.run_id);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                (headline(report))
                main {
                    (alarms(report))
                    (verdicts(report))
                    @for (plot, svg) in plots {
                        figure { (PreEscaped(inline(svg))) figcaption { (plot.caption()) } }
                    }
                    (fidelity::section(report))
                    (cost::work(report))
                    (stages(report))
                    (cost::model(report))
                    (slower(report))
                    (energy(report))
                    (checks(report))
                    (calls::section(report))
                    (setup::section(report))
                }
                footer {
                    "Made by reprise " (report.manifest.program_version)
                    ". Raw records: calls.jsonl and calls.csv beside this file; plots as SVG and PNG in plots/."
                }
            }
        }
    };
    page.into_string()
}

/// The SVG element alone: sizes come from the style sheet.
fn inline(svg: &str) -> &str {
    svg.find("<svg").map_or(svg, |start| &svg[start..])
}

fn headline(report: &Report) -> Markup {
    let manifest = &report.manifest;
    html! {
        header {
            p.brand { "Reprise" }
            h1 { (manifest.run_id) }
            p.lead {
                (counted(report.summary.arms.len() as u64, "arm")) " over " (counted(report.n_calls() as u64, "call")) " of "
                (counted(report.n_sessions() as u64, "session")) ", " (counted(report.n_repeats as u64, "repeat"))
                @for name in setup::model_names(report) { " · " (name) }
                @if let Some(cpu) = setup::machine_name(report) { " · " (cpu) }
                @if !manifest.started_at.is_empty() { " · " (manifest.started_at) }
            }
            @if report.has_random_weights() {
                p.badge { "random weights: times are real, texts and scores carry no meaning" }
            }
        }
    }
}

/// What makes a run not to be quoted comes before any number.
fn alarms(report: &Report) -> Markup {
    let broken = report.violations.iter().map(ToString::to_string);
    let all: Vec<String> = broken.chain(report.warnings.iter().cloned()).collect();
    html! {
        @if !all.is_empty() {
            section.alarm {
                @if report.violations.is_empty() {
                    h2 { "Parts of the run could not be read" }
                } @else {
                    h2 { "Records break an invariant: do not quote this run" }
                }
                ul { @for alarm in all.iter().take(ALARMS_MAX) { li { (alarm) } } }
                @if all.len() > ALARMS_MAX { p { "and " (all.len() - ALARMS_MAX) " more" } }
            }
        }
        @if !report.failures.is_empty() {
            section.alarm {
                h2 { "Calls that failed" }
                ul {
                    @for failure in report.failures.iter().take(ALARMS_MAX) {
                        li {
                            (failure.arm) ", repeat " (failure.repeat.saturating_add(1)) ", " (failure.key.session_id) ", call "
                            (failure.key.call_index.saturating_add(1)) ": " code { (failure.kind) } " " (failure.message)
                        }
                    }
                }
                @if report.failures.len() > ALARMS_MAX { p { "and " (report.failures.len() - ALARMS_MAX) " more" } }
            }
        }
    }
}

fn verdicts(report: &Report) -> Markup {
    html! {
        section {
            h2 { "What this run says" }
            @if report.calls.is_empty() { p { "No call is recorded yet." } }
            (grid(&table::arms(report)))
            p.remark {
                "TTFT sum is one pass over all calls (mean over repeats). Removed, prefix hit and prefilled are shares of the raw \
                 prompt tokens and add up to 100 %. Above 1x is faster than cold. Valid: outputs that pass every structure check; \
                 agrees: calls of tools as recorded."
            }
            ul.findings {
                @for finding in &report.findings { li class=(tone_class(finding.tone)) { (finding.text) } }
            }
            @if !report.calls.is_empty() {
                h3 { "More of each arm" }
                (grid(&table::arms_more(report)))
                p.remark { "vs cold, above, compares sums, which long calls dominate; typical call is the geometric mean over calls." }
            }
            @if !report.notes.is_empty() {
                h3 { "Limits" }
                ul.notes { @for note in &report.notes { li { (note) } } }
            }
        }
    }
}

fn stages(report: &Report) -> Markup {
    let (stages, splits) = (table::stages(report), table::cache_splits(report));
    html! {
        @if !stages.rows.is_empty() {
            section {
                h2 { "Stages of the time to first token" }
                p.remark { "Time of one pass over all calls, and its share of the arm's TTFT." }
                (grid(&stages))
            }
        }
        @if !splits.rows.is_empty() {
            section {
                h2 { "Cold starts and continued prefixes" }
                p.remark { "Two populations that one average would hide: calls that found nothing to reuse, and calls that did." }
                (grid(&splits))
            }
        }
    }
}

fn slower(report: &Report) -> Markup {
    html! {
        @if !report.summary.speedup_vs_cold.is_empty() {
            section {
                h2 { "Calls slower than cold" }
                @if report.slower.is_empty() {
                    p { "None by more than 2 %." }
                } @else {
                    p.remark { "Every call that an arm made slower by more than 2 %, worst first." }
                    (grid(&table::slower(report, SLOWER_MAX)))
                    @if report.slower.len() > SLOWER_MAX {
                        p.remark { "The " (SLOWER_MAX) " worst of " (report.slower.len()) "; the table of all calls has the rest." }
                    }
                }
            }
        }
    }
}

fn energy(report: &Report) -> Markup {
    let table = table::energy(report);
    html! {
        @if !table.rows.is_empty() {
            section {
                h2 { "Energy of the board" }
                p.remark {
                    "All that the board drew while a call was in flight, by its energy counter where that moves finer than the \
                     call, else by sampled power. Above idle leaves out its power at rest. Avoided tokens were removed by \
                     compression or reused from the cache; what they saved is counted against cold. Loose: calls whose energy \
                     may be off by more than " (percent(LOOSE_SHARE)) " at its ends."
                }
                (grid(&table))
            }
        }
    }
}

fn checks(report: &Report) -> Markup {
    let codes = table::codes(report);
    let disagreements = table::disagreements(report, DISAGREEMENTS_MAX);
    html! {
        section {
            h2 { "Exactness and structure" }
            p {
                @if report.summary.arms.iter().all(|a| a.exact_checked == 0) {
                    "Cached logits were not compared with cold ones; run with " code { "--verify" } "."
                } @else {
                    "Calls whose cached logits equal cold logits bit for bit: "
                    @for arm in report.summary.arms.iter().filter(|a| a.exact_checked > 0) {
                        span.fact { (arm.arm) " " (arm.exact) "/" (arm.exact_checked) } " "
                    }
                }
            }
            p {
                @if report.summary.arms.iter().all(|a| a.structure_checked == 0) {
                    "No output was checked for structure."
                } @else {
                    "Outputs that pass every structure check, without repair: "
                    @for arm in report.summary.arms.iter().filter(|a| a.structure_checked > 0) {
                        span.fact { (arm.arm) " " (arm.structure_valid) "/" (arm.structure_checked) } " "
                    }
                }
            }
            @if !disagreements.rows.is_empty() {
                p.remark { "Calls whose generated tool calls are not the recorded ones, and the words of the recorded arguments that tool \
                     outputs held and the prompt as sent did not" @if report.disagreements.len() > DISAGREEMENTS_MAX {
                     " (the first " (DISAGREEMENTS_MAX) " of " (report.disagreements.len()) "; calls.csv has all)" } "." }
                (grid(&disagreements))
            }
            @if !codes.rows.is_empty() {
                p.remark { "Calls on which a check fired. R: the request as sent, O: the output as it is; O01 to O03 compare it with the \
                     recorded turn and make no output invalid." }
                (grid(&codes))
            }
        }
    }
}

/// A table that scrolls sideways on narrow screens.
fn grid(table: &Table) -> Markup {
    html! {
        @if !table.rows.is_empty() {
            div.scroll {
                table {
                    thead {
                        tr { @for c in &table.columns { th class=(align_class(c.align)) { (c.title) } } }
                    }
                    tbody {
                        @for row in &table.rows {
                            tr {
                                @for (cell, column) in row.iter().zip(&table.columns) {
                                    td class={ (align_class(column.align)) " " (tone_class(cell.tone)) } { (cell.text) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn align_class(align: Align) -> &'static str {
    match align {
        Align::Left => "words",
        Align::Right => "number",
    }
}

fn tone_class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Neutral => "plain",
    }
}
