//! How a broken rule is told.

/// Where a rule is broken, and how.
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
    /// `rule` says what must hold, `remedy` what to do where it does not.
    pub fn new(rule: &'static str, remedy: &'static str) -> Self {
        Self { rule, remedy, problems: Vec::new() }
    }

    /// Adds a problem; `place` is a path, with `:line` where there is one.
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
