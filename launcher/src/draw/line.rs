//! One line of a chart: its colour, its dash pattern, and its elements as SVG.

use std::fmt::Write;

use super::axis::Range;
use super::thin::thinned;

/// The colours of Okabe and Ito, which colour-blind readers can distinguish. Yellow is left out: it is too pale on
/// white.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
/// Colours of an order, from viridis; its palest end is left out.
const SEQUENCE: [&str; 7] = ["#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#4db35b", "#8aa821"];
const DASHES: [&str; 4] = ["", "6 4", "2 3", "9 3 2 3"];
/// The height of the plot of every chart.
pub const PLOT_HEIGHT: f64 = 230.0;

/// Points joined by a thin line.
#[derive(Debug, Default)]
pub struct Line {
    pub label: String,
    pub colour: usize,
    pub dash: usize,
    pub points: Vec<Point>,
}

/// A point; without `y` the line has a gap. `error` is drawn as a bar up and down.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub x: f64,
    pub y: Option<f64>,
    pub error: f64,
}

/// The place of a plot. On a logarithmic axis `y` is a range of logarithms to base 10.
pub struct Frame {
    pub x: Range,
    pub y: Range,
    pub logarithmic: bool,
    pub left: f64,
    pub top: f64,
    pub width: f64,
}

impl Frame {
    /// The height in the picture of a value of the axis.
    pub fn height(&self, value: f64) -> f64 {
        self.top + (1.0 - self.y.position(value)) * PLOT_HEIGHT
    }

    /// The place of a point, if it has one.
    pub fn place(&self, point: &Point) -> Option<(f64, f64)> {
        let y = point.y.filter(|y| !self.logarithmic || *y > 0.0)?;
        let value = if self.logarithmic { y.log10() } else { y };
        Some((self.left + self.x.position(point.x) * self.width, self.height(value)))
    }
}

/// The class and the colour of a line; `of` is the number of lines in an order. A page may give the class other colours.
pub fn paint(colour: usize, of: Option<usize>) -> (String, &'static str) {
    match of {
        Some(of) => {
            let place = colour * (SEQUENCE.len() - 1) / of.saturating_sub(1).max(1);
            (format!("q{place}"), SEQUENCE[place.min(SEQUENCE.len() - 1)])
        }
        None => (format!("c{}", colour % COLOURS.len()), COLOURS[colour % COLOURS.len()]),
    }
}

/// Whether two lines lie on each other, as far as a reader could see.
pub fn coincide(frame: &Frame, one: &Line, other: &Line) -> bool {
    let same = |(one, other): (&Point, &Point)| match (frame.place(one), frame.place(other)) {
        (Some(one), Some(other)) => (one.0 - other.0).abs() < 0.5 && (one.1 - other.1).abs() < 2.0,
        (None, None) => true,
        _ => false,
    };
    one.points.len() == other.points.len() && one.points.iter().zip(&other.points).all(same)
}

/// Adds an element.
pub fn put(svg: &mut String, element: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "{element}");
}

/// The attribute of a dash pattern.
pub fn dashes(dash: usize) -> String {
    match DASHES[dash % DASHES.len()] {
        "" => String::new(),
        pattern => format!(" stroke-dasharray=\"{pattern}\""),
    }
}

/// Adds a line that `covers` later lines cover.
pub fn draw_line(svg: &mut String, frame: &Frame, line: &Line, (class, colour): (String, &str), covers: usize) {
    let dash = dashes(line.dash);
    // Few points are epochs and get markers; many are a trace.
    let few = line.points.len() <= 40;
    let thin = if line.points.len() <= 400 { 1.6 } else { 0.9 };
    let width = thin * (1.0 + 2.0 * covers as f64);
    let opacity = if covers > 0 { " stroke-opacity=\"0.55\"" } else { "" };
    let placed: Vec<Option<(f64, f64)>> = line.points.iter().map(|point| frame.place(point)).collect();
    for places in placed.split(Option::is_none) {
        let places: Vec<(f64, f64)> = places.iter().flatten().copied().collect();
        if places.len() > 1 {
            let path: String = thinned(&places)
                .iter()
                .enumerate()
                .map(|(index, (x, y))| format!("{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' }))
                .collect();
            let look = format_args!(
                "class=\"{class}\" stroke=\"{colour}\" stroke-width=\"{width:.1}\" stroke-linejoin=\"round\""
            );
            put(svg, format_args!("<path d=\"{path}\" fill=\"none\" {look}{opacity}{dash}/>"));
        }
        if few || places.len() == 1 {
            let radius = 2.8 + 1.8 * covers as f64;
            for (x, y) in places {
                let look = format_args!("class=\"{class}\" fill=\"{colour}\"");
                put(svg, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" {look}/>"));
            }
        }
    }
    for point in line.points.iter().filter(|point| point.error > 0.0 && !frame.logarithmic) {
        let Some((x, _)) = frame.place(point) else { continue };
        let y = point.y.unwrap_or(0.0);
        let (high, low) = (frame.height(y + point.error), frame.height(y - point.error));
        let look = format_args!("class=\"{class}\" stroke=\"{colour}\" stroke-opacity=\"0.5\"");
        put(svg, format_args!("<path d=\"M{x:.1} {high:.1}V{low:.1}\" {look}/>"));
    }
}
