//! Every metric against its reference program, row by row and together; `golden/metrics.py` makes the fixture.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use andiron_eval::metric::bleu::{Bleu, BleuStats, ReferenceCount, Smoothing};
use andiron_eval::metric::bootstrap::Comparison;
use andiron_eval::metric::chrf::{Chrf, ChrfStats};
use andiron_eval::metric::classification::{Average, LabelCounts, PrecisionRecall, average, confusion};
use andiron_eval::metric::correlation::{mean_absolute_error, mean_squared_error, pearson, spearman};
use andiron_eval::metric::ranking::{Ranking, rank};
use andiron_eval::metric::rouge::{Rouge, RougeScores};
use andiron_eval::metric::seqeval::{SpanCounts, TagScheme};
use andiron_eval::metric::squad::{SquadScore, SquadVersion, squad};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The fixture has eleven digits.
const TOLERANCE: f64 = 2e-10;

fn fixture() -> Map<String, Value> {
    serde_json::from_str(include_str!("golden/metrics.json")).unwrap()
}

/// A part of the fixture.
fn part<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn texts(fixture: &Map<String, Value>) -> Vec<(String, Vec<String>)> {
    let texts: Vec<_> = part(&fixture["texts"]);
    assert!(texts.len() >= 60);
    texts
}

#[track_caller]
fn check(found: impl Into<Option<f64>>, expected: &Value, what: impl std::fmt::Debug) {
    let found = found.into();
    let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * b.abs().max(1.0);
    match (found, expected.as_f64()) {
        (Some(found), Some(expected)) => assert!(close(found, expected), "{what:?}: {found} {expected}"),
        (found, expected) => assert_eq!(found, expected, "{what:?}"),
    }
}

fn bleu_of(settings: &Value) -> Bleu {
    let value = settings["smooth_value"].as_f64();
    Bleu {
        tokenizer: settings["tokenize"].as_str().unwrap_or("13a").parse().unwrap(),
        lowercase: settings["lowercase"] == true,
        effective_order: settings["effective_order"] == true,
        smoothing: match settings["smooth_method"].as_str() {
            Some("none") => Smoothing::None,
            Some("floor") => Smoothing::Floor(value.unwrap_or(0.1)),
            Some("add-k") => Smoothing::AddK(value.unwrap_or(1.0)),
            other => {
                assert_eq!(other, None);
                Smoothing::Exp
            }
        },
    }
}

/// sacreBLEU 2.6.0.
#[test]
fn bleu_is_that_of_sacrebleu() {
    let fixture = fixture();
    let texts = texts(&fixture);
    let nrefs = ReferenceCount::of(texts.iter().map(|(_, references)| references.len()));
    let runs = fixture["bleu"].as_array().unwrap();
    assert_eq!(runs.len(), 12);
    for run in runs {
        let bleu = bleu_of(&run["settings"]);
        assert_eq!(bleu.signature(nrefs), run["signature"]);
        let stats: Vec<BleuStats> =
            texts.iter().map(|(text, references)| bleu.stats(text, references)).collect();
        for (row, (stats, text)) in stats.iter().zip(&texts).enumerate() {
            check(bleu.score(stats).score, &run["rows"][row], (&run["signature"], text));
            if let Some([prediction, reference]) = run["lengths"][row].as_array().map(Vec::as_slice) {
                assert_eq!(prediction, &stats.prediction_words, "{text:?}");
                assert_eq!(reference, &stats.reference_words, "{text:?}");
            }
        }
        let corpus = bleu.score(&stats.into_iter().sum());
        check(corpus.score, &run["corpus"], &run["signature"]);
        check(corpus.brevity_penalty, &run["bp"], &run["signature"]);
        for (n, precision) in corpus.precisions.into_iter().enumerate() {
            check(precision, &run["precisions"][n], (n, &run["signature"]));
        }
    }
}

/// sacreBLEU 2.6.0.
#[test]
fn chrf_is_that_of_sacrebleu() {
    let fixture = fixture();
    let texts = texts(&fixture);
    let nrefs = ReferenceCount::of(texts.iter().map(|(_, references)| references.len()));
    let runs = fixture["chrf"].as_array().unwrap();
    assert_eq!(runs.len(), 6);
    for run in runs {
        let settings = &run["settings"];
        let size = |key: &str| settings[key].as_u64().map(|value| value as usize);
        let chrf = Chrf {
            char_order: size("char_order").unwrap_or(6),
            word_order: size("word_order").unwrap_or(0),
            beta: size("beta").unwrap_or(2) as u32,
            lowercase: settings["lowercase"] == true,
            whitespace: settings["whitespace"] == true,
            eps_smoothing: settings["eps_smoothing"] == true,
        };
        assert_eq!((chrf.signature(nrefs), chrf.name()), (part(&run["signature"]), part(&run["name"])));
        let stats: Vec<ChrfStats> =
            texts.iter().map(|(text, references)| chrf.stats(text, references)).collect();
        for (row, stats) in stats.iter().enumerate() {
            check(chrf.score(stats), &run["rows"][row], (settings, &texts[row]));
        }
        check(chrf.score(&stats.into_iter().sum()), &run["corpus"], settings);
    }
}

