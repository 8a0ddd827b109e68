//! The picture: an SVG with a panel of bars, and a panel of lines below it.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const PANEL: f64 = 360.0;
/// The axes' corners within a panel.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 560.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 280.0;
/// Told apart by people who do not see all colours, too (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// What is written on the bar.
    pub(crate) note: String,
}

pub(crate) struct Line {
    pub(crate) name: String,
    /// One for each place on the x axis.
    pub(crate) values: Vec<f64>,
}

pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) y: &'static str,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Lines {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// What the lines stand for.
    pub(crate) legend: &'static str,
    pub(crate) places: Vec<String>,
    pub(crate) lines: Vec<Line>,
    /// A value that everything is held against.
    pub(crate) mark: (f64, &'static str),
}

/// The picture as an SVG file.
pub(crate) fn svg(bars: &Bars, lines: Option<&Lines>) -> String {
    let height = if lines.is_some() { 2.0 * PANEL } else { PANEL };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    svg += &panel(0.0, &draw_bars(bars));
    if let Some(lines) = lines {
        svg += &panel(PANEL, &draw_lines(lines));
    }
    svg + "</svg>\n"
}

fn panel(down: f64, content: &str) -> String {
    format!("<g transform=\"translate(0 {down})\">\n{content}</g>\n")
}

fn draw_bars(bars: &Bars) -> String {
    let highest = bars.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let axis = Axis::up_to(highest);
    // Bars have no legend beside them, so they take its room.
    let right = WIDTH - 30.0;
    let mut out = frame(&bars.title, bars.y, &axis, right);
    let step = (right - LEFT) / count(bars.bars.len());
    for (place, bar) in bars.bars.iter().enumerate() {
        let middle = LEFT + step * (count(place) + 0.5);
        let (width, top) = (step * 0.6, axis.y(bar.value));
        let (left, tall) = (middle - width / 2.0, BOTTOM - top);
        let colour = COLOURS[place % COLOURS.len()];
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{tall:.1}\" fill=\"{colour}\"/>"
        );
        out += &text(middle, top - 6.0, "middle", &bar.note);
        for (row, words) in bar.name.split('\n').enumerate() {
            out += &text(middle, BOTTOM + 20.0 + 16.0 * count(row), "middle", words);
        }
    }
    out
}

fn draw_lines(lines: &Lines) -> String {
    let values = lines.lines.iter().flat_map(|line| &line.values);
    let highest = values.copied().fold(lines.mark.0, f64::max);
    let axis = Axis::up_to(highest);
    let mut out = frame(&lines.title, lines.y, &axis, RIGHT);
    let step = (RIGHT - LEFT) / count(lines.places.len());
    let x = |place: usize| LEFT + step * (count(place) + 0.5);
    for (place, name) in lines.places.iter().enumerate() {
        out += &text(x(place), BOTTOM + 20.0, "middle", name);
    }
    out += &text(f64::midpoint(LEFT, RIGHT), BOTTOM + 44.0, "middle", lines.x);
    let (mark, words) = lines.mark;
    let dashed = "stroke=\"#222\" stroke-dasharray=\"6 4\"";
    out += &level(LEFT, RIGHT, axis.y(mark), dashed);
    out += &text(RIGHT + 20.0, TOP - 8.0, "start", lines.legend);
    out += &entry(lines.lines.len(), words, dashed);
    for (number, line) in lines.lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points = line.values.iter().enumerate();
        let points: Vec<_> = points
            .map(|(place, value)| (x(place), axis.y(*value)))
            .collect();
        let path: Vec<_> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
            );
        }
        let stroke = format!("stroke=\"{colour}\" stroke-width=\"2\"");
        out += &entry(number, &line.name, &stroke);
    }
    out
}

/// A row of the legend.
fn entry(row: usize, words: &str, stroke: &str) -> String {
    let y = TOP + 12.0 + 20.0 * count(row);
    let (left, right) = (RIGHT + 20.0, RIGHT + 48.0);
    level(left, right, y, stroke) + &text(right + 8.0, y + 4.0, "start", words)
}

/// A line from left to right.
fn level(left: f64, right: f64, y: f64, stroke: &str) -> String {
    format!("<line x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" {stroke}/>\n")
}

/// Title, axes, and lines across at round values.
fn frame(title: &str, y_label: &str, axis: &Axis, right: f64) -> String {
    let mut out = format!(
        "<text x=\"{LEFT}\" y=\"26\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    let middle = f64::midpoint(TOP, BOTTOM);
    let _ = writeln!(
        out,
        "<text transform=\"translate(24 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escaped(y_label)
    );
    for tick in axis.ticks() {
        let y = axis.y(tick);
        out += &level(LEFT, right, y, "stroke=\"#ddd\"");
        out += &text(LEFT - 8.0, y + 4.0, "end", &axis.label(tick));
    }
    let _ = writeln!(
        out,
        "<path d=\"M{LEFT} {TOP} V{BOTTOM} H{right}\" fill=\"none\" stroke=\"#222\"/>"
    );
    out
}

fn text(x: f64, y: f64, anchor: &str, words: &str) -> String {
    let words = escaped(words);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A y axis from 0 to a little above the highest value.
struct Axis {
    step: f64,
    top: f64,
}

impl Axis {
    fn up_to(highest: f64) -> Self {
        let highest = highest.max(1e-6);
        let power = 10_f64.powf((highest / 4.0).log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
        let fits = |step: &f64| highest / step <= 5.0;
        let step = steps.into_iter().find(fits).unwrap_or(10.0 * power);
        let top = step * (highest / step * 1.08).ceil();
        Self { step, top }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        let ticks = (0..).map(|number| f64::from(number) * self.step);
        ticks.take_while(|tick| *tick <= self.top + self.step / 2.0)
    }

    fn label(&self, tick: f64) -> String {
        let scales = [1.0, 10.0, 100.0].into_iter();
        let round = |scale: &f64| (self.step * scale).fract() < 1e-9;
        let decimals = scales.take_while(|scale| !round(scale)).count();
        format!("{tick:.decimals$}")
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * value / self.top
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a handful of things in a picture"
)]
fn count(things: usize) -> f64 {
    things as f64
}
