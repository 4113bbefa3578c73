//! The shape of one recorded session, before any run: what each request is made of, where its prefix breaks, how long it
//! was between calls, how large tool outputs are. Draws plain numbers; knows no session format.

use std::path::Path;

use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;

use super::WIDTH;
use super::axes::{CallAxis, Frame, Key, MARGIN, Scale, heading, legend, plain_number, time_label};
use super::canvas::{self, Canvas, Drawn, Type, fit, text_width};
use super::palette;
use crate::error::{ReportError, Result};

/// Name of the plot, in errors.
const NAME: &str = "session";
/// Where the panel of the gaps begins.
const GAPS_TOP: f64 = 462.0;
/// Pixels of a panel with its title and axis, beside those of its frame.
const AROUND_FRAME: f64 = 68.0;
/// Frames of the panels below the first.
const GAPS_FRAME: f64 = 110.0;
const OUTPUTS_FRAME: f64 = 130.0;
/// Pixels of a panel of which there is nothing but a title to show.
const TITLE_ALONE: f64 = 32.0;
const LEFT: f64 = 64.0;
const PERSON: RGBColor = RGBColor(0xC3, 0xC9, 0xD1);
const ASSISTANT: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
const TOOL: RGBColor = RGBColor(0x00, 0x72, 0xB2);
const REPEATED: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
/// The first class of output sizes ends here, each next one at twice the size.
const FIRST_CLASS_CHARS: f64 = 64.0;
/// Classes; the last one is open. 64 doubled 13 times is half a million.
const CLASSES: usize = 15;
/// The fewest classes that are shown.
const CLASSES_MIN: usize = 8;

/// What is drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionShape {
    /// Name of the session.
    pub name: String,
    /// Its calls, in order.
    pub calls: Vec<CallShape>,
    /// Its tool outputs.
    pub outputs: Vec<OutputShape>,
}

/// One call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallShape {
    /// Chars of system and user messages in the request.
    pub person_chars: f64,
    /// Chars of assistant messages in the request.
    pub assistant_chars: f64,
    /// Chars of tool messages in the request.
    pub tool_chars: f64,
    /// Milliseconds since the answer before, where known.
    pub gap_ms: Option<f64>,
    /// Why the request does not begin with the one before, where it does not.
    pub break_cause: Option<String>,
}

/// One tool output.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OutputShape {
    /// Its size.
    pub chars: f64,
    /// The same text came before.
    pub is_repeat: bool,
}

/// The plot as an SVG document of its own.
///
/// # Errors
/// [`ReportError::Plot`].
pub fn svg(shape: &SessionShape) -> Result<String> {
    let drawn = canvas::svg((WIDTH, height(shape)), |canvas| draw(shape, canvas));
    drawn.map_err(|detail| ReportError::Plot { plot: NAME, detail })
}

/// Writes the plot as a PNG file, two pixels per logical one; `path` ends in `.png`.
///
/// # Errors
/// [`ReportError::Plot`].
pub fn write_png(shape: &SessionShape, path: &Path) -> Result<()> {
    let drawn = canvas::png((WIDTH, height(shape)), path, |canvas| draw(shape, canvas));
    drawn.map_err(|detail| ReportError::Plot { plot: NAME, detail })
}

fn draw<DB: DrawingBackend>(shape: &SessionShape, canvas: &Canvas<DB>) -> Drawn {
    let top = heading(canvas, &shape.name, "one recorded session: what its calls send, before any run")?;
    let kinds = [
        (PERSON, "system and user"),
        (ASSISTANT, "assistant"),
        (TOOL, "tool results"),
        (REPEATED, "tool result seen before"),
    ];
    legend(canvas, top, &kinds.map(|(color, name)| (Key::Area, color, name.to_owned())))?;
    let axis = CallAxis::of_one_session(shape.calls.len());
    prefixes(shape, canvas, &axis, (top + 28.0, 300.0))?;
    gaps(shape, canvas, &axis, (GAPS_TOP, GAPS_FRAME))?;
    outputs(shape, canvas, (outputs_top(shape), OUTPUTS_FRAME))
}

