use super::*;

fn record(step: u64) -> StepRecord {
    StepRecord {
        step,
        first_batch: 0,
        loss: 4.0 / step as f32,
        lr: 1e-3,
        grad_norm: 1.5,
        tokens: 64 * step,
        skipped: false,
        valid_loss: step.is_multiple_of(10).then_some(0.5),
        valid_metrics: BTreeMap::new(),
        tokens_per_s: 1000.0,
        rows_per_s: None,
        step_s: 0.5,
        data_wait_s: 0.001,
        elapsed_s: 0.5 * step as f64,
    }
}

fn data(n_steps: u64) -> ReportData {
    let mut curves = RunCurves::default();
    (1..=n_steps).for_each(|step| curves.push(&record(step)));
    ReportData {
        name: "tiny".to_owned(),
        status: ReportStatus::Running,
        updated: SystemTime::UNIX_EPOCH,
        refresh: Duration::from_secs(10),
        step: n_steps,
        steps: 200,
        tokens: 64 * n_steps,
        elapsed_s: 0.5 * n_steps as f64,
        remaining_s: Some(75.0),
        facts: vec![("Model".to_owned(), "gpt2".to_owned())],
        config: "[run]\nseed = 1\n".to_owned(),
        curves,
        evaluation: None,
        warnings: Warnings::default(),
        samples: Samples::default(),
    }
}

/// Checks that every element that is opened is closed, in order.
#[track_caller]
fn check_nested(page: &str) {
    const VOID: [&str; 2] = ["meta", "!DOCTYPE"];
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0]);
}

/// The one text between `before` and `after`.
#[track_caller]
fn between<'a>(page: &'a str, before: &str, after: &str) -> &'a str {
    assert_eq!(page.matches(before).count(), 1, "{before} in {page}");
    page.split(before).nth(1).unwrap().split(after).next().unwrap()
}

#[test]
fn a_page_has_its_numbers_and_nothing_from_outside() {
    for n_steps in [0, 1, 50, 200] {
        let page = render(&data(n_steps));
        check_nested(&page);
        assert!(!page.contains("<script") && !page.contains("http:") && !page.contains("https:"));
        assert!(!page.contains("src=") && !page.contains("url(") && !page.contains("@import"));
        assert_eq!(page.contains("<svg"), n_steps > 0);
    }
    let page = render(&data(50));
    assert!(page.contains("<dt>Step</dt><dd>50<small>of 200, 25 %</small>"), "{page}");
    assert!(page.contains("<dt>Training loss</dt><dd>0.08000<small>"), "{page}");
    assert!(page.contains("<dt>Validation loss</dt><dd>0.5000<small>at step 50</small>"), "{page}");
    assert!(page.contains("<dt>Time</dt><dd>25 s<small>about 1 min 15 s left</small>"), "{page}");
    assert!(page.contains("<dt>Mean throughput</dt><dd>128.0<small>"), "{page}");
    assert_eq!(between(&page, "<pre class=\"config\">", "</pre>"), "[run]\nseed = 1\n");
    for title in ["Loss", "Learning rate", "Gradient norm", "Tokens per second"] {
        assert!(page.contains(&format!("<h3>{title}</h3>")), "{title}");
    }
}

#[test]
fn only_a_running_page_loads_itself_again() {
    let refresh = "<meta http-equiv=\"refresh\" content=\"10\">";
    assert!(render(&data(50)).contains(refresh));
    let cases = [
        (ReportStatus::Finished, ">Finished<"),
        (ReportStatus::Interrupted, ">Interrupted; it can be resumed<"),
        (ReportStatus::Failed("no <space>".to_owned()), ">Failed: no &lt;space&gt;<"),
    ];
    for (status, shown) in cases {
        let page = render(&ReportData { status, ..data(50) });
        assert!(!page.contains("refresh") && page.contains(shown) && !page.contains(" left<"), "{page}");
    }
}

#[test]
fn everything_from_outside_is_escaped() {
    const EVIL: &str = "</pre></style><script>alert('x')</script><img src=x onerror=\"y\">\0&amp;";
    let mut data = ReportData {
        name: EVIL.to_owned(),
        status: ReportStatus::Failed(EVIL.to_owned()),
        facts: vec![(EVIL.to_owned(), EVIL.to_owned())],
        config: EVIL.to_owned(),
        ..data(5)
    };
    let metrics = BTreeMap::from([(EVIL.to_owned(), 0.5)]);
    data.curves.push(&StepRecord { valid_metrics: metrics, ..record(6) });
    for n_labels in [2, 30] {
        let labels = vec![EVIL.to_owned(); n_labels];
        let confusion = Some(ConfusionMatrix::new(labels, vec![1; n_labels * n_labels]));
        data.evaluation = Some(Evaluation { step: 6, values: vec![(EVIL.to_owned(), 0.5)], confusion });
        data.warnings.push(6, EVIL.to_owned());
        data.samples.push(Sample { step: 6, prompt: EVIL.to_owned(), text: EVIL.to_owned() });
        let page = render(&data);
        check_nested(&page);
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains('\0'), "{page}");
        assert!(!page.contains("onerror=\""), "{page}");
    }
}

