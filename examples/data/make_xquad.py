#!/usr/bin/env python3
"""Divides a file in SQuAD's layout, such as the English part of XQuAD (CC BY-SA 4.0), by its articles: a fifth is to test on.

    python3 examples/data/make_xquad.py data/xquad.en.json data/xquad

Writes `train.json` and `test.json`. Questions about one paragraph share their context, so rows that are held out at random would
be about texts that the model has read.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: make_xquad.py FILE.json OUTPUT-DIRECTORY")
    content = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    output = Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    for part, is_test in (("train", False), ("test", True)):
        articles = [article for at, article in enumerate(content["data"]) if (at % 5 == 0) == is_test]
        path = output / f"{part}.json"
        path.write_text(json.dumps({**content, "data": articles}, ensure_ascii=False), encoding="utf-8")
        questions = sum(len(paragraph["qas"]) for article in articles for paragraph in article["paragraphs"])
        print(f"{path}: {len(articles)} articles, {questions} questions")


if __name__ == "__main__":
    main()
