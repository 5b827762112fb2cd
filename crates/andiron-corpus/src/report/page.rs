//! The page.

use std::fmt::Write as _;

use andiron_page::document;
use andiron_page::text::{self, Escaped};

use super::bars;
use super::{ClusterExample, CorpusReport, DuplicateReport, Example, NamedHistogram, Step, VocabularyReport};

const STYLE: &str = include_str!("style.css");

/// Characters of a text.
const MAX_TEXT: usize = 800;

/// Characters of a name, an id or a note.
const MAX_NAME: usize = 120;

/// Characters of the settings.
const MAX_SETTINGS: usize = 100_000;

/// Languages that have a row of their own.
const MAX_LANGUAGES: usize = 30;

/// Examples of a reason that are not folded away.
const OPEN: usize = 2;

/// The page: HTML in which everything from outside is escaped.
pub fn render(report: &CorpusReport) -> String {
    let mut out = String::with_capacity(64 << 10);
    document::begin(&report.name, STYLE, &mut out);
    header(report, &mut out);
    figures(report, &mut out);
    steps(report, &mut out);
    sources(report, &mut out);
    histograms("Lengths", "length", &report.lengths, &mut out);
    histograms("Scores of removed documents", "score", &report.scores, &mut out);
    languages(report, &mut out);
    removed(&report.removed, &mut out);
    if let Some(duplicates) = &report.duplicates {
        clusters(duplicates, &mut out);
    }
    if let Some(vocabulary) = &report.vocabulary {
        coverage(vocabulary, &mut out);
    }
    facts(report, &mut out);
    document::end(&mut out);
    out
}

fn header(report: &CorpusReport, out: &mut String) {
    let (class, verdict) = match report.imbalance() {
        None => ("", "Counts conserve: every document is accounted for".to_owned()),
        Some(problem) => (" wrong", format!("Counts do not conserve: {problem}")),
    };
    let _ = writeln!(
        out,
        "<header>\n<h1>{}</h1>\n<p><span class=\"verdict{class}\">{}</span></p>\n</header>",
        Escaped(&text::shortened(&report.name, MAX_NAME)),
        Escaped(&text::shortened(&verdict, 4 * MAX_NAME))
    );
}

/// The numbers that one looks for first.
fn figures(report: &CorpusReport, out: &mut String) {
    let (read, kept) = (report.read(), report.kept());
    out.push_str("<dl class=\"figures\">\n");
    let mut figure = |name: &str, value: &str, note: &str| {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>");
    };
    figure("Read", &text::count(read), "documents");
    figure("Kept", &text::count(kept), &format!("documents, {}", percent(kept, read)));
    figure("Removed", &text::count(read.saturating_sub(kept)), &percent(read.saturating_sub(kept), read));
    if let Some(DuplicateReport { summary, .. }) = &report.duplicates {
        let note = format!(
            "in {} cluster{}",
            text::count(summary.clusters),
            if summary.clusters == 1 { "" } else { "s" }
        );
        figure("Near-duplicates", &text::count(summary.duplicates), &note);
    }
    if let Some(vocabulary) = &report.vocabulary {
        let note = format!("of {} bytes", text::short(vocabulary.bytes as f64));
        figure("Tokens", &text::short(vocabulary.tokens as f64), &note);
        if vocabulary.tokens > 0 {
            let ratio = vocabulary.bytes as f64 / vocabulary.tokens as f64;
            figure("Bytes per token", &text::value(ratio), "on average");
        }
    }
    out.push_str("</dl>\n");
}

/// A share with a decimal, where it has one that tells it from nothing and from all.
fn percent(part: u64, of: u64) -> String {
    let share = 100.0 * part as f64 / of.max(1) as f64;
    match share {
        _ if part == 0 => "0\u{202f}%".to_owned(),
        _ if part == of => "100\u{202f}%".to_owned(),
        share if share < 0.1 => "<\u{202f}0.1\u{202f}%".to_owned(),
        share if share > 99.9 => ">\u{202f}99.9\u{202f}%".to_owned(),
        share => format!("{share:.1}\u{202f}%"),
    }
}

