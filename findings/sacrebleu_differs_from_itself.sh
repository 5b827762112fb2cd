#!/usr/bin/env bash
# Package: sacrebleu==2.6.0 numpy==2.4.6
# Guessed: a system compared with itself by the paired bootstrap test has a p-value near 1.
# Seen: 0.000999, the least one of 1000 samples: no sample's difference of 0 is above the difference of 0, so that two equal
#   systems look surely different.
# Andiron: computes the same p-value, but 1 where two systems differ in no sample.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet sacrebleu==2.6.0 numpy==2.4.6

"$place/venv/bin/python" - <<'PYTHON'
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

lines = ["the cat sat on the mat", "a dog ran away from me", "it was a very long day"] * 10
references = [["the cat sat on a mat", "the dog ran away from me", "it was a long day"] * 10]
test = PairedTest([("baseline", lines), ("itself", lines)], {"BLEU": BLEU()}, references, test_type="bs")
_, scores = test()
result = scores["BLEU"][1]
print(result)
assert result.score == scores["BLEU"][0].score
assert abs(result.p_value - 1 / 1001) < 1e-12
PYTHON
