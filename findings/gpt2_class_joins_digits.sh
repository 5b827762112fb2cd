#!/usr/bin/env bash
# Package: transformers==5.24.0 tokenizers==0.23.3
# Guessed: a Llama whose tokenizer.json parts digits before it merges, and whose tokenizer_config.json names
#   GPT2Tokenizer, as the files of SmolLM do, has the same ids with AutoTokenizer and with tokenizers.
# Seen: AutoTokenizer builds GPT-2's pre-tokenizer in the place of the file's, so that "12" becomes the one token 256, which
#   the model never met in training; tokenizers gives 16 and 17. The class Qwen2Tokenizer has two tokens, since its own
#   pre-tokenizer parts digits, and PreTrainedTokenizerFast has the file's.
# Andiron: follows the pre-tokenizer of tokenizer.json, as llama.cpp does, but for GPT-2's flag add_prefix_space.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

vocab = {piece: number for number, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
vocab["12"] = len(vocab)
tokenizer = Tokenizer(models.BPE(vocab, [("1", "2")]))
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
tokenizer.decoder = decoders.ByteLevel()
Path("llama").mkdir()
tokenizer.save("llama/tokenizer.json")
Path("llama/config.json").write_text(json.dumps({"model_type": "llama"}))

def read(name):
    Path("llama/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    return AutoTokenizer.from_pretrained("llama")("12", add_special_tokens=False)["input_ids"]

found = {"tokenizers": Tokenizer.from_file("llama/tokenizer.json").encode("12").ids}
found |= {name: read(name) for name in ["GPT2Tokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast"]}
print(found)
assert list(found.values()) == [[16, 17], [256], [16, 17], [16, 17]]
PYTHON
