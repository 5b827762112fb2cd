//! Charts: curves as SVG inside an HTML figure.

use std::borrow::Cow;
use std::fmt::Write as _;

use andiron_page::axis::Axis;
use andiron_page::text::{self, Escaped};

use super::curve::{Bucket, Curve};

/// A chart of curves over steps.
#[derive(Clone, Debug)]
pub(super) struct Chart<'a> {
    /// Unique in the page.
    pub(super) id: String,
    pub(super) title: String,
    /// The first and the last step of the horizontal axis.
    pub(super) steps: (u64, u64),
    pub(super) size: Size,
    pub(super) range: Range,
    pub(super) series: Vec<Series<'a>>,
}

/// Width and height of a chart, in CSS pixels at its usual width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Large,
    Small,
}

/// What the vertical axis shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// The values; logarithmic if they differ by orders of magnitude.
    Fitting,
    /// From zero.
    FromZero,
}

/// One curve of a chart.
#[derive(Clone, Debug)]
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// CSS class, which gives the colour.
    pub(super) class: &'a str,
    pub(super) kind: Kind,
    pub(super) curve: &'a Curve,
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each step pale, and the smoothed curve.
    Noisy,
    /// A line.
    Line,
    /// A line with a dot at each measurement, if there is room for them.
    Measured,
}

/// Buckets that a curve needs to be smoothed.
const MIN_SMOOTHED: usize = 10;

/// Standard deviation of the smoothing, as a share of the chart's width.
const SMOOTHING: f64 = 0.015;

/// Pixels for each dot.
const DOT_SPACING: f64 = 16.0;

/// How far above the smoothed curve all steps are shown, as a multiple of its height.
const HEADROOM: f64 = 0.5;

/// Share of the buckets that are shown whole. Higher steps are cut off, so that a few bad ones do not flatten the chart, unless the
/// chart would be less than [`TALLER`] times as tall with them.
const SHOWN: f64 = 0.98;

const TALLER: f64 = 1.5;

struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    width: f64,
    height: f64,
    n_x: usize,
    n_y: usize,
}

impl Size {
    fn frame(self) -> Frame {
        let (width, height, left, n_x, n_y) = match self {
            Self::Large => (1080.0, 360.0, 52.0, 10, 6),
            Self::Small => (344.0, 196.0, 48.0, 4, 4),
        };
        Frame { left, right: width - 18.0, top: 10.0, bottom: height - 26.0, width, height, n_x, n_y }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Small => "small",
        }
    }
}

/// A curve as it is drawn.
struct Drawn<'a> {
    series: &'a Series<'a>,
    /// With at most one bucket for each pixel column.
    curve: Cow<'a, Curve>,
    smoothed: Option<Vec<(f64, Option<f64>)>>,
}

impl<'a> Drawn<'a> {
    fn new(series: &'a Series<'a>, n_steps: f64, n_columns: usize) -> Self {
        let curve = series.curve.at_most(n_columns);
        let n_finite = curve.buckets().iter().filter(|bucket| bucket.range().is_some()).count();
        // Of few steps, at least the nearest neighbours are averaged.
        let deviation = (SMOOTHING * n_steps).max(2.0 * n_steps / curve.buckets().len().max(1) as f64);
        let smooth = series.kind == Kind::Noisy && n_finite >= MIN_SMOOTHED;
        let smoothed = smooth.then(|| curve.smoothed(deviation));
        Self { series, curve, smoothed }
    }

    /// The range of its steps, and the range that has to be shown: its line, and nearly all steps. `None` if it has no finite value.
    fn ranges(&self) -> Option<(Span, Span)> {
        let ranges = || self.curve.buckets().iter().filter_map(Bucket::range);
        let steps = Span::of(ranges())?;
        let points =
            self.smoothed.iter().flatten().filter_map(|(_, value)| value.map(|value| (value, value)));
        let Some(line) = Span::of(points) else { return Some((steps, steps)) };
        let mut tops: Vec<_> = ranges().map(|(_, high)| high).collect();
        tops.sort_unstable_by(f64::total_cmp);
        let shown = tops[((tops.len() - 1) as f64 * SHOWN) as usize];
        let high = shown.max(line.high + HEADROOM * (line.high - line.low));
        Some((steps, Span { low: steps.low, high }))
    }
}

#[derive(Clone, Copy)]
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    fn of(ranges: impl Iterator<Item = (f64, f64)>) -> Option<Self> {
        let spans = ranges.map(|(low, high)| Self { low, high });
        spans.reduce(|a, b| Self { low: a.low.min(b.low), high: a.high.max(b.high) })
    }
}

