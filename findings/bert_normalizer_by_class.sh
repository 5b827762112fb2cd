#!/usr/bin/env bash
# Package: transformers==5.24.0 tokenizers==0.23.3
# Guessed: a tokenizer.json whose normalizer keeps case gives the same ids to AutoTokenizer and to tokenizers.
# Seen: beside the config.json of a BERT, AutoTokenizer builds the normalizer anew and lowercases unless
#   tokenizer_config.json has do_lower_case: false. "Hello" is 6, the id of "hello"; tokenizers gives 5, that of "Hello".
# Andiron: case, accents and Chinese characters of a BERT normalizer go by the class, as AutoTokenizer has them.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Hello", "hello"]
vocab = {piece: number for number, piece in enumerate(pieces)}
tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
Path("bert").mkdir()
tokenizer.save("bert/tokenizer.json")
Path("bert/config.json").write_text(json.dumps({"model_type": "bert"}))

def read(settings):
    Path("bert/tokenizer_config.json").write_text(json.dumps(settings))
    return AutoTokenizer.from_pretrained("bert")("Hello", add_special_tokens=False)["input_ids"]

found = {
    "tokenizers": Tokenizer.from_file("bert/tokenizer.json").encode("Hello", add_special_tokens=False).ids,
    "AutoTokenizer": read({}),
    "AutoTokenizer, tokenizer_class BertTokenizer": read({"tokenizer_class": "BertTokenizer"}),
    "AutoTokenizer, do_lower_case false": read({"do_lower_case": False}),
}
print(found)
assert list(found.values()) == [[5], [6], [6], [5]]
PYTHON
