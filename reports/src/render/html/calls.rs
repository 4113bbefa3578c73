//! The table of all calls: one block of rows per call, one row per arm.

use maud::{Markup, html};

use crate::number::{MISSING, count, duration, or_missing};
use crate::record::CacheState;
use crate::report::{CallCell, CallRow, Report};

/// Calls in the page; a browser stays quick up to here.
const CALLS_MAX: usize = 1_000;

/// The collapsible section.
pub(super) fn section(report: &Report) -> Markup {
    let arms: Vec<&str> = report.arm_names().collect();
    let has_exact = report.calls.iter().flat_map(|r| r.cells.iter().flatten()).any(|c| c.exact.is_some());
    html! {
        @if !report.calls.is_empty() {
            section {
                h2 { "Every call" }
                details {
                    summary { "Show " (report.calls.len().min(CALLS_MAX)) " calls under " (arms.len()) " arms" }
                    @if report.calls.len() > CALLS_MAX {
                        p.remark { "The first " (CALLS_MAX) " of " (report.calls.len()) "; calls.csv has all." }
                    }
                    div.scroll {
                        table {
                            thead {
                                tr {
                                    th.words { "session" } th { "call" } th.words { "arm" } th { "TTFT" } th { "end to end" }
                                    th { "raw" } th { "removed" } th { "prefix hit" } th { "prefilled" } th { "scored" }
                                    th.words { "cache" }
                                    @if has_exact { th.words { "exact" } }
                                    th.words { "structure" }
                                }
                            }
                            @for row in report.calls.iter().take(CALLS_MAX) { (block(row, &arms, has_exact)) }
                        }
                    }
                }
            }
        }
    }
}

fn block(row: &CallRow, arms: &[&str], has_exact: bool) -> Markup {
    html! {
        tbody {
            @for (cell, arm) in row.cells.iter().zip(arms) {
                @if let Some(cell) = cell {
                    tr {
                        td.words { (row.key.session_id) }
                        td.number { (row.key.call_index.saturating_add(1)) }
                        td.words { (arm) }
                        td.number { (or_missing(cell.ttft_ms, duration)) }
                        td.number { (or_missing(cell.e2e_ms, duration)) }
                        td.number { (or_missing(cell.tokens_raw, count)) }
                        td.number { (or_missing(cell.tokens_removed, count)) }
                        td.number { (or_missing(cell.tokens_prefix_hit, count)) }
                        td.number { (or_missing(cell.tokens_prefilled, count)) }
                        td.number { (or_missing(cell.tokens_scored, count)) }
                        td.words { (cache_word(cell)) }
                        @if has_exact { td.words { (verdict(cell.exact, "exact", "differs")) } }
                        td.words {
                            @if cell.n_failed > 0 { span.bad { (cell.n_failed) " failed" } }
                            @else { (verdict(cell.valid, "valid", "invalid")) }
                        }
                    }
                }
            }
        }
    }
}

fn cache_word(cell: &CallCell) -> &'static str {
    match cell.cache_state {
        Some(CacheState::Off) => "off",
        Some(CacheState::Miss) => "miss",
        Some(CacheState::Hit) => "hit",
        None => MISSING,
    }
}

fn verdict(flag: Option<bool>, good: &str, bad: &str) -> Markup {
    html! {
        @match flag {
            Some(true) => (good),
            Some(false) => span.bad { (bad) },
            None => (MISSING),
        }
    }
}
