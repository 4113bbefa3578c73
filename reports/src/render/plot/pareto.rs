//! Fidelity against cost: a column of panels per reading of cost, a row per measure.

use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;

use super::axes::{Entry, Frame, Key, MARGIN, Scale, heading, legend, legend_height, plain_number};
use super::canvas::{Canvas, Drawn, Point, Type};
use super::{WIDTH, palette};
use crate::number::kept_share;
use crate::report::{Cost, Line, Measure, Pareto, Report};

const PANEL: f64 = 218.0;
const X_LABELS: f64 = 46.0;
/// Height of title and subtitle.
const HEADING: f64 = 66.0;
/// Labels of points that would stand closer than this are left out.
const LABEL_ROOM: Point = (24.0, 11.0);

/// Measures that some arm has.
fn measures(pareto: &Pareto) -> Vec<Measure> {
    let is_measured = |measure: &Measure| pareto.points().any(|point| point.measured.contains_key(measure));
    Pareto::MEASURES.into_iter().filter(is_measured).collect()
}

fn entries(pareto: &Pareto) -> Vec<Entry> {
    let colors = palette::arms(pareto.lines.iter().map(|line| line.name.as_str()));
    let entry = |(slot, line): (usize, &Line)| (Key::Line(slot), colors[slot], line.name.clone());
    pareto.lines.iter().enumerate().map(entry).collect()
}

pub(super) fn height(report: &Report) -> Drawn<f64> {
    let Some(pareto) = &report.pareto else { return Ok(HEADING) };
    let legend = legend_height(f64::from(WIDTH), &entries(pareto))?;
    Ok(HEADING + legend + measures(pareto).len() as f64 * PANEL + X_LABELS)
}

pub(super) fn draw<DB: DrawingBackend>(report: &Report, canvas: &Canvas<DB>) -> Drawn {
    let Some(pareto) = &report.pareto else { return Ok(()) };
    heading(
        canvas,
        "Fidelity against cost",
        "numbers beside points: kept share of each message; hollow: dominated",
    )?;
    let entries = entries(pareto);
    let top = legend(canvas, HEADING, &entries)?;
    let width = (canvas.size.0 - 2.0 * MARGIN) / Cost::ALL.len() as f64;
    let measures = measures(pareto);
    for (column, cost) in Cost::ALL.into_iter().enumerate() {
        let costs: Vec<f64> = pareto.points().filter_map(|point| point.cost(cost)).collect();
        let x = cost_scale(&costs);
        for (row, &measure) in measures.iter().enumerate() {
            let left = MARGIN + column as f64 * width;
            let panel_top = top + row as f64 * PANEL;
            let frame = Frame {
                left: left + 44.0,
                top: panel_top + 34.0,
                right: left + width - 16.0,
                bottom: panel_top + PANEL - 8.0,
                y: y_scale(pareto, measure),
            };
            let panel = Panel { pareto, entries: &entries, cost, measure, frame, x };
            panel.draw(canvas)?;
            if row + 1 == measures.len() {
                panel.draw_x_labels(canvas)?;
            }
        }
    }
    Ok(())
}

/// Logarithmic: what matters is by how many times an arm is cheaper.
fn cost_scale(shares: &[f64]) -> Scale {
    let positive = || shares.iter().copied().filter(|share| share.is_finite() && *share > 0.0);
    let (low, high) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
    if high > 0.0 { Scale::Log(low / 1.25, high * 1.25) } else { Scale::linear(1.0) }
}

fn y_scale(pareto: &Pareto, measure: Measure) -> Scale {
    if !measure.is_lower_better() {
        return Scale::linear(1.0);
    }
    let means = pareto.points().filter_map(|point| point.measured.get(&measure));
    Scale::linear(means.map(|mean| mean.interval.map_or(mean.mean, |(_, high)| high)).fold(0.0, f64::max))
}

const fn title(measure: Measure) -> &'static str {
    match measure {
        Measure::ColdNormalised => "tool calls as cold's, normalised, %",
        Measure::Recorded => "tool calls as recorded, %",
        _ => "mean KL over the recorded turn, nats",
    }
}

