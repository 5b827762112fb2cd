#!/usr/bin/env python3
"""Makes `train.jsonl` and `test.jsonl` of KorSTS (CC BY-SA 4.0), whose tables have cells with single quotation marks.

    python3 examples/data/make_korsts.py DIRECTORY

The directory holds `sts-train.tsv` and `sts-test.tsv` of <https://github.com/kakaobrain/KorNLUDatasets>.
"""

import csv
import json
import sys
from pathlib import Path


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: make_korsts.py DIRECTORY")
    folder = Path(sys.argv[1])
    for part in ("train", "test"):
        with (folder / f"sts-{part}.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        output = folder / f"{part}.jsonl"
        with output.open("w", encoding="utf-8") as file:
            for row in rows:
                pair = {"sentence1": row["sentence1"], "sentence2": row["sentence2"], "score": float(row["score"])}
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")
        print(f"{output}: {len(rows)} rows")


if __name__ == "__main__":
    main()
