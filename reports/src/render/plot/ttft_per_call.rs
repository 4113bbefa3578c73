//! TTFT per call, one line per arm.

use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;

use super::axes::{CallAxis, Frame, Key, MARGIN, Scale, heading, legend, time_label};
use super::canvas::{Canvas, Drawn, Point};
use super::palette;
use crate::report::{CallCell, Report};

/// More calls than this are drawn as a line without markers.
const MARKERS_UP_TO: usize = 60;

/// How the line of an arm looks.
#[derive(Clone, Copy)]
pub(super) struct Pen {
    slot: usize,
    color: RGBColor,
    marks: Marks,
}

#[derive(Clone, Copy, PartialEq)]
enum Marks {
    EveryPoint,
    LonePoints,
}

impl Pen {
    pub(super) fn new(slot: usize, color: RGBColor, n_calls: usize) -> Self {
        let marks = if n_calls <= MARKERS_UP_TO { Marks::EveryPoint } else { Marks::LonePoints };
        Self { slot, color, marks }
    }
}

pub(super) fn draw<DB: DrawingBackend>(report: &Report, canvas: &Canvas<DB>) -> Drawn {
    let cells = report.calls.iter().flat_map(|row| row.cells.iter().flatten());
    let values: Vec<f64> = cells.flat_map(|c| [c.ttft_ms, c.ttft_ms_range.map(|r| r.1)]).flatten().collect();
    let scale = Scale::for_values(&values);
    let (unit, label) = time_label(values.iter().copied().fold(0.0, f64::max));
    let calls = CallAxis::new(&report.calls);
    let subtitle = format!("{unit}{}, by {}", scale.words(), calls.words());
    let top = heading(canvas, "Time to first token per call", &subtitle)?;

    let colors = palette::arms(report.arm_names());
    let entries: Vec<_> =
        report.arm_names().enumerate().map(|(i, arm)| (Key::Line(i), colors[i], arm.to_string())).collect();
    let top = legend(canvas, top, &entries)? + 14.0;
    let frame = Frame {
        left: MARGIN + 48.0,
        top,
        right: canvas.size.0 - MARGIN,
        bottom: canvas.size.1 - calls.depth() - 12.0,
        y: scale,
    };
    frame.draw_y(canvas, &label)?;
    calls.draw(canvas, &frame)?;
    for (arm_idx, &color) in colors.iter().enumerate() {
        let cell = |column: usize| report.calls[column].cells[arm_idx].as_ref();
        for column in 0..report.calls.len() {
            let Some((low, high)) = cell(column).and_then(|c| c.ttft_ms_range) else { continue };
            let x = calls.x_at(&frame, column);
            canvas.line(&[(x, frame.y_at(low)), (x, frame.y_at(high))], color, 1.0)?;
        }
        let point = |column: usize| {
            cell(column).and_then(|c| c.ttft_ms).map(|ms| (calls.x_at(&frame, column), frame.y_at(ms)))
        };
        let points: Vec<Option<Point>> = (0..report.calls.len()).map(point).collect();
        let pen = Pen::new(arm_idx, color, points.len());
        for session in calls.session_columns() {
            draw_line(canvas, &points[session], pen)?;
        }
        let failed = |c: &CallCell| c.n_failed > 0;
        for column in (0..report.calls.len()).filter(|&column| cell(column).is_some_and(failed)) {
            canvas.cross(
                (calls.x_at(&frame, column), frame.bottom - 7.0 * (arm_idx % 4) as f64),
                palette::ALARM,
            )?;
        }
    }
    Ok(())
}

/// A line with gaps where there is no point; a point without neighbours always gets its marker.
pub(super) fn draw_line<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    points: &[Option<Point>],
    pen: Pen,
) -> Drawn {
    for run in points.split(Option::is_none) {
        let run: Vec<Point> = run.iter().copied().flatten().collect();
        canvas.line(&run, pen.color, 2.2)?;
        if pen.marks == Marks::EveryPoint || run.len() == 1 {
            for &point in &run {
                canvas.marker(pen.slot, point, 3.6, pen.color)?;
            }
        }
    }
    Ok(())
}
