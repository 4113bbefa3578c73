//! Samples over time, one panel per quantity, with the arm whose call was in flight tinted behind the lines, a white line
//! where a call begins, and a red rule where power or temperature slowed the board down.

use std::collections::BTreeMap;

use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;

use super::axes::{Entry, Frame, Key, MARGIN, Scale, heading, legend, legend_height, plain_number};
use super::canvas::{Canvas, Drawn, Point, Type, text_width};
use super::{WIDTH, palette};
use crate::record::TelemetrySample;
use crate::report::Report;
use crate::throttle;

const PANEL: f64 = 130.0;
const HEADING: f64 = 66.0;
/// A line has at most about this many points: the smallest and largest sample of each slice of time are kept.
const POINTS_MAX: usize = 1_200;
/// Calls closer than this on average are not told apart by lines, pixels.
const CALL_PX_MIN: f64 = 4.0;
/// Height of the rule that marks a slowed board.
const RULE: f64 = 4.0;

/// Quantities of one unit that share a panel.
struct Panel {
    title: &'static str,
    lines: &'static [Line],
}

/// A quantity that a panel shows; a name is needed where there are several.
struct Line {
    name: &'static str,
    of: fn(&TelemetrySample) -> Option<f64>,
}

const GIB: f64 = 1_073_741_824.0;
const CLOCKS: &str = "Clocks, MHz";

const PANELS: [Panel; 9] = [
    Panel {
        title: "Board power, W",
        lines: &[
            Line { name: "power", of: |s| s.power_w },
            Line { name: "mean of a second", of: |s| s.power_average_w },
            Line { name: "limit", of: |s| s.power_limit_w },
        ],
    },
    Panel {
        title: "Utilisation, %",
        lines: &[
            Line { name: "GPU", of: |s| s.gpu_util.map(|share| share * 100.0) },
            Line { name: "memory", of: |s| s.mem_util.map(|share| share * 100.0) },
        ],
    },
    Panel {
        title: "Hardware counters (GPM), %",
        lines: &[
            Line { name: "SM occupancy", of: |s| s.sm_occupancy.map(|share| share * 100.0) },
            Line { name: "tensor pipes", of: |s| s.tensor_util.map(|share| share * 100.0) },
            Line { name: "DRAM bandwidth", of: |s| s.dram_bw_util.map(|share| share * 100.0) },
        ],
    },
    Panel {
        title: CLOCKS,
        lines: &[
            Line { name: "SM", of: |s| s.sm_clock_mhz },
            Line { name: "memory", of: |s| s.mem_clock_mhz },
            Line { name: "video", of: |s| s.video_clock_mhz },
        ],
    },
    Panel {
        title: "Temperature, °C",
        lines: &[
            Line { name: "GPU", of: |s| s.temperature_c },
            Line { name: "memory", of: |s| s.mem_temperature_c },
        ],
    },
    Panel {
        title: "Device memory, GiB",
        lines: &[
            Line { name: "all processes", of: |s| s.device_bytes.map(|b| b as f64 / GIB) },
            Line { name: "this process", of: |s| s.process_device_bytes.map(|b| b as f64 / GIB) },
        ],
    },
    Panel {
        title: "PCIe, MB/s",
        lines: &[
            Line { name: "sent by the board", of: |s| s.pcie_tx_bytes_per_s.map(|b| b / 1e6) },
            Line { name: "received", of: |s| s.pcie_rx_bytes_per_s.map(|b| b / 1e6) },
        ],
    },
    Panel {
        title: "Resident set of the process, GiB",
        lines: &[Line { name: "resident set", of: |s| s.host_rss_bytes.map(|b| b as f64 / GIB) }],
    },
    Panel { title: "CPU of the process, cores", lines: &[Line { name: "CPU", of: |s| s.host_cpu_cores }] },
];

