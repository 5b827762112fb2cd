//! The page.

use std::fmt::Write as _;

use andiron_page::document;
use andiron_page::text::{self, Escaped};

use super::chart::{Chart, Kind, Range, Series, Size};
use super::{ReportData, ReportStatus, Sample};

const STYLE: &str = include_str!("style.css");

/// Characters of a sample, and of its prompt.
const MAX_SAMPLE: usize = 4000;

/// Characters of a warning.
const MAX_WARNING: usize = 1000;

/// Characters of the configuration.
const MAX_CONFIG: usize = 100_000;

/// Samples and warnings that are not folded away.
const OPEN: usize = 5;

/// The page: HTML in which everything from outside is escaped.
pub fn render(data: &ReportData) -> String {
    let mut out = String::with_capacity(64 << 10);
    head(data, &mut out);
    header(data, &mut out);
    figures(data, &mut out);
    curves(data, &mut out);
    evaluation(data, &mut out);
    samples(data, &mut out);
    warnings(data, &mut out);
    facts(data, &mut out);
    document::end(&mut out);
    out
}

fn head(data: &ReportData, out: &mut String) {
    match data.status {
        ReportStatus::Running => {
            let title = format!("{} % – {}", percent(data), data.name);
            document::begin_refreshing(&title, STYLE, data.refresh.as_secs(), out);
        }
        _ => document::begin(&data.name, STYLE, out),
    }
}

/// Share of the steps that are done; 100 only at the end.
fn percent(data: &ReportData) -> u64 {
    (data.step as f64 / data.steps.max(1) as f64 * 100.0).floor().min(100.0) as u64
}

fn header(data: &ReportData, out: &mut String) {
    let (class, status) = match &data.status {
        ReportStatus::Running => ("running", "Running".to_owned()),
        ReportStatus::Finished => ("finished", "Finished".to_owned()),
        ReportStatus::Interrupted => ("interrupted", "Interrupted; it can be resumed".to_owned()),
        ReportStatus::Failed(cause) => ("failed", format!("Failed: {}", text::shortened(cause, MAX_WARNING))),
    };
    let _ = write!(
        out,
        "<header>\n<h1>{}</h1>\n<p><span class=\"status {class}\">{}</span> · {}",
        Escaped(&data.name),
        Escaped(&status),
        text::utc(data.updated)
    );
    if data.warnings.n > 0 {
        let plural = if data.warnings.n == 1 { "" } else { "s" };
        let _ = write!(out, " · <a href=\"#warnings\">{} warning{plural}</a>", text::count(data.warnings.n));
    }
    let (step, steps) = (data.step, data.steps.max(1));
    let _ = writeln!(
        out,
        "</p>\n<progress value=\"{step}\" max=\"{steps}\" aria-label=\"Progress\">{} %</progress>\n</header>",
        percent(data)
    );
}

/// The numbers that one looks for first.
fn figures(data: &ReportData, out: &mut String) {
    out.push_str("<dl class=\"figures\">\n");
    let mut figure = |name: &str, value: &str, note: &str| {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>");
    };
    let curves = &data.curves;
    figure("Step", &text::count(data.step), &format!("of {}, {} %", text::count(data.steps), percent(data)));
    if let Some((_, loss)) = curves.loss.last() {
        figure("Training loss", &text::value(loss), "of the last step");
    }
    if let Some((step, loss)) = curves.valid_loss.last() {
        figure("Validation loss", &text::value(loss), &format!("at step {}", text::count(step)));
    }
    figure("Tokens", &text::short(data.tokens as f64), "trained on");
    if data.elapsed_s > 0.0 {
        figure("Mean throughput", &text::short(data.tokens as f64 / data.elapsed_s), "tokens per second");
    }
    let remaining = match (&data.status, data.remaining_s) {
        (ReportStatus::Running, Some(seconds)) => format!("about {} left", text::duration(seconds)),
        _ => "of training".to_owned(),
    };
    figure("Time", &text::duration(data.elapsed_s), &remaining);
    out.push_str("</dl>\n");
}

