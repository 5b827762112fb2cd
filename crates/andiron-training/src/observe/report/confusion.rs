//! Confusion matrices: what a classifier took for what.

use std::fmt::Write as _;

use andiron_page::text::{self, Escaped};

/// Labels up to which the matrix is a table of numbers.
const MAX_TABLE: usize = 20;

/// Labels up to which the matrix is drawn.
const MAX_DRAWN: usize = 160;

/// Rows of the list of confusions.
const MAX_LISTED: usize = 12;

/// Characters of a label.
const MAX_LABEL: usize = 40;

/// How often each label was predicted for each label.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConfusionMatrix {
    labels: Vec<String>,
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// A matrix of `counts`, row-major: a row for each true label, a column for each predicted one.
    ///
    /// # Panics
    /// If there are not as many counts as pairs of labels.
    pub fn new(labels: Vec<String>, counts: Vec<u64>) -> Self {
        assert_eq!(counts.len(), labels.len() * labels.len(), "a count for each pair of labels");
        Self { labels, counts }
    }

    /// The matrix of pairs of a true label and a predicted one.
    ///
    /// # Panics
    /// If there is no such label.
    pub fn of_pairs(labels: &[String], pairs: &[(u32, u32)]) -> Self {
        let mut counts = vec![0; labels.len() * labels.len()];
        for &(label, predicted) in pairs {
            assert!((predicted as usize) < labels.len(), "label {predicted} of {}", labels.len());
            counts[label as usize * labels.len() + predicted as usize] += 1;
        }
        Self { labels: labels.to_vec(), counts }
    }

    /// The labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The counts, row-major: a row for each true label.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The counts by true label.
    fn rows(&self) -> impl Iterator<Item = (usize, &[u64])> {
        self.counts.chunks(self.labels.len().max(1)).enumerate()
    }

    fn label(&self, index: usize) -> String {
        text::shortened(&self.labels[index], MAX_LABEL)
    }

    /// Appends the matrix in the form that suits its size, and its most frequent confusions.
    pub(super) fn render(&self, out: &mut String) {
        out.push_str("<div class=\"beside\">\n");
        let n = self.labels.len();
        if n <= MAX_TABLE {
            self.table(out);
        } else {
            if n <= MAX_DRAWN {
                self.heat(out);
            }
            self.list(out);
        }
        out.push_str("</div>\n");
    }

    fn table(&self, out: &mut String) {
        out.push_str("<div class=\"scroll\"><table class=\"confusion\">\n<caption class=\"quiet\">Rows: true label. Columns: predicted label. \
             Shade: share of the row.</caption>\n<thead><tr><td></td>");
        for index in 0..self.labels.len() {
            let _ = write!(out, "<th scope=\"col\">{}</th>", Escaped(&self.label(index)));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for (row, counts) in self.rows() {
            let _ = write!(out, "<tr><th scope=\"row\">{}</th>", Escaped(&self.label(row)));
            for (column, &count) in counts.iter().enumerate() {
                let class = if row == column { " class=\"right\"" } else { "" };
                let _ = write!(
                    out,
                    "<td{class} style=\"--share:{:.3}\">{}</td>",
                    share(count, counts),
                    text::count(count)
                );
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div>\n");
    }

    fn heat(&self, out: &mut String) {
        let n = self.labels.len();
        let _ = write!(
            out,
            "<figure class=\"chart\"><figcaption><span class=\"quiet\">From top to bottom: true label. From left to right: \
             predicted label. Shade: share of the row.</span></figcaption>\n<svg class=\"heat\" viewBox=\"0 0 {n} {n}\" \
             width=\"620\" role=\"img\" aria-label=\"Confusion matrix of {n} labels; {} of {} predictions are right\">\n",
            text::count(self.n_right()),
            text::count(self.counts.iter().sum())
        );
        for (is_right, class) in [(false, ""), (true, " class=\"right\"")] {
            let _ = write!(out, "<g{class}>");
            for (row, counts) in self.rows() {
                let shown = counts.iter().enumerate();
                for (column, &count) in
                    shown.filter(|&(column, &count)| count > 0 && (row == column) == is_right)
                {
                    let _ = write!(
                        out,
                        "<rect x=\"{column}\" y=\"{row}\" width=\"1\" height=\"1\" fill-opacity=\"{:.2}\"><title>{} → {}: {}</title>\
                         </rect>",
                        0.2 + 0.8 * share(count, counts),
                        Escaped(&self.label(row)),
                        Escaped(&self.label(column)),
                        text::count(count)
                    );
                }
            }
            out.push_str("</g>\n");
        }
        out.push_str("</svg></figure>\n");
    }

    /// The most frequent confusions.
    fn list(&self, out: &mut String) {
        let mut wrong: Vec<_> = self
            .rows()
            .flat_map(|(row, counts)| {
                counts.iter().enumerate().map(move |(column, &count)| (count, row, column))
            })
            .filter(|&(count, row, column)| count > 0 && row != column)
            .collect();
        wrong.sort_unstable_by_key(|&(count, row, column)| (std::cmp::Reverse(count), row, column));
        if wrong.is_empty() {
            return;
        }
        out.push_str(
            "<table>\n<caption class=\"quiet\">Most frequent confusions</caption>\n<thead><tr><th scope=\"col\">true</th>\
             <th scope=\"col\">predicted</th><th scope=\"col\" class=\"number\">count</th></tr></thead>\n<tbody>\n",
        );
        for &(count, row, column) in wrong.iter().take(MAX_LISTED) {
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td></tr>",
                Escaped(&self.label(row)),
                Escaped(&self.label(column)),
                text::count(count)
            );
        }
        out.push_str("</tbody></table>\n");
    }

    fn n_right(&self) -> u64 {
        self.rows().map(|(row, counts)| counts[row]).sum()
    }
}

/// `count` as a share of its row.
fn share(count: u64, row: &[u64]) -> f64 {
    let total: f64 = row.iter().map(|&count| count as f64).sum();
    if total > 0.0 { count as f64 / total } else { 0.0 }
}
