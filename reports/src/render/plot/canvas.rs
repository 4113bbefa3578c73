//! Drawing primitives in logical pixels over any plotters backend. Everything is drawn several times larger than it is shown,
//! because backends take whole numbers: SVG keeps the precision in its view box, PNG is averaged down for smooth edges.
//! Knows no data.

use plotters::coord::Shift;
use plotters::prelude::{
    BitMapBackend, Circle, DrawingArea, DrawingBackend, IntoDrawingArea, PathElement, Polygon, RGBColor,
    Rectangle, SVGBackend,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, IntoTextStyle, ShapeStyle, register_font};
use std::path::Path;
use std::sync::OnceLock;

use super::palette;

/// Result of drawing: what the backend met, in words.
pub(super) type Drawn<T = ()> = Result<T, String>;

/// A point in logical pixels from the top left corner.
pub(super) type Point = (f64, f64);

/// Drawn pixels per logical one.
const SCALE: u32 = 4;
/// Pixels averaged into one of a PNG file, per side: a file has two pixels per logical one.
const PNG_AVERAGE: u32 = 2;
/// Fonts by preference; the program carries Inter for PNG files, a reader of SVG uses the first it has.
const FONTS: &str = "Inter, Helvetica Neue, Arial, sans-serif";
/// plotters divides sizes by this before it writes them to SVG, so that both backends agree.
const FONT_SIZE_PER_EM: f64 = 1.24;

/// Size, weight, colour and anchor of a text.
#[derive(Clone, Copy)]
pub(super) struct Type {
    pub(super) size: f64,
    pub(super) bold: bool,
    pub(super) color: RGBColor,
    pub(super) anchor: HPos,
}

impl Type {
    /// Text that starts at its point, in the ink colour.
    pub(super) fn new(size: f64) -> Self {
        Self { size, bold: false, color: palette::INK, anchor: HPos::Left }
    }

    pub(super) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(super) fn color(self, color: RGBColor) -> Self {
        Self { color, ..self }
    }

    pub(super) fn muted(self) -> Self {
        self.color(palette::MUTED)
    }

    pub(super) fn anchor(self, anchor: HPos) -> Self {
        Self { anchor, ..self }
    }

    fn font(self) -> FontDesc<'static> {
        let style = if self.bold { FontStyle::Bold } else { FontStyle::Normal };
        let size = self.size * FONT_SIZE_PER_EM * f64::from(SCALE);
        FontDesc::new(FontFamily::Name(FONTS), size, style)
    }
}

/// What a backend leaves to do here so that its pictures look like the other one's.
#[derive(Clone, Copy)]
struct Finish {
    /// Distance to lower text by, in ems: backends disagree on where its middle is.
    text_drop_em: f64,
    /// How corners of lines are made.
    joins: Joins,
}

#[derive(Clone, Copy)]
enum Joins {
    /// The viewer does it.
    Viewer,
    /// The backend's own corners grow into spikes where a line turns sharply, so each edge is drawn alone.
    Round,
}

const VECTOR: Finish = Finish { text_drop_em: 0.0, joins: Joins::Viewer };
const BITMAP: Finish = Finish { text_drop_em: 0.16, joins: Joins::Round };

/// A drawing surface.
pub(super) struct Canvas<DB: DrawingBackend> {
    area: DrawingArea<DB, Shift>,
    finish: Finish,
    /// Logical size, (width, height).
    pub(super) size: Point,
}

impl<DB: DrawingBackend> Canvas<DB> {
    fn new(area: DrawingArea<DB, Shift>, size: (u32, u32), finish: Finish) -> Drawn<Self> {
        let canvas = Self { area, finish, size: (f64::from(size.0), f64::from(size.1)) };
        canvas.area.fill(&palette::PAPER).map_err(|e| e.to_string())?;
        Ok(canvas)
    }

    fn at(point: Point) -> (i32, i32) {
        // A cast from float saturates and takes NaN as 0; the clamp keeps sums inside the backends from overflowing.
        let scaled = |x: f64| (x * f64::from(SCALE)).round().clamp(-1e6, 1e6) as i32;
        (scaled(point.0), scaled(point.1))
    }

    fn stroke(color: RGBColor, width: f64) -> ShapeStyle {
        color.stroke_width((width * f64::from(SCALE)).round() as u32)
    }

    /// Text centred vertically on its point; control characters show as spaces.
    pub(super) fn text(&self, text: &str, at: Point, style: Type) -> Drawn {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let at = (at.0, at.1 + self.finish.text_drop_em * style.size);
        let anchor = Pos::new(style.anchor, VPos::Center);
        let style = style.font().into_text_style(&self.area).color(&style.color).pos(anchor);
        self.area.draw_text(&clean, &style, Self::at(at)).map_err(|e| e.to_string())
    }

