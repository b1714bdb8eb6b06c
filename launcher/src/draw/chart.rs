//! One line chart as SVG: axes, legend above the plot, lines with gaps.

use super::axis::{Range, Ticks, decades};
use super::grid::{Grid, NOTHING};
use super::line::{Frame, Line, PLOT_HEIGHT, Point, coincide, dashes, draw_line, paint, put};
use super::markup::escape;

const FONT: &str = "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\"";
const LEGEND_TOP: f64 = 40.0;
const LEGEND_ROW: f64 = 18.0;
/// Room under the plot for tick labels and the axis label.
const BELOW: f64 = 46.0;
const RIGHT: f64 = 18.0;
/// Generous for most fonts, since SVG cannot measure its text without a script.
const CHARACTER: f64 = 7.4;
/// The same for the bold letters of the title, and of labels at the ends of lines.
const TITLE_CHARACTER: f64 = 8.6;
const END_CHARACTER: f64 = 8.2;

/// The most rows of the table behind a chart.
const ROWS: usize = 200;

/// A chart with a horizontal axis from 0.
#[derive(Debug, Default)]
pub struct Chart {
    pub title: String,
    pub across: String,
    pub up: String,
    pub legend: Vec<LegendEntry>,
    pub lines: Vec<Line>,
    /// Whether the horizontal axis may have fractions; whole numbers otherwise.
    pub fractions: bool,
    /// Whether the vertical axis must show 0.
    pub from_zero: bool,
    /// Whether the vertical axis is logarithmic. Values that are not above 0 are gaps then.
    pub logarithmic: bool,
    /// Whether the lines are in an order, as quantiles are: their colours are a sequence and their labels are at their ends.
    pub ordered: bool,
    /// Bounds that the vertical axis never passes.
    pub bounds: Option<(f64, f64)>,
}

/// A legend entry. Without a colour it explains a dash pattern of lines of all colours.
#[derive(Debug)]
pub struct LegendEntry {
    pub label: String,
    pub colour: Option<usize>,
    pub dash: usize,
}

