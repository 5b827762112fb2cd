use std::collections::BTreeMap;
use std::fs;

use andiron_files::fault::{Fault, with_fault};

use super::*;

#[derive(Default)]
struct Heard {
    warnings: Vec<String>,
    steps: Vec<u64>,
}

impl Observer for Heard {
    fn on_step(&mut self, record: &StepRecord) {
        self.steps.push(record.step);
    }

    fn on_warning(&mut self, warning: &Warning) {
        self.warnings.push(warning.with_causes());
    }
}

fn step(step: u64) -> StepRecord {
    StepRecord {
        step,
        first_batch: 0,
        loss: 4.0 / step as f32,
        lr: 1e-3,
        grad_norm: 1.5,
        tokens: 64 * step,
        skipped: false,
        valid_loss: None,
        valid_metrics: BTreeMap::new(),
        tokens_per_s: 1000.0,
        rows_per_s: None,
        step_s: 0.5,
        data_wait_s: 0.001,
        elapsed_s: 0.5 * step as f64,
    }
}

fn record<'a>(directory: &Path, observer: &'a mut dyn Observer) -> RunRecord<'a> {
    let facts = RunFacts {
        name: "tiny".to_owned(),
        facts: vec![("Model".to_owned(), "gpt2".to_owned())],
        config: "[run]\n".to_owned(),
        log_every: 1,
    };
    RunRecord::new(directory, facts, observer)
}

fn start(steps: u64) -> RunStart {
    RunStart {
        steps,
        resumed_from: None,
        n_parameters: 1_234_567,
        tokens_per_step: 64,
        rows_per_step: None,
        unit: "tokens",
    }
}

fn page(directory: &Path) -> String {
    fs::read_to_string(directory.join(REPORT)).unwrap()
}

fn n_lines(directory: &Path, name: &str) -> usize {
    fs::read_to_string(directory.join(name)).unwrap().lines().count()
}

#[test]
fn a_run_leaves_metrics_events_and_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let mut record = record(dir.path(), &mut heard);
    record.open(0).unwrap();
    record.on_start(&start(3));
    assert!(page(dir.path()).contains("Running") && page(dir.path()).contains("1\u{202f}234\u{202f}567"));
    (1..=3).for_each(|number| record.on_step(&step(number)));
    record.on_sample(&Sample { step: 3, prompt: "a".to_owned(), text: "sample of 3".to_owned() });
    record.sync().unwrap();
    record.end(ReportStatus::Finished);
    let page = page(dir.path());
    assert!(
        page.contains("Finished") && page.contains("sample of 3") && page.contains("of 3, 100 %"),
        "{page}"
    );
    assert_eq!((n_lines(dir.path(), METRICS), n_lines(dir.path(), LOG)), (3, 1));
    assert_eq!((heard.steps, heard.warnings), (vec![1, 2, 3], vec![]));
    let names = files::list(dir.path()).unwrap();
    assert_eq!(names, ["log.jsonl", "metrics.jsonl", "report.html", "tensorboard"]);
}

#[test]
fn lines_are_as_often_as_configured_and_where_something_was_measured() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let facts = RunFacts { log_every: 4, ..RunFacts::default() };
    let mut record = RunRecord::new(dir.path(), facts, &mut heard);
    record.open(0).unwrap();
    record.on_start(&start(11));
    for number in 1..=11 {
        let valid_metrics = if number == 6 { [("accuracy".to_owned(), 0.5)].into() } else { BTreeMap::new() };
        record.on_step(&StepRecord {
            valid_loss: (number == 3).then_some(1.0),
            valid_metrics,
            ..step(number)
        });
    }
    let lines = fs::read_to_string(dir.path().join(METRICS)).unwrap();
    let steps: Vec<_> = lines.lines().map(|line| line.split([':', ',']).nth(1).unwrap()).collect();
    assert_eq!(steps, ["3", "4", "6", "8", "11"]);
    assert_eq!(heard.steps.len(), 11);
}

#[test]
fn a_resumed_run_goes_on_with_its_curves_warnings_and_samples() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let mut first = record(dir.path(), &mut heard);
    first.open(0).unwrap();
    first.on_start(&start(10));
    for number in 1..=6 {
        first.on_step(&step(number));
        first.on_sample(&Sample { step: number, prompt: String::new(), text: format!("sample {number}") });
    }
    first.on_warning(&Warning::Skipped { step: 5, loss: f32::NAN, grad_norm: 1.0 });
    drop(first);

    let mut second = record(dir.path(), &mut heard);
    // As when a checkpoint turns out to be damaged, before it is known where the run goes on.
    second.on_warning(&Warning::RolledBack { to: 4, count: 1 });
    second.open(4).unwrap();
    second.on_start(&start(10));
    let page_at_start = page(dir.path());
    assert!(
        page_at_start.contains("of 10, 40 %") && page_at_start.contains("lowest 1.000 at step 4."),
        "{page_at_start}"
    );
    assert!(page_at_start.contains("sample 4") && !page_at_start.contains("sample 5"), "{page_at_start}");
    assert!(
        page_at_start.contains("step 5 was skipped") && page_at_start.contains("rollback 1"),
        "{page_at_start}"
    );
    second.on_step(&step(5));
    second.end(ReportStatus::Interrupted);
    assert_eq!(n_lines(dir.path(), METRICS), 5);
    assert!(page(dir.path()).contains("lowest 0.8000 at step 5.") && page(dir.path()).contains("2 warnings"));
    assert_eq!(files::list(&dir.path().join(TENSORBOARD)).unwrap().len(), 2);
    assert_eq!(heard.warnings.len(), 2);
}

