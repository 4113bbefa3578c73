//! The section of fidelity.

use maud::{Markup, html};

use super::grid;
use crate::render::fidelity_table::{self, CALLS_REMARK, DIFFERENCES_REMARK, DISTANCES_REMARK};
use crate::report::Report;

/// Distances, calls and differences, as far as they were measured.
pub(super) fn section(report: &Report) -> Markup {
    let (distances, calls) = (fidelity_table::distances(report), fidelity_table::calls(report));
    let (to_cold, to_controls) = (fidelity_table::to_cold(report), fidelity_table::to_controls(report));
    html! {
        @if report.fidelity.is_some() {
            section {
                h2 { "Fidelity" }
                @if distances.rows.is_empty() {
                    p { "Next-token distributions were not compared; run with " code { "--fidelity" } "." }
                } @else {
                    h3 { "Distance from the prompt as recorded" }
                    p.remark { (DISTANCES_REMARK) }
                    (grid(&distances))
                }
                h3 { "What the model calls, and what its prompt still held" }
                p.remark { (CALLS_REMARK) }
                (grid(&calls))
                @if !to_cold.rows.is_empty() {
                    h3 { "Differences" }
                    p.remark { (DIFFERENCES_REMARK) }
                    (grid(&to_cold))
                }
                @if !to_controls.rows.is_empty() {
                    h3 { "The drafter less its controls at the same budget" }
                    (grid(&to_controls))
                }
            }
        }
    }
}
