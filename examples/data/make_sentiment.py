#!/usr/bin/env python3
"""Makes `data/sentiment.jsonl`: sentences of English film reviews, each with its sentiment.

They come from the source package of `vaderSentiment` 3.3.2 on PyPI (MIT licence, copyright 2016 C. J. Hutto; the sentences are
those of Pang and Lee 2005), where twenty people have rated each sentence from -4 to 4. A mean above 0.5 becomes
`"label": "positive"`, one below -0.5 `"negative"`; what is between is left out. Needs nothing but the Python standard library:

    pip download --no-deps --no-binary :all: --dest data vaderSentiment==3.3.2
    python3 examples/data/make_sentiment.py data/vaderSentiment-3.3.2.tar.gz data/sentiment.jsonl
"""

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
RESOURCES = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
CLEAR = 0.5


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: make_sentiment.py vaderSentiment-3.3.2.tar.gz OUTPUT.jsonl")
    package, output = Path(sys.argv[1]), Path(sys.argv[2])
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{package}: sha256 is {found}, this script was made for {SHA256}")
    with tarfile.open(package) as outer:
        resources = outer.extractfile(RESOURCES).read()
    with tarfile.open(fileobj=io.BytesIO(resources)) as inner:
        lines = inner.extractfile(RATINGS).read().decode("utf-8").splitlines()
    rows = {}
    for line in lines:
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) > CLEAR:
            rows[text.strip()] = "positive" if float(rating) > 0 else "negative"
    text = "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows.items())
    output.write_text(text, encoding="utf-8")
    counts = {label: list(rows.values()).count(label) for label in ("negative", "positive")}
    print(f"{output}: {len(rows)} rows, {counts}, sha256 {hashlib.sha256(text.encode('utf-8')).hexdigest()}")


if __name__ == "__main__":
    main()
