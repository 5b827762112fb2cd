#!/usr/bin/env bash
# Package: transformers==5.24.0 torch==2.15.0
# Guessed: the trainer divides a causal model's loss by the number of targets, whatever the class is called.
# Seen: it looks the class name up: *ForCausalLM counts labels without the first column, GPT2LMHeadModel counts all. For 4
#   rows of 5 tokens that is 16 for Llama and 20 for GPT-2, whose loss and gradients are 0.8 of the mean.
# Andiron: the loss is the mean over targets for every architecture, as model(...).loss is.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0 accelerate==1.15.0

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

small = {"vocab_size": 11, "use_cache": False}
models = [
    LlamaForCausalLM(LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, **small)),
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=8, **small)),
]
counts = {}
for model in models:
    trainer = Trainer(model=model, args=TrainingArguments(output_dir="out", use_cpu=True, report_to="none"))
    rows = {"input_ids": torch.ones(4, 5, dtype=torch.long), "labels": torch.ones(4, 5, dtype=torch.long)}
    _, count = trainer.get_batch_samples(iter([rows]), 1, torch.device("cpu"))
    counts[type(model).__name__] = int(count)
print(counts)
assert counts == {"LlamaForCausalLM": 16, "GPT2LMHeadModel": 20}
PYTHON
