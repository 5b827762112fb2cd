#!/usr/bin/env python3
"""Texts without a model, to measure the models of `examples/uses` beside: rows for `andiron metric`, on standard output.

    python3 benches/peers/baselines.py lead examples/data/packages-test.jsonl.gz | andiron metric rouge --rows -
    python3 benches/peers/baselines.py nearest examples/data/manual-en-ko-{test,train}.jsonl.gz en ko | andiron metric chrf --rows -
    python3 benches/peers/baselines.py copy examples/data/manual-en-ko-test.jsonl.gz en ko | andiron metric chrf --rows -
    python3 benches/peers/baselines.py line data/code/code-test.jsonl data/code/code.jsonl | andiron metric squad --rows -
    python3 benches/peers/baselines.py span data/xquad/test.json | andiron metric squad --rows -

`lead` takes the first sentence of a document for its summary, `nearest` the translation of the training sentence that shares the
largest part of its words (what a translation memory does), `copy` the source itself. `line` takes the line that most often
follows the line before the cursor, in the training code and around the cursor; `span`, the capitalized words or the number that are
nearest to the question's words, in the sentence that shares most of them.
"""

import gzip
import json
import re
import sys
from collections import Counter, defaultdict


def rows(path: str) -> list[dict]:
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def words(text: str) -> set[str]:
    return set(text.lower().split())


def nearest(memory: list[tuple[set[str], str]], text: str) -> str:
    asked = words(text)
    return max(memory, key=lambda known: len(asked & known[0]) / len(asked | known[0]))[1]


def followers(texts: list[str]) -> dict[str, Counter]:
    """How often a line follows another one."""
    found = defaultdict(Counter)
    for text in texts:
        lines = [line.strip() for line in text.splitlines()]
        for before, line in zip(lines, lines[1:]):
            if line:
                found[before][line] += 1
    return found


def next_line(known: dict[str, Counter], prompt: str) -> str:
    before, after = re.fullmatch(r"(?s)<fim_prefix>(.*)<fim_suffix>(.*)<fim_middle>", prompt).groups()
    *above, _ = before.split("\n")
    here = followers([before, after])
    last = above[-1].strip() if above else ""
    return next((found[last].most_common(1)[0][0] for found in (known, here) if found.get(last)), last)


def span(question: str, context: str) -> str:
    """The capitalized words or the number of a sentence that are nearest to the words of the question."""
    asked = set(re.findall(r"\w+", question.lower()))
    sentences = re.split(r"(?<=[.!?])\s+", context)
    sentence = max(sentences, key=lambda text: len(asked & set(re.findall(r"\w+", text.lower()))))
    shared = [found.start() for found in re.finditer(r"\w+", sentence) if found[0].lower() in asked] or [0]
    runs = list(re.finditer(r"[A-Z]\w*(?: (?:of |the )?[A-Z]\w*)*|\d[\d,.]*(?: \w+)?", sentence))
    runs = [run for run in runs if not set(re.findall(r"\w+", run[0].lower())) & asked] or [None]
    best = min(runs, key=lambda run: min(abs(run.start() - at) for at in shared) if run else 0)
    return best[0] if best else sentence


def questions(path: str) -> list[tuple[str, str, list[str]]]:
    with open(path, encoding="utf-8") as file:
        parts = [part for article in json.load(file)["data"] for part in article["paragraphs"]]
    return [(asked["question"], part["context"], [gold["text"] for gold in asked["answers"]]) for part in parts for asked in part["qas"]]


def main() -> None:
    match sys.argv[1:]:
        case ["lead", path]:
            found = [(re.split(r"(?<=[.!?])\s", row["document"])[0], row["summary"]) for row in rows(path)]
        case ["copy", path, source, target]:
            found = [(row[source], row[target]) for row in rows(path)]
        case ["nearest", path, train, source, target]:
            memory = [(words(row[source]), row[target]) for row in rows(train)]
            found = [(nearest(memory, row[source]), row[target]) for row in rows(path)]
        case ["line", path, train]:
            known = followers([row["text"] for row in rows(train)])
            found = [(next_line(known, row["prompt"]), row["reference"]) for row in rows(path)]
        case ["span", path]:
            found = [(span(question, context), golds) for question, context, golds in questions(path)]
        case _:
            sys.exit(__doc__)
    for prediction, reference in found:
        name = "references" if isinstance(reference, list) else "reference"
        print(json.dumps({"prediction": prediction, name: reference}, ensure_ascii=False))


if __name__ == "__main__":
    main()