/// Where the panel of the tool outputs begins: gaps that were not recorded leave no room behind.
fn outputs_top(shape: &SessionShape) -> f64 {
    let has_gaps = shape.calls.iter().any(|call| call.gap_ms.is_some());
    GAPS_TOP + if has_gaps { GAPS_FRAME + AROUND_FRAME } else { TITLE_ALONE }
}

fn height(shape: &SessionShape) -> u32 {
    let outputs = if shape.outputs.is_empty() { TITLE_ALONE } else { OUTPUTS_FRAME + AROUND_FRAME };
    (outputs_top(shape) + outputs) as u32
}

/// A panel of this top and height with its title above.
fn panel<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    (top, height): (f64, f64),
    title: &str,
    y: Scale,
) -> Drawn<Frame> {
    let style = Type::new(12.5).bold();
    let frame =
        Frame { left: LEFT, top: top + 36.0, right: canvas.size.0 - MARGIN, bottom: top + 36.0 + height, y };
    canvas.text(&fit(title, style, canvas.size.0 - 2.0 * MARGIN)?, (MARGIN, top + 12.0), style)?;
    Ok(frame)
}

fn stack(call: &CallShape) -> [f64; 3] {
    [call.person_chars, call.assistant_chars, call.tool_chars].map(|chars| chars.max(0.0))
}

fn prefixes<DB: DrawingBackend>(
    shape: &SessionShape,
    canvas: &Canvas<DB>,
    axis: &CallAxis,
    place: (f64, f64),
) -> Drawn {
    let high = shape.calls.iter().map(|call| stack(call).iter().sum()).fold(0.0, f64::max);
    let frame = panel(
        canvas,
        place,
        "Chars of each request, by call; a red line where a request does not begin with the one before",
        Scale::linear(high),
    )?;
    frame.draw_y(canvas, &plain_number)?;
    axis.draw(canvas, &frame)?;
    let half = half_bar(axis, &frame);
    for (column, call) in shape.calls.iter().enumerate() {
        let (x, mut below) = (axis.x_at(&frame, column), 0.0);
        for (chars, color) in stack(call).into_iter().zip([PERSON, ASSISTANT, TOOL]) {
            if chars > 0.0 {
                let (low, high) = (frame.y_at(below), frame.y_at(below + chars));
                canvas.rect((x - half, low), (x + half, high), color)?;
            }
            below += chars;
        }
    }
    breaks(shape, canvas, axis, &frame)
}

/// A line at each break, and its cause where the one before leaves room.
fn breaks<DB: DrawingBackend>(
    shape: &SessionShape,
    canvas: &Canvas<DB>,
    axis: &CallAxis,
    frame: &Frame,
) -> Drawn {
    let style = Type::new(10.5).color(palette::ALARM).anchor(HPos::Center);
    let mut free_from = frame.left;
    for (column, call) in shape.calls.iter().enumerate() {
        let Some(cause) = &call.break_cause else { continue };
        let x = axis.x_at(frame, column) - axis.column_width(frame) / 2.0;
        canvas.dashed_vertical(x, frame.top, frame.bottom, palette::ALARM)?;
        let shown = fit(cause, style, 90.0)?;
        let width = text_width(&shown, style)?;
        let middle = x.clamp(frame.left + width / 2.0, frame.right - width / 2.0);
        if middle - width / 2.0 >= free_from {
            canvas.text(&shown, (middle, frame.top - 7.0), style)?;
            free_from = middle + width / 2.0 + 6.0;
        }
    }
    Ok(())
}

