//! One line chart as SVG: axes, legend above the plot, lines with gaps; must not know where the numbers come from.

use std::fmt::Write;

use super::{
    axis::{Range, Ticks},
    markup::escape,
    thin::thinned,
};

/// Okabe and Ito's colours, told apart also by colour-blind readers; yellow is left out, too pale on white.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const DASHES: [&str; 4] = ["", "6 4", "2 3", "9 3 2 3"];
const FONT: &str = "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\"";
const PLOT_HEIGHT: f64 = 230.0;
const LEGEND_TOP: f64 = 40.0;
const LEGEND_ROW: f64 = 18.0;
/// Room under the plot for tick labels and the axis label.
const BELOW: f64 = 46.0;
const RIGHT: f64 = 18.0;
/// Generous for most fonts, since SVG cannot measure its text without a script.
const CHARACTER: f64 = 7.4;

/// A chart with a horizontal axis of whole numbers from 0.
#[derive(Debug, Default)]
pub struct Chart {
    pub title: String,
    pub across: String,
    pub up: String,
    pub legend: Vec<Key>,
    pub lines: Vec<Line>,
    /// Whether the vertical axis must show 0.
    pub from_zero: bool,
    /// Bounds the vertical axis does not pass, however the data are padded.
    pub bounds: Option<(f64, f64)>,
}

/// A legend entry; without colour it explains a dash pattern shared by lines of all colours.
#[derive(Debug)]
pub struct Key {
    pub label: String,
    pub colour: Option<usize>,
    pub dash: usize,
}

/// Points joined by a thin line; a broad one stays visible under a line that covers it.
#[derive(Debug, Default)]
pub struct Line {
    pub colour: usize,
    pub dash: usize,
    pub broad: bool,
    pub points: Vec<Point>,
}

/// A point; without `y` the line has a gap. `error` is drawn as a bar up and down.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub x: f64,
    pub y: Option<f64>,
    pub error: f64,
}

struct Frame {
    x: Range,
    y: Range,
    left: f64,
    top: f64,
    width: f64,
}

impl Frame {
    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        (self.left + self.x.position(x) * self.width, self.top + (1.0 - self.y.position(y)) * PLOT_HEIGHT)
    }
}

