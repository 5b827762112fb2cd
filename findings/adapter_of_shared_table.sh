#!/usr/bin/env bash
# Package: peft==0.21.2 transformers==5.24.0 torch==2.15.0
# Guessed: an adapter of T5's token embeddings, `shared`, changes what encoder and decoder read.
# Seen: it changes nothing. Encoder and decoder look up in modules of their own, `encoder.embed_tokens` and
#   `decoder.embed_tokens`, which share only the weight; an adapter of `embed_tokens` changes the logits.
# Andiron: adapters of embeddings that encoder and decoder share are refused by name.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet peft==0.21.2 transformers==5.24.0 torch==2.15.0

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import torch
from peft import LoraConfig, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration

torch.manual_seed(0)
config = T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
model = T5ForConditionalGeneration(config).eval()
inputs = {"input_ids": torch.tensor([[3, 4, 5]]), "decoder_input_ids": torch.tensor([[0, 7, 8]])}
changes = {}
with torch.no_grad():
    before = model(**inputs).logits
    for target in ("shared", "embed_tokens"):
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules=[target])).eval()
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter)
        changes[target] = (adapted(**inputs).logits - before).abs().max().item()
        model = adapted.unload()
print(changes)
assert changes["shared"] == 0 and changes["embed_tokens"] > 0.1
PYTHON
