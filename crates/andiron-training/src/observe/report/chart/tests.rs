use super::*;

fn curve(values: &[(u64, f64)]) -> Curve {
    let mut curve = Curve::default();
    values.iter().for_each(|&(step, value)| curve.push(step, value));
    curve
}

fn chart<'a>(kind: Kind, curve: &'a Curve, steps: (u64, u64)) -> Chart<'a> {
    Chart {
        id: "c".to_owned(),
        title: "Loss".to_owned(),
        steps,
        size: Size::Small,
        range: Range::Fitting,
        series: vec![Series { name: "training", class: "train", kind, curve }],
    }
}

fn rendered(chart: &Chart<'_>) -> String {
    let mut out = String::new();
    chart.render(&mut out);
    out
}

/// What stands between `before` and the next quotation mark, for each `before`.
fn attributes<'a>(page: &'a str, before: &str) -> Vec<&'a str> {
    page.split(before).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn a_chart_has_axes_labels_and_its_points() {
    let curve = curve(&[(1, 1.0), (2, 3.0), (3, 2.0)]);
    let expected = concat!(
        "<figure class=\"chart small\" id=\"c\">\n<figcaption><h3>Loss</h3><ul class=\"legend\">",
        "<li class=\"train\"><i></i>training <b>2.000</b></li></ul></figcaption>\n",
        "<svg viewBox=\"0 0 344 196\" role=\"img\" aria-labelledby=\"c-title c-text\">\n",
        "<title id=\"c-title\">Loss</title>\n",
        "<desc id=\"c-text\">training: 1.000 at step 1, 2.000 at step 3, lowest 1.000 at step 1.</desc>\n",
        "<path class=\"grid\" d=\"M48,170.0H326M48,130.0H326M48,90.0H326M48,50.0H326M48,10.0H326\"/>\n",
        "<g class=\"y ticks\"><text x=\"40\" y=\"174.0\">1.0</text><text x=\"40\" y=\"134.0\">1.5</text>",
        "<text x=\"40\" y=\"94.0\">2.0</text><text x=\"40\" y=\"54.0\">2.5</text><text x=\"40\" y=\"14.0\">3.0</text>",
        "<text class=\"axis\" x=\"40\" y=\"190\">step</text></g>\n",
        "<g class=\"x ticks\"><text x=\"48.0\" y=\"190\">0</text><text x=\"140.7\" y=\"190\">1</text>",
        "<text x=\"233.3\" y=\"190\">2</text><text x=\"326.0\" y=\"190\">3</text></g>\n",
        "<path class=\"marks\" d=\"M48.0,170v4M140.7,170v4M233.3,170v4M326.0,170v4\"/>\n",
        "<path class=\"line train\" d=\"M140.7,170.0L233.3,10.0L326.0,90.0\"/>\n",
        "</svg>\n</figure>\n",
    );
    assert_eq!(rendered(&chart(Kind::Noisy, &curve, (1, 3))), expected);
}

#[test]
fn one_point_is_a_dot_in_the_middle() {
    let curve = curve(&[(1, 2.0)]);
    let page = rendered(&chart(Kind::Noisy, &curve, (1, 1)));
    assert!(
        page.contains("<circle cx=\"326.0\" cy=\"90.0\" r=\"3\"><title>step 1: 2.000</title></circle>"),
        "{page}"
    );
    assert_eq!(attributes(&page, "class=\"line train\" d=\""), ["M326.0,90.0h0"]);
}

