//! Scales, ticks, grids, legends and the axis of calls: what the plots share. Knows no metric.

use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;

use super::canvas::{Canvas, Drawn, Type, fit, text_width};
use super::palette;
use crate::report::CallRow;

/// Left edge of titles and legends.
pub(super) const MARGIN: f64 = 24.0;
/// Below this ratio of largest to smallest value a linear scale shows everything.
const LOG_FROM_RATIO: f64 = 50.0;

/// Values to pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From 0 to the given end.
    Linear(f64),
    /// From the first to the second, both positive.
    Log(f64, f64),
}

impl Scale {
    /// Logarithmic with a little air where positive values differ by more than fifty times, else from zero.
    pub(super) fn for_values(values: &[f64]) -> Self {
        let positive = || values.iter().copied().filter(|v| v.is_finite() && *v > 0.0);
        let (low, high) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
        if high > LOG_FROM_RATIO * low { Self::Log(low / 1.2, high * 1.2) } else { Self::linear(high) }
    }

    /// From 0 to the next tick above `high`.
    pub(super) fn linear(high: f64) -> Self {
        let high = if high.is_finite() && high > 0.0 { high } else { 1.0 };
        let interval = tick_interval(high, 5.0);
        Self::Linear((high / interval).ceil() * interval)
    }

    /// Share of the axis at a value, 0 to 1.
    pub(super) fn share(self, value: f64) -> f64 {
        match self {
            Self::Linear(high) => value / high,
            Self::Log(low, high) => (value.max(low) / low).ln() / (high / low).ln(),
        }
    }

    /// Values with a grid line, ascending.
    pub(super) fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(high) => {
                let interval = tick_interval(high, 5.0);
                (0..=(high / interval * 1.000_001).floor() as usize).map(|i| i as f64 * interval).collect()
            }
            Self::Log(low, high) => log_ticks(low, high),
        }
    }

    /// `"log scale"` to be said in a subtitle, or nothing.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Linear(_) => "",
            Self::Log(..) => ", log scale",
        }
    }
}

/// 1, 2, 2.5 or 5 times a power of ten, so that about `n` of it reach `high`.
fn tick_interval(high: f64, n: f64) -> f64 {
    let raw = high / n;
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|f| f * power >= raw * 0.999);
    factor.unwrap_or(10.0) * power
}

fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let factors: &[f64] = if high / low > 20_000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let mut ticks = Vec::new();
    let mut power = 10_f64.powf(low.log10().floor());
    while power <= high * 1.001 {
        ticks.extend(factors.iter().map(|f| f * power).filter(|&v| v >= low * 0.999 && v <= high * 1.001));
        power *= 10.0;
    }
    ticks
}

/// The rectangle that data is drawn in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
    pub(super) y: Scale,
}

impl Frame {
    pub(super) fn height(&self) -> f64 {
        self.bottom - self.top
    }

    pub(super) fn width(&self) -> f64 {
        self.right - self.left
    }

    pub(super) fn y_at(&self, value: f64) -> f64 {
        self.bottom - self.y.share(value) * self.height()
    }

    /// Grid lines with their labels on the left, and the base line.
    pub(super) fn draw_y<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<DB>,
        label: &dyn Fn(f64) -> String,
    ) -> Drawn {
        let style = Type::new(11.5).muted().anchor(HPos::Right);
        for tick in self.y.ticks() {
            let y = self.y_at(tick);
            canvas.line(&[(self.left, y), (self.right, y)], palette::RULE, 1.0)?;
            canvas.text(&label(tick), (self.left - 8.0, y), style)?;
        }
        canvas.line(&[(self.left, self.bottom), (self.right, self.bottom)], palette::AXIS, 1.0)
    }
}

/// The calls of all sessions side by side, one column each.
pub(super) struct CallAxis {
    /// (session name, first column, columns) of each session.
    sessions: Vec<(String, usize, usize)>,
    /// Number of each column's call within its session, from 1.
    numbers: Vec<u32>,
}

impl CallAxis {
    pub(super) fn new(rows: &[CallRow]) -> Self {
        let mut sessions: Vec<(String, usize, usize)> = Vec::new();
        for (column, row) in rows.iter().enumerate() {
            match sessions.last_mut().filter(|s| s.0 == row.key.session_id) {
                Some(session) => session.2 += 1,
                None => sessions.push((row.key.session_id.clone(), column, 1)),
            }
        }
        Self { sessions, numbers: rows.iter().map(|row| row.key.call_index.saturating_add(1)).collect() }
    }