/// rouge_score 0.1.2.
#[test]
fn rouge_is_that_of_google() {
    let fixture = fixture();
    let texts = texts(&fixture);
    let runs = fixture["rouge"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for run in runs {
        let rouge = Rouge { stemmer: part(&run["stemmer"]) };
        for (row, (text, references)) in texts.iter().enumerate() {
            let RougeScores { rouge1, rouge2, rouge_l, rouge_lsum } = rouge.score(text, references);
            for (kind, score) in [rouge1, rouge2, rouge_l, rouge_lsum].into_iter().enumerate() {
                let parts = [score.precision, score.recall, score.f_measure];
                for (index, found) in parts.into_iter().enumerate() {
                    check(found, &run["rows"][row][kind][index], (rouge, kind, index, text, references));
                }
            }
        }
    }
}

/// `evaluate-v1.1.py` and `evaluate-v2.0.py`, in percent.
#[test]
fn answers_are_scored_as_by_the_scripts_of_squad() {
    let fixture = fixture();
    let mut answers: Vec<(String, Vec<String>)> = part(&fixture["squad"]["answers"]);
    answers.extend(texts(&fixture));
    let rows = fixture["squad"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), answers.len());
    let mut sums = [SquadScore::default(); 4];
    let mut counts = [0.0; 4];
    for ((prediction, answers), row) in answers.iter().zip(rows) {
        let mut add = |index: usize, score: SquadScore| {
            sums[index].exact += score.exact;
            sums[index].f1 += score.f1;
            counts[index] += 1.0;
        };
        if !answers.is_empty() {
            let score = squad(SquadVersion::V1, prediction, answers);
            check(100.0 * score.exact, &row[0][0], (prediction, answers));
            check(100.0 * score.f1, &row[0][1], (prediction, answers));
            add(0, score);
        }
        let score = squad(SquadVersion::V2, prediction, answers);
        check(score.exact, &row[1][0], (prediction, answers));
        check(score.f1, &row[1][1], (prediction, answers));
        add(1, score);
        add(if answers.is_empty() { 3 } else { 2 }, score);
    }
    for (index, expected) in fixture["squad"]["together"].as_array().unwrap().iter().enumerate() {
        check(100.0 * sums[index].exact / counts[index], &expected[0], index);
        check(100.0 * sums[index].f1 / counts[index], &expected[1], index);
    }
}

#[track_caller]
fn check_scores(found: PrecisionRecall, expected: &Value, what: impl std::fmt::Debug) {
    for (index, score) in [found.precision, found.recall, found.f1].into_iter().enumerate() {
        check(score, &expected[index], (index, &what));
    }
}

const AVERAGES: [Average; 3] = [Average::Macro, Average::Micro, Average::Weighted];

/// scikit-learn 1.9.1.
#[test]
fn labels_are_scored_as_by_scikit_learn() {
    let fixture = fixture();
    let cases = fixture["classification"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let (gold, predicted): (Vec<usize>, Vec<usize>) = (part(&case["gold"]), part(&case["predicted"]));
        let pairs = || gold.iter().copied().zip(predicted.iter().copied());
        let counts = LabelCounts::new(50, pairs());
        check(counts.accuracy(), &case["accuracy"], case);
        check(counts.matthews(), &case["mcc"], case);
        for (index, how) in AVERAGES.into_iter().enumerate() {
            check_scores(counts.average(how), &case["averages"][index], (how, case));
        }
        let present = |class: &usize| gold.contains(class) || predicted.contains(class);
        let classes: Vec<usize> = (0..50).filter(present).collect();
        let table = confusion(pairs());
        for (i, label) in classes.iter().enumerate() {
            check(counts.classes()[*label].scores().f1, &case["f1"][i], (label, case));
            for (j, prediction) in classes.iter().enumerate() {
                let count = table.get(&(*label, *prediction)).copied().unwrap_or(0);
                assert_eq!(case["confusion"][i][j], count, "{label} {prediction} {case}");
            }
        }
    }
}