fn gaps<DB: DrawingBackend>(
    shape: &SessionShape,
    canvas: &Canvas<DB>,
    axis: &CallAxis,
    place: (f64, f64),
) -> Drawn {
    let known: Vec<f64> = shape.calls.iter().filter_map(|call| call.gap_ms).collect();
    let scale = Scale::for_values(&known);
    let (unit, label) = time_label(known.iter().copied().fold(0.0, f64::max));
    let title = if known.is_empty() {
        "Time since the answer before: not recorded".to_owned()
    } else {
        format!("Time since the answer before, {unit}{}", scale.words())
    };
    let frame = panel(canvas, place, &title, scale)?;
    if known.is_empty() {
        return Ok(());
    }
    frame.draw_y(canvas, &label)?;
    axis.draw(canvas, &frame)?;
    let half = half_bar(axis, &frame);
    for (column, gap) in
        shape.calls.iter().enumerate().filter_map(|(column, call)| Some((column, call.gap_ms?)))
    {
        if gap > 0.0 {
            let x = axis.x_at(&frame, column);
            canvas.rect((x - half, frame.bottom), (x + half, frame.y_at(gap)), palette::MUTED)?;
        }
    }
    Ok(())
}

/// Class of an output by its size, each twice as wide as the one before.
fn class(chars: f64) -> usize {
    let doublings = (chars / FIRST_CLASS_CHARS).max(0.5).log2().floor() + 1.0;
    (doublings as usize).min(CLASSES - 1)
}

fn outputs<DB: DrawingBackend>(shape: &SessionShape, canvas: &Canvas<DB>, place: (f64, f64)) -> Drawn {
    let mut counts = [[0_u32; 2]; CLASSES];
    for output in &shape.outputs {
        counts[class(output.chars)][usize::from(output.is_repeat)] += 1;
    }
    let high = counts.iter().map(|pair| pair[0] + pair[1]).max().unwrap_or(0);
    let title = if shape.outputs.is_empty() {
        "Tool outputs by size: none".to_owned()
    } else {
        format!("Tool outputs by size: {} in all; chars below each class, doubling", shape.outputs.len())
    };
    let frame = panel(canvas, place, &title, Scale::linear(f64::from(high)))?;
    if shape.outputs.is_empty() {
        return Ok(());
    }
    // Small counts would have ticks between whole numbers.
    frame.draw_y(canvas, &|count| if count.fract() == 0.0 { plain_number(count) } else { String::new() })?;
    // One class more than there are outputs for: its lower edge is the upper one of the last.
    let largest = counts.iter().rposition(|pair| pair[0] + pair[1] > 0).unwrap_or(0);
    let shown = (largest + 2).clamp(CLASSES_MIN, CLASSES);
    let width = frame.width() / shown as f64;
    for (nth, [new, repeated]) in counts.into_iter().take(shown).enumerate() {
        let left = frame.left + nth as f64 * width;
        let (middle, top) = (frame.y_at(f64::from(new)), frame.y_at(f64::from(new + repeated)));
        if new > 0 {
            canvas.rect((left + 2.0, frame.bottom), (left + width - 2.0, middle), TOOL)?;
        }
        if repeated > 0 {
            canvas.rect((left + 2.0, middle), (left + width - 2.0, top), REPEATED)?;
        }
        if nth + 1 < shown {
            let style = Type::new(11.5).muted().anchor(HPos::Center);
            let edge = FIRST_CLASS_CHARS * 2_f64.powi(nth as i32);
            canvas.text(&plain_number(edge), (left + width, frame.bottom + 13.0), style)?;
        }
    }
    Ok(())
}

/// Half the width of a call's bar: bars touch where there are too many for gaps.
fn half_bar(axis: &CallAxis, frame: &Frame) -> f64 {
    let column = axis.column_width(frame);
    if column < 5.0 { column / 2.0 } else { (0.4 * column).min(22.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_double() {
        let cases = [
            (0.0, 0),
            (63.0, 0),
            (64.0, 1),
            (127.0, 1),
            (128.0, 2),
            (524_287.0, 13),
            (524_288.0, 14),
            (1e12, 14),
        ];
        for (chars, expected) in cases {
            assert_eq!(class(chars), expected, "{chars}");
        }
    }
}
