#!/usr/bin/env python3
"""Alternates `andiron metric` with sacrebleu and rouge_score on the same pairs and prints a table of medians.

    python3 metrics.py --andiron PROGRAM [--pairs 100000] [--rounds 3] [--only NAME]

Needs the packages sacrebleu and rouge-score. Pairs are made from the lines of the shipped text: a reference of 15 to 40 words, and a
prediction in which one word of five is another, in places moved. Andiron's times are of the whole program, which also reads and parses the
JSONL file; the peer's are of the scoring call alone, on lists in memory, in a process that has imported everything.
"""

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def pairs(count):
    rng = random.Random(1)
    words = (ROOT / "examples/data/shakespeare.txt").read_text(encoding="utf-8").split()
    for _ in range(count):
        start, length = rng.randrange(len(words) - 40), rng.randrange(15, 41)
        reference = words[start : start + length]
        prediction = [rng.choice(words) if rng.random() < 0.2 else word for word in reference]
        if rng.random() < 0.3:
            at = rng.randrange(length)
            prediction = prediction[at:] + prediction[:at]
        yield " ".join(prediction), " ".join(reference)


def peer(name, rows):
    """Seconds and value of the peer's scoring call."""
    predictions, references = [row[0] for row in rows], [row[1] for row in rows]
    if name == "rouge":
        from rouge_score import rouge_scorer

        scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
        start = time.perf_counter()
        scores = [scorer.score(reference, prediction) for prediction, reference in rows]
        value = statistics.fmean(score["rouge1"].fmeasure for score in scores)
        return time.perf_counter() - start, value
    from sacrebleu.metrics import BLEU, CHRF

    metric = {"bleu": BLEU, "chrf": CHRF}[name]()
    start = time.perf_counter()
    value = metric.corpus_score(predictions, [references]).score
    return time.perf_counter() - start, value


def ours(program, name, path, resamples):
    command = [program, "metric", name, "--rows", path, "--resamples", str(resamples), "--json"]
    start = time.perf_counter()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return time.perf_counter() - start, json.loads(output)["value"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--andiron", required=True)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        rows = [json.loads(line) for line in open(options.rows, encoding="utf-8")]
        print(json.dumps(peer(options.peer, [(row["prediction"], row["reference"]) for row in rows])))
        return
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for prediction, reference in pairs(options.pairs):
            file.write(json.dumps({"prediction": prediction, "reference": reference}) + "\n")
        file.flush()
        print("| metric | ours, s | with 1000 resamples, s | peer, s | peer ÷ ours | range |\n|---|--:|--:|--:|--:|--:|")
        for name in ("bleu", "chrf", "rouge"):
            if options.only in (None, name):
                compare(name, file.name, options)


def compare(name, path, options):
    times, with_errors, theirs = [], [], []
    for _ in range(options.rounds):
        seconds, value = ours(options.andiron, name, path, 0)
        times.append(seconds)
        with_errors.append(ours(options.andiron, name, path, 1000)[0])
        command = [sys.executable, __file__, "--andiron", options.andiron, "--peer", name, "--rows", path]
        seconds, expected = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        theirs.append(seconds)
        assert abs(value - expected) < 1e-9 * max(1, abs(expected)), (name, value, expected)
    ratios = sorted(peer / our for our, peer in zip(times, theirs))
    medians = [statistics.median(column) for column in (times, with_errors, theirs)]
    figures = " | ".join(f"{seconds:.2f}" for seconds in medians)
    print(f"| {name} | {figures} | {statistics.median(ratios):.0f} | {ratios[0]:.0f} to {ratios[-1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
