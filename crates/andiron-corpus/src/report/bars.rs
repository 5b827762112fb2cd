//! A histogram as bars: SVG inside an HTML figure.

use std::fmt::Write as _;

use andiron_page::axis::Axis;
use andiron_page::text::{self, Escaped};

use super::{Histogram, Scale};

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = WIDTH - 20.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = HEIGHT - 26.0;

/// Appends the figure. `id` is unique in the page.
pub(super) fn render(id: &str, title: &str, histogram: &Histogram, out: &mut String) {
    let Some((least, most)) = histogram.range() else { return };
    let bins = histogram.bins();
    let (Some(first), Some(last)) = (bins.first(), bins.last()) else { return };
    let highest = bins.iter().map(|(_, _, count)| *count).max().unwrap_or_default();
    let x = match histogram.scale() {
        // Two orders of magnitude at least, because bins of equal ratio need an axis that is logarithmic.
        Scale::Logarithmic => Axis::fitting(first.0.min(last.1 / 101.0), last.1, 5),
        // Values that are nearly equal would need labels of many digits.
        Scale::Linear => {
            let middle = (first.0 + last.1) / 2.0;
            let least = if middle == 0.0 { 0.5 } else { middle.abs() / 20.0 };
            Axis::linear(first.0.min(middle - least), last.1.max(middle + least), 5)
        }
    };
    let y = Axis::linear(0.0, highest as f64, 4);
    let at_x = |value: f64| LEFT + x.position(value) * (RIGHT - LEFT);
    let at_y = |value: f64| BOTTOM - y.position(value) * (BOTTOM - TOP);
    let quantile = |share| text::value(histogram.quantile(share).unwrap_or_default());
    let _ = write!(
        out,
        "<figure class=\"chart\">\n<figcaption><h3 id=\"{id}\">{}</h3>\n<ul class=\"legend\"><li>median <b>{}</b></li>\
         <li>middle half <b>{}</b> to <b>{}</b></li></ul></figcaption>\n\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id} {id}-words\">\n\
         <desc id=\"{id}-words\">{} documents from {} to {}, half of them at most {}.</desc>\n",
        Escaped(title),
        quantile(0.5),
        quantile(0.25),
        quantile(0.75),
        text::count(histogram.n()),
        text::value(least),
        text::value(most),
        quantile(0.5)
    );
    let mut lines = String::new();
    out.push_str("<g class=\"y ticks\">");
    for (value, label) in &y.ticks {
        let at = at_y(*value);
        let _ = write!(lines, "M{LEFT},{at:.1}H{RIGHT}");
        let _ = write!(out, "<text x=\"{}\" y=\"{:.1}\">{label}</text>", LEFT - 6.0, at + 4.0);
    }
    let _ = write!(out, "</g>\n<path class=\"grid\" d=\"{lines}\"/>\n<g class=\"bars\">");
    for (from, to, count) in &bins {
        let (left, right, top) = (at_x(*from), at_x(*to), at_y(*count as f64));
        // A hair apart, and never invisible.
        let (width, height) = ((right - left - 0.6).max(0.8), (BOTTOM - top).max(0.8));
        let _ = write!(
            out,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{} to {}: {}</title></rect>",
            BOTTOM - height,
            text::value(*from),
            text::value(*to),
            text::count(*count)
        );
    }
    out.push_str("</g>\n<g class=\"x ticks\">");
    for (value, label) in x.ticks.iter().filter(|(value, _)| x.holds(*value)) {
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{}\">{label}</text>", at_x(*value), HEIGHT - 8.0);
    }
    out.push_str("</g>\n</svg>\n");
    if histogram.not_finite() > 0 {
        let _ =
            writeln!(out, "<p class=\"quiet\">{} are not finite.</p>", text::count(histogram.not_finite()));
    }
    out.push_str("</figure>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_labels_that_can_be_read() {
        for value in [0.857, 0.0, -3.0, 1e9] {
            let mut histogram = Histogram::new(Scale::Linear);
            histogram.add(value);
            let mut page = String::new();
            render("id", "score", &histogram, &mut page);
            let ticks = page.split("<g class=\"x ticks\">").nth(1).expect("ticks");
            let labels: Vec<&str> = ticks
                .split("</text>")
                .filter_map(|text| text.rsplit_once('>'))
                .map(|(_, label)| label)
                .collect();
            assert!(labels.len() >= 2 && labels.iter().all(|label| label.len() <= 8), "{value}: {labels:?}");
        }
    }
}
