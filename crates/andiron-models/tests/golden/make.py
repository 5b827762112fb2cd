#!/usr/bin/env python3
"""Makes the golden fixtures: tiny random models saved by `transformers`, with what they compute.

    cargo xtask golden gpt2          # or: python3 make.py gpt2

Needs torch, transformers and numpy. Each fixture is a model directory plus `expected.json`: ids, logits of every
position, the mean cross-entropy of predicting each next id, the gradient of that loss for a few parameters, and a
greedy continuation. Seeds are fixed; the versions that made a fixture are written into it.
"""
import json
import pathlib
import sys

import torch
import transformers

import beams
import encoders
import seq2seq
import t5

HERE = pathlib.Path(__file__).parent


def save(name, model, ids, grads_of):
    model = model.eval()
    folder = HERE / name
    model.save_pretrained(folder)
    out = model(ids, labels=ids)
    out.loss.backward()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        greedy = model.generate(ids[:1, :5], max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    rounded = lambda t: [float(f"{x:.7g}") for x in t.flatten().tolist()]
    expected = {
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]},
        "ids": ids.tolist(),
        "logits_shape": list(out.logits.shape),
        "logits": rounded(out.logits.detach()),
        "loss": out.loss.item(),
        "grads": {n: rounded(parameters[n].grad) for n in grads_of},
        "greedy": {"prompt": ids[0, :5].tolist(), "continuation": greedy[0, 5:].tolist()},
    }
    (folder / "expected.json").write_text(json.dumps(expected))


def spread(model, scale=6.0):
    """Initial weights are so small that every logit is alike; wider ones make a mistake visible."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.mul_(scale)
            else:
                p.add_(torch.randn_like(p) * 0.1)


def gpt2():
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=61, n_positions=24, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    spread(model)
    ids = torch.randint(0, 61, (2, 11))
    grads = ["transformer.wpe.weight", "transformer.h.0.attn.c_attn.bias", "transformer.h.1.mlp.c_fc.bias",
             "transformer.h.0.attn.c_proj.weight", "transformer.h.1.ln_1.weight", "transformer.ln_f.bias"]
    save("gpt2", model, ids, grads)


MAKERS = {"gpt2": gpt2}
MAKERS |= beams.MAKERS | encoders.MAKERS | seq2seq.MAKERS | t5.MAKERS

if __name__ == "__main__":
    names = sys.argv[1:] or list(MAKERS)
    for name in names:
        if name not in MAKERS:
            sys.exit(f"unknown fixture {name!r}: choose from {', '.join(MAKERS)}")
        MAKERS[name]()
        print(f"made {HERE / name}")