/// A cell with a bar.
fn bar(part: u64, of: u64, class: &str) -> String {
    let width = 100.0 * part as f64 / of.max(1) as f64;
    format!("<td class=\"share\"><i class=\"{class}\" style=\"width:{width:.2}%\"></i></td>")
}

fn steps(report: &CorpusReport, out: &mut String) {
    if report.steps.is_empty() {
        return;
    }
    out.push_str(
        "<section>\n<h2>Steps</h2>\n<div class=\"scroll\"><table class=\"full\">\n<thead><tr><th scope=\"col\">Step</th>\
         <th scope=\"col\" class=\"number\">came</th><th scope=\"col\" class=\"number\">removed</th>\
         <th scope=\"col\" class=\"number\">kept</th><th scope=\"col\"><span class=\"unseen\">Share kept of all</span></th></tr></thead>\n<tbody>\n",
    );
    let read = report.read();
    for Step { step, documents, kept, removed } in &report.steps {
        let gone: u64 = removed.values().sum();
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>{}</tr>",
            Escaped(&text::shortened(step, MAX_NAME)),
            text::count(*documents),
            text::count(gone),
            text::count(*kept),
            bar(*kept, read, "")
        );
        for (reason, count) in removed {
            let _ = writeln!(
                out,
                "<tr class=\"reason\"><th scope=\"row\">{}</th><td></td><td class=\"number\">{}</td><td class=\"number\">{}</td>{}</tr>",
                Escaped(&text::shortened(reason, MAX_NAME)),
                text::count(*count),
                percent(*count, *documents),
                bar(*count, read, "gone")
            );
        }
    }
    let (kept, gone) =
        (report.kept(), report.steps.iter().flat_map(|step| step.removed.values()).sum::<u64>());
    let sign = if kept + gone == read { "=" } else { "≠" };
    let _ = write!(
        out,
        "<tr class=\"total\"><th scope=\"row\">All: {} {sign} {} + {}</th><td class=\"number\">{}</td><td class=\"number\">{}</td>\
         <td class=\"number\">{}</td><td></td></tr>\n</tbody>\n</table></div>\n</section>\n",
        text::count(read),
        text::count(gone),
        text::count(kept),
        text::count(read),
        text::count(gone),
        text::count(kept)
    );
}

fn sources(report: &CorpusReport, out: &mut String) {
    if report.sources.is_empty() {
        return;
    }
    let all: u64 = report.sources.iter().map(|source| source.tokens).sum();
    out.push_str(
        "<section>\n<h2>Mixture</h2>\n<div class=\"scroll\"><table class=\"full\">\n<thead><tr><th scope=\"col\">Source</th>\
         <th scope=\"col\" class=\"number\">documents</th><th scope=\"col\" class=\"number\">bytes</th>\
         <th scope=\"col\" class=\"number\">tokens</th><th scope=\"col\" class=\"number\">share</th>\
         <th scope=\"col\" class=\"number\">wanted</th><th scope=\"col\" class=\"number\">repeated</th></tr></thead>\n<tbody>\n",
    );
    for source in &report.sources {
        let wanted =
            source.weight.map_or("–".to_owned(), |weight| format!("{:.1}\u{202f}%", 100.0 * weight));
        let repeats = source.repeats.map_or("–".to_owned(), |repeats| format!("{repeats:.2}\u{202f}×"));
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{wanted}</td><td class=\"number\">{repeats}</td></tr>",
            Escaped(&text::shortened(&source.name, MAX_NAME)),
            text::count(source.documents),
            text::short(source.bytes as f64),
            text::short(source.tokens as f64),
            percent(source.tokens, all)
        );
    }
    out.push_str("</tbody>\n</table></div>\n</section>\n");
}

fn histograms(title: &str, id: &str, histograms: &[NamedHistogram], out: &mut String) {
    if histograms.iter().all(|named| named.histogram.n() == 0) {
        return;
    }
    let _ = writeln!(out, "<section>\n<h2>{title}</h2>\n<div class=\"charts\">");
    for (index, NamedHistogram { name, histogram }) in histograms.iter().enumerate() {
        bars::render(&format!("{id}-{index}"), &text::shortened(name, MAX_NAME), histogram, out);
    }
    out.push_str("</div>\n</section>\n");
}

