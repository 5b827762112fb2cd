#!/usr/bin/env bash
# Package: tokenizers==0.23.3
# Guessed: the same texts and settings train the same WordPiece vocabulary.
# Seen: pieces that begin with ## get other ids from process to process: 8 processes, 8 vocabularies.
# Andiron: tests of WordPiece have a vocabulary that is written out; none trains one anew and expects ids of it.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet tokenizers==0.23.3

cat > "$place/train.py" <<'PYTHON'
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False)
tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 3, trainer)
print(sorted(tokenizer.get_vocab().items(), key=lambda piece: piece[1]))
PYTHON

for _ in 1 2 3 4 5 6 7 8; do
    "$place/venv/bin/python" "$place/train.py"
done | sort -u > "$place/vocabularies"
kinds=$(wc -l < "$place/vocabularies")
echo "different vocabularies in 8 processes: $kinds"
test "$kinds" -gt 1