#[test]
fn a_rollback_removes_the_later_steps() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let mut record = record(dir.path(), &mut heard);
    record.open(0).unwrap();
    record.on_start(&start(10));
    (1..=6).for_each(|number| record.on_step(&step(number)));
    record.on_eval(6, &report_of(1.0));
    record.roll_back(2).unwrap();
    record.end(ReportStatus::Interrupted);
    let page = page(dir.path());
    assert!(page.contains("lowest 2.000 at step 2.") && !page.contains("Evaluation at"), "{page}");
    assert_eq!(n_lines(dir.path(), METRICS), 2);
}

fn report_of(loss: f64) -> crate::Evaluation {
    let metrics = vec![("perplexity".to_owned(), loss.exp())];
    crate::Evaluation { loss, metrics, confusion: None, n_targets: 10, unit: "tokens" }
}

#[test]
fn the_newest_evaluation_is_shown_with_its_confusion_matrix() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let mut record = record(dir.path(), &mut heard);
    record.open(0).unwrap();
    record.on_start(&start(1));
    record.on_step(&step(1));
    record.on_eval(1, &report_of(0.5));
    record.on_confusion(1, &ConfusionMatrix::new(vec!["cat".to_owned()], vec![3]));
    record.end(ReportStatus::Finished);
    let page = page(dir.path());
    assert!(
        page.contains("Final evaluation") && page.contains("perplexity</th><td class=\"number\">1.649"),
        "{page}"
    );
    assert!(page.contains("<th scope=\"col\">cat</th>"), "{page}");
}

#[test]
fn only_metrics_must_be_writable_and_each_file_is_warned_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    // In the way of all the other files.
    fs::write(dir.path().join(TENSORBOARD), "").unwrap();
    for name in [LOG, REPORT] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let mut first = record(dir.path(), &mut heard);
    first.open(0).unwrap();
    first.on_start(&start(3));
    (1..=3).for_each(|number| first.on_step(&step(number)));
    first.sync().unwrap();
    first.end(ReportStatus::Finished);
    assert_eq!(n_lines(dir.path(), METRICS), 3);
    for name in [LOG, TENSORBOARD, REPORT] {
        let n = heard.warnings.iter().filter(|warning| warning.contains(name)).count();
        assert_eq!(n, 1, "{name}: {:?}", heard.warnings);
    }
    assert_eq!(heard.warnings.len(), 3, "{:?}", heard.warnings);

    fs::remove_file(dir.path().join(METRICS)).unwrap();
    fs::create_dir(dir.path().join(METRICS)).unwrap();
    let error = record(dir.path(), &mut heard).open(0).unwrap_err();
    assert!(error.to_string().contains(METRICS), "{error}");
}

#[test]
fn a_full_disk_is_warned_of_until_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let mut record = record(dir.path(), &mut heard);
    record.open(0).unwrap();
    record.on_start(&start(100));
    record.on_step(&step(1));
    let full = |record: &mut RunRecord<'_>, number| {
        // The only operation that fails is the line of metrics.
        with_fault(Fault::once(0, 28), || record.on_step(&step(number))).0
    };
    full(&mut record, 2);
    full(&mut record, 3);
    record.on_step(&step(4));
    full(&mut record, 5);
    record.end(ReportStatus::Interrupted);
    assert_eq!(n_lines(dir.path(), METRICS), 2);
    assert_eq!(heard.warnings.len(), 2, "{:?}", heard.warnings);
    assert!(
        heard.warnings[0].starts_with("step 2 could not be recorded: cannot write"),
        "{:?}",
        heard.warnings
    );
    assert!(heard.warnings[1].starts_with("step 5 "), "{:?}", heard.warnings);
    assert_eq!(n_lines(dir.path(), LOG), 2);
}

#[test]
fn a_run_that_did_not_begin_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let mut record = record(dir.path(), &mut heard);
    record.on_warning(&Warning::Skipped { step: 1, loss: f32::NAN, grad_norm: 1.0 });
    record.end(ReportStatus::Failed("another configuration".to_owned()));
    assert_eq!(files::list(dir.path()).unwrap(), [""; 0]);
}