fn languages(report: &CorpusReport, out: &mut String) {
    if report.languages.is_empty() {
        return;
    }
    let all: u64 = report.languages.values().sum();
    let mut languages: Vec<_> = report.languages.iter().collect();
    languages.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    out.push_str(
        "<section>\n<h2>Languages</h2>\n<div class=\"scroll\"><table class=\"full\">\n<thead class=\"unseen\"><tr>\
         <th scope=\"col\">Language</th><th scope=\"col\">documents</th><th scope=\"col\">share</th><th></th></tr></thead>\n<tbody>\n",
    );
    for (language, count) in languages.iter().take(MAX_LANGUAGES) {
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\">{}</td>{}</tr>",
            Escaped(&text::shortened(language, MAX_NAME)),
            text::count(**count),
            percent(**count, all),
            bar(**count, all, "")
        );
    }
    out.push_str("</tbody>\n</table></div>\n");
    if let Some(rest) = languages.get(MAX_LANGUAGES..).filter(|rest| !rest.is_empty()) {
        let documents = rest.iter().map(|(_, count)| **count).sum();
        let _ = writeln!(
            out,
            "<p class=\"quiet\">{} more languages with {} documents are not shown.</p>",
            rest.len(),
            text::count(documents)
        );
    }
    out.push_str("</section>\n");
}

fn removed(examples: &[Example], out: &mut String) {
    if examples.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>What was removed</h2>\n");
    for group in examples.chunk_by(|a, b| (&a.step, &a.reason) == (&b.step, &b.reason)) {
        let Example { step, reason, .. } = &group[0];
        let (step, reason) = (text::shortened(step, MAX_NAME), text::shortened(reason, MAX_NAME));
        let title = if step == reason { reason } else { format!("{step}: {reason}") };
        let _ = writeln!(out, "<h3>{}</h3>", Escaped(&title));
        group.iter().take(OPEN).for_each(|one| example(one, out));
        if let Some(more) = group.get(OPEN..).filter(|more| !more.is_empty()) {
            let _ = writeln!(out, "<details><summary>{} more</summary>", more.len());
            more.iter().for_each(|one| example(one, out));
            out.push_str("</details>\n");
        }
    }
    out.push_str("</section>\n");
}

fn example(example: &Example, out: &mut String) {
    let mut notes = String::new();
    if let Some(score) = example.score {
        let _ = write!(notes, " · score {}", text::value(score));
    }
    if let Some(note) = &example.note {
        let _ = write!(notes, " · {}", text::shortened(note, MAX_NAME));
    }
    sample(&example.id, &notes, &example.text, out);
}

/// A document: its id, something about it, and the beginning of its text.
fn sample(id: &str, notes: &str, content: &str, out: &mut String) {
    let content = if content.is_empty() {
        "<span class=\"quiet\">no text</span>".to_owned()
    } else {
        Escaped(&text::shortened(content, MAX_TEXT)).to_string()
    };
    let _ = writeln!(
        out,
        "<article class=\"sample\"><h3><b>{}</b>{}</h3><pre dir=\"auto\" tabindex=\"0\">{content}</pre></article>",
        Escaped(&text::shortened(id, MAX_NAME)),
        Escaped(notes)
    );
}

