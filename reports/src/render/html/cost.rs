//! The sections of where the time goes and of the model of cost.

use maud::{Markup, html};

use super::grid;
use crate::render::cost_table::{self, BREAK_EVEN_REMARK, MODEL_REMARK, REUSE_REMARK, WORK_REMARK};
use crate::render::table::Room;
use crate::report::Report;

/// Time by what it served with the work behind it, and what the prefix cache gave of what it could.
pub(super) fn work(report: &Report) -> Markup {
    let (work, reuse) = (cost_table::work(report, Room::Wide), cost_table::prefix_reuse(report));
    html! {
        @if !work.rows.is_empty() {
            section {
                h2 { "Where the time goes" }
                p.remark { (WORK_REMARK) }
                (grid(&work))
            }
        }
        @if !reuse.rows.is_empty() {
            section {
                h2 { "What reusing prefixes could give" }
                p.remark { (REUSE_REMARK) }
                (grid(&reuse))
            }
        }
    }
}

/// The fitted coefficients, predicted beside measured, and when compression pays.
pub(super) fn model(report: &Report) -> Markup {
    let break_even = cost_table::break_even(report);
    html! {
        @if report.cost_model.is_some() {
            section {
                h2 { "The model of cost" }
                p.remark { (MODEL_REMARK) }
                (grid(&cost_table::coefficients(report)))
                h3 { "Predicted beside measured" }
                (grid(&cost_table::predictions(report)))
                @if !break_even.rows.is_empty() {
                    h3 { "When compression at birth pays" }
                    p.remark { (BREAK_EVEN_REMARK) }
                    (grid(&break_even))
                }
            }
        }
    }
}
