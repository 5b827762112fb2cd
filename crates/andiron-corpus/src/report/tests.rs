//! The page.

use std::collections::BTreeMap;

use super::*;

fn step(name: &str, documents: u64, removed: &[(&str, u64)]) -> Step {
    let removed: BTreeMap<String, u64> =
        removed.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect();
    let kept = documents - removed.values().sum::<u64>();
    Step { step: name.to_owned(), documents, kept, removed }
}

fn report() -> CorpusReport {
    let mut lengths = Histogram::new(Scale::Logarithmic);
    (1..2000).for_each(|length| lengths.add(f64::from(length)));
    CorpusReport {
        name: "shop <reviews>".to_owned(),
        steps: vec![
            step("read", 12_345, &[("invalid-utf8", 2)]),
            step("gopher-quality", 12_343, &[("too-few-words", 300), ("<b>", 1)]),
            step("minhash", 12_042, &[("near-duplicate", 42)]),
        ],
        lengths: vec![NamedHistogram { name: "Words".to_owned(), histogram: lengths }],
        languages: BTreeMap::from([("eng".to_owned(), 11_000), ("kor".to_owned(), 1000)]),
        removed: vec![Example {
            step: "gopher-quality".to_owned(),
            reason: "too-few-words".to_owned(),
            id: "a/\"b\".jsonl:7".to_owned(),
            score: Some(12.0),
            text: "<script>alert(1)</script>".to_owned(),
            note: None,
        }],
        duplicates: Some(DuplicateReport {
            summary: DuplicateSummary {
                documents: 12_042,
                too_short: 3,
                duplicates: 42,
                clusters: 12,
                sizes: BTreeMap::from([(2, 8), (4, 1), (7, 1), (8, 2), (12, 1)]),
                spilled_bytes: 0,
            },
            examples: vec![ClusterExample { id: "first".into(), size: 7, ..ClusterExample::default() }],
        }),
        vocabulary: Some(VocabularyReport::of_counts(&[500, 0, 300, 1, 199], 4000)),
        settings: "[[filter]]\nkind = \"c4\"".to_owned(),
        ..CorpusReport::default()
    }
}

#[test]
fn the_page_is_whole_and_loads_nothing() {
    let page = render(&report());
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    for banned in ["<script", "<link", "<img", "src=", "http:", "https:", "@import", "url("] {
        assert!(!page.contains(banned), "{banned}");
    }
    for tag in ["section", "table", "tbody", "figure", "svg", "details", "article", "dl", "pre", "div"] {
        let (opened, closed) = (
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count(),
            page.matches(&format!("</{tag}>")).count(),
        );
        assert_eq!(opened, closed, "{tag}");
        assert!(opened > 0, "{tag}");
    }
}

#[test]
fn text_from_outside_is_escaped() {
    let page = render(&report());
    for safe in [
        "shop &lt;reviews&gt;",
        "&lt;script&gt;alert(1)",
        "a/&quot;b&quot;.jsonl:7",
        "<th scope=\"row\">&lt;b&gt;",
    ] {
        assert!(page.contains(safe), "{safe}");
    }
}

#[test]
fn conservation_is_shown_and_its_lack_too() {
    let mut report = report();
    assert_eq!(report.imbalance(), None);
    let page = render(&report);
    assert!(page.contains("Counts conserve"));
    assert!(page.contains("All: 12\u{202f}345 = 345 + 12\u{202f}000"), "the sum is shown");
    report.steps[2].documents += 1;
    assert_eq!(report.imbalance().unwrap(), "minhash: 12043 documents came and 12042 are accounted for");
    report.steps[2].kept += 1;
    assert_eq!(
        report.imbalance().unwrap(),
        "gopher-quality let 12042 documents through and minhash got 12043"
    );
    assert!(render(&report).contains("class=\"verdict wrong\""));
}

#[test]
fn coverage_counts_the_most_frequent_tokens() {
    let vocabulary = VocabularyReport::of_counts(&[500, 0, 300, 1, 199], 4000);
    assert_eq!((vocabulary.used, vocabulary.rare, vocabulary.tokens), (4, 2, 1000));
    assert_eq!(vocabulary.coverage, [(0.5, 1), (0.9, 3), (0.99, 3), (0.999, 3)]);
    assert_eq!(VocabularyReport::of_counts(&[], 0).coverage[0], (0.5, 0));
}

#[test]
fn clusters_are_counted_by_size() {
    let page = render(&report());
    // 7 and 8 are one row, with 6 + 2 × 7 documents removed.
    assert!(
        page.contains("<th scope=\"row\">5 to 8</th><td class=\"number\">3</td><td class=\"number\">20</td>")
    );
    assert!(page.contains("<th scope=\"row\">9 to 16</th>"));
}

#[test]
fn an_empty_report_is_a_page_too() {
    let page = render(&CorpusReport::default());
    assert!(page.contains("<dd>0<small>documents</small></dd>"));
}

#[test]
fn reports_survive_a_file() {
    let report = report();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<CorpusReport>(&json).unwrap(), report);
}
