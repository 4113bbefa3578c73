//! TTFT added up over the calls, one line per arm.

use plotters::prelude::DrawingBackend;

use super::axes::{CallAxis, Frame, Key, MARGIN, Scale, heading, legend, time_label};
use super::canvas::{Canvas, Drawn, Point};
use super::palette;
use super::ttft_per_call::{Pen, draw_line};
use crate::number::duration;
use crate::report::Report;

pub(super) fn draw<DB: DrawingBackend>(report: &Report, canvas: &Canvas<DB>) -> Drawn {
    let arms: Vec<&str> = report.arm_names().collect();
    let sums: Vec<Vec<f64>> = (0..arms.len()).map(|arm_idx| running_sum(report, arm_idx)).collect();
    let high = sums.iter().filter_map(|s| s.last()).copied().fold(0.0, f64::max);
    let calls = CallAxis::new(&report.calls);
    let (unit, label) = time_label(high);
    let subtitle = format!("{unit} since the first call, by {}; sum in the legend", calls.words());
    let top = heading(canvas, "Time to first token, added up", &subtitle)?;

    let colors = palette::arms(arms.iter().copied());
    let entry = |(i, arm): (usize, &&str)| {
        let total = match sums[i].last() {
            Some(&sum) if sums[i].len() == report.calls.len() => duration(sum),
            Some(_) => format!("{} of {} calls", sums[i].len(), report.calls.len()),
            None => "not measured".to_string(),
        };
        (Key::Line(i), colors[i], format!("{arm}  {total}"))
    };
    let entries: Vec<_> = arms.iter().enumerate().map(entry).collect();
    let top = legend(canvas, top, &entries)? + 14.0;
    let frame = Frame {
        left: MARGIN + 48.0,
        top,
        right: canvas.size.0 - MARGIN,
        bottom: canvas.size.1 - calls.depth() - 12.0,
        y: Scale::linear(high),
    };
    frame.draw_y(canvas, &label)?;
    calls.draw(canvas, &frame)?;
    for (arm_idx, sum) in sums.iter().enumerate() {
        let point = |(column, &ms): (usize, &f64)| (calls.x_at(&frame, column), frame.y_at(ms));
        let points: Vec<Option<Point>> =
            (0..report.calls.len()).map(|column| sum.get(column).map(|ms| point((column, ms)))).collect();
        draw_line(canvas, &points, Pen::new(arm_idx, colors[arm_idx], points.len()))?;
    }
    Ok(())
}

/// Sums from the first call to the last one before a gap.
fn running_sum(report: &Report, arm_idx: usize) -> Vec<f64> {
    let ttft = report.calls.iter().map_while(|row| row.cells[arm_idx].as_ref()?.ttft_ms);
    ttft.scan(0.0, |sum, ms| {
        *sum += ms;
        Some(*sum)
    })
    .collect()
}