const fn cost_title(cost: Cost) -> &'static str {
    match cost {
        Cost::Ttft => "TTFT of one pass, % of cold",
        Cost::Tokens => "tokens prefilled and scored, % of cold",
    }
}

/// One measure over one reading of cost.
struct Panel<'a> {
    pareto: &'a Pareto,
    entries: &'a [Entry],
    cost: Cost,
    measure: Measure,
    frame: Frame,
    x: Scale,
}

impl Panel<'_> {
    fn x_at(&self, share: f64) -> f64 {
        self.frame.left + self.x.share(share) * self.frame.width()
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let frame = &self.frame;
        canvas.text(title(self.measure), (frame.left, frame.top - 14.0), Type::new(12.5).bold())?;
        let is_share = !self.measure.is_lower_better();
        frame.draw_y(canvas, &|tick| plain_number(if is_share { tick * 100.0 } else { tick }))?;
        for tick in self.x.ticks() {
            let x = self.x_at(tick);
            canvas.line(&[(x, frame.top), (x, frame.bottom)], palette::RULE, 1.0)?;
        }
        let mut labels: Vec<Point> = Vec::new();
        for (slot, (line, (_, color, _))) in self.pareto.lines.iter().zip(self.entries).enumerate() {
            self.draw_line(canvas, line, slot, *color)?;
            if line.points.len() > 1 {
                self.draw_labels(canvas, line, &mut labels)?;
            }
        }
        Ok(())
    }

    /// The points of a line that have both coordinates, with the position of each in the line.
    fn places(&self, line: &Line) -> Vec<(usize, Point)> {
        let place = |(i, point): (usize, &crate::report::Point)| {
            let (cost, mean) = (point.cost(self.cost)?, point.measured.get(&self.measure)?);
            Some((i, (self.x_at(cost), self.frame.y_at(mean.mean))))
        };
        line.points.iter().enumerate().filter_map(place).collect()
    }

    fn draw_line<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<DB>,
        line: &Line,
        slot: usize,
        color: RGBColor,
    ) -> Drawn {
        let places = self.places(line);
        canvas.line(&places.iter().map(|(_, at)| *at).collect::<Vec<_>>(), color, 1.6)?;
        for &(i, at) in &places {
            let point = &line.points[i];
            if let Some((low, high)) = point.measured.get(&self.measure).and_then(|mean| mean.interval) {
                canvas.line(&[(at.0, self.frame.y_at(low)), (at.0, self.frame.y_at(high))], color, 1.0)?;
            }
            if self.pareto.is_dominated(point, self.cost, self.measure) {
                canvas.ring(slot, at, 4.6, color)?;
            } else {
                canvas.marker(slot, at, 4.6, color)?;
            }
        }
        Ok(())
    }

    /// Kept shares on the right of their points, on the side of worse fidelity, but where another one stands.
    fn draw_labels<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<DB>,
        line: &Line,
        taken: &mut Vec<Point>,
    ) -> Drawn {
        for (i, (x, y)) in self.places(line) {
            let Some(kept) = line.points[i].keep_permille else { continue };
            let at = (x + 7.0, if self.measure.is_lower_better() { y - 8.0 } else { y + 9.0 });
            let is_near = |other: &Point| {
                (other.0 - at.0).abs() < LABEL_ROOM.0 && (other.1 - at.1).abs() < LABEL_ROOM.1
            };
            if taken.iter().any(is_near) {
                continue;
            }
            taken.push(at);
            canvas.text(&kept_share(kept), at, Type::new(10.5).muted())?;
        }
        Ok(())
    }

    fn draw_x_labels<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn {
        let frame = &self.frame;
        let style = Type::new(11.5).muted().anchor(HPos::Center);
        for tick in self.x.ticks() {
            canvas.text(&plain_number(tick * 100.0), (self.x_at(tick), frame.bottom + 13.0), style)?;
        }
        let words = format!("{}{}", cost_title(self.cost), self.x.words());
        canvas.text(&words, (frame.left + frame.width() / 2.0, frame.bottom + 31.0), style)
    }
}