    /// A filled rectangle between two corners.
    pub(super) fn rect(&self, corner: Point, opposite: Point, color: RGBColor) -> Drawn {
        let shape = Rectangle::new([Self::at(corner), Self::at(opposite)], color.filled());
        self.area.draw(&shape).map_err(|e| e.to_string())
    }

    /// A rectangle that lets what is below shine through.
    pub(super) fn tint(&self, corner: Point, opposite: Point, color: RGBColor, opacity: f64) -> Drawn {
        let shape = Rectangle::new([Self::at(corner), Self::at(opposite)], color.mix(opacity).filled());
        self.area.draw(&shape).map_err(|e| e.to_string())
    }

    /// A line through points.
    pub(super) fn line(&self, points: &[Point], color: RGBColor, width: f64) -> Drawn {
        if points.len() < 2 {
            return Ok(());
        }
        let path: Vec<(i32, i32)> = points.iter().map(|&p| Self::at(p)).collect();
        let stroke = Self::stroke(color, width);
        let draw = |path: Vec<(i32, i32)>| {
            self.area.draw(&PathElement::new(path, stroke)).map_err(|e| e.to_string())
        };
        if path.len() == 2 || matches!(self.finish.joins, Joins::Viewer) {
            return draw(path);
        }
        let radius = (width * f64::from(SCALE) / 2.0) as i32;
        for edge in path.windows(2) {
            draw(edge.to_vec())?;
            self.area.draw(&Circle::new(edge[1], radius, color.filled())).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// A vertical dashed line.
    pub(super) fn dashed_vertical(&self, x: f64, top: f64, bottom: f64, color: RGBColor) -> Drawn {
        let mut y = top;
        while y < bottom {
            self.line(&[(x, y), (x, (y + 4.0).min(bottom))], color, 1.0)?;
            y += 8.0;
        }
        Ok(())
    }

    /// A filled shape.
    pub(super) fn polygon(&self, points: &[Point], color: RGBColor) -> Drawn {
        let corners: Vec<(i32, i32)> = points.iter().map(|&p| Self::at(p)).collect();
        self.area.draw(&Polygon::new(corners, color.filled())).map_err(|e| e.to_string())
    }

    /// A mark on a data point: each slot has its own shape, so that colour is not the only difference.
    pub(super) fn marker(&self, slot: usize, (x, y): Point, radius: f64, color: RGBColor) -> Drawn {
        let r = radius;
        match slot % 5 {
            0 => {
                let size = (r * f64::from(SCALE)).round() as i32;
                self.area
                    .draw(&Circle::new(Self::at((x, y)), size, color.filled()))
                    .map_err(|e| e.to_string())
            }
            1 => self.rect((x - 0.9 * r, y - 0.9 * r), (x + 0.9 * r, y + 0.9 * r), color),
            2 => self.polygon(
                &[(x, y - 1.2 * r), (x + 1.15 * r, y + 0.9 * r), (x - 1.15 * r, y + 0.9 * r)],
                color,
            ),
            3 => {
                self.polygon(&[(x, y - 1.3 * r), (x + 1.3 * r, y), (x, y + 1.3 * r), (x - 1.3 * r, y)], color)
            }
            _ => self.polygon(
                &[(x, y + 1.2 * r), (x + 1.15 * r, y - 0.9 * r), (x - 1.15 * r, y - 0.9 * r)],
                color,
            ),
        }
    }

    /// A mark that is hollow.
    pub(super) fn ring(&self, slot: usize, at: Point, radius: f64, color: RGBColor) -> Drawn {
        self.marker(slot, at, radius, color)?;
        self.marker(slot, at, 0.55 * radius, palette::PAPER)
    }

    /// A cross: a call that failed.
    pub(super) fn cross(&self, (x, y): Point, color: RGBColor) -> Drawn {
        self.line(&[(x - 3.5, y - 3.5), (x + 3.5, y + 3.5)], color, 1.6)?;
        self.line(&[(x - 3.5, y + 3.5), (x + 3.5, y - 3.5)], color, 1.6)
    }
}

/// Width of a text in logical pixels.
pub(super) fn text_width(text: &str, style: Type) -> Drawn<f64> {
    register_fonts()?;
    let ((left, _), (right, _)) = style.font().layout_box(text).map_err(|e| e.to_string())?;
    Ok(f64::from(right - left) / f64::from(SCALE))
}

/// The longest beginning of a text that fits, with an ellipsis where it is cut.
pub(super) fn fit(text: &str, style: Type, width: f64) -> Drawn<String> {
    // Names come from files: no line of a plot holds more than this.
    const CHARS_MAX: usize = 120;
    let mut kept: Vec<char> = text.chars().take(CHARS_MAX).collect();
    if kept.len() == text.chars().count() && text_width(text, style)? <= width {
        return Ok(text.to_string());
    }
    while !kept.is_empty() {
        let cut = format!("{}…", kept.iter().collect::<String>().trim_end());
        if text_width(&cut, style)? <= width {
            return Ok(cut);
        }
        kept.pop();
    }
    Ok(String::new())
}

/// Draws into an SVG document of this logical size.
pub(super) fn svg<F>(size: (u32, u32), draw: F) -> Drawn<String>
where
    F: for<'a> FnOnce(&Canvas<SVGBackend<'a>>) -> Drawn,
{
    register_fonts()?;
    let mut document = String::new();
    let (width, height) = (size.0 * SCALE, size.1 * SCALE);
    {
        let area = SVGBackend::with_string(&mut document, (width, height)).into_drawing_area();
        let canvas = Canvas::new(area, size, VECTOR)?;
        draw(&canvas)?;
        canvas.area.present().map_err(|e| e.to_string())?;
    }
    let drawn = format!(r#"width="{width}" height="{height}""#);
    let shown = format!(r#"width="{}" height="{}""#, size.0, size.1);
    Ok(document.replacen(&drawn, &shown, 1))
}

/// Draws into a PNG file of twice this logical size; `path` ends in `.png`.
pub(super) fn png<F>(size: (u32, u32), path: &Path, draw: F) -> Drawn
where
    F: for<'a> FnOnce(&Canvas<BitMapBackend<'a>>) -> Drawn,
{
    register_fonts()?;
    let (width, height) = (size.0 * SCALE, size.1 * SCALE);
    let mut pixels = vec![0_u8; width as usize * height as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        let canvas = Canvas::new(area, size, BITMAP)?;
        draw(&canvas)?;
        canvas.area.present().map_err(|e| e.to_string())?;
    }
    let smooth = average_down(&pixels, width as usize);
    let mut file = BitMapBackend::new(path, (width / PNG_AVERAGE, height / PNG_AVERAGE));
    file.blit_bitmap((0, 0), (width / PNG_AVERAGE, height / PNG_AVERAGE), &smooth)
        .map_err(|e| e.to_string())?;
    file.present().map_err(|e| e.to_string())
}

/// Averages squares of [`PNG_AVERAGE`] pixels of an RGB image whose sides are multiples of it.
fn average_down(pixels: &[u8], width: usize) -> Vec<u8> {
    let n = PNG_AVERAGE as usize;
    let height = pixels.len() / (width * 3);
    let mut smooth = Vec::with_capacity(pixels.len() / (n * n));
    for y in (0..height).step_by(n) {
        for x in (0..width).step_by(n) {
            for channel in 0..3 {
                let square =
                    (0..n * n).map(|i| u32::from(pixels[((y + i / n) * width + x + i % n) * 3 + channel]));
                smooth.push((square.sum::<u32>() / (PNG_AVERAGE * PNG_AVERAGE)) as u8);
            }
        }
    }
    smooth
}

/// Gives plotters the fonts inside the program, once.
fn register_fonts() -> Drawn {
    static DONE: OnceLock<bool> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        let regular =
            register_font(FONTS, FontStyle::Normal, include_bytes!("../../../assets/Inter-Regular.ttf"));
        let bold =
            register_font(FONTS, FontStyle::Bold, include_bytes!("../../../assets/Inter-SemiBold.ttf"));
        regular.is_ok() && bold.is_ok()
    });
    if *done { Ok(()) } else { Err("the fonts inside the program cannot be read".to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_pixels_become_their_average() {
        let white_and_black = [[255_u8; 3], [0; 3], [0; 3], [255; 3]].concat();
        assert_eq!(average_down(&white_and_black, 2), [127, 127, 127]);
    }

    #[test]
    fn long_names_are_cut_to_fit() {
        let style = Type::new(12.0);
        let cut = fit("a-session-name-that-goes-on-and-on-and-on", style, 80.0).unwrap();
        assert!(cut.ends_with('…') && text_width(&cut, style).unwrap() <= 80.0, "{cut}");
        assert_eq!(fit("short", style, 80.0).unwrap(), "short");
        assert_eq!(fit("anything", style, 0.0).unwrap(), "");
    }
}
