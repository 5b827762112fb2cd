#!/usr/bin/env bash
# Package: transformers==5.24.0 torch==2.15.0
# Guessed: texts packed into one row, told apart by position ids that restart, have the loss that they have alone.
# Seen: only with `use_cache=False`. By default a forward pass makes a cache, in evaluation mode too, and then texts attend to
#   those before them, with the same positions twice: the losses of a small Llama and GPT-2 are off by 0.07 and 0.06.
# Andiron: documents of a row are told apart by where they begin, not by positions; the losses to compare with are those of
#   each text alone.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

small = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.5}
llama = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, **small)
gpt2 = GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=32, **small)
texts = [1, 2, 3, 4, 5, 6], [7, 8, 9, 1], [5, 3, 1, 2, 8]

for kind, config in (LlamaForCausalLM, llama), (GPT2LMHeadModel, gpt2):
    torch.manual_seed(0)
    model = kind(config).eval()
    row = {
        "input_ids": torch.tensor([[token for text in texts for token in text]]),
        "position_ids": torch.tensor([[at for text in texts for at in range(len(text))]]),
        "labels": torch.tensor([[token if at else -100 for text in texts for at, token in enumerate(text)]]),
    }
    with torch.no_grad():
        sums = [(len(text) - 1) * model(torch.tensor([text]), labels=torch.tensor([text])).loss for text in texts]
        alone = (sum(sums) / sum(len(text) - 1 for text in texts)).item()
        default, uncached = model(**row).loss.item(), model(**row, use_cache=False).loss.item()
    print(f"{kind.__name__}: alone {alone:.4f}, packed {default:.4f}, packed without a cache {uncached:.4f}")
    assert abs(uncached - alone) < 1e-5 < 0.005 < abs(default - alone)
PYTHON
