#!/usr/bin/env bash
# Package: transformers==5.24.0 torch==2.15.0
# Guessed: a cross-encoder gets the token types that tokenizer.json gives a pair: 0 for the first text, 1 for the second.
# Seen: with tokenizer_class PreTrainedTokenizerFast the tokenizer leaves token_type_ids out, and BERT takes all for 0; with
#   BertTokenizer they are there. The ids of a pair are the same, its scores are 0.32 and -0.87.
# Andiron: follows model_input_names, else the class, else the architecture; where these give no types, all are 0.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0 tokenizers==0.23.3

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertTokenizerFast

torch.manual_seed(2)
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two"]
BertTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)}).save_pretrained("bert")
config = BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                    initializer_range=1.0, num_labels=1)
model = BertForSequenceClassification(config).eval()
model.save_pretrained("bert")
types = Tokenizer.from_file("bert/tokenizer.json").encode("one two", "two").type_ids
print("tokenizer.json:", types)
assert types == [0, 0, 0, 0, 1, 1]
ids, scores = [], []
names = ["input_ids", "token_type_ids", "attention_mask"]
fast = {"tokenizer_class": "PreTrainedTokenizerFast"}
for settings in {"tokenizer_class": "BertTokenizer"}, fast, fast | {"model_input_names": names}:
    Path("bert/tokenizer_config.json").write_text(json.dumps(settings))
    pair = AutoTokenizer.from_pretrained("bert")("one two", "two", return_tensors="pt")
    with torch.no_grad():
        scores.append(model(**pair).logits.item())
    ids.append(pair["input_ids"].tolist())
    print(settings, sorted(pair), f"score {scores[-1]:.2f}")
    assert ("token_type_ids" in pair) == (settings != fast)
assert ids[0] == ids[1] == ids[2] and scores[0] == scores[2] and abs(scores[0] - scores[1]) > 0.1
PYTHON
