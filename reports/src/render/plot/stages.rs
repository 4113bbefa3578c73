//! TTFT of one pass by stage, one horizontal bar per arm: in time, then as shares of the arm's own.

use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::HPos;

use super::axes::{Entry, Key, MARGIN, Scale, heading, legend, legend_height, plain_number, time_label};
use super::canvas::{Canvas, Drawn, Type, fit, text_width};
use super::{WIDTH, palette};
use crate::number::duration;
use crate::report::{Report, StageRow};

const BAR: f64 = 26.0;
const PITCH: f64 = 42.0;
const HEADING: f64 = 66.0;
const AXIS_DEPTH: f64 = 36.0;
const SHARE_HEADING: f64 = 26.0;
const NAME_WIDTH_MAX: f64 = 180.0;

/// Stages that some arm spent time in.
fn present(report: &Report) -> Vec<(usize, &'static str)> {
    let names: Vec<&'static str> =
        report.stages.first().map(|r| r.spans_ms.iter().map(|s| s.0).collect()).unwrap_or_default();
    let spent = |i: usize| report.stages.iter().any(|row| row.spans_ms[i].1.is_some_and(|ms| ms > 0.0));
    names.into_iter().enumerate().filter(|&(i, _)| spent(i)).collect()
}

fn entries(report: &Report) -> Vec<Entry> {
    let entry = |(_, name): (usize, &'static str)| (Key::Area, palette::stage(name), name.to_string());
    present(report).into_iter().map(entry).collect()
}

pub(super) fn height(report: &Report) -> Drawn<f64> {
    let legend = legend_height(f64::from(WIDTH), &entries(report))?;
    let panel = PITCH * report.stages.len() as f64 + AXIS_DEPTH;
    Ok(HEADING + legend + panel + SHARE_HEADING + panel)
}

pub(super) fn draw<DB: DrawingBackend>(report: &Report, canvas: &Canvas<DB>) -> Drawn {
    let high = report.stages.iter().filter_map(|row| row.total_ms).fold(0.0, f64::max);
    let scale = Scale::Linear(if high > 0.0 { high } else { 1.0 });
    let (unit, label) = time_label(high);
    let subtitle = format!("{unit}, time to first token of one pass over all calls, by stage");
    let top = heading(canvas, "Where the time goes", &subtitle)?;
    let top = legend(canvas, top, &entries(report))? + 10.0;
    let left = MARGIN + name_width(report)? + 10.0;
    // Room for the total at the end of the longest bar.
    let panel = Panel { left, right: canvas.size.0 - MARGIN - 70.0, top, scale };
    let bottom = panel.draw(report, canvas, &label, &|row| (1.0, row.total_ms.map(duration)))?;

    // Arms differ by orders of magnitude: the same bars, each drawn to its own length.
    let subtitle = "percent of each arm's own time to first token";
    canvas.text(subtitle, (MARGIN, bottom + SHARE_HEADING / 2.0), Type::new(12.5).muted())?;
    let shares = Panel { top: bottom + SHARE_HEADING, scale: Scale::Linear(100.0), ..panel };
    let share = |row: &StageRow| (row.total_ms.filter(|&ms| ms > 0.0).map_or(0.0, |ms| 100.0 / ms), None);
    shares.draw(report, canvas, &plain_number, &share).map(drop)
}

fn name_type() -> Type {
    Type::new(12.5).anchor(HPos::Right)
}

fn name_width(report: &Report) -> Drawn<f64> {
    let mut widest: f64 = 0.0;
    for row in &report.stages {
        widest = widest.max(text_width(&fit(&row.arm, name_type(), NAME_WIDTH_MAX)?, name_type())?);
    }
    Ok(widest)
}

/// Bars of all arms under one scale.
#[derive(Clone, Copy)]
struct Panel {
    left: f64,
    right: f64,
    top: f64,
    scale: Scale,
}

impl Panel {
    /// Draws the bars; `bar` gives what to multiply an arm's milliseconds by and the label at its end. Returns the y below.
    fn draw<DB: DrawingBackend>(
        &self,
        report: &Report,
        canvas: &Canvas<DB>,
        label: &dyn Fn(f64) -> String,
        bar: &dyn Fn(&StageRow) -> (f64, Option<String>),
    ) -> Drawn<f64> {
        let Self { left, right, top, scale } = *self;
        let bottom = top + PITCH * report.stages.len() as f64;
        let x_at = |value: f64| left + scale.share(value) * (right - left);
        for tick in scale.ticks() {
            canvas.line(&[(x_at(tick), top), (x_at(tick), bottom)], palette::RULE, 1.0)?;
            let style = Type::new(11.5).muted().anchor(HPos::Center);
            canvas.text(&label(tick), (x_at(tick), bottom + 13.0), style)?;
        }
        let stages = present(report);
        for (arm_idx, row) in report.stages.iter().enumerate() {
            let middle = top + PITCH * (arm_idx as f64 + 0.5);
            canvas.text(&fit(&row.arm, name_type(), NAME_WIDTH_MAX)?, (left - 10.0, middle), name_type())?;
            let (factor, end) = bar(row);
            let mut done = 0.0;
            for &(stage_idx, name) in &stages {
                // Rounding can leave the remainder a hair below zero.
                let length = row.spans_ms[stage_idx].1.unwrap_or(0.0).max(0.0) * factor;
                if length > 0.0 {
                    let corner = (x_at(done), middle - BAR / 2.0);
                    canvas.rect(corner, (x_at(done + length), middle + BAR / 2.0), palette::stage(name))?;
                }
                done += length;
            }
            if let Some(end) = end {
                canvas.text(&end, (x_at(done) + 8.0, middle), Type::new(12.5).bold())?;
            }
        }
        canvas.line(&[(left, top), (left, bottom)], palette::AXIS, 1.0)?;
        Ok(bottom + AXIS_DEPTH)
    }
}
