//! `andiron metric`: a report, scores of each row, comparisons, and what is wrong with a row.

use serde_json::{Value, json};

use crate::common::{Place, check_failure, keys, rows};

const TEXTS: &str = concat!(
    "{\"id\": 7, \"prediction\": \"The dog bit the man.\", \"references\": [\"The dog bit the man.\", \"The dog had bit it.\"]}\n",
    "\n",
    "{\"prediction\": \"It was a cat!\", \"reference\": \"It was not a cat.\"}\n",
    "{\"prediction\": \"나는 학교에 갔다.\", \"reference\": \"나는 어제 학교에 갔다.\"}\n",
);

#[track_caller]
fn check_value(report: &Value, expected: f64) {
    let value = report["value"].as_f64().unwrap_or_else(|| panic!("{report}"));
    assert!((value - expected).abs() < 5e-5, "{value} {report}");
}

/// sacreBLEU 2.6.0's BLEU and chrF, and rouge_score 0.1.2's ROUGE.
#[test]
fn texts_are_scored_together_and_row_by_row() {
    let place = Place::new();
    place.write("texts.jsonl", format!("\u{feff}{TEXTS}"));
    let report = place.json(&["metric", "bleu", "--rows", "texts.jsonl", "--resamples", "50"]);
    check_value(&report, 58.115_630_5);
    assert_eq!(
        (&report["metric"], &report["rows"], &report["resamples"]),
        (&json!("bleu"), &json!(3), &json!(50))
    );
    assert_eq!(report["signature"], "nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0");
    assert_eq!((&report["prediction_words"], &report["reference_words"]), (&json!(15), &json!(17)));
    assert!(report["standard_error"].as_f64().unwrap() > 0.0, "{report}");
    let report = place.json(&["metric", "ter", "--normalized", "--rows", "texts.jsonl"]);
    let signature = report["signature"].as_str().unwrap();
    assert!(
        signature.ends_with("|case:lc|tok:tercom|norm:yes|punct:yes|asian:no|version:2.6.0"),
        "{signature}"
    );
    assert!(report["edits"].as_u64() > Some(0) && report["value"].as_f64() > Some(0.0), "{report}");
    let report = place.json(&["metric", "chrf", "--word-order", "2", "--rows", "texts.jsonl"]);
    check_value(&report, 70.587_335_1);
    assert_eq!(report["name"], "chrF2++");
    let report = place.json(&["metric", "rouge", "--rows", "texts.jsonl"]);
    check_value(&report, 0.629_629_6);
    assert_eq!(keys(&report["scores"]), ["rouge1", "rouge2", "rougeL", "rougeLsum"]);
    let text = place.ok(&["metric", "bleu", "--rows", "texts.jsonl"]);
    assert!(
        text.starts_with("bleu ") && text.contains("signature") && text.contains("rows              3\n"),
        "{text}"
    );

    let each = ["metric", "bleu", "--effective-order", "--rows", "-", "--each", "-"];
    let ran = place.run_with_input(&each, TEXTS);
    let scores: Vec<f64> = rows(&ran.out).iter().map(|row| row["bleu"].as_f64().unwrap()).collect();
    assert_eq!(scores.len(), 3, "{ran:?}");
    assert!((scores[0] - 100.0).abs() < 1e-9 && (scores[1] - 24.736_929_5).abs() < 1e-4, "{scores:?}");
    place.ok(&["metric", "rouge", "--rows", "texts.jsonl", "--each", "each.jsonl"]);
    assert_eq!(rows(std::str::from_utf8(&place.read("each.jsonl")).unwrap())[2]["rouge1"], 0.0);
}

#[test]
fn two_systems_are_compared_on_the_same_rows() {
    let place = Place::new();
    let file = |right: fn(usize) -> bool| -> String {
        let row =
            |i: usize| json!({ "label": i % 3, "prediction": if right(i) { i % 3 } else { (i + 1) % 3 } });
        (0..100).map(|i| format!("{}\n", row(i))).collect()
    };
    place.write("first.jsonl", file(|i| i % 2 == 0));
    place.write("second.jsonl", file(|i| i % 4 != 1));
    let args = ["metric", "accuracy", "--rows", "first.jsonl", "--compare", "second.jsonl", "--seed", "3"];
    let report = place.json(&args);
    assert_eq!(
        keys(&report),
        ["metric", "rows", "value", "other", "difference", "p_value", "interval", "resamples"]
    );
    assert_eq!(
        (&report["value"], &report["other"], &report["difference"]),
        (&json!(0.5), &json!(0.75), &json!(0.25))
    );
    assert!(report["p_value"].as_f64().unwrap() < 0.01, "{report}");
    assert_eq!(place.json(&args), report);
    let text = place.ok(&["metric", "f1", "--rows", "first.jsonl", "--compare", "second.jsonl"]);
    assert!(text.contains("difference") && text.contains("precision"), "{text}");

    let same = place.json(&["metric", "accuracy", "--rows", "first.jsonl", "--compare", "first.jsonl"]);
    assert_eq!((&same["difference"], &same["p_value"]), (&json!(0.0), &json!(1.0)));

    place.write("other.jsonl", file(|i| i != 5).replace("\"label\":0", "\"label\":1"));
    let compare = |other| ["metric", "mcc", "--rows", "first.jsonl", "--compare", other];
    place.fails(&compare("other.jsonl"), 1, &["first.jsonl and other.jsonl", "row 1"]);
    place.write("short.jsonl", "{\"label\": 0, \"prediction\": 0}\n");
    place.fails(&compare("short.jsonl"), 1, &["short.jsonl", "100 and 1 rows"]);
}

