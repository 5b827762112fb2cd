#!/usr/bin/env bash
# Package: sentence-transformers==6.2.0 transformers==5.24.0 torch==2.15.0
# Guessed: the longest text a model takes is max_seq_length in sentence_bert_config.json, and pooling is told by flags such as
#   pooling_mode_mean_tokens.
# Seen: a limit of 32 is saved as model_max_length in tokenizer_config.json only, pooling as pooling_mode: "mean"; a reader of
#   the old keys cuts texts elsewhere and pools by its default.
# Andiron: reads both: model_max_length where max_seq_length is absent, pooling_mode and the older flags.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet sentence-transformers==6.2.0 transformers==5.24.0 torch==2.15.0

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import json
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two"]
BertTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)}).save_pretrained("bert")
config = BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                    max_position_embeddings=64)
BertModel(config).save_pretrained("bert")
SentenceTransformer(modules=[Transformer("bert", max_seq_length=32), Pooling(8)]).save("saved")

def read(name):
    return json.loads((Path("saved") / name).read_text())

limit = read("tokenizer_config.json")["model_max_length"]
print("tokenizer_config.json: model_max_length", limit)
print("sentence_bert_config.json:", sorted(read("sentence_bert_config.json")))
print("1_Pooling/config.json:", read("1_Pooling/config.json"))
assert limit == 32 and "max_seq_length" not in read("sentence_bert_config.json")
assert read("1_Pooling/config.json")["pooling_mode"] == "mean"
PYTHON
