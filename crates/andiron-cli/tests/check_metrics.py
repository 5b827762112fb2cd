#!/usr/bin/env python3
"""Compares `andiron metric` with sacrebleu, rouge_score, scikit-learn, SciPy, seqeval and pytrec_eval on fresh random rows.

    python check_metrics.py [SEED]

Not part of `cargo test`, because it needs Python with those packages. Builds the program, makes rows from a seed (a new one each time,
which is printed), and fails at the first value, signature or count that differs.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytrec_eval
import scipy.stats
import seqeval.metrics
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest
from seqeval.scheme import IOB2
from sklearn import metrics as sk

ROOT = Path(__file__).resolve().parents[3]
WORDS = (ROOT / "examples/data/shakespeare.txt").read_text(encoding="utf-8")[:200_000].split()
ODD = ["한국어", "문장입니다.", "我爱", "北京", "é", "e\u0301", "3,000.5", "1-2", "(a)", "...", "$5", "😀", "&amp;", "<skipped>", "the", "\n"]
ROWS = 300


def text(rng):
    """A text of words, odd words and now and then random characters."""
    def word():
        if rng.random() < 0.7:
            return rng.choice(WORDS)
        if rng.random() < 0.9:
            return rng.choice(ODD)
        # Characters that were assigned long ago: newer ones have other categories in older tables.
        c = chr(rng.choice([rng.randrange(0x20, 0x2FF), rng.randrange(0x20, 0x3000), rng.randrange(0x3000, 0xD800)]))
        return c if unicodedata.category(c) != "Cn" else "?"

    return " ".join(word() for _ in range(rng.choice([0, 1, 2, 3, 5, 10, 20, 40])))


def changed(rng, text):
    words = [rng.choice(WORDS) if rng.random() < 0.3 else word for word in text.split(" ")]
    if rng.random() < 0.3:
        at = rng.randrange(len(words))
        words = words[at:] + words[:at]
    return " ".join(words)


class Program:
    def __init__(self, directory):
        build = ["cargo", "build", "--release", "--quiet", "--package", "andiron-cli", "--features", "ndarray"]
        if not os.environ.get("ANDIRON_PROGRAM"):
            subprocess.run(build, cwd=ROOT, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.path = os.environ.get("ANDIRON_PROGRAM", target / "release/andiron")
        self.directory = Path(directory)
        self.compared = 0

    def metric(self, name, rows, *flags):
        """The report on `rows`, and the scores of each row."""
        path, each = self.directory / "rows.jsonl", self.directory / "each.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        command = [self.path, "metric", name, "--rows", path, "--each", each, "--resamples", "10", "--json", *flags]
        ran = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if ran.returncode:
            sys.exit(f"{name} {flags}: {ran.stderr}")
        return json.loads(ran.stdout), [json.loads(line) for line in each.read_text().splitlines()]

    def equal(self, found, expected, what):
        self.compared += 1
        found = float("nan") if found is None else found
        if not np.isclose(found, float(expected), rtol=1e-9, atol=1e-9, equal_nan=True):
            sys.exit(f"{what}: Andiron gives {found}, the reference {expected}")


def check_texts(rng, program):
    rows = []
    for _ in range(ROWS):
        references = [text(rng) for _ in range(rng.choice([1, 1, 2, 3]))]
        prediction = changed(rng, rng.choice(references)) if rng.random() < 0.9 else text(rng)
        rows.append({"prediction": prediction, "references": references})
    predictions = [row["prediction"] for row in rows]
    streams = [[row["references"][i] if i < len(row["references"]) else None for row in rows] for i in range(3)]

    def check(name, metric, *flags):
        report, each = program.metric(name, rows, *flags)
        corpus = metric.corpus_score(predictions, streams)
        program.equal(report["value"], corpus.score, (name, flags))
        assert report["signature"] == str(metric.get_signature()), (report["signature"], metric.get_signature())
        for row, found in zip(rows, each):
            expected = metric.sentence_score(row["prediction"], row["references"]).score
            program.equal(found[name], expected, (name, flags, row))

    for tokenizer in ("13a", "intl", "char", "zh", "none"):
        check("bleu", BLEU(tokenize=tokenizer, force=True), "--tokenize", tokenizer)
    check("bleu", BLEU(lowercase=True, effective_order=True, force=True), "--lowercase", "--effective-order")
    check("bleu", BLEU(smooth_method="none", force=True), "--smooth", "none")
    check("bleu", BLEU(smooth_method="floor", force=True), "--smooth", "floor")
    check("bleu", BLEU(smooth_method="add-k", smooth_value=0.3, force=True), "--smooth", "add-k", "--smooth-value", "0.3")
    check("chrf", CHRF())
    check("chrf", CHRF(word_order=2), "--word-order", "2")
    check("chrf", CHRF(lowercase=True, whitespace=True, eps_smoothing=True), "--lowercase", "--whitespace", "--eps-smoothing")

    # More rows: shifts are decided by many rules.
    pairs = []
    for _ in range(1000):
        reference = text(rng)
        pairs.append({"prediction": changed(rng, reference) if rng.random() < 0.9 else text(rng), "references": [reference]})
    own = rows
    for rows, predictions, streams in ((own, predictions, streams), (
            pairs, [row["prediction"] for row in pairs], [[row["references"][0] for row in pairs]])):
        check("ter", TER())
        check("ter", TER(normalized=True, case_sensitive=True), "--normalized", "--case-sensitive")
        check("ter", TER(no_punct=True), "--no-punctuation")
        check("ter", TER(normalized=True, no_punct=True, asian_support=True), "--normalized", "--no-punctuation", "--asian-support")
    rows = own

    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    for flags in ((), ("--stemmer",)):
        scorer = rouge_scorer.RougeScorer(kinds, use_stemmer=bool(flags))
        report, each = program.metric("rouge", rows, *flags)
        scores = [scorer.score_multi(row["references"], row["prediction"]) for row in rows]
        for kind in kinds:
            program.equal(report["scores"][kind]["value"], np.mean([score[kind].fmeasure for score in scores]), (kind, flags))
            for row, found, score in zip(rows, each, scores):
                program.equal(found[kind], score[kind].fmeasure, (kind, flags, row))


def check_comparison(rng, program):
    """The paired bootstrap test; p-values come from other random numbers, so that they are equal to about 0.02."""
    references = [text(rng) + " end" for _ in range(ROWS)]
    systems = [[changed(rng, reference) for reference in references] for _ in range(3)]
    systems[2] = [a if rng.random() < 0.7 else reference for a, reference in zip(systems[1], references)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        paths = []
        for index, predictions in enumerate((systems[first], systems[second])):
            rows = [{"prediction": a, "reference": b} for a, b in zip(predictions, references)]
            paths.append(program.directory / f"system{index}.jsonl")
            paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for name, metric in (("bleu", BLEU(force=True)), ("chrf", CHRF())):
            command = [program.path, "metric", name, "--rows", paths[0], "--compare", paths[1], "--json"]
            report = json.loads(subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout)
            test = PairedTest([("a", systems[first]), ("b", systems[second])], {name: metric}, [references], test_type="bs")
            baseline, other = next(scores for key, scores in test()[1].items() if key != "System")
            program.equal(report["difference"], other.score - baseline.score, (name, first, second))
            if abs(report["p_value"] - other.p_value) > 0.1:
                sys.exit(f"{name}: p-value {report['p_value']}, sacreBLEU's {other.p_value}")


def check_labels(rng, program):
    for classes in (2, 3, 40):
        names = [rng.choice(["x", "라벨", "Ü", "10 ", "9 "]) + str(i) for i in range(classes)]
        gold = [rng.choice(names) for _ in range(ROWS)]
        predicted = [label if rng.random() < 0.5 else rng.choice(names) for label in gold]
        rows = [{"label": label, "prediction": prediction} for label, prediction in zip(gold, predicted)]
        program.equal(program.metric("accuracy", rows)[0]["value"], sk.accuracy_score(gold, predicted), "accuracy")
        program.equal(program.metric("mcc", rows)[0]["value"], sk.matthews_corrcoef(gold, predicted), "mcc")
        for average in ("macro", "micro", "weighted"):
            report, _ = program.metric("f1", rows, "--average", average)
            precision, recall, f1, _ = sk.precision_recall_fscore_support(gold, predicted, average=average, zero_division=0)
            for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
                program.equal(report["scores"][name]["value"], expected, (average, name))
        report, _ = program.metric("f1", rows, "--average", "binary", "--positive", names[0])
        program.equal(report["value"], sk.f1_score(gold, predicted, labels=[names[0]], average="macro", zero_division=0), "binary")
        report, _ = program.metric("confusion", rows)
        assert report["labels"] == sorted(set(gold + predicted)), report
        assert report["matrix"] == sk.confusion_matrix(gold, predicted).tolist(), report


def check_numbers(rng, program):
    for digits in (0, 1, 5):
        x = [round(rng.gauss(0, 2), digits) for _ in range(ROWS)]
        y = [round(value + rng.gauss(0, 2), digits) for value in x]
        rows = [{"prediction": a, "label": b} for a, b in zip(x, y)]
        for name, expected in (("pearson", scipy.stats.pearsonr(x, y)[0]), ("spearman", scipy.stats.spearmanr(x, y)[0]),
                               ("mse", sk.mean_squared_error(y, x)), ("mae", sk.mean_absolute_error(y, x))):
            program.equal(program.metric(name, rows)[0]["value"], expected, (name, digits))


def check_rankings(rng, program):
    names = [f"d{i}" for i in range(30)] + ["é", "문서", "Z"]
    queries = []
    for _ in range(ROWS):
        documents = rng.sample(names, rng.randrange(1, 25))
        scores = {name: rng.choice([0.1, 0.3, 0.3 + 1e-9, round(rng.random(), 2), rng.random()]) for name in documents}
        queries.append({"scores": scores, "gold": {name: rng.choice([-1, 0, 1, 1, 2, 5]) for name in rng.sample(names, rng.randrange(1, 9))}})
    measures = {"ndcg": ("ndcg",), "ndcg_cut_5": ("ndcg", "--k", "5"), "map": ("map",), "map_cut_5": ("map", "--k", "5"),
                "recip_rank": ("mrr",), "recall_5": ("recall", "--k", "5"), "P_10": ("precision",)}
    evaluator = pytrec_eval.RelevanceEvaluator(
        {str(i): query["gold"] for i, query in enumerate(queries)}, {"ndcg", "ndcg_cut.5", "map", "map_cut.5", "recip_rank", "recall.5", "P.10"})
    results = evaluator.evaluate({str(i): query["scores"] for i, query in enumerate(queries)})
    for key, (name, *flags) in measures.items():
        report, each = program.metric(name, queries, *flags)
        expected = [results[str(i)][key] for i in range(ROWS)]
        program.equal(report["value"], np.mean(expected), key)
        for query, found, value in zip(queries, each, expected):
            program.equal(found[name], value, (key, query))


def check_tags(rng, program):
    tags = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-사람"]
    gold = [[rng.choice(tags) for _ in range(rng.randrange(1, 20))] for _ in range(ROWS)]
    predicted = [[tag if rng.random() < 0.7 else rng.choice(tags) for tag in row] for row in gold]
    rows = [{"label": label, "prediction": prediction} for label, prediction in zip(gold, predicted)]
    for flags, mode in (((), {}), (("--strict",), {"mode": "strict", "scheme": IOB2})):
        for average in ("micro", "macro", "weighted"):
            report, _ = program.metric("seqeval", rows, "--average", average, *flags)
            for name in ("precision", "recall", "f1"):
                score = getattr(seqeval.metrics, name + "_score")
                program.equal(report["scores"][name]["value"], score(gold, predicted, average=average, zero_division=0, **mode), (flags, average, name))


def main():
    warnings.filterwarnings("ignore")
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as directory:
        program = Program(directory)
        for check in (check_texts, check_comparison, check_labels, check_numbers, check_rankings, check_tags):
            check(random.Random(seed), program)
    print(f"{program.compared} values are equal")


if __name__ == "__main__":
    main()
