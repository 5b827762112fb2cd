#!/usr/bin/env bash
# Package: lm_eval==0.4.13 numpy==2.4.6
# Guessed: the filter `regex_pos` finds tags with the pattern that it is given, `\['(.*?)'\]` by default, and takes the one that
#   `group_select` names.
# Seen: it compiles the pattern and reads neither it nor the group: it always takes the second of each pair in single quotes, as in
#   `('cat', 'NOUN')`. A pattern for `cat/NOUN` finds nothing, and the answer is `invalid`.
# Andiron: does the same, so that results are equal; the pattern is only checked.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet lm_eval==0.4.13 numpy==2.4.6

"$place/venv/bin/python" - <<'PYTHON'
from lm_eval.filters.extraction import POSFilter

with_slashes = POSFilter(regex_pattern=r"(\w+)/(\w+)", group_select=1)
responses = [["cat/NOUN sits/VERB", "[('cat', 'NOUN'), ('sits', 'VERB')]"]]
found = list(with_slashes.apply(responses, [{}]))
print(found)
assert found == [[["invalid"], ["NOUN", "VERB"]]]
assert found == list(POSFilter().apply(responses, [{}]))
PYTHON
