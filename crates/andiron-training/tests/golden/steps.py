#!/usr/bin/env python3
"""Makes `steps.json`: losses of 200 steps of training in PyTorch, and gradients of the first.

    cargo xtask golden steps

Needs the packages of `xtask/requirements.txt`. Four models of `transformers` begin with the weights of fixtures of
andiron-models, without dropout. Their batches are made of the text in `examples/data` by the rules of `Text`, which
`golden_steps.rs` has as well. A step is two micro-batches, the mean over the targets of both, a gradient clipped by its
norm, and AdamW, whose rate follows a warm-up and a cosine. Everything runs in float64; how far float32 leads away from that
is in the fixture too.
"""
import json
import math
import pathlib

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[3]
MODELS = ROOT / "crates/andiron-models/tests/golden"
TEXT = (ROOT / "examples/data/shakespeare.txt").read_bytes()

STEPS, MICRO_BATCHES, ROWS, COLUMNS = 200, 2, 3, 16
# Ids below this one are special; this one stands for a masked token.
SPECIAL, MASK = 4, 3
OPTIMIZER = dict(warmup_steps=20, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0)
# Lookup tables do not decay, and neither do vectors.
TABLES = ("wte", "wpe", "embeddings", "shared", "embed_tokens", "embed_positions", "relative_attention_bias")
# So many values of each gradient are in the fixture.
VALUES = 24


class Text:
    """Sequences of ids out of the text, whose bytes are folded into a vocabulary."""

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary

    def ids(self, start, length):
        return [SPECIAL + byte % (self.vocabulary - SPECIAL) for byte in TEXT[start : start + length]]

    def source(self, row):
        """The ids of a row, which are 13 to 16."""
        return self.ids(row * COLUMNS, COLUMNS - row % 4)

    def target(self, row):
        """What follows them: 11 to 13 ids."""
        return self.ids(row * COLUMNS + len(self.source(row)), COLUMNS - 3 - row % 3)

    def next(self, row):
        return self.ids(row * COLUMNS + 1, len(self.source(row)))


def is_masked(row, position):
    return (row + position) % 5 == 0


def padded(rows, pad):
    longest = max(map(len, rows))
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


def causal(model, rows):
    text = Text(model.config.vocab_size)
    inputs = padded([text.source(row) for row in rows], 0)
    return model(input_ids=inputs).logits, padded([text.next(row) for row in rows], -100)


def masked(model, rows):
    text = Text(model.config.vocab_size)
    sources = [text.source(row) for row in rows]
    hidden = [[MASK if is_masked(row, at) else id for at, id in enumerate(ids)] for row, ids in zip(rows, sources)]
    labels = [[id if is_masked(row, at) else -100 for at, id in enumerate(ids)] for row, ids in zip(rows, sources)]
    mask = padded([[1] * len(ids) for ids in sources], 0)
    return model(input_ids=padded(hidden, 0), attention_mask=mask).logits, padded(labels, -100)


def seq2seq(model, rows):
    config, text = model.config, Text(model.config.vocab_size)
    sources, targets = [text.source(row) for row in rows], [text.target(row) for row in rows]
    logits = model(
        input_ids=padded(sources, config.pad_token_id),
        attention_mask=padded([[1] * len(ids) for ids in sources], 0),
        decoder_input_ids=padded([[config.decoder_start_token_id, *ids[:-1]] for ids in targets], config.pad_token_id),
    ).logits
    return logits, padded(targets, -100)


# The fixture, the class, the loss, what switches dropout off, and the learning rate: at a higher one T5 is chaotic in any
# precision.
RUNS = {
    "gpt2": (AutoModelForCausalLM, causal, ["attn_pdrop", "resid_pdrop", "embd_pdrop"], 3e-3),
    "bert-masked-lm": (AutoModelForMaskedLM, masked, ["attention_probs_dropout_prob", "hidden_dropout_prob"], 3e-3),
    "t5": (AutoModelForSeq2SeqLM, seq2seq, ["dropout_rate"], 2e-4),
    "bart": (AutoModelForSeq2SeqLM, seq2seq, ["dropout"], 3e-3),
}


def rate(step, lr):
    warmup_steps, min_lr = OPTIMIZER["warmup_steps"], lr / 10
    if step < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / (STEPS - warmup_steps)
    return min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (lr - min_lr)


def groups(model):
    decays = lambda name, value: value.ndim == 2 and not any(table in name.split(".") for table in TABLES) and (
        "embeddings" not in name)
    named = list(model.named_parameters())
    return [
        {"params": [value for name, value in named if decays(name, value)], "weight_decay": OPTIMIZER["weight_decay"]},
        {"params": [value for name, value in named if not decays(name, value)], "weight_decay": 0.0},
    ]


def train(name, dtype):
    """The losses of all steps, and the gradients of the first."""
    auto, loss_of, dropouts, lr = RUNS[name]
    model = auto.from_pretrained(MODELS / name, **dict.fromkeys(dropouts, 0.0), attn_implementation="eager").to(dtype)
    model.train()
    settings = OPTIMIZER
    adamw = torch.optim.AdamW(groups(model), betas=(settings["beta1"], settings["beta2"]), eps=settings["eps"])
    losses, gradients = [], {}
    for step in range(STEPS):
        first = step * MICRO_BATCHES * ROWS
        parts = [loss_of(model, range(first + at, first + at + ROWS)) for at in (0, ROWS)]
        n_targets = sum((labels != -100).sum() for _, labels in parts)
        sums = [
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=-100)
            for logits, labels in parts
        ]
        loss = sum(sums) / n_targets
        adamw.zero_grad()
        loss.backward()
        if step == 0:
            gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        for group in adamw.param_groups:
            group["lr"] = rate(step, lr)
        adamw.step()
        losses.append(loss.item())
    return losses, gradients


def spread(values):
    """Evenly spaced values of a tensor: those at `at * count // VALUES`."""
    values = values.flatten().tolist()
    n = min(VALUES, len(values))
    return [values[at * len(values) // n] for at in range(n)]


def digits(number, n=7):
    return float(f"{number:.{n}g}")


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    runs = {}
    for name, (_, _, dropouts, lr) in RUNS.items():
        losses, gradients = train(name, torch.float64)
        apart = max(abs(a - b) for a, b in zip(losses, train(name, torch.float32)[0]))
        print(f"{name}: from {losses[0]:.4f} to {losses[-1]:.4f}; float32 is up to {apart:.1e} away")
        runs[name] = {
            "dropouts": dropouts,
            "lr": lr,
            "losses": [round(loss, 6) for loss in losses],
            "float32_error": digits(apart, 2),
            "gradients": {
                name: {"norm": digits(value.norm().item()), "values": [digits(value) for value in spread(value)]}
                for name, value in gradients.items()
            },
        }
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    fixture = {"versions": versions, "optimizer": OPTIMIZER, "runs": runs}
    (HERE / "steps.json").write_text(json.dumps(fixture, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