#[test]
fn what_is_not_finite_is_a_gap_with_a_mark() {
    let curve = curve(&[(1, 1.0), (2, 2.0), (3, f64::NAN), (4, 2.0), (5, f64::INFINITY), (6, 3.0)]);
    let page = rendered(&chart(Kind::Noisy, &curve, (1, 6)));
    let lines = attributes(&page, "class=\"line train\" d=\"");
    assert_eq!(lines, ["M94.3,170.0L140.7,90.0M233.3,90.0h0M326.0,10.0h0"]);
    assert_eq!(attributes(&page, "class=\"broken\" d=\""), ["M187.0,170v-8M279.7,170v-8"]);
    assert!(page.contains("not finite: <b>2</b>"), "{page}");
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn a_curve_without_a_finite_value_is_an_empty_chart() {
    let curve = curve(&[(1, f64::NAN)]);
    let page = rendered(&chart(Kind::Noisy, &curve, (1, 1)));
    assert_eq!(attributes(&page, "class=\"line train\" d=\""), [""]);
    assert!(page.contains("not finite: <b>1</b>") && !page.contains("NaN"), "{page}");
    assert_eq!(rendered(&chart(Kind::Noisy, &Curve::default(), (1, 1))), "");
}

#[test]
fn many_steps_are_a_band_and_a_smoothed_line_of_bounded_length() {
    let value = |step: u64| 2.0 + if step.is_multiple_of(2) { 0.5 } else { -0.5 };
    let mut curve = Curve::default();
    (1..=100_000).for_each(|step| curve.push(step, value(step)));
    let page = rendered(&chart(Kind::Noisy, &curve, (1, 100_000)));
    assert!(page.len() < 20_000, "{}", page.len());
    let band = attributes(&page, "class=\"band train\" d=\"")[0];
    // Every bucket has both values: the band is as high as the chart's axis from 1.5 to 2.5.
    let heights: Vec<_> = band.split(['M', 'L', 'Z']).filter_map(|point| point.split(',').nth(1)).collect();
    assert_eq!(heights.iter().filter(|height| **height == "10.0").count(), heights.len() / 2, "{band}");
    let line = attributes(&page, "class=\"line train\" d=\"")[0];
    let heights = line.split(['M', 'L']).filter_map(|point| point.split(',').nth(1));
    assert!(
        heights.map(|height| height.parse::<f64>().unwrap()).all(|height| (height - 90.0).abs() < 1.0),
        "{line}"
    );
    assert!(line.matches('L').count() <= 278);
    assert!(
        page.contains("training: 1.500 at step 1, 2.500 at step 100\u{202f}000, lowest 1.500 at step 1.")
    );
    assert!(page.contains("training <b>2.00") && page.contains("</b>, smoothed"), "{page}");
}

#[test]
fn one_bad_step_does_not_flatten_the_chart() {
    let value = |step: u64| if step == 500 { 50.0 } else { 3.0 - 0.001 * step as f64 };
    let curve = curve(&(1..=1000).map(|step| (step, value(step))).collect::<Vec<_>>());
    let page = rendered(&chart(Kind::Noisy, &curve, (1, 1000)));
    assert!(page.contains("<li>highest: <b>50.00</b>, cut off</li>"), "{page}");
    assert!(page.contains(">4<") || page.contains(">4.0<"), "{page}");
    assert!(!page.contains(">50<") && !page.contains(">60<"), "{page}");
}

#[test]
fn few_measurements_have_dots() {
    let few = curve(&[(10, 0.5), (20, 0.75)]);
    let page = rendered(&chart(Kind::Measured, &few, (1, 20)));
    assert!(page.contains("<title>step 20: 0.7500</title>") && page.contains(", step 20</li>"), "{page}");
    let many = curve(&(1..=100).map(|step| (step, 0.5)).collect::<Vec<_>>());
    assert!(!rendered(&chart(Kind::Measured, &many, (1, 100))).contains("<circle"));
}

#[test]
fn names_are_escaped() {
    let curve = curve(&[(1, 1.0)]);
    let mut chart = chart(Kind::Measured, &curve, (1, 1));
    chart.title = "<b>&".to_owned();
    chart.series[0].name = "</title><script>";
    let page = rendered(&chart);
    assert!(!page.contains("<script") && !page.contains("<b>&"), "{page}");
    assert_eq!(page.matches("&lt;b&gt;&amp;").count(), 2);
}