    /// The calls of one session, whose name stands elsewhere.
    pub(super) fn of_one_session(n_calls: usize) -> Self {
        let numbers = (1..).take(n_calls).collect();
        Self { sessions: vec![(String::new(), 0, n_calls)], numbers }
    }

    /// Width of a column.
    pub(super) fn column_width(&self, frame: &Frame) -> f64 {
        frame.width() / self.numbers.len().max(1) as f64
    }

    /// Middle of a column.
    pub(super) fn x_at(&self, frame: &Frame, column: usize) -> f64 {
        frame.left + (column as f64 + 0.5) * self.column_width(frame)
    }

    /// Call numbers below the frame, and a line and a name where a session begins if there are several.
    pub(super) fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>, frame: &Frame) -> Drawn {
        let column_width = self.column_width(frame);
        let label_width = text_width(&self.numbers.iter().max().unwrap_or(&1).to_string(), Type::new(11.5))?;
        let every = [1, 2, 5, 10, 20, 50, 100, 200, 500]
            .into_iter()
            .find(|&n| n as f64 * column_width > label_width + 10.0);
        let every = every.unwrap_or(1_000);
        let room = (label_width + 5.0) / column_width;
        let near_start = |column: usize| {
            self.sessions.iter().any(|s| s.1 != column && (s.1 as f64 - column as f64).abs() < room)
        };
        for (column, &number) in self.numbers.iter().enumerate() {
            let starts_session = self.starts_session(column);
            if (starts_session && column_width * self.shortest_session() > label_width + 5.0)
                || (number.is_multiple_of(every) && !starts_session && !near_start(column))
            {
                let style = Type::new(11.5).muted().anchor(HPos::Center);
                canvas.text(&number.to_string(), (self.x_at(frame, column), frame.bottom + 13.0), style)?;
            }
        }
        self.draw_sessions(canvas, frame)
    }

    /// The columns of each session.
    pub(super) fn session_columns(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.sessions.iter().map(|(_, first, columns)| *first..first + columns)
    }

    /// Whether a column is the first one of its session.
    fn starts_session(&self, column: usize) -> bool {
        self.sessions.binary_search_by_key(&column, |s| s.1).is_ok()
    }

    fn shortest_session(&self) -> f64 {
        self.sessions.iter().map(|s| s.2).min().unwrap_or(1) as f64
    }

    fn draw_sessions<DB: DrawingBackend>(&self, canvas: &Canvas<DB>, frame: &Frame) -> Drawn {
        if self.sessions.len() < 2 {
            return Ok(());
        }
        let style = Type::new(10.5).muted().anchor(HPos::Center);
        for (name, first, columns) in &self.sessions {
            let left = frame.left + *first as f64 * self.column_width(frame);
            let width = *columns as f64 * self.column_width(frame);
            if *first > 0 && width > 3.0 {
                canvas.dashed_vertical(left, frame.top, frame.bottom + 32.0, palette::AXIS)?;
            }
            // A name that is cut to a few letters helps nobody.
            let shown = fit(name, style, width - 8.0)?;
            if shown == *name || shown.chars().count() >= 6 {
                canvas.text(&shown, (left + width / 2.0, frame.bottom + 29.0), style)?;
            }
        }
        Ok(())
    }

    /// Room that labels need below a frame.
    pub(super) fn depth(&self) -> f64 {
        if self.sessions.len() < 2 { 24.0 } else { 40.0 }
    }

    /// What the numbers below a frame are.
    pub(super) fn words(&self) -> &'static str {
        if self.sessions.len() < 2 {
            "call"
        } else {
            "call within its session; dashed lines separate sessions"
        }
    }
}

/// Title and what is shown in which unit. Returns the height used.
pub(super) fn heading<DB: DrawingBackend>(canvas: &Canvas<DB>, title: &str, subtitle: &str) -> Drawn<f64> {
    let width = canvas.size.0 - 2.0 * MARGIN;
    let (title_type, subtitle_type) = (Type::new(17.0).bold(), Type::new(12.5).muted());
    canvas.text(&fit(title, title_type, width)?, (MARGIN, 26.0), title_type)?;
    canvas.text(&fit(subtitle, subtitle_type, width)?, (MARGIN, 48.0), subtitle_type)?;
    Ok(66.0)
}

/// How a legend shows an entry.
#[derive(Clone, Copy)]
pub(super) enum Key {
    /// A filled square.
    Area,
    /// A line with the marker of this slot.
    Line(usize),
}