/// A whole SVG document of this size around `body`, on white.
pub fn document(width: f64, height: f64, title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{title}\" {FONT} font-size=\"12\" fill=\"#222\">\n<title>{title}</title>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

impl Chart {
    /// Whether there is a number to draw.
    pub fn has_data(&self) -> bool {
        self.lines.iter().flat_map(|line| &line.points).any(|point| point.y.is_some())
    }

    /// Rows that the legend, and the lines of the title after its first, need at this width.
    pub fn head_rows(&self, width: f64) -> usize {
        let title = self.title_lines(width).len() - 1;
        self.legend_places(width).last().map_or(title, |(_, row)| row + 1)
    }

    /// The height of the chart with that many rows above the plot.
    pub fn height(head_rows: usize) -> f64 {
        LEGEND_TOP + head_rows as f64 * LEGEND_ROW + PLOT_HEIGHT + BELOW
    }

    /// The title in lines that fit this width.
    fn title_lines(&self, width: f64) -> Vec<String> {
        let mut lines = vec![String::new()];
        for word in self.title.split_whitespace() {
            let line = lines.len() - 1;
            let length = lines[line].chars().count() + 1 + word.chars().count();
            if lines[line].is_empty() {
                lines[line] = word.to_owned();
            } else if 20.0 + length as f64 * TITLE_CHARACTER > width {
                lines.push(word.to_owned());
            } else {
                lines[line] = format!("{} {word}", lines[line]);
            }
        }
        lines
    }

    /// What the chart shows, for readers who cannot see it: the ends of each line.
    pub fn description(&self) -> String {
        let ends = self.lines.iter().filter_map(|line| {
            let known = || line.points.iter().filter_map(|point| Some((point.x, point.y?)));
            let ((from, first), (to, last)) = (known().next()?, known().next_back()?);
            let label = &line.label;
            Some(format!("{label}: {} at {from}, {} at {to}", number(first), number(last)))
        });
        format!("{}. Across: {}. Up: {}. {}.", self.title, self.across, self.up, ends.collect::<Vec<_>>().join("; "))
    }

    /// The numbers behind the chart, and whether rows are left out: long tables have every nth row and the last one.
    pub fn table(&self) -> (Grid, bool) {
        let mut places: Vec<f64> = self.points().map(|point| point.x).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let every = places.len().div_ceil(ROWS).max(1);
        let last = places.len().saturating_sub(1);
        let kept = places.iter().enumerate().filter(|(index, _)| index % every == 0 || *index == last);
        let row = |x: f64| {
            let cell = |line: &Line| {
                let found = line.points.iter().find(|point| point.x == x);
                let found = found.and_then(|point| Some((point.y?, point.error)));
                found.map_or(NOTHING.to_owned(), |(y, error)| match error {
                    0.0 => number(y),
                    error => format!("{} ± {}", number(y), number(error)),
                })
            };
            std::iter::once(number(x)).chain(self.lines.iter().map(cell)).collect()
        };
        let columns = std::iter::once(&self.across).chain(self.lines.iter().map(|line| &line.label));
        let grid = Grid { columns: columns.cloned().collect(), rows: kept.map(|(_, x)| row(*x)).collect() };
        (grid, every > 1)
    }

    /// The chart's elements. Space is reserved for `head_rows`, so that charts side by side align.
    pub fn body(&self, width: f64, head_rows: usize) -> String {
        let (y, y_ticks, labels) = self.vertical();
        let longest = |labels: &mut dyn Iterator<Item = &str>| labels.map(|label| label.chars().count()).max();
        let left = 34.0 + longest(&mut labels.iter().map(String::as_str)).unwrap_or(1) as f64 * CHARACTER;
        let right = match longest(&mut self.lines.iter().map(|line| line.label.as_str())) {
            Some(longest) if self.ordered => longest as f64 * END_CHARACTER + 14.0,
            _ => RIGHT,
        };
        let top = LEGEND_TOP + head_rows as f64 * LEGEND_ROW;
        let x = self.horizontal();
        let frame = Frame { x, y, logarithmic: self.logarithmic, left, top, width: width - left - right };
        let mut svg = String::new();
        for (row, line) in self.title_lines(width).iter().enumerate() {
            let (y, line) = (22.0 + row as f64 * LEGEND_ROW, escape(line));
            put(&mut svg, format_args!("<text x=\"10\" y=\"{y}\" font-size=\"15\" font-weight=\"600\">{line}</text>"));
        }
        self.draw_legend(&mut svg, width);
        self.draw_axes(&mut svg, &frame, &y_ticks, &labels);
        for (index, line) in self.lines.iter().enumerate() {
            // A line under others that cover it stays visible at their sides.
            let covers = self.lines[index + 1..].iter().filter(|later| coincide(&frame, line, later)).count();
            draw_line(&mut svg, &frame, line, self.paint(line.colour), covers);
        }
        if self.ordered {
            self.draw_end_labels(&mut svg, &frame);
        }
        svg
    }

    fn paint(&self, colour: usize) -> (String, &'static str) {
        paint(colour, self.ordered.then_some(self.lines.len()))
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.lines.iter().flat_map(|line| &line.points)
    }

    fn horizontal(&self) -> Range {
        let least = if self.fractions { f64::MIN_POSITIVE } else { 2.0 };
        Range { low: 0.0, high: self.points().map(|point| point.x).fold(least, f64::max) }
    }

    /// The range, its ticks and their labels; of a logarithmic axis, of the logarithms to base 10.
    fn vertical(&self) -> (Range, Ticks, Vec<String>) {
        if self.logarithmic {
            let positive = self.points().filter_map(|point| point.y).filter(|y| *y > 0.0).map(f64::log10);
            let range = Range::around(positive).unwrap_or(Range { low: 0.0, high: 1.0 }).padded(0.06);
            let (ticks, labels) = decades(range);
            return (range, ticks, labels);
        }
        let ends = self.points().filter_map(|point| Some((point.y?, point.error)));
        let values = ends.flat_map(|(y, error)| [y - error, y + error]);
        let zero = self.from_zero.then_some(0.0);
        let data = Range::around(values.chain(zero)).unwrap_or(Range { low: 0.0, high: 1.0 });
        let mut range = data.padded(0.06);
        if self.from_zero && data.low == 0.0 {
            range.low = 0.0;
        }
        // Numbers out of bounds are shown at their place.
        let fits =
            |(low, high): &(f64, f64)| self.points().filter_map(|point| point.y).all(|y| *low <= y && y <= *high);
        if let Some((low, high)) = self.bounds.filter(fits) {
            range = Range { low: range.low.max(low), high: range.high.min(high) };
        }
        let ticks = range.ticks(false);
        let labels = ticks.labels();
        (range, ticks, labels)
    }

    /// The left end and row of each legend entry, below the title.
    fn legend_places(&self, width: f64) -> Vec<(f64, usize)> {
        let mut places: Vec<(f64, usize)> = Vec::new();
        if self.ordered {
            return places;
        }
        let (mut x, mut row) = (10.0, self.title_lines(width).len() - 1);
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
            let (class, colour) = key.colour.map_or(("axis".to_owned(), "#666"), |colour| self.paint(colour));
            let (dash, end, text, base) = (dashes(key.dash), x + 26.0, x + 32.0, y + 4.0);
            let look = format_args!("class=\"{class}\" stroke=\"{colour}\" stroke-width=\"2.5\"{dash}");
            put(svg, format_args!("<path d=\"M{x} {y}H{end}\" {look}/>"));
            put(svg, format_args!("<text x=\"{text}\" y=\"{base}\">{}</text>", escape(&key.label)));
        }
    }

    fn draw_axes(&self, svg: &mut String, frame: &Frame, y_ticks: &Ticks, y_labels: &[String]) {
        let (left, right, bottom) = (frame.left, frame.left + frame.width, frame.top + PLOT_HEIGHT);
        for (value, label) in y_ticks.values.iter().zip(y_labels) {
            let y = frame.height(*value);
            put(svg, format_args!("<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#e4e4e4\"/>"));
            let (x, base) = (left - 7.0, y + 4.0);
            put(svg, format_args!("<text x=\"{x:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{label}</text>"));
        }
        let x_ticks = frame.x.ticks(!self.fractions);
        let x_labels = x_ticks.labels();
        let room = x_labels.iter().map(|label| label.len() as f64 * CHARACTER + 4.0).sum::<f64>() < frame.width;
        for (index, (value, label)) in x_ticks.values.iter().zip(x_labels).enumerate() {
            let x = frame.left + frame.x.position(*value) * frame.width;
            put(svg, format_args!("<path class=\"axis\" d=\"M{x:.1} {bottom:.1}v5\" stroke=\"#666\"/>"));
            if room || index % 2 == 0 {
                let base = bottom + 18.0;
                put(svg, format_args!("<text x=\"{x:.1}\" y=\"{base:.1}\" text-anchor=\"middle\">{label}</text>"));
            }
        }
        let top = frame.top;
        put(
            svg,
            format_args!(
                "<path class=\"axis\" d=\"M{left:.1} {top:.1}V{bottom:.1}H{right:.1}\" stroke=\"#666\" fill=\"none\"/>"
            ),
        );
        let (middle, base) = (f64::midpoint(left, right), bottom + 37.0);
        let across = escape(&self.across);
        put(svg, format_args!("<text x=\"{middle:.1}\" y=\"{base:.1}\" text-anchor=\"middle\">{across}</text>"));
        let (middle, up) = (f64::midpoint(top, bottom), escape(&self.up));
        let turned = format_args!("transform=\"translate(16 {middle:.1}) rotate(-90)\" text-anchor=\"middle\"");
        put(svg, format_args!("<text {turned}>{up}</text>"));
    }

    /// Labels at the ends of the lines, moved apart where they would overlap.
    fn draw_end_labels(&self, svg: &mut String, frame: &Frame) {
        let end =
            |line: &Line| Some(frame.place(&line.points.iter().rev().find(|point| point.y.is_some())?.clone())?.1);
        let mut labels: Vec<(f64, &Line)> = self.lines.iter().filter_map(|line| Some((end(line)?, line))).collect();
        labels.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut free = f64::NEG_INFINITY;
        for (y, _) in &mut labels {
            *y = y.max(free);
            free = *y + 13.0;
        }
        // What was pushed below the plot moves up again.
        let mut free = frame.top + PLOT_HEIGHT;
        for (y, _) in labels.iter_mut().rev() {
            *y = y.min(free);
            free = *y - 13.0;
        }
        let x = frame.left + frame.width + 8.0;
        for (y, line) in labels {
            let ((class, colour), base) = (self.paint(line.colour), y + 4.0);
            let look = format_args!("class=\"{class}\" fill=\"{colour}\" font-weight=\"600\"");
            put(svg, format_args!("<text x=\"{x:.1}\" y=\"{base:.1}\" {look}>{}</text>", escape(&line.label)));
        }
    }
}

/// A number with up to five significant digits.
fn number(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e7 {
        return format!("{value:.0}");
    }
    let decimals = (4 - value.abs().log10().floor() as i32).clamp(0, 8) as usize;
    if value.abs() < 1e-4 { format!("{value:.2e}") } else { format!("{value:.decimals$}") }
}

#[cfg(test)]
mod tests;