/// scikit-learn 1.9.1's, SciPy 1.17.1's, pytrec_eval 0.5.11's and seqeval 1.2.2's values.
#[test]
fn labels_numbers_rankings_and_tags_are_scored() {
    let place = Place::new();
    place.write("labels.jsonl", "{\"label\": 10, \"prediction\": 9}\n{\"label\": 9, \"prediction\": 9.0}\n{\"label\": 9, \"prediction\": true}\n");
    let report = place.json(&["metric", "f1", "--rows", "labels.jsonl"]);
    check_value(&report, 1.0 / 6.0);
    assert_eq!(report["classes"].as_array().map(Vec::len), Some(3));
    let report =
        place.json(&["metric", "f1", "--average", "binary", "--positive", "9", "--rows", "labels.jsonl"]);
    check_value(&report, 0.5);
    let report = place.json(&["metric", "confusion", "--rows", "labels.jsonl"]);
    assert_eq!(
        (&report["labels"], &report["matrix"]),
        (&json!(["10", "9", "true"]), &json!([[0, 1, 0], [0, 1, 1], [0, 0, 0]]))
    );
    let table = place.ok(&["metric", "confusion", "--rows", "labels.jsonl"]);
    assert!(table.contains("\nlabel, predicted  10  9  true\n10                 0  1     0\n9 "), "{table}");
    place.write("choices.jsonl", "{\"scores\": [0.5, 2, 2], \"gold\": 1}\n{\"scores\": [-1], \"gold\": 0}\n");
    check_value(&place.json(&["metric", "accuracy", "--rows", "choices.jsonl"]), 1.0);

    place.write("numbers.jsonl", "{\"prediction\": 1, \"label\": 2}\n{\"prediction\": 1, \"label\": 4}\n{\"prediction\": 3.5, \"label\": 3}\n");
    check_value(&place.json(&["metric", "spearman", "--rows", "numbers.jsonl"]), 0.0);
    check_value(&place.json(&["metric", "mse", "--rows", "numbers.jsonl"]), 10.25 / 3.0);
    place.write("equal.jsonl", "{\"prediction\": 1, \"label\": 2}\n{\"prediction\": 1, \"label\": 4}\n");
    assert_eq!(place.json(&["metric", "pearson", "--rows", "equal.jsonl"])["value"], Value::Null);
    assert!(place.ok(&["metric", "pearson", "--rows", "equal.jsonl"]).contains("undefined"));

    place.write(
        "queries.jsonl",
        concat!(
            "{\"scores\": {\"a\": 0.5, \"b\": 0.5, \"c\": 0.1}, \"gold\": {\"a\": 1, \"z\": 2}}\n",
            "{\"ranking\": [\"x\", \"y\"], \"gold\": [\"y\"]}\n",
            "{\"scores\": [0.3, 0.3, 0.2], \"gold\": [0, 1, 0]}\n",
        ),
    );
    check_value(&place.json(&["metric", "mrr", "--rows", "queries.jsonl"]), (0.5 + 0.5 + 1.0) / 3.0);
    check_value(&place.json(&["metric", "recall", "--k", "1", "--rows", "queries.jsonl"]), 1.0 / 3.0);

    place.write(
        "tags.jsonl",
        "{\"prediction\": [\"I-A\", \"O\", \"B-B\"], \"label\": [\"B-A\", \"O\", \"B-C\"]}\n",
    );
    check_value(&place.json(&["metric", "seqeval", "--rows", "tags.jsonl"]), 0.5);
    check_value(&place.json(&["metric", "seqeval", "--strict", "--rows", "tags.jsonl"]), 0.0);

    place.write("answers.jsonl", "{\"prediction\": \"\", \"references\": []}\n{\"prediction\": \"the cat sat\", \"references\": [\"a cat\"]}\n");
    let report = place.json(&["metric", "squad-v2", "--rows", "answers.jsonl"]);
    check_value(&report, 50.0);
    assert_eq!(report["no_answer"], json!({ "exact_match": 100.0, "f1": 100.0, "rows": 1 }));
}