/// A panel of this run: its title, and its lines with their colours.
struct Present {
    title: &'static str,
    lines: Vec<(&'static Line, RGBColor)>,
    /// The title says all that the one line of such a panel can be.
    is_single: bool,
}

fn present(report: &Report) -> Vec<Present> {
    let has = |line: &Line| {
        report.telemetry.iter().filter(|s| (line.of)(s).is_some_and(f64::is_finite)).nth(1).is_some()
    };
    let panel = |panel: &Panel| {
        let colored = panel.lines.iter().zip(palette::LINES).filter(|(line, _)| has(line));
        Present { title: panel.title, lines: colored.collect(), is_single: panel.lines.len() == 1 }
    };
    PANELS.iter().map(panel).filter(|panel| !panel.lines.is_empty()).collect()
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

/// Seconds to pixels.
#[derive(Clone, Copy)]
struct Time {
    left: f64,
    right: f64,
    span_s: f64,
}

impl Time {
    fn x_at(self, time_s: f64) -> f64 {
        self.left + (time_s / self.span_s).clamp(0.0, 1.0) * (self.right - self.left)
    }
}

/// What stands behind the lines of every panel.
struct Background {
    bands: Vec<(f64, f64, RGBColor)>,
    begins: Vec<f64>,
    slowed: Vec<(f64, f64)>,
}

impl Background {
    fn of(report: &Report, time: Time) -> Self {
        let begins = begins(report);
        let has_room = (time.right - time.left) / begins.len().max(1) as f64 >= CALL_PX_MIN;
        Self {
            bands: bands(report),
            begins: if has_room { begins } else { Vec::new() },
            slowed: stretches(report, |s| {
                s.throttle_mask.and_then(|mask| throttle::slowed(mask).next()).map(|_| ())
            })
            .into_iter()
            .map(|(start, end, ())| (start, end))
            .collect(),
        }
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>, frame: &Frame, time: Time) -> Drawn {
        for &(start, end, color) in &self.bands {
            canvas.tint((time.x_at(start), frame.top), (time.x_at(end), frame.bottom), color, 0.22)?;
        }
        for &begin in &self.begins {
            let x = time.x_at(begin);
            canvas.line(&[(x, frame.top), (x, frame.bottom)], palette::PAPER, 1.0)?;
        }
        Ok(())
    }
}

pub(super) fn draw<DB: DrawingBackend>(report: &Report, canvas: &Canvas<DB>) -> Drawn {
    let time = Time { left: MARGIN + 48.0, right: canvas.size.0 - MARGIN, span_s: span_s(report) };
    let background = Background::of(report, time);
    let lines = if background.begins.is_empty() { "" } else { ", white line: a call begins" };
    let subtitle = format!("by seconds since the run started; tint: arm of the call in flight{lines}");
    let top = heading(canvas, "Telemetry of the run", &subtitle)?;
    let top = legend(canvas, top, &entries(report))? + 4.0;
    let panels = present(report);
    for (position, panel) in panels.iter().enumerate() {
        let panel_top = top + PANEL * position as f64;
        let lines: Vec<(Vec<Point>, RGBColor)> =
            panel.lines.iter().map(|(line, color)| (series(report, line), *color)).collect();
        let high = lines.iter().flat_map(|(points, _)| points).map(|p| p.1).fold(0.0, f64::max);
        let frame = Frame {
            left: time.left,
            top: panel_top + 26.0,
            right: time.right,
            bottom: panel_top + PANEL - 8.0,
            y: Scale::linear(high),
        };
        canvas.text(panel.title, (frame.left, panel_top + 14.0), Type::new(12.5).bold())?;
        let slowed: &[(f64, f64)] = if panel.title == CLOCKS { &background.slowed } else { &[] };
        draw_key(canvas, panel, !slowed.is_empty(), (frame.right, panel_top + 14.0))?;
        background.draw(canvas, &frame, time)?;
        frame.draw_y(canvas, &plain_number)?;
        for (points, color) in lines {
            let line: Vec<Point> =
                points.iter().map(|&(time_s, value)| (time.x_at(time_s), frame.y_at(value))).collect();
            canvas.line(&line, color, 1.4)?;
        }
        for &(start, end) in slowed {
            // A moment is still worth a pixel.
            let (from, to) = (time.x_at(start), time.x_at(end).max(time.x_at(start) + 1.0));
            canvas.rect((from, frame.top), (to, frame.top + RULE), palette::ALARM)?;
        }
    }
    let bottom = top + PANEL * panels.len() as f64 - 8.0;
    for tick in Scale::linear(time.span_s).ticks().into_iter().filter(|&t| t <= time.span_s) {
        let style = Type::new(11.5).muted().anchor(HPos::Center);
        canvas.text(&plain_number(tick), (time.x_at(tick), bottom + 13.0), style)?;
    }
    Ok(())
}

/// Names of a panel's lines, up to the right end of its title row.
fn draw_key<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    panel: &Present,
    has_slowed: bool,
    right: Point,
) -> Drawn {
    const SIGN: f64 = 16.0;
    const GAP: f64 = 16.0;
    let style = Type::new(11.5);
    let mut entries: Vec<(&str, RGBColor, f64)> =
        panel.lines.iter().map(|(line, color)| (line.name, *color, 1.8)).collect();
    if has_slowed {
        entries.push(("slowed by power or temperature", palette::ALARM, RULE));
    }
    if panel.is_single {
        return Ok(());
    }
    let mut x = right.0;
    for (name, color, width) in entries.into_iter().rev() {
        x -= text_width(name, style)?;
        canvas.text(name, (x, right.1), style)?;
        x -= SIGN + 5.0;
        canvas.line(&[(x, right.1), (x + SIGN, right.1)], color, width)?;
        x -= GAP;
    }
    Ok(())
}

/// (start, end, colour) in seconds of the stretches during which calls of one arm were in flight.
fn bands(report: &Report) -> Vec<(f64, f64, RGBColor)> {
    let arm_of: BTreeMap<u64, usize> = report.executions.iter().map(|e| (e.order_index, e.arm_idx)).collect();
    let colors = palette::arms(report.arm_names());
    let arms = stretches(report, |s| s.order_index.and_then(|order| arm_of.get(&order).copied()));
    arms.into_iter().map(|(start, end, arm_idx)| (start, end, colors[arm_idx])).collect()
}

/// (start, end, what) in seconds of the stretches in which samples say the same.
fn stretches<T: PartialEq>(
    report: &Report,
    of: impl Fn(&TelemetrySample) -> Option<T>,
) -> Vec<(f64, f64, T)> {
    let mut stretches: Vec<(f64, f64, T)> = Vec::new();
    for (position, sample) in report.telemetry.iter().enumerate() {
        let Some(what) = of(sample) else { continue };
        let start = sample.time_ms / 1e3;
        // A sample stands for the time up to the next one.
        let end = report.telemetry.get(position + 1).map_or(start, |next| next.time_ms / 1e3).max(start);
        match stretches.last_mut().filter(|stretch| stretch.2 == what && start <= stretch.1) {
            Some(stretch) => stretch.1 = end,
            None => stretches.push((start, end, what)),
        }
    }
    stretches
}

/// Seconds at which calls begin.
fn begins(report: &Report) -> Vec<f64> {
    let mut before = None;
    let mut begins = Vec::new();
    for sample in &report.telemetry {
        if sample.order_index.is_some() && sample.order_index != before && sample.time_ms.is_finite() {
            begins.push(sample.time_ms / 1e3);
        }
        before = sample.order_index;
    }
    begins
}

/// (seconds, value), thinned so that peaks survive.
fn series(report: &Report, line: &Line) -> Vec<Point> {
    let sample = |s: &TelemetrySample| Some((s.time_ms / 1e3, (line.of)(s).filter(|v| v.is_finite())?));
    let all: Vec<Point> = report.telemetry.iter().filter_map(sample).collect();
    let slice = all.len().div_ceil(POINTS_MAX / 2).max(1);
    if slice < 3 {
        return all;
    }
    let mut thinned = Vec::new();
    for part in all.chunks(slice) {
        let low = part.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let high = part.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let mut ends: Vec<Point> = low.into_iter().chain(high).copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        thinned.extend(ends);
    }
    thinned
}