/// SciPy 1.17.1 and scikit-learn 1.9.1.
#[test]
fn numbers_correlate_as_in_scipy() {
    let fixture = fixture();
    let cases = fixture["correlation"].as_array().unwrap();
    assert_eq!(cases.len(), 11);
    for case in cases {
        let (x, y): (Vec<f64>, Vec<f64>) = (part(&case["x"]), part(&case["y"]));
        check(pearson(&x, &y), &case["pearson"], case);
        check(spearman(&x, &y), &case["spearman"], case);
        check(mean_squared_error(&x, &y), &case["mse"], case);
        check(mean_absolute_error(&x, &y), &case["mae"], case);
    }
}

/// pytrec-eval-terrier 0.5.11.
#[test]
fn rankings_are_scored_as_by_trec_eval() {
    let fixture = fixture();
    let fixture = &fixture["ranking"];
    let queries: Vec<(Map<String, Value>, Map<String, Value>)> = part(&fixture["queries"]);
    assert!(queries.len() >= 60);
    let measures: Vec<String> = part(&fixture["measures"]);
    let mut sums = vec![0.0; measures.len()];
    for (query, (scores, judged)) in queries.iter().enumerate() {
        let mut documents: Vec<_> = scores.iter().map(|(id, score)| (id, score.as_f64().unwrap())).collect();
        rank(&mut documents);
        let relevance = |id: &str| judged.get(id).map_or(0, |relevance| relevance.as_i64().unwrap());
        let ranking = Ranking {
            ranked: documents.iter().map(|(id, _)| relevance(id)).collect(),
            judged: judged.values().map(|relevance| relevance.as_i64().unwrap()).collect(),
        };
        for (column, measure) in measures.iter().enumerate() {
            let found = match measure.as_str() {
                "map" => ranking.average_precision(None),
                "map_cut_3" => ranking.average_precision(Some(3)),
                "ndcg" => ranking.ndcg(None),
                "ndcg_cut_3" => ranking.ndcg(Some(3)),
                "ndcg_cut_10" => ranking.ndcg(Some(10)),
                "recip_rank" => ranking.reciprocal_rank(None),
                "recall_1" => ranking.recall(1),
                "recall_3" => ranking.recall(3),
                "recall_10" => ranking.recall(10),
                "P_3" => ranking.precision(3),
                other => panic!("{other}"),
            };
            check(found, &fixture["rows"][query][column], (measure, scores, judged));
            sums[column] += found;
        }
    }
    for (column, sum) in sums.into_iter().enumerate() {
        check(sum / queries.len() as f64, &fixture["means"][column], &measures[column]);
    }
}

/// seqeval 1.2.2.
#[test]
fn spans_are_scored_as_by_seqeval() {
    let fixture = fixture();
    let fixture = &fixture["spans"];
    let rows: Vec<(Vec<String>, Vec<String>)> = part(&fixture["rows"]);
    assert!(rows.len() >= 60);
    let n_iob = part(&fixture["n_iob"]);
    for (scheme, name, rows) in
        [(TagScheme::Lenient, "lenient", &rows[..]), (TagScheme::StrictIob2, "strict", &rows[..n_iob])]
    {
        let mut together = SpanCounts::default();
        for (row, (predicted, gold)) in rows.iter().enumerate() {
            let mut counts = SpanCounts::default();
            counts.add(predicted, gold, scheme).unwrap();
            together.merge(&counts);
            let classes = counts.classes().map(|(_, counts)| counts);
            let expected = &fixture[format!("{name}_rows")][row];
            check_scores(average(classes, Average::Micro), expected, (scheme, predicted, gold));
        }
        for (index, how) in [Average::Micro, Average::Macro, Average::Weighted].into_iter().enumerate() {
            let classes = together.classes().map(|(_, counts)| counts);
            check_scores(average(classes, how), &fixture[name][index], (scheme, how));
        }
    }
}

/// sacreBLEU 2.6.0's p-value and NumPy 2.4.6's percentiles.
#[test]
fn differences_are_as_significant_as_in_sacrebleu() {
    for case in fixture()["significance"].as_array().unwrap() {
        let comparison = Comparison::of_samples(0.0, part(&case["difference"]), part(&case["differences"]));
        check(comparison.p_value, &case["p"], case);
        let [low, high] = comparison.interval.unwrap();
        check(low, &case["interval"][0], case);
        check(high, &case["interval"][1], case);
    }
}