fn clusters(report: &DuplicateReport, out: &mut String) {
    let summary = &report.summary;
    let _ = writeln!(
        out,
        "<section>\n<h2>Near-duplicates</h2>\n<p>{} of {} documents are like an earlier one, exact duplicates included; {} were too short to be compared.</p>",
        text::count(summary.duplicates),
        text::count(summary.documents),
        text::count(summary.too_short)
    );
    if !summary.sizes.is_empty() {
        out.push_str(
            "<div class=\"scroll\"><table class=\"full\">\n<thead><tr><th scope=\"col\">Documents of a cluster</th>\
             <th scope=\"col\" class=\"number\">clusters</th><th scope=\"col\" class=\"number\">removed</th>\
             <th scope=\"col\"><span class=\"unseen\">Share of all that were removed</span></th></tr></thead>\n<tbody>\n",
        );
        for (name, clusters, removed) in by_size(&summary.sizes) {
            let _ = writeln!(
                out,
                "<tr><th scope=\"row\">{name}</th><td class=\"number\">{}</td><td class=\"number\">{}</td>{}</tr>",
                text::count(clusters),
                text::count(removed),
                bar(removed, summary.duplicates, "gone")
            );
        }
        out.push_str("</tbody>\n</table></div>\n");
    }
    for (index, cluster) in report.examples.iter().enumerate() {
        let _ = writeln!(
            out,
            "<details{}><summary>Cluster {}: {} documents</summary>\n<div class=\"cluster\">",
            if index < OPEN { " open" } else { "" },
            cluster.cluster,
            text::count(cluster.size.into())
        );
        self::cluster(cluster, out);
        out.push_str("</div></details>\n");
    }
    out.push_str("</section>\n");
}

fn cluster(cluster: &ClusterExample, out: &mut String) {
    sample(&cluster.id, " · kept", &cluster.text, out);
    out.push_str("<div>\n");
    for other in &cluster.others {
        let similarity =
            other.similarity.map(|similarity| format!(" · similarity {similarity:.2}")).unwrap_or_default();
        sample(&other.id, &format!(" · removed{similarity}"), &other.text, out);
    }
    out.push_str("</div>\n");
}

/// Sizes of clusters in rows: 2, 3, 4, 5 to 8, 9 to 16 and so on; with the clusters and the documents removed of each.
fn by_size(sizes: &std::collections::BTreeMap<u32, u64>) -> Vec<(String, u64, u64)> {
    let mut rows: Vec<(u32, String, u64, u64)> = Vec::new();
    for (&size, &clusters) in sizes {
        let last = if size <= 4 { size } else { size.checked_next_power_of_two().unwrap_or(u32::MAX) };
        let removed = u64::from(size.saturating_sub(1)) * clusters;
        match rows.last_mut().filter(|row| row.0 == last) {
            Some(row) => (row.2, row.3) = (row.2 + clusters, row.3 + removed),
            None => {
                let name = match last {
                    0..=4 => text::count(last.into()),
                    last => {
                        format!("{} to {}", text::count(u64::from(last) / 2 + 1), text::count(last.into()))
                    }
                };
                rows.push((last, name, clusters, removed));
            }
        }
    }
    rows.into_iter().map(|(_, name, clusters, removed)| (name, clusters, removed)).collect()
}

fn coverage(vocabulary: &VocabularyReport, out: &mut String) {
    out.push_str("<section>\n<h2>Vocabulary</h2>\n<div class=\"scroll\"><table>\n<tbody>\n");
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "<tr><th scope=\"row\">{name}</th><td class=\"number\">{value}</td></tr>");
    };
    let VocabularyReport { vocab_size, used, rare, tokens, bytes, coverage } = vocabulary;
    row("Tokens of the vocabulary", text::count(*vocab_size));
    row("of these used", format!("{} ({})", text::count(*used), percent(*used, *vocab_size)));
    row("fewer than 100 times", format!("{} ({})", text::count(*rare), percent(*rare, *vocab_size)));
    row("Tokens of the corpus", text::count(*tokens));
    row("Bytes of the corpus", text::count(*bytes));
    for (share, needed) in coverage {
        let name = format!("most frequent tokens that are {} % of the text", (1000.0 * share).round() / 10.0);
        row(&name, text::count(*needed));
    }
    out.push_str("</tbody>\n</table></div>\n</section>\n");
}

fn facts(report: &CorpusReport, out: &mut String) {
    if report.facts.is_empty() && report.settings.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Run</h2>\n<div class=\"scroll\"><table>\n<tbody>\n");
    for (name, value) in &report.facts {
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
            Escaped(&text::shortened(name, MAX_NAME)),
            Escaped(&text::shortened(value, 4 * MAX_NAME))
        );
    }
    let _ = write!(
        out,
        "</tbody>\n</table></div>\n<details><summary>Settings</summary>\n<pre class=\"config\">{}</pre></details>\n</section>\n",
        Escaped(&text::shortened(&report.settings, MAX_SETTINGS))
    );
}
