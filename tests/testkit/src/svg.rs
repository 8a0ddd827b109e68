//! Drawing: the few shapes that pictures of this kind need, as SVG.

use std::fmt::Write;
use std::path::Path;

use crate::story::Failure;

/// Told apart by people who do not see all colours, too (Okabe and Ito).
pub const COLOURS: [&str; 8] = [
    "#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442", "#999999",
];

/// A picture that grows by what is drawn. Lengths are in units of its own; it scales to any size.
pub struct Picture {
    svg: String,
}

impl Picture {
    pub fn new(width: f64, height: f64) -> Self {
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        Self { svg }
    }

    pub fn title(&mut self, x: f64, y: f64, words: &str) {
        let words = escaped(words);
        self.draw(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"15\" font-weight=\"bold\">{words}</text>"
        ));
    }

    /// Words that begin at x, have it in their middle, or end there: `start`, `middle`, `end`.
    pub fn text(&mut self, x: f64, y: f64, anchor: &str, words: &str) {
        let words = escaped(words);
        self.draw(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
        ));
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.draw(&format!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
        ));
    }

    /// A filled rectangle, with words that a viewer shows under the pointer.
    pub fn bar(&mut self, corner: (f64, f64), size: (f64, f64), colour: &str, words: &str) {
        let ((x, y), (width, height), words) = (corner, size, escaped(words));
        self.draw(&format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{colour}\" fill-opacity=\"0.75\" stroke=\"white\"><title>{words}</title></rect>"
        ));
    }

    /// What the others did not think of.
    pub fn draw(&mut self, element: &str) {
        self.svg += element;
        self.svg.push('\n');
    }

    pub fn write(self, path: &Path) -> Result<(), Failure> {
        let mut svg = self.svg;
        let _ = writeln!(svg, "</svg>");
        std::fs::write(path, svg).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(())
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A distance between marks on an axis, of which about `marks` fit into its length: 1, 2 or 5 times
/// a power of ten.
pub fn step(length: u64, marks: u64) -> u64 {
    let steps = (0..18).flat_map(|power| [1, 2, 5].map(|factor| factor * 10_u64.pow(power)));
    let fits = |step: &u64| length / step <= marks;
    steps.into_iter().find(fits).unwrap_or(u64::MAX)
}

/// A count as a length in a picture.
#[expect(
    clippy::cast_precision_loss,
    reason = "a picture does not show the last digits"
)]
pub fn length(count: u64) -> f64 {
    count as f64
}