/// A whole SVG document of this size around `body`, on white.
pub fn document(width: f64, height: f64, title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" {FONT} font-size=\"12\" fill=\"#222\">\n<title>{title}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

impl Chart {
    /// Whether there is any number to draw.
    pub fn has_data(&self) -> bool {
        self.lines.iter().flat_map(|line| &line.points).any(|point| point.y.is_some())
    }

    /// Rows the legend needs at this width.
    pub fn legend_rows(&self, width: f64) -> usize {
        self.legend_places(width).last().map_or(0, |(_, row)| row + 1)
    }

    /// The height of the chart with that many legend rows.
    pub fn height(legend_rows: usize) -> f64 {
        LEGEND_TOP + legend_rows as f64 * LEGEND_ROW + PLOT_HEIGHT + BELOW
    }

    /// The chart's elements; room is kept for `legend_rows`, so that charts side by side line up.
    pub fn body(&self, width: f64, legend_rows: usize) -> String {
        let (y, y_ticks) = self.vertical();
        let labels = y_ticks.labels();
        let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(1);
        let left = 34.0 + longest as f64 * CHARACTER;
        let x = self.horizontal();
        let top = LEGEND_TOP + legend_rows as f64 * LEGEND_ROW;
        let frame = Frame { x, y, left, top, width: width - left - RIGHT };
        let mut svg =
            format!("<text x=\"10\" y=\"22\" font-size=\"15\" font-weight=\"600\">{}</text>\n", escape(&self.title));
        self.draw_legend(&mut svg, width);
        self.draw_axes(&mut svg, &frame, &y_ticks, &labels);
        for line in &self.lines {
            draw_line(&mut svg, &frame, line);
        }
        svg
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.lines.iter().flat_map(|line| &line.points)
    }

    fn horizontal(&self) -> Range {
        Range { low: 0.0, high: self.points().map(|point| point.x).fold(2.0, f64::max) }
    }

    fn vertical(&self) -> (Range, Ticks) {
        let ends = self.points().filter_map(|point| Some((point.y?, point.error)));
        let values = ends.flat_map(|(y, error)| [y - error, y + error]);
        let zero = self.from_zero.then_some(0.0);
        let data = Range::around(values.chain(zero)).unwrap_or(Range { low: 0.0, high: 1.0 });
        let mut range = data.padded(0.06);
        if self.from_zero && data.low == 0.0 {
            range.low = 0.0;
        }
        // Numbers that are out of bounds by mistake are shown where they are.
        let fits =
            |(low, high): &(f64, f64)| self.points().filter_map(|point| point.y).all(|y| *low <= y && y <= *high);
        if let Some((low, high)) = self.bounds.filter(fits) {
            range = Range { low: range.low.max(low), high: range.high.min(high) };
        }
        let ticks = range.ticks(false);
        (range, ticks)
    }

    /// The left end and row of each legend entry.
    fn legend_places(&self, width: f64) -> Vec<(f64, usize)> {
        let mut places: Vec<(f64, usize)> = Vec::new();
        let (mut x, mut row) = (10.0, 0);
        for key in &self.legend {
            let length = 34.0 + key.label.chars().count() as f64 * CHARACTER + 12.0;
            if x > 10.0 && x + length > width {
                (x, row) = (10.0, row + 1);
            }
            places.push((x, row));
            x += length;
        }
        places
    }

    fn draw_legend(&self, svg: &mut String, width: f64) {
        for (key, (x, row)) in self.legend.iter().zip(self.legend_places(width)) {
            let y = LEGEND_TOP + row as f64 * LEGEND_ROW;
            let colour = key.colour.map_or("#666", |colour| COLOURS[colour % COLOURS.len()]);
            let (dash, end, text, base) = (dashes(key.dash), x + 26.0, x + 32.0, y + 4.0);
            put(svg, format_args!("<path d=\"M{x} {y}H{end}\" stroke=\"{colour}\" stroke-width=\"2.5\"{dash}/>"));
            put(svg, format_args!("<text x=\"{text}\" y=\"{base}\">{}</text>", escape(&key.label)));
        }
    }

    fn draw_axes(&self, svg: &mut String, frame: &Frame, y_ticks: &Ticks, y_labels: &[String]) {
        let (left, right, bottom) = (frame.left, frame.left + frame.width, frame.top + PLOT_HEIGHT);
        for (value, label) in y_ticks.values.iter().zip(y_labels) {
            let y = frame.place(0.0, *value).1;
            put(svg, format_args!("<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#e4e4e4\"/>"));
            let (x, base) = (left - 7.0, y + 4.0);
            put(svg, format_args!("<text x=\"{x:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{label}</text>"));
        }
        let x_ticks = frame.x.ticks(true);
        let x_labels = x_ticks.labels();
        let room = x_labels.iter().map(|label| label.len() as f64 * CHARACTER + 4.0).sum::<f64>() < frame.width;
        for (index, (value, label)) in x_ticks.values.iter().zip(x_labels).enumerate() {
            let x = frame.place(*value, frame.y.low).0;
            put(svg, format_args!("<path d=\"M{x:.1} {bottom:.1}v5\" stroke=\"#666\"/>"));
            if room || index % 2 == 0 {
                let base = bottom + 18.0;
                put(svg, format_args!("<text x=\"{x:.1}\" y=\"{base:.1}\" text-anchor=\"middle\">{label}</text>"));
            }
        }
        let top = frame.top;
        put(
            svg,
            format_args!("<path d=\"M{left:.1} {top:.1}V{bottom:.1}H{right:.1}\" stroke=\"#666\" fill=\"none\"/>"),
        );
        let (middle, base) = (f64::midpoint(left, right), bottom + 37.0);
        let across = escape(&self.across);
        put(svg, format_args!("<text x=\"{middle:.1}\" y=\"{base:.1}\" text-anchor=\"middle\">{across}</text>"));
        let (middle, up) = (f64::midpoint(top, bottom), escape(&self.up));
        let turned = format_args!("transform=\"translate(16 {middle:.1}) rotate(-90)\" text-anchor=\"middle\"");
        put(svg, format_args!("<text {turned}>{up}</text>"));
    }
}

fn put(svg: &mut String, element: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "{element}");
}

