//! Reports of broken rules.

/// A violation of a rule.
pub struct Problem {
    place: String,
    what: String,
}

/// Problems of one rule; [`Report::hold`] fails the test if there are any.
pub struct Report {
    rule: &'static str,
    remedy: &'static str,
    problems: Vec<Problem>,
}

impl Report {
    /// `rule` says what must hold, `remedy` how to fix a violation.
    pub fn new(rule: &'static str, remedy: &'static str) -> Self {
        Self { rule, remedy, problems: Vec::new() }
    }

    /// Adds a problem; `place` is a path, optionally with `:line`.
    pub fn add(&mut self, place: impl ToString, what: impl ToString) {
        self.problems.push(Problem { place: place.to_string(), what: what.to_string() });
    }

    /// Fails the test with all problems found.
    #[track_caller]
    pub fn hold(self) {
        if self.problems.is_empty() {
            return;
        }
        let lines: Vec<_> =
            self.problems.iter().map(|problem| format!("  {}: {}", problem.place, problem.what)).collect();
        panic!("\nrule: {}\n{}\nwhat to do: {}\n", self.rule, lines.join("\n"), self.remedy);
    }
}
