#!/usr/bin/env bash
# Package: transformers==5.24.0 torch==2.15.0
# Guessed: a Llama or GPT-2 with "sliding_window": 4 in its config.json either has such a window or ignores the key.
# Seen: the KV cache alone goes by it. Logits of one forward pass over 8 tokens are the same, and so is generation without a
#   cache; with the cache, decode steps attend to the last 4 tokens, and logits are off by up to 4.2 and 3.1.
# Andiron: the key is refused by name where the architecture has no sliding window; cached and uncached logits agree.
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

small = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.5}
llama = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, **small)
gpt2 = GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=32, **small)
prompt = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])

def logits(model, cached):
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    made = model.generate(prompt, **options, use_cache=cached, return_dict_in_generate=True, output_logits=True)
    return torch.stack(made.logits)

for kind, config in (LlamaForCausalLM, llama), (GPT2LMHeadModel, gpt2):
    torch.manual_seed(0)
    kind(config).save_pretrained("model")
    plain = json.loads(Path("model/config.json").read_text())
    found = []
    for keys in {}, {"sliding_window": 4}:
        Path("model/config.json").write_text(json.dumps(plain | keys))
        model = AutoModelForCausalLM.from_pretrained("model")
        with torch.no_grad():
            found.append([model(prompt).logits, logits(model, cached=False), logits(model, cached=True)])
    forward, uncached, cached = ((one - other).abs().max().item() for one, other in zip(*found))
    print(f"{kind.__name__}: forward {forward:.1f}, generated without a cache {uncached:.1f}, with it {cached:.1f}")
    assert forward == uncached == 0 and cached > 0.1
PYTHON