fn dashes(dash: usize) -> String {
    match DASHES[dash % DASHES.len()] {
        "" => String::new(),
        pattern => format!(" stroke-dasharray=\"{pattern}\""),
    }
}

fn draw_line(svg: &mut String, frame: &Frame, line: &Line) {
    let colour = COLOURS[line.colour % COLOURS.len()];
    let dash = dashes(line.dash);
    // Few points are records of epochs and stand alone; many are a trace.
    let few = line.points.len() <= 40;
    let width = match (line.points.len() <= 400, line.broad) {
        (true, false) => 1.6,
        (true, true) => 2.8,
        (false, false) => 0.9,
        (false, true) => 1.8,
    };
    for segment in line.points.split(|point| point.y.is_none()) {
        let places: Vec<_> = segment.iter().map(|point| frame.place(point.x, point.y.unwrap_or(0.0))).collect();
        if places.len() > 1 {
            let path: String = thinned(&places)
                .iter()
                .enumerate()
                .map(|(index, (x, y))| format!("{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' }))
                .collect();
            let look = format_args!("stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"{dash}");
            put(svg, format_args!("<path d=\"{path}\" fill=\"none\" {look}/>"));
        }
        for (point, (x, y)) in segment.iter().zip(&places) {
            if point.error > 0.0 {
                let value = point.y.unwrap_or(0.0);
                let (high, low) = (frame.place(0.0, value + point.error).1, frame.place(0.0, value - point.error).1);
                let bar = format_args!("M{x:.1} {high:.1}V{low:.1}");
                put(svg, format_args!("<path d=\"{bar}\" stroke=\"{colour}\" stroke-opacity=\"0.5\"/>"));
            }
            if few || places.len() == 1 {
                put(svg, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.8\" fill=\"{colour}\"/>"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(ys: &[Option<f64>]) -> Chart {
        let point = |(x, y): (usize, &Option<f64>)| Point { x: x as f64 + 1.0, y: *y, error: 0.0 };
        let points = ys.iter().enumerate().map(point).collect();
        Chart { title: "a<b".to_owned(), lines: vec![Line { points, ..Line::default() }], ..Chart::default() }
    }

    #[test]
    fn a_missing_number_is_a_gap() {
        let svg = chart(&[Some(1.0), Some(2.0), None, Some(1.0), Some(3.0), Some(2.0)]).body(400.0, 0);
        assert_eq!(svg.matches("fill=\"none\" stroke=\"#0072b2\"").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 5);
        assert!(!svg.contains("NaN") && svg.contains("a&lt;b"));
    }

    #[test]
    fn a_single_point_is_drawn_and_none_is_no_data() {
        assert!(chart(&[Some(0.5)]).body(400.0, 1).contains("<circle"));
        assert!(!chart(&[None]).has_data());
    }

    #[test]
    fn bounds_hold_the_padding_but_never_the_data() {
        let range = |y| Chart { bounds: Some((0.0, 1.0)), ..chart(&[Some(y)]) }.vertical().0;
        assert_eq!((range(1.0).high, range(0.0).low), (1.0, 0.0));
        assert!(range(1.2).high > 1.2);
    }
}