impl Chart<'_> {
    /// Appends the figure; nothing if no curve has a step.
    pub(super) fn render(&self, out: &mut String) {
        if self.series.iter().all(|series| series.curve.is_empty()) {
            return;
        }
        let frame = self.size.frame();
        let (first, last) = self.steps;
        let x = Axis::steps(first, last, frame.n_x);
        let n_columns = (frame.right - frame.left) as usize;
        let drawn =
            self.series.iter().map(|series| Drawn::new(series, (last - first) as f64 + 1.0, n_columns));
        let drawn: Vec<_> = drawn.collect();
        let (y, cut) = self.vertical(&drawn, frame.n_y);
        let plot = Plot { frame, x, y };

        let _ = write!(
            out,
            "<figure class=\"chart {}\" id=\"{}\">\n<figcaption><h3>{}</h3>",
            self.size.class(),
            self.id,
            Escaped(&self.title)
        );
        self.legend(&drawn, cut, out);
        let Frame { width, height, .. } = plot.frame;
        let _ = write!(
            out,
            "</figcaption>\n<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-text\">\n\
             <title id=\"{id}-title\">{title}</title>\n<desc id=\"{id}-text\">{text}</desc>\n",
            id = self.id,
            title = Escaped(&self.title),
            text = Escaped(&self.described()),
        );
        plot.grid(out);
        drawn.iter().for_each(|drawn| plot.steps(drawn, out));
        drawn.iter().for_each(|drawn| plot.line(drawn, out));
        out.push_str("</svg>\n</figure>\n");
    }

    /// The vertical axis, and the highest value if it is beyond the axis.
    fn vertical(&self, drawn: &[Drawn<'_>], n_ticks: usize) -> (Axis, Option<f64>) {
        let ranges: Vec<_> = drawn.iter().filter_map(Drawn::ranges).collect();
        let of = |spans: &mut dyn Iterator<Item = Span>| Span::of(spans.map(|span| (span.low, span.high)));
        let (Some(steps), Some(shown)) =
            (of(&mut ranges.iter().map(|range| range.0)), of(&mut ranges.iter().map(|range| range.1)))
        else {
            return (Axis::linear(0.0, 1.0, n_ticks), None);
        };
        match self.range {
            Range::FromZero => (Axis::linear(steps.low.min(0.0), steps.high, n_ticks), None),
            Range::Fitting => {
                let fits = steps.high - steps.low <= TALLER * (shown.high - steps.low);
                let axis = Axis::fitting(steps.low, if fits { steps.high } else { shown.high }, n_ticks);
                let cut = Some(steps.high).filter(|high| !axis.holds(*high));
                (axis, cut)
            }
        }
    }

    /// Names, colours and last values of the curves.
    fn legend(&self, drawn: &[Drawn<'_>], cut: Option<f64>, out: &mut String) {
        out.push_str("<ul class=\"legend\">");
        for Drawn { series, smoothed, .. } in drawn {
            let last = smoothed.iter().flatten().rev().find_map(|(_, value)| *value);
            let Some((step, value)) = series.curve.last() else { continue };
            let (value, how) = match last {
                Some(smoothed) => (smoothed, ", smoothed".to_owned()),
                None if series.kind == Kind::Measured => (value, format!(", step {}", text::count(step))),
                None => (value, String::new()),
            };
            let _ = write!(
                out,
                "<li class=\"{}\"><i></i>{} <b>{}</b>{how}</li>",
                series.class,
                Escaped(series.name),
                text::value(value)
            );
        }
        let n_broken: u64 = drawn.iter().map(|drawn| drawn.series.curve.n_not_finite()).sum();
        if n_broken > 0 {
            let _ =
                write!(out, "<li class=\"broken\"><i></i>not finite: <b>{}</b></li>", text::count(n_broken));
        }
        if let Some(high) = cut {
            let _ = write!(out, "<li>highest: <b>{}</b>, cut off</li>", text::value(high));
        }
        out.push_str("</ul>");
    }

    /// The chart in words.
    fn described(&self) -> String {
        let mut words = String::new();
        for Series { name, curve, .. } in &self.series {
            let (Some((first, at_first)), Some((last, at_last)), Some((low, lowest))) =
                (curve.first(), curve.last(), curve.lowest())
            else {
                continue;
            };
            let name = if name.is_empty() { &self.title } else { *name };
            let _ = write!(
                words,
                "{name}: {} at step {}, {} at step {}, lowest {} at step {}. ",
                text::value(at_first),
                text::count(first),
                text::value(at_last),
                text::count(last),
                text::value(lowest),
                text::count(low)
            );
        }
        words.truncate(words.trim_end().len());
        words
    }
}

/// Where things are drawn.
struct Plot {
    frame: Frame,
    x: Axis,
    y: Axis,
}

impl Plot {
    fn x(&self, step: f64) -> f64 {
        self.frame.left + self.x.position(step) * (self.frame.right - self.frame.left)
    }

    fn y(&self, value: f64) -> f64 {
        self.frame.bottom - self.y.position(value) * (self.frame.bottom - self.frame.top)
    }

    fn grid(&self, out: &mut String) {
        let Frame { left, right, bottom, height, .. } = self.frame;
        let mut lines = String::new();
        for (value, _) in &self.y.ticks {
            let _ = write!(lines, "M{left},{:.1}H{right}", self.y(*value));
        }
        let _ = write!(out, "<path class=\"grid\" d=\"{lines}\"/>\n<g class=\"y ticks\">");
        for (value, label) in &self.y.ticks {
            let _ =
                write!(out, "<text x=\"{}\" y=\"{:.1}\">{label}</text>", left - 8.0, self.y(*value) + 4.0);
        }
        let row = height - 6.0;
        let _ = write!(
            out,
            "<text class=\"axis\" x=\"{}\" y=\"{row}\">step</text></g>\n<g class=\"x ticks\">",
            left - 8.0
        );
        let mut marks = String::new();
        for (step, label) in &self.x.ticks {
            let at = self.x(*step);
            let _ = write!(out, "<text x=\"{at:.1}\" y=\"{row}\">{label}</text>");
            let _ = write!(marks, "M{at:.1},{bottom}v4");
        }
        let _ = writeln!(out, "</g>\n<path class=\"marks\" d=\"{marks}\"/>");
    }

    /// The steps of a curve that is smoothed, and where it is not finite.
    fn steps(&self, drawn: &Drawn<'_>, out: &mut String) {
        let Drawn { series, curve, smoothed } = drawn;
        if smoothed.is_some() {
            let is_band = curve.buckets().iter().any(|bucket| bucket.first_step < bucket.last_step);
            let (kind, path) =
                if is_band { ("band", self.band(curve)) } else { ("steps", self.means(curve)) };
            let _ = writeln!(out, "<path class=\"{kind} {}\" d=\"{path}\"/>", series.class);
        }
        let broken = curve.buckets().iter().filter(|bucket| bucket.n_not_finite > 0);
        let marks: Vec<_> =
            broken.map(|bucket| format!("M{:.1},{}v-8", self.x(bucket.step()), self.frame.bottom)).collect();
        if !marks.is_empty() {
            let _ = writeln!(out, "<path class=\"broken\" d=\"{}\"/>", marks.concat());
        }
    }

    /// The line of a curve, and its dots.
    fn line(&self, drawn: &Drawn<'_>, out: &mut String) {
        let Drawn { series, curve, smoothed } = drawn;
        let path = match smoothed {
            Some(points) => self.path(points.iter().copied()),
            None => self.means(curve),
        };
        let _ = writeln!(out, "<path class=\"line {}\" d=\"{path}\"/>", series.class);
        let means = curve.buckets().iter().filter_map(|bucket| Some((bucket, bucket.mean()?)));
        // Dots also where there are too few points for a line.
        let room = match series.kind {
            Kind::Measured => (self.frame.right - self.frame.left) / DOT_SPACING,
            _ => 2.0,
        };
        if means.clone().count() as f64 > room {
            return;
        }
        let _ = write!(out, "<g class=\"dots {}\">", series.class);
        for (bucket, mean) in means {
            let _ = write!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>step {}: {}</title></circle>",
                self.x(bucket.step()),
                self.y(mean),
                text::count(bucket.last_step),
                text::value(mean)
            );
        }
        out.push_str("</g>\n");
    }

    /// The path through points, with gaps where there is no value.
    fn path(&self, points: impl Iterator<Item = (f64, Option<f64>)>) -> String {
        let mut pen = Pen::default();
        for (step, value) in points {
            match value {
                Some(value) => pen.draw(self.x(step), self.y(value)),
                None => pen.lift(),
            }
        }
        pen.finish()
    }

    /// The path through the mean of each bucket.
    fn means(&self, curve: &Curve) -> String {
        self.path(curve.buckets().iter().map(|bucket| (bucket.step(), bucket.mean())))
    }

    /// The areas between the smallest and the largest values of neighbouring buckets.
    fn band(&self, curve: &Curve) -> String {
        let areas = curve.buckets().split(|bucket| bucket.range().is_none()).filter(|area| !area.is_empty());
        let mut path = String::new();
        for area in areas {
            let points = area.iter().filter_map(|bucket| Some((bucket.step(), bucket.range()?)));
            let tops = points.clone().map(|(step, (_, high))| (step, Some(high)));
            let bottoms = points.rev().map(|(step, (low, _))| (step, Some(low)));
            path.push_str(&self.path(tops.chain(bottoms)));
            path.push('Z');
        }
        path
    }
}

/// Writes the commands of a path. A point without neighbours becomes a line of no length, which is drawn as a dot.
#[derive(Default)]
struct Pen {
    path: String,
    last: String,
    /// Points since the pen was put down; 0 while it is up.
    n_points: usize,
}

impl Pen {
    fn draw(&mut self, x: f64, y: f64) {
        if !(x.is_finite() && y.is_finite()) {
            return self.lift();
        }
        let point = format!("{x:.1},{y:.1}");
        if self.n_points == 0 || point != self.last {
            self.path.push(if self.n_points == 0 { 'M' } else { 'L' });
            self.path.push_str(&point);
            self.n_points += 1;
            self.last = point;
        }
    }

    fn lift(&mut self) {
        if self.n_points == 1 {
            self.path.push_str("h0");
        }
        self.n_points = 0;
    }

    fn finish(mut self) -> String {
        self.lift();
        self.path
    }
}

#[cfg(test)]
mod tests;
