#!/usr/bin/env python3
"""Texts without a model, to measure the models of `examples/uses` beside: rows for `andiron metric`, on standard output.

    python3 benches/peers/baselines.py lead examples/data/packages-test.jsonl.gz | andiron metric rouge --rows -
    python3 benches/peers/baselines.py nearest examples/data/manual-en-ko-{test,train}.jsonl.gz en ko | andiron metric chrf --rows -
    python3 benches/peers/baselines.py copy examples/data/manual-en-ko-test.jsonl.gz en ko | andiron metric chrf --rows -

`lead` takes the first sentence of a document for its summary, `nearest` the translation of the training sentence that shares the
largest part of its words (what a translation memory does), `copy` the source itself.
"""

import gzip
import json
import re
import sys


def rows(path: str) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def words(text: str) -> set[str]:
    return set(text.lower().split())


def nearest(memory: list[tuple[set[str], str]], text: str) -> str:
    asked = words(text)
    return max(memory, key=lambda known: len(asked & known[0]) / len(asked | known[0]))[1]


def main() -> None:
    match sys.argv[1:]:
        case ["lead", path]:
            found = [(re.split(r"(?<=[.!?])\s", row["document"])[0], row["summary"]) for row in rows(path)]
        case ["copy", path, source, target]:
            found = [(row[source], row[target]) for row in rows(path)]
        case ["nearest", path, train, source, target]:
            memory = [(words(row[source]), row[target]) for row in rows(train)]
            found = [(nearest(memory, row[source]), row[target]) for row in rows(path)]
        case _:
            sys.exit(__doc__)
    for prediction, reference in found:
        print(json.dumps({"prediction": prediction, "reference": reference}, ensure_ascii=False))


if __name__ == "__main__":
    main()
