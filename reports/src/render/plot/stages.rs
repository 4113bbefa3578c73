//! TTFT of one pass by stage, one horizontal bar per arm.

use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::HPos;

use super::axes::{Entry, Key, MARGIN, Scale, heading, legend, legend_height, time_label};
use super::canvas::{Canvas, Drawn, Type, fit, text_width};
use super::{WIDTH, palette};
use crate::number::duration;
use crate::report::Report;

const BAR: f64 = 26.0;
const PITCH: f64 = 42.0;
const HEADING: f64 = 66.0;
const AXIS_DEPTH: f64 = 36.0;

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
    Ok(HEADING + legend + PITCH * report.stages.len() as f64 + AXIS_DEPTH)
}

pub(super) fn draw<DB: DrawingBackend>(report: &Report, canvas: &Canvas<DB>) -> Drawn {
    let high = report.stages.iter().filter_map(|row| row.total_ms).fold(0.0, f64::max);
    let scale = Scale::Linear(if high > 0.0 { high } else { 1.0 });
    let (unit, label) = time_label(high);
    let subtitle = format!("{unit}, time to first token of one pass over all calls, by stage");
    let top = heading(canvas, "Where the time goes", &subtitle)?;
    let stages = present(report);
    let top = legend(canvas, top, &entries(report))? + 10.0;

    let name_type = Type::new(12.5).anchor(HPos::Right);
    let mut name_width: f64 = 0.0;
    for row in &report.stages {
        name_width = name_width.max(text_width(&fit(&row.arm, name_type, 180.0)?, name_type)?);
    }
    let left = MARGIN + name_width + 10.0;
    // Room for the total at the end of the longest bar.
    let right = canvas.size.0 - MARGIN - 70.0;
    let bottom = top + PITCH * report.stages.len() as f64;
    let x_at = |ms: f64| left + scale.share(ms) * (right - left);
    for tick in scale.ticks() {
        canvas.line(&[(x_at(tick), top), (x_at(tick), bottom)], palette::RULE, 1.0)?;
        let style = Type::new(11.5).muted().anchor(HPos::Center);
        canvas.text(&label(tick), (x_at(tick), bottom + 13.0), style)?;
    }
    for (arm_idx, row) in report.stages.iter().enumerate() {
        let middle = top + PITCH * (arm_idx as f64 + 0.5);
        canvas.text(&fit(&row.arm, name_type, 180.0)?, (left - 10.0, middle), name_type)?;
        let mut done = 0.0;
        for &(stage_idx, name) in &stages {
            // Rounding can leave the remainder a hair below zero.
            let ms = row.spans_ms[stage_idx].1.unwrap_or(0.0).max(0.0);
            if ms > 0.0 {
                let corner = (x_at(done), middle - BAR / 2.0);
                canvas.rect(corner, (x_at(done + ms), middle + BAR / 2.0), palette::stage(name))?;
            }
            done += ms;
        }
        if let Some(total) = row.total_ms {
            canvas.text(&duration(total), (x_at(done) + 8.0, middle), Type::new(12.5).bold())?;
        }
    }
    canvas.line(&[(left, top), (left, bottom)], palette::AXIS, 1.0)
}
