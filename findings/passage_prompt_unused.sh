#!/usr/bin/env bash
# Package: sentence-transformers==6.2.0 transformers==5.24.0 torch==2.15.0
# Guessed: encode_document puts the prompt called document, passage or corpus before a text, the first that a model has, as
#   its documentation says.
# Seen: a model with the prompts query and passage also gets an empty document, which is saved with it and is found first:
#   the vector is that of the bare text, even where passage is the default prompt.
# Andiron: rerank puts the first of document, passage and corpus that is not empty before each document.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet sentence-transformers==6.2.0 transformers==5.24.0 torch==2.15.0

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import numpy
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

torch.manual_seed(0)
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ask", "tell", "rain"]
BertTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)}).save_pretrained("bert")
config = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                    initializer_range=0.5)
BertModel(config).save_pretrained("bert")
for default in None, "passage":
    prompts = {"query": "ask ", "passage": "tell "}
    modules = [Transformer("bert"), Pooling(8)]
    SentenceTransformer(modules=modules, prompts=prompts, default_prompt_name=default).save("saved")
    model = SentenceTransformer("saved")
    document, query = model.encode_document("rain"), model.encode_query("rain")
    print("default", default, "prompts", model.prompts)
    assert numpy.allclose(query, model.encode("ask rain", prompt=""), atol=1e-6)
    assert numpy.allclose(document, model.encode("rain", prompt=""), atol=1e-6)
    assert not numpy.allclose(document, model.encode("tell rain", prompt=""), atol=0.01)
PYTHON
