//! The page that Prometheus reads: its text format, version 0.0.4.
//!
//! Source: Prometheus, "Exposition formats", <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;

/// Before every name, unless [`Exposition::rename`] sets another one.
const PREFIX: &str = "andiron:";

/// Type of a family of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number that only grows; its name ends in `_total`.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A page in the making. All samples of a family follow its [`Exposition::family`].
#[derive(Debug)]
pub(crate) struct Exposition {
    prefix: &'static str,
    text: String,
}

impl Default for Exposition {
    fn default() -> Self {
        Self { prefix: PREFIX, text: String::new() }
    }
}

impl Exposition {
    /// The media type of a page.
    pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Sets what stands before the names of the families that follow.
    pub(crate) fn rename(&mut self, prefix: &'static str) {
        self.prefix = prefix;
    }

    /// Begins a family.
    pub(crate) fn family(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        let prefix = self.prefix;
        self.line(format_args!("# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}"));
    }

    /// Writes a sample.
    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| {
                let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
                format!("{label}=\"{value}\"")
            })
            .collect();
        let prefix = self.prefix;
        // Rust and Prometheus write finite numbers alike, and these are finite.
        match labels.is_empty() {
            true => self.line(format_args!("{prefix}{name} {value}")),
            false => self.line(format_args!("{prefix}{name}{{{}}} {value}", labels.join(","))),
        }
    }

    /// The whole page.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_help_are_escaped() {
        let mut page = Exposition::default();
        page.family(Kind::Gauge, "g", "one\\two\nthree \"four\"");
        page.sample("g", &[("a", "back\\slash"), ("b", "line\nbreak \"quoted\"")], 1.5);
        page.sample("g", &[], 0.0);
        let expected = "# HELP andiron:g one\\\\two\\nthree \"four\"\n\
                        # TYPE andiron:g gauge\n\
                        andiron:g{a=\"back\\\\slash\",b=\"line\\nbreak \\\"quoted\\\"\"} 1.5\n\
                        andiron:g 0\n";
        assert_eq!(page.into_text(), expected);
    }
}
