//! What became of the prompt tokens of each call: one panel per arm, all on one scale.

use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;

use super::axes::{CallAxis, Frame, Key, MARGIN, Scale, heading, legend, plain_number};
use super::canvas::{Canvas, Drawn, Point, Type, fit};
use super::palette;
use crate::report::{CallCell, Report};

const PANEL: f64 = 190.0;
const HEADING: f64 = 98.0;
/// Arms beyond these have no panel; calls.csv has them.
const PANELS_MAX: usize = 24;
/// More calls than this are drawn as one area: bars would be thinner than their gaps.
const BARS_UP_TO: usize = 120;

fn n_panels(report: &Report) -> usize {
    report.summary.arms.len().min(PANELS_MAX)
}

fn n_columns(report: &Report) -> usize {
    if n_panels(report) > 1 { 2 } else { 1 }
}

pub(super) fn height(report: &Report) -> f64 {
    let rows = n_panels(report).div_ceil(n_columns(report));
    HEADING + rows as f64 * (PANEL + CallAxis::new(&report.calls).depth()) + 10.0
}

/// (prefilled, prefix hit, removed) of a call: from the base up.
fn parts(cell: &CallCell) -> [f64; 3] {
    let part = |tokens: Option<f64>| tokens.unwrap_or(0.0).max(0.0);
    [part(cell.tokens_prefilled), part(cell.tokens_prefix_hit), part(cell.tokens_removed)]
}

pub(super) fn draw<DB: DrawingBackend>(report: &Report, canvas: &Canvas<DB>) -> Drawn {
    let calls = CallAxis::new(&report.calls);
    let subtitle = format!("tokens of each prompt, by {}", calls.words());
    let top = heading(canvas, "What became of the prompt tokens", &subtitle)?;
    let kinds = [
        (palette::PREFILLED, "prefilled by the target"),
        (palette::PREFIX_HIT, "prefix hit, KV reused"),
        (palette::REMOVED, "removed by compression"),
    ];
    legend(canvas, top, &kinds.map(|(color, name)| (Key::Area, color, name.to_string())))?;

    let cells = report.calls.iter().flat_map(|row| row.cells.iter().flatten());
    let scale = Scale::linear(cells.map(|cell| parts(cell).iter().sum()).fold(0.0, f64::max));
    let n_columns = n_columns(report);
    let width = (canvas.size.0 - 2.0 * MARGIN) / n_columns as f64;
    for (panel, arm) in report.arm_names().take(PANELS_MAX).enumerate() {
        let (row, column) = (panel / n_columns, panel % n_columns);
        let panel_top = HEADING + row as f64 * (PANEL + calls.depth());
        let left = MARGIN + column as f64 * width;
        let frame = Frame {
            left: left + 52.0,
            top: panel_top + 24.0,
            right: left + width - 12.0,
            bottom: panel_top + PANEL,
            y: scale,
        };
        let style = Type::new(12.5).bold();
        canvas.text(&fit(arm, style, frame.width())?, (frame.left, panel_top + 10.0), style)?;
        frame.draw_y(canvas, &plain_number)?;
        calls.draw(canvas, &frame)?;
        let stacks: Vec<[f64; 3]> =
            report.calls.iter().map(|r| r.cells[panel].as_ref().map(parts).unwrap_or_default()).collect();
        draw_stacks(canvas, &calls, &frame, &stacks, kinds.map(|(color, _)| color))?;
    }
    Ok(())
}

fn draw_stacks<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    calls: &CallAxis,
    frame: &Frame,
    stacks: &[[f64; 3]],
    colors: [RGBColor; 3],
) -> Drawn {
    let below = |stack: &[f64; 3], n: usize| frame.y_at(stack[..n].iter().sum());
    let half = calls.column_width(frame)
        * if stacks.len() > BARS_UP_TO { 0.5 } else { (0.39_f64).min(22.0 / calls.column_width(frame)) };
    for (kind, color) in colors.into_iter().enumerate() {
        if stacks.len() > BARS_UP_TO {
            let edge = |n: usize| {
                stacks.iter().enumerate().flat_map(move |(column, stack)| {
                    let (x, y) = (calls.x_at(frame, column), below(stack, n));
                    [(x - half, y), (x + half, y)]
                })
            };
            let mut outline: Vec<Point> = edge(kind + 1).collect();
            outline.extend(edge(kind).collect::<Vec<_>>().into_iter().rev());
            canvas.polygon(&outline, color)?;
            continue;
        }
        for (column, stack) in stacks.iter().enumerate().filter(|(_, stack)| stack[kind] > 0.0) {
            let x = calls.x_at(frame, column);
            canvas.rect((x - half, below(stack, kind)), (x + half, below(stack, kind + 1)), color)?;
        }
    }
    Ok(())
}
