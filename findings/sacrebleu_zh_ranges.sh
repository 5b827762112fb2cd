#!/usr/bin/env bash
# Package: sacrebleu==2.6.0
# Guessed: the tokenizer `zh` sets Chinese characters apart, those of the supplementary planes included, and nothing else.
# Seen: U+20000 to U+2A6D6 is written with four digits, which compares as U+2001 to U+2A6D: dashes, arrows and mathematical
#   signs are set apart, characters of the supplementary planes are not.
# Andiron: has the same ranges, because BLEU's signature promises the same score.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet sacrebleu==2.6.0

"$place/venv/bin/python" - <<'PYTHON'
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

tokenize = TokenizerZh()
for text, expected in (
    ("a我b", ["a", "我", "b"]),
    ("a\U00020000b", ["a\U00020000b"]),
    ("a→b", ["a", "→", "b"]),
    ("a—b", ["a", "—", "b"]),
    ("a∑b", ["a", "∑", "b"]),
):
    words = tokenize(text).split()
    print(repr(text), words)
    assert words == expected
PYTHON