fn curves(data: &ReportData, out: &mut String) {
    let curves = &data.curves;
    let Some(steps) = curves.steps() else { return };
    out.push_str("<section>\n<h2 class=\"unseen\">Curves</h2>\n");
    let train = |kind, curve| Series { name: "training", class: "train", kind, curve };
    let valid = |curve| Series { name: "validation", class: "valid", kind: Kind::Measured, curve };
    let loss = vec![train(Kind::Noisy, &curves.loss), valid(&curves.valid_loss)];
    // A narrow screen gets a chart of its own, whose labels are not scaled down.
    for (size, class) in [(Size::Large, "wide"), (Size::Small, "narrow")] {
        let _ = writeln!(out, "<div class=\"{class}\">");
        let (id, title, series) = (format!("loss-{class}"), "Loss".to_owned(), loss.clone());
        Chart { id, title, steps, size, range: Range::Fitting, series }.render(out);
        out.push_str("</div>\n");
    }
    out.push_str("<div class=\"charts\">\n");
    let small = |id: &str, title: &str, range, curve: Series<'_>, out: &mut String| {
        let series = vec![Series { name: "", ..curve }];
        Chart { id: id.to_owned(), title: title.to_owned(), steps, size: Size::Small, range, series }
            .render(out);
    };
    for (index, (name, curve)) in curves.valid_metrics.iter().enumerate() {
        let title = text::shortened(name, 60);
        small(&format!("metric-{index}"), &title, Range::Fitting, valid(curve), out);
    }
    small("lr", "Learning rate", Range::FromZero, train(Kind::Line, &curves.lr), out);
    small("grad-norm", "Gradient norm", Range::Fitting, train(Kind::Noisy, &curves.grad_norm), out);
    small("throughput", "Tokens per second", Range::FromZero, train(Kind::Noisy, &curves.tokens_per_s), out);
    let wait = train(Kind::Noisy, &curves.data_wait);
    small("data-wait", "Waiting for data, % of a step", Range::FromZero, wait, out);
    out.push_str("</div>\n</section>\n");
}

fn evaluation(data: &ReportData, out: &mut String) {
    let Some(evaluation) = &data.evaluation else { return };
    let title = match data.status {
        ReportStatus::Finished => "Final evaluation".to_owned(),
        _ => format!("Evaluation at step {}", text::count(evaluation.step)),
    };
    let _ = write!(out, "<section>\n<h2>{title}</h2>\n<table>\n<tbody>\n");
    for (name, value) in &evaluation.values {
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td></tr>",
            Escaped(name),
            text::value(*value)
        );
    }
    out.push_str("</tbody>\n</table>\n</section>\n");
    if let Some(confusion) = &evaluation.confusion {
        out.push_str("<section>\n<h2>Confusion matrix</h2>\n");
        confusion.render(out);
        out.push_str("</section>\n");
    }
}

/// The items of a list; those after the first few can be folded away.
fn folded<T>(
    items: impl Iterator<Item = T>,
    noun: &str,
    out: &mut String,
    mut render: impl FnMut(T, &mut String),
) {
    let mut items = items.peekable();
    items.by_ref().take(OPEN).for_each(|item| render(item, out));
    if items.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "<details><summary>Earlier {noun}</summary>");
    items.for_each(|item| render(item, out));
    out.push_str("</details>\n");
}

fn samples(data: &ReportData, out: &mut String) {
    if data.samples.kept.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Samples</h2>\n");
    folded(data.samples.kept.iter().rev(), "samples", out, |sample, out| {
        let Sample { step, prompt, text } = sample;
        let (prompt, text) = (text::shortened(prompt, MAX_SAMPLE), text::shortened(text, MAX_SAMPLE));
        let _ = writeln!(
            out,
            "<article class=\"sample\"><h3>Step {}</h3><pre dir=\"auto\"><span class=\"prompt\">{}</span>{}</pre></article>",
            text::count(*step),
            Escaped(&prompt),
            Escaped(&text)
        );
    });
    out.push_str("</section>\n");
}

fn warnings(data: &ReportData, out: &mut String) {
    let warnings = &data.warnings;
    if warnings.n == 0 {
        return;
    }
    let _ = write!(out, "<section id=\"warnings\">\n<h2>Warnings</h2>\n");
    folded(warnings.newest.iter().rev(), "warnings", out, |(step, warning), out| {
        let _ = writeln!(
            out,
            "<p class=\"warning\"><small>Step {}</small> {}</p>",
            text::count(*step),
            Escaped(&text::shortened(warning, MAX_WARNING))
        );
    });
    let n_gone = warnings.n - warnings.newest.len() as u64;
    if n_gone > 0 {
        let _ = writeln!(out, "<p class=\"quiet\">{} older ones are not shown.</p>", text::count(n_gone));
    }
    out.push_str("</section>\n");
}

fn facts(data: &ReportData, out: &mut String) {
    out.push_str("<section>\n<h2>Run</h2>\n<div class=\"scroll\"><table>\n<tbody>\n");
    for (name, value) in &data.facts {
        let _ = writeln!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", Escaped(name), Escaped(value));
    }
    let _ = write!(
        out,
        "</tbody>\n</table></div>\n<details><summary>Configuration</summary>\n<pre class=\"config\">{}</pre></details>\n\
         </section>\n",
        Escaped(&text::shortened(&data.config, MAX_CONFIG))
    );
}