/// An entry of a legend: sign, colour, name.
pub(super) type Entry = (Key, RGBColor, String);

const LEGEND_ROW: f64 = 20.0;
const LEGEND_TYPE_SIZE: f64 = 12.0;

/// A placed entry: its left end, its row, its name cut to fit.
struct Placed {
    x: f64,
    row: usize,
    shown: String,
}

fn sign_width(key: Key) -> f64 {
    match key {
        Key::Area => 11.0,
        Key::Line(_) => 22.0,
    }
}

/// Entries from left to right, wrapped into rows.
fn place(width: f64, entries: &[Entry]) -> Drawn<Vec<Placed>> {
    const GAP: f64 = 20.0;
    let style = Type::new(LEGEND_TYPE_SIZE);
    let (mut x, mut row) = (MARGIN, 0);
    let mut placed = Vec::with_capacity(entries.len());
    for (key, _, name) in entries {
        let shown = fit(name, style, 260.0)?;
        let entry_width = sign_width(*key) + 7.0 + text_width(&shown, style)?;
        if x + entry_width > width - MARGIN && x > MARGIN {
            (x, row) = (MARGIN, row + 1);
        }
        placed.push(Placed { x, row, shown });
        x += entry_width + GAP;
    }
    Ok(placed)
}

/// Height of a legend on a plot of this width.
pub(super) fn legend_height(width: f64, entries: &[Entry]) -> Drawn<f64> {
    Ok(LEGEND_ROW * place(width, entries)?.last().map_or(1, |last| last.row + 1) as f64)
}

/// Draws a legend above the data, so that it never covers any. Returns the y below it.
pub(super) fn legend<DB: DrawingBackend>(canvas: &Canvas<DB>, top: f64, entries: &[Entry]) -> Drawn<f64> {
    for ((key, color, _), Placed { x, row, shown }) in entries.iter().zip(place(canvas.size.0, entries)?) {
        let y = top + LEGEND_ROW * (row as f64 + 0.5);
        match *key {
            Key::Area => canvas.rect((x, y - 5.5), (x + 11.0, y + 5.5), *color)?,
            Key::Line(slot) => {
                canvas.line(&[(x, y), (x + 22.0, y)], *color, 2.2)?;
                canvas.marker(slot, (x + 11.0, y), 4.0, *color)?;
            }
        }
        canvas.text(&shown, (x + sign_width(*key) + 7.0, y), Type::new(LEGEND_TYPE_SIZE))?;
    }
    Ok(top + legend_height(canvas.size.0, entries)?)
}

/// Labels of a time axis in one unit for all ticks: seconds where the largest reaches ten seconds.
pub(super) fn time_label(scale_high_ms: f64) -> (&'static str, impl Fn(f64) -> String) {
    let (unit, divisor) =
        if scale_high_ms >= 10_000.0 { ("seconds", 1_000.0) } else { ("milliseconds", 1.0) };
    (unit, move |ms: f64| plain_number(ms / divisor))
}

/// A tick value without needless digits: `0.02`, `5`, `1,200`.
pub(super) fn plain_number(value: f64) -> String {
    if value == 0.0 || value.abs() >= 10.0 {
        return crate::number::count(value);
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_pick_log_beyond_fifty_times() {
        assert_eq!(Scale::for_values(&[1.0, 49.0]), Scale::Linear(50.0));
        assert_eq!(Scale::for_values(&[3.0, 400.0]), Scale::Log(2.5, 480.0));
        assert_eq!(Scale::for_values(&[]), Scale::Linear(1.0));
        assert_eq!(Scale::for_values(&[0.0, f64::NAN]), Scale::Linear(1.0));
    }

    #[test]
    fn ticks_start_and_end_at_the_ends() {
        assert_eq!(Scale::linear(47.0).ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(Scale::Log(2.0, 50.0).ticks(), [2.0, 5.0, 10.0, 20.0, 50.0]);
        let scale = Scale::Log(2.0, 50.0);
        assert!(scale.share(2.0).abs() < 1e-12 && (scale.share(50.0) - 1.0).abs() < 1e-12);
        assert_eq!(scale.share(0.0), 0.0);
    }

    #[test]
    fn tick_labels_have_no_needless_digits() {
        let labels: Vec<_> = [0.0, 0.02, 0.5, 5.0, 1_200.0].into_iter().map(plain_number).collect();
        assert_eq!(labels, ["0", "0.02", "0.5", "5", "1,200"]);
    }
}
