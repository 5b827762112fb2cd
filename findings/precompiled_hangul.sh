#!/usr/bin/env bash
# Package: tokenizers==0.23.3 sentencepiece==0.2.3
# Guessed: both apply the table of normalisation in a SentencePiece model in the same way.
# Seen: SentencePiece composes decomposed Korean to two syllables; Precompiled of tokenizers leaves six letters, which
#   get other ids.
# Andiron: Marian's SentencePiece models give SentencePiece's ids, a tokenizer.json gives those of tokenizers; both are
#   tested on Korean and Japanese, composed and decomposed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet tokenizers==0.23.3 sentencepiece==0.2.3 protobuf==7.36.2

"$place/venv/bin/python" - <<'PYTHON'
import io
import unicodedata

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers.normalizers import Precompiled

model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["한국어 문장 hello world", "안녕하세요 세계"] * 50), model_writer=model, vocab_size=40,
    normalization_rule_name="nmt_nfkc", hard_vocab_limit=False, minloglevel=2)
proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
decomposed = unicodedata.normalize("NFD", "한국")
theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).normalize(decomposed).lstrip("▁")
other = Precompiled(proto.normalizer_spec.precompiled_charsmap).normalize_str(decomposed)
print("SentencePiece:", len(theirs), "characters; Precompiled:", len(other), "characters")
assert theirs == "한국" and len(decomposed) == 6 and other == decomposed
PYTHON