#[test]
fn perplexity_reads_what_score_writes() {
    let place = Place::with_model();
    place.write("texts.jsonl", "{\"text\": \"The castle\"}\n{\"text\": \"my lord\"}\n");
    place.ok(&[
        "predict",
        "--model",
        "run/model",
        "--task",
        "score",
        "-i",
        "texts.jsonl",
        "-o",
        "scored.jsonl",
    ]);
    let report = place.json(&["metric", "perplexity", "--rows", "scored.jsonl"]);
    let scored = rows(std::str::from_utf8(&place.read("scored.jsonl")).unwrap());
    let sum: f64 = scored.iter().map(|row| row["sum_logprob"].as_f64().unwrap()).sum();
    assert_eq!(report["tokens"], 9 + 6);
    check_value(&report, (-sum / 15.0).exp());
    let bits = report["scores"]["bits_per_byte"]["value"].as_f64().unwrap();
    let bytes = report["bytes"].as_f64().unwrap();
    assert!((bits + sum / bytes / std::f64::consts::LN_2).abs() < 1e-9, "{report}");
}

#[test]
fn metrics_are_listed() {
    let place = Place::new();
    let listed = place.json(&["metric", "--list"]);
    assert_eq!(listed["metrics"].as_array().map(Vec::len), Some(21));
    assert!(place.ok(&["metric", "--list"]).contains("sacreBLEU 2.6.0"));
    place.fails(&["metric", "blue", "--rows", "x"], 2, &["blue", "bleu"]);
}

#[test]
fn a_row_that_cannot_be_read_is_named() {
    let place = Place::new();
    place.write("empty.jsonl", "\n\n");
    place.fails(&["metric", "bleu", "--rows", "empty.jsonl"], 1, &["empty.jsonl has no rows"]);
    place.fails(&["metric", "bleu", "--rows", "missing.jsonl"], 1, &["cannot read missing.jsonl"]);
    for (metric, row, names) in [
        ("bleu", "{\"prediction\": \"a\"", &["not JSON"] as &[_]),
        ("bleu", "[]", &["expected a JSON object"]),
        ("bleu", "{\"references\": [\"a\"]}", &["no prediction"]),
        ("bleu", "{\"prediction\": \"a\"}", &["references", "reference"]),
        ("chrf", "{\"prediction\": \"a\", \"references\": []}", &["references is empty"]),
        ("rouge", "{\"prediction\": 3, \"reference\": \"a\"}", &["prediction is not a text"]),
        ("squad", "{\"prediction\": \"a\", \"references\": \"a\"}", &["references is not a list of texts"]),
        ("squad-v2", "{\"prediction\": \"a\", \"reference\": \"a\", \"references\": []}", &["not both"]),
        ("accuracy", "{\"prediction\": [], \"label\": 1}", &["prediction is not a label"]),
        ("f1", "{\"scores\": [1, 2], \"gold\": 2}", &["gold is 2"]),
        ("mcc", "{\"scores\": [], \"gold\": 0}", &["scores is not"]),
        ("pearson", "{\"prediction\": \"1\", \"label\": 1}", &["prediction is not a number"]),
        ("ndcg", "{\"scores\": [1, 2], \"gold\": [1]}", &["1 values for 2 scores"]),
        ("mrr", "{\"ranking\": [\"a\", \"a\"], \"gold\": [\"a\"]}", &["\"a\" twice"]),
        ("map", "{\"gold\": [\"a\"]}", &["neither scores nor ranking"]),
        ("recall", "{\"scores\": {\"a\": 1}, \"gold\": {\"a\": 0.5}}", &["gold is neither"]),
        (
            "seqeval",
            "{\"prediction\": [\"O\"], \"label\": [\"O\", \"O\"]}",
            &["1 tags are predicted where 2"],
        ),
        ("perplexity", "{\"sum_logprob\": -1}", &["none of tokens"]),
    ] {
        let good = "{\"prediction\": \"a\", \"reference\": \"a\"}\n";
        // The good row is of texts; other metrics meet their bad row first.
        let texts = ["bleu", "chrf", "ter", "rouge", "squad", "squad-v2"].contains(&metric);
        place.write("rows.jsonl", if texts { format!("{good}\n{row}\n") } else { format!("\n\n{row}\n") });
        let ran = place.run(&["metric", metric, "--rows", "rows.jsonl"]);
        check_failure(&ran, 1, &[&["rows.jsonl:3: "], names].concat());
    }
    for (flags, names) in [
        (&["bleu", "--tokenize", "ko-mecab"] as &[_], &["ko-mecab", "Korean dictionary"] as &[_]),
        (&["bleu", "--smooth-value", "1"], &["--smooth floor"]),
        (&["f1", "--average", "binary"], &["--positive"]),
        (&["recall", "--k", "0"], &["--k"]),
    ] {
        place.fails(&[&["metric"], flags, &["--rows", "empty.jsonl"]].concat(), 2, names);
    }
}
