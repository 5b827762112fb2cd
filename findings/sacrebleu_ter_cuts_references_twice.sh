#!/usr/bin/env bash
# Package: sacrebleu==2.6.0 numpy==2.4.6
# Guessed: a text compared with itself has a translation edit rate of 0, whatever the settings.
# Seen: 33.3 with `normalized=True`: references are cut into words twice, predictions once, and the rule for possessives cuts
#   "courtier's," only the second time, when the comma is a word of its own.
# Andiron: cuts references twice, too, so that values are equal.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet sacrebleu==2.6.0 numpy==2.4.6

"$place/venv/bin/python" - <<'PYTHON'
from sacrebleu.metrics import TER

text = "the courtier's, the king"
score = TER(normalized=True).sentence_score(text, [text])
print(score.num_edits, "edits for", score.ref_length, "words")
assert (score.num_edits, score.ref_length) == (2, 6.0)
assert TER().sentence_score(text, [text]).score == 0
PYTHON
