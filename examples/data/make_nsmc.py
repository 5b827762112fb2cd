#!/usr/bin/env python3
"""Makes `texts.jsonl`, `train.jsonl` and `test.jsonl` of the Naver sentiment movie corpus (NSMC, CC0).

    python3 examples/data/make_nsmc.py DIRECTORY

The directory holds `ratings_train.txt` and `ratings_test.txt` of <https://github.com/e9t/nsmc>. `texts.jsonl` has the text of every
review to train on; `train.jsonl` 18,000 of them, and `test.jsonl` 4,000 others, with their labels.
"""

import json
import random
import sys
from pathlib import Path

LABELS = {"0": "negative", "1": "positive"}


def reviews(path: Path) -> list[dict[str, str]]:
    """The rows of a table without quotes: number, text, label."""
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        _, text, label = line.split("\t")
        if text.strip():
            rows[text.strip()] = LABELS[label]
    return [{"text": text, "label": label} for text, label in rows.items()]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows)} rows")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: make_nsmc.py DIRECTORY")
    folder = Path(sys.argv[1])
    train, test = (reviews(folder / f"ratings_{part}.txt") for part in ("train", "test"))
    known = {row["text"] for row in train}
    test = [row for row in test if row["text"] not in known]
    draw = random.Random(1337)
    draw.shuffle(train)
    draw.shuffle(test)
    write(folder / "texts.jsonl", [{"text": row["text"]} for row in train[:36000]])
    write(folder / "train.jsonl", train[:18000])
    write(folder / "test.jsonl", test[:4000])


if __name__ == "__main__":
    main()
