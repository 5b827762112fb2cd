#!/usr/bin/env bash
# Package: transformers==5.24.0 tokenizers==0.23.3 torch==2.15.0
# Guessed: generation ends before a stop string of generation_config.json, and only what is generated is searched, as with the
#   field stop of OpenAI's API.
# Seen: the text keeps the stop string and the rest of the token that completes it; a stop string also matches across the end
#   of the prompt and the first generated token.
# Andiron: the text ends before the stop string, and only generated text is searched; said in the README of andiron-pipelines.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3 torch==2.15.0

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import GPT2Config, GPT2LMHeadModel, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerFast

words = Tokenizer(models.BPE({**{c: n for n, c in enumerate("abcdef")}, "cd": 6, "cde": 7}, [("c", "d"), ("cd", "e")]))
words.decoder = decoders.Fuse()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=32, n_embd=8, n_layer=1, n_head=2, bos_token_id=None,
                                   eos_token_id=None)).eval()

class Write(LogitsProcessor):
    """Makes the model write these ids."""
    def __init__(self, text, start):
        self.ids, self.start = tokenizer(text).input_ids, start

    def __call__(self, ids, scores):
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.ids[ids.shape[1] - self.start]] = 0
        return forced

def written(prompt, text, stop):
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    write = LogitsProcessorList([Write(text, ids.shape[1])])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=4, pad_token_id=0,
                         logits_processor=write, stop_strings=[stop], tokenizer=tokenizer)
    return tokenizer.decode(out[0, ids.shape[1]:])

inside, across = written("a", "bcdefa", "d"), written("fa", "bfff", "ab")
print("stop string inside of a token:", inside)
print("stop string across the end of the prompt:", across)
assert inside == "bcde", inside
assert across == "b", across
PYTHON