#[test]
fn newest_samples_come_first_and_older_ones_are_folded() {
    let mut data = data(50);
    for step in 1..=7 {
        data.samples.push(Sample { step, prompt: "Once".to_owned(), text: format!(" upon {step}") });
    }
    let page = render(&data);
    let first = "<h3>Step 7</h3><pre dir=\"auto\"><span class=\"prompt\">Once</span> upon 7</pre>";
    let (open, folded) = page.split_once("<details><summary>Earlier samples</summary>").unwrap();
    assert!(open.contains(first) && open.contains("Step 3<") && !open.contains("<h3>Step 2<"), "{page}");
    assert!(folded.contains("<h3>Step 2<") && folded.contains("<h3>Step 1<"));
}

#[test]
fn samples_and_warnings_stay_bounded() {
    let mut data = data(50);
    for step in 0..10_000 {
        data.samples.push(Sample { step, prompt: String::new(), text: "x".repeat(10_000) });
        data.warnings.push(step, "y".repeat(10_000));
    }
    let steps: Vec<_> = data.samples.kept.iter().map(|sample| sample.step).collect();
    assert!(steps.len() <= MAX_SAMPLES && steps[0] == 0 && steps.last() == Some(&9999), "{steps:?}");
    assert!(steps.is_sorted());
    let page = render(&data);
    assert!(page.contains("10\u{202f}000 warnings") && page.contains("9800 older ones are not shown"));
    assert!(page.len() < 700_000, "{}", page.len());
    data.samples.truncate(5000);
    assert!(data.samples.kept.iter().all(|sample| sample.step <= 5000));
}

#[test]
fn a_small_confusion_matrix_is_a_table() {
    let labels = ["cat", "dog"].map(str::to_owned).to_vec();
    let confusion = Some(ConfusionMatrix::new(labels, vec![3, 1, 0, 0]));
    let evaluation = Evaluation { step: 50, values: vec![("accuracy".to_owned(), 0.75)], confusion };
    let page = render(&ReportData { evaluation: Some(evaluation), ..data(50) });
    check_nested(&page);
    assert!(page.contains("<h2>Evaluation at step 50</h2>"), "{page}");
    assert!(
        page.contains("<tr><th scope=\"row\">accuracy</th><td class=\"number\">0.7500</td></tr>"),
        "{page}"
    );
    let rows = "<tr><th scope=\"row\">cat</th><td class=\"right\" style=\"--share:0.750\">3</td>\
                <td style=\"--share:0.250\">1</td></tr>\n\
                <tr><th scope=\"row\">dog</th><td style=\"--share:0.000\">0</td>\
                <td class=\"right\" style=\"--share:0.000\">0</td></tr>";
    assert!(page.contains(rows), "{page}");
}

#[test]
fn a_large_confusion_matrix_is_drawn_and_its_worst_pairs_are_listed() {
    let n = 77;
    let labels: Vec<_> = (0..n).map(|index| format!("label {index}")).collect();
    let mut counts = vec![0; n * n];
    (0..n).for_each(|index| counts[index * n + index] = 40);
    counts[5 * n + 6] = 9;
    counts[7 * n + 1] = 4;
    let confusion = Some(ConfusionMatrix::new(labels, counts));
    let page = render(&ReportData {
        evaluation: Some(Evaluation { confusion, ..Evaluation::default() }),
        ..data(50)
    });
    check_nested(&page);
    assert_eq!(page.matches("<rect").count(), n + 2);
    assert!(page.contains("Confusion matrix of 77 labels; 3080 of 3093 predictions are right"), "{page}");
    let list = between(&page, "Most frequent confusions</caption>", "</table>");
    let rows: Vec<_> = list.lines().filter(|line| line.starts_with("<tr><td>")).collect();
    assert_eq!(rows[0], "<tr><td>label 5</td><td>label 6</td><td class=\"number\">9</td></tr>");
    assert_eq!(rows[1], "<tr><td>label 7</td><td>label 1</td><td class=\"number\">4</td></tr>");
    assert_eq!(rows.len(), 2);
}

#[test]
fn a_confusion_matrix_of_any_size_stays_bounded() {
    for n in [0, 1, 20, 21, 160, 161, 1000] {
        let labels: Vec<_> = (0..n).map(|index| format!("{index}").repeat(100)).collect();
        let confusion = Some(ConfusionMatrix::new(labels, vec![1; n * n]));
        let evaluation = Some(Evaluation { confusion, ..Evaluation::default() });
        let page = render(&ReportData { evaluation, ..data(1) });
        check_nested(&page);
        assert!(page.len() < 6_000_000, "{n}: {}", page.len());
    }
}

#[test]
fn validation_metrics_get_charts_up_to_a_bound() {
    let mut data = data(5);
    for step in 6..=7 {
        let metrics = (0..20).map(|index| (format!("metric {index:02}"), 0.5)).collect();
        data.curves.push(&StepRecord { valid_metrics: metrics, ..record(step) });
    }
    let page = render(&data);
    check_nested(&page);
    assert!(page.contains("<h3>metric 00</h3>") && page.contains("<h3>metric 11</h3>"));
    assert!(!page.contains("<h3>metric 12</h3>"));
    let mut ids: Vec<_> = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let n_ids = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), n_ids);
}
