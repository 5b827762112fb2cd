#!/usr/bin/env bash
# Package: datatrove==0.10.1 kiwipiepy==0.24.1
# Guessed: `split_into_words(text, "ko")` gives the morphemes of a Korean text.
# Seen: datatrove asks Kiwi for its model "sbg", which the package of models that kiwipiepy 0.24 brings no longer has: OSError.
#   So every filter with `language="ko"` fails. With the default model there are 2.3 words for each one between spaces.
# Andiron: Korean is split at Unicode's word boundaries; `WordSplit` says how that differs.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet datatrove==0.10.1 kiwipiepy==0.24.1 spacy==3.8.18 regex==2026.11.19

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
from datatrove.utils.text import split_into_words
from datatrove.utils.word_tokenizers import KiwiTokenizer

text = "모든 국민은 인간으로서의 존엄과 가치를 가진다."
try:
    split_into_words(text, "ko")
    raise SystemExit("the model is there")
except OSError as error:
    print(error)
words = KiwiTokenizer(model_type=None).word_tokenize(text)
print(words)
assert len(words) > len(text.split())
PYTHON
