#!/usr/bin/env bash
# Package: peft==0.21.2 transformers==5.24.0 torch==2.15.0
# Guessed: merging an adapter leaves the logits as they are.
# Seen: where the head is tied to the embeddings, an adapter of the embeddings changes lookups only, and merged it changes the
#   head as well: the logits of a random GPT-2 differ by more than 1. There is a warning, and the model is saved.
# Andiron: an adapter of embeddings leaves a tied head alone; merging it is refused.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet peft==0.21.2 transformers==5.24.0 torch==2.15.0

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
config = GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0)
adapted = get_peft_model(GPT2LMHeadModel(config), LoraConfig(r=2, target_modules=["wte"])).eval()
for name, parameter in adapted.named_parameters():
    if "lora_" in name:
        torch.nn.init.normal_(parameter)
ids = torch.tensor([[3, 4, 5]])
with torch.no_grad():
    before = adapted(ids).logits
    merged = adapted.merge_and_unload()
    difference = (merged(ids).logits - before).abs().max().item()
print({"difference": difference, "tied": merged.lm_head.weight is merged.transformer.wte.weight})
assert difference > 1 and merged.lm_head.weight is merged.transformer.wte.weight
PYTHON
