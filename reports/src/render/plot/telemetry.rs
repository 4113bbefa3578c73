//! Samples over time, one panel per quantity, with the arm whose call was in flight tinted behind the line.

use std::collections::BTreeMap;

use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::HPos;

use super::axes::{Entry, Frame, Key, MARGIN, Scale, heading, legend, legend_height, plain_number};
use super::canvas::{Canvas, Drawn, Point, Type};
use super::{WIDTH, palette};
use crate::record::TelemetrySample;
use crate::report::Report;

const PANEL: f64 = 130.0;
const HEADING: f64 = 66.0;
/// A line has at most about this many points: the smallest and largest sample of each slice of time are kept.
const POINTS_MAX: usize = 1_200;

/// A quantity that a panel shows.
struct Quantity {
    title: &'static str,
    of: fn(&TelemetrySample) -> Option<f64>,
}

const GIB: f64 = 1_073_741_824.0;

const QUANTITIES: [Quantity; 8] = [
    Quantity { title: "Resident set of the process, GiB", of: |s| s.host_rss_bytes.map(|b| b as f64 / GIB) },
    Quantity { title: "CPU of the process, cores", of: |s| s.host_cpu_cores },
    Quantity { title: "Board power, W", of: |s| s.power_w },
    Quantity { title: "GPU utilisation, %", of: |s| s.gpu_util.map(|u| u * 100.0) },
    Quantity { title: "Device memory, GiB", of: |s| s.device_bytes.map(|b| b as f64 / GIB) },
    Quantity { title: "GPU temperature, °C", of: |s| s.temperature_c },
    Quantity { title: "SM clock, MHz", of: |s| s.sm_clock_mhz },
    Quantity { title: "Memory clock, MHz", of: |s| s.mem_clock_mhz },
];

fn present(report: &Report) -> Vec<&'static Quantity> {
    let has = |q: &&Quantity| {
        report.telemetry.iter().filter(|s| (q.of)(s).is_some_and(f64::is_finite)).nth(1).is_some()
    };
    QUANTITIES.iter().filter(has).collect()
}

pub(super) fn has_data(report: &Report) -> bool {
    span_s(report) > 0.0 && !present(report).is_empty()
}

fn entries(report: &Report) -> Vec<Entry> {
    let colors = palette::arms(report.arm_names());
    report.arm_names().zip(colors).map(|(arm, color)| (Key::Area, color, arm.to_string())).collect()
}

pub(super) fn height(report: &Report) -> Drawn<f64> {
    let legend = legend_height(f64::from(WIDTH), &entries(report))?;
    Ok(HEADING + legend + PANEL * present(report).len() as f64 + 26.0)
}

/// Seconds of the last sample.
fn span_s(report: &Report) -> f64 {
    report.telemetry.iter().map(|s| s.time_ms / 1e3).filter(|t| t.is_finite()).fold(0.0, f64::max)
}

pub(super) fn draw<DB: DrawingBackend>(report: &Report, canvas: &Canvas<DB>) -> Drawn {
    let top = heading(
        canvas,
        "Telemetry of the run",
        "by seconds since the run started; tint: arm of the call in flight",
    )?;
    let colors = palette::arms(report.arm_names());
    let top = legend(canvas, top, &entries(report))? + 4.0;
    let span = span_s(report);
    let bands = bands(report);
    let (left, right) = (MARGIN + 48.0, canvas.size.0 - MARGIN);
    let x_at = |time_s: f64| left + (time_s / span).clamp(0.0, 1.0) * (right - left);
    let panels = present(report);
    for (panel, quantity) in panels.iter().enumerate() {
        let panel_top = top + PANEL * panel as f64;
        let series = series(report, quantity);
        let high = series.iter().map(|p| p.1).fold(0.0, f64::max);
        let frame = Frame {
            left,
            top: panel_top + 26.0,
            right,
            bottom: panel_top + PANEL - 8.0,
            y: Scale::linear(high),
        };
        canvas.text(quantity.title, (left, panel_top + 14.0), Type::new(12.5).bold())?;
        for &(start, end, arm_idx) in &bands {
            canvas.tint((x_at(start), frame.top), (x_at(end), frame.bottom), colors[arm_idx], 0.22)?;
        }
        frame.draw_y(canvas, &plain_number)?;
        let line: Vec<Point> =
            series.iter().map(|&(time_s, value)| (x_at(time_s), frame.y_at(value))).collect();
        canvas.line(&line, palette::INK, 1.4)?;
    }
    let bottom = top + PANEL * panels.len() as f64 - 8.0;
    for tick in Scale::linear(span).ticks().into_iter().filter(|&t| t <= span) {
        let style = Type::new(11.5).muted().anchor(HPos::Center);
        canvas.text(&plain_number(tick), (x_at(tick), bottom + 13.0), style)?;
    }
    Ok(())
}

/// (start, end, arm) in seconds of the stretches during which calls of one arm were in flight.
fn bands(report: &Report) -> Vec<(f64, f64, usize)> {
    let arm_of: BTreeMap<u64, usize> = report.executions.iter().map(|e| (e.order_index, e.arm_idx)).collect();
    let mut bands: Vec<(f64, f64, usize)> = Vec::new();
    for (position, sample) in report.telemetry.iter().enumerate() {
        let Some(&arm_idx) = sample.order_index.and_then(|order| arm_of.get(&order)) else { continue };
        let start = sample.time_ms / 1e3;
        // A sample stands for the time up to the next one.
        let end = report.telemetry.get(position + 1).map_or(start, |next| next.time_ms / 1e3).max(start);
        match bands.last_mut().filter(|band| band.2 == arm_idx && start <= band.1) {
            Some(band) => band.1 = end,
            None => bands.push((start, end, arm_idx)),
        }
    }
    bands
}

/// (seconds, value), thinned so that peaks survive.
fn series(report: &Report, quantity: &Quantity) -> Vec<(f64, f64)> {
    let sample = |s: &TelemetrySample| Some((s.time_ms / 1e3, (quantity.of)(s).filter(|v| v.is_finite())?));
    let all: Vec<(f64, f64)> = report.telemetry.iter().filter_map(sample).collect();
    let slice = all.len().div_ceil(POINTS_MAX / 2).max(1);
    if slice < 3 {
        return all;
    }
    let mut thinned = Vec::new();
    for part in all.chunks(slice) {
        let low = part.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let high = part.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let mut ends: Vec<(f64, f64)> = low.into_iter().chain(high).copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        thinned.extend(ends);
    }
    thinned
}
