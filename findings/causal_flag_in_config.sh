#!/usr/bin/env bash
# Package: transformers==5.24.0 torch==2.15.0
# Guessed: the attention mask of a Llama or GPT-2 is causal, whatever stands in config.json; neither class has a key for it.
# Seen: with "is_causal": false there, tokens attend to later ones, without a warning. Two texts that share their first 3
#   tokens differ in the logits of these by up to 4.8 for Llama and 4.3 for GPT-2; without the key by 0.
# Andiron: a decoder whose config.json says is_causal: false is refused by the name of the key.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
small = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.5}
llama = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, **small)
gpt2 = GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=8, **small)
texts = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8, 9]])
for model in LlamaForCausalLM(llama), GPT2LMHeadModel(gpt2):
    model.save_pretrained("model")
    plain = json.loads(Path("model/config.json").read_text())
    for keys in {}, {"is_causal": False}:
        Path("model/config.json").write_text(json.dumps(plain | keys))
        with torch.no_grad():
            one, other = AutoModelForCausalLM.from_pretrained("model")(texts).logits[:, :3]
        difference = (one - other).abs().max().item()
        print(type(model).__name__, keys, f"logits of the shared tokens differ by {difference:.2f}")
        assert (difference > 0.01) == bool(keys)
PYTHON
