#!/usr/bin/env bash
# Package: dolma==1.2.1
# Guessed: with `min_words` in `dedupe`, paragraphs of fewer words are left alone, and longer ones are deduplicated as without it.
# Seen: longer ones are not deduplicated either: of three documents that begin with the same paragraph of ten words, two lose it
#   without `min_words`, none with `min_words` 3. No warning; the log counts 0 processed. `min_length`, in characters, works.
# Andiron: `RepeatedParagraphs` has a minimum of words that means what it says.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
# Of the package only the compiled part is used, without what the rest of it needs.
"$place/venv/bin/pip" install --quiet --no-deps dolma==1.2.1

cd "$place"
venv/bin/python - <<'PYTHON'
import glob
import gzip
import importlib.util
import json
import os
import sysconfig

path = glob.glob(sysconfig.get_path("purelib") + "/dolma/dolma.*.so") + glob.glob(sysconfig.get_path("platlib") + "/dolma/dolma.*.so")
spec = importlib.util.spec_from_file_location("dolma", path[0])
dolma = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dolma)

for folder in ["documents", "in", "out"]:
    os.makedirs("work/" + folder)
same = "the same paragraph of ten words begins all three documents\n"
with gzip.open("work/documents/a.jsonl.gz", "wt") as file:
    for number in range(3):
        text = f"{same}and something else that only one of them has {number}\n"
        file.write(json.dumps({"id": str(number), "text": text}) + "\n")


def removed(name, **extra):
    config = {
        "documents": ["work/documents/a.jsonl.gz"],
        "work_dir": {"input": "work/in", "output": "work/out"},
        "dedupe": {"name": name, "paragraphs": {"attribute_name": "repeated"}, "skip_empty": True, **extra},
        "bloom_filter": {
            "file": f"work/{name}.bloom", "read_only": False, "size_in_bytes": 0,
            "estimated_doc_count": 1000, "desired_false_positive_rate": 0.0001,
        },
        "processes": 1,
    }
    dolma.deduper_entrypoint(json.dumps(config))
    with gzip.open(f"work/attributes/{name}/a.jsonl.gz", "rt") as lines:
        return [len(json.loads(line)["attributes"].get("repeated", [])) for line in lines]


without, words, length = removed("without"), removed("words", min_words=3), removed("length", min_length=3)
print("without", without, "min_words 3", words, "min_length 3", length)
assert without == length == [0, 1, 1]
assert words == [0, 0, 0]
PYTHON
